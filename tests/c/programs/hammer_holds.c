/* Four threads on one hold (view, look, resize, close), and on one device that is closed while they start runs: what is
 * checked and what is done about it must be one step. To be run under ThreadSanitizer and AddressSanitizer.
 *
 *   hammer-holds SECONDS
 *
 * Prints how many rounds there were.
 */
#include "check.h"
#include "runtime/clock.h"

#include <pthread.h>

enum { THREADS = 4, STEPS = 400, SLOT = 64 };

static const size_t sizes[] = {4096, 8192, 100 << 10, 300 << 10, 3 << 20};

static apf_hold hold;
static apf_device *device;
static apf_kernel *kernel;
static int64_t end;

typedef struct worker {
    unsigned seed;
    unsigned number;
    uint64_t written; /* what its slot of the buffer holds */
    apf_error err;
} worker;

static unsigned any(worker *mine, unsigned below) { return (unsigned)rand_r(&mine->seed) % below; }

/* -- a hold -- */

/* The contents are as this thread left them, whoever resized in between, and the memory is nobody else's. */
static int view(worker *mine)
{
    apf_hold_info info;
    int code = apf_hold_view(&hold, 0, &info);
    if (code == APF_BUSY) code = apf_hold_view(&hold, 1, &info);
    if (code != APF_OK) return code;
    uint64_t *slot = (uint64_t *)((uint8_t *)info.data + mine->number * SLOT);
    CHECK_EQUAL(*slot, mine->written);
    *slot = ++mine->written;
    apf_buffer *found = apf_buffer_find(slot, sizeof *slot);
    CHECK(found);
    apf_buffer_release(found);
    CHECK_EQUAL(*slot, mine->written);
    apf_hold_unview(&hold);
    return code;
}

static int look(worker *mine)
{
    apf_hold_info info;
    (void)mine;
    const int code = apf_hold_look(&hold, 1, &info);
    CHECK(code == APF_CLOSED || (code == APF_OK && info.size <= info.capacity));
    return code;
}

static int resize(worker *mine)
{
    const int code = apf_hold_resize(&hold, sizes[any(mine, sizeof sizes / sizeof *sizes)], &mine->err);
    CHECK(code == APF_OK || code == APF_BUSY || code == APF_CLOSED);
    return code;
}

/* Blocks that a resize gave back are somebody else's at once. */
static int take_what_is_free(worker *mine)
{
    apf_buffer *buffer;
    CHECK_OK(apf_buffer_new(sizes[any(mine, sizeof sizes / sizeof *sizes)], &buffer, &mine->err), mine->err);
    memset(apf_buffer_data(buffer), 0xee, 4 * SLOT * THREADS);
    apf_buffer_release(buffer);
    return APF_OK;
}

static int close_it(worker *mine)
{
    if (any(mine, 50)) return APF_OK;
    const int code = apf_hold_close(&hold, &mine->err);
    CHECK(code == APF_OK || code == APF_BUSY);
    return code;
}

static void *use_hold(void *argument)
{
    static int (*const deeds[])(worker *) = {view, view, view, look, resize, take_what_is_free, close_it};
    worker *mine = argument;
    mine->written = 0;
    for (int i = 0; i < STEPS; i++)
        if (deeds[any(mine, sizeof deeds / sizeof *deeds)](mine) == APF_CLOSED) break;
    return NULL;
}

/* -- a device -- */

static void *use_device(void *argument)
{
    worker *mine = argument;
    apf_buffer *buffer;
    CHECK_OK(apf_buffer_new(8192, &buffer, &mine->err), mine->err);
    for (;;) {
        apf_bo *bo;
        apf_run *run;
        int code = apf_bo_import(device, buffer, 0, &bo, &mine->err);
        if (code == APF_OK) {
            const apf_run_arg args[] = {{{.flags = APF_SYNC_TO, .size = 64}, bo},
                                        {{.flags = APF_SYNC_FROM, .offset = 4096, .size = 64}, bo},
                                        {{.kind = APF_U64, .value.u = 64}, NULL}};
            code = apf_run_start(kernel, args, 3, &run, &mine->err);
            if (code == APF_OK) {
                if (any(mine, 3) == 0) CHECK_OK(apf_run_cancel(run, &mine->err), mine->err);
                const int ended = apf_run_wait(run, -1, &mine->err);
                CHECK(ended == APF_OK || ended == APF_CANCELLED);
                apf_run_release(run, 0);
            }
            apf_bo_release(bo);
        }
        CHECK(code == APF_OK || code == APF_CLOSED);
        if (code == APF_CLOSED) break;
        if (mine->number == 0) {
            code = apf_device_close(device, &mine->err);
            CHECK(code == APF_OK || code == APF_BUSY);
        }
    }
    apf_buffer_release(buffer);
    return NULL;
}

static void together(void *(*work)(void *), worker *workers)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, work, &workers[i]));
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
}

int main(int count, char **arguments)
{
    apf_error err;
    CHECK(count == 2);
    worker workers[THREADS] = {0};
    for (unsigned i = 0; i < THREADS; i++) workers[i] = (worker){.seed = i + 1, .number = i};
    end = apf_now() + (int64_t)(atof(arguments[1]) * 1e9);
    int rounds = 0;
    for (; apf_now() < end; rounds++) {
        hold = (apf_hold){0};
        CHECK_OK(apf_buffer_new(4096, &hold.buffer, &err), err);
        memset(apf_buffer_data(hold.buffer), 0, 4096);
        together(use_hold, workers);
        apf_hold_end(&hold);
        if (rounds % 8) continue;
        CHECK_OK(apf_device_open(&apf_driver_emulator, NULL, NULL, &device, &err), err);
        const apf_program program = {.kernel = "loopback"};
        CHECK_OK(apf_kernel_load(device, &program, &kernel, &err), err);
        together(use_device, workers);
        apf_kernel_release(kernel);
        apf_device_release(device);
    }
    CHECK_EQUAL(apf_live_now.buffers, 0);
    CHECK_EQUAL(apf_live_now.runs, 0);
    CHECK_EQUAL(apf_live_now.bos, 0);
    CHECK_EQUAL(apf_live_now.kernels, 0);
    CHECK_EQUAL(apf_live_now.devices, 0);
    printf("%d rounds\n", rounds);
    return 0;
}
