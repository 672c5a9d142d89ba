/* runtime.h - shared by the files of runtime/. */
#ifndef APF_RUNTIME_H
#define APF_RUNTIME_H

#include "memory/memory.h"

/* drivers.c */
void apf_drivers_fork_prepare(void);
void apf_drivers_fork_done(void);

/* device.c */
/* Begin and end a call into a device's driver. CLOSED, FORKED, DEVICE_LOST; nothing is closed in between. */
int apf_device_enter(apf_device *device, apf_error *err);
void apf_device_leave(apf_device *device);
/* The same for a call that ends an object: also on a lost device. 0: closed or forked, no call was begun. */
int apf_device_enter_any(apf_device *device);
/* Whether the device was opened in this process, not in one that this was forked from. */
int apf_device_here(const apf_device *device);
/* Return a driver's result; remember a lost device. */
int apf_device_result(apf_device *device, int code);
/* Count a run that starts (CLOSED: the device was closed first) and that ended; close is refused in between. */
int apf_device_run_begins(apf_device *device, apf_error *err);
void apf_device_run_ends(apf_device *device);

/* buffer_object.c */
extern pthread_mutex_t apf_objects_lock; /* lists and counts of kernels and buffer objects, of all devices */
void apf_objects_fork_prepare(void);
void apf_objects_fork_done(void);
/* The device closes and no call is in progress: end all of its driver's objects. Objects with references lose their
 * handles. */
void apf_device_end_objects(apf_device *device);
/* A run never ended: the device keeps its buffer objects until the process ends. */
void apf_bo_abandon(apf_bo *bo);
/* Add references to the buffer objects of a run and look up their handles, in one step: an object that another thread
 * closes or abandons is either refused here or stays valid. ARGUMENT: one has no handle; nothing was added. */
int apf_bos_hold(const apf_run_arg *args, uint32_t count, apf_arg *raw, apf_error *err);

/* kernel.c */
void apf_kernel_retain(apf_kernel *kernel);
/* Part of apf_device_end_objects, under objects_lock. */
void apf_kernels_end(apf_device *device);

struct apf_device {
    const apf_driver *driver;
    apf_drv_device *handle;
    apf_device_info info;
    int64_t refs;
    uint32_t generation; /* of the process that opened it */
    int lost;
    pthread_mutex_t lock; /* the fields below */
    pthread_cond_t quiet; /* calls == 0 */
    int closed;
    int64_t calls;     /* calls that are inside the driver now */
    int64_t in_flight; /* runs that were started and have not ended */
    /* Every live object, so that close can end its driver object; under objects_lock. */
    apf_bo *bos;
    apf_kernel *kernels;
};

struct apf_kernel {
    apf_device *device;     /* held */
    apf_drv_kernel *handle; /* NULL once the device was closed */
    int64_t refs;
    apf_kernel *next, *previous;
};

/* A reference to a bo holds its buffer and device. An attached bo without references is a cache entry: it holds
 * neither, and is freed with its buffer's memory or its device, or when the device's memory is needed. */
struct apf_bo {
    apf_device *device;
    apf_drv_bo *handle; /* NULL once the device was closed */
    apf_buffer *buffer; /* host side; NULL for device memory */
    uint64_t size;
    int64_t refs; /* under objects_lock */
    uint32_t bank;
    int attached;            /* in its buffer's list */
    apf_bo *next, *previous; /* of the device */
    apf_bo *sibling;         /* attached: next of the same buffer */
};

#endif
