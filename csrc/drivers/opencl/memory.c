/* Buffer objects: device memory, host memory used in place, parts of both, and transfers. */
#include "opencl.h"

static apf_drv_bo *bo_new(apf_drv_device *device, uint64_t size, apf_error *err)
{
    apf_drv_bo *bo = apf_calloc(1, sizeof *bo);
    if (!bo) {
        apf_fail(err, APF_NO_MEMORY, 0, "no memory for a buffer object");
        return NULL;
    }
    bo->device = device;
    bo->size = size;
    return bo;
}

static int create(apf_drv_bo *bo, cl_bitfield flags, void *data, apf_error *err)
{
    apf_drv_device *device = bo->device;
    enum { SMALLEST = 64 }; /* OpenCL has no buffers of zero bytes */
    const size_t size = bo->size ? bo->size : SMALLEST;
    if (bo->size > SIZE_MAX || (device->info.max_buffer && size > device->info.max_buffer))
        return apf_fail(err, APF_DEVICE_MEMORY, 0, "%s: a buffer of %llu bytes; the device takes %llu at most",
                        device->info.name, (unsigned long long)bo->size, (unsigned long long)device->info.max_buffer);
    cl_int status;
    bo->handle = device->api->clCreateBuffer(device->context, flags, size, bo->size ? data : NULL, &status);
    if (status == CL_SUCCESS) {
        __atomic_add_fetch(&device->counted.memory_used, bo->size, __ATOMIC_RELAXED);
        return APF_OK;
    }
    /* Some platforms return CL_OUT_OF_RESOURCES for a full card; any other error is about the host memory. */
    const int otherwise = status == CL_OUT_OF_RESOURCES || !data ? APF_DEVICE_MEMORY
                          : bo->readonly                         ? APF_READ_ONLY
                                                                 : APF_UNSUPPORTED;
    return ocl_fail(device, err, status, otherwise, "%s of %llu bytes", data ? "importing host memory" : "a buffer",
                    (unsigned long long)bo->size);
}

static int finish(apf_drv_bo *bo, int code, apf_drv_bo **out)
{
    if (code == APF_OK)
        *out = bo;
    else
        apf_free(bo);
    return code;
}

int ocl_alloc(apf_drv_device *device, uint64_t size, uint32_t bank, apf_drv_bo **out, apf_error *err)
{
    (void)bank; /* OpenCL platforms place memory themselves */
    int code = ocl_alive(device, err);
    if (code != APF_OK) return code;
    apf_drv_bo *bo = bo_new(device, size, err);
    if (!bo) return APF_NO_MEMORY;
    return finish(bo, create(bo, CL_MEM_READ_WRITE, NULL, err), out);
}

int ocl_import(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **out,
               apf_error *err)
{
    (void)bank;
    int code = ocl_alive(device, err);
    if (code != APF_OK) return code;
    if ((uintptr_t)data % device->info.import_align)
        return apf_fail(err, APF_MISALIGNED, 0, "%s: host memory at %p; this device takes multiples of %u",
                        device->info.name, data, device->info.import_align);
    if (readonly && !(device->info.capabilities & APF_CAP_IMPORT_READONLY))
        return apf_fail(err, APF_READ_ONLY, 0, "%s: read-only host memory cannot be pinned for this device",
                        device->info.name);
    apf_drv_bo *bo = bo_new(device, size, err);
    if (!bo) return APF_NO_MEMORY;
    bo->data = data;
    bo->readonly = readonly != 0;
    const cl_bitfield access = readonly ? CL_MEM_READ_ONLY : CL_MEM_READ_WRITE;
    return finish(bo, create(bo, access | (size ? CL_MEM_USE_HOST_PTR : 0), data, err), out);
}

/* Find the kept part, or make a new one. */
static int find_part(apf_drv_bo *bo, uint64_t offset, uint64_t size, cl_mem *handle, apf_error *err)
{
    apf_drv_device *device = bo->device;
    for (ocl_part *part = bo->parts; part; part = part->next)
        if (part->offset == offset && part->size == size) {
            *handle = part->handle;
            return APF_OK;
        }
    ocl_part *part = apf_calloc(1, sizeof *part);
    if (!part) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a part of a buffer object");
    const cl_buffer_region region = {.origin = offset, .size = size};
    const cl_bitfield access = bo->readonly ? CL_MEM_READ_ONLY : CL_MEM_READ_WRITE;
    cl_int status;
    part->handle = device->api->clCreateSubBuffer(bo->handle, access, CL_BUFFER_CREATE_TYPE_REGION, &region, &status);
    if (status != CL_SUCCESS) {
        apf_free(part);
        return ocl_fail(device, err, status, APF_DEVICE_MEMORY, "bytes %llu to %llu of a buffer of %llu",
                        (unsigned long long)offset, (unsigned long long)(offset + size), (unsigned long long)bo->size);
    }
    part->offset = offset;
    part->size = size;
    part->next = bo->parts;
    bo->parts = part;
    *handle = part->handle;
    return APF_OK;
}

int ocl_part_of(apf_drv_bo *bo, uint64_t offset, uint64_t size, cl_mem *handle, apf_error *err)
{
    apf_drv_device *device = bo->device;
    *handle = bo->handle;
    if (offset == 0) return APF_OK;
    if (!(device->info.capabilities & APF_CAP_OFFSET))
        return apf_fail(err, APF_UNSUPPORTED, 0, "%s: an argument cannot begin inside a buffer (OpenCL 1.0)",
                        device->info.name);
    if (offset % device->info.offset_align)
        return apf_fail(err, APF_MISALIGNED, 0, "%s: offset %llu of an argument; this device takes multiples of %u",
                        device->info.name, (unsigned long long)offset, device->info.offset_align);
    if (!size)
        size = bo->size - offset; /* OpenCL has no parts of zero bytes; the kernel gets the real count as an argument */
    return size ? find_part(bo, offset, size, handle, err) : APF_OK;
}

static void free_parts(apf_drv_bo *bo, ocl_part **from)
{
    while (*from) {
        ocl_part *part = *from;
        *from = part->next;
        bo->device->api->clReleaseMemObject(part->handle); /* commands that use it keep it */
        apf_free(part);
    }
}

void ocl_trim_parts(apf_drv_bo *bo)
{
    enum { KEEP = 32 };
    ocl_part **link = &bo->parts;
    for (int i = 0; i < KEEP && *link; i++) link = &(*link)->next;
    free_parts(bo, link);
}

void ocl_free(apf_drv_bo *bo)
{
    apf_drv_device *device = bo->device;
    for (int i = 0; i < OCL_MAX_QUEUES; i++)
        if (bo->last[i]) device->api->clReleaseEvent(bo->last[i]);
    free_parts(bo, &bo->parts);
    device->api->clReleaseMemObject(bo->handle);
    __atomic_sub_fetch(&device->counted.memory_used, bo->size, __ATOMIC_RELAXED);
    apf_free(bo);
}

/* Some platforms do DMA by migrating whole memory objects: possible if the range is a whole object. */
static int migratable(const apf_drv_bo *bo, uint64_t offset, uint64_t size)
{
    const apf_drv_device *device = bo->device;
    return device->migrates && ((offset == 0 && size == bo->size) || offset % device->info.offset_align == 0);
}

/* Count a transfer, or return why it was refused. */
static int moved(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, cl_int status, apf_error *err)
{
    apf_drv_device *device = bo->device;
    const int to = direction == APF_TO_DEVICE;
    if (status != CL_SUCCESS)
        return ocl_fail(device, err, status, APF_IO, "moving bytes %llu to %llu of a buffer of %llu %s the device",
                        (unsigned long long)offset, (unsigned long long)(offset + size), (unsigned long long)bo->size,
                        to ? "to" : "from");
    __atomic_add_fetch(to ? &device->counted.to_device : &device->counted.from_device, size, __ATOMIC_RELAXED);
    return APF_OK;
}

int ocl_enqueue_dma(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, cl_uint count, const cl_event *after,
                    cl_event *event, apf_error *err)
{
    apf_drv_device *device = bo->device;
    const ocl_api *api = device->api;
    const int to = direction == APF_TO_DEVICE;
    /* Reading and writing a CL_MEM_USE_HOST_PTR buffer at its own host address is specified for exactly this (notes of
     * clEnqueueWriteBuffer): platforms that share the memory do nothing, the others DMA between the two sides. A map
     * and an unmap would be two commands, and a map for writing may first overwrite the host's side. */
    if (!migratable(bo, offset, size))
        return ocl_enqueue_copy(bo, direction, offset, bo->data + offset, size, count, after, event, err);
    cl_mem handle = bo->handle;
    int code = offset || size != bo->size ? find_part(bo, offset, size, &handle, err) : APF_OK;
    if (code != APF_OK) return code;
    const cl_int status =
        api->clEnqueueMigrateMemObjects(device->queues[to ? OCL_TO : OCL_FROM], 1, &handle,
                                        to ? 0 : CL_MIGRATE_MEM_OBJECT_HOST, count, count ? after : NULL, event);
    return moved(bo, direction, offset, size, status, err);
}

int ocl_fills(const apf_drv_device *device) { return device->version >= 12 && device->api->clEnqueueFillBuffer; }

int ocl_enqueue_copy(apf_drv_bo *bo, int direction, uint64_t offset, char *data, uint64_t size, cl_uint count,
                     const cl_event *after, cl_event *event, apf_error *err)
{
    apf_drv_device *device = bo->device;
    const ocl_api *api = device->api;
    const int to = direction == APF_TO_DEVICE;
    cl_command_queue queue = device->queues[to ? OCL_TO : OCL_FROM];
    const cl_event *events = count ? after : NULL;
    static const unsigned char zero = 0;
    cl_int status;
    if (!data)
        status = api->clEnqueueFillBuffer(queue, bo->handle, &zero, 1, offset, size, count, events, event);
    else if (to)
        status = api->clEnqueueWriteBuffer(queue, bo->handle, 0, offset, size, data, count, events, event);
    else
        status = api->clEnqueueReadBuffer(queue, bo->handle, 0, offset, size, data, count, events, event);
    return data || status != CL_SUCCESS ? moved(bo, direction, offset, size, status, err) : APF_OK;
}
