/* Runs of the xrt driver: arguments, start, wait with real timeouts, abort. */
#include "xrt_internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define IDLE_RUNS 64          /* ended runs that a kernel keeps */
#define LONGEST_WAIT 60000u   /* ms of one xrtRunWaitFor; 0 would wait for ever, whatever happens */
#define SPIN 30000            /* ns */
#define LONGEST_PAUSE 1000000 /* ns */
#define RESET "; if the card stays so, reset it (xbutil reset)"

/* What an argument of XRT's run was last set to: identity of a part, or a scalar's bits. */
typedef struct setting {
    uint64_t value;
    uint32_t kind;
    int set;
} setting;

/* A buffer argument of the current start. */
typedef struct held {
    apf_drv_bo *bo;
    xrt_part *part;
    uint64_t offset;
    uint64_t size;
    uint32_t flags;
} held;

/* States: idle (in its kernel's list) -> started -> ended (waited for) -> idle; or started -> abandoned. */
struct apf_drv_run {
    apf_drv_kernel *kernel;
    xrt_run handle;
    apf_drv_run *next; /* idle or abandoned: in a list */
    int code;          /* how it ended; -1: not yet */
    apf_error error;
    pthread_mutex_t lock; /* cancel and wait meet here */
    int aborting;         /* abort was asked for; a thread of ours is or was in it */
    int abort_running;
    pthread_cond_t abort_ended;
    setting *settings; /* kernel->count of them, and so the next */
    held *held;
};

/* -- making and keeping -------------------------------------------------------------------------------------------- */

static void close_run(const xrt_api *xrt, apf_drv_run *run)
{
    xrt_objects_lock();
    xrt->RunClose(run->handle);
    xrt_objects_unlock();
    pthread_mutex_destroy(&run->lock);
    pthread_cond_destroy(&run->abort_ended);
    apf_free(run);
}

void xrt_runs_close(const xrt_api *xrt, apf_drv_run *runs)
{
    while (runs) {
        apf_drv_run *next = runs->next;
        close_run(xrt, runs);
        runs = next;
    }
}

static int open_run(apf_drv_kernel *kernel, apf_drv_run **opened, apf_error *err)
{
    const uint32_t count = kernel->count;
    apf_drv_run *run = apf_calloc(1, sizeof *run + count * (sizeof(setting) + sizeof(held)));
    if (!run) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a run of '%s'", kernel->name);
    xrt_objects_lock();
    errno = 0;
    run->handle = kernel->device->xrt->RunOpen(kernel->handle);
    const int sys = errno;
    xrt_objects_unlock();
    if (!run->handle) {
        apf_free(run);
        errno = sys;
        return xrt_fail(err, xrt_code(APF_KERNEL), "cannot open a run of '%s'", kernel->name);
    }
    run->kernel = kernel;
    run->held = (held *)(run + 1);
    run->settings = (setting *)(run->held + count);
    pthread_mutex_init(&run->lock, NULL);
    pthread_cond_init(&run->abort_ended, NULL);
    *opened = run;
    return APF_OK;
}

static int take_run(apf_drv_kernel *kernel, apf_drv_run **taken, apf_error *err)
{
    pthread_mutex_lock(&kernel->lock);
    apf_drv_run *run = kernel->idle;
    if (run) {
        kernel->idle = run->next;
        kernel->idle_count--;
    }
    pthread_mutex_unlock(&kernel->lock);
    if (!run) return open_run(kernel, taken, err);
    *taken = run;
    return APF_OK;
}

static void keep_run(apf_drv_run *run)
{
    apf_drv_kernel *kernel = run->kernel;
    pthread_mutex_lock(&kernel->lock);
    /* After any failure a run of XRT's may be in a state from which it cannot start. */
    const int keep = run->code == APF_OK && kernel->idle_count < IDLE_RUNS;
    if (keep) {
        run->next = kernel->idle;
        kernel->idle = run;
        kernel->idle_count++;
    }
    pthread_mutex_unlock(&kernel->lock);
    if (!keep) close_run(kernel->device->xrt, run);
}

static void leave_parts(apf_drv_run *run)
{
    for (uint32_t i = 0; i < run->kernel->count; i++) {
        if (run->held[i].part) xrt_part_leave(run->held[i].bo, run->held[i].part);
        run->held[i].part = NULL;
    }
}

/* -- start -----------------------------------------------------------------------------------------------------------
 */

static int set(apf_drv_run *run, uint32_t index, const apf_arg *arg, apf_error *err)
{
    apf_drv_kernel *kernel = run->kernel;
    held *held = &run->held[index];
    uint64_t value = arg->value.u;
    *held = (struct held){NULL, NULL, 0, 0, 0};
    if (arg->kind == APF_BUFFER) {
        *held = (struct held){arg->bo, NULL, arg->offset, arg->size, arg->flags};
        const int code = xrt_part_use(arg->bo, arg->offset, &held->part, err);
        if (code != APF_OK) return code;
        value = held->part->identity;
    }
    setting *setting = &run->settings[index];
    if (setting->set && setting->kind == arg->kind && setting->value == value) return APF_OK;
    setting->set = 0;
    errno = 0;
    const int failed = arg->kind == APF_BUFFER
                           ? kernel->device->xrt->RunSetArg(run->handle, (int)index, held->part->handle)
                           : xrt_scalar_set(kernel, run->handle, index, arg);
    if (failed)
        return xrt_fail(err, xrt_code(APF_ARGUMENT), "cannot set argument %u of '%s' (%s)", index, kernel->name,
                        kernel->parameters[index].name);
    *setting = (struct setting){value, arg->kind, 1};
    return APF_OK;
}

static int sync_held(const apf_drv_run *run, uint32_t flag, int direction, apf_error *err)
{
    for (uint32_t i = 0; i < run->kernel->count; i++) {
        const held *held = &run->held[i];
        if (!held->part || !(held->flags & flag)) continue;
        const int code = xrt_bo_sync(held->bo, direction, held->offset, held->size, err);
        if (code != APF_OK) return code;
    }
    return APF_OK;
}

int xrt_run_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **started, apf_error *err)
{
    if (count != kernel->count)
        return apf_fail(err, APF_ARGUMENT, 0, "'%s' has %u arguments; got %u", kernel->name, kernel->count, count);
    for (uint32_t i = 0; i < count; i++) {
        const int code = xrt_argument_check(kernel, i, &args[i], err);
        if (code != APF_OK) return code;
    }
    apf_drv_run *run = NULL;
    int code = take_run(kernel, &run, err);
    if (code != APF_OK) return code;
    run->code = -1;
    run->aborting = 0;
    for (uint32_t i = 0; code == APF_OK && i < count; i++) code = set(run, i, &args[i], err);
    if (code == APF_OK) code = sync_held(run, APF_SYNC_TO, APF_TO_DEVICE, err);
    if (code == APF_OK) {
        errno = 0;
        if (kernel->device->xrt->RunStart(run->handle) != 0)
            code = xrt_fail(err, xrt_code(APF_KERNEL), "cannot start '%s' on '%s'" RESET, kernel->name,
                            kernel->device->info.name);
    }
    if (code != APF_OK) {
        leave_parts(run);
        keep_run(run);
        return code;
    }
    *started = run;
    return APF_OK;
}

/* -- wait ---------------------------------------------------------------------------------------------------------- */

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int ended(int state) { return state >= XRT_STATE_COMPLETED && state != XRT_STATE_SUBMITTED; }

/* Wait for an end state for `timeout` ns; returns the last state.
 *
 * Without a timeout XRT waits, which has the least latency. With one it does not: its timeout begins anew whenever any
 * other run on the card completes, and its waits take turns, each for its own timeout (2.13). The state is in memory
 * that the card's driver writes, so it is looked at, for the first microseconds without pause, then with pauses of a
 * sixteenth of the time that has passed. */
static int wait_state(const xrt_api *xrt, xrt_run handle, int64_t timeout)
{
    int state = xrt->RunState(handle);
    if (timeout < 0) {
        while (!ended(state)) {
            state = xrt->RunWaitFor(handle, LONGEST_WAIT);
            /* Some versions answer "timeout" when the wait was over, not the run. */
            if (state == XRT_STATE_TIMEOUT) state = xrt->RunState(handle);
        }
        return state;
    }
    const int64_t begin = now();
    for (int64_t passed = 0; !ended(state) && passed < timeout; passed = now() - begin) {
        if (passed > SPIN) {
            int64_t pause = passed / 16;
            if (pause > LONGEST_PAUSE) pause = LONGEST_PAUSE;
            if (pause > timeout - passed) pause = timeout - passed;
            nanosleep(&(struct timespec){0, pause}, NULL);
        }
        state = xrt->RunState(handle);
    }
    return state;
}

static int end_of(const apf_drv_run *run, int state, apf_error *err)
{
    const apf_drv_kernel *kernel = run->kernel;
    const char *device = kernel->device->info.name;
    switch (state) {
    case XRT_STATE_COMPLETED:
        return APF_OK;
    case XRT_STATE_ABORT:
        if (run->aborting) return apf_fail(err, APF_CANCELLED, 0, "the run of '%s' was aborted", kernel->name);
        return xrt_fail(err, APF_KERNEL, "XRT aborted the run of '%s' on '%s'" RESET, kernel->name, device);
    case XRT_STATE_TIMEOUT:
        return xrt_fail(err, APF_KERNEL, "the run of '%s' exceeded the time limit of '%s'" RESET, kernel->name, device);
    case XRT_STATE_NO_RESPONSE:
        return xrt_fail(err, APF_DEVICE_LOST, "'%s' does not respond to the run of '%s'" RESET, device, kernel->name);
    case XRT_STATE_SOFT_ERROR:
    case XRT_STATE_SOFT_CRASHED:
        return xrt_fail(err, APF_KERNEL, "the soft kernel '%s' on '%s' %s", kernel->name, device,
                        state == XRT_STATE_SOFT_ERROR ? "returned an error" : "crashed");
    default:
        return xrt_fail(err, APF_KERNEL, "the run of '%s' on '%s' ended in state %d (%s)" RESET, kernel->name, device,
                        state, state == XRT_STATE_ERROR ? "error" : "unknown");
    }
}

int xrt_run_wait(apf_drv_run *run, int64_t timeout, apf_error *err)
{
    if (run->code >= 0) {
        if (err) *err = run->error;
        return run->code;
    }
    apf_drv_kernel *kernel = run->kernel;
    errno = 0;
    const int state = wait_state(kernel->device->xrt, run->handle, timeout);
    if (!ended(state))
        return apf_fail(err, APF_TIMEOUT, 0, "'%s' on '%s' still runs after %.3f s (state %d)", kernel->name,
                        kernel->device->info.name, (double)timeout / 1e9, state);
    pthread_mutex_lock(&run->lock);
    int code = end_of(run, state, &run->error);
    pthread_mutex_unlock(&run->lock);
    if (code == APF_OK) {
        code = sync_held(run, APF_SYNC_FROM, APF_FROM_DEVICE, &run->error);
        __atomic_add_fetch(&kernel->device->counters.runs, 1, __ATOMIC_RELAXED);
    }
    leave_parts(run);
    run->code = code;
    if (code != APF_OK && err) *err = run->error;
    return code;
}

/* -- abort --------------------------------------------------------------------------------------------------------- */

static void *abort_thread(void *argument)
{
    apf_drv_run *run = argument;
    xrt_abort(run->handle);
    pthread_mutex_lock(&run->lock);
    run->abort_running = 0;
    pthread_cond_broadcast(&run->abort_ended);
    pthread_mutex_unlock(&run->lock);
    apf_live_add(threads, -1);
    return NULL;
}

int xrt_run_cancel(apf_drv_run *run, apf_error *err)
{
    if (!xrt_abort_available())
        return apf_fail(err, APF_UNSUPPORTED, 0, "this version of XRT cannot abort a run" RESET);
    int code = APF_OK;
    pthread_mutex_lock(&run->lock);
    /* XRT's abort returns when the run has ended, which it may never do: that is waited for elsewhere. */
    if (!run->aborting && !ended(run->kernel->device->xrt->RunState(run->handle))) {
        pthread_t thread;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        run->aborting = run->abort_running = 1;
        apf_live_add(threads, 1);
        const int failed = apf_allocation_fails() ? EAGAIN : pthread_create(&thread, &attributes, abort_thread, run);
        if (failed) {
            apf_live_add(threads, -1);
            run->aborting = run->abort_running = 0;
            code = apf_fail(err, APF_NO_MEMORY, failed, "no thread to abort the run of '%s' in", run->kernel->name);
        }
        pthread_attr_destroy(&attributes);
    }
    pthread_mutex_unlock(&run->lock);
    return code;
}

/* -- end ----------------------------------------------------------------------------------------------------------- */

void xrt_run_release(apf_drv_run *run)
{
    apf_drv_kernel *kernel = run->kernel;
    if (run->code < 0 && ended(kernel->device->xrt->RunState(run->handle))) {
        leave_parts(run);
        run->code = APF_OK;
    }
    if (run->code >= 0) {
        /* The run has ended, so the abort is about to. */
        pthread_mutex_lock(&run->lock);
        while (run->abort_running) pthread_cond_wait(&run->abort_ended, &run->lock);
        pthread_mutex_unlock(&run->lock);
        keep_run(run);
        return;
    }
    apf_drv_device *device = kernel->device;
    pthread_mutex_lock(&device->lock);
    run->next = device->abandoned;
    device->abandoned = run;
    pthread_mutex_unlock(&device->lock);
}

void xrt_run_times(apf_drv_run *run, apf_times *times)
{
    (void)run; /* XRT's C interface does not tell */
    *times = (apf_times){0, 0};
}
