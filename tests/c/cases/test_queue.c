/* The software card's queue through the driver table: order, overlap, time, runs that nobody waits for. */
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

/* Five jobs of 1 MiB with 100 ms for each of the three stages take 5 + 2 steps, not 15. */
/* A machine that is busy with other work is late at times, but not always. */
enum { ATTEMPTS = 5 };

enum { JOBS = 5 };

/* Milliseconds for jobs whose three stages take 100 each. */
static uint64_t take_jobs(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    rig_set(&it, "to_device_bandwidth", "10MiB");
    rig_set(&it, "from_device_bandwidth", "10MiB");
    rig_set(&it, "compute_bandwidth", "10MiB");
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
    it.driver->unload(kernel);
    rig_close(&it);
    return took;
}

static void directions_and_compute_overlap(void)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < ATTEMPTS && best >= 1300; i++) {
        const uint64_t took = take_jobs();
        CHECK(took >= 699); /* (JOBS + 2) x 100 ms */
        if (took < best) best = took;
    }
    CHECK(best < 1300); /* JOBS x 3 x 100 ms would be 1500 */
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

/* Milliseconds that the start of a slow run took. */
static uint64_t take_latencies(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const int src = rig_import(&it, 64), dst = rig_import(&it, 64);
    const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(64)};
    rig_set(&it, "latency", "50ms");
    rig_set(&it, "run_latency", "100000");
    apf_drv_run *run;
    apf_times times;
    const uint64_t begin = rig_now();
    CHECK_OK(it.driver->start(kernel, args, 3, &run, &it.err), it.err);
    const uint64_t took = (rig_now() - begin) / MS;
    CHECK_CODE(it.driver->wait(run, 0, &it.err), APF_TIMEOUT, it.err);
    CHECK_CODE(it.driver->wait(run, MS, &it.err), APF_TIMEOUT, it.err);
    CHECK_OK(it.driver->wait(run, -1, &it.err), it.err);
    CHECK(rig_now() - begin >= 200 * MS);
    it.driver->times(run, &times);
    CHECK(times.start > begin && times.end - times.start >= 100 * MS && times.end < rig_now());
    it.driver->release(run);
    it.driver->unload(kernel);
    rig_close(&it);
    return took;
}

static void latencies_are_taken(void)
{
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < ATTEMPTS && best >= 40; i++) {
        const uint64_t took = take_latencies();
        if (took < best) best = took;
    }
    CHECK(best < 40); /* start does not wait for the transfer, which takes 50 ms */
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
    TEST(abandoned_runs_do_no_harm),
    {0},
};
