/* The user BAR: 32-bit registers, mapped or one pread or pwrite of 4 bytes each. */
#include "xdma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int xdma_user_open(apf_drv_device *device, uint64_t size, apf_error *err)
{
    char path[600];
    if (*device->options.user)
        snprintf(path, sizeof path, "%s", device->options.user);
    else
        snprintf(path, sizeof path, "%s/%s_user", device->options.root, device->info.identity);
    device->user = open(path, O_RDWR | O_CLOEXEC);
    if (device->user < 0) {
        const int code = errno == EACCES || errno == EPERM ? APF_PERMISSION : xdma_code(errno, APF_NO_DEVICE);
        return apf_fail(err, code, errno, "cannot open the registers of '%s', %s (xdma.user)", device->info.name, path);
    }
    if (device->options.by_call) return APF_OK;
    device->mapped_size = (size + XDMA_PAGE - 1) & ~(uint64_t)(XDMA_PAGE - 1);
    void *mapped = mmap(NULL, device->mapped_size, PROT_READ | PROT_WRITE, MAP_SHARED, device->user, 0);
    device->mapped = mapped == MAP_FAILED ? NULL : mapped; /* some drivers' nodes cannot be mapped */
    return APF_OK;
}

void xdma_user_close(apf_drv_device *device)
{
    if (device->mapped) munmap((void *)(uintptr_t)device->mapped, device->mapped_size);
    if (device->user >= 0) close(device->user);
    device->mapped = NULL;
    device->user = -1;
}

int xdma_register_get(apf_drv_device *device, uint64_t offset, uint32_t *value, apf_error *err)
{
    if (device->mapped) {
        *value = *(volatile uint32_t *)(device->mapped + offset);
        return APF_OK;
    }
    errno = 0;
    if (pread(device->user, value, sizeof *value, (off_t)offset) == (ssize_t)sizeof *value) return APF_OK;
    const int sys = errno ? errno : EIO;
    return apf_fail(err, xdma_code(sys, APF_IO), sys, "cannot read register %#llx of '%s'", (unsigned long long)offset,
                    device->info.name);
}

int xdma_register_put(apf_drv_device *device, uint64_t offset, uint32_t value, apf_error *err)
{
    if (device->mapped) {
        *(volatile uint32_t *)(device->mapped + offset) = value;
        return APF_OK;
    }
    errno = 0;
    if (pwrite(device->user, &value, sizeof value, (off_t)offset) == (ssize_t)sizeof value) return APF_OK;
    const int sys = errno ? errno : EIO;
    return apf_fail(err, xdma_code(sys, APF_IO), sys, "cannot write register %#llx of '%s'", (unsigned long long)offset,
                    device->info.name);
}
