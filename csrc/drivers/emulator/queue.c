/* The queue of the software card: three lanes (to the device, compute, from the device), so that the transfers of some
 * runs overlap the computation of others, as on a card.
 *
 * Order: runs pass "to" and "compute" in the order of their starts. If runs share a buffer object, a transfer to it
 * waits for all earlier runs on it, and a computation on it waits until earlier results have been transferred. Runs
 * that share none overlap freely.
 */
#include "emulator.h"

#include <errno.h>
#include <signal.h>

/* The thread that has the run makes a transfer of at most this many bytes itself: the copy takes less time than waking
 * another thread (5 to 50 us). */
#define SMALL (64u << 10)

/* How long close waits for a model that does not check `cancelled`. */
#define CLOSE_NS 1000000000

/* -- the work of a stage, and when it may start -- */

static int flag_of(enum emu_stage stage) { return stage == EMU_TO ? APF_SYNC_TO : APF_SYNC_FROM; }

static int has_work(const apf_drv_run *run, enum emu_stage stage)
{
    if (stage == EMU_RUN) return 1;
    for (uint32_t i = 0; i < run->count; i++)
        if (run->uses[i].flags & (uint32_t)flag_of(stage)) return 1;
    return 0;
}

/* Total bytes of the run's buffers; with `flag`, only of the arguments that have it. */
static uint64_t bytes_of(const apf_drv_run *run, uint32_t flag)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < run->count; i++)
        if (run->uses[i].flags & flag || !flag) bytes += run->uses[i].size;
    return bytes;
}

/* Whether a stage takes less time than waking its lane's thread. */
static int is_short(const apf_drv_run *run, enum emu_stage stage)
{
    const emu_settings *settings = &run->card->settings;
    switch (stage) {
    case EMU_TO:
        return !settings->latency && !settings->to_device_bandwidth && bytes_of(run, APF_SYNC_TO) <= SMALL;
    case EMU_RUN:
        return !settings->run_latency && !settings->compute_bandwidth && !settings->hang_run &&
               bytes_of(run, 0) <= emu_kernel_quick(run->kernel);
    default:
        return !settings->latency && !settings->from_device_bandwidth && bytes_of(run, APF_SYNC_FROM) <= SMALL;
    }
}

/* Whether earlier runs no longer use the buffers of this stage. */
static int is_ready(const apf_drv_run *run, enum emu_stage stage)
{
    for (uint32_t i = 0; i < run->count; i++) {
        const emu_use *use = &run->uses[i];
        if (!use->bo) continue;
        if (stage == EMU_TO && use->flags & APF_SYNC_TO && use->bo->first_use->run != run) return 0;
        if (stage == EMU_RUN && use->bo->leaving) return 0;
    }
    return 1;
}

/* -- lanes -- */

static void *lane_main(void *argument);

static int lane_start(emu_lane *lane, apf_error *err)
{
    if (lane->started) return APF_OK;
    /* The program's threads handle signals, except a fault in a copy, which this thread handles: see apf_copy. */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = apf_allocation_fails() ? EAGAIN : pthread_create(&lane->thread, NULL, lane_main, lane);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure) return apf_fail(err, APF_NO_MEMORY, failure, "software card %u: no thread", lane->card->index);
    lane->started = 1;
    lane->card->refs++;
    apf_live_add(threads, 1);
    return APF_OK;
}

static void lane_append(emu_lane *lane, apf_drv_run *run)
{
    run->stage = (int)lane->stage;
    run->waiting = 1;
    run->next = NULL;
    if (lane->last)
        lane->last->next = run;
    else
        lane->first = run;
    lane->last = run;
    pthread_cond_signal(&lane->work);
}

void emu_queue_remove(apf_drv_run *run)
{
    emu_lane *lane = &run->card->lanes[run->stage];
    apf_drv_run *before = NULL;
    for (apf_drv_run *at = lane->first; at != run; at = at->next) before = at;
    if (before)
        before->next = run->next;
    else
        lane->first = run->next;
    if (lane->last == run) lane->last = before;
    run->waiting = 0;
}

void emu_queue_poke(emu_card *card)
{
    for (int i = 0; i < EMU_LANES; i++)
        if (card->lanes[i].first && !card->lanes[i].current) pthread_cond_signal(&card->lanes[i].work);
}

/* Do one stage in this thread. Under the lock, which is released meanwhile. */
static int lane_do(emu_lane *lane, apf_drv_run *run)
{
    emu_card *card = lane->card;
    lane->current = run;
    pthread_mutex_unlock(&card->lock);
    int code = emu_run_stage(run, lane->stage);
    pthread_mutex_lock(&card->lock);
    lane->current = NULL;
    if (code == APF_OK && run->cancelled)
        code = apf_fail(&run->error, APF_CANCELLED, 0, "software card %u: a run of '%s' was cancelled", card->index,
                        emu_kernel_name(run->kernel));
    if (lane->stage == EMU_RUN && code == APF_OK) emu_run_computed(run);
    if (lane->first) pthread_cond_signal(&lane->work);
    return code;
}

/* Move `run` to the stage after `stage`. Returns 1 if it has ended. Under the lock, which may be released meanwhile. */
static int lanes_pass(apf_drv_run *run, enum emu_stage stage)
{
    emu_card *card = run->card;
    int code = APF_OK;
    for (; stage < EMU_LANES && code == APF_OK; stage++) {
        emu_lane *lane = &card->lanes[stage];
        const int idle = !lane->first && !lane->current;
        /* A run without data to transfer may still not overtake runs with data. */
        if (!has_work(run, stage) && (idle || stage == EMU_FROM)) continue;
        if (idle && is_short(run, stage) && is_ready(run, stage)) {
            code = lane_do(lane, run);
        } else if ((code = lane_start(lane, &run->error)) == APF_OK) {
            lane_append(lane, run);
            return 0;
        }
    }
    emu_run_finish(run, code);
    return 1;
}

/* Wait for the next run that can start; NULL: the card is being closed. Under the lock, which is released while it
 * waits. */
static apf_drv_run *lane_next(emu_lane *lane)
{
    emu_card *card = lane->card;
    while (!card->closing) {
        apf_drv_run *run = lane->first;
        if (run && !lane->current && is_ready(run, lane->stage)) {
            emu_queue_remove(run);
            return run;
        }
        pthread_cond_wait(&lane->work, &card->lock);
    }
    return NULL;
}

static void *lane_main(void *argument)
{
    emu_lane *lane = argument;
    emu_card *card = lane->card;
    apf_drv_run *run;
    pthread_mutex_lock(&card->lock);
    while ((run = lane_next(lane))) {
        int code = lane_do(lane, run), ended = 1;
        if (code == APF_OK)
            ended = lanes_pass(run, lane->stage + 1);
        else
            emu_run_finish(run, code);
        if (ended && run->released) {
            pthread_mutex_unlock(&card->lock);
            emu_run_recycle(run);
            pthread_mutex_lock(&card->lock);
        }
    }
    lane->exited = 1;
    apf_live_add(threads, -1);
    pthread_cond_broadcast(&card->wake);
    pthread_mutex_unlock(&card->lock);
    emu_card_drop(card);
    return NULL;
}

/* -- queue -- */

void emu_queue_put(apf_drv_run *run) { lanes_pass(run, EMU_TO); }

void emu_queue_init(emu_card *card)
{
    apf_cond_init(&card->wake);
    for (int i = 0; i < EMU_LANES; i++) {
        card->lanes[i].card = card;
        card->lanes[i].stage = (enum emu_stage)i;
        pthread_cond_init(&card->lanes[i].work, NULL);
    }
}

static void lane_empty(emu_lane *lane)
{
    while (lane->first) {
        apf_drv_run *run = lane->first;
        emu_queue_remove(run);
        emu_run_finish(run, apf_fail(&run->error, APF_CANCELLED, 0, "software card %u was closed", lane->card->index));
    }
    if (lane->current) __atomic_store_n(&lane->current->cancelled, 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&lane->work);
}

static int lanes_exited(const emu_card *card)
{
    for (int i = 0; i < EMU_LANES; i++)
        if (card->lanes[i].started && !card->lanes[i].exited) return 0;
    return 1;
}

void emu_queue_close(emu_card *card)
{
    int exited[EMU_LANES];
    pthread_mutex_lock(&card->lock);
    __atomic_store_n(&card->closing, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < EMU_LANES; i++) lane_empty(&card->lanes[i]);
    pthread_cond_broadcast(&card->wake);
    const int64_t deadline = apf_deadline(CLOSE_NS);
    while (!lanes_exited(card) && apf_cond_wait(&card->wake, &card->lock, deadline)) continue;
    for (int i = 0; i < EMU_LANES; i++) exited[i] = card->lanes[i].exited;
    pthread_mutex_unlock(&card->lock);
    for (int i = 0; i < EMU_LANES; i++) {
        if (!card->lanes[i].started) continue;
        if (exited[i])
            pthread_join(card->lanes[i].thread, NULL);
        else
            pthread_detach(card->lanes[i].thread);
    }
}

void emu_queue_end(emu_card *card)
{
    for (int i = 0; i < EMU_LANES; i++) pthread_cond_destroy(&card->lanes[i].work);
    pthread_cond_destroy(&card->wake);
}
