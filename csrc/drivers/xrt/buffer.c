/* Buffer objects of the xrt driver. */
#include "xrt.h"

#include <errno.h>
#include <string.h>

#define PAGE 4096u
#define LIMIT ((4ull << 30) - PAGE) /* the kernel module's sizes have 32 bits, in whole pages */
#define RECENT 8                    /* unused parts that are kept for the next run */

static pthread_mutex_t objects = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void guard(void) { apf_fork_guard(&objects); }

void xrt_objects_lock(void) { pthread_mutex_lock(&objects); }

void xrt_objects_unlock(void) { pthread_mutex_unlock(&objects); }

static uint64_t new_identity(void)
{
    static uint64_t last;
    return __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
}

/* -- make and free -- */

static int is_host_bank(apf_drv_device *device, uint32_t bank)
{
    pthread_mutex_lock(&device->lock);
    const int host = bank < device->xclbin.banks_count && device->xclbin.banks[bank].host;
    pthread_mutex_unlock(&device->lock);
    return host;
}

static xrt_bo make(apf_drv_device *device, void *data, uint64_t size, uint64_t flags, uint32_t bank)
{
    const xrt_api *xrt = device->xrt;
    xrt_objects_lock();
    errno = 0;
    xrt_bo handle = data ? xrt->BOAllocUserPtr(device->handle, data, size, flags, bank)
                         : xrt->BOAlloc(device->handle, size, flags, bank);
    const int sys = errno;
    xrt_objects_unlock();
    errno = sys;
    return handle;
}

static void unmake(apf_drv_device *device, xrt_bo handle)
{
    xrt_objects_lock();
    device->xrt->BOFree(handle);
    xrt_objects_unlock();
}

static int new_bo(apf_drv_device *device, void *data, uint64_t size, uint32_t bank, apf_drv_bo **made, apf_error *err)
{
    if (size > LIMIT)
        return apf_fail(err, APF_DEVICE_MEMORY, 0,
                        "%llu bytes are too many for one buffer object; XRT's are under 4 GiB",
                        (unsigned long long)size);
    apf_drv_bo *bo = apf_calloc(1, sizeof *bo);
    if (!bo) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a buffer object");
    const int host = is_host_bank(device, bank);
    bo->device = device;
    bo->size = size;
    bo->data = data;
    bo->device_only = !data && !host;
    bo->whole.identity = new_identity();
    /* A kernel needs an address even for zero bytes. */
    const uint64_t bytes = size ? size : PAGE;
    void *used = host || !size ? NULL : data;
    const uint64_t flags = host ? XRT_BO_HOST_ONLY : used ? 0 : XRT_BO_DEVICE_ONLY;
    bo->whole.handle = make(device, used, bytes, flags, bank);
    if (!bo->whole.handle) {
        const int code = xrt_code(APF_DEVICE_MEMORY);
        apf_free(bo);
        return xrt_fail(err, code, "cannot make a buffer object of %llu bytes in memory bank %u",
                        (unsigned long long)bytes, bank);
    }
    if (host || used) {
        errno = 0;
        void *mapped = device->xrt->BOMap(bo->whole.handle);
        if (!mapped || (used && mapped != used)) { /* XRT can return an object without memory (2.13) */
            const int code = xrt_fail(err, APF_DEVICE_MEMORY, "a buffer object of %llu bytes has no host memory",
                                      (unsigned long long)bytes);
            unmake(device, bo->whole.handle);
            apf_free(bo);
            return code;
        }
        bo->mapped = host ? mapped : NULL;
    }
    pthread_mutex_init(&bo->lock, NULL);
    __atomic_add_fetch(&device->counters.memory_used, bytes, __ATOMIC_RELAXED);
    *made = bo;
    return APF_OK;
}

int xrt_bo_alloc(apf_drv_device *device, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err)
{
    return new_bo(device, NULL, size, bank, bo, err);
}

int xrt_bo_import(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
                  apf_error *err)
{
    if (readonly) return apf_fail(err, APF_READ_ONLY, 0, "XRT pins host memory for writing, and %p is read-only", data);
    if ((uintptr_t)data % PAGE)
        return apf_fail(err, APF_MISALIGNED, 0, "XRT needs host memory at a multiple of %u bytes; %p is %u past one",
                        PAGE, data, (unsigned)((uintptr_t)data % PAGE));
    return new_bo(device, data, size, bank, bo, err);
}

void xrt_bo_free(apf_drv_bo *bo)
{
    const xrt_api *xrt = bo->device->xrt;
    xrt_objects_lock();
    while (bo->parts) {
        xrt_part *part = bo->parts;
        bo->parts = part->next;
        xrt->BOFree(part->handle);
        apf_free(part);
    }
    xrt->BOFree(bo->whole.handle);
    xrt_objects_unlock();
    __atomic_sub_fetch(&bo->device->counters.memory_used, bo->size ? bo->size : PAGE, __ATOMIC_RELAXED);
    pthread_mutex_destroy(&bo->lock);
    apf_free(bo);
}

/* -- move -- */

int xrt_bo_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err)
{
    apf_drv_device *device = bo->device;
    if (offset > bo->size || size > bo->size - offset)
        return apf_fail(err, APF_INVALID, 0, "[%llu, %llu + %llu) is outside of a buffer object of %llu bytes",
                        (unsigned long long)offset, (unsigned long long)offset, (unsigned long long)size,
                        (unsigned long long)bo->size);
    if (bo->device_only && bo->size)
        return apf_fail(err, APF_INVALID, 0, "device memory has no host side to move %llu bytes to or from",
                        (unsigned long long)size);
    if (size == 0) return APF_OK;
    const int to = direction == APF_TO_DEVICE;
    int code = APF_OK;
    if (bo->mapped && bo->data && to) code = apf_copy(bo->mapped + offset, bo->data + offset, size, err);
    if (code != APF_OK) return code;
    errno = 0;
    int failed = device->xrt->BOSync(bo->whole.handle, direction, size, offset) != 0;
    /* See XRT's shims in api.h. Those of emulations talk to other processes, and leave errno behind that means nothing.
     */
    if (device->xrt->minor >= XRT_SHIM_OBJECTS && !device->xrt->emulation) failed |= errno != 0;
    if (failed)
        return xrt_fail(err, xrt_code(APF_IO), "cannot move %llu bytes at offset %llu %s device '%s'",
                        (unsigned long long)size, (unsigned long long)offset, to ? "to" : "from", device->info.name);
    if (bo->mapped && bo->data && !to) code = apf_copy(bo->data + offset, bo->mapped + offset, size, err);
    __atomic_add_fetch(to ? &device->counters.to_device : &device->counters.from_device, size, __ATOMIC_RELAXED);
    return code;
}

/* -- parts -- */

/* Drop unused parts, the oldest first, until few are left. Called under the object's lock. */
static void forget_parts(apf_drv_bo *bo)
{
    uint32_t unused = 0;
    for (xrt_part **at = &bo->parts; *at;) {
        xrt_part *part = *at;
        if (part->users || ++unused <= RECENT) {
            at = &part->next;
            continue;
        }
        *at = part->next;
        unmake(bo->device, part->handle);
        apf_free(part);
    }
}

static int new_part(apf_drv_bo *bo, uint64_t offset, xrt_part **made, apf_error *err)
{
    xrt_part *part = apf_calloc(1, sizeof *part);
    if (!part) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a part of a buffer object");
    xrt_objects_lock();
    errno = 0;
    part->handle = bo->device->xrt->BOSubAlloc(bo->whole.handle, bo->size - offset, offset);
    const int sys = errno;
    xrt_objects_unlock();
    if (!part->handle) {
        apf_free(part);
        errno = sys;
        return xrt_fail(err, xrt_code(APF_DEVICE_MEMORY),
                        "cannot use a buffer object of %llu bytes from offset %llu on", (unsigned long long)bo->size,
                        (unsigned long long)offset);
    }
    part->offset = offset;
    part->identity = new_identity();
    part->next = bo->parts;
    bo->parts = part;
    *made = part;
    return APF_OK;
}

int xrt_part_use(apf_drv_bo *bo, uint64_t offset, xrt_part **used, apf_error *err)
{
    /* The kernel accesses no byte past the end, so any address is valid. */
    if (offset == 0 || offset == bo->size) {
        *used = &bo->whole;
        return APF_OK;
    }
    int code = APF_OK;
    pthread_mutex_lock(&bo->lock);
    xrt_part *part = bo->parts;
    while (part && part->offset != offset) part = part->next;
    if (!part) {
        forget_parts(bo);
        code = new_part(bo, offset, &part, err);
    }
    if (code == APF_OK) part->users++;
    pthread_mutex_unlock(&bo->lock);
    *used = part;
    return code;
}

void xrt_part_leave(apf_drv_bo *bo, xrt_part *part)
{
    if (part == &bo->whole) return;
    pthread_mutex_lock(&bo->lock);
    part->users--;
    pthread_mutex_unlock(&bo->lock);
}
