/* Runs of the xrt driver: creation, reuse, and setting of arguments. */
#include "xrt.h"

#include <errno.h>
#include <string.h>

#define IDLE_RUNS 64 /* ended runs that a kernel keeps */

/* -- making and keeping -- */

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
    apf_drv_run *run = apf_calloc(1, sizeof *run + count * (sizeof(xrt_setting) + sizeof(xrt_held)));
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
    run->held = (xrt_held *)(run + 1);
    run->settings = (xrt_setting *)(run->held + count);
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
    /* After a failure, XRT's run may be in a state from which it cannot start. */
    const int keep = run->code == APF_OK && kernel->idle_count < IDLE_RUNS;
    if (keep) {
        run->next = kernel->idle;
        kernel->idle = run;
        kernel->idle_count++;
    }
    pthread_mutex_unlock(&kernel->lock);
    if (!keep) close_run(kernel->device->xrt, run);
}

void xrt_held_leave(apf_drv_run *run)
{
    for (uint32_t i = 0; i < run->kernel->count; i++) {
        if (run->held[i].part) xrt_part_leave(run->held[i].bo, run->held[i].part);
        run->held[i].part = NULL;
    }
}

/* -- start -- */

static int set(apf_drv_run *run, uint32_t index, const apf_arg *arg, apf_error *err)
{
    apf_drv_kernel *kernel = run->kernel;
    xrt_held *held = &run->held[index];
    uint64_t value = arg->value.u;
    *held = (xrt_held){NULL, NULL, 0, 0, 0};
    if (arg->kind == APF_BUFFER) {
        *held = (xrt_held){arg->bo, NULL, arg->offset, arg->size, arg->flags};
        if (arg->flags & APF_SYNC_FROM) run->results += arg->size;
        const int code = xrt_part_use(arg->bo, arg->offset, &held->part, err);
        if (code != APF_OK) return code;
        value = held->part->identity;
    }
    xrt_setting *setting = &run->settings[index];
    if (setting->set && setting->kind == arg->kind && setting->value == value) return APF_OK;
    setting->set = 0;
    errno = 0;
    const int failed = arg->kind == APF_BUFFER
                           ? kernel->device->xrt->RunSetArg(run->handle, (int)index, held->part->handle)
                           : xrt_scalar_set(kernel, run->handle, index, arg);
    if (failed)
        return xrt_fail(err, xrt_code(APF_ARGUMENT), "cannot set argument %u of '%s' (%s)", index, kernel->name,
                        kernel->parameters[index].name);
    *setting = (xrt_setting){value, arg->kind, arg->kind != APF_BYTES}; /* the value of a struct is not kept */
    return APF_OK;
}

int xrt_held_sync(const apf_drv_run *run, uint32_t flag, int direction, apf_error *err)
{
    for (uint32_t i = 0; i < run->kernel->count; i++) {
        const xrt_held *held = &run->held[i];
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
    run->code = APF_OK;
    run->aborting = 0;
    run->results = 0;
    for (uint32_t i = 0; code == APF_OK && i < count; i++) code = set(run, i, &args[i], err);
    if (code == APF_OK) code = xrt_order_enter(run, err);
    if (code != APF_OK) {
        xrt_held_leave(run);
        run->code = code;
        keep_run(run);
        return code;
    }
    *started = run;
    return APF_OK;
}

/* -- end -- */

void xrt_run_release(apf_drv_run *run)
{
    if (xrt_order_leave(run)) {
        if (run->aborting) { /* by a call before this one; the run has ended, so the abort is about to */
            pthread_mutex_lock(&run->lock);
            while (run->abort_running) pthread_cond_wait(&run->abort_ended, &run->lock);
            pthread_mutex_unlock(&run->lock);
        }
        xrt_held_leave(run);
        keep_run(run);
        return;
    }
    apf_drv_device *device = run->kernel->device;
    pthread_mutex_lock(&device->lock);
    run->next = device->abandoned;
    device->abandoned = run;
    pthread_mutex_unlock(&device->lock);
}

void xrt_run_times(apf_drv_run *run, apf_times *times)
{
    (void)run; /* XRT's C interface does not report it */
    *times = (apf_times){0, 0};
}
