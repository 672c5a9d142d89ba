/* Kernels on a device. They end as buffer objects do: see buffer_object.c. */
#include "runtime.h"

int apf_kernel_load(apf_device *device, const apf_program *program, apf_kernel **loaded, apf_error *err)
{
    apf_kernel *kernel = apf_calloc(1, sizeof *kernel);
    if (!kernel) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a kernel");
    int code = apf_device_enter(device, err);
    if (code == APF_OK) {
        code = apf_device_result(device, device->driver->load(device->handle, program, &kernel->handle, err));
        if (code == APF_OK) {
            kernel->device = device;
            kernel->refs = 1;
            apf_device_retain(device);
            pthread_mutex_lock(&apf_objects_lock);
            kernel->next = device->kernels;
            if (kernel->next) kernel->next->previous = kernel;
            device->kernels = kernel;
            pthread_mutex_unlock(&apf_objects_lock);
            apf_live_add(kernels, 1);
        }
        apf_device_leave(device);
    }
    if (code != APF_OK)
        apf_free(kernel);
    else
        *loaded = kernel;
    return code;
}

int apf_device_interface(apf_device *device, const apf_program *program, char *text, size_t size, apf_error *err)
{
    int code = apf_device_enter(device, err);
    if (code != APF_OK) return code;
    const apf_driver *driver = device->driver;
    if (driver->size <= offsetof(apf_driver, interface) || !driver->interface)
        code = apf_fail(err, APF_UNSUPPORTED, 0, "driver '%s' cannot list the kernels of a program", driver->name);
    else
        code = apf_device_result(device, driver->interface(device->handle, program, text, size, err));
    apf_device_leave(device);
    return code;
}

static void kernel_unlink(apf_kernel *kernel)
{
    if (kernel->next) kernel->next->previous = kernel->previous;
    if (kernel->previous)
        kernel->previous->next = kernel->next;
    else
        kernel->device->kernels = kernel->next;
}

void apf_kernel_retain(apf_kernel *kernel)
{
    pthread_mutex_lock(&apf_objects_lock);
    kernel->refs++;
    pthread_mutex_unlock(&apf_objects_lock);
}

void apf_kernel_release(apf_kernel *kernel)
{
    if (!kernel) return;
    apf_device *device = kernel->device;
    const int entered = apf_device_enter_any(device);
    pthread_mutex_lock(&apf_objects_lock);
    const int last = --kernel->refs == 0;
    apf_drv_kernel *handle = last ? kernel->handle : NULL;
    if (handle) {
        kernel_unlink(kernel);
        if (!entered && apf_device_here(device)) device->driver->unload(handle);
    }
    pthread_mutex_unlock(&apf_objects_lock);
    if (handle && entered) device->driver->unload(handle);
    if (entered) apf_device_leave(device);
    if (!last) return;
    apf_live_add(kernels, -1);
    apf_free(kernel);
    apf_device_release(device);
}

int apf_kernel_may_write(apf_kernel *kernel, uint32_t index)
{
    if (kernel->device->driver != &apf_driver_opencl || apf_device_enter(kernel->device, NULL) != APF_OK) return 0;
    const int may = apf_opencl_may_write(kernel->handle, index);
    apf_device_leave(kernel->device);
    return may;
}

int apf_kernel_bank(apf_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err)
{
    int code = apf_device_enter(kernel->device, err);
    if (code != APF_OK) return code;
    const apf_driver *driver = kernel->device->driver;
    *bank = 0;
    if (driver->bank) code = driver->bank(kernel->handle, index, bank, err);
    apf_device_leave(kernel->device);
    return code;
}

void apf_kernels_end(apf_device *device)
{
    apf_kernel *kernels = device->kernels;
    device->kernels = NULL;
    for (apf_kernel *kernel = kernels, *next; kernel; kernel = next) {
        next = kernel->next;
        kernel->next = kernel->previous = NULL;
        device->driver->unload(kernel->handle);
        kernel->handle = NULL;
    }
}
