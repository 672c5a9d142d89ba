/* The software card's queue through the driver table: order, overlap, time, faults, cancel, close, registered models.
 */
#include "rig.h"

#include <pthread.h>
#include <unistd.h>

#define KIB 1024u
#define MIB (1024u * KIB)
#define MS 1000000u

/* -- order and overlap -- */

/* x = x + 1 on one buffer, with its transfers, a thousand times in flight at once. */
static void runs_on_one_buffer_are_in_order(void)
{
    enum { RUNS = 1000 };
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "scale", NULL);
    const int sizes[] = {8, 256 * KIB};
    for (int big = 0; big < 2; big++) {
        const int x = rig_import(&it, (size_t)sizes[big]);
        const apf_arg both = arg_buffer(&it, x, APF_SYNC_TO | APF_SYNC_FROM);
        const apf_arg args[] = {both,       both,       arg_u64((uint64_t)sizes[big] / 8),
                                arg_u64(1), arg_u64(1), arg_u64(APF_U64)};
        const int runs = big ? RUNS / 10 : RUNS;
        apf_drv_run *all[RUNS];
        for (int i = 0; i < runs; i++) CHECK_OK(it.driver->start(kernel, args, 6, &all[i], &it.err), it.err);
        for (int i = 0; i < runs; i++) {
            CHECK_OK(it.driver->wait(all[i], -1, &it.err), it.err);
            it.driver->release(all[i]);
        }
        CHECK_EQUAL(((uint64_t *)it.memory[x])[sizes[big] / 8 - 1], runs);
    }
    CHECK_EQUAL(rig_counters(&it).runs, RUNS + RUNS / 10);
    it.driver->unload(kernel);
    rig_close(&it);
}

/* Five jobs of 1 MiB with 40 ms for each of the three stages take 5 + 2 steps, not 15. */
static void directions_and_compute_overlap(void)
{
    enum { JOBS = 5 };
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    rig_set(&it, "to_device_bandwidth", "25MiB");
    rig_set(&it, "from_device_bandwidth", "25MiB");
    rig_set(&it, "compute_bandwidth", "25MiB");
    apf_drv_run *runs[JOBS];
    const uint64_t begin = rig_now();
    for (int i = 0; i < JOBS; i++) {
        const int src = rig_import(&it, MIB), dst = rig_import(&it, MIB);
        memset(it.memory[src], i + 1, MIB);
        const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(MIB)};
        CHECK_OK(it.driver->start(kernel, args, 3, &runs[i], &it.err), it.err);
    }
    for (int i = 0; i < JOBS; i++) {
        CHECK_OK(it.driver->wait(runs[i], -1, &it.err), it.err);
        CHECK(!memcmp(it.memory[2 * i], it.memory[2 * i + 1], MIB));
        it.driver->release(runs[i]);
    }
    const uint64_t took = (rig_now() - begin) / MS;
    CHECK(took >= 279); /* (JOBS + 2) x 40 ms */
    CHECK(took < 450);  /* JOBS x 3 x 40 ms would be 600 */
    it.driver->unload(kernel);
    rig_close(&it);
}

/* What is shorter than waking a thread is done by the caller, and in the order of the starts all the same. */
static void a_small_job_needs_no_other_thread(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const int src = rig_import(&it, 4 * KIB), dst = rig_import(&it, 4 * KIB);
    const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(4 * KIB)};
    for (int i = 1; i < 100; i++) {
        memset(it.memory[src], i, 4 * KIB);
        CHECK_OK(rig_run(&it, kernel, args, 3), it.err);
        CHECK(!memcmp(it.memory[src], it.memory[dst], 4 * KIB));
    }
    CHECK_EQUAL(rig_threads(), 0);
    rig_set(&it, "run_latency", "1ms"); /* takes its time: no longer the caller's */
    CHECK_OK(rig_run(&it, kernel, args, 3), it.err);
    CHECK_EQUAL(rig_threads(), 1);
    it.driver->unload(kernel);
    rig_close(&it);
}

typedef struct sharing {
    rig *it;
    int bo;
} sharing;

static void *sync_often(void *argument)
{
    const sharing *mine = argument;
    apf_error err;
    for (int i = 0; i < 10; i++)
        CHECK_OK(mine->it->driver->sync(mine->it->bos[mine->bo], APF_TO_DEVICE, 0, MIB, &err), err);
    return NULL;
}

static void transfers_share_their_direction(void)
{
    rig it = rig_open(NULL);
    rig_set(&it, "to_device_bandwidth", "400MiB");
    sharing two[] = {{&it, rig_import(&it, MIB)}, {&it, rig_import(&it, MIB)}};
    pthread_t threads[2];
    const uint64_t begin = rig_now();
    for (int i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, sync_often, &two[i]));
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    const uint64_t took = (rig_now() - begin) / MS;
    CHECK(took >= 49); /* 20 MiB */
    rig_close(&it);
}

static void latencies_are_taken(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const int src = rig_import(&it, 64), dst = rig_import(&it, 64);
    const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(64)};
    rig_set(&it, "latency", "5ms");
    rig_set(&it, "run_latency", "10000");
    apf_drv_run *run;
    apf_times times;
    const uint64_t begin = rig_now();
    CHECK_OK(it.driver->start(kernel, args, 3, &run, &it.err), it.err);
    CHECK(rig_now() - begin < 4 * MS); /* start does not wait for the transfer */
    CHECK_CODE(it.driver->wait(run, 0, &it.err), APF_TIMEOUT, it.err);
    CHECK_CODE(it.driver->wait(run, MS, &it.err), APF_TIMEOUT, it.err);
    CHECK_OK(it.driver->wait(run, -1, &it.err), it.err);
    CHECK(rig_now() - begin >= 20 * MS);
    it.driver->times(run, &times);
    CHECK(times.start > begin && times.end - times.start >= 10 * MS && times.end < rig_now());
    it.driver->release(run);
    it.driver->unload(kernel);
    rig_close(&it);
}

/* -- faults -- */

static void injected_faults_hit_once(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const int src = rig_import(&it, 64), dst = rig_import(&it, 64);
    const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(64)};
    apf_drv_bo *bo;
    rig_set(&it, "fail_alloc", "2");
    CHECK_OK(it.driver->alloc(it.device, 1, 0, &bo, &it.err), it.err);
    it.driver->free(bo);
    CHECK_CODE(it.driver->alloc(it.device, 1, 0, &bo, &it.err), APF_DEVICE_MEMORY, it.err);
    CHECK_TEXT(it.err.text, "injected");
    rig_set(&it, "fail_to_device", "1");
    CHECK_CODE(rig_run(&it, kernel, args, 3), APF_IO, it.err);
    CHECK_TEXT(it.err.text, "to the device");
    rig_set(&it, "fail_from_device", "1");
    CHECK_CODE(rig_run(&it, kernel, args, 3), APF_IO, it.err);
    rig_set(&it, "fail_run", "2");
    CHECK_OK(rig_run(&it, kernel, args, 3), it.err);
    CHECK_CODE(rig_run(&it, kernel, args, 3), APF_KERNEL, it.err);
    CHECK_TEXT(it.err.text, "'loopback'");
    rig_set(&it, "fail_to_device", "1");
    CHECK_CODE(it.driver->sync(it.bos[src], APF_TO_DEVICE, 0, 1, &it.err), APF_IO, it.err);
    CHECK_OK(rig_run(&it, kernel, args, 3), it.err);
    CHECK_EQUAL(rig_counters(&it).runs, 2);
    CHECK_CODE(it.driver->control(it.device, "fail_rum", "1", &it.err), APF_INVALID, it.err);
    it.driver->unload(kernel);
    rig_close(&it);
}

static void a_hung_run_times_out_and_is_cancelled(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const int src = rig_import(&it, 64), dst = rig_import(&it, 64);
    const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(64)};
    rig_set(&it, "hang_run", "1");
    apf_drv_run *hung, *behind, *last;
    CHECK_OK(it.driver->start(kernel, args, 3, &hung, &it.err), it.err);
    CHECK_OK(it.driver->start(kernel, args, 3, &behind, &it.err), it.err);
    CHECK_OK(it.driver->start(kernel, args, 3, &last, &it.err), it.err);
    const uint64_t begin = rig_now();
    CHECK_CODE(it.driver->wait(hung, 20 * MS, &it.err), APF_TIMEOUT, it.err);
    CHECK(rig_now() - begin >= 20 * MS);
    CHECK_CODE(it.driver->wait(behind, 0, &it.err), APF_TIMEOUT, it.err);
    CHECK_OK(it.driver->cancel(behind, &it.err), it.err); /* has not begun: ends at once */
    CHECK_CODE(it.driver->wait(behind, 0, &it.err), APF_CANCELLED, it.err);
    CHECK_OK(it.driver->cancel(hung, &it.err), it.err);
    CHECK_CODE(it.driver->wait(hung, -1, &it.err), APF_CANCELLED, it.err);
    CHECK_OK(it.driver->wait(last, -1, &it.err), it.err);
    CHECK_OK(it.driver->cancel(last, &it.err), it.err); /* too late: nothing */
    CHECK_OK(it.driver->wait(last, -1, &it.err), it.err);
    it.driver->release(hung);
    it.driver->release(behind);
    it.driver->release(last);
    it.driver->unload(kernel);
    rig_close(&it);
}

static void close_does_not_wait_for_a_hung_run(void)
{
    for (int stubborn = 0; stubborn < 2; stubborn++) {
        rig it = rig_open(NULL);
        apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
        const int src = rig_import(&it, 64), dst = rig_import(&it, 64);
        const apf_arg args[] = {arg_buffer(&it, src, 0), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(64)};
        rig_set(&it, "hang_run", "1");
        rig_set(&it, "ignore_cancel", stubborn ? "1" : "0");
        apf_drv_run *run;
        CHECK_OK(it.driver->start(kernel, args, 3, &run, &it.err), it.err);
        CHECK_CODE(it.driver->wait(run, 50 * MS, &it.err), APF_TIMEOUT, it.err); /* by now it hangs */
        CHECK_OK(it.driver->cancel(run, &it.err), it.err);
        CHECK_CODE(it.driver->wait(run, 20 * MS, &it.err), stubborn ? APF_TIMEOUT : APF_CANCELLED, it.err);
        it.driver->release(run); /* abandoned, if it is still there */
        it.driver->unload(kernel);
        const uint64_t begin = rig_now();
        rig_close(&it);
        CHECK(rig_now() - begin < 500 * MS);
    }
}

static void a_lost_device_stays_lost(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL), *second;
    const int src = rig_import(&it, 64), dst = rig_import(&it, 64);
    const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(64)};
    apf_drv_run *hung, *run;
    apf_drv_bo *bo;
    rig_set(&it, "hang_run", "1");
    rig_set(&it, "lose_device", "3"); /* the transfer and the run are two */
    CHECK_OK(it.driver->start(kernel, args, 3, &hung, &it.err), it.err);
    CHECK_CODE(it.driver->wait(hung, 50 * MS, &it.err), APF_TIMEOUT, it.err);
    CHECK_CODE(it.driver->sync(it.bos[src], APF_TO_DEVICE, 0, 1, &it.err), APF_DEVICE_LOST, it.err);
    CHECK_TEXT(it.err.text, "software card 0 was lost");
    CHECK_CODE(it.driver->wait(hung, -1, &it.err), APF_DEVICE_LOST, it.err);
    it.driver->release(hung);
    CHECK_CODE(it.driver->start(kernel, args, 3, &run, &it.err), APF_DEVICE_LOST, it.err);
    CHECK_CODE(it.driver->alloc(it.device, 1, 0, &bo, &it.err), APF_DEVICE_LOST, it.err);
    const apf_program program = {.kernel = "loopback"};
    CHECK_CODE(it.driver->load(it.device, &program, &second, &it.err), APF_DEVICE_LOST, it.err);
    it.driver->unload(kernel);
    rig_close(&it);
}

/* -- every allocation fails in turn -- */

static int whole_job(apf_error *err)
{
    const apf_driver *driver = &apf_driver_emulator;
    static _Alignas(4096) uint8_t in[128 * KIB], out[128 * KIB];
    apf_drv_device *device = NULL;
    apf_drv_kernel *kernel = NULL;
    apf_drv_bo *src = NULL, *dst = NULL;
    apf_drv_run *run = NULL;
    const apf_program program = {.kernel = "gzip", .arguments = "a,b,c,d,e,f"};
    memset(in, 1, sizeof in);
    int code = driver->open(NULL, NULL, &device, err);
    if (code == APF_OK) code = driver->load(device, &program, &kernel, err);
    if (code == APF_OK) code = driver->import(device, in, sizeof in, 0, 0, &src, err);
    if (code == APF_OK) code = driver->import(device, out, sizeof out, 0, 0, &dst, err);
    apf_arg args[] = {{.flags = APF_SYNC_TO, .bo = src, .size = sizeof in},
                      {.flags = APF_SYNC_FROM, .bo = dst, .size = sizeof out},
                      arg_u64(sizeof in),
                      arg_u64(sizeof out),
                      {.bo = src, .size = 64},
                      arg_u64(1)};
    if (code == APF_OK) code = driver->start(kernel, args, 6, &run, err);
    if (code == APF_OK) code = driver->wait(run, -1, err);
    if (run) driver->release(run);
    if (src) driver->free(src);
    if (dst) driver->free(dst);
    if (kernel) driver->unload(kernel);
    if (device) driver->close(device);
    return code;
}

static void every_allocation_can_fail(void)
{
    apf_error err;
    int failures = 0;
    const uint64_t before = apf_fail_allocation(-1);
    CHECK_OK(whole_job(&err), err);
    const int allocations = (int)(apf_fail_allocation(-1) - before);
    CHECK(allocations > 10);
    for (int n = 0; n < allocations; n++) {
        apf_fail_allocation(n);
        const int code = whole_job(&err);
        CHECK(code == APF_OK || code == APF_NO_MEMORY || code == APF_KERNEL); /* zlib's own: an error of the run */
        failures += code != APF_OK;
        apf_fail_allocation(-1);
        CHECK_EQUAL(rig_threads(), 0);
    }
    CHECK_EQUAL(failures, allocations);
}

/* -- registered models -- */

typedef struct counting {
    int calls, drops;
    int stop; /* atomic: lets a stuck model go */
} counting;

static int add_call(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                    apf_error *err)
{
    (void)cancelled;
    ((counting *)context)->calls++;
    if (count == 0) return apf_fail(err, APF_INVALID, 0, "no arguments at all");
    *(uint8_t *)args[0].data = (uint8_t)count;
    return APF_OK;
}

static int say_nothing(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                       apf_error *err)
{
    (void)context, (void)args, (void)count, (void)cancelled, (void)err;
    return -5;
}

static int be_stuck(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                    apf_error *err)
{
    (void)args, (void)count, (void)cancelled, (void)err;
    while (!__atomic_load_n(&((counting *)context)->stop, __ATOMIC_ACQUIRE)) usleep(1000);
    return APF_OK;
}

static void add_drop(void *context) { __atomic_add_fetch(&((counting *)context)->drops, 1, __ATOMIC_ACQ_REL); }

static void models_are_registered_and_replaced(void)
{
    rig it = rig_open(NULL);
    counting first = {0}, second = {0};
    CHECK_OK(apf_model_register("mine", add_call, &first, add_drop, &it.err), it.err);
    apf_drv_kernel *kernel = rig_load(&it, "mine", NULL);
    CHECK_OK(apf_model_register("mine", say_nothing, &second, add_drop, &it.err), it.err);
    CHECK_EQUAL(first.drops, 0); /* the loaded kernel keeps it */
    const int bo = rig_import(&it, 64);
    const apf_arg args[] = {arg_buffer(&it, bo, APF_SYNC_FROM), arg_f64(1)};
    CHECK_OK(rig_run(&it, kernel, args, 2), it.err);
    CHECK_EQUAL(*(uint8_t *)it.memory[bo], 2);
    CHECK_CODE(rig_run(&it, kernel, NULL, 0), APF_KERNEL, it.err);
    CHECK_TEXT(it.err.text, "no arguments at all");
    it.driver->unload(kernel);
    CHECK_EQUAL(first.calls, 2);
    CHECK_EQUAL(first.drops, 1);
    kernel = rig_load(&it, "mine", NULL);
    CHECK_CODE(rig_run(&it, kernel, args, 2), APF_KERNEL, it.err);
    CHECK_TEXT(it.err.text, "'mine' failed");
    CHECK_OK(apf_model_register("mine", NULL, NULL, NULL, &it.err), it.err);
    CHECK_EQUAL(second.drops, 0);
    it.driver->unload(kernel);
    CHECK_EQUAL(second.drops, 1);
    const apf_program program = {.kernel = "mine"};
    CHECK_CODE(it.driver->load(it.device, &program, &kernel, &it.err), APF_NOT_FOUND, it.err);
    CHECK_CODE(apf_model_register("sha3", add_call, NULL, NULL, &it.err), APF_INVALID, it.err);
    rig_close(&it);
}

static void a_stuck_model_is_left_behind(void)
{
    rig it = rig_open(NULL);
    counting context = {0};
    CHECK_OK(apf_model_register("stuck", be_stuck, &context, add_drop, &it.err), it.err);
    apf_drv_kernel *kernel = rig_load(&it, "stuck", NULL);
    CHECK_OK(apf_model_register("stuck", NULL, NULL, NULL, &it.err), it.err);
    static _Alignas(4096) uint8_t host[4096];
    apf_drv_bo *bo;
    CHECK_OK(it.driver->import(it.device, host, sizeof host, 0, 0, &bo, &it.err), it.err);
    const apf_arg args[] = {{.flags = APF_SYNC_FROM, .bo = bo, .size = sizeof host}};
    apf_drv_run *run;
    CHECK_OK(it.driver->start(kernel, args, 1, &run, &it.err), it.err);
    usleep(5000);
    it.driver->release(run);
    it.driver->free(bo);
    it.driver->unload(kernel);
    const uint64_t begin = rig_now();
    it.driver->close(it.device);
    CHECK(rig_now() - begin < 2000 * MS);
    CHECK_EQUAL(rig_threads(), 1);
    CHECK_EQUAL(context.drops, 0); /* it is still in there */
    __atomic_store_n(&context.stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 2000 && !__atomic_load_n(&context.drops, __ATOMIC_ACQUIRE); i++) usleep(1000);
    CHECK_EQUAL(__atomic_load_n(&context.drops, __ATOMIC_ACQUIRE), 1);
    CHECK_EQUAL(host[0], 0); /* nothing came out of the closed card */
    for (int i = 0; i < 2000 && rig_threads(); i++) usleep(1000);
    usleep(20000); /* for the thread's last steps, so that nothing looks leaked */
}

/* -- many threads -- */

typedef struct worker {
    rig *it;
    apf_drv_kernel *kernel;
    uint64_t until;
    unsigned seed;
    int jobs;
} worker;

/* Whatever comes up: jobs of all sizes, abandoned ones, device memory, syncs, counters. */
static void *hammer(void *argument)
{
    worker *mine = argument;
    const apf_driver *driver = mine->it->driver;
    apf_drv_device *device = mine->it->device;
    uint8_t *in = aligned_alloc(4096, 256 * KIB), *out = aligned_alloc(4096, 256 * KIB);
    CHECK(in && out);
    apf_error err;
    while (rig_now() < mine->until) {
        const size_t size = 1 + (size_t)rand_r(&mine->seed) % (rand_r(&mine->seed) % 4 ? 4096 : 256 * KIB);
        apf_drv_bo *src, *dst;
        apf_drv_run *runs[4];
        apf_counters counters;
        memset(in, rand_r(&mine->seed), size);
        CHECK_OK(driver->import(device, in, size, 0, 0, &src, &err), err);
        CHECK_OK(driver->import(device, out, size, 0, 0, &dst, &err), err);
        const apf_arg args[] = {{.flags = APF_SYNC_TO, .bo = src, .size = size},
                                {.flags = APF_SYNC_FROM, .bo = dst, .size = size},
                                arg_u64(size)};
        for (int i = 0; i < 4; i++) CHECK_OK(driver->start(mine->kernel, args, 3, &runs[i], &err), err);
        const int dropped = rand_r(&mine->seed) % 8 == 0;
        if (dropped) CHECK_OK(driver->cancel(runs[3], &err), err);
        for (int i = 0; i < 4; i++) {
            const int code = driver->wait(runs[i], i & 1 ? -1 : 30000000000, &err);
            CHECK(code == APF_OK || (dropped && i == 3 && code == APF_CANCELLED));
            driver->release(runs[i]);
        }
        CHECK(!memcmp(in, out, size));
        CHECK_OK(driver->sync(src, APF_TO_DEVICE, 0, size / 2, &err), err);
        CHECK_OK(driver->counters(device, &counters, &err), err);
        driver->free(src);
        driver->free(dst);
        mine->jobs += 4;
    }
    free(in);
    free(out);
    return NULL;
}

/* For as many seconds as APYFAL_HAMMER_SECONDS says, 1 by default. */
static void four_threads_hammer_one_device(void)
{
    const char *seconds = getenv("APYFAL_HAMMER_SECONDS");
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    worker workers[4];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        workers[i] = (worker){&it, kernel, rig_now() + (uint64_t)(seconds ? atoi(seconds) : 1) * 1000 * MS, i, 0};
        CHECK(!pthread_create(&threads[i], NULL, hammer, &workers[i]));
    }
    int jobs = 0;
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        jobs += workers[i].jobs;
    }
    CHECK(jobs > 100);
    CHECK_EQUAL(rig_counters(&it).memory_used, 0);
    it.driver->unload(kernel);
    rig_close(&it);
}

/* Runs are thrown away while they wait, move or compute; the card goes on. */
static void abandoned_runs_do_no_harm(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const int src = rig_import(&it, 2 * MIB), dst = rig_import(&it, 2 * MIB);
    const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(2 * MIB)};
    for (int i = 0; i < 200; i++) {
        apf_drv_run *run;
        CHECK_OK(it.driver->start(kernel, args, 3, &run, &it.err), it.err);
        if (i % 3 == 0) usleep((unsigned)i * 10);
        it.driver->release(run);
    }
    /* Their memory is theirs until the card is closed. */
    const int from = rig_import(&it, 2 * MIB), to = rig_import(&it, 2 * MIB);
    memset(it.memory[from], 3, 2 * MIB);
    const apf_arg more[] = {arg_buffer(&it, from, APF_SYNC_TO), arg_buffer(&it, to, APF_SYNC_FROM), arg_u64(2 * MIB)};
    CHECK_OK(rig_run(&it, kernel, more, 3), it.err);
    CHECK(!memcmp(it.memory[from], it.memory[to], 2 * MIB));
    it.driver->unload(kernel);
    rig_close(&it);
}

const check_test tests_queue[] = {
    TEST(runs_on_one_buffer_are_in_order),
    TEST(directions_and_compute_overlap),
    TEST(a_small_job_needs_no_other_thread),
    TEST(transfers_share_their_direction),
    TEST(latencies_are_taken),
    TEST(injected_faults_hit_once),
    TEST(a_hung_run_times_out_and_is_cancelled),
    TEST(close_does_not_wait_for_a_hung_run),
    TEST(a_lost_device_stays_lost),
    TEST(every_allocation_can_fail),
    TEST(models_are_registered_and_replaced),
    TEST(a_stuck_model_is_left_behind),
    TEST(four_threads_hammer_one_device),
    TEST(abandoned_runs_do_no_harm),
    {0},
};
