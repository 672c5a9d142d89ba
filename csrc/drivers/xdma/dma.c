/* Move data through XDMA's channels. Rules of Xilinx's dma_ip_drivers:
 *
 *   - use only pread and pwrite: it handles the offsets of pwritev, AIO and io_uring wrongly;
 *   - one call moves at most 0x7ffff000 bytes, as for every Linux file;
 *   - a failure after some progress returns the short count and hides the error: the next call may fail or not;
 *   - a transfer that times out (10 s) ends in -ERESTARTSYS, 512, which older kernels pass to user space.
 */
#include "xdma.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOST 0x7ffff000u
#define SPLIT (4u << 20) /* smallest slice that is given to another channel */
#define ERESTARTSYS 512  /* internal to the kernel; not in errno.h */
#define INTERRUPTIONS 100

/* A part of a transfer, handed to a worker. */
typedef struct xdma_slice {
    xdma_channel *channel;
    int direction;
    uint8_t *data;
    uint64_t address, size;
    int code;
    int done;
    apf_error error;
    struct xdma_slice *next;
} xdma_slice;

int xdma_code(int sys, int otherwise)
{
    return sys == ENODEV || sys == ENXIO || sys == ESHUTDOWN ? APF_DEVICE_LOST : otherwise;
}

static int fail(const xdma_channel *channel, int sys, uint64_t address, uint64_t left, apf_error *err)
{
    const char *why = "";
    if (sys == ERESTARTSYS) {
        sys = ETIMEDOUT;
        why = " (errno 512, ERESTARTSYS: the driver gave up on the card)";
    } else if (sys == EFAULT) {
        why = " (host memory could not be pinned for writing)";
    } else if (sys == EINVAL) {
        why = " (refused, as for a wrong alignment)";
    }
    return apf_fail(err, xdma_code(sys, APF_IO), sys, "%s: DMA failed at card address %#llx with %llu bytes left%s",
                    channel->name, (unsigned long long)address, (unsigned long long)left, why);
}

/* Move everything through one channel, which is locked. */
static int move_all(const xdma_channel *channel, int direction, uint8_t *data, uint64_t address, uint64_t size,
                    apf_error *err)
{
    int interruptions = 0;
    while (size) {
        const size_t now = size < MOST ? (size_t)size : MOST;
        errno = 0;
        const ssize_t moved = direction == APF_TO_DEVICE ? pwrite(channel->fd, data, now, (off_t)address)
                                                         : pread(channel->fd, data, now, (off_t)address);
        if (moved <= 0) {
            if (moved < 0 && errno == EINTR && ++interruptions < INTERRUPTIONS) continue;
            return fail(channel, moved < 0 ? errno : EIO, address, size, err);
        }
        data += moved;
        address += (uint64_t)moved;
        size -= (uint64_t)moved;
    }
    return APF_OK;
}

static int move_slice(xdma_channel *channel, int direction, uint8_t *data, uint64_t address, uint64_t size,
                      apf_error *err)
{
    pthread_mutex_lock(&channel->lock);
    const int code = move_all(channel, direction, data, address, size, err);
    pthread_mutex_unlock(&channel->lock);
    return code;
}

/* -- workers -- */

static void *worker(void *argument)
{
    xdma_workers *workers = argument;
    pthread_mutex_lock(&workers->lock);
    for (;;) {
        while (!workers->waiting && !workers->stopping) {
            workers->idle++;
            pthread_cond_wait(&workers->work, &workers->lock);
            workers->idle--;
        }
        xdma_slice *slice = workers->waiting;
        if (!slice) break;
        workers->waiting = slice->next;
        pthread_mutex_unlock(&workers->lock);
        slice->code =
            move_slice(slice->channel, slice->direction, slice->data, slice->address, slice->size, &slice->error);
        pthread_mutex_lock(&workers->lock);
        slice->done = 1;
        pthread_cond_broadcast(&workers->done);
    }
    pthread_mutex_unlock(&workers->lock);
    apf_live_add(threads, -1);
    return NULL;
}

void xdma_workers_begin(xdma_workers *workers)
{
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->work, NULL);
    pthread_cond_init(&workers->done, NULL);
}

void xdma_workers_end(xdma_workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    workers->stopping = 1;
    pthread_cond_broadcast(&workers->work);
    pthread_mutex_unlock(&workers->lock);
    for (uint32_t i = 0; i < workers->count; i++) pthread_join(workers->threads[i], NULL);
    pthread_mutex_destroy(&workers->lock);
    pthread_cond_destroy(&workers->work);
    pthread_cond_destroy(&workers->done);
}

/* Hand a slice to a worker; false: no worker is free and none can be started. */
static int hand_over(xdma_workers *workers, xdma_slice *slice)
{
    pthread_mutex_lock(&workers->lock);
    if (!workers->idle && workers->count < 2 * XDMA_CHANNELS && !apf_allocation_fails() &&
        pthread_create(&workers->threads[workers->count], NULL, worker, workers) == 0) {
        workers->count++;
        apf_live_add(threads, 1);
    }
    const int taken = workers->count > 0;
    if (taken) {
        slice->next = workers->waiting;
        workers->waiting = slice;
        pthread_cond_signal(&workers->work);
    }
    pthread_mutex_unlock(&workers->lock);
    return taken;
}

static void wait_for(xdma_workers *workers, const xdma_slice *slice)
{
    pthread_mutex_lock(&workers->lock);
    while (!slice->done) pthread_cond_wait(&workers->done, &workers->lock);
    pthread_mutex_unlock(&workers->lock);
}

/* -- transfers -- */

/* A small transfer takes the first channel that is free. */
static int move_small(apf_drv_device *device, int direction, uint8_t *data, uint64_t address, uint64_t size,
                      apf_error *err)
{
    xdma_direction *channels = &device->directions[direction];
    const uint32_t first = __atomic_fetch_add(&channels->next, 1, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < channels->count; i++) {
        xdma_channel *channel = &channels->channels[(first + i) % channels->count];
        if (pthread_mutex_trylock(&channel->lock) != 0) continue;
        const int code = move_all(channel, direction, data, address, size, err);
        pthread_mutex_unlock(&channel->lock);
        return code;
    }
    return move_slice(&channels->channels[first % channels->count], direction, data, address, size, err);
}

/* A large transfer is spread over all channels. */
static int move_large(apf_drv_device *device, int direction, uint8_t *data, uint64_t address, uint64_t size,
                      uint32_t count, apf_error *err)
{
    xdma_direction *channels = &device->directions[direction];
    xdma_slice slices[XDMA_CHANNELS] = {0};
    const uint64_t share = (size / count) & ~(uint64_t)(XDMA_PAGE - 1);
    int code = APF_OK;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t offset = share * i;
        slices[i] = (xdma_slice){.channel = &channels->channels[i], .direction = direction, .data = data + offset};
        slices[i].address = address + offset;
        slices[i].size = i + 1 < count ? share : size - offset;
    }
    uint32_t handed = 1;
    while (handed < count && hand_over(&device->workers, &slices[handed])) handed++;
    /* This thread moves the first slice, and those that no worker took. */
    for (uint32_t i = 0; code == APF_OK && i < count; i = i ? i + 1 : handed)
        code = move_slice(slices[i].channel, direction, slices[i].data, slices[i].address, slices[i].size, err);
    for (uint32_t i = 1; i < handed; i++) {
        wait_for(&device->workers, &slices[i]);
        if (code == APF_OK && slices[i].code != APF_OK) {
            code = slices[i].code;
            if (err) *err = slices[i].error;
        }
    }
    return code;
}

int xdma_move(apf_drv_device *device, int direction, uint8_t *data, uint64_t address, uint64_t size, apf_error *err)
{
    if (size == 0) return APF_OK;
    if ((uintptr_t)data % device->align != address % device->align)
        return apf_fail(err, APF_MISALIGNED, 0, "host address %p and card address %#llx differ modulo %u", (void *)data,
                        (unsigned long long)address, device->align);
    uint64_t count = device->directions[direction].count;
    if (size / SPLIT < count) count = size / SPLIT;
    const int code = count > 1 ? move_large(device, direction, data, address, size, (uint32_t)count, err)
                               : move_small(device, direction, data, address, size, err);
    if (code == APF_OK)
        __atomic_add_fetch(direction == APF_TO_DEVICE ? &device->counters.to_device : &device->counters.from_device,
                           size, __ATOMIC_RELAXED);
    return code;
}
