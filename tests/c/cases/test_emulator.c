/* The software card through the driver table: memory, transfers, arguments, settings, listing. */
#include "rig.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define KIB 1024u
#define MIB (1024u * KIB)

static int open_card(const char *selector, const apf_option *options, apf_error *err)
{
    apf_drv_device *device;
    int code = apf_driver_emulator.open(selector, options, &device, err);
    if (code == APF_OK) apf_driver_emulator.close(device);
    return code;
}

static void cards_are_listed_and_selected(void)
{
    const apf_driver *driver = &apf_driver_emulator;
    const apf_option three[] = {{"devices", "3"}, {"memory", "1GiB"}, {0}};
    apf_device_info infos[2];
    uint32_t count;
    apf_error err;
    CHECK_OK(driver->list(three, infos, 2, &count, &err), err);
    CHECK_EQUAL(count, 3);
    CHECK(!strcmp(infos[1].name, "software card 1"));
    CHECK_EQUAL(infos[1].memory, 1u << 30);
    CHECK(infos[0].capabilities & APF_CAP_SEPARATE_MEMORY);
    CHECK_OK(open_card("2", three, &err), err);
    CHECK_OK(open_card("CARD 1", three, &err), err);
    CHECK_OK(open_card("emulator:2", three, &err), err);
    CHECK_CODE(open_card("3", three, &err), APF_NO_DEVICE, err);
    CHECK_TEXT(err.text, "'3'");
    CHECK_CODE(open_card("-1", three, &err), APF_NO_DEVICE, err);
    CHECK_CODE(open_card("xilinx", three, &err), APF_NO_DEVICE, err);
    CHECK_CODE(open_card(NULL, (apf_option[]){{"devices", "0"}, {0}}, &err), APF_NO_DEVICE, err);
}

static void environment_sets_defaults(void)
{
    apf_device_info info;
    uint32_t count;
    apf_error err;
    setenv("APYFAL_EMULATOR", "devices=4,memory=1.5MiB,", 1);
    CHECK_OK(apf_driver_emulator.list((apf_option[]){{"devices", "2"}, {0}}, &info, 1, &count, &err), err);
    CHECK_EQUAL(count, 2);
    CHECK_EQUAL(info.memory, 1536 * KIB);
    setenv("APYFAL_EMULATOR", "devices", 1);
    CHECK_CODE(apf_driver_emulator.list(NULL, &info, 1, &count, &err), APF_INVALID, err);
    CHECK_TEXT(err.text, "'devices' is not key=value");
    unsetenv("APYFAL_EMULATOR");
}

static void wrong_settings_are_named(void)
{
    static const char *const wrong[][2] = {
        {"memory", "-1"},        {"memory", "12 parsecs"}, {"memory", ""},       {"memory", "0.3"},
        {"devices", "two"},      {"devices", "1.5"},       {"devices", "1e300"}, {"latency", "5 weeks"},
        {"import_align", "100"}, {"ignore_cancel", "2"},   {"memory", "inf"},    {"memory", "nan"},
    };
    apf_error err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const apf_option options[] = {{wrong[i][0], wrong[i][1]}, {0}};
        CHECK_CODE(open_card(NULL, options, &err), APF_INVALID, err);
        CHECK_TEXT(err.text, wrong[i][0]);
        CHECK_TEXT(err.text, wrong[i][1]);
    }
    CHECK_CODE(open_card(NULL, (apf_option[]){{"memroy", "1"}, {0}}, &err), APF_INVALID, err);
    CHECK_TEXT(err.text, "to_device_bandwidth");
}

static void memory_is_separate_and_poisoned(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const int src = rig_import(&it, 64 * KIB), dst = rig_import(&it, 64 * KIB);
    uint8_t *in = it.memory[src], *out = it.memory[dst];
    memset(in, 7, 64 * KIB);
    apf_arg args[] = {arg_buffer(&it, src, 0), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(64 * KIB)};
    CHECK_OK(rig_run(&it, kernel, args, 3), it.err); /* the sync to the device is forgotten */
    for (size_t i = 0; i < 64 * KIB; i++) CHECK_EQUAL(out[i], 0xA5);
    args[0].flags = APF_SYNC_TO;
    args[1].flags = 0;
    CHECK_OK(rig_run(&it, kernel, args, 3), it.err); /* the one back */
    CHECK_EQUAL(out[100], 0xA5);
    CHECK_OK(it.driver->sync(it.bos[dst], APF_FROM_DEVICE, 100, 10, &it.err), it.err);
    CHECK_EQUAL(out[99], 0xA5);
    CHECK_EQUAL(out[100], 7);
    CHECK_EQUAL(out[109], 7);
    CHECK_EQUAL(out[110], 0xA5);
    it.driver->unload(kernel);
    rig_close(&it);
}

static void freed_memory_is_poisoned_again(void)
{
    rig it = rig_open(NULL);
    const int host = rig_import(&it, MIB);
    memset(it.memory[host], 1, MIB);
    for (int i = 0; i < 3; i++) {
        apf_drv_bo *bo;
        CHECK_OK(it.driver->import(it.device, it.memory[host], MIB, 0, 0, &bo, &it.err), it.err);
        CHECK_OK(it.driver->sync(bo, APF_FROM_DEVICE, 0, MIB, &it.err), it.err);
        CHECK_EQUAL(((uint8_t *)it.memory[host])[12345], 0xA5);
        memset(it.memory[host], 1, MIB);
        CHECK_OK(it.driver->sync(bo, APF_TO_DEVICE, 0, MIB, &it.err), it.err);
        it.driver->free(bo);
    }
    rig_close(&it);
}

static void counters_are_exact(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const int src = rig_import(&it, 10000), dst = rig_import(&it, 10000), state = rig_alloc(&it, 100);
    apf_counters counters = rig_counters(&it);
    CHECK_EQUAL(counters.memory_used, 20100);
    CHECK_EQUAL(counters.to_device + counters.from_device + counters.runs, 0);
    apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO), arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(999)};
    args[0].size = 1001;
    args[1].size = 999;
    CHECK_OK(rig_run(&it, kernel, args, 3), it.err);
    CHECK_OK(it.driver->sync(it.bos[src], APF_TO_DEVICE, 9999, 1, &it.err), it.err);
    CHECK_OK(it.driver->sync(it.bos[src], APF_TO_DEVICE, 10000, 0, &it.err), it.err);
    counters = rig_counters(&it);
    CHECK_EQUAL(counters.to_device, 1002);
    CHECK_EQUAL(counters.from_device, 999);
    CHECK_EQUAL(counters.runs, 1);
    it.driver->free(it.bos[state]);
    it.bos[state] = NULL;
    CHECK_EQUAL(rig_counters(&it).memory_used, 20000);
    it.driver->unload(kernel);
    rig_close(&it);
}

static void imports_follow_the_rules(void)
{
    rig it = rig_open(NULL);
    uint8_t *memory = mmap(NULL, 8 * KIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    apf_drv_bo *bo;
    CHECK_CODE(it.driver->import(it.device, memory + 64, 64, 0, 0, &bo, &it.err), APF_MISALIGNED, it.err);
    CHECK_TEXT(it.err.text, "4096");
    CHECK_CODE(it.driver->import(it.device, memory, 64, 1, 0, &bo, &it.err), APF_READ_ONLY, it.err);
    CHECK_CODE(it.driver->import(it.device, NULL, 64, 0, 0, &bo, &it.err), APF_INVALID, it.err);
    rig_set(&it, "import_align", "64");
    rig_set(&it, "read_only_import", "1");
    CHECK_OK(it.driver->import(it.device, memory + 64, 64, 1, 0, &bo, &it.err), it.err);
    CHECK_OK(it.driver->sync(bo, APF_TO_DEVICE, 0, 64, &it.err), it.err);
    CHECK_CODE(it.driver->sync(bo, APF_FROM_DEVICE, 0, 64, &it.err), APF_READ_ONLY, it.err);
    CHECK_CODE(it.driver->sync(bo, APF_TO_DEVICE, 1, 64, &it.err), APF_INVALID, it.err);
    CHECK_CODE(it.driver->sync(bo, APF_TO_DEVICE, UINT64_MAX, 2, &it.err), APF_INVALID, it.err);
    CHECK_CODE(it.driver->sync(bo, 2, 0, 64, &it.err), APF_INVALID, it.err);
    it.driver->free(bo);
    CHECK_OK(it.driver->alloc(it.device, 0, 0, &bo, &it.err), it.err);
    CHECK_CODE(it.driver->sync(bo, APF_TO_DEVICE, 0, 0, &it.err), APF_INVALID, it.err);
    it.driver->free(bo);
    munmap(memory, 8 * KIB);
    rig_close(&it);
}

static void memory_runs_out_and_comes_back(void)
{
    const char *const small[] = {"memory", "1MiB", NULL};
    rig it = rig_open(small);
    apf_drv_bo *first, *second;
    for (int i = 0; i < 100; i++) {
        CHECK_OK(it.driver->alloc(it.device, 700 * KIB, 0, &first, &it.err), it.err);
        CHECK_CODE(it.driver->alloc(it.device, 400 * KIB, 0, &second, &it.err), APF_DEVICE_MEMORY, it.err);
        CHECK_TEXT(it.err.text, "331776 of 1048576");
        CHECK_CODE(it.driver->alloc(it.device, UINT64_MAX, 0, &second, &it.err), APF_DEVICE_MEMORY, it.err);
        CHECK_OK(it.driver->alloc(it.device, 324 * KIB, 0, &second, &it.err), it.err);
        it.driver->free(first);
        it.driver->free(second);
    }
    CHECK_EQUAL(rig_counters(&it).memory_used, 0);
    rig_close(&it);
}

/* Bytes of the process in memory; 0 under ThreadSanitizer, whose own tables dwarf what is tested. */
static size_t resident(void)
{
#ifdef __SANITIZE_THREAD__
    return 0;
#endif
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%*u %lu", &pages) == 1);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void freed_memory_goes_back_to_the_system(void)
{
    const char *const keep[] = {"idle_memory", "8MiB", NULL};
    rig it = rig_open(keep);
    const size_t before = resident();
    for (size_t size = 512 * KIB; size < 24 * MIB; size += 1700 * KIB) {
        apf_drv_bo *bo;
        CHECK_OK(it.driver->alloc(it.device, size, 0, &bo, &it.err), it.err);
        it.driver->free(bo);
    }
    CHECK(resident() < before + 16 * MIB);
    rig_close(&it);
}

/* More than the host would like to fill: only what is touched costs memory. */
static void large_memory_is_committed_as_it_is_used(void)
{
    rig it = rig_open(NULL);
    const uint64_t size = (4ull << 30) + 1;
    uint8_t *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(host != MAP_FAILED);
    apf_drv_bo *bo;
    const size_t before = resident();
    CHECK_OK(it.driver->import(it.device, host, size, 0, 0, &bo, &it.err), it.err);
    CHECK(resident() < before + 64 * MIB);
    CHECK_OK(it.driver->sync(bo, APF_FROM_DEVICE, size - 3 * MIB - 1, 3 * MIB, &it.err), it.err);
    CHECK_EQUAL(host[size - 2], 0xA5);
    CHECK_EQUAL(host[size - 1], 0);
    host[size - 1] = 42;
    CHECK_OK(it.driver->sync(bo, APF_TO_DEVICE, size - 1, 1, &it.err), it.err);
    host[size - 1] = 0;
    CHECK_OK(it.driver->sync(bo, APF_FROM_DEVICE, size - 2, 2, &it.err), it.err);
    CHECK_EQUAL(host[size - 2], 0xA5);
    CHECK_EQUAL(host[size - 1], 42);
    CHECK(resident() < before + 64 * MIB);
    it.driver->free(bo);
    munmap(host, size);
    rig_close(&it);
}

static void arguments_are_checked(void)
{
    rig it = rig_open(NULL);
    rig other = rig_open(NULL);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", "src, dst, bytes");
    const int src = rig_import(&it, 8192), dst = rig_import(&it, 8192), alone = rig_alloc(&it, 8192);
    const int foreign = rig_import(&other, 8192);
    const apf_arg good[] = {arg_buffer(&it, src, 0), arg_buffer(&it, dst, 0), arg_u64(1)};
    apf_arg args[4];
    apf_drv_run *run;
#define EXPECT(code, part, change)                                                                                     \
    memcpy(args, good, sizeof good);                                                                                   \
    change;                                                                                                            \
    CHECK_CODE(it.driver->start(kernel, args, 3, &run, &it.err), code, it.err);                                        \
    CHECK_TEXT(it.err.text, part)
    EXPECT(APF_ARGUMENT, "argument 1 (dst) of 'loopback' is a scalar (U64): expected a buffer", args[1] = arg_u64(0));
    EXPECT(APF_ARGUMENT, "argument 2 (bytes) of 'loopback' is a buffer: expected a scalar", args[2] = good[0]);
    EXPECT(APF_ARGUMENT, "unknown kind", args[2].kind = 99);
    EXPECT(APF_ARGUMENT, "bytes 4096 to 8193 of a buffer object of 8192", args[0].offset = 4096; args[0].size = 4097);
    EXPECT(APF_ARGUMENT, "buffer object of 8192", args[0].offset = UINT64_MAX - 63; args[0].size = 64);
    EXPECT(APF_MISALIGNED, "offset 32", args[0].offset = 32; args[0].size = 1);
    EXPECT(APF_ARGUMENT, "no buffer object", args[0].bo = NULL);
    EXPECT(APF_ARGUMENT, "another device", args[0].bo = other.bos[foreign]);
    EXPECT(APF_ARGUMENT, "no host side", args[0].bo = it.bos[alone]; args[0].flags = APF_SYNC_TO);
#undef EXPECT
    CHECK_CODE(it.driver->start(kernel, args, 2, &run, &it.err), APF_ARGUMENT, it.err);
    CHECK_TEXT(it.err.text, "takes 3 arguments (src, dst, bytes), not 2");
    uint32_t bank = 9;
    CHECK_OK(it.driver->bank(kernel, 1, &bank, &it.err), it.err);
    CHECK_EQUAL(bank, 0);
    CHECK_CODE(it.driver->bank(kernel, 2, &bank, &it.err), APF_ARGUMENT, it.err);
    CHECK_CODE(it.driver->bank(kernel, 3, &bank, &it.err), APF_ARGUMENT, it.err);
    it.driver->unload(kernel);
    rig_close(&other);
    rig_close(&it);
}

static void unknown_models_are_refused(void)
{
    rig it = rig_open(NULL);
    apf_drv_kernel *kernel;
    apf_program program = {.kernel = "sha33"};
    CHECK_CODE(it.driver->load(it.device, &program, &kernel, &it.err), APF_NOT_FOUND, it.err);
    CHECK_TEXT(it.err.text, "loopback, trng, scale, histogram, sha3, gzip, gunzip");
    program.kernel = NULL;
    CHECK_CODE(it.driver->load(it.device, &program, &kernel, &it.err), APF_NOT_FOUND, it.err);
    rig_close(&it);
}

static void a_file_that_shrinks_is_an_error(void)
{
    rig it = rig_open(NULL);
    char path[] = "/tmp/apyfal-c-XXXXXX";
    const int file = mkstemp(path);
    CHECK(file >= 0 && unlink(path) == 0 && ftruncate(file, 64 * KIB) == 0);
    apf_buffer *buffer;
    CHECK_OK(apf_mapped_file_new(file, 0, 64 * KIB, APF_MAP_WRITE, 0, &buffer, &it.err), it.err);
    apf_drv_bo *bo;
    CHECK_OK(it.driver->import(it.device, apf_buffer_data(buffer), 64 * KIB, 0, 0, &bo, &it.err), it.err);
    apf_drv_kernel *kernel = rig_load(&it, "loopback", NULL);
    const apf_arg args[] = {{.flags = APF_SYNC_TO, .bo = bo, .size = 64 * KIB},
                            {.flags = APF_SYNC_FROM, .bo = bo, .size = 64 * KIB},
                            arg_u64(1)};
    CHECK_OK(rig_run(&it, kernel, args, 3), it.err);
    CHECK(ftruncate(file, 4096) == 0);
    CHECK_CODE(it.driver->sync(bo, APF_TO_DEVICE, 0, 64 * KIB, &it.err), APF_TRUNCATED, it.err);
    CHECK_CODE(it.driver->sync(bo, APF_FROM_DEVICE, 0, 64 * KIB, &it.err), APF_TRUNCATED, it.err);
    CHECK_CODE(rig_run(&it, kernel, args, 3), APF_TRUNCATED, it.err);
    CHECK_OK(it.driver->sync(bo, APF_TO_DEVICE, 0, 4096, &it.err), it.err);
    it.driver->unload(kernel);
    it.driver->free(bo);
    apf_buffer_release(buffer);
    close(file);
    rig_close(&it);
}

const check_test tests_emulator[] = {
    TEST(cards_are_listed_and_selected),
    TEST(environment_sets_defaults),
    TEST(wrong_settings_are_named),
    TEST(memory_is_separate_and_poisoned),
    TEST(freed_memory_is_poisoned_again),
    TEST(counters_are_exact),
    TEST(imports_follow_the_rules),
    TEST(memory_runs_out_and_comes_back),
    TEST(freed_memory_goes_back_to_the_system),
    TEST(large_memory_is_committed_as_it_is_used),
    TEST(arguments_are_checked),
    TEST(unknown_models_are_refused),
    TEST(a_file_that_shrinks_is_an_error),
    {0},
};
