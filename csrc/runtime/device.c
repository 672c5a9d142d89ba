/* Devices: open and close, and calls that are refused on a closed or forked device. Kernels and buffer objects are in
 * kernel.c and buffer_object.c. */
#include "runtime.h"

#include <string.h>

/* -- calls -- */

int apf_device_here(const apf_device *device) { return device->generation == apf_fork_generation(); }

int apf_device_enter(apf_device *device, apf_error *err)
{
    if (!apf_device_here(device))
        return apf_fail(
            err, APF_FORKED, 0,
            "device '%s' was opened before a fork and belongs to the parent; open one in the child, which driver "
            "opencl only does in a process that was started by 'spawn' or 'forkserver'",
            device->info.name);
    pthread_mutex_lock(&device->lock);
    const int closed = device->closed, lost = device->lost;
    if (!closed && !lost) device->calls++;
    pthread_mutex_unlock(&device->lock);
    if (closed) return apf_fail(err, APF_CLOSED, 0, "device '%s' is closed", device->info.name);
    if (lost) return apf_fail(err, APF_DEVICE_LOST, 0, "device '%s' was lost", device->info.name);
    return APF_OK;
}

int apf_device_enter_any(apf_device *device)
{
    if (!apf_device_here(device)) return 0;
    pthread_mutex_lock(&device->lock);
    const int open = !device->closed;
    if (open) device->calls++;
    pthread_mutex_unlock(&device->lock);
    return open;
}

void apf_device_leave(apf_device *device)
{
    pthread_mutex_lock(&device->lock);
    if (--device->calls == 0) pthread_cond_broadcast(&device->quiet);
    pthread_mutex_unlock(&device->lock);
}

int apf_device_result(apf_device *device, int code)
{
    if (code == APF_DEVICE_LOST) {
        pthread_mutex_lock(&device->lock);
        device->lost = 1;
        pthread_mutex_unlock(&device->lock);
    }
    return code;
}

int apf_device_run_begins(apf_device *device, apf_error *err)
{
    pthread_mutex_lock(&device->lock);
    const int closed = device->closed;
    if (!closed) device->in_flight++;
    pthread_mutex_unlock(&device->lock);
    return closed ? apf_fail(err, APF_CLOSED, 0, "device '%s' is closed", device->info.name) : APF_OK;
}

void apf_device_run_ends(apf_device *device)
{
    pthread_mutex_lock(&device->lock);
    device->in_flight--;
    pthread_mutex_unlock(&device->lock);
}

/* -- open and close -- */

int apf_device_open(const apf_driver *driver, const char *selector, const apf_option *options, apf_device **opened,
                    apf_error *err)
{
    apf_device *device = apf_calloc(1, sizeof *device);
    if (!device) return apf_fail(err, APF_NO_MEMORY, 0, "no memory to open a device");
    int code = driver->open(selector, options, &device->handle, err);
    if (code == APF_OK && (code = driver->describe(device->handle, &device->info, err)) != APF_OK)
        driver->close(device->handle);
    if (code != APF_OK) {
        apf_free(device);
        return code;
    }
    device->driver = driver;
    device->refs = 1;
    device->generation = apf_fork_generation();
    pthread_mutex_init(&device->lock, NULL);
    pthread_cond_init(&device->quiet, NULL);
    apf_live_add(devices, 1);
    *opened = device;
    return APF_OK;
}

void apf_device_retain(apf_device *device) { __atomic_add_fetch(&device->refs, 1, __ATOMIC_RELAXED); }

int apf_device_close(apf_device *device, apf_error *err)
{
    if (!apf_device_here(device)) return APF_OK; /* the parent closes it */
    pthread_mutex_lock(&device->lock);
    if (device->closed) {
        pthread_mutex_unlock(&device->lock);
        return APF_OK;
    }
    if (device->in_flight) {
        long long runs = (long long)device->in_flight;
        pthread_mutex_unlock(&device->lock);
        return apf_fail(err, APF_BUSY, 0, "device '%s' cannot be closed: %lld runs are in flight", device->info.name,
                        runs);
    }
    device->closed = 1;
    while (device->calls) pthread_cond_wait(&device->quiet, &device->lock);
    pthread_mutex_unlock(&device->lock);
    apf_device_end_objects(device);
    device->driver->close(device->handle);
    apf_live_add(devices, -1);
    return APF_OK;
}

void apf_device_release(apf_device *device)
{
    if (!device || __atomic_sub_fetch(&device->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    apf_device_close(device, NULL);       /* not busy: a run in flight holds a reference */
    if (!apf_device_here(device)) return; /* its locks may be held by threads that exist only in the parent */
    pthread_mutex_destroy(&device->lock);
    pthread_cond_destroy(&device->quiet);
    apf_free(device);
}

const apf_device_info *apf_device_info_of(const apf_device *device) { return &device->info; }

const apf_driver *apf_device_driver(const apf_device *device) { return device->driver; }

int apf_device_counters(apf_device *device, apf_counters *counters, apf_error *err)
{
    if (!device->driver->counters)
        return apf_fail(err, APF_UNSUPPORTED, 0, "driver '%s' does not count", device->driver->name);
    int code = apf_device_enter(device, err);
    if (code != APF_OK) return code;
    code = device->driver->counters(device->handle, counters, err);
    apf_device_leave(device);
    return code;
}

int apf_device_control(apf_device *device, const char *key, const char *value, apf_error *err)
{
    if (!device->driver->control)
        return apf_fail(err, APF_UNSUPPORTED, 0, "driver '%s' has no settings", device->driver->name);
    int code = apf_device_enter(device, err);
    if (code != APF_OK) return code;
    code = device->driver->control(device->handle, key, value, err);
    apf_device_leave(device);
    return code;
}
