/* AMD cards through XRT (libxrt_coreutil.so.2): devices, xclbins, kernels. Buffer objects are in buffer.c, runs in
 * run.c, finding and loading XRT in api/api.c. */
#include "driver_support.h"
#include "xrt.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MOST_DEVICES 64 /* XRT has no count; the noop shim opens any index */

static void describe_handle(const xrt_api *xrt, const char *identity, apf_device_info *info)
{
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "%s %s", xrt->emulation ? xrt->mode : "AMD card", identity);
    snprintf(info->vendor, sizeof info->vendor, "AMD");
    snprintf(info->identity, sizeof info->identity, "%s", identity);
    snprintf(info->version, sizeof info->version, "XRT %s", *xrt->version ? xrt->version : "2");
    info->max_buffer = (4ull << 30) - 4096;
    info->import_align = 4096;
    info->size_align = 1;
    info->offset_align = XRT_OFFSET_ALIGN;
    info->capabilities = APF_CAP_IMPORT | APF_CAP_OFFSET | APF_CAP_COUNTERS | APF_CAP_DUPLEX | APF_CAP_SEPARATE_MEMORY;
    if (xrt_abort_available(xrt)) info->capabilities |= APF_CAP_CANCEL;
    if (xrt->RunSetArgV) info->capabilities |= APF_CAP_STRUCTS;
    info->compute_units = 1; /* until a program is loaded */
}

static int xrt_list(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count,
                    apf_error *err)
{
    const xrt_api *xrt;
    *count = 0;
    int code = xrt_load(options, &xrt, err);
    if (code != APF_OK) return code;
    /* An emulation accepts any device index. */
    const unsigned most = xrt->emulation ? 1 : MOST_DEVICES;
    for (unsigned i = 0; i < most; i++) {
        xrt_device handle = xrt->DeviceOpen(i);
        if (!handle) break;
        char identity[16];
        snprintf(identity, sizeof identity, "%u", i);
        if (i < capacity) describe_handle(xrt, identity, &infos[i]);
        xrt->DeviceClose(handle);
        (*count)++;
    }
    return APF_OK;
}

/* The index that a selector means: its digits, or the first listed name that contains it; -1: none. */
static int index_of(const char *selector, const apf_option *options, apf_error *err)
{
    apf_device_info infos[MOST_DEVICES];
    uint32_t count;
    if (!selector || !*selector) return 0;
    if (isdigit((unsigned char)*selector)) {
        char *end;
        const long index = strtol(selector, &end, 10);
        if (*end == '\0' && index < 1 << 20) return (int)index;
    }
    if (xrt_list(options, infos, MOST_DEVICES, &count, err) != APF_OK) return -1;
    for (uint32_t i = 0; i < count && i < MOST_DEVICES; i++)
        if (strcasestr(infos[i].name, selector)) return (int)i;
    return -1;
}

static int xrt_open(const char *selector, const apf_option *options, apf_drv_device **opened, apf_error *err)
{
    const xrt_api *xrt;
    int code = xrt_load(options, &xrt, err);
    if (code != APF_OK) return code;
    apf_drv_device *device = apf_calloc(1, sizeof *device);
    if (!device) return apf_fail(err, APF_NO_MEMORY, 0, "no memory to open a device");
    device->xrt = xrt;
    const int by_address = selector && strchr(selector, ':');
    const int index = by_address ? 0 : index_of(selector, options, err);
    char identity[64];
    snprintf(identity, sizeof identity, "%d", index);
    errno = 0;
    if (index >= 0) device->handle = by_address ? xrt->DeviceOpenByBDF(selector) : xrt->DeviceOpen((unsigned)index);
    if (!device->handle) {
        const int sys = errno;
        apf_free(device);
        errno = sys;
        code = sys == EACCES || sys == EPERM ? APF_PERMISSION : sys == EBUSY ? APF_BUSY : APF_NO_DEVICE;
        return xrt_fail(err, code, "no XRT device '%s'; expected an index, a bus address or a part of a name%s",
                        selector ? selector : "0", xrt->emulation ? "" : " (xbutil examine lists the cards)");
    }
    describe_handle(xrt, by_address ? selector : identity, &device->info);
    pthread_mutex_init(&device->lock, NULL);
    pthread_mutex_init(&device->order, NULL);
    apf_cond_init(&device->moved);
    xrt_exit_watch(device);
    *opened = device;
    return APF_OK;
}

static int xrt_describe(apf_drv_device *device, apf_device_info *info, apf_error *err)
{
    (void)err;
    pthread_mutex_lock(&device->lock);
    *info = device->info;
    pthread_mutex_unlock(&device->lock);
    return APF_OK;
}

static void xrt_close(apf_drv_device *device)
{
    xrt_order_end(device);
    xrt_exit_forget(device);
    device->xrt->DeviceClose(device->handle);
    xrt_xclbin_end(&device->xclbin);
    pthread_mutex_destroy(&device->lock);
    pthread_mutex_destroy(&device->order);
    pthread_cond_destroy(&device->moved);
    apf_free(device);
}

/* -- programs -- */

/* Load the xclbin unless it is already loaded; takes ownership of its banks. Called under the device's lock. */
static int load_xclbin(apf_drv_device *device, xrt_xclbin *xclbin, const char *name, apf_error *err)
{
    static const unsigned char none[sizeof xclbin->uuid];
    if (memcmp(device->xclbin.uuid, none, sizeof none) != 0) {
        if (memcmp(device->xclbin.uuid, xclbin->uuid, sizeof none) == 0) return APF_OK;
        if (device->kernels)
            return apf_fail(err, APF_BUSY, 0, "'%s' cannot be loaded: %u kernels of another xclbin are open on '%s'",
                            name, device->kernels, device->info.name);
    }
    errno = 0;
    if (device->xrt->DeviceLoadXclbin(device->handle, xclbin->data) != 0)
        return xrt_fail(err, xrt_code(APF_PROGRAM), "'%s' cannot be loaded on '%s'", name, device->info.name);
    xrt_xclbin_end(&device->xclbin);
    device->xclbin = *xclbin;
    device->info.memory = 0;
    for (uint32_t i = 0; i < xclbin->banks_count; i++)
        if (xclbin->banks[i].used && !xclbin->banks[i].host) device->info.memory += xclbin->banks[i].size;
    xclbin->banks = NULL; /* the device owns them now */
    return APF_OK;
}

/* Compute units that a kernel's name selects: "k:{a,b}" two, "k" all. */
static uint32_t selected_units(const char *kernel, uint32_t all)
{
    const char *list = strchr(kernel, '{');
    if (!list) return all ? all : 1;
    uint32_t count = 1;
    for (; *list; list++) count += *list == ',';
    return count;
}

static int xrt_load_program(apf_drv_device *device, const apf_program *program, apf_drv_kernel **loaded, apf_error *err)
{
    const char *name = program->name ? program->name : "the program";
    if (!program->data) return apf_fail(err, APF_PROGRAM, 0, "the xrt driver needs an xclbin: `program = FILE.xclbin`");
    if (!program->kernel || !*program->kernel)
        return apf_fail(err, APF_NOT_FOUND, 0, "no kernel was named for '%s': `kernel = NAME`", name);
    xrt_xclbin xclbin;
    int code = xrt_xclbin_read(&xclbin, program->data, program->size, name, err);
    if (code != APF_OK) return code;
    uint32_t units = 0;
    apf_drv_kernel *kernel = apf_calloc(1, sizeof *kernel);
    if (!kernel) code = apf_fail(err, APF_NO_MEMORY, 0, "no memory for kernel '%s'", program->kernel);
    if (code == APF_OK)
        code = xrt_xclbin_kernel(&xclbin, program->kernel, &kernel->parameters, &kernel->count, &units, err);
    pthread_mutex_lock(&device->lock);
    if (code == APF_OK) code = load_xclbin(device, &xclbin, name, err);
    if (code == APF_OK) {
        errno = 0;
        kernel->handle = device->xrt->PLKernelOpen(device->handle, device->xclbin.uuid, program->kernel);
        if (!kernel->handle)
            code =
                xrt_fail(err, xrt_code(APF_NOT_FOUND), "kernel '%s' of '%s' cannot be opened", program->kernel, name);
    }
    if (code == APF_OK) {
        device->kernels++;
        device->info.compute_units = selected_units(program->kernel, units);
    }
    pthread_mutex_unlock(&device->lock);
    xrt_xclbin_end(&xclbin);
    if (code != APF_OK) {
        if (kernel) apf_free(kernel->parameters);
        apf_free(kernel);
        return code;
    }
    kernel->device = device;
    snprintf(kernel->name, sizeof kernel->name, "%s", program->kernel);
    pthread_mutex_init(&kernel->lock, NULL);
    *loaded = kernel;
    return APF_OK;
}

static void xrt_unload(apf_drv_kernel *kernel)
{
    apf_drv_device *device = kernel->device;
    xrt_runs_close(device->xrt, kernel->idle);
    device->xrt->KernelClose(kernel->handle);
    pthread_mutex_lock(&device->lock);
    device->kernels--;
    pthread_mutex_unlock(&device->lock);
    pthread_mutex_destroy(&kernel->lock);
    apf_free(kernel->parameters);
    apf_free(kernel);
}

static int xrt_bank_of(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err)
{
    if (index >= kernel->count)
        return apf_fail(err, APF_ARGUMENT, 0, "'%s' has %u arguments; there is no number %u", kernel->name,
                        kernel->count, index);
    const xrt_parameter *parameter = &kernel->parameters[index];
    if (parameter->qualifier != XRT_ARG_GLOBAL && parameter->qualifier != XRT_ARG_CONSTANT)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s %s) is not a buffer", index, kernel->name,
                        parameter->type, parameter->name);
    errno = 0;
    const int group = kernel->device->xrt->KernelArgGroupId(kernel->handle, (int)index);
    if (group < 0)
        return xrt_fail(err, APF_ARGUMENT,
                        "argument %u of '%s' (%s) has no single memory bank; name compute units that share one: "
                        "`kernel = %.*s:{UNIT}`",
                        index, kernel->name, parameter->name, (int)strcspn(kernel->name, ":"), kernel->name);
    *bank = (uint32_t)group;
    return APF_OK;
}

static int xrt_counters(apf_drv_device *device, apf_counters *counters, apf_error *err)
{
    (void)err;
    apf_support_counters(&device->counters, counters);
    return APF_OK;
}

const apf_driver apf_driver_xrt = {
    .abi = APF_DRIVER_ABI,
    .size = sizeof(apf_driver),
    .name = "xrt",
    .summary = "AMD cards through XRT 2.13 or newer",
    .list = xrt_list,
    .open = xrt_open,
    .describe = xrt_describe,
    .close = xrt_close,
    .load = xrt_load_program,
    .unload = xrt_unload,
    .bank = xrt_bank_of,
    .alloc = xrt_bo_alloc,
    .import = xrt_bo_import,
    .free = xrt_bo_free,
    .sync = xrt_bo_sync,
    .start = xrt_run_start,
    .wait = xrt_run_wait,
    .cancel = xrt_run_cancel,
    .release = xrt_run_release,
    .times = xrt_run_times,
    .counters = xrt_counters,
};
