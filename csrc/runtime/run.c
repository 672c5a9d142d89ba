/* Runs: in flight until a wait reports the end. Until then a run holds everything that the device may access. */
#include "clock.h"
#include "runtime.h"

#include <string.h>

struct apf_run {
    apf_kernel *kernel;
    apf_drv_run *handle; /* NULL once ended */
    apf_times times;
    pthread_mutex_t lock;  /* the fields above and below */
    pthread_cond_t waited; /* a waiter left */
    int waiting;           /* a thread is in the driver's wait */
    int code;              /* once ended */
    apf_error *error;      /* of a run that failed; NULL: there was no memory for it */
    char *details;         /* the driver's JSON about it; NULL: none */
    uint32_t count;
    apf_bo *bos[]; /* held; NULL for scalars */
};

/* -- start -- */

static int check_argument(const apf_kernel *kernel, const apf_run_arg *arg, uint32_t index, apf_error *err)
{
    if (arg->arg.kind == APF_BYTES && !(kernel->device->info.capabilities & APF_CAP_STRUCTS))
        return apf_fail(err, APF_UNSUPPORTED, 0,
                        "argument %u is a struct or vector of %llu bytes; driver '%s' passes numbers only", index,
                        (unsigned long long)arg->arg.size, kernel->device->driver->name);
    if (arg->arg.kind != APF_BUFFER) return APF_OK;
    const apf_bo *bo = arg->bo;
    if (!bo || bo->device != kernel->device)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u: no buffer object of device '%s'", index,
                        kernel->device->info.name);
    if (arg->arg.offset > bo->size || arg->arg.size > bo->size - arg->arg.offset)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u: bytes %llu to %llu of a buffer object of %llu", index,
                        (unsigned long long)arg->arg.offset, (unsigned long long)(arg->arg.offset + arg->arg.size),
                        (unsigned long long)bo->size);
    if (arg->arg.flags & (APF_SYNC_TO | APF_SYNC_FROM | APF_CLEAR) && !bo->buffer)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u: device memory has no host side to sync with", index);
    if (arg->arg.flags & (APF_SYNC_FROM | APF_CLEAR) && bo->buffer->flags & APF_BUFFER_READONLY)
        return apf_fail(err, APF_READ_ONLY, 0, "argument %u: its host side is read-only", index);
    return APF_OK;
}

static void give_back(apf_run *run)
{
    for (uint32_t i = 0; i < run->count; i++) {
        apf_bo_release(run->bos[i]);
        run->bos[i] = NULL;
    }
}

/* Drivers do not see APF_CLEAR: zeros are transferred to the device as any other data. */
static int clear(const apf_run_arg *args, apf_arg *raw, uint32_t count, apf_error *err)
{
    int code = APF_OK;
    for (uint32_t i = 0; i < count && code == APF_OK; i++) {
        if (raw[i].kind != APF_BUFFER || !(raw[i].flags & APF_CLEAR)) continue;
        raw[i].flags = (raw[i].flags & ~(uint32_t)APF_CLEAR) | APF_SYNC_TO;
        code = apf_zero(args[i].bo->buffer->data + raw[i].offset, raw[i].size, err);
    }
    return code;
}

/* Everything is held and counted before the driver gets the run, because the run may end at once. */
static int hold_and_start(apf_run *run, const apf_run_arg *args, apf_arg *raw, const apf_launch *launch, apf_error *err)
{
    apf_kernel *kernel = run->kernel;
    apf_device *device = kernel->device;
    int code = apf_device_run_begins(device, err);
    if (code != APF_OK) return code;
    if ((code = apf_bos_hold(args, run->count, raw, err)) == APF_OK) {
        for (uint32_t i = 0; i < run->count; i++)
            if (raw[i].kind == APF_BUFFER) run->bos[i] = args[i].bo;
        apf_kernel_retain(kernel);
        code = clear(args, raw, run->count, err);
        if (code == APF_OK)
            code = apf_device_result(
                device, launch ? device->driver->start_over(kernel->handle, raw, run->count, launch, &run->handle, err)
                               : device->driver->start(kernel->handle, raw, run->count, &run->handle, err));
        if (code == APF_OK) return code;
        give_back(run);
        apf_kernel_release(kernel);
    }
    apf_device_run_ends(device);
    return code;
}

static int start_in_driver(apf_run *run, const apf_run_arg *args, const apf_launch *launch, apf_error *err)
{
    enum { FEW = 16 };
    apf_arg few[FEW];
    apf_arg *raw = run->count <= FEW ? memset(few, 0, run->count * sizeof *few) : apf_calloc(run->count, sizeof *raw);
    if (!raw) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for %u kernel arguments", run->count);
    const int code = hold_and_start(run, args, raw, launch, err);
    if (raw != few) apf_free(raw);
    return code;
}

static apf_run *run_new(uint32_t count, apf_error *err)
{
    apf_run *run = apf_calloc(1, sizeof *run + count * sizeof(apf_bo *));
    if (!run) {
        apf_fail(err, APF_NO_MEMORY, 0, "no memory for a run");
        return NULL;
    }
    pthread_mutex_init(&run->lock, NULL);
    apf_cond_init(&run->waited);
    return run;
}

static void run_free(apf_run *run)
{
    pthread_mutex_destroy(&run->lock);
    pthread_cond_destroy(&run->waited);
    apf_free(run->error);
    apf_free(run->details);
    apf_free(run);
}

static int check_launch(const apf_driver *driver, const apf_launch *launch, apf_error *err)
{
    if (driver->size <= offsetof(apf_driver, start_over) || !driver->start_over)
        return apf_fail(err, APF_UNSUPPORTED, 0,
                        "driver '%s' has no index spaces: its kernels run as they are; expected no 'global'",
                        driver->name);
    if (launch->dimensions < 1 || launch->dimensions > 3)
        return apf_fail(err, APF_INVALID, 0, "an index space of %u dimensions; expected 1 to 3", launch->dimensions);
    return APF_OK;
}

int apf_run_start(apf_kernel *kernel, const apf_run_arg *args, uint32_t count, apf_run **started, apf_error *err)
{
    return apf_run_start_over(kernel, args, count, NULL, started, err);
}

int apf_run_start_over(apf_kernel *kernel, const apf_run_arg *args, uint32_t count, const apf_launch *launch,
                       apf_run **started, apf_error *err)
{
    apf_device *device = kernel->device;
    apf_run *run = run_new(count, err);
    if (!run) return APF_NO_MEMORY;
    int code = apf_device_enter(device, err);
    if (code != APF_OK) {
        run_free(run);
        return code;
    }
    if (launch) code = check_launch(device->driver, launch, err);
    for (uint32_t i = 0; i < count && code == APF_OK; i++) code = check_argument(kernel, &args[i], i, err);
    run->kernel = kernel;
    run->count = count;
    if (code == APF_OK) code = start_in_driver(run, args, launch, err);
    apf_device_leave(device);
    if (code != APF_OK) {
        run_free(run);
        return code;
    }
    apf_live_add(runs, 1);
    *started = run;
    return APF_OK;
}

/* -- wait and end -- */

static void keep_details(apf_run *run, const apf_driver *driver)
{
    enum { MOST = 128 << 10 };
    if (driver->size <= offsetof(apf_driver, details) || !driver->details) return;
    char *text = apf_calloc(1, MOST);
    apf_error error;
    if (text && driver->details(run->handle, text, MOST, &error) == APF_OK)
        __atomic_store_n(&run->details, text, __ATOMIC_RELEASE);
    else
        apf_free(text);
}

/* The device no longer uses anything of the run. Under the run's lock; the caller releases the references after it. */
static void ended(apf_run *run, int code, const apf_error *error)
{
    const apf_driver *driver = run->kernel->device->driver;
    if (driver->times) driver->times(run->handle, &run->times);
    keep_details(run, driver);
    driver->release(run->handle);
    run->handle = NULL;
    run->code = code;
    if (code != APF_OK && (run->error = apf_calloc(1, sizeof *error))) *run->error = *error;
    apf_device_run_ends(run->kernel->device);
}

/* Wait until another thread's wait has returned; false on timeout. Under the lock. */
static int wait_turn(apf_run *run, int64_t timeout)
{
    if (!run->handle || !run->waiting) return 1;
    const int64_t deadline = apf_deadline(timeout);
    while (run->handle && run->waiting)
        if (!apf_cond_wait(&run->waited, &run->lock, deadline)) return 0;
    return 1;
}

int apf_run_wait(apf_run *run, int64_t timeout, apf_error *err)
{
    apf_device *device = run->kernel->device;
    if (!apf_device_here(device))
        return apf_fail(err, APF_FORKED, 0, "a run was started before a fork; only the parent can use it");
    apf_error error;
    pthread_mutex_lock(&run->lock);
    if (!wait_turn(run, timeout)) {
        pthread_mutex_unlock(&run->lock);
        return apf_fail(err, APF_TIMEOUT, 0, "a run did not end in time");
    }
    int finished = 0;
    if (run->handle) {
        run->waiting = 1;
        pthread_mutex_unlock(&run->lock);
        int code = apf_device_result(device, device->driver->wait(run->handle, timeout, &error));
        pthread_mutex_lock(&run->lock);
        run->waiting = 0;
        pthread_cond_broadcast(&run->waited);
        if (code == APF_TIMEOUT) {
            pthread_mutex_unlock(&run->lock);
            if (err) *err = error;
            return code;
        }
        ended(run, code, &error);
        finished = 1;
    }
    int code = run->code;
    if (code != APF_OK && err && run->error)
        *err = *run->error;
    else if (code != APF_OK)
        apf_fail(err, code, 0, "%s", apf_error_text(code));
    pthread_mutex_unlock(&run->lock);
    if (finished) give_back(run);
    return code;
}

int apf_run_cancel(apf_run *run, apf_error *err)
{
    apf_device *device = run->kernel->device;
    if (!apf_device_here(device))
        return apf_fail(err, APF_FORKED, 0, "a run was started before a fork; only the parent can use it");
    pthread_mutex_lock(&run->lock);
    int code = APF_OK;
    if (run->handle)
        code = device->driver->cancel
                   ? device->driver->cancel(run->handle, err)
                   : apf_fail(err, APF_UNSUPPORTED, 0, "driver '%s' cannot stop a run", device->driver->name);
    pthread_mutex_unlock(&run->lock);
    return code;
}

const char *apf_run_details(apf_run *run)
{
    if (!apf_device_here(run->kernel->device)) return NULL;
    return __atomic_load_n(&run->details, __ATOMIC_ACQUIRE); /* set once, when the run ends */
}

void apf_run_times(apf_run *run, apf_times *times)
{
    const int here = apf_device_here(run->kernel->device); /* if not, a thread of the parent may hold the lock */
    if (here) pthread_mutex_lock(&run->lock);
    *times = run->times;
    if (here) pthread_mutex_unlock(&run->lock);
}

/* It cannot be ended: its memory never returns to the pool, since the device may still write there. */
static void abandon(apf_run *run)
{
    apf_device *device = run->kernel->device;
    for (uint32_t i = 0; i < run->count; i++)
        if (run->bos[i]) apf_bo_abandon(run->bos[i]);
    device->driver->release(run->handle);
    run->handle = NULL;
    apf_device_run_ends(device);
}

int apf_run_release(apf_run *run, int64_t grace)
{
    int abandoned = 0;
    if (!run) return abandoned;
    if (run->handle && apf_device_here(run->kernel->device)) {
        apf_run_cancel(run, NULL);
        abandoned = apf_run_wait(run, grace, NULL) == APF_TIMEOUT;
        if (abandoned) abandon(run);
    }
    apf_kernel_release(run->kernel);
    run_free(run);
    apf_live_add(runs, -1);
    return abandoned;
}
