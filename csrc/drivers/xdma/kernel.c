/* Start an HLS kernel through its registers, and detect its end.
 *
 * Register layout of ap_ctrl_hs and ap_ctrl_chain: "S_AXILITE Control Register Map" in AMD's UG1399 (before: UG902):
 * 0x00 control, 0x04 global interrupt enable, 0x08 interrupts enabled, 0x0c interrupts pending (written ones toggle).
 */
#include "xdma.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CONTROL = 0x00, GLOBAL_ENABLE = 0x04, ENABLED = 0x08, PENDING = 0x0c };
enum { AP_START = 1 << 0, AP_DONE = 1 << 1, AP_IDLE = 1 << 2, AP_CONTINUE = 1 << 4 };

#define GONE 0xffffffffu /* value of every register of a card that left the bus */
#define SPIN 50000       /* ns of polling without pause, after the start and after the expected end */
#define LATE 150000      /* ns by which a pause may be too long: timer slack and wake-up time */
#define LONGEST_PAUSE 1000000
#define LOOKS 4          /* polls for each read of the clock, which takes as long as a poll */
#define LONGEST_POLL 100 /* ms: then the control register is read, in case an interrupt was lost */

static int get(apf_drv_kernel *kernel, uint32_t offset, uint32_t *value, apf_error *err)
{
    return xdma_register_get(kernel->device, kernel->device->options.control + offset, value, err);
}

static int put(apf_drv_kernel *kernel, uint64_t offset, uint32_t value, apf_error *err)
{
    return xdma_register_put(kernel->device, kernel->device->options.control + offset, value, err);
}

int xdma_kernel_prepare(apf_drv_kernel *kernel, apf_error *err)
{
    uint32_t control;
    int code = get(kernel, CONTROL, &control, err);
    if (code != APF_OK) return code;
    if (control == GONE)
        return apf_fail(err, APF_DEVICE_LOST, 0, "'%s' does not answer: its registers read as all ones",
                        kernel->device->info.name);
    const uint32_t interrupts = kernel->device->events >= 0;
    code = put(kernel, GLOBAL_ENABLE, interrupts, err);
    return code == APF_OK ? put(kernel, ENABLED, interrupts, err) : code;
}

int xdma_is_wide(const apf_arg *arg, const xdma_register *at)
{
    if (at->kind != XDMA_ANY) return at->kind != XDMA_SCALAR_32;
    return arg->kind == APF_BUFFER || arg->kind == APF_I64 || arg->kind == APF_U64 || arg->kind == APF_F64;
}

/* A struct fills registers that follow each other, its first byte the lowest ("Structs on the Interface", UG1399). */
static int put_bytes(apf_drv_kernel *kernel, const apf_arg *arg, uint64_t offset, apf_error *err)
{
    const uint8_t *data = arg->value.data;
    int code = APF_OK;
    for (uint64_t done = 0; code == APF_OK && done < arg->size; done += 4) {
        uint32_t word = 0;
        memcpy(&word, data + done, arg->size - done < 4 ? arg->size - done : 4);
        code = put(kernel, offset + done, word, err);
    }
    return code;
}

int xdma_kernel_go(apf_drv_kernel *kernel, const apf_arg *args, apf_error *err)
{
    int code = APF_OK;
    for (uint32_t i = 0; code == APF_OK && i < kernel->count; i++) {
        const uint64_t value = args[i].kind == APF_BUFFER ? args[i].bo->address + args[i].offset : args[i].value.u;
        const xdma_register *at = &kernel->registers[i];
        if (args[i].kind == APF_BYTES) {
            code = put_bytes(kernel, &args[i], at->offset, err);
            continue;
        }
        code = put(kernel, at->offset, (uint32_t)value, err);
        if (code == APF_OK && xdma_is_wide(&args[i], at))
            code = put(kernel, at->offset + 4, (uint32_t)(value >> 32), err);
    }
    /* Prevent reads of the registers before they are written, and reads of the data before the DMA has ended. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return code == APF_OK ? put(kernel, CONTROL, AP_START, err) : code;
}

/* Whether it is done; reading clears the done bit. */
static int look(apf_drv_kernel *kernel, int *done, apf_error *err)
{
    uint32_t control;
    int code = get(kernel, CONTROL, &control, err);
    if (code != APF_OK) return code;
    if (control == GONE)
        return apf_fail(err, APF_DEVICE_LOST, 0,
                        "'%s' left the bus during a run of '%s': its registers read as all ones",
                        kernel->device->info.name, kernel->name);
    *done = (control & AP_DONE) || (control & (AP_IDLE | AP_START)) == AP_IDLE;
    if (*done && kernel->device->options.chain) code = put(kernel, CONTROL, AP_CONTINUE, err);
    return code;
}

/* Wait for an interrupt, and acknowledge it. */
static int wait_event(apf_drv_kernel *kernel, int64_t deadline, apf_error *err)
{
    struct pollfd event = {.fd = kernel->device->events, .events = POLLIN};
    int milliseconds = LONGEST_POLL;
    if (deadline >= 0) {
        const int64_t left = (deadline - apf_now() + 999999) / 1000000;
        if (left < milliseconds) milliseconds = left > 0 ? (int)left : 0;
    }
    const int ready = poll(&event, 1, milliseconds);
    if (ready == 0 || (ready < 0 && errno == EINTR)) return APF_OK;
    uint32_t count = 0, pending = 0;
    if (ready < 0 || read(kernel->device->events, &count, sizeof count) != (ssize_t)sizeof count)
        return apf_fail(err, xdma_code(errno, APF_IO), errno, "cannot wait for interrupt %lld of '%s'",
                        (long long)kernel->device->options.events, kernel->device->info.name);
    int code = get(kernel, PENDING, &pending, err);
    if (code == APF_OK && pending && pending != GONE) code = put(kernel, PENDING, pending, err);
    return code;
}

/* How long to pause before the next poll (0: not at all), `past` ns after the start of a run. The pause is a small part
 * of `past`, so that the end is detected soon after it happens. There is no pause near the usual end of a run. */
static int64_t pause_after(int64_t past, int64_t usual)
{
    const int64_t before = usual - LATE - past;
    if (past < SPIN || (before <= 0 && past < usual + SPIN)) return 0;
    int64_t pause = past / 16;
    if (pause > LONGEST_PAUSE) pause = LONGEST_PAUSE;
    return before > 0 && pause > before ? before : pause;
}

int xdma_kernel_watch(apf_drv_kernel *kernel, int64_t started, int64_t deadline, int64_t *ended, apf_error *err)
{
    for (int64_t seen = 0;;) { /* seen: time of the last poll that found it running */
        int done = 0, code = APF_OK;
        for (int i = 0; code == APF_OK && !done && i < LOOKS; i++) code = look(kernel, &done, err);
        const int64_t time = apf_now();
        if (code != APF_OK) return code;
        if (done && seen) kernel->usual = (seen + time) / 2 - started;
        if (done) *ended = time;
        if (done || (deadline >= 0 && time >= deadline)) return APF_OK;
        seen = time;
        if (kernel->device->events >= 0) {
            code = wait_event(kernel, deadline, err);
            if (code != APF_OK) return code;
            continue;
        }
        int64_t pause = pause_after(time - started, kernel->usual);
        if (deadline >= 0 && pause > deadline - time) pause = deadline - time;
        if (pause) nanosleep(&(struct timespec){0, pause}, NULL);
    }
}
