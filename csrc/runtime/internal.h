/* internal.h - what the files of csrc/ share with each other but do not offer above. */
#ifndef APF_INTERNAL_H
#define APF_INTERNAL_H

#include "apyfal.h"

#include <pthread.h>

#define APF_PAGE 4096u /* alignment of every buffer, whatever the kernel's page size */
#define APF_HUGE_PAGE (2u << 20)

/* Legal states:
 *   in use   refs > 0; registered; attachments possible
 *   idle     refs == 0, in a free list of the pool; registered; keeps its attachments (pin once, reuse)
 *   gone     memory returned; not registered; no attachments
 * FOREIGN buffers are never registered nor pooled; MAPPED ones never pooled. */
struct apf_buffer {
    uint8_t *data;
    size_t size;     /* as asked for */
    size_t capacity; /* bytes of memory behind it */
    uint32_t flags;
    uint32_t size_class;
    int64_t refs;
    apf_bo *attached; /* drivers' views of this memory, kept for the next use; under the device layer's lock */
    apf_buffer *next; /* idle: next in the free list */
};

/* buffer.c: the registry of memory by address */
int apf_registry_add(apf_buffer *buffer, apf_error *err);
void apf_registry_remove(apf_buffer *buffer);
/* End a buffer without references: drop its attachments, unregister, unmap, free. */
void apf_buffer_destroy(apf_buffer *buffer);

/* pool.c */
int apf_pool_take(size_t size, apf_buffer **buffer, apf_error *err);
void apf_pool_give(apf_buffer *buffer);
void apf_pool_fork_prepare(void);
void apf_pool_fork_done(void);

/* pages.c: raw pages */
void *apf_pages_map(size_t size, uint32_t *flags, apf_error *err);
void apf_pages_unmap(void *data, size_t size);

/* buffer.c */
void apf_registry_fork_prepare(void);
void apf_registry_fork_done(void);

/* device.c */
/* Begin and end a call into a device's driver. CLOSED, FORKED, DEVICE_LOST; nothing is closed in between. */
int apf_device_enter(apf_device *device, apf_error *err);
void apf_device_leave(apf_device *device);
/* The same for an end of something: also on a lost device. 0: closed or forked, nothing was begun. */
int apf_device_enter_any(apf_device *device);
/* Whether the device was opened in this process, not in one that this was forked from. */
int apf_device_here(const apf_device *device);
/* Pass a driver's result on; a lost device stays lost. */
int apf_device_result(apf_device *device, int code);
/* Count a run that started (+1) or ended (-1); close is refused in between. */
void apf_device_in_flight(apf_device *device, int change);

/* objects.c */
void apf_objects_fork_prepare(void);
void apf_objects_fork_done(void);
void apf_attachments_drop(apf_buffer *buffer);
void apf_device_end_objects(apf_device *device);
void apf_kernel_retain(apf_kernel *kernel);
/* A run never ended: its buffer objects stay the device's until the process ends. */
void apf_bo_abandon(apf_bo *bo);

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
    int64_t calls;     /* now inside the driver */
    int64_t in_flight; /* runs that were started and have not ended */
    /* Every live object, so that close can end what the driver knows of it; under the layer's lock. */
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
 * neither, and goes when its buffer's memory or its device does, or when the device's memory is needed. */
struct apf_bo {
    apf_device *device;
    apf_drv_bo *handle; /* NULL once the device was closed */
    apf_buffer *buffer; /* host side; NULL for device memory */
    uint64_t size;
    int64_t refs; /* under the layer's lock */
    uint32_t bank;
    int attached;            /* in its buffer's list */
    apf_bo *next, *previous; /* of the device */
    apf_bo *sibling;         /* attached: next of the same buffer */
};

#endif
