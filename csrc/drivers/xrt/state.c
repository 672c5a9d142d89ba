/* States of XRT's runs: waiting with timeouts, the meaning of end states, and abort. */
#include "xrt.h"

#include <errno.h>
#include <time.h>

#define LONGEST_WAIT 60000u   /* ms of one xrtRunWaitFor; 0 would wait without limit */
#define SPIN 30000            /* ns */
#define LONGEST_PAUSE 1000000 /* ns */

int xrt_state_ended(int state) { return state >= XRT_STATE_COMPLETED && state != XRT_STATE_SUBMITTED; }

/* Without a timeout, XRT waits, which has the lowest latency. With a timeout, this function polls instead: XRT restarts
 * its timeout whenever another run on the card completes, and concurrent waits run one after the other, each for its
 * full timeout (2.13). The state is in memory that the card's driver writes. It is polled without pause for the first
 * microseconds, then with pauses of a sixteenth of the elapsed time. */
int xrt_state_wait(const xrt_api *xrt, xrt_run handle, int64_t deadline)
{
    int state = xrt->RunState(handle);
    if (deadline < 0) {
        while (!xrt_state_ended(state)) {
            state = xrt->RunWaitFor(handle, LONGEST_WAIT);
            /* Some versions return "timeout" if the wait has ended but the run has not. */
            if (state == XRT_STATE_TIMEOUT) state = xrt->RunState(handle);
        }
        return state;
    }
    if (xrt_state_ended(state)) return state;
    const int64_t begin = apf_now();
    for (int64_t time = begin; !xrt_state_ended(state) && time < deadline; time = apf_now()) {
        if (time - begin > SPIN) {
            int64_t pause = (time - begin) / 16;
            if (pause > LONGEST_PAUSE) pause = LONGEST_PAUSE;
            if (pause > deadline - time) pause = deadline - time;
            nanosleep(&(struct timespec){0, pause}, NULL);
        }
        state = xrt->RunState(handle);
    }
    return state;
}

static int code_of(const apf_drv_run *run, int state, apf_error *err)
{
    const apf_drv_kernel *kernel = run->kernel;
    const char *device = kernel->device->info.name;
    switch (state) {
    case XRT_STATE_ABORT:
        if (run->aborting) return apf_fail(err, APF_CANCELLED, 0, "the run of '%s' was aborted", kernel->name);
        return xrt_fail(err, APF_KERNEL, "XRT aborted the run of '%s' on '%s'" XRT_RESET, kernel->name, device);
    case XRT_STATE_TIMEOUT:
        return xrt_fail(err, APF_KERNEL, "the run of '%s' exceeded the time limit of '%s'" XRT_RESET, kernel->name,
                        device);
    case XRT_STATE_NO_RESPONSE:
        return xrt_fail(err, APF_DEVICE_LOST, "'%s' does not respond to the run of '%s'" XRT_RESET, device,
                        kernel->name);
    case XRT_STATE_SOFT_ERROR:
    case XRT_STATE_SOFT_CRASHED:
        return xrt_fail(err, APF_KERNEL, "the soft kernel '%s' on '%s' %s", kernel->name, device,
                        state == XRT_STATE_SOFT_ERROR ? "returned an error" : "crashed");
    default:
        return xrt_fail(err, APF_KERNEL, "the run of '%s' on '%s' ended in state %d (%s)" XRT_RESET, kernel->name,
                        device, state, state == XRT_STATE_ERROR ? "error" : "unknown");
    }
}

int xrt_state_code(apf_drv_run *run, int state, apf_error *err)
{
    if (state == XRT_STATE_COMPLETED) return APF_OK;
    pthread_mutex_lock(&run->lock);
    const int code = code_of(run, state, err);
    pthread_mutex_unlock(&run->lock);
    return code;
}

/* -- abort -- */

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
    if (xrt_order_cancel(run)) return APF_OK;
    const xrt_api *xrt = run->kernel->device->xrt;
    int code = APF_OK;
    pthread_mutex_lock(&run->lock);
    /* XRT's abort returns when the run has ended, which may never happen, so a separate thread calls it. */
    if (run->aborting || xrt_state_ended(xrt->RunState(run->handle))) {
        /* no effect */
    } else if (!xrt_abort_available(xrt)) {
        code = apf_fail(err, APF_UNSUPPORTED, 0, "XRT %s cannot abort a run of a card; XRT 2.13 to 2.15 can" XRT_RESET,
                        *xrt->version ? xrt->version : "of this version");
    } else {
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
