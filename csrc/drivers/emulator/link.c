/* Transfers between host and card: the copy itself, the time that a real bus would take, and faults on request.
 *
 * Each direction is one lane with a separate clock. A transfer begins when the previous one in its direction has ended,
 * and lasts latency + size / bandwidth. The two directions and compute do not wait for each other.
 */
#include "emulator.h"

#include <string.h>
#include <sys/prctl.h>

/* A transfer checks whether it must stop each time it has copied this many bytes (about 1 ms). */
#define SLICE (8ull << 20)

int64_t emu_duration(uint64_t bytes, uint64_t bandwidth)
{
    return bandwidth ? (int64_t)((double)bytes * 1e9 / (double)bandwidth) : 0;
}

int emu_due(uint64_t *countdown) { return *countdown && --*countdown == 0; }

int emu_fail_lost(const emu_card *card, apf_error *err)
{
    return apf_fail(err, APF_DEVICE_LOST, 0, "software card %u was lost", card->index);
}

int emu_operation(emu_card *card, apf_error *err)
{
    if (emu_due(&card->settings.lose_device)) {
        card->lost = 1;
        pthread_cond_broadcast(&card->wake);
    }
    return card->lost ? emu_fail_lost(card, err) : APF_OK;
}

static int stopped(const emu_card *card, const volatile int *cancelled)
{
    return (cancelled && __atomic_load_n(cancelled, __ATOMIC_RELAXED)) ||
           __atomic_load_n(&card->closing, __ATOMIC_RELAXED);
}

void emu_sleep(emu_card *card, int64_t deadline, const volatile int *cancelled)
{
    /* By default Linux may wake a thread 50 us late to save power: too late if the transfer itself takes 50 us.
     */
    const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    while (!card->lost && !stopped(card, cancelled) && apf_now() < deadline)
        apf_cond_wait(&card->wake, &card->lock, deadline);
    prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}

/* Check for faults, and reserve this transfer's time in its direction. Under the lock. */
static int transfer_begin(emu_card *card, int direction, uint64_t size, int64_t *end, apf_error *err)
{
    emu_settings *settings = &card->settings;
    *end = 0;
    int code = emu_operation(card, err);
    if (code != APF_OK) return code;
    if (emu_due(direction == APF_TO_DEVICE ? &settings->fail_to_device : &settings->fail_from_device))
        return apf_fail(err, APF_IO, 0, "software card %u: injected failure of a transfer %s", card->index,
                        direction == APF_TO_DEVICE ? "to the device" : "from the device");
    const uint64_t bandwidth =
        direction == APF_TO_DEVICE ? settings->to_device_bandwidth : settings->from_device_bandwidth;
    if (bandwidth || settings->latency) {
        const int64_t now = apf_now();
        const int64_t begin = card->link_free[direction] > now ? card->link_free[direction] : now;
        *end = card->link_free[direction] = begin + (int64_t)settings->latency + emu_duration(size, bandwidth);
    }
    return APF_OK;
}

static int copy_slice(uint8_t *device, uint8_t *host, int direction, uint64_t size, apf_error *err)
{
    if (!host) memset(device, 0, size);
    if (!host) return APF_OK;
    return direction == APF_TO_DEVICE ? apf_copy(device, host, size, err) : apf_copy(host, device, size, err);
}

/* `host` NULL: zeros. */
static int copy(apf_drv_bo *bo, int direction, uint64_t offset, uint8_t *host, uint64_t size,
                const volatile int *cancelled, apf_error *err)
{
    uint8_t *device = bo->block->data + offset;
    for (uint64_t done = 0; done < size; done += SLICE) {
        if (stopped(bo->card, cancelled))
            return apf_fail(err, APF_CANCELLED, 0, "software card %u: transfer cancelled after %llu of %llu bytes",
                            bo->card->index, (unsigned long long)done, (unsigned long long)size);
        const uint64_t bytes = size - done < SLICE ? size - done : SLICE;
        int code = copy_slice(device + done, host ? host + done : NULL, direction, bytes, err);
        if (code != APF_OK) return code;
    }
    return APF_OK;
}

static int move(apf_drv_bo *bo, int direction, uint64_t offset, uint8_t *host, uint64_t size,
                const volatile int *cancelled, apf_error *err)
{
    emu_card *card = bo->card;
    int64_t end;
    pthread_mutex_lock(&card->lock);
    int code = transfer_begin(card, direction, host ? size : 0, &end, err);
    pthread_mutex_unlock(&card->lock);
    if (code != APF_OK) return code;
    code = copy(bo, direction, offset, host, size, cancelled, err);
    pthread_mutex_lock(&card->lock);
    if (code == APF_OK) {
        if (end) emu_sleep(card, end, cancelled);
        if (card->lost)
            code = emu_fail_lost(card, err);
        else if (host) /* zeros are made on the card */
            *(direction == APF_TO_DEVICE ? &card->counters.to_device : &card->counters.from_device) += size;
    }
    pthread_mutex_unlock(&card->lock);
    return code;
}

int emu_transfer(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, const volatile int *cancelled,
                 apf_error *err)
{
    return move(bo, direction, offset, bo->host + offset, size, cancelled, err);
}

int emu_bo_transfer(apf_drv_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err)
{
    return move(bo, direction, offset, data, size, NULL, err);
}

int emu_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err)
{
    const uint32_t index = bo->card->index;
    if (direction != APF_TO_DEVICE && direction != APF_FROM_DEVICE)
        return apf_fail(err, APF_INVALID, 0, "software card %u: %d is not a direction", index, direction);
    if (!bo->host)
        return apf_fail(err, APF_INVALID, 0,
                        "software card %u: a buffer object in device memory has no host side to sync with", index);
    if (offset > bo->size || size > bo->size - offset)
        return apf_fail(err, APF_INVALID, 0, "software card %u: bytes %llu to %llu of a buffer object of %llu", index,
                        (unsigned long long)offset, (unsigned long long)(offset + size), (unsigned long long)bo->size);
    if (direction == APF_FROM_DEVICE && bo->readonly)
        return apf_fail(err, APF_READ_ONLY, 0, "software card %u: the host side is read-only", index);
    return emu_transfer(bo, direction, offset, size, NULL, err);
}
