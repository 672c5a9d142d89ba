/* A whole driver in one file, to copy from: a card in the host's memory with two kernels.
 *
 * It keeps to driver.h, version 1, and needs nothing else of apyfal. docs/how-to/write-a-driver.md explains it, and how to
 * build and install it; apyfal's conformance suite runs on it.
 */
#include "driver_support.h"

enum { ALIGN = 64 };

/* This card has no state but its memory: one object stands for each device and each run. Calls come from any thread, so
 * that what changes would be changed under a lock. */
struct apf_drv_device {
    int nothing;
} the_card;

struct apf_drv_run {
    int nothing;
} ended;

struct apf_drv_bo { /* host side and device side of one piece of memory */
    unsigned char *host, *card;
};

struct apf_drv_kernel {
    const char *name;
    void (*run)(void *dst, const void *src, uint64_t count);
    uint64_t width; /* bytes of one of `count` */
};

static void increment(void *dst, const void *src, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) ((uint32_t *)dst)[i] = ((const uint32_t *)src)[i] + 1;
}

static void loopback(void *dst, const void *src, uint64_t count) { memmove(dst, src, count); }

static apf_drv_kernel kernels[] = {{"increment", increment, 4}, {"loopback", loopback, 1}};

static int ex_describe(apf_drv_device *device, apf_device_info *info, apf_error *err)
{
    (void)device, (void)err;
    *info = (apf_device_info){.name = "example card", .vendor = "apyfal", .identity = "0", .version = "1"};
    info->import_align = info->offset_align = ALIGN;
    info->size_align = info->compute_units = 1;
    info->capabilities = APF_CAP_IMPORT | APF_CAP_IMPORT_READONLY | APF_CAP_OFFSET | APF_CAP_SEPARATE_MEMORY;
    return APF_OK;
}

static int ex_list(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count,
                   apf_error *err)
{
    (void)options;
    *count = 1;
    return capacity ? ex_describe(&the_card, infos, err) : APF_OK;
}

static int ex_open(const char *selector, const apf_option *options, apf_drv_device **device, apf_error *err)
{
    apf_device_info info;
    ex_describe(&the_card, &info, err);
    if (options && options->key)
        return apf_support_fail(err, APF_INVALID, "unknown option 'example.%s'; there are none", options->key);
    if (!apf_support_selects(selector, 0, &info))
        return apf_support_fail(err, APF_NO_DEVICE, "no example device '%s'; expected 0", selector);
    *device = &the_card;
    return APF_OK;
}

static void ex_close(apf_drv_device *device) { (void)device; }

static int ex_load(apf_drv_device *device, const apf_program *program, apf_drv_kernel **kernel, apf_error *err)
{
    (void)device;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (strcmp(program->kernel, kernels[i].name) == 0) {
            *kernel = &kernels[i];
            return APF_OK;
        }
    return apf_support_fail(err, APF_NOT_FOUND, "no kernel '%s'; there are: increment, loopback", program->kernel);
}

static void ex_unload(apf_drv_kernel *kernel) { (void)kernel; }

static int ex_import(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank,
                     apf_drv_bo **made, apf_error *err)
{
    (void)device, (void)readonly, (void)bank;
    if ((uintptr_t)data % ALIGN) return apf_support_fail(err, APF_MISALIGNED, "%p is no multiple of %d", data, ALIGN);
    apf_drv_bo *bo = calloc(1, sizeof *bo);
    unsigned char *card = bo ? calloc(1, size ? size : 1) : NULL;
    if (!card) {
        free(bo);
        return apf_support_fail(err, APF_DEVICE_MEMORY, "no %llu bytes on the card", (unsigned long long)size);
    }
    *bo = (apf_drv_bo){data, card};
    *made = bo;
    return APF_OK;
}

static int ex_alloc(apf_drv_device *device, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err)
{
    return ex_import(device, NULL, size, 0, bank, bo, err);
}

static void ex_free(apf_drv_bo *bo)
{
    free(bo->card);
    free(bo);
}

static int ex_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err)
{
    unsigned char *host = bo->host + offset, *card = bo->card + offset;
    (void)err;
    memcpy(direction == APF_TO_DEVICE ? card : host, direction == APF_TO_DEVICE ? host : card, size);
    return APF_OK;
}

/* This card works while `start` is called. A real one would be told to begin, and waited for in `wait`. */
static int ex_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **run, apf_error *err)
{
    const apf_arg *src = &args[0], *dst = &args[1], *elements = &args[2];
    const int code = apf_support_check(kernel->name, "bbs", ALIGN, args, count, err);
    if (code != APF_OK) return code;
    if (elements->value.u > src->size / kernel->width || elements->value.u > dst->size / kernel->width)
        return apf_support_fail(err, APF_ARGUMENT, "argument 2 of '%s' is %llu; the buffers hold less", kernel->name,
                                (unsigned long long)elements->value.u);
    if (src->flags & APF_SYNC_TO) ex_sync(src->bo, APF_TO_DEVICE, src->offset, src->size, err);
    kernel->run(dst->bo->card + dst->offset, src->bo->card + src->offset, elements->value.u);
    if (dst->flags & APF_SYNC_FROM) ex_sync(dst->bo, APF_FROM_DEVICE, dst->offset, dst->size, err);
    *run = &ended;
    return APF_OK;
}

static int ex_wait(apf_drv_run *run, int64_t timeout, apf_error *err)
{
    (void)run, (void)timeout, (void)err;
    return APF_OK;
}

static void ex_release(apf_drv_run *run) { (void)run; }

static const apf_driver driver = {
    .abi = APF_DRIVER_ABI,
    .size = sizeof(apf_driver),
    .name = "example",
    .summary = "a card in the host's memory, to copy a driver from",
    .list = ex_list,
    .open = ex_open,
    .describe = ex_describe,
    .close = ex_close,
    .load = ex_load,
    .unload = ex_unload,
    .alloc = ex_alloc,
    .import = ex_import,
    .free = ex_free,
    .sync = ex_sync,
    .start = ex_start,
    .wait = ex_wait,
    .release = ex_release,
};

const apf_driver *apf_driver_v1(void) { return &driver; }
