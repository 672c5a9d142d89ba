/* The order of runs on a device. XRT gives a run to any free compute unit and does not track its data. If an earlier
 * run still uses a run's memory, the later run is deferred until the earlier one has ended. A waiting thread then
 * starts it. */
#include "xrt.h"

#include <errno.h>

#define WORTH_HELP (64u << 10) /* bytes of results */
#define FIRST_PAUSE 20000      /* ns */
#define LONGEST_PAUSE 1000000

/* -- which run must wait for which -- */

/* An argument that is only transferred to the device, or said to be read, is an input. The kernel may change the memory
 * of any other. */
static int may_write(const xrt_held *held)
{
    return !(held->flags & (APF_SYNC_TO | APF_READS)) || (held->flags & APF_SYNC_FROM);
}

static int overlap(const xrt_held *a, const xrt_held *b)
{
    return a->part && b->part && a->bo == b->bo && a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

static int in_the_way(const apf_drv_run *earlier, const apf_drv_run *later)
{
    /* Also on one compute unit: a pipelined kernel (ap_ctrl_chain) begins a run before the one before it has ended. */
    for (uint32_t i = 0; i < earlier->kernel->count; i++) {
        const xrt_held *a = &earlier->held[i];
        for (uint32_t j = 0; a->part && j < later->kernel->count; j++) {
            const xrt_held *b = &later->held[j];
            if (overlap(a, b) && (may_write(a) || may_write(b))) return 1;
        }
    }
    return 0;
}

/* The first run that `run` has to wait for; NULL: none. */
static apf_drv_run *blocker(const apf_drv_run *run)
{
    apf_drv_run *earlier = run->kernel->device->first;
    while (earlier != run && !in_the_way(earlier, run)) earlier = earlier->later;
    return earlier == run ? NULL : earlier;
}

/* -- phases: all under the lock -- */

static void append(apf_drv_run *run)
{
    apf_drv_device *device = run->kernel->device;
    run->later = NULL;
    run->earlier = device->last;
    if (device->last)
        device->last->later = run;
    else
        device->first = run;
    device->last = run;
}

static void end(apf_drv_run *run, int code)
{
    apf_drv_device *device = run->kernel->device;
    if (run->earlier)
        run->earlier->later = run->later;
    else
        device->first = run->later;
    if (run->later)
        run->later->earlier = run->earlier;
    else
        device->last = run->earlier;
    run->phase = XRT_ENDED;
    run->code = code;
}

static int give_to_xrt(const apf_drv_run *run, apf_error *err)
{
    const apf_drv_kernel *kernel = run->kernel;
    const int code = xrt_held_sync(run, APF_SYNC_TO, APF_TO_DEVICE, err);
    if (code != APF_OK) return code;
    errno = 0;
    if (kernel->device->xrt->RunStart(run->handle) == 0) return APF_OK;
    return xrt_fail(err, xrt_code(APF_KERNEL), "cannot start '%s' on '%s'" XRT_RESET, kernel->name,
                    kernel->device->info.name);
}

/* Start a claimed run in XRT; the lock is released meanwhile. */
static void launch(apf_drv_run *run)
{
    apf_drv_device *device = run->kernel->device;
    pthread_mutex_unlock(&device->order);
    const int code = give_to_xrt(run, &run->error);
    pthread_mutex_lock(&device->order);
    if (code == APF_OK)
        run->phase = XRT_STARTED;
    else
        end(run, code);
}

/* Wait for a claimed run that XRT has, and transfer its results; the lock is released meanwhile. */
static void finish(apf_drv_run *run, int64_t deadline)
{
    apf_drv_device *device = run->kernel->device;
    pthread_mutex_unlock(&device->order);
    errno = 0;
    const int state = xrt_state_wait(device->xrt, run->handle, deadline);
    int code = APF_OK;
    if (xrt_state_ended(state)) {
        code = xrt_state_code(run, state, &run->error);
        if (code == APF_OK) {
            code = xrt_held_sync(run, APF_SYNC_FROM, APF_FROM_DEVICE, &run->error);
            __atomic_add_fetch(&device->counters.runs, 1, __ATOMIC_RELAXED);
        }
    }
    pthread_mutex_lock(&device->order);
    if (xrt_state_ended(state)) end(run, code);
}

static void unclaim(apf_drv_run *run)
{
    run->claimed = 0;
    pthread_cond_broadcast(&run->kernel->device->moved);
}

/* Start the deferred runs that no longer need to wait. */
static void launch_ready(apf_drv_device *device)
{
    apf_drv_run *run = device->first;
    while (run) {
        if (run->phase == XRT_DEFERRED && !run->claimed && !blocker(run)) {
            run->claimed = 1;
            launch(run);
            unclaim(run);
            run = device->first; /* the order may have changed */
        } else {
            run = run->later;
        }
    }
}

/* -- helper -- */

/* The first run that has ended but whose results are not transferred yet. */
static apf_drv_run *find_done(const apf_drv_device *device)
{
    for (apf_drv_run *run = device->first; run; run = run->later)
        if (run->phase == XRT_STARTED && !run->claimed && !run->abandoned && run->results >= WORTH_HELP &&
            xrt_state_ended(device->xrt->RunState(run->handle)))
            return run;
    return NULL;
}

/* While several runs are in flight, the helper transfers the results of one while the caller transfers the data of the
 * next. */
static void *help(void *argument)
{
    apf_drv_device *device = argument;
    int64_t pause = FIRST_PAUSE;
    pthread_mutex_lock(&device->order);
    while (!device->stopping) {
        apf_drv_run *run = device->first != device->last ? find_done(device) : NULL;
        if (run) {
            pause = FIRST_PAUSE;
            run->claimed = 1;
            finish(run, 0);
            unclaim(run);
            launch_ready(device);
        } else if (device->first == device->last) {
            pthread_cond_wait(&device->moved, &device->order);
        } else {
            apf_cond_wait(&device->moved, &device->order, apf_deadline(pause));
            if (pause < LONGEST_PAUSE) pause += pause / 4;
        }
    }
    pthread_mutex_unlock(&device->order);
    apf_live_add(threads, -1);
    return NULL;
}

/* Called with the lock. If no thread can be started, the waiting threads do all the work. */
static void call_helper(apf_drv_device *device)
{
    if (!device->helping && !apf_allocation_fails() && pthread_create(&device->helper, NULL, help, device) == 0) {
        device->helping = 1;
        apf_live_add(threads, 1);
    }
    pthread_cond_broadcast(&device->moved);
}

void xrt_order_end(apf_drv_device *device)
{
    pthread_mutex_lock(&device->order);
    device->stopping = 1;
    pthread_cond_broadcast(&device->moved);
    pthread_mutex_unlock(&device->order);
    if (device->helping) pthread_join(device->helper, NULL);
}

/* -- start and wait -- */

int xrt_order_enter(apf_drv_run *run, apf_error *err)
{
    apf_drv_device *device = run->kernel->device;
    pthread_mutex_lock(&device->order);
    run->phase = XRT_DEFERRED;
    run->claimed = run->abandoned = 0;
    append(run);
    if (!blocker(run)) {
        run->claimed = 1;
        launch(run);
        unclaim(run);
    }
    const int code = run->code;
    if (code == APF_OK && run->results >= WORTH_HELP && device->first != device->last) call_helper(device);
    pthread_mutex_unlock(&device->order);
    if (code != APF_OK && err) *err = run->error;
    return code;
}

/* Move `run`, or the run that it waits for, to its next phase. */
static void move_on(apf_drv_run *run, int64_t deadline)
{
    apf_drv_device *device = run->kernel->device;
    for (apf_drv_run *before; run->phase == XRT_DEFERRED && (before = blocker(run));) run = before;
    if (run->claimed) {
        apf_cond_wait(&device->moved, &device->order, deadline); /* another thread moves it */
        return;
    }
    run->claimed = 1;
    if (run->phase == XRT_DEFERRED)
        launch(run);
    else
        finish(run, deadline);
    const int ended = run->phase == XRT_ENDED;
    unclaim(run);
    if (ended) launch_ready(device);
}

int xrt_run_wait(apf_drv_run *run, int64_t timeout, apf_error *err)
{
    const apf_drv_kernel *kernel = run->kernel;
    apf_drv_device *device = kernel->device;
    const int64_t deadline = apf_deadline(timeout);
    int over = 0;
    pthread_mutex_lock(&device->order);
    while (run->phase != XRT_ENDED && !over) {
        move_on(run, deadline);
        over = run->phase != XRT_ENDED && deadline >= 0 && apf_now() >= deadline;
    }
    const int phase = run->phase;
    pthread_mutex_unlock(&device->order);
    if (phase != XRT_ENDED)
        return apf_fail(err, APF_TIMEOUT, 0, "'%s' on '%s' %s after %.3f s", kernel->name, device->info.name,
                        phase == XRT_DEFERRED ? "still waits for a run before it" : "still runs",
                        (double)timeout / 1e9);
    xrt_held_leave(run); /* its buffer objects may be freed now */
    if (run->code != APF_OK && err) *err = run->error;
    return run->code;
}

/* -- end -- */

int xrt_order_cancel(apf_drv_run *run)
{
    apf_drv_device *device = run->kernel->device;
    pthread_mutex_lock(&device->order);
    const int kept_back = run->phase == XRT_DEFERRED && !run->claimed;
    if (kept_back) {
        end(run, apf_fail(&run->error, APF_CANCELLED, 0, "the run of '%s' was cancelled before it began",
                          run->kernel->name));
        pthread_cond_broadcast(&device->moved);
        launch_ready(device);
    }
    pthread_mutex_unlock(&device->order);
    return kept_back;
}

int xrt_order_leave(apf_drv_run *run)
{
    apf_drv_device *device = run->kernel->device;
    pthread_mutex_lock(&device->order);
    if (run->phase != XRT_ENDED && !run->claimed &&
        (run->phase == XRT_DEFERRED || xrt_state_ended(device->xrt->RunState(run->handle)))) {
        end(run, APF_CANCELLED);
        launch_ready(device);
    }
    const int ended = run->phase == XRT_ENDED;
    run->abandoned = !ended;
    pthread_mutex_unlock(&device->order);
    return ended;
}
