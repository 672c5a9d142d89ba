/* Models that a program registers with the software card, and lets go of. */
#include "rig.h"

#include <unistd.h>

#define MS 1000000u

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

const check_test tests_registered[] = {
    TEST(models_are_registered_and_replaced),
    TEST(a_stuck_model_is_left_behind),
    {0},
};
