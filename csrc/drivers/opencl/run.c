/* Runs: the commands of one job, chained by events over in-order queues. The transfers of one run overlap the
 * computation of another, and runs use shared memory in the order of their starts. */
#include "opencl.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static apf_drv_run *run_new(apf_drv_device *device, uint32_t buffers, apf_error *err)
{
    const size_t commands = 2 * (size_t)buffers + 1;
    apf_drv_run *run =
        apf_calloc(1, sizeof *run + commands * sizeof *run->commands + (size_t)buffers * sizeof *run->bos);
    if (!run) {
        apf_fail(err, APF_NO_MEMORY, 0, "no memory for a run");
        return NULL;
    }
    run->device = device;
    run->api = device->api;
    run->refs = 1;
    run->bos = (apf_drv_bo **)&run->commands[commands];
    pthread_mutex_init(&run->lock, NULL);
    apf_cond_init(&run->done);
    return run;
}

static void run_unref(apf_drv_run *run)
{
    if (__atomic_sub_fetch(&run->refs, 1, __ATOMIC_ACQ_REL)) return;
    for (uint32_t i = 0; i < run->command_count; i++) run->api->clReleaseEvent(run->commands[i].event);
    pthread_mutex_destroy(&run->lock);
    pthread_cond_destroy(&run->done);
    apf_free(run);
}

/* -- the end of a run -- */

static cl_int event_status(const apf_drv_run *run, cl_event event)
{
    cl_int status = CL_COMPLETE;
    cl_int failure = run->api->clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL);
    return failure == CL_SUCCESS ? status : failure;
}

static int ended(const apf_drv_run *run)
{
    return !run->command_count || event_status(run, run->commands[run->command_count - 1].event) <= CL_COMPLETE;
}

/* Find the command that failed first, not those that failed because of it. */
static int explain(apf_drv_run *run, cl_int *first, apf_error *err)
{
    const ocl_command *guilty = NULL;
    for (uint32_t i = 0; i < run->command_count; i++) {
        cl_int status = event_status(run, run->commands[i].event);
        if (status >= CL_COMPLETE) continue;
        if (guilty && *first != CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST) break;
        guilty = &run->commands[i];
        *first = status;
    }
    if (!guilty) return APF_OK;
    if (*first == CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST)
        return ocl_fail(run->device, err, *first, APF_KERNEL, "kernel '%s': an earlier run with the same memory failed",
                        run->kernel);
    if (guilty->stage == OCL_RUN) return ocl_fail(run->device, err, *first, APF_KERNEL, "kernel '%s'", run->kernel);
    return ocl_fail(run->device, err, *first, APF_IO, "moving argument %u of kernel '%s' %s the device",
                    guilty->argument, run->kernel, guilty->stage == OCL_UPLOAD ? "to" : "from");
}

static int finish(apf_drv_run *run)
{
    apf_drv_device *device = run->device;
    pthread_mutex_lock(&device->submit);
    ocl_forget_uses(run);
    pthread_mutex_unlock(&device->submit);
    cl_int status = CL_SUCCESS;
    run->code = explain(run, &status, &run->error);
    run->finished = 1;
    __atomic_sub_fetch(&device->unfinished, 1, __ATOMIC_ACQ_REL);
    return run->code;
}

static void completed(cl_event event, cl_int status, void *user)
{
    (void)event;
    (void)status;
    apf_drv_run *run = user;
    pthread_mutex_lock(&run->lock);
    run->signalled = 1;
    if (run->abandoned) __atomic_sub_fetch(&run->device->unfinished, 1, __ATOMIC_ACQ_REL);
    pthread_cond_signal(&run->done);
    pthread_mutex_unlock(&run->lock);
    run_unref(run);
}

/* Register a callback for the end, once. False if the platform does not support it. */
static int ask_for_callback(apf_drv_run *run)
{
    if (run->called_back) return 1;
    if (run->device->version < 11) return 0;
    __atomic_add_fetch(&run->refs, 1, __ATOMIC_RELAXED);
    cl_event last = run->commands[run->command_count - 1].event;
    if (run->api->clSetEventCallback(last, CL_COMPLETE, completed, run) != CL_SUCCESS) {
        __atomic_sub_fetch(&run->refs, 1, __ATOMIC_RELAXED);
        return 0;
    }
    return run->called_back = 1;
}

static void sleep_until(apf_drv_run *run, int64_t until)
{
    if (!ask_for_callback(run)) {
        const struct timespec at = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        return;
    }
    pthread_mutex_lock(&run->lock);
    while (!run->signalled && apf_cond_wait(&run->done, &run->lock, until)) continue;
    pthread_mutex_unlock(&run->lock);
}

/* Wait until the run has ended or `deadline` has passed (negative: no deadline). True if it has ended. */
static int await_end(apf_drv_run *run, int64_t deadline)
{
    /* Small jobs end before a thread can sleep and wake: poll for a short time, and yield to other threads. */
    const int64_t spin = 100 * 1000, shortest = 50 * 1000, longest = 100 * 1000 * 1000;
    int64_t now = apf_now();
    const int64_t spin_end = run->called_back ? now : now + spin;
    while (!ended(run)) {
        now = apf_now();
        if (deadline >= 0 && now >= deadline) return 0;
        if (now < spin_end) {
            sched_yield();
            continue;
        }
        /* With a callback, the long sleep only guards against a platform that never calls it. */
        int64_t until = now + (ask_for_callback(run) ? longest : shortest + (now - spin_end) / 16);
        if (deadline >= 0 && until > deadline) until = deadline;
        sleep_until(run, until);
    }
    return 1;
}

/* -- the driver's functions -- */

static const int64_t dma_bound = 60ll * 1000 * 1000 * 1000;

/* The start failed after some commands: they must end before the caller may free the memory. */
static void undo(apf_drv_run *run)
{
    if (await_end(run, apf_deadline(dma_bound)))
        finish(run);
    else
        __atomic_store_n(&run->device->lost, 1, __ATOMIC_RELAXED);
    ocl_release(run);
}

int ocl_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **out, apf_error *err)
{
    return ocl_start_over(kernel, args, count, NULL, out, err);
}

int ocl_start_over(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, const apf_launch *launch,
                   apf_drv_run **out, apf_error *err)
{
    apf_drv_device *device = kernel->device;
    int code = ocl_alive(device, err);
    if (code != APF_OK) return code;
    if (count != kernel->count)
        return apf_fail(err, APF_ARGUMENT, 0, "kernel '%s' takes %u arguments; got %u", kernel->name, kernel->count,
                        count);
    apf_drv_run *run = run_new(device, count, err);
    if (!run) return APF_NO_MEMORY;
    run->kernel = kernel->name;
    __atomic_add_fetch(&device->unfinished, 1, __ATOMIC_ACQ_REL);
    pthread_mutex_lock(&device->submit);
    code = ocl_submit(run, kernel, args, count, launch, err);
    pthread_mutex_unlock(&device->submit);
    if (code != APF_OK)
        undo(run);
    else
        *out = run;
    return code;
}

int ocl_wait(apf_drv_run *run, int64_t timeout, apf_error *err)
{
    apf_drv_device *device = run->device;
    if (!run->finished) {
        if (!await_end(run, apf_deadline(timeout)))
            return apf_fail(err, APF_TIMEOUT, 0, "%s: kernel '%s' has not ended in %.3f s", device->info.name,
                            run->kernel, (double)timeout / 1e9);
        if (finish(run) == APF_OK) __atomic_add_fetch(&device->counted.runs, 1, __ATOMIC_RELAXED);
    }
    if (run->code != APF_OK && err) *err = run->error;
    return run->code;
}

int ocl_cancel(apf_drv_run *run, apf_error *err)
{
    return apf_fail(err, APF_UNSUPPORTED, 0, "%s: OpenCL cannot stop a kernel", run->device->info.name);
}

void ocl_release(apf_drv_run *run)
{
    if (!run->finished) {
        /* Abandoned: the device learns of the end only from the callback. */
        run->signalled |= !run->command_count;
        if (run->command_count) ask_for_callback(run);
        pthread_mutex_lock(&run->lock);
        if (run->signalled)
            __atomic_sub_fetch(&run->device->unfinished, 1, __ATOMIC_ACQ_REL);
        else
            run->abandoned = 1;
        pthread_mutex_unlock(&run->lock);
    }
    run_unref(run);
}

void ocl_times(apf_drv_run *run, apf_times *times)
{
    *times = (apf_times){0};
    for (uint32_t i = 0; i < run->command_count; i++) {
        if (run->commands[i].stage != OCL_RUN) continue;
        cl_event event = run->commands[i].event;
        cl_ulong queued, start, end;
        const ocl_api *api = run->api;
        if (api->clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_QUEUED, sizeof queued, &queued, NULL) ||
            api->clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof start, &start, NULL) ||
            api->clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL) || start < queued)
            return;
        /* The platform uses a different clock: convert its times relative to the enqueueing to CLOCK_MONOTONIC. */
        times->start = run->enqueued + (start - queued);
        times->end = run->enqueued + (end - queued);
    }
}

typedef int (*submit_one)(apf_drv_run *run, const apf_arg *arg, int direction, char *data, apf_error *err);

/* Submit one transfer that belongs to no run, and wait for it. */
static int move(apf_drv_bo *bo, int direction, uint64_t offset, char *data, uint64_t size, submit_one submit,
                apf_error *err)
{
    apf_drv_device *device = bo->device;
    apf_drv_run *run = run_new(device, 1, err);
    if (!run) return APF_NO_MEMORY;
    run->kernel = "";
    const apf_arg arg = {.kind = APF_BUFFER, .bo = bo, .offset = offset, .size = size};
    __atomic_add_fetch(&device->unfinished, 1, __ATOMIC_ACQ_REL);
    pthread_mutex_lock(&device->submit);
    int code = submit(run, &arg, direction, data, err);
    pthread_mutex_unlock(&device->submit);
    if (code != APF_OK) {
        undo(run);
        return code;
    }
    if (!await_end(run, apf_deadline(dma_bound))) {
        __atomic_store_n(&device->lost, 1, __ATOMIC_RELAXED);
        ocl_release(run);
        return apf_fail(err, APF_DEVICE_LOST, 0, "%s: a transfer of %llu bytes has not ended in 60 s",
                        device->info.name, (unsigned long long)size);
    }
    code = finish(run);
    if (code != APF_OK && err) *err = run->error;
    ocl_release(run);
    return code;
}

int ocl_transfer(apf_drv_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err)
{
    int code = ocl_alive(bo->device, err);
    if (code != APF_OK) return code;
    if (!data && !ocl_fills(bo->device))
        return apf_fail(err, APF_UNSUPPORTED, 0, "%s: zeros have to be brought there (OpenCL 1.1)",
                        bo->device->info.name);
    return move(bo, direction, offset, data, size, ocl_submit_copy, err);
}

int ocl_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err)
{
    apf_drv_device *device = bo->device;
    int code = ocl_alive(device, err);
    if (code != APF_OK) return code;
    if (!bo->data && bo->size) return apf_fail(err, APF_INVALID, 0, "device memory has no host side to sync with");
    if (offset > bo->size || size > bo->size - offset)
        return apf_fail(err, APF_INVALID, 0, "bytes %llu to %llu of a buffer of %llu", (unsigned long long)offset,
                        (unsigned long long)(offset + size), (unsigned long long)bo->size);
    if (direction == APF_FROM_DEVICE && bo->readonly)
        return apf_fail(err, APF_READ_ONLY, 0, "read-only host memory cannot take what the device wrote");
    if (!size) return APF_OK;
    return move(bo, direction, offset, NULL, size, ocl_submit_sync, err);
}
