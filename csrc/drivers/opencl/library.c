/* The OpenCL library: loaded at first use, never linked; and the names of its error numbers. */
#include "opencl.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    cl_int status;
} errors[] = {
#define ERROR_NAME(name, value) {#name, value},
    OCL_ERRORS(ERROR_NAME)
#undef ERROR_NAME
};

const char *ocl_error_name(cl_int status)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].status == status) return errors[i].name;
    return "vendor-specific error";
}

int ocl_code(cl_int status, int otherwise)
{
    switch (status) {
    case CL_DEVICE_NOT_AVAILABLE:
        return APF_DEVICE_LOST;
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE:
        return APF_DEVICE_MEMORY;
    case CL_OUT_OF_HOST_MEMORY:
        return APF_NO_MEMORY;
    case CL_MISALIGNED_SUB_BUFFER_OFFSET:
        return APF_MISALIGNED;
    case CL_DEVICE_NOT_FOUND:
        return APF_NO_DEVICE;
    default:
        return otherwise;
    }
}

int ocl_fail(apf_drv_device *device, apf_error *err, cl_int status, int otherwise, const char *format, ...)
{
    int code = ocl_code(status, otherwise);
    if (device && code == APF_DEVICE_LOST) __atomic_store_n(&device->lost, 1, __ATOMIC_RELAXED);
    char what[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    apf_fail(err, code, 0, "%s%s%s: %s (%d)", device ? device->info.name : "", device ? ": " : "", what,
             ocl_error_name(status), status);
    if (err) err->sys = status;
    return code;
}

int ocl_alive(apf_drv_device *device, apf_error *err)
{
    if (!__atomic_load_n(&device->lost, __ATOMIC_RELAXED)) return APF_OK;
    return apf_fail(err, APF_DEVICE_LOST, 0, "%s: the device is gone", device->info.name);
}

static int look_up(void *library, ocl_api *api, const char *path, apf_error *err)
{
#define LOOK_UP(result, name, parameters)                                                                              \
    *(void **)&api->name = dlsym(library, #name);                                                                      \
    if (!api->name) return apf_fail(err, APF_NO_LIBRARY, 0, "%s is not an OpenCL library: it has no " #name, path);
    OCL_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
#define LOOK_UP(result, name, parameters) *(void **)&api->name = dlsym(library, #name);
    OCL_LATER_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    return APF_OK;
}

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

void ocl_begin_opening(void) { pthread_mutex_lock(&opening); }

void ocl_end_opening(void) { pthread_mutex_unlock(&opening); }

int ocl_library(const ocl_api **api, apf_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static ocl_api loaded;
    static int ready;
    static int64_t home = -1; /* fork generation of the process that uses OpenCL */

    /* Checked before any lock, because the parent may have held one during the fork. The child has none of the parent's
     * threads; if it opened a device, it would wait for them for ever (PoCL, Intel). */
    const int64_t here = apf_fork_generation();
    int64_t first = -1;
    if (!__atomic_compare_exchange_n(&home, &first, here, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE) && first != here)
        return apf_fail(
            err, APF_FORKED, 0,
            "OpenCL was used before this process was forked, and the child does not have its threads: start the "
            "process by 'spawn' or 'forkserver', or use OpenCL only after the fork");
    int code = APF_OK;
    pthread_mutex_lock(&lock);
    if (!ready) {
        /* A failure is not remembered: the next call may come after the user has installed what was missing. The
         * library is never closed, since vendors' threads outlive every call. */
        const char *chosen = getenv("APYFAL_OPENCL_LIBRARY");
        const char *path = chosen && *chosen ? chosen : "libOpenCL.so.1";
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library)
            code = look_up(library, &loaded, path, err);
        else
            code =
                apf_fail(err, APF_NO_LIBRARY, 0,
                         "no OpenCL on this machine: %s; install the ICD loader (Debian: ocl-icd-libopencl1) and the "
                         "device's own OpenCL, or set APYFAL_OPENCL_LIBRARY",
                         dlerror());
        ready = code == APF_OK;
        if (!ready) __atomic_store_n(&home, -1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
    *api = &loaded;
    return code;
}
