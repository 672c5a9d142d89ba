/* A whole driver in one file, to copy from: a card in the host's memory with two kernels.
 *
 * It keeps to driver.h, version 1, and needs nothing else of apyfal. docs/driver-plugins.md explains it, and how to
 * build and install it; apyfal's conformance suite runs on it.
 */
#include "driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64u

struct apf_drv_device {
    int nothing; /* what is here would be changed under a lock: calls come from any thread */
};

struct apf_drv_bo { /* host side and device side of one piece of memory */
    unsigned char *host, *card;
    uint64_t size;
    uint32_t readonly;
};

struct apf_drv_kernel {
    const char *name;
    void (*run)(unsigned char *dst, const unsigned char *src, uint64_t count);
    uint64_t width; /* bytes of one of `count` */
};

struct apf_drv_run {
    int nothing; /* a run has ended when `start` returns: there is nothing to remember */
};

static void increment(unsigned char *dst, const unsigned char *src, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint32_t value;
        memcpy(&value, src + 4 * i, sizeof value);
        value++;
        memcpy(dst + 4 * i, &value, sizeof value);
    }
}

static void loopback(unsigned char *dst, const unsigned char *src, uint64_t count) { memmove(dst, src, count); }

static const apf_drv_kernel kernels[] = {{"increment", increment, 4}, {"loopback", loopback, 1}};

/* Every failure goes through here: a code of APF_ERRORS, and one line that names the value and what was expected. */
static int fail(apf_error *err, int code, const char *format, ...)
{
    if (!err) return code;
    err->code = code;
    err->sys = 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    return code;
}

/* -- devices ------------------------------------------------------------------------------------------------------- */

static int ex_describe(apf_drv_device *device, apf_device_info *info, apf_error *err)
{
    (void)device, (void)err;
    *info = (apf_device_info){.name = "example card", .vendor = "apyfal", .identity = "0", .version = "1"};
    info->import_align = info->offset_align = ALIGN;
    info->size_align = info->compute_units = 1;
    info->capabilities =
        APF_CAP_IMPORT | APF_CAP_IMPORT_READONLY | APF_CAP_OFFSET | APF_CAP_SEPARATE_MEMORY;
    return APF_OK;
}

static int ex_list(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count,
                   apf_error *err)
{
    (void)options;
    *count = 1;
    return capacity ? ex_describe(NULL, infos, err) : APF_OK;
}

static int ex_open(const char *selector, const apf_option *options, apf_drv_device **device, apf_error *err)
{
    if (options && options->key)
        return fail(err, APF_INVALID, "unknown option 'example.%s'; there are none", options->key);
    if (selector && strcmp(selector, "0") != 0 && !strstr("example card", selector))
        return fail(err, APF_NO_DEVICE, "no example device '%s'; expected 0", selector);
    *device = calloc(1, sizeof **device);
    return *device ? APF_OK : fail(err, APF_NO_MEMORY, "no memory to open a device");
}

static void ex_close(apf_drv_device *device) { free(device); }

/* -- kernels ------------------------------------------------------------------------------------------------------- */

static int ex_load(apf_drv_device *device, const apf_program *program, apf_drv_kernel **kernel, apf_error *err)
{
    (void)device;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        if (strcmp(program->kernel, kernels[i].name) != 0) continue;
        if (!(*kernel = malloc(sizeof **kernel))) return fail(err, APF_NO_MEMORY, "no memory for a kernel");
        **kernel = kernels[i];
        return APF_OK;
    }
    return fail(err, APF_NOT_FOUND, "no kernel '%s'; there are: increment, loopback", program->kernel);
}

static void ex_unload(apf_drv_kernel *kernel) { free(kernel); }

static int ex_bank(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err)
{
    *bank = 0;
    return index < 2 ? APF_OK : fail(err, APF_ARGUMENT, "argument %u of '%s' is no buffer", index, kernel->name);
}

/* -- memory -------------------------------------------------------------------------------------------------------- */

static int ex_import(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank,
                     apf_drv_bo **made, apf_error *err)
{
    (void)device, (void)bank;
    if ((uintptr_t)data % ALIGN) return fail(err, APF_MISALIGNED, "%p is not a multiple of %u", data, ALIGN);
    apf_drv_bo *bo = calloc(1, sizeof *bo);
    unsigned char *card = calloc(1, size ? size : 1);
    if (!bo || !card) {
        free(bo);
        free(card);
        return fail(err, APF_DEVICE_MEMORY, "no %llu bytes on the card", (unsigned long long)size);
    }
    *bo = (apf_drv_bo){data, card, size, readonly};
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
    const int to = direction == APF_TO_DEVICE;
    if (offset > bo->size || size > bo->size - offset || (size && !bo->host))
        return fail(err, APF_INVALID, "cannot move [%llu, + %llu) of %llu bytes", (unsigned long long)offset,
                    (unsigned long long)size, (unsigned long long)bo->size);
    if (!to && bo->readonly) return fail(err, APF_READ_ONLY, "the host's side of the buffer is read-only");
    if (to && size) memcpy(bo->card + offset, bo->host + offset, size);
    if (!to && size) memcpy(bo->host + offset, bo->card + offset, size);
    return APF_OK;
}

/* -- runs ---------------------------------------------------------------------------------------------------------- */

static int check(const apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_error *err)
{
    if (count != 3) return fail(err, APF_ARGUMENT, "'%s' has 3 arguments; got %u", kernel->name, count);
    for (uint32_t i = 0; i < 3; i++) {
        if ((i < 2) != (args[i].kind == APF_BUFFER))
            return fail(err, APF_ARGUMENT, "argument %u of '%s' is a %s", i, kernel->name, i < 2 ? "buffer" : "scalar");
        if (i < 2 && args[i].offset % ALIGN)
            return fail(err, APF_MISALIGNED, "argument %u begins at byte %llu; expected a multiple of %u", i,
                        (unsigned long long)args[i].offset, ALIGN);
        if (i < 2 && (args[i].offset > args[i].bo->size || args[i].size > args[i].bo->size - args[i].offset))
            return fail(err, APF_ARGUMENT, "argument %u is outside of its buffer object", i);
    }
    if (args[2].value.u > args[0].size / kernel->width || args[2].value.u > args[1].size / kernel->width)
        return fail(err, APF_ARGUMENT, "argument 2 of '%s' is %llu, more than the buffers hold", kernel->name,
                    (unsigned long long)args[2].value.u);
    return APF_OK;
}

/* This card works while `start` is called. A real one would be told to begin, and waited for in `wait`. */
static int ex_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **run, apf_error *err)
{
    int code = check(kernel, args, count, err);
    for (uint32_t i = 0; code == APF_OK && i < 2; i++)
        if (args[i].flags & APF_SYNC_TO) code = ex_sync(args[i].bo, APF_TO_DEVICE, args[i].offset, args[i].size, err);
    if (code == APF_OK)
        kernel->run(args[1].bo->card + args[1].offset, args[0].bo->card + args[0].offset, args[2].value.u);
    for (uint32_t i = 0; code == APF_OK && i < 2; i++)
        if (args[i].flags & APF_SYNC_FROM)
            code = ex_sync(args[i].bo, APF_FROM_DEVICE, args[i].offset, args[i].size, err);
    if (code != APF_OK) return code;
    if (!(*run = calloc(1, sizeof **run))) return fail(err, APF_NO_MEMORY, "no memory for a run");
    return APF_OK;
}

static int ex_wait(apf_drv_run *run, int64_t timeout, apf_error *err)
{
    (void)run, (void)timeout, (void)err;
    return APF_OK;
}

static int ex_cancel(apf_drv_run *run, apf_error *err)
{
    (void)run, (void)err;
    return APF_OK; /* too late: it has ended */
}

static void ex_release(apf_drv_run *run) { free(run); }

static void ex_times(apf_drv_run *run, apf_times *times)
{
    (void)run;
    *times = (apf_times){0, 0}; /* not measured */
}

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
    .bank = ex_bank,
    .alloc = ex_alloc,
    .import = ex_import,
    .free = ex_free,
    .sync = ex_sync,
    .start = ex_start,
    .wait = ex_wait,
    .cancel = ex_cancel,
    .release = ex_release,
    .times = ex_times,
};

const apf_driver *apf_driver_v1(void) { return &driver; }
