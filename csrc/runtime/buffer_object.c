/* Buffer objects: device memory, and the cache of imports that stays with host memory.
 *
 * If a call into the device can be entered, a handle is ended without objects_lock, since unpinning takes milliseconds.
 * While the device closes, it is ended under that lock, which the close takes before it closes the driver. In a forked
 * child, handles belong to the parent. */
#include "runtime.h"

pthread_mutex_t apf_objects_lock = PTHREAD_MUTEX_INITIALIZER;

/* Taken before objects_lock, by the thread that drops unused imports because a device's memory is full. */
static pthread_mutex_t evict_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t evictions; /* number of times imports were dropped; changed under evict_lock */

void apf_objects_fork_prepare(void)
{
    pthread_mutex_lock(&evict_lock);
    pthread_mutex_lock(&apf_objects_lock);
}

void apf_objects_fork_done(void)
{
    pthread_mutex_unlock(&apf_objects_lock);
    pthread_mutex_unlock(&evict_lock);
}

/* -- lists -- */

static void bo_link(apf_bo *bo)
{
    apf_device *device = bo->device;
    bo->next = device->bos;
    if (bo->next) bo->next->previous = bo;
    device->bos = bo;
}

static void bo_unlink(apf_bo *bo)
{
    if (bo->next) bo->next->previous = bo->previous;
    if (bo->previous)
        bo->previous->next = bo->next;
    else
        bo->device->bos = bo->next;
    bo->next = bo->previous = NULL;
}

static void bo_detach(apf_bo *bo)
{
    for (apf_bo **at = &bo->buffer->attached; *at; at = &(*at)->sibling)
        if (*at == bo) {
            *at = bo->sibling;
            break;
        }
    bo->attached = 0;
}

static void bo_free(apf_bo *bo)
{
    apf_live_add(bos, -1);
    apf_free(bo);
}

/* Unlink the cached imports of a device that nothing uses; the caller ends those in the list (linked by `next`). */
static apf_bo *unlink_unused(apf_device *device)
{
    apf_bo *unused = NULL;
    for (apf_bo *bo = device->bos, *next; bo; bo = next) {
        next = bo->next;
        if (bo->refs) continue;
        bo_detach(bo);
        bo_unlink(bo);
        bo->next = unused;
        unused = bo;
    }
    return unused;
}

/* Returns whether there were any. Under evict_lock. */
static int drop_unused(apf_device *device)
{
    pthread_mutex_lock(&apf_objects_lock);
    apf_bo *unused = unlink_unused(device);
    pthread_mutex_unlock(&apf_objects_lock);
    const int any = unused != NULL;
    while (unused) {
        apf_bo *next = unused->next;
        device->driver->free(unused->handle);
        bo_free(unused);
        unused = next;
    }
    if (any) __atomic_add_fetch(&evictions, 1, __ATOMIC_RELEASE);
    return any;
}

static int bo_try(apf_bo *bo, apf_error *err)
{
    apf_device *device = bo->device;
    if (!bo->buffer) return device->driver->alloc(device->handle, bo->size, bo->bank, &bo->handle, err);
    const uint32_t readonly = !!(bo->buffer->flags & APF_BUFFER_READONLY);
    return device->driver->import(device->handle, bo->buffer->data, bo->size, readonly, bo->bank, &bo->handle, err);
}

/* Make the driver's object; when the device's memory is full of unused imports, drop those and try again. One thread at
 * a time makes room: memory that another thread is dropping is neither in use nor free yet. */
static int bo_make(apf_bo *bo, apf_error *err)
{
    const uint64_t before = __atomic_load_n(&evictions, __ATOMIC_ACQUIRE);
    int code = bo_try(bo, err);
    if (code == APF_DEVICE_MEMORY) {
        pthread_mutex_lock(&evict_lock);
        int again = evictions != before; /* another thread has made room */
        while (code == APF_DEVICE_MEMORY && (again || drop_unused(bo->device))) {
            code = bo_try(bo, err);
            again = 0;
        }
        pthread_mutex_unlock(&evict_lock);
    }
    return apf_device_result(bo->device, code);
}

static int bo_new(apf_device *device, apf_buffer *buffer, uint64_t size, uint32_t bank, apf_bo **made, apf_error *err)
{
    apf_bo *bo = apf_calloc(1, sizeof *bo);
    if (!bo) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a buffer object");
    bo->device = device;
    bo->buffer = buffer;
    bo->size = size;
    bo->bank = bank;
    bo->refs = 1;
    int code = bo_make(bo, err);
    if (code != APF_OK) {
        apf_free(bo);
        return code;
    }
    apf_live_add(bos, 1);
    apf_device_retain(device);
    if (buffer) apf_buffer_retain(buffer);
    *made = bo;
    return APF_OK;
}

int apf_bo_alloc(apf_device *device, uint64_t size, uint32_t bank, apf_bo **made, apf_error *err)
{
    int code = apf_device_enter(device, err);
    if (code != APF_OK) return code;
    if ((code = bo_new(device, NULL, size, bank, made, err)) == APF_OK) {
        pthread_mutex_lock(&apf_objects_lock);
        bo_link(*made);
        pthread_mutex_unlock(&apf_objects_lock);
    }
    apf_device_leave(device);
    return code;
}

/* A reference to the cached import of `buffer`, or NULL. Under objects_lock. */
static apf_bo *cached(apf_device *device, apf_buffer *buffer, uint32_t bank)
{
    for (apf_bo *bo = buffer->attached; bo; bo = bo->sibling)
        if (bo->device == device && bo->bank == bank) {
            if (bo->refs++ == 0) {
                apf_buffer_retain(buffer);
                apf_device_retain(device);
            }
            return bo;
        }
    return NULL;
}

/* Add a new bo to the lists; returns another thread's bo if that one was added first. Under objects_lock. */
static apf_bo *publish(apf_bo *fresh)
{
    apf_buffer *buffer = fresh->buffer;
    if (buffer->flags & APF_BUFFER_FOREIGN) {
        bo_link(fresh);
        return fresh;
    }
    apf_bo *first = cached(fresh->device, buffer, fresh->bank);
    if (first) return first;
    bo_link(fresh);
    fresh->attached = 1;
    fresh->sibling = buffer->attached;
    buffer->attached = fresh;
    return fresh;
}

int apf_bo_import(apf_device *device, apf_buffer *buffer, uint32_t bank, apf_bo **imported, apf_error *err)
{
    int code = apf_device_enter(device, err);
    if (code != APF_OK) return code;
    pthread_mutex_lock(&apf_objects_lock);
    apf_bo *bo = cached(device, buffer, bank);
    pthread_mutex_unlock(&apf_objects_lock);
    if (!bo) {
        /* Import the whole block of a pooled buffer, since its next user may need more of it. */
        uint64_t size = buffer->flags & (APF_BUFFER_FOREIGN | APF_BUFFER_MAPPED) ? buffer->size : buffer->capacity;
        apf_bo *fresh;
        if ((code = bo_new(device, buffer, size, bank, &fresh, err)) == APF_OK) {
            pthread_mutex_lock(&apf_objects_lock);
            bo = publish(fresh);
            pthread_mutex_unlock(&apf_objects_lock);
            if (bo != fresh) {
                device->driver->free(fresh->handle);
                bo_free(fresh);
                apf_buffer_release(buffer); /* not the last reference: the caller has one */
                apf_device_release(device);
            }
        }
    }
    apf_device_leave(device);
    *imported = bo;
    return code;
}

void apf_bo_retain(apf_bo *bo)
{
    pthread_mutex_lock(&apf_objects_lock);
    bo->refs++;
    pthread_mutex_unlock(&apf_objects_lock);
}

int apf_bos_hold(const apf_run_arg *args, uint32_t count, apf_arg *raw, apf_error *err)
{
    uint32_t missing = count;
    pthread_mutex_lock(&apf_objects_lock);
    for (uint32_t i = 0; i < count; i++) {
        raw[i] = args[i].arg;
        if (raw[i].kind != APF_BUFFER) continue;
        raw[i].bo = args[i].bo->handle;
        if (!raw[i].bo) missing = i;
    }
    for (uint32_t i = 0; i < count && missing == count; i++)
        if (raw[i].kind == APF_BUFFER) args[i].bo->refs++;
    pthread_mutex_unlock(&apf_objects_lock);
    if (missing == count) return APF_OK;
    return apf_fail(err, APF_ARGUMENT, 0, "argument %u: its buffer object was abandoned with a run that never ended",
                    missing);
}

void apf_bo_release(apf_bo *bo)
{
    if (!bo) return;
    apf_device *device = bo->device;
    apf_buffer *buffer = bo->buffer;
    const int entered = apf_device_enter_any(device);
    pthread_mutex_lock(&apf_objects_lock);
    const int last = --bo->refs == 0, cache = bo->attached;
    apf_drv_bo *handle = last && !cache ? bo->handle : NULL;
    if (handle) {
        bo_unlink(bo);
        if (!entered && apf_device_here(device)) device->driver->free(handle);
    }
    pthread_mutex_unlock(&apf_objects_lock);
    if (handle && entered) device->driver->free(handle);
    if (entered) apf_device_leave(device);
    if (!last) return;
    if (!cache) bo_free(bo);
    apf_buffer_release(buffer);
    apf_device_release(device);
}

void apf_bo_abandon(apf_bo *bo)
{
    pthread_mutex_lock(&apf_objects_lock);
    if (bo->attached) bo_detach(bo);
    if (bo->handle) bo_unlink(bo);
    bo->handle = NULL; /* the driver frees it when the device closes */
    pthread_mutex_unlock(&apf_objects_lock);
}

uint64_t apf_bo_size(const apf_bo *bo) { return bo->size; }

void *apf_bo_host(const apf_bo *bo) { return bo->buffer ? bo->buffer->data : NULL; }

static int check_range(const apf_bo *bo, uint64_t offset, uint64_t size, apf_error *err)
{
    if (offset <= bo->size && size <= bo->size - offset) return APF_OK;
    return apf_fail(err, APF_INVALID, 0, "cannot move %llu bytes from byte %llu on of a buffer object of %llu",
                    (unsigned long long)size, (unsigned long long)offset, (unsigned long long)bo->size);
}

/* Begin a call on a buffer object. INVALID: it was abandoned; what apf_device_enter returns. */
static int enter(const apf_bo *bo, apf_drv_bo **handle, apf_error *err)
{
    int code = apf_device_enter(bo->device, err);
    if (code != APF_OK) return code;
    pthread_mutex_lock(&apf_objects_lock);
    *handle = bo->handle;
    pthread_mutex_unlock(&apf_objects_lock);
    if (*handle) return APF_OK;
    apf_device_leave(bo->device);
    return apf_fail(err, APF_INVALID, 0, "a buffer object was abandoned with a run that never ended");
}

int apf_bo_sync(apf_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err)
{
    int code = check_range(bo, offset, size, err);
    if (code != APF_OK) return code;
    if (!bo->buffer) return apf_fail(err, APF_INVALID, 0, "device memory has no host side to sync with");
    if (direction == APF_FROM_DEVICE && bo->buffer->flags & APF_BUFFER_READONLY)
        return apf_fail(err, APF_READ_ONLY, 0, "cannot write to the read-only host side of a buffer object");
    apf_drv_bo *handle;
    if ((code = enter(bo, &handle, err)) != APF_OK) return code;
    if (size) code = apf_device_result(bo->device, bo->device->driver->sync(handle, direction, offset, size, err));
    apf_device_leave(bo->device);
    return code;
}

int apf_device_transfers(const apf_device *device)
{
    return device->driver->size > offsetof(apf_driver, transfer) && device->driver->transfer;
}

int apf_bo_transfer(apf_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err)
{
    int code = check_range(bo, offset, size, err);
    if (code != APF_OK) return code;
    const apf_driver *driver = bo->device->driver;
    if (!apf_device_transfers(bo->device))
        return apf_fail(err, APF_UNSUPPORTED, 0, "driver '%s' moves data only from and to imported memory",
                        driver->name);
    if (bo->buffer || (!data && direction != APF_TO_DEVICE))
        return apf_fail(err, APF_INVALID, 0, "expected device memory without a host side, and host memory to move to");
    apf_drv_bo *handle;
    if ((code = enter(bo, &handle, err)) != APF_OK) return code;
    if (size) code = apf_device_result(bo->device, driver->transfer(handle, direction, offset, data, size, err));
    apf_device_leave(bo->device);
    return code;
}

/* -- ends -- */

/* None of them has references. */
void apf_attachments_drop(apf_buffer *buffer)
{
    for (;;) {
        pthread_mutex_lock(&apf_objects_lock);
        apf_bo *bo = buffer->attached;
        if (!bo) break;
        apf_device *device = bo->device; /* exists as long as a bo of it is attached */
        const int entered = apf_device_enter_any(device);
        bo_detach(bo);
        bo_unlink(bo);
        if (!entered && apf_device_here(device)) device->driver->free(bo->handle);
        pthread_mutex_unlock(&apf_objects_lock);
        if (entered) {
            device->driver->free(bo->handle);
            apf_device_leave(device);
        }
        bo_free(bo);
    }
    pthread_mutex_unlock(&apf_objects_lock);
}

void apf_device_end_objects(apf_device *device)
{
    pthread_mutex_lock(&apf_objects_lock);
    apf_bo *bos = device->bos;
    device->bos = NULL;
    for (apf_bo *bo = bos, *next; bo; bo = next) {
        next = bo->next;
        if (bo->attached) bo_detach(bo);
        bo->next = bo->previous = NULL;
        device->driver->free(bo->handle);
        bo->handle = NULL;
        if (!bo->refs) bo_free(bo);
    }
    apf_kernels_end(device);
    pthread_mutex_unlock(&apf_objects_lock);
}
