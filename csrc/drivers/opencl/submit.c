/* Enqueue the commands of a run: chained by events, and after those of other runs that use the same memory. Everything
 * here is called under the device's `submit`. */
#include "opencl.h"

#include <stdio.h>

/* -- dependencies of commands (all under `submit`) -- */

enum { MOST_WAITS = 256 };

typedef struct waits {
    cl_uint count;
    int overflow;
    cl_event events[MOST_WAITS];
} waits;

static void clear(waits *list) { list->count = list->overflow = 0; }

static void add_wait(waits *list, cl_event event)
{
    for (cl_uint i = 0; i < list->count; i++)
        if (list->events[i] == event) return;
    if (list->count < MOST_WAITS)
        list->events[list->count++] = event;
    else
        list->overflow = 1;
}

static int too_many(const apf_drv_run *run, apf_error *err)
{
    return apf_fail(err, APF_BUSY, 0, "%s: more than %d commands in flight use the memory of one run",
                    run->device->info.name, MOST_WAITS);
}

/* A command on `queue` must not pass the last commands of the other queues that use the same memory, unless both only
 * read it. Its own queue is in order; `covered` is a queue whose newest command it already waits for. */
static void add_conflicts(waits *list, const apf_drv_bo *bo, uint32_t queue, int shared, uint32_t covered)
{
    for (uint32_t other = 0; other < OCL_COMPUTE + bo->device->units; other++)
        if (other != queue && other != covered && bo->last[other] && !(shared && bo->shared[other]))
            add_wait(list, bo->last[other]);
}

static void note_use(apf_drv_bo *bo, uint32_t queue, cl_event event, int shared)
{
    const ocl_api *api = bo->device->api;
    /* An earlier write on the same queue may not have ended: waiting for this read also waits for that write. */
    bo->shared[queue] = shared && (!bo->last[queue] || bo->shared[queue]);
    if (bo->last[queue]) api->clReleaseEvent(bo->last[queue]);
    api->clRetainEvent(event);
    bo->last[queue] = event;
}

void ocl_forget_uses(apf_drv_run *run)
{
    apf_drv_device *device = run->device;
    for (uint32_t i = 0; i < run->bo_count; i++)
        for (uint32_t queue = 0; queue < OCL_COMPUTE + device->units; queue++)
            for (uint32_t c = 0; c < run->command_count && run->bos[i]->last[queue]; c++)
                if (run->bos[i]->last[queue] == run->commands[c].event) {
                    device->api->clReleaseEvent(run->bos[i]->last[queue]);
                    run->bos[i]->last[queue] = NULL;
                }
    run->bo_count = 0;
}

/* -- submitting (all under `submit`) -- */

static void add_command(apf_drv_run *run, cl_event event, ocl_stage stage, uint32_t argument)
{
    run->commands[run->command_count++] = (ocl_command){.event = event, .stage = stage, .argument = argument};
}

/* A run's transfer if the device shares the memory: only count the bytes. */
static int hand_over(const apf_arg *arg, int direction)
{
    apf_drv_device *device = arg->bo->device;
    if (!device->shares) return 0;
    __atomic_add_fetch(direction == APF_TO_DEVICE ? &device->counted.to_device : &device->counted.from_device,
                       arg->size, __ATOMIC_RELAXED);
    return 1;
}

static int submit_dma(apf_drv_run *run, const apf_arg *arg, uint32_t index, int direction, const waits *after,
                      apf_error *err)
{
    if (after->overflow) return too_many(run, err);
    cl_event event;
    int code = ocl_enqueue_dma(arg->bo, direction, arg->offset, arg->size, after->count, after->events, &event, err);
    if (code != APF_OK) return code;
    add_command(run, event, direction == APF_TO_DEVICE ? OCL_UPLOAD : OCL_DOWNLOAD, index);
    note_use(arg->bo, direction == APF_TO_DEVICE ? OCL_TO : OCL_FROM, event, direction == APF_FROM_DEVICE);
    return APF_OK;
}

static int submit_uploads(apf_drv_run *run, const apf_arg *args, uint32_t count, apf_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        if (args[i].kind != APF_BUFFER || !(args[i].flags & APF_SYNC_TO) || !args[i].size) continue;
        if (hand_over(&args[i], APF_TO_DEVICE)) continue;
        waits after;
        clear(&after);
        add_conflicts(&after, args[i].bo, OCL_TO, 0, OCL_TO);
        int code = submit_dma(run, &args[i], i, APF_TO_DEVICE, &after, err);
        if (code != APF_OK) return code;
    }
    if (run->command_count) run->api->clFlush(run->device->queues[OCL_TO]);
    return APF_OK;
}

static int submit_kernel(apf_drv_run *run, apf_drv_kernel *kernel, const apf_arg *args, const ocl_space *space,
                         apf_error *err)
{
    apf_drv_device *device = run->device;
    const uint32_t queue = OCL_COMPUTE + device->next_unit++ % device->units;
    waits after;
    clear(&after);
    /* The upload queue is in order, so waiting for this run's newest upload waits for all of them. */
    if (run->command_count) add_wait(&after, run->commands[run->command_count - 1].event);
    for (uint32_t i = 0; i < kernel->count; i++) {
        if (args[i].kind == APF_BUFFER)
            add_conflicts(&after, args[i].bo, queue, ocl_only_reads(kernel, i, args[i].bo),
                          run->command_count ? OCL_TO : queue);
    }
    if (after.overflow) return too_many(run, err);
    cl_event event;
    run->enqueued = (uint64_t)apf_now();
    cl_int status = device->api->clEnqueueNDRangeKernel(
        device->queues[queue], kernel->handle, space->dimensions,
        space->offset[0] || space->offset[1] || space->offset[2] ? space->offset : NULL, space->global,
        space->local[0] ? space->local : NULL, after.count, after.count ? after.events : NULL, &event);
    if (status == CL_INVALID_KERNEL_ARGS)
        return ocl_fail(device, err, status, APF_ARGUMENT, "starting kernel '%s'", kernel->name);
    if (status == CL_INVALID_WORK_GROUP_SIZE || status == CL_INVALID_WORK_ITEM_SIZE)
        return ocl_wrong_group(kernel, space, status, err);
    if (status != CL_SUCCESS)
        return ocl_fail(device, err, status, APF_KERNEL, "starting kernel '%s' with %zu work-items", kernel->name,
                        space->global[0]);
    add_command(run, event, OCL_RUN, 0);
    for (uint32_t i = 0; i < kernel->count; i++)
        if (args[i].kind == APF_BUFFER) note_use(args[i].bo, queue, event, ocl_only_reads(kernel, i, args[i].bo));
    device->api->clFlush(device->queues[queue]);
    return APF_OK;
}

static int submit_downloads(apf_drv_run *run, const apf_arg *args, uint32_t count, apf_error *err)
{
    const uint32_t before = run->command_count;
    for (uint32_t i = 0; i < count; i++) {
        if (args[i].kind != APF_BUFFER || !(args[i].flags & APF_SYNC_FROM) || !args[i].size) continue;
        if (hand_over(&args[i], APF_FROM_DEVICE)) continue;
        waits after;
        clear(&after);
        if (before) add_wait(&after, run->commands[before - 1].event);
        /* The kernel has already waited for everything that a download would wait for; a run without work-items has no
         * kernel. */
        if (!before || run->commands[before - 1].stage != OCL_RUN)
            add_conflicts(&after, args[i].bo, OCL_FROM, 1, OCL_FROM);
        int code = submit_dma(run, &args[i], i, APF_FROM_DEVICE, &after, err);
        if (code != APF_OK) return code;
    }
    if (run->command_count > before) run->api->clFlush(run->device->queues[OCL_FROM]);
    return APF_OK;
}

/* Whether an index space has no work-items. */
static int is_empty(const ocl_space *space)
{
    int empty = 0;
    for (cl_uint i = 0; i < space->dimensions; i++) empty |= !space->global[i];
    return empty;
}

int ocl_submit(apf_drv_run *run, apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, const apf_launch *launch,
               apf_error *err)
{
    ocl_space space = {0};
    int code = APF_OK;
    for (uint32_t i = 0; i < count && code == APF_OK; i++) {
        if (args[i].kind != APF_BUFFER) continue;
        ocl_trim_parts(args[i].bo);
        run->bos[run->bo_count++] = args[i].bo;
    }
    kernel->local_sum = 0;
    for (uint32_t i = 0; i < count && code == APF_OK; i++) code = ocl_set_argument(kernel, i, &args[i], err);
    if (code == APF_OK) code = ocl_check_local(kernel, err);
    if (code == APF_OK)
        code = launch ? ocl_space_of(kernel, launch, &space, err) : ocl_work_items(kernel, args, &space, err);
    if (code == APF_OK) code = submit_uploads(run, args, count, err);
    if (code == APF_OK && !is_empty(&space)) code = submit_kernel(run, kernel, args, &space, err);
    if (code == APF_OK) code = submit_downloads(run, args, count, err);
    return code;
}

int ocl_submit_sync(apf_drv_run *run, const apf_arg *arg, int direction, char *data, apf_error *err)
{
    (void)data;
    const uint32_t queue = direction == APF_TO_DEVICE ? OCL_TO : OCL_FROM;
    ocl_trim_parts(arg->bo);
    run->bos[run->bo_count++] = arg->bo;
    waits after;
    clear(&after);
    add_conflicts(&after, arg->bo, queue, direction == APF_FROM_DEVICE, queue);
    if (!after.count && hand_over(arg, direction)) return APF_OK;
    int code = submit_dma(run, arg, 0, direction, &after, err);
    if (code == APF_OK) run->api->clFlush(run->device->queues[queue]);
    return code;
}

int ocl_submit_copy(apf_drv_run *run, const apf_arg *arg, int direction, char *data, apf_error *err)
{
    const uint32_t queue = direction == APF_TO_DEVICE ? OCL_TO : OCL_FROM;
    run->bos[run->bo_count++] = arg->bo;
    waits after;
    clear(&after);
    add_conflicts(&after, arg->bo, queue, direction == APF_FROM_DEVICE, queue);
    if (after.overflow) return too_many(run, err);
    cl_event event;
    int code =
        ocl_enqueue_copy(arg->bo, direction, arg->offset, data, arg->size, after.count, after.events, &event, err);
    if (code != APF_OK) return code;
    add_command(run, event, direction == APF_TO_DEVICE ? OCL_UPLOAD : OCL_DOWNLOAD, 0);
    note_use(arg->bo, queue, event, direction == APF_FROM_DEVICE);
    run->api->clFlush(run->device->queues[queue]);
    return APF_OK;
}
