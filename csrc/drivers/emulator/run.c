/* Runs of the software card: creation, stages, waiting and cancelling. */
#include "emulator.h"

#include <stdio.h>
#include <string.h>

enum { RUN_ARGS = 12, RUN_SPARES = 64 };

/* -- start -- */

/* A run for `count` arguments, from the spare ones if one fits. Under the lock. */
static apf_drv_run *run_take(emu_card *card, uint32_t count)
{
    apf_drv_run *run = card->spare;
    if (run && run->capacity >= count) {
        card->spare = run->next;
        card->spares--;
        return run;
    }
    const uint32_t capacity = count > RUN_ARGS ? count : RUN_ARGS;
    run = apf_calloc(1, sizeof *run + capacity * sizeof(emu_use));
    apf_model_arg *args = run ? apf_calloc(capacity, sizeof *args) : NULL;
    if (!args) {
        apf_free(run);
        return NULL;
    }
    run->args = args;
    run->capacity = capacity;
    apf_cond_init(&run->ended);
    return run;
}

static void run_free(apf_drv_run *run)
{
    pthread_cond_destroy(&run->ended);
    apf_free(run->details);
    apf_free(run->bytes);
    apf_free(run->args);
    apf_free(run);
}

static void use_begin(emu_use *use, const apf_drv_run *run, const apf_arg *arg)
{
    apf_drv_bo *bo = arg->bo;
    *use = (emu_use){.run = run, .bo = bo, .previous = bo->last_use};
    use->flags = arg->flags;
    use->offset = arg->offset;
    use->size = arg->size;
    *(use->previous ? &use->previous->next : &bo->first_use) = use;
    bo->last_use = use;
    bo->refs++;
}

static void use_end(emu_use *use)
{
    apf_drv_bo *bo = use->bo;
    *(use->previous ? &use->previous->next : &bo->first_use) = use->next;
    *(use->next ? &use->next->previous : &bo->last_use) = use->previous;
    emu_bo_drop(bo);
}

/* Copy the structs and vectors among the arguments, which the caller may free once the run has started; `copy` is NULL
 * if there are none. */
static int copy_bytes(const apf_arg *args, uint32_t count, void **copy, apf_error *err)
{
    uint64_t total = 0;
    *copy = NULL;
    for (uint32_t i = 0; i < count; i++)
        if (args[i].kind == APF_BYTES) total += args[i].size;
    if (!total) return APF_OK;
    uint8_t *to = *copy = apf_calloc(1, total);
    if (!to) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a run");
    for (uint32_t i = 0; i < count; i++) {
        if (args[i].kind != APF_BYTES) continue;
        memcpy(to, args[i].value.data, args[i].size);
        to += args[i].size;
    }
    return APF_OK;
}

static void run_fill(apf_drv_run *run, apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, void *bytes)
{
    uint8_t *record = run->bytes = bytes;
    run->card = kernel->card;
    run->kernel = kernel;
    run->next = NULL;
    run->waiting = run->computed = run->released = run->cancelled = run->done = run->code = 0;
    run->times = (apf_times){0, 0};
    run->error.code = APF_OK;
    run->error.sys = 0;
    run->error.text[0] = '\0';
    run->count = count;
    for (uint32_t i = 0; i < count; i++) {
        const apf_arg *from = &args[i];
        run->uses[i] = (emu_use){0};
        run->args[i] = (apf_model_arg){.kind = from->kind, .value.u = from->value.u};
        if (from->kind == APF_BYTES) {
            run->args[i] = (apf_model_arg){.kind = APF_BYTES, .data = record, .size = from->size};
            record += from->size;
        }
        if (from->kind != APF_BUFFER) continue;
        use_begin(&run->uses[i], run, from);
        run->args[i].data = from->bo->block->data + from->offset;
        run->args[i].size = from->size;
    }
}

int emu_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **started, apf_error *err)
{
    emu_card *card = kernel->card;
    int code = emu_check_arguments(kernel, args, count, err);
    void *bytes = NULL;
    if (code == APF_OK) code = copy_bytes(args, count, &bytes, err);
    if (code != APF_OK) return code;
    pthread_mutex_lock(&card->lock);
    apf_drv_run *run = NULL;
    if (card->lost)
        code = emu_fail_lost(card, err);
    else if (!(run = run_take(card, count)))
        code = apf_fail(err, APF_NO_MEMORY, 0, "no memory for a run");
    if (code == APF_OK) {
        run_fill(run, kernel, args, count, bytes);
        __atomic_add_fetch(&kernel->refs, 1, __ATOMIC_RELAXED);
        emu_queue_put(run);
        *started = run;
    }
    pthread_mutex_unlock(&card->lock);
    if (code != APF_OK) apf_free(bytes);
    return code;
}

/* -- stages -- */

static int move(apf_drv_run *run, uint32_t flag, int direction)
{
    int code = APF_OK;
    for (uint32_t i = 0; i < run->count && code == APF_OK; i++)
        if (run->uses[i].flags & flag)
            code = emu_transfer(run->uses[i].bo, direction, run->uses[i].offset, run->uses[i].size, &run->cancelled,
                                &run->error);
    return code;
}

/* Never end, as a kernel that waits for data that never arrives. Under the lock. */
static void hang(apf_drv_run *run)
{
    emu_card *card = run->card;
    while (!card->lost && !card->closing && (!run->cancelled || card->settings.ignore_cancel))
        pthread_cond_wait(&card->wake, &card->lock);
}

/* Faults of a run. Under the lock. */
static int begin(apf_drv_run *run)
{
    emu_card *card = run->card;
    int code = emu_operation(card, &run->error);
    if (code != APF_OK) return code;
    const int fails = emu_due(&card->settings.fail_run);
    if (emu_due(&card->settings.hang_run)) {
        hang(run);
        return card->lost ? emu_fail_lost(card, &run->error)
                          : apf_fail(&run->error, APF_CANCELLED, 0, "software card %u: a run of '%s' was cancelled",
                                     card->index, emu_kernel_name(run->kernel));
    }
    if (fails)
        return apf_fail(&run->error, APF_KERNEL, 0, "software card %u: injected failure of a run of '%s'", card->index,
                        emu_kernel_name(run->kernel));
    return APF_OK;
}

/* Wait for as long as the simulated card would take. Under the lock. */
static void last(apf_drv_run *run)
{
    emu_card *card = run->card;
    const emu_settings *settings = &card->settings;
    if (!settings->run_latency && !settings->compute_bandwidth) return;
    uint64_t largest = 0;
    for (uint32_t i = 0; i < run->count; i++)
        if (run->args[i].size > largest) largest = run->args[i].size;
    emu_sleep(card,
              (int64_t)run->times.start + (int64_t)settings->run_latency +
                  emu_duration(largest, settings->compute_bandwidth),
              &run->cancelled);
}

static int compute(apf_drv_run *run)
{
    emu_card *card = run->card;
    pthread_mutex_lock(&card->lock);
    int code = begin(run);
    pthread_mutex_unlock(&card->lock);
    if (code != APF_OK) return code;
    run->times.start = (uint64_t)apf_now();
    const int failed = emu_call_model(run->kernel, run->args, run->count, &run->cancelled, &run->error);
    run->details = emu_kernel_details(run->kernel);
    pthread_mutex_lock(&card->lock);
    if (!failed) last(run);
    run->times.end = (uint64_t)apf_now();
    if (card->lost)
        code = emu_fail_lost(card, &run->error);
    else if (run->cancelled || card->closing)
        code = apf_fail(&run->error, APF_CANCELLED, 0, "software card %u: a run of '%s' was cancelled", card->index,
                        emu_kernel_name(run->kernel));
    else if (failed) {
        code = run->error.code = APF_KERNEL;
        if (!run->error.text[0]) apf_fail(&run->error, code, 0, "'%s' failed", emu_kernel_name(run->kernel));
    }
    pthread_mutex_unlock(&card->lock);
    return code;
}

int emu_run_stage(apf_drv_run *run, enum emu_stage stage)
{
    switch (stage) {
    case EMU_TO:
        return move(run, APF_SYNC_TO, APF_TO_DEVICE);
    case EMU_RUN:
        return compute(run);
    default:
        return move(run, APF_SYNC_FROM, APF_FROM_DEVICE);
    }
}

/* -- end -- */

/* Change the number of result transfers in progress for this run. */
static void leaving(const apf_drv_run *run, int change)
{
    for (uint32_t i = 0; i < run->count; i++)
        if (run->uses[i].flags & APF_SYNC_FROM) run->uses[i].bo->leaving += (uint32_t)change;
}

void emu_run_computed(apf_drv_run *run)
{
    run->computed = 1;
    leaving(run, +1);
}

void emu_run_finish(apf_drv_run *run, int code)
{
    if (run->computed) leaving(run, -1);
    for (uint32_t i = 0; i < run->count; i++)
        if (run->uses[i].bo) use_end(&run->uses[i]);
    run->code = code;
    if (code == APF_OK) run->card->counters.runs++;
    __atomic_store_n(&run->done, 1, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&run->ended);
    emu_queue_poke(run->card);
}

void emu_run_recycle(apf_drv_run *run)
{
    emu_card *card = run->card;
    emu_unload(run->kernel);
    apf_free(run->details);
    apf_free(run->bytes);
    run->details = NULL;
    run->bytes = NULL;
    pthread_mutex_lock(&card->lock);
    const int keep = card->spares < RUN_SPARES;
    if (keep) {
        run->next = card->spare;
        card->spare = run;
        card->spares++;
    }
    pthread_mutex_unlock(&card->lock);
    if (!keep) run_free(run);
}

void emu_runs_end(emu_card *card)
{
    while (card->spare) {
        apf_drv_run *run = card->spare;
        card->spare = run->next;
        run_free(run);
    }
}

static int is_done(const apf_drv_run *run) { return __atomic_load_n(&run->done, __ATOMIC_ACQUIRE); }

int emu_wait(apf_drv_run *run, int64_t timeout, apf_error *err)
{
    emu_card *card = run->card;
    if (timeout && !is_done(run)) {
        const int64_t deadline = apf_deadline(timeout);
        pthread_mutex_lock(&card->lock);
        while (!run->done && apf_cond_wait(&run->ended, &card->lock, deadline)) continue;
        pthread_mutex_unlock(&card->lock);
    }
    if (!is_done(run))
        return apf_fail(err, APF_TIMEOUT, 0, "software card %u: a run of '%s' did not end in time", card->index,
                        emu_kernel_name(run->kernel));
    if (run->code != APF_OK && err) *err = run->error;
    return run->code;
}

/* Cancel a run; one that has not begun ends now. Under the lock. */
static void stop(apf_drv_run *run)
{
    if (run->done) return;
    __atomic_store_n(&run->cancelled, 1, __ATOMIC_RELAXED);
    if (run->waiting) {
        emu_queue_remove(run);
        emu_run_finish(run, apf_fail(&run->error, APF_CANCELLED, 0, "software card %u: a run of '%s' was cancelled",
                                     run->card->index, emu_kernel_name(run->kernel)));
    }
    pthread_cond_broadcast(&run->card->wake);
}

int emu_cancel(apf_drv_run *run, apf_error *err)
{
    (void)err;
    pthread_mutex_lock(&run->card->lock);
    stop(run);
    pthread_mutex_unlock(&run->card->lock);
    return APF_OK;
}

void emu_release(apf_drv_run *run)
{
    emu_card *card = run->card;
    pthread_mutex_lock(&card->lock);
    stop(run);
    run->released = 1;
    const int done = run->done;
    pthread_mutex_unlock(&card->lock);
    if (done) emu_run_recycle(run); /* otherwise the lane recycles it */
}

void emu_times(apf_drv_run *run, apf_times *times) { *times = run->times; }

int emu_details(apf_drv_run *run, char *text, size_t size, apf_error *err)
{
    if (!is_done(run) || !run->details) return apf_fail(err, APF_NOT_FOUND, 0, "the run has no details");
    snprintf(text, size, "%s", run->details);
    return APF_OK;
}
