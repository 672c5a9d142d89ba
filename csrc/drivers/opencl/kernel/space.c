/* Index spaces: what a run asks for, against the work-groups that its kernel requires and takes. */
#include "drivers/opencl/opencl.h"

#include <stdio.h>

void ocl_work_groups(apf_drv_kernel *kernel)
{
    const apf_drv_device *device = kernel->device;
    device->api->clGetKernelWorkGroupInfo(kernel->handle, device->id, CL_KERNEL_COMPILE_WORK_GROUP_SIZE,
                                          sizeof kernel->required, kernel->required, NULL);
    device->api->clGetKernelWorkGroupInfo(kernel->handle, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof kernel->largest,
                                          &kernel->largest, NULL);
    cl_ulong bytes = 0; /* no argument is set yet: what the source declares */
    if (!device->api->clGetKernelWorkGroupInfo(kernel->handle, device->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof bytes,
                                               &bytes, NULL))
        kernel->local_own = bytes;
    if (!device->api->clGetDeviceInfo(device->id, CL_DEVICE_LOCAL_MEM_SIZE, sizeof bytes, &bytes, NULL))
        kernel->local_most = bytes;
}

int ocl_check_local(const apf_drv_kernel *kernel, apf_error *err)
{
    uint64_t needed;
    if (!kernel->local_sum || !kernel->local_most) return APF_OK;
    if (__builtin_add_overflow(kernel->local_sum, kernel->local_own, &needed)) needed = UINT64_MAX;
    if (needed <= kernel->local_most) return APF_OK;
    return apf_fail(err, APF_ARGUMENT, 0, "kernel '%s' needs %llu bytes of local memory; %s has %llu for a work-group",
                    kernel->name, (unsigned long long)needed, kernel->device->info.name,
                    (unsigned long long)kernel->local_most);
}

/* "640x480": as many numbers as the index space has dimensions. */
static const char *shown(const size_t *sizes, cl_uint dimensions, char *text, size_t size)
{
    size_t used = 0;
    *text = 0;
    for (cl_uint i = 0; i < dimensions && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%zu", i ? "x" : "", sizes[i]);
    return text;
}

static void accepted(const apf_drv_kernel *kernel, char *text, size_t size)
{
    if (kernel->required[0])
        snprintf(text, size, "it requires work-groups of %zux%zux%zu", kernel->required[0], kernel->required[1],
                 kernel->required[2]);
    else
        snprintf(text, size, "its largest work-group here has %zu work-items", kernel->largest);
}

int ocl_wrong_group(const apf_drv_kernel *kernel, const ocl_space *space, cl_int status, apf_error *err)
{
    char items[72], groups[72], rule[96];
    accepted(kernel, rule, sizeof rule);
    return ocl_fail(kernel->device, err, status, APF_KERNEL,
                    "starting kernel '%s' with %s work-items in work-groups of %s; %s", kernel->name,
                    shown(space->global, space->dimensions, items, sizeof items),
                    shown(space->local, space->dimensions, groups, sizeof groups), rule);
}

/* The work-groups of the kernel's attribute. More dimensions than the index space has are an error. */
static int take_required(const apf_drv_kernel *kernel, ocl_space *space, apf_error *err)
{
    for (cl_uint i = 0; i < 3; i++) {
        if (i < space->dimensions ? kernel->required[i] == 0 : kernel->required[i] <= 1) continue;
        if (i >= space->dimensions)
            return apf_fail(err, APF_KERNEL, 0,
                            "kernel '%s' requires work-groups of %zux%zux%zu; its index space has %u dimensions, "
                            "expected %u or more",
                            kernel->name, kernel->required[0], kernel->required[1], kernel->required[2],
                            space->dimensions, i + 1);
        space->local[i] = kernel->required[i];
    }
    return APF_OK;
}

int ocl_space_of(const apf_drv_kernel *kernel, const apf_launch *launch, ocl_space *space, apf_error *err)
{
    *space = (ocl_space){.dimensions = launch->dimensions};
    uint64_t group = 1;
    int differs = 0;
    for (cl_uint i = 0; i < space->dimensions; i++) {
        space->offset[i] = launch->offset[i];
        space->global[i] = launch->global[i];
        space->local[i] = launch->local[i];
        differs |= space->local[0] && kernel->required[0] && space->local[i] != kernel->required[i];
        if (__builtin_mul_overflow(group, space->local[i], &group)) group = UINT64_MAX;
    }
    char text[72], items[72], rule[96];
    if (differs || (space->local[0] && kernel->largest && group > kernel->largest)) {
        accepted(kernel, rule, sizeof rule);
        return apf_fail(err, APF_KERNEL, 0, "kernel '%s' with work-groups of %s; %s", kernel->name,
                        shown(space->local, space->dimensions, text, sizeof text), rule);
    }
    int code = take_required(kernel, space, err);
    for (cl_uint i = 0; code == APF_OK && i < space->dimensions; i++)
        if (space->local[0] && (!space->local[i] || space->global[i] % space->local[i]))
            return apf_fail(err, APF_KERNEL, 0,
                            "kernel '%s' with %s work-items in work-groups of %s; expected whole work-groups, or "
                            "'round_up = yes' if the kernel compares its index with the size",
                            kernel->name, shown(space->global, space->dimensions, items, sizeof items),
                            shown(space->local, space->dimensions, text, sizeof text));
    return code;
}
