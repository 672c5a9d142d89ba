/* The opencl driver: FPGA cards, GPUs and CPUs through their vendors' OpenCL. This file opens and closes devices. */
#include "driver_support.h"
#include "opencl.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *platform;
    const char *build;
    const char *cache; /* a directory; NULL: none */
    uint32_t units;
} settings;

static int read_options(const apf_option *options, settings *out, apf_error *err)
{
    *out = (settings){.units = 1};
    for (; options && options->key; options++) {
        if (!strcmp(options->key, "platform")) {
            out->platform = options->value;
        } else if (!strcmp(options->key, "build")) {
            out->build = options->value;
        } else if (!strcmp(options->key, "cache")) {
            /* The layer above chooses the directory; whoever uses this driver alone has no cache. */
            out->cache = options->value[0] == '/' ? options->value : NULL;
            if (!out->cache && strcmp(options->value, "no"))
                return apf_fail(err, APF_INVALID, 0, "cache = %s: expected yes or no", options->value);
        } else if (!strcmp(options->key, "compute_units")) {
            char *end;
            errno = 0;
            unsigned long units = strtoul(options->value, &end, 10);
            if (errno || !isdigit((unsigned char)*options->value) || *end || units < 1 || units > OCL_MAX_UNITS)
                return apf_fail(err, APF_INVALID, 0, "compute_units = %s: expected a number from 1 to %d",
                                options->value, OCL_MAX_UNITS);
            out->units = (uint32_t)units;
        } else {
            return apf_fail(err, APF_INVALID, 0,
                            "driver 'opencl' has no option '%s'; expected one of build, cache, compute_units, platform",
                            options->key);
        }
    }
    return APF_OK;
}

static int discover(const apf_option *options, const ocl_api **api, settings *set, ocl_found *found, uint32_t *count,
                    apf_error *err)
{
    int code = read_options(options, set, err);
    if (code == APF_OK) code = ocl_library(api, err);
    if (code != APF_OK) return code;
    ocl_begin_opening();
    code = ocl_discover(*api, set->platform, found, count, err);
    ocl_end_opening();
    return code;
}

static int list(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count, apf_error *err)
{
    const ocl_api *api;
    settings set;
    *count = 0;
    ocl_found *found = apf_calloc(OCL_MAX_DEVICES, sizeof *found);
    if (!found) return apf_fail(err, APF_NO_MEMORY, 0, "no memory to list devices");
    int code = discover(options, &api, &set, found, count, err);
    for (uint32_t i = 0; code == APF_OK && i < *count && i < capacity; i++) {
        ocl_describe(api, &found[i], &infos[i]);
        infos[i].compute_units = set.units;
    }
    apf_free(found);
    return code;
}

/* -- choosing a device -- */

static int is_index(const char *selector, unsigned long *index)
{
    char *end;
    errno = 0;
    *index = strtoul(selector, &end, 10);
    return isdigit((unsigned char)*selector) && !*end && !errno;
}

static int matches(const ocl_found *found, const apf_device_info *info, const char *selector)
{
    return strcasestr(info->name, selector) || strcasestr(info->identity, selector) ||
           strcasestr(found->platform_name, selector);
}

static int none_matches(const ocl_api *api, const char *selector, const ocl_found *found, uint32_t count,
                        apf_error *err)
{
    char choices[600] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < count && used < sizeof choices - 1; i++) {
        apf_device_info info;
        ocl_describe(api, &found[i], &info);
        used += (size_t)snprintf(choices + used, sizeof choices - used, "%s%u '%s'", i ? ", " : "", i, info.name);
    }
    if (!count) return apf_fail(err, APF_NO_DEVICE, 0, "no OpenCL platform here has a device");
    return apf_fail(err, APF_NO_DEVICE, 0, "no OpenCL device '%s'; there are %s", selector ? selector : "0", choices);
}

static int choose(const ocl_api *api, const char *selector, const ocl_found *found, uint32_t count,
                  const ocl_found **chosen, apf_device_info *info, apf_error *err)
{
    unsigned long index;
    for (uint32_t i = 0; i < count; i++) {
        ocl_describe(api, &found[i], info);
        int fits = !selector || !*selector      ? 1
                   : is_index(selector, &index) ? index == i
                                                : matches(&found[i], info, selector);
        if (!fits) continue;
        *chosen = &found[i];
        return APF_OK;
    }
    return none_matches(api, selector, found, count, err);
}

/* -- open and close -- */

static int make_queues(apf_drv_device *device, apf_error *err)
{
    for (uint32_t i = 0; i < OCL_COMPUTE + device->units; i++) {
        cl_int status;
        /* Only the compute queues are profiled: `times` reports only compute, and profiling slows every command. */
        device->queues[i] = device->api->clCreateCommandQueue(
            device->context, device->id, i >= OCL_COMPUTE ? CL_QUEUE_PROFILING_ENABLE : 0, &status);
        if (status != CL_SUCCESS) return ocl_fail(device, err, status, APF_IO, "making a command queue");
    }
    return APF_OK;
}

static void tear_down(apf_drv_device *device)
{
    apf_free(device->build);
    ocl_close_cache(device);
    for (uint32_t i = 0; i < OCL_MAX_QUEUES; i++)
        if (device->queues[i]) device->api->clReleaseCommandQueue(device->queues[i]);
    if (device->context) device->api->clReleaseContext(device->context);
    pthread_mutex_destroy(&device->submit);
    pthread_mutex_destroy(&device->loading);
    apf_free(device);
}

static int set_up(apf_drv_device *device, const settings *set, apf_error *err)
{
    if (set->build) {
        device->build = apf_calloc(1, strlen(set->build) + 1);
        if (!device->build) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for build options");
        strcpy(device->build, set->build);
    }
    if (set->cache) ocl_open_cache(device, set->cache);
    cl_int status;
    device->context = device->api->clCreateContext(NULL, 1, &device->id, NULL, NULL, &status);
    if (status != CL_SUCCESS) {
        device->context = NULL;
        return ocl_fail(device, err, status, APF_IO, "making a context");
    }
    int code = make_queues(device, err);
    if (code == APF_OK && (device->shares = ocl_probe_sharing(device)))
        device->info.capabilities |= APF_CAP_SHARED_MEMORY;
    return code;
}

static int open_device(const char *selector, const apf_option *options, apf_drv_device **opened, apf_error *err)
{
    const ocl_api *api;
    const ocl_found *chosen = NULL;
    settings set;
    uint32_t count = 0;
    ocl_found *found = apf_calloc(OCL_MAX_DEVICES, sizeof *found);
    apf_drv_device *device = apf_calloc(1, sizeof *device);
    int code = APF_OK;
    if (!found || !device) code = apf_fail(err, APF_NO_MEMORY, 0, "no memory to open a device");
    if (code == APF_OK) code = discover(options, &api, &set, found, &count, err);
    if (code == APF_OK) code = choose(api, selector, found, count, &chosen, &device->info, err);
    if (code != APF_OK) {
        apf_free(found);
        apf_free(device);
        return code;
    }
    device->api = api;
    device->id = chosen->device;
    device->version = chosen->version;
    device->migrates = chosen->version >= 12 && ocl_migrates(chosen, &device->info);
    device->units = device->info.compute_units = set.units;
    pthread_mutex_init(&device->submit, NULL);
    pthread_mutex_init(&device->loading, NULL);
    apf_free(found);
    ocl_begin_opening();
    code = set_up(device, &set, err);
    ocl_end_opening();
    if (code != APF_OK) {
        tear_down(device);
        return code;
    }
    *opened = device;
    return APF_OK;
}

static int describe(apf_drv_device *device, apf_device_info *info, apf_error *err)
{
    (void)err;
    *info = device->info;
    return APF_OK;
}

static void close_device(apf_drv_device *device)
{
    /* An abandoned run may still be executing. Releasing its queue would wait for it, perhaps for ever, and its
     * callback writes to this struct. The device then stays open until the process ends. */
    if (__atomic_load_n(&device->unfinished, __ATOMIC_ACQUIRE) == 0) {
        tear_down(device);
        return;
    }
    static apf_drv_device *undead;
    apf_drv_device *first = __atomic_load_n(&undead, __ATOMIC_RELAXED);
    do device->next_undead = first;
    while (!__atomic_compare_exchange_n(&undead, &first, device, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static int counters(apf_drv_device *device, apf_counters *out, apf_error *err)
{
    (void)err;
    apf_support_counters(&device->counted, out);
    return APF_OK;
}

const apf_driver apf_driver_opencl = {
    .abi = APF_DRIVER_ABI,
    .size = sizeof(apf_driver),
    .name = "opencl",
    .summary = "FPGA cards, GPUs and CPUs by their vendor's OpenCL; programs are OpenCL C source or binaries",
    .list = list,
    .open = open_device,
    .describe = describe,
    .close = close_device,
    .load = ocl_load,
    .unload = ocl_unload,
    .bank = ocl_bank,
    .alloc = ocl_alloc,
    .import = ocl_import,
    .free = ocl_free,
    .sync = ocl_sync,
    .start = ocl_start,
    .wait = ocl_wait,
    .cancel = ocl_cancel,
    .release = ocl_release,
    .times = ocl_times,
    .counters = counters,
    .start_over = ocl_start_over,
    .interface = ocl_interface,
    .transfer = ocl_transfer,
};
