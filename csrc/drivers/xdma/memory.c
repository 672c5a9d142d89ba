/* The card's memory, which XDMA does not manage: ranges of [xdma.base, xdma.base + xdma.memory), first fit. */
#include "xdma.h"

#include <string.h>

#define BOUNCE (1u << 20) /* a multiple of every alignment */

int xdma_memory_begin(apf_drv_device *device, apf_error *err)
{
    device->free = apf_calloc(1, sizeof *device->free);
    if (!device->free) return apf_fail(err, APF_NO_MEMORY, 0, "no memory to open a device");
    *device->free = (xdma_range){device->options.base, device->options.memory & ~(uint64_t)(XDMA_PAGE - 1), NULL};
    return APF_OK;
}

void xdma_memory_end(apf_drv_device *device)
{
    while (device->free) {
        xdma_range *next = device->free->next;
        apf_free(device->free);
        device->free = next;
    }
}

/* Take `size` bytes, a multiple of the page; false: no range is large enough. */
static int take(apf_drv_device *device, uint64_t size, uint64_t *address)
{
    for (xdma_range **at = &device->free; *at; at = &(*at)->next) {
        xdma_range *range = *at;
        if (range->size < size) continue;
        *address = range->address;
        range->address += size;
        range->size -= size;
        if (!range->size) {
            *at = range->next;
            apf_free(range);
        }
        return 1;
    }
    return 0;
}

/* Give a range back, joined with its neighbours. `spare` is memory for its record; this function uses or frees it. */
static void give(apf_drv_device *device, uint64_t address, uint64_t size, xdma_range *spare)
{
    xdma_range *before = NULL, *after = device->free;
    while (after && after->address < address) before = after, after = after->next;
    const int joins_before = before && before->address + before->size == address;
    const int joins_after = after && address + size == after->address;
    if (joins_before) {
        before->size += size;
        if (joins_after) {
            before->size += after->size;
            before->next = after->next;
            apf_free(after);
        }
    } else if (joins_after) {
        after->address = address;
        after->size += size;
    } else {
        *spare = (xdma_range){address, size, after};
        if (before)
            before->next = spare;
        else
            device->free = spare;
        return;
    }
    apf_free(spare);
}

/* -- buffer objects -- */

/* The record of the range that freeing it may need is allocated with it, so that freeing cannot fail. */
struct owned_bo {
    apf_drv_bo bo;
    xdma_range *spare;
};

static int new_bo(apf_drv_device *device, void *data, uint64_t size, apf_drv_bo **made, apf_error *err)
{
    struct owned_bo *owned = apf_calloc(1, sizeof *owned);
    xdma_range *spare = apf_calloc(1, sizeof *spare);
    if (!owned || !spare) {
        apf_free(owned);
        apf_free(spare);
        return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a buffer object");
    }
    /* A buffer object of zero bytes needs an address, too. */
    const uint64_t room = size ? (size + XDMA_PAGE - 1) & ~(uint64_t)(XDMA_PAGE - 1) : XDMA_PAGE;
    owned->bo = (apf_drv_bo){.device = device, .data = data, .size = size, .room = room};
    owned->spare = spare;
    pthread_mutex_lock(&device->lock);
    const int taken = size <= device->options.memory && take(device, room, &owned->bo.address);
    pthread_mutex_unlock(&device->lock);
    if (!taken) {
        apf_free(owned);
        apf_free(spare);
        return apf_fail(err, APF_DEVICE_MEMORY, 0,
                        "no %llu bytes in one piece in the card's memory (%llu of %llu in use; see xdma.memory)",
                        (unsigned long long)size,
                        (unsigned long long)__atomic_load_n(&device->counters.memory_used, __ATOMIC_RELAXED),
                        (unsigned long long)device->options.memory);
    }
    __atomic_add_fetch(&device->counters.memory_used, room, __ATOMIC_RELAXED);
    *made = &owned->bo;
    return APF_OK;
}

int xdma_bo_alloc(apf_drv_device *device, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err)
{
    (void)bank;
    return new_bo(device, NULL, size, bo, err);
}

int xdma_bo_import(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
                   apf_error *err)
{
    (void)bank;
    if (readonly)
        return apf_fail(err, APF_READ_ONLY, 0, "XDMA pins host memory for writing, and %p is read-only", data);
    if ((uintptr_t)data % device->align)
        return apf_fail(err, APF_MISALIGNED, 0, "'%s' needs host memory at a multiple of %u bytes; %p is %u past one",
                        device->info.name, device->align, data, (unsigned)((uintptr_t)data % device->align));
    return new_bo(device, data, size, bo, err);
}

void xdma_bo_free(apf_drv_bo *bo)
{
    struct owned_bo *owned = (struct owned_bo *)bo;
    apf_drv_device *device = bo->device;
    pthread_mutex_lock(&device->lock);
    give(device, bo->address, bo->room, owned->spare);
    pthread_mutex_unlock(&device->lock);
    __atomic_sub_fetch(&device->counters.memory_used, bo->room, __ATOMIC_RELAXED);
    apf_free(owned);
}

/* Move through a buffer of its own memory whose address does not fit the card's. */
static int move_by_bounce(apf_drv_bo *bo, int direction, uint64_t offset, uint8_t *data, uint64_t size, apf_error *err)
{
    const uint64_t most = size < BOUNCE ? size : BOUNCE;
    const uint32_t align = bo->device->align > XDMA_PAGE ? bo->device->align : XDMA_PAGE;
    uint8_t *memory = apf_calloc(1, most + 2 * (uint64_t)align);
    if (!memory) return apf_fail(err, APF_NO_MEMORY, 0, "no memory to move misaligned data through");
    uint8_t *bounce = memory + (align - (uintptr_t)memory % align) + (bo->address + offset) % align;
    int code = APF_OK;
    for (uint64_t done = 0; done < size && code == APF_OK; done += most) {
        const uint64_t bytes = size - done < most ? size - done : most;
        if (direction == APF_TO_DEVICE) code = apf_copy(bounce, data + done, bytes, err);
        if (code == APF_OK) code = xdma_move(bo->device, direction, bounce, bo->address + offset + done, bytes, err);
        if (code == APF_OK && direction != APF_TO_DEVICE) code = apf_copy(data + done, bounce, bytes, err);
    }
    apf_free(memory);
    return code;
}

int xdma_bo_transfer(apf_drv_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err)
{
    const uint32_t align = bo->device->align;
    if (!data) return apf_fail(err, APF_UNSUPPORTED, 0, "'%s': zeros have to be brought there", bo->device->info.name);
    if ((uintptr_t)data % align != (bo->address + offset) % align)
        return move_by_bounce(bo, direction, offset, data, size, err);
    return xdma_move(bo->device, direction, data, bo->address + offset, size, err);
}

int xdma_bo_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err)
{
    if (offset > bo->size || size > bo->size - offset)
        return apf_fail(err, APF_INVALID, 0, "[%llu, %llu + %llu) is outside of a buffer object of %llu bytes",
                        (unsigned long long)offset, (unsigned long long)offset, (unsigned long long)size,
                        (unsigned long long)bo->size);
    if (!bo->data && size)
        return apf_fail(err, APF_INVALID, 0, "device memory has no host side to move %llu bytes to or from",
                        (unsigned long long)size);
    return xdma_move(bo->device, direction, bo->data + offset, bo->address + offset, size, err);
}
