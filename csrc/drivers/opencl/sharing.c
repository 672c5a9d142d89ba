/* Find out whether the device works directly in imported memory. Transfers are then not needed. This is so for
 * emulators. Platforms do not report it, but it can be measured. */
#include "opencl.h"

#include <sched.h>
#include <string.h>

enum { PAGE = 4096 };

/* Wait for the command with a time limit and return whether it succeeded. This is not a blocking call: Intel's emulator
 * has returned from one before the bytes were there, and a blocking call has no time limit. */
static int finished(const apf_drv_device *device, int queue, cl_event event, int *abandoned)
{
    const int64_t deadline = apf_deadline(1000000000);
    cl_int status = 1;
    device->api->clFlush(device->queues[queue]);
    while (!device->api->clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL) &&
           status > CL_COMPLETE && apf_now() < deadline)
        sched_yield();
    device->api->clReleaseEvent(event);
    *abandoned |= status > CL_COMPLETE;
    return status == CL_COMPLETE;
}

/* True if a write to the buffer appears at its host address, and a write at the host address appears in the buffer,
 * without a call to the platform. */
static int seen_from_both_sides(const apf_drv_device *device, cl_mem buffer, unsigned char *host, unsigned char *other,
                                int value, int *abandoned)
{
    const ocl_api *api = device->api;
    cl_event event;
    memset(other, value, PAGE);
    if (api->clEnqueueWriteBuffer(device->queues[OCL_TO], buffer, 0, 0, PAGE, other, 0, NULL, &event)) return 0;
    if (!finished(device, OCL_TO, event, abandoned) || memcmp(host, other, PAGE) != 0) return 0;
    memset(host, ~value, PAGE);
    if (api->clEnqueueReadBuffer(device->queues[OCL_FROM], buffer, 0, 0, PAGE, other, 0, NULL, &event)) return 0;
    return finished(device, OCL_FROM, event, abandoned) && memcmp(host, other, PAGE) == 0;
}

int ocl_probe_sharing(const apf_drv_device *device)
{
    const ocl_api *api = device->api;
    cl_bitfield type = 0;
    cl_uint unified = 0;
    api->clGetDeviceInfo(device->id, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    api->clGetDeviceInfo(device->id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof unified, &unified, NULL);
    /* A GPU in the processor has the same memory, but only the platform can keep its caches coherent. */
    if (!unified || type & CL_DEVICE_TYPE_GPU || device->migrates) return 0;
    unsigned char *memory = apf_calloc(3, PAGE);
    if (!memory) return 0;
    unsigned char *host = memory + (PAGE - (uintptr_t)memory % PAGE) % PAGE;
    int shares = 0, abandoned = 0;
    cl_int status;
    cl_mem buffer = api->clCreateBuffer(device->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, PAGE, host, &status);
    if (status == CL_SUCCESS) {
        /* Twice, since a buffer may take its first contents from the host when it is first used. */
        shares = seen_from_both_sides(device, buffer, host, host + PAGE, 0x5a, &abandoned) &&
                 seen_from_both_sides(device, buffer, host, host + PAGE, 0x01, &abandoned);
        api->clReleaseMemObject(buffer);
    }
    if (!abandoned) apf_free(memory); /* otherwise the platform may still write there */
    return shares;
}
