/* Runs that are in flight when their device is closed, or when the process ends. XRT 2.25 aborts the process when such
 * a run is destroyed, and destroys all runs at exit. The runs cannot be aborted either (api.h). So they are kept until
 * they have ended; those that have not are marked as aborted at exit (`give_up`). */
#include "xrt.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the variables below */
static apf_drv_device *devices;                          /* the open ones */
static apf_drv_run *left;                                /* runs of closed devices; their kernels are gone */
static const xrt_api *xrt_of_left;
static pid_t watched; /* the process whose exit is waited for; 0: none */

static int ended(const xrt_api *xrt, const apf_drv_run *run) { return xrt_state_ended(xrt->RunState(run->handle)); }

static void give_up(const xrt_api *xrt, const apf_drv_run *run)
{
    if (!ended(xrt, run)) xrt_give_up(xrt, run->handle);
}

/* Runs before XRT's own exit handlers, since it was registered after XRT was loaded. Other threads may still run. */
static void at_exit(void)
{
    if (getpid() != watched) return; /* a forked child: the runs and their commands are the parent's */
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    if (pthread_mutex_timedlock(&lock, &until) != 0) return;
    for (apf_drv_run *run = left; run; run = run->next) give_up(xrt_of_left, run);
    for (apf_drv_device *device = devices; device; device = device->next) {
        if (pthread_mutex_timedlock(&device->order, &until) != 0) continue;
        for (apf_drv_run *run = device->first; run; run = run->later)
            if (run->phase == XRT_STARTED) give_up(device->xrt, run);
        pthread_mutex_unlock(&device->order);
    }
    pthread_mutex_unlock(&lock);
}

void xrt_exit_watch(apf_drv_device *device)
{
    if (device->xrt->minor < XRT_SHIM_OBJECTS) return;
    pthread_mutex_lock(&lock);
    if (watched != getpid()) {
        devices = NULL; /* the parent's, in a forked child */
        left = NULL;
        if (atexit(at_exit) == 0) watched = getpid();
    }
    device->next = devices;
    devices = device;
    pthread_mutex_unlock(&lock);
}

/* Close the runs of the list that have ended; returns the others. */
static apf_drv_run *close_ended(const xrt_api *xrt, apf_drv_run *runs)
{
    apf_drv_run *kept = NULL;
    while (runs) {
        apf_drv_run *next = runs->next;
        runs->next = NULL;
        if (ended(xrt, runs)) {
            xrt_runs_close(xrt, runs);
        } else {
            runs->next = kept;
            kept = runs;
        }
        runs = next;
    }
    return kept;
}

void xrt_exit_forget(apf_drv_device *device)
{
    if (device->xrt->minor < XRT_SHIM_OBJECTS) {
        xrt_runs_close(device->xrt, device->abandoned);
        return;
    }
    pthread_mutex_lock(&lock);
    apf_drv_device **at = &devices;
    while (*at && *at != device) at = &(*at)->next;
    if (*at) *at = device->next;
    apf_drv_run **end = &device->abandoned;
    while (*end) end = &(*end)->next;
    *end = left;
    left = close_ended(device->xrt, device->abandoned);
    device->abandoned = NULL;
    xrt_of_left = device->xrt;
    pthread_mutex_unlock(&lock);
}
