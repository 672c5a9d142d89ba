/* What can go wrong on the software card: injected faults, runs that hang, a card that is lost or closed, no memory. */
#include "rig.h"

#define KIB 1024u
#define MS 1000000u

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

const check_test tests_card_faults[] = {
    TEST(injected_faults_hit_once),           TEST(a_hung_run_times_out_and_is_cancelled),
    TEST(close_does_not_wait_for_a_hung_run), TEST(a_lost_device_stays_lost),
    TEST(every_allocation_can_fail),          {0},
};
