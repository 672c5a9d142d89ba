/* Four threads on one software card through apyfal.h: what the drivers' hammer leaves out, which is who owns what.
 * Buffers of the pool are imported, reused and let go of while runs use them, device memory is full, runs are waited
 * for by two, cancelled and abandoned; all data compared. To be run under ThreadSanitizer and AddressSanitizer.
 *
 *   hammer-core SECONDS
 *
 * Prints how many runs there were.
 */
#include "check.h"
#include "runtime/clock.h"

#include <pthread.h>

enum { THREADS = 4 };

#define MOST (256u << 10) /* bytes of a run */

static apf_device *device;
static apf_kernel *kernel;
static apf_buffer *shared; /* read by the runs of all threads */
static int64_t end;

typedef struct worker {
    unsigned seed;
    uint64_t fills;
    int runs;
    apf_error err;
} worker;

/* A run with the memory that it moves. */
typedef struct job {
    apf_buffer *src, *dst;
    uint64_t size;
    apf_run *run;
} job;

static unsigned any(worker *mine, unsigned below) { return (unsigned)rand_r(&mine->seed) % below; }

static apf_bo *import(worker *mine, apf_buffer *buffer)
{
    apf_bo *bo;
    CHECK_OK(apf_bo_import(device, buffer, 0, &bo, &mine->err), mine->err);
    CHECK(apf_bo_host(bo) == apf_buffer_data(buffer));
    return bo;
}

/* The run alone holds the buffer objects then. */
static void start(worker *mine, job *it)
{
    apf_bo *src = import(mine, it->src), *dst = import(mine, it->dst);
    const apf_run_arg args[] = {{{.flags = APF_SYNC_TO, .size = it->size}, src},
                                {{.flags = APF_SYNC_FROM, .size = it->size}, dst},
                                {{.kind = APF_U64, .value.u = it->size}, NULL}};
    CHECK_OK(apf_run_start(kernel, args, 3, &it->run, &mine->err), mine->err);
    apf_bo_release(src);
    apf_bo_release(dst);
    mine->runs++;
}

static job begin(worker *mine)
{
    job it = {.size = 8 + any(mine, MOST - 8)};
    CHECK_OK(apf_buffer_new(it.size, &it.src, &mine->err), mine->err);
    CHECK_OK(apf_buffer_new(it.size, &it.dst, &mine->err), mine->err);
    uint64_t *words = apf_buffer_data(it.src);
    for (uint64_t i = 0; i < it.size / 8; i++) words[i] = (++mine->fills << 8 | mine->seed) * 0x9e3779b97f4a7c15u;
    start(mine, &it);
    return it;
}

static void forget(job *it)
{
    apf_buffer_release(it->src);
    apf_buffer_release(it->dst);
}

/* -- what threads do -- */

static void wait_and_compare(worker *mine)
{
    job it = begin(mine);
    int code;
    do code = apf_run_wait(it.run, any(mine, 2) ? -1 : 100000, &mine->err);
    while (code == APF_TIMEOUT);
    CHECK_CODE(code, APF_OK, mine->err);
    CHECK(!memcmp(apf_buffer_data(it.src), apf_buffer_data(it.dst), it.size));
    CHECK_OK(apf_run_wait(it.run, 0, &mine->err), mine->err); /* it stays so */
    apf_run_release(it.run, 0);
    forget(&it);
}

/* The memory goes back to the pool with the run that uses it, not before. */
static void let_go_in_flight(worker *mine)
{
    job it = begin(mine);
    CHECK_CODE(apf_device_close(device, &mine->err), APF_BUSY, mine->err);
    forget(&it);
    if (any(mine, 2)) CHECK_OK(apf_run_wait(it.run, -1, &mine->err), mine->err);
    CHECK_EQUAL(apf_run_release(it.run, 60000000000), 0);
}

static void *wait_too(void *argument)
{
    apf_error err;
    return (void *)(intptr_t)apf_run_wait(argument, -1, &err);
}

static void two_wait_for_one(worker *mine)
{
    job it = begin(mine);
    pthread_t other;
    void *code;
    CHECK(!pthread_create(&other, NULL, wait_too, it.run));
    const int cancelled = any(mine, 2);
    if (cancelled) CHECK_OK(apf_run_cancel(it.run, &mine->err), mine->err);
    const int mine_too = apf_run_wait(it.run, -1, &mine->err);
    CHECK(!pthread_join(other, &code));
    CHECK_EQUAL((intptr_t)code, mine_too);
    CHECK(mine_too == APF_OK || (cancelled && mine_too == APF_CANCELLED));
    if (mine_too == APF_OK) CHECK(!memcmp(apf_buffer_data(it.src), apf_buffer_data(it.dst), it.size));
    apf_run_release(it.run, 0);
    forget(&it);
}

/* All threads import one buffer at once, and no other uses it. */
static void share(worker *mine)
{
    job it = {.src = shared, .size = 8 + any(mine, MOST - 8)};
    apf_buffer_retain(shared);
    CHECK_OK(apf_buffer_new(it.size, &it.dst, &mine->err), mine->err);
    memset(apf_buffer_data(it.dst), 0, it.size);
    start(mine, &it);
    CHECK_OK(apf_run_wait(it.run, -1, &mine->err), mine->err);
    CHECK(!memcmp(apf_buffer_data(shared), apf_buffer_data(it.dst), it.size));
    apf_run_release(it.run, 0);
    forget(&it);
}

/* Device memory that is only to be had when cached imports go. */
static void need_memory(worker *mine)
{
    apf_bo *bo;
    const int code = apf_bo_alloc(device, 6 * MOST, 0, &bo, &mine->err);
    CHECK(code == APF_OK || code == APF_DEVICE_MEMORY);
    if (code == APF_OK) apf_bo_release(bo);
    if (any(mine, 4) == 0) apf_pool_trim(0);
}

static void *work(void *argument)
{
    static void (*const deeds[])(worker *) = {
        wait_and_compare, wait_and_compare, let_go_in_flight, two_wait_for_one, share, need_memory};
    worker *mine = argument;
    while (apf_now() < end) deeds[any(mine, sizeof deeds / sizeof *deeds)](mine);
    return NULL;
}

int main(int count, char **arguments)
{
    apf_error err;
    CHECK(count == 2);
    /* Room for what four threads use at once, and for little more. */
    const apf_option options[] = {{"memory", "8MiB"}, {"idle_memory", "0"}, {0}};
    CHECK_OK(apf_device_open(&apf_driver_emulator, NULL, options, &device, &err), err);
    const apf_program program = {.kernel = "loopback"};
    CHECK_OK(apf_kernel_load(device, &program, &kernel, &err), err);
    CHECK_OK(apf_buffer_new(MOST, &shared, &err), err);
    for (size_t i = 0; i < MOST; i++) ((uint8_t *)apf_buffer_data(shared))[i] = (uint8_t)(i * 7);
    end = apf_now() + (int64_t)(atof(arguments[1]) * 1e9);
    worker workers[THREADS] = {0};
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].seed = i + 1;
        CHECK(!pthread_create(&threads[i], NULL, work, &workers[i]));
    }
    int runs = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        runs += workers[i].runs;
    }
    apf_buffer_release(shared);
    apf_kernel_release(kernel);
    apf_device_release(device);
    CHECK_EQUAL(apf_live_now.buffers, 0);
    CHECK_EQUAL(apf_live_now.runs, 0);
    CHECK_EQUAL(apf_live_now.bos, 0);
    CHECK_EQUAL(apf_live_now.kernels, 0);
    CHECK_EQUAL(apf_live_now.devices, 0);
    CHECK_EQUAL(apf_live_now.threads, 0);
    printf("%d runs\n", runs);
    return 0;
}
