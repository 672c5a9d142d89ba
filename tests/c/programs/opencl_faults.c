/* What can go wrong with the opencl driver, on the fake library: no memory, a run that fails, a run that hangs. */
#include "check.h"
#include "fake_opencl.h"

#include <time.h>

enum { SIZE = 16 << 10 };

static const apf_driver *const driver = &apf_driver_opencl;
static _Alignas(4096) int32_t in[SIZE / 4], out[SIZE / 4];

static const char source[] = "__kernel void increment( __kernel void fail( __kernel void hang(";

/* A job from opening to closing; what was made before a failure is ended. */
static int whole_job(const char *name, int64_t timeout, apf_error *err)
{
    const apf_option options[] = {{"build", "--global=1"}, {0}};
    const apf_program program = {.data = source, .size = sizeof source - 1, .kernel = name};
    apf_drv_kernel *kernel = NULL;
    apf_drv_bo *from = NULL, *into = NULL;
    apf_drv_run *run = NULL;
    apf_drv_device *device;
    int code = driver->open(NULL, options, &device, err);
    if (code != APF_OK) return code;
    code = driver->load(device, &program, &kernel, err);
    if (code == APF_OK) code = driver->import(device, in, SIZE, 0, 0, &from, err);
    if (code == APF_OK) code = driver->import(device, out, SIZE, 0, 0, &into, err);
    if (code == APF_OK) code = driver->sync(from, APF_TO_DEVICE, 0, SIZE, err);
    const apf_arg args[] = {{.flags = APF_SYNC_TO, .bo = from, .offset = SIZE / 4, .size = SIZE / 4},
                            {.flags = APF_SYNC_FROM, .bo = into, .offset = SIZE / 4, .size = SIZE / 4},
                            {.kind = APF_U64, .value.u = SIZE / 16}};
    if (code == APF_OK) code = driver->start(kernel, args, 3, &run, err);
    if (code == APF_OK) code = driver->wait(run, timeout, err);
    if (run && code == APF_TIMEOUT) CHECK_CODE(driver->cancel(run, err), APF_UNSUPPORTED, *err);
    if (run) driver->release(run);
    if (into) driver->free(into);
    if (from) driver->free(from);
    if (kernel) driver->unload(kernel);
    driver->close(device);
    return code;
}

static void each_allocation_can_fail(void)
{
    apf_error err;
    const uint64_t before = apf_fail_allocation(-1);
    CHECK_OK(whole_job("increment", -1, &err), err);
    const uint64_t allocations = apf_fail_allocation(-1) - before;
    CHECK(allocations > 5);
    for (uint64_t n = 0; n < allocations; n++) {
        apf_fail_allocation((int64_t)n);
        CHECK_CODE(whole_job("increment", -1, &err), APF_NO_MEMORY, err);
        CHECK_EQUAL(fake_opencl_live(), 0);
    }
    apf_fail_allocation(-1);
    in[SIZE / 16] = 41;
    CHECK_OK(whole_job("increment", -1, &err), err);
    CHECK_EQUAL(out[SIZE / 16], 42);
    CHECK_EQUAL(fake_opencl_live(), 0);
}

static void a_run_that_fails_leaves_nothing(void)
{
    apf_error err;
    for (int i = 0; i < 20; i++) CHECK_CODE(whole_job("fail", -1, &err), APF_KERNEL, err);
    CHECK_EQUAL(fake_opencl_live(), 0);
}

/* It is given up; its device can be closed, and learns later that the run ended. */
static void a_run_that_hangs_is_left_behind(void)
{
    apf_error err;
    CHECK_CODE(whole_job("hang", 20000000, &err), APF_TIMEOUT, err);
    fake_opencl_release_hung();
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
}

static const check_test tests[] = {
    TEST(each_allocation_can_fail),
    TEST(a_run_that_fails_leaves_nothing),
    TEST(a_run_that_hangs_is_left_behind),
    {0},
};

int main(int argc, char **argv) { return check_run(tests, argc, argv) == 0; }
