/* List the OpenCL devices, with the alignment and memory rules of each. */
#include "opencl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void platform_text(const ocl_api *api, cl_platform_id platform, cl_uint what, char *text, size_t size)
{
    memset(text, 0, size);
    char full[1024] = "";
    if (api->clGetPlatformInfo(platform, what, sizeof full, full, NULL) == CL_SUCCESS)
        snprintf(text, size, "%.*s", (int)size - 1, full);
}

static void device_text(const ocl_api *api, cl_device_id device, cl_uint what, char *text, size_t size)
{
    memset(text, 0, size);
    char full[1024] = "";
    if (api->clGetDeviceInfo(device, what, sizeof full, full, NULL) == CL_SUCCESS)
        snprintf(text, size, "%.*s", (int)size - 1, full + strspn(full, " "));
}

/* "OpenCL 1.2 ..." -> 12 */
static uint32_t platform_version(const ocl_api *api, cl_platform_id platform)
{
    char text[64];
    unsigned major = 1, minor = 0;
    platform_text(api, platform, CL_PLATFORM_VERSION, text, sizeof text);
    if (sscanf(text, "OpenCL %u.%u", &major, &minor) != 2) return 10;
    return major * 10 + minor;
}

static uint32_t add_platform(const ocl_api *api, cl_platform_id platform, const char *wanted, ocl_found *found,
                             uint32_t count)
{
    ocl_found one = {.platform = platform, .version = platform_version(api, platform)};
    platform_text(api, platform, CL_PLATFORM_NAME, one.platform_name, sizeof one.platform_name);
    if (wanted && !strcasestr(one.platform_name, wanted)) return count;
    cl_device_id devices[OCL_MAX_DEVICES];
    cl_uint present = 0;
    /* CL_DEVICE_NOT_FOUND is the normal answer of a vendor's library if its card is not in this machine. */
    if (api->clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, OCL_MAX_DEVICES, devices, &present) != CL_SUCCESS)
        return count;
    if (present > OCL_MAX_DEVICES) present = OCL_MAX_DEVICES;
    for (cl_uint i = 0; i < present && count < OCL_MAX_DEVICES; i++) {
        one.device = devices[i];
        one.index = count;
        one.sibling = i;
        found[count++] = one;
    }
    return count;
}

int ocl_discover(const ocl_api *api, const char *platform, ocl_found *found, uint32_t *count, apf_error *err)
{
    enum { MOST = 64 };
    cl_platform_id platforms[MOST];
    cl_uint present = 0;
    *count = 0;
    cl_int status = api->clGetPlatformIDs(MOST, platforms, &present);
    if (status == CL_PLATFORM_NOT_FOUND_KHR || (status == CL_SUCCESS && !present)) {
        const char *vendors = getenv("OCL_ICD_VENDORS");
        return apf_fail(err, APF_NO_LIBRARY, 0,
                        "no OpenCL platform is registered in %s: install the device's own OpenCL (an ICD)",
                        vendors && *vendors ? vendors : "/etc/OpenCL/vendors");
    }
    if (status != CL_SUCCESS) return ocl_fail(NULL, err, status, APF_NO_LIBRARY, "clGetPlatformIDs");
    if (present > MOST) present = MOST;
    for (cl_uint i = 0; i < present; i++) *count = add_platform(api, platforms[i], platform, found, *count);
    return APF_OK;
}

static uint64_t device_number(const ocl_api *api, cl_device_id device, cl_uint what, size_t size)
{
    union {
        cl_uint word;
        cl_ulong number;
    } value = {.number = 0};
    if (api->clGetDeviceInfo(device, what, size, &value, NULL) != CL_SUCCESS) return 0;
    return size == sizeof value.word ? value.word : value.number;
}

/* Xilinx: 4 KiB, or the runtime keeps a shadow copy. Intel's FPGA cards DMA from addresses that are multiples of 64.
 * Other platforms: the alignment that the platform states for its buffers, at least a cache line. */
static uint32_t import_alignment(const ocl_found *found, const apf_device_info *info, uint32_t base)
{
    if (ocl_migrates(found, info)) return 4096;
    if (strcasestr(found->platform_name, "FPGA") && strcasestr(info->vendor, "Intel")) return 64;
    return base < 64 ? 64 : base;
}

int ocl_migrates(const ocl_found *found, const apf_device_info *info)
{
    return strcasestr(found->platform_name, "Xilinx") != NULL || strcasestr(info->vendor, "Xilinx") != NULL;
}

void ocl_describe(const ocl_api *api, const ocl_found *found, apf_device_info *info)
{
    cl_device_id device = found->device;
    memset(info, 0, sizeof *info);
    device_text(api, device, CL_DEVICE_NAME, info->name, sizeof info->name);
    device_text(api, device, CL_DEVICE_VENDOR, info->vendor, sizeof info->vendor);
    device_text(api, device, CL_DRIVER_VERSION, info->version, sizeof info->version);
    cl_device_pci_bus_info_khr bus;
    if (api->clGetDeviceInfo(device, CL_DEVICE_PCI_BUS_INFO_KHR, sizeof bus, &bus, NULL) == CL_SUCCESS)
        snprintf(info->identity, sizeof info->identity, "%04x:%02x:%02x.%x", bus.pci_domain, bus.pci_bus,
                 bus.pci_device, bus.pci_function);
    else
        snprintf(info->identity, sizeof info->identity, "%.52s:%u", found->platform_name, found->sibling);
    info->memory = device_number(api, device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(cl_ulong));
    info->max_buffer = device_number(api, device, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(cl_ulong));
    uint32_t base = (uint32_t)device_number(api, device, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof(cl_uint)) / 8;
    info->import_align = import_alignment(found, info, base);
    info->size_align = 1;
    info->offset_align = base ? base : 1;
    info->compute_units = 1;
    info->capabilities = APF_CAP_IMPORT | APF_CAP_COUNTERS | APF_CAP_DUPLEX | APF_CAP_STRUCTS;
    if (found->version >= 11) info->capabilities |= APF_CAP_OFFSET;
    /* If the device uses host memory directly, no pinning for writing is needed. */
    if (device_number(api, device, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof(cl_uint)) && !ocl_migrates(found, info))
        info->capabilities |= APF_CAP_IMPORT_READONLY;
    else
        info->capabilities |= APF_CAP_SEPARATE_MEMORY;
}
