/* Four threads on one device of any driver, for as long as is said: whatever comes up, with all data compared, and
 * nothing left in the end. To be run under ThreadSanitizer and AddressSanitizer.
 *
 *   hammer SECONDS DRIVER PROGRAM|- [OPTION=VALUE ...]
 *
 * The device has a kernel `loopback(src, dst, bytes)`. Prints how many runs there were.
 */
#include "check.h"

#include <pthread.h>
#include <time.h>

enum { THREADS = 4, FLYING = 4, MOST_OPTIONS = 8 };

#define MOST (256u << 10) /* bytes of a run */

static const apf_driver *driver;
static apf_drv_device *device;
static apf_drv_kernel *kernel;
static apf_device_info info;
static uint32_t banks[2];  /* of the kernel's source and destination */
static apf_drv_bo *shared; /* read by the runs of all threads */
static uint8_t *shared_data;
static uint64_t end; /* CLOCK_MONOTONIC, ns */

static uint64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* -- one thread -- */

typedef struct worker {
    unsigned seed;
    uint64_t fills;
    int runs;
    apf_error err;
    uint8_t *in, *out, *copy;
    apf_drv_bo *src, *dst;
} worker;

static unsigned any(worker *mine, unsigned below) { return (unsigned)rand_r(&mine->seed) % below; }

/* Data that never was before: each word of its own, so that neither a part of another nor what was left passes. */
static void fill(worker *mine, uint8_t *data, uint64_t size)
{
    for (uint64_t i = 0, word; i < size; i += sizeof word) {
        word = (++mine->fills << 8 | mine->seed) * 0x9e3779b97f4a7c15u;
        memcpy(data + i, &word, sizeof word);
    }
}

static apf_drv_run *start(worker *mine, apf_drv_bo *src, uint32_t send, uint64_t offset, uint64_t size)
{
    apf_drv_run *run;
    const apf_arg args[] = {{.flags = send, .bo = src, .offset = offset, .size = size},
                            {.flags = APF_SYNC_FROM, .bo = mine->dst, .offset = offset, .size = size},
                            {.kind = APF_U64, .value.u = size}};
    CHECK_OK(driver->start(kernel, args, 3, &run, &mine->err), mine->err);
    mine->runs++;
    return run;
}

/* Wait, some times for so short that it takes several. */
static int finish(worker *mine, apf_drv_run *run)
{
    const int64_t timeout = any(mine, 2) ? -1 : 200000;
    apf_times times;
    int code;
    do code = driver->wait(run, timeout, &mine->err);
    while (code == APF_TIMEOUT);
    driver->times(run, &times);
    CHECK(code != APF_OK || times.end >= times.start);
    driver->release(run);
    return code;
}

/* Several runs in flight on parts of the same memory, waited for in any order. */
static void parts(worker *mine)
{
    const uint64_t align = info.capabilities & APF_CAP_OFFSET ? info.offset_align : MOST;
    const uint32_t count = align < MOST ? FLYING : 1;
    const uint64_t room = MOST / count / align * align, size = 1 + any(mine, any(mine, 4) ? 4096 : (unsigned)room);
    apf_drv_run *runs[FLYING];
    for (uint32_t i = 0; i < count; i++) {
        fill(mine, mine->in + i * room, (size + 7) & ~7u);
        runs[i] = start(mine, mine->src, APF_SYNC_TO, i * room, size);
    }
    const int cancelled = info.capabilities & APF_CAP_CANCEL && any(mine, 8) == 0;
    if (cancelled) {
        const int code = driver->cancel(runs[count - 1], &mine->err);
        CHECK(code == APF_OK || code == APF_UNSUPPORTED);
    }
    const uint32_t first = any(mine, count);
    for (uint32_t turn = 0; turn < count; turn++) {
        const uint32_t i = (first + turn) % count;
        const int code = finish(mine, runs[i]);
        if (cancelled && i == count - 1 && code == APF_CANCELLED) continue;
        CHECK_CODE(code, APF_OK, mine->err);
        CHECK(!memcmp(mine->in + i * room, mine->out + i * room, size));
    }
}

/* A run on what all threads read at once. */
static void sharing(worker *mine)
{
    const uint64_t size = 1 + any(mine, MOST);
    memset(mine->out, 0, size);
    CHECK_OK(finish(mine, start(mine, shared, 0, 0, size)), mine->err);
    CHECK(!memcmp(shared_data, mine->out, size));
}

/* What was brought to the card comes back, that and no more. */
static void transfers(worker *mine)
{
    const uint64_t offset = any(mine, MOST / 2) & ~63u, size = any(mine, MOST / 2);
    fill(mine, mine->in, MOST);
    CHECK_OK(driver->sync(mine->src, APF_TO_DEVICE, 0, MOST, &mine->err), mine->err);
    const int separate = info.capabilities & APF_CAP_SEPARATE_MEMORY;
    memcpy(mine->copy, mine->in, MOST);
    if (separate) memset(mine->in, 0, MOST);
    CHECK_OK(driver->sync(mine->src, APF_FROM_DEVICE, offset, size, &mine->err), mine->err);
    if (separate) {
        memset(mine->copy, 0, offset);
        memset(mine->copy + offset + size, 0, MOST - offset - size);
    }
    CHECK(!memcmp(mine->copy, mine->in, MOST));
}

/* Objects come and go while others run. */
static void objects(worker *mine)
{
    apf_drv_bo *scratch;
    apf_counters counters;
    apf_drv_kernel *unknown;
    const apf_program none = {.kernel = "no such kernel"};
    CHECK_OK(driver->alloc(device, 1 + any(mine, MOST), 0, &scratch, &mine->err), mine->err);
    if (driver->counters) CHECK_OK(driver->counters(device, &counters, &mine->err), mine->err);
    CHECK(driver->load(device, &none, &unknown, &mine->err) != APF_OK);
    driver->free(scratch);
}

/* Three runs on one another's results, in memory that only the device has, all started before the first is waited for:
 * one transfer in, one out. */
static void chained(worker *mine)
{
    const uint64_t size = 1 + any(mine, MOST);
    apf_drv_bo *middle[2];
    if (banks[0] != banks[1]) return;
    for (int i = 0; i < 2; i++) CHECK_OK(driver->alloc(device, MOST, banks[0], &middle[i], &mine->err), mine->err);
    apf_drv_bo *const stops[] = {mine->src, middle[0], middle[1], mine->dst};
    apf_drv_run *runs[3];
    fill(mine, mine->in, (size + 7) & ~7u);
    memset(mine->out, 0, size);
    for (int i = 0; i < 3; i++) {
        const apf_arg args[] = {{.flags = i == 0 ? APF_SYNC_TO : 0, .bo = stops[i], .size = size},
                                {.flags = i == 2 ? APF_SYNC_FROM : 0, .bo = stops[i + 1], .size = size},
                                {.kind = APF_U64, .value.u = size}};
        CHECK_OK(driver->start(kernel, args, 3, &runs[i], &mine->err), mine->err);
        mine->runs++;
    }
    for (int i = 2; i >= 0; i--) CHECK_OK(finish(mine, runs[i]), mine->err);
    CHECK(!memcmp(mine->in, mine->out, size));
    for (int i = 0; i < 2; i++) driver->free(middle[i]);
}

/* Device memory without a host side, from and to memory that begins anywhere; and zeros. */
static void device_memory(worker *mine)
{
    apf_drv_bo *scratch;
    const uint64_t offset = any(mine, MOST / 4), size = 1 + any(mine, MOST / 2), from = any(mine, 100);
    if (!driver->transfer) return;
    CHECK_OK(driver->alloc(device, MOST, 0, &scratch, &mine->err), mine->err);
    fill(mine, mine->in, MOST);
    CHECK_OK(driver->transfer(scratch, APF_TO_DEVICE, offset, mine->in + from, size, &mine->err), mine->err);
    memset(mine->copy, 1, MOST);
    CHECK_OK(driver->transfer(scratch, APF_FROM_DEVICE, offset, mine->copy + 3, size, &mine->err), mine->err);
    CHECK(!memcmp(mine->in + from, mine->copy + 3, size) && mine->copy[2] == 1 && mine->copy[3 + size] == 1);
    const int code = size > 1 ? driver->transfer(scratch, APF_TO_DEVICE, offset, NULL, size / 2, &mine->err) : APF_OK;
    CHECK(code == APF_OK || code == APF_UNSUPPORTED);
    CHECK_OK(driver->transfer(scratch, APF_FROM_DEVICE, offset, mine->copy, size, &mine->err), mine->err);
    if (code == APF_OK) memset(mine->in + from, 0, size / 2);
    CHECK(!memcmp(mine->in + from, mine->copy, size));
    driver->free(scratch);
}

static void *work(void *argument)
{
    static void (*const deeds[])(worker *) = {parts, parts, parts, sharing, transfers, objects, chained, device_memory};
    worker *mine = argument;
    mine->in = aligned_alloc(4096, MOST);
    mine->out = aligned_alloc(4096, MOST);
    mine->copy = malloc(MOST);
    CHECK(mine->in && mine->out && mine->copy);
    while (now() < end) {
        memset(mine->in, 1, MOST);
        CHECK_OK(driver->import(device, mine->in, MOST, 0, banks[0], &mine->src, &mine->err), mine->err);
        CHECK_OK(driver->import(device, mine->out, MOST, 0, banks[1], &mine->dst, &mine->err), mine->err);
        for (int i = 0; i < 20; i++) deeds[any(mine, sizeof deeds / sizeof *deeds)](mine);
        driver->free(mine->src);
        driver->free(mine->dst);
    }
    free(mine->in);
    free(mine->out);
    free(mine->copy);
    return NULL;
}

/* -- all of them -- */

static uint64_t memory_used(void)
{
    apf_error err;
    apf_counters counters = {0};
    if (driver->counters) CHECK_OK(driver->counters(device, &counters, &err), err);
    return counters.memory_used;
}

static void open_device(int count, char **given)
{
    apf_error err;
    apf_option options[MOST_OPTIONS + 1] = {{0}};
    CHECK(count <= MOST_OPTIONS);
    for (int i = 0; i < count; i++) {
        char *value = strchr(given[i], '=');
        CHECK(value);
        *value = '\0';
        options[i] = (apf_option){given[i], value + 1};
    }
    CHECK_OK(driver->open(NULL, options, &device, &err), err);
    CHECK_OK(driver->describe(device, &info, &err), err);
}

static void load_kernel(const char *path)
{
    apf_error err;
    apf_program program = {.name = path, .kernel = "loopback", .arguments = "src,dst,bytes"};
    char *content = NULL;
    if (strcmp(path, "-") != 0) {
        FILE *file = fopen(path, "rb");
        CHECK(file);
        const size_t room = 1u << 20;
        content = malloc(room);
        CHECK(content);
        program.data = content;
        program.size = fread(content, 1, room, file);
        CHECK(program.size && program.size < room);
        fclose(file);
    }
    CHECK_OK(driver->load(device, &program, &kernel, &err), err);
    free(content);
}

static void share(void)
{
    apf_error err;
    for (uint32_t i = 0; i < 2; i++) CHECK_OK(driver->bank(kernel, i, &banks[i], &err), err);
    shared_data = aligned_alloc(4096, MOST);
    CHECK(shared_data);
    for (size_t i = 0; i < MOST; i++) shared_data[i] = (uint8_t)(i * 7);
    CHECK_OK(driver->import(device, shared_data, MOST, 0, banks[0], &shared, &err), err);
    CHECK_OK(driver->sync(shared, APF_TO_DEVICE, 0, MOST, &err), err);
}

static void check_nothing_lives(void)
{
    const int64_t *live = (const int64_t *)&apf_live_now;
    for (size_t i = 0; i < sizeof apf_live_now / sizeof *live; i++)
        CHECK_EQUAL(__atomic_load_n(&live[i], __ATOMIC_ACQUIRE), 0);
}

int main(int count, char **arguments)
{
    CHECK(count >= 4);
    driver = apf_driver_find(arguments[2]);
    CHECK(driver);
    open_device(count - 4, arguments + 4);
    load_kernel(arguments[3]);
    const uint64_t used = memory_used();
    share();
    end = now() + (uint64_t)(atof(arguments[1]) * 1e9);
    worker workers[THREADS] = {0};
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].seed = i;
        CHECK(!pthread_create(&threads[i], NULL, work, &workers[i]));
    }
    int runs = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        runs += workers[i].runs;
    }
    driver->free(shared);
    free(shared_data);
    CHECK_EQUAL(memory_used(), used);
    driver->unload(kernel);
    driver->close(device);
    check_nothing_lives();
    printf("%d runs\n", runs);
    return 0;
}
