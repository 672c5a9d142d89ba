/* Runs of the xdma driver. A kernel executes one run at a time; the others queue. A waiting thread polls the hardware,
 * and starts the next run when one ends. While several runs are queued, a helper thread does this. */
#include "xdma.h"

#include <string.h>

#define HELPING 50000000 /* ns for which the helper polls at a time: then a waiting thread takes over */

/* States: queued -> in the hardware (the first of its kernel's queue) -> out of the queue, results on their way ->
 * ended. */
struct apf_drv_run {
    apf_drv_kernel *kernel;
    apf_drv_run *next; /* in the queue */
    int ended;
    int abandoned; /* released before it ended */
    int code;
    apf_error error;
    apf_times times;
    uint32_t count;
    apf_arg args[];
};

static int sync_all(const apf_drv_run *run, uint32_t flag, int direction, apf_error *err)
{
    for (uint32_t i = 0; i < run->count; i++) {
        const apf_arg *arg = &run->args[i];
        if (arg->kind != APF_BUFFER || !(arg->flags & flag)) continue;
        const int code = xdma_bo_sync(arg->bo, direction, arg->offset, arg->size, err);
        if (code != APF_OK) return code;
    }
    return APF_OK;
}

/* Remove the first run, which has ended, from the queue. */
static apf_drv_run *take_first(apf_drv_kernel *kernel, int64_t ended)
{
    apf_drv_run *run = kernel->first;
    kernel->first = run->next;
    if (!kernel->first) kernel->last = NULL;
    run->times.end = (uint64_t)ended;
    return run;
}

/* `error`: NULL if run->error is already set. */
static void end(apf_drv_run *run, int code, const apf_error *error)
{
    run->ended = 1;
    run->code = code;
    if (code != APF_OK && error) run->error = *error;
    if (run->abandoned) apf_free(run);
}

/* Start the first run of the queue in the hardware; a run that cannot start ends with an error. */
static void go(apf_drv_kernel *kernel)
{
    while (kernel->first) {
        apf_error error;
        kernel->first->times.start = (uint64_t)apf_now();
        const int code = xdma_kernel_go(kernel, kernel->first->args, &error);
        if (code == APF_OK) return;
        end(take_first(kernel, apf_now()), code, &error);
    }
}

/* Whether the next run may change results of this run that are not yet transferred. */
static int shares_results(const apf_drv_run *run, const apf_drv_run *next)
{
    for (uint32_t i = 0; i < run->count; i++) {
        const apf_arg *a = &run->args[i];
        if (a->kind != APF_BUFFER || !(a->flags & APF_SYNC_FROM)) continue;
        for (uint32_t j = 0; next && j < next->count; j++) {
            const apf_arg *b = &next->args[j];
            if (b->kind == APF_BUFFER && b->bo == a->bo && a->offset < b->offset + b->size &&
                b->offset < a->offset + a->size)
                return 1;
        }
    }
    return 0;
}

/* The first run is done: transfer its results, while the next one runs if possible. Called by the driving thread with
 * the lock, which is released meanwhile. */
static void finish_first(apf_drv_kernel *kernel, int64_t ended)
{
    apf_drv_run *run = take_first(kernel, ended);
    apf_error error;
    const int abandoned = run->abandoned, after = shares_results(run, kernel->first);
    __atomic_add_fetch(&kernel->device->counters.runs, 1, __ATOMIC_RELAXED);
    if (!after) go(kernel);
    pthread_mutex_unlock(&kernel->lock);
    const int code = abandoned ? APF_OK : sync_all(run, APF_SYNC_FROM, APF_FROM_DEVICE, &error);
    pthread_mutex_lock(&kernel->lock);
    end(run, code, &error);
    if (after) go(kernel);
}

/* -- driving -- */

/* Poll the hardware for all waiting threads, until the first run ends or the deadline has passed. Called with the lock,
 * which is released meanwhile: no other thread removes the first run while `driving`. */
static void drive(apf_drv_kernel *kernel, int64_t deadline)
{
    apf_error error;
    int64_t ended = 0;
    const int64_t started = (int64_t)kernel->first->times.start;
    kernel->driving = 1;
    pthread_mutex_unlock(&kernel->lock);
    const int code = xdma_kernel_watch(kernel, started, deadline, &ended, &error);
    pthread_mutex_lock(&kernel->lock);
    if (code == APF_DEVICE_LOST) {
        while (kernel->first) end(take_first(kernel, apf_now()), code, &error);
    } else if (code != APF_OK) {
        end(take_first(kernel, apf_now()), code, &error);
        go(kernel);
    } else if (ended) {
        finish_first(kernel, ended);
    }
    kernel->driving = 0;
    pthread_cond_broadcast(&kernel->changed);
}

/* While several runs are queued, the helper drives before the caller waits: results of one run are transferred while
 * the data of the next one is. */
static void *help(void *argument)
{
    apf_drv_kernel *kernel = argument;
    pthread_mutex_lock(&kernel->lock);
    while (!kernel->stopping) {
        if (kernel->first && kernel->first->next && !kernel->driving)
            drive(kernel, apf_now() + HELPING);
        else
            pthread_cond_wait(&kernel->changed, &kernel->lock);
    }
    pthread_mutex_unlock(&kernel->lock);
    apf_live_add(threads, -1);
    return NULL;
}

/* Called with the lock. If no thread can be started, the waiting threads do all the work. */
static void call_helper(apf_drv_kernel *kernel)
{
    if (!kernel->helping && !apf_allocation_fails() && pthread_create(&kernel->helper, NULL, help, kernel) == 0) {
        kernel->helping = 1;
        apf_live_add(threads, 1);
    }
    pthread_cond_broadcast(&kernel->changed);
}

/* -- start -- */

/* A struct or vector against the size in the register map: HLS may have left out the padding of the host's struct. */
static int check_bytes(const apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err)
{
    const xdma_register *at = &kernel->registers[index];
    const uint64_t registers = (arg->size + 3) / 4;
    if (at->kind == XDMA_BYTES ? arg->size == at->size : at->kind != XDMA_ANY && 4 * registers == at->size)
        return APF_OK;
    if (at->kind == XDMA_ANY)
        return apf_fail(err, APF_ARGUMENT, 0,
                        "argument %u of '%s' has no size in xdma.registers; expected NAME:%#llx:%llu for a struct or "
                        "vector of %llu bytes",
                        index, kernel->name, (unsigned long long)at->offset,
                        (unsigned long long)(registers > 2 ? 8 * arg->size : 32 * registers),
                        (unsigned long long)arg->size);
    return apf_fail(err, APF_ARGUMENT, 0,
                    "argument %u of '%s' has %u bytes in xdma.registers; got a struct or vector of %llu", index,
                    kernel->name, at->size, (unsigned long long)arg->size);
}

static int check(const apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_error *err)
{
    if (*kernel->name && count != kernel->count)
        return apf_fail(err, APF_ARGUMENT, 0, "'%s' has %u arguments; got %u", kernel->name, kernel->count, count);
    for (uint32_t i = 0; i < count; i++) {
        const apf_arg *arg = &args[i];
        if (arg->kind == APF_BUFFER && (arg->offset > arg->bo->size || arg->size > arg->bo->size - arg->offset))
            return apf_fail(err, APF_ARGUMENT, 0, "argument %u is [%llu, %llu + %llu) of a buffer object of %llu bytes",
                            i, (unsigned long long)arg->offset, (unsigned long long)arg->offset,
                            (unsigned long long)arg->size, (unsigned long long)arg->bo->size);
        if (!*kernel->name) continue;
        if (arg->kind == APF_BUFFER && arg->offset % kernel->device->info.offset_align)
            return apf_fail(err, APF_MISALIGNED, 0,
                            "argument %u of '%s' begins at byte %llu of its buffer object; expected a multiple of %u",
                            i, kernel->name, (unsigned long long)arg->offset, kernel->device->info.offset_align);
        const uint32_t wanted = kernel->registers[i].kind;
        if (wanted != XDMA_ANY && (wanted == XDMA_BUFFER) != (arg->kind == APF_BUFFER))
            return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' is a %s in xdma.registers; got a %s", i,
                            kernel->name, wanted == XDMA_BUFFER ? "buffer" : "scalar",
                            arg->kind == APF_BUFFER ? "buffer" : "scalar");
        if (arg->kind == APF_BYTES) {
            const int code = check_bytes(kernel, i, arg, err);
            if (code != APF_OK) return code;
            continue;
        }
        if (wanted == XDMA_BYTES)
            return apf_fail(err, APF_ARGUMENT, 0,
                            "argument %u of '%s' is a struct or vector of %u bytes in xdma.registers; got a number", i,
                            kernel->name, kernel->registers[i].size);
        if (xdma_is_wide(arg, &kernel->registers[i]) && kernel->registers[i].room < 8)
            return apf_fail(err, APF_ARGUMENT, 0,
                            "argument %u of '%s' has 64 bits; the register at %#llx in xdma.registers belongs to "
                            "another argument",
                            i, kernel->name, (unsigned long long)kernel->registers[i].offset + 4);
        if (wanted == XDMA_SCALAR_32 && arg->value.i != (int32_t)arg->value.i && arg->value.u > UINT32_MAX)
            return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' has a register of 32 bits; %lld does not fit", i,
                            kernel->name, (long long)arg->value.i);
    }
    return APF_OK;
}

/* The bytes of structs, which the caller may free, follow the arguments of the run. */
static void copy_arguments(apf_drv_run *run, const apf_arg *args)
{
    uint8_t *end = (uint8_t *)&run->args[run->count];
    memcpy(run->args, args, run->count * sizeof *args);
    for (uint32_t i = 0; i < run->count; i++) {
        if (args[i].kind != APF_BYTES) continue;
        memcpy(end, args[i].value.data, args[i].size);
        run->args[i].value.data = end;
        end += args[i].size;
    }
}

int xdma_run_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **started, apf_error *err)
{
    int code = check(kernel, args, count, err);
    if (code != APF_OK) return code;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) bytes += args[i].kind == APF_BYTES ? args[i].size : 0;
    apf_drv_run *run = apf_calloc(1, sizeof *run + count * sizeof *args + bytes);
    if (!run) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a run");
    run->kernel = kernel;
    run->count = count;
    copy_arguments(run, args);
    code = sync_all(run, APF_SYNC_TO, APF_TO_DEVICE, err);
    if (code != APF_OK) {
        apf_free(run);
        return code;
    }
    *started = run;
    if (!*kernel->name) { /* `wait` does the rest */
        run->times.start = (uint64_t)apf_now();
        return APF_OK;
    }
    pthread_mutex_lock(&kernel->lock);
    if (kernel->last) {
        kernel->last = kernel->last->next = run;
        call_helper(kernel);
    } else {
        kernel->first = kernel->last = run;
        go(kernel);
    }
    pthread_mutex_unlock(&kernel->lock);
    return APF_OK;
}

/* -- wait -- */

int xdma_run_wait(apf_drv_run *run, int64_t timeout, apf_error *err)
{
    apf_drv_kernel *kernel = run->kernel;
    const int64_t deadline = apf_deadline(timeout);
    int looked = 0;
    if (!*kernel->name && !run->ended) {
        run->times.end = run->times.start;
        end(run, sync_all(run, APF_SYNC_FROM, APF_FROM_DEVICE, &run->error), NULL);
        __atomic_add_fetch(&kernel->device->counters.runs, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_lock(&kernel->lock);
    while (!run->ended && (!looked || deadline < 0 || apf_now() < deadline)) {
        if (kernel->driving)
            apf_cond_wait(&kernel->changed, &kernel->lock, deadline);
        else
            drive(kernel, deadline);
        looked = 1;
    }
    const int ended = run->ended;
    pthread_mutex_unlock(&kernel->lock);
    if (!ended)
        return apf_fail(err, APF_TIMEOUT, 0,
                        "'%s' on '%s' still runs after %.3f s; it cannot be stopped but by a reset", kernel->name,
                        kernel->device->info.name, (double)timeout / 1e9);
    if (run->code != APF_OK && err) *err = run->error;
    return run->code;
}

int xdma_run_cancel(apf_drv_run *run, apf_error *err)
{
    apf_drv_kernel *kernel = run->kernel;
    int code = APF_OK;
    pthread_mutex_lock(&kernel->lock);
    apf_drv_run *before = kernel->first;
    while (before && before != run && before->next != run) before = before->next;
    if (before == run) {
        code = apf_fail(err, APF_UNSUPPORTED, 0, "'%s' on '%s' runs, and cannot be stopped but by a reset of the card",
                        kernel->name, kernel->device->info.name);
    } else if (before) {
        before->next = run->next;
        if (kernel->last == run) kernel->last = before;
        end(run, apf_fail(&run->error, APF_CANCELLED, 0, "the run of '%s' was cancelled before it began", kernel->name),
            NULL);
        pthread_cond_broadcast(&kernel->changed);
    }
    pthread_mutex_unlock(&kernel->lock);
    return code;
}

void xdma_run_release(apf_drv_run *run)
{
    apf_drv_kernel *kernel = run->kernel;
    pthread_mutex_lock(&kernel->lock);
    const int ended = run->ended || !*kernel->name;
    run->abandoned = 1;
    pthread_mutex_unlock(&kernel->lock);
    if (ended) apf_free(run);
}

void xdma_runs_end(apf_drv_kernel *kernel)
{
    pthread_mutex_lock(&kernel->lock);
    kernel->stopping = 1;
    pthread_cond_broadcast(&kernel->changed);
    pthread_mutex_unlock(&kernel->lock);
    if (kernel->helping) pthread_join(kernel->helper, NULL);
    while (kernel->first) {
        apf_drv_run *next = kernel->first->next;
        apf_free(kernel->first);
        kernel->first = next;
    }
}

void xdma_run_times(apf_drv_run *run, apf_times *times) { *times = run->times; }
