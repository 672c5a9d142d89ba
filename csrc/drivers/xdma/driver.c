/* FPGA cards with Xilinx's XDMA or QDMA subsystem, through the character devices of dma_ip_drivers: discovery, open,
 * and the driver's table. Transfers are in dma.c, memory in memory.c, kernels in kernel.c and run.c.
 *
 * Nodes: /dev/xdma0_h2c_0, xdma0_c2h_0, xdma0_user, xdma0_events_0; /dev/qdma01000-MM-0 (both directions).
 */
#include "driver_support.h"
#include "xdma.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MOST_DEVICES 64
#define ALIGN_GET _IOR('q', 6, int) /* IOCTL_XDMA_ALIGN_GET */
#define DEFAULT_ALIGN 64            /* the widest data path of the IP, 512 bits */

/* The identifier of a DMA channel in the IP's own registers (AMD's PG195, "Channel Identifier"): channels to the card
 * begin at 0x0000, those from it at 0x1000. */
#define FROM_CHANNELS 0x1000
#define IS_CHANNEL(identifier) ((identifier) >> 20 == 0x1fc)
#define IS_STREAM(identifier) ((identifier) & 0x8000)

/* -- discovery -- */

/* The device that a node belongs to, if it is the node that identifies devices. */
static int device_of(const char *node, char *device, size_t size)
{
    int end = 0;
    unsigned number;
    if (sscanf(node, "xdma%u_h2c_0%n", &number, &end) == 1 && end && !node[end]) {
        snprintf(device, size, "xdma%u", number);
        return 1;
    }
    if (sscanf(node, "qdma%*[0-9a-f]-MM-%u%n", &number, &end) == 1 && end && !node[end]) {
        snprintf(device, size, "%.*s", (int)strcspn(node, "-"), node);
        return 1;
    }
    return 0;
}

/* XDMA before QDMA, whose queues an administrator must set up first. */
static int by_name(const void *a, const void *b)
{
    const int kinds = *(const char *)b - *(const char *)a;
    return kinds ? kinds : strcmp(a, b);
}

/* Names of the devices in `root`, sorted; returns how many. */
static uint32_t find_devices(const char *root, char names[MOST_DEVICES][64])
{
    uint32_t count = 0;
    DIR *directory = opendir(root);
    if (!directory) return 0;
    for (const struct dirent *entry; count < MOST_DEVICES && (entry = readdir(directory));) {
        char name[64];
        if (!device_of(entry->d_name, name, sizeof name)) continue;
        uint32_t i = 0;
        while (i < count && strcmp(names[i], name) != 0) i++;
        if (i == count) strcpy(names[count++], name);
    }
    closedir(directory);
    qsort(names, count, sizeof *names, by_name);
    return count;
}

static void describe_name(const xdma_options *options, const char *name, apf_device_info *info)
{
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "%s", name);
    snprintf(info->vendor, sizeof info->vendor, "AMD");
    snprintf(info->identity, sizeof info->identity, "%s", name);
    snprintf(info->version, sizeof info->version, "%.4s", name);
    info->memory = options->memory;
    info->max_buffer = options->memory;
    info->import_align = options->align ? (uint32_t)options->align : DEFAULT_ALIGN;
    info->size_align = 1;
    info->offset_align = DEFAULT_ALIGN;
    info->capabilities =
        APF_CAP_IMPORT | APF_CAP_OFFSET | APF_CAP_COUNTERS | APF_CAP_DUPLEX | APF_CAP_SEPARATE_MEMORY | APF_CAP_STRUCTS;
    info->compute_units = 1;
}

static int xdma_list(const apf_option *given, apf_device_info *infos, uint32_t capacity, uint32_t *count,
                     apf_error *err)
{
    xdma_options options;
    char names[MOST_DEVICES][64];
    *count = 0;
    const int code = xdma_options_read(&options, given, err);
    if (code != APF_OK) return code;
    *count = find_devices(options.root, names);
    for (uint32_t i = 0; i < *count && i < capacity; i++) describe_name(&options, names[i], &infos[i]);
    return APF_OK;
}

static int select_device(const xdma_options *options, const char *selector, char name[64], apf_error *err)
{
    char names[MOST_DEVICES][64], all[MOST_DEVICES * 66] = "";
    size_t used = 0;
    const uint32_t count = find_devices(options->root, names);
    for (uint32_t i = 0; i < count; i++) {
        apf_device_info info;
        describe_name(options, names[i], &info);
        if (apf_support_selects(selector, i, &info)) {
            strcpy(name, names[i]);
            return APF_OK;
        }
        used += (size_t)snprintf(all + used, sizeof all - used, "%s%.63s", i ? ", " : "", names[i]);
    }
    return apf_fail(err, APF_NO_DEVICE, 0, "no XDMA or QDMA device '%s' in %s; there is: %s",
                    selector && *selector ? selector : "0", options->root,
                    count ? all : "none (is the kernel module loaded? QDMA's streaming queues, -ST-, are not used)");
}

/* -- open -- */

static void close_channels(apf_drv_device *device)
{
    for (int direction = 0; direction < 2; direction++) {
        xdma_direction *channels = &device->directions[direction];
        for (uint32_t i = 0; i < channels->count; i++) {
            close(channels->channels[i].fd);
            pthread_mutex_destroy(&channels->channels[i].lock);
        }
    }
}

/* Open channel `number` of one direction. Returns 0 or an errno. */
static int open_channel(apf_drv_device *device, int direction, unsigned number)
{
    xdma_direction *channels = &device->directions[direction];
    xdma_channel *channel = &channels->channels[channels->count];
    char path[512];
    if (device->info.name[0] == 'q')
        snprintf(channel->name, sizeof channel->name, "%.32s-MM-%u", device->info.name, number);
    else
        snprintf(channel->name, sizeof channel->name, "%.32s_%s_%u", device->info.name,
                 direction == APF_TO_DEVICE ? "h2c" : "c2h", number);
    snprintf(path, sizeof path, "%s/%s", device->options.root, channel->name);
    channel->fd = open(path, O_RDWR | O_CLOEXEC);
    if (channel->fd < 0) return errno;
    pthread_mutex_init(&channel->lock, NULL);
    channels->count++;
    return 0;
}

static int open_channels(apf_drv_device *device, apf_error *err)
{
    static const char *const words[] = {"to", "from"};
    for (int direction = 0; direction < 2; direction++) {
        int sys = ENOENT;
        /* The administrator chooses the numbers of QDMA's queues. */
        const unsigned most = device->info.name[0] == 'q' ? 2048 : (unsigned)device->options.channels;
        for (unsigned i = 0; i < most && device->directions[direction].count < device->options.channels; i++) {
            const int failed = open_channel(device, direction, i);
            if (failed && failed != ENOENT) sys = failed;
        }
        if (device->directions[direction].count) continue;
        const int code = sys == EACCES || sys == EPERM ? APF_PERMISSION : sys == EBUSY ? APF_BUSY : APF_NO_DEVICE;
        return apf_fail(err, code, sys, "cannot open a channel %s '%s' in %s", words[direction], device->info.name,
                        device->options.root);
    }
    return APF_OK;
}

/* Streams (AXI4-Stream) have no addresses, and would ignore any that is given. All channels of a card are of one kind,
 * which only the IP's registers report. If they cannot be read, nothing is checked. */
static int refuse_streams(const apf_drv_device *device, apf_error *err)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%.32s_control", device->options.root, device->info.name);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return APF_OK;
    int streams = 0;
    for (int direction = 0; direction < 2; direction++) {
        uint32_t identifier = 0;
        if (pread(fd, &identifier, sizeof identifier, direction == APF_TO_DEVICE ? 0 : FROM_CHANNELS) ==
            (ssize_t)sizeof identifier)
            streams |= IS_CHANNEL(identifier) && IS_STREAM(identifier);
    }
    close(fd);
    if (!streams) return APF_OK;
    return apf_fail(err, APF_UNSUPPORTED, 0,
                    "the channels of '%s' are streams (AXI4-Stream); expected memory-mapped ones (AXI4)",
                    device->info.name);
}

static void find_align(apf_drv_device *device)
{
    int align = 0;
    device->align = device->info.import_align;
    if (device->options.align) return;
    if (ioctl(device->directions[APF_TO_DEVICE].channels[0].fd, ALIGN_GET, &align) == 0 && align > 0 &&
        align <= (int)XDMA_PAGE && !(align & (align - 1)))
        device->align = device->info.import_align = (uint32_t)align;
    if (device->align > device->info.offset_align) device->info.offset_align = device->align;
}

static int open_events(apf_drv_device *device, apf_error *err)
{
    char path[512];
    if (device->options.events < 0) return APF_OK;
    snprintf(path, sizeof path, "%s/%.32s_events_%lld", device->options.root, device->info.name,
             (long long)device->options.events);
    device->events = open(path, O_RDONLY | O_CLOEXEC);
    if (device->events >= 0) return APF_OK;
    return apf_fail(err, errno == EACCES ? APF_PERMISSION : APF_NO_DEVICE, errno, "cannot open %s (xdma.events)", path);
}

static void xdma_close(apf_drv_device *device)
{
    xdma_workers_end(&device->workers);
    close_channels(device);
    if (device->events >= 0) close(device->events);
    xdma_memory_end(device);
    pthread_mutex_destroy(&device->lock);
    apf_free(device);
}

static int xdma_open(const char *selector, const apf_option *given, apf_drv_device **opened, apf_error *err)
{
    xdma_options options;
    char name[64];
    int code = xdma_options_read(&options, given, err);
    if (code == APF_OK) code = select_device(&options, selector, name, err);
    if (code != APF_OK) return code;
    apf_drv_device *device = apf_calloc(1, sizeof *device);
    if (!device) return apf_fail(err, APF_NO_MEMORY, 0, "no memory to open '%s'", name);
    device->options = options;
    device->user = device->events = -1;
    describe_name(&options, name, &device->info);
    pthread_mutex_init(&device->lock, NULL);
    xdma_workers_begin(&device->workers);
    code = xdma_memory_begin(device, err);
    if (code == APF_OK) code = open_channels(device, err);
    if (code == APF_OK) code = refuse_streams(device, err);
    if (code == APF_OK) code = open_events(device, err);
    if (code != APF_OK) {
        xdma_close(device);
        return code;
    }
    find_align(device);
    *opened = device;
    return APF_OK;
}

static int xdma_describe(apf_drv_device *device, apf_device_info *info, apf_error *err)
{
    (void)err;
    *info = device->info;
    return APF_OK;
}

/* -- kernels -- */

static uint64_t register_space(const apf_drv_kernel *kernel)
{
    uint64_t end = 0x10;
    for (uint32_t i = 0; i < kernel->count; i++) {
        const uint64_t size = kernel->registers[i].size > 8 ? (kernel->registers[i].size + 3u) & ~3u : 8;
        if (kernel->registers[i].offset + size > end) end = kernel->registers[i].offset + size;
    }
    return kernel->device->options.control + end;
}

static void xdma_unload(apf_drv_kernel *kernel)
{
    apf_drv_device *device = kernel->device;
    xdma_runs_end(kernel);
    if (*kernel->name) {
        pthread_mutex_lock(&device->lock);
        device->kernels = 0;
        xdma_user_close(device);
        pthread_mutex_unlock(&device->lock);
    }
    pthread_mutex_destroy(&kernel->lock);
    pthread_cond_destroy(&kernel->changed);
    apf_free(kernel->registers);
    apf_free(kernel);
}

/* Open the registers for this kernel. */
static int open_registers(apf_drv_kernel *kernel, apf_error *err)
{
    apf_drv_device *device = kernel->device;
    pthread_mutex_lock(&device->lock);
    int code = APF_OK;
    if (device->kernels)
        code = apf_fail(err, APF_BUSY, 0, "'%s' already has a kernel; its register map is for one", device->info.name);
    if (code == APF_OK) code = xdma_user_open(device, register_space(kernel), err);
    if (code == APF_OK && (code = xdma_kernel_prepare(kernel, err)) != APF_OK) xdma_user_close(device);
    if (code == APF_OK) device->kernels = 1;
    pthread_mutex_unlock(&device->lock);
    return code;
}

static int xdma_load(apf_drv_device *device, const apf_program *program, apf_drv_kernel **loaded, apf_error *err)
{
    if (program->data)
        return apf_fail(err, APF_PROGRAM, 0,
                        "the xdma driver cannot load '%s': the card is programmed before, with AMD's tools",
                        program->name ? program->name : "a program");
    apf_drv_kernel *kernel = apf_calloc(1, sizeof *kernel);
    if (!kernel) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a kernel");
    const char *name = program->kernel ? program->kernel : "";
    int code = APF_OK;
    if (*name && !*device->options.registers)
        code = apf_fail(err, APF_NOT_FOUND, 0, "kernel '%s' needs a register map: xdma.registers = NAME:OFFSET, ...",
                        name);
    else if (*name)
        code = xdma_registers_read(device->options.registers, program->arguments, name, &kernel->registers,
                                   &kernel->count, err);
    kernel->device = device;
    pthread_mutex_init(&kernel->lock, NULL);
    apf_cond_init(&kernel->changed);
    if (code == APF_OK && *name) {
        code = open_registers(kernel, err);
        if (code == APF_OK) snprintf(kernel->name, sizeof kernel->name, "%s", name);
    }
    if (code != APF_OK) {
        xdma_unload(kernel);
        return code;
    }
    *loaded = kernel;
    return APF_OK;
}

static int xdma_bank(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err)
{
    if (*kernel->name && index >= kernel->count)
        return apf_fail(err, APF_ARGUMENT, 0, "'%s' has %u arguments; there is no number %u", kernel->name,
                        kernel->count, index);
    *bank = 0;
    return APF_OK;
}

static int xdma_counters(apf_drv_device *device, apf_counters *counters, apf_error *err)
{
    (void)err;
    apf_support_counters(&device->counters, counters);
    return APF_OK;
}

const apf_driver apf_driver_xdma = {
    .abi = APF_DRIVER_ABI,
    .size = sizeof(apf_driver),
    .name = "xdma",
    .summary = "cards with Xilinx XDMA or QDMA, through dma_ip_drivers",
    .list = xdma_list,
    .open = xdma_open,
    .describe = xdma_describe,
    .close = xdma_close,
    .load = xdma_load,
    .unload = xdma_unload,
    .bank = xdma_bank,
    .alloc = xdma_bo_alloc,
    .import = xdma_bo_import,
    .free = xdma_bo_free,
    .sync = xdma_bo_sync,
    .start = xdma_run_start,
    .wait = xdma_run_wait,
    .cancel = xdma_run_cancel,
    .release = xdma_run_release,
    .times = xdma_run_times,
    .counters = xdma_counters,
    .transfer = xdma_bo_transfer,
};
