/* xdma.h - shared by the files of the xdma driver. */
#ifndef APF_XDMA_INTERNAL_H
#define APF_XDMA_INTERNAL_H

#include "apyfal.h"
#include "runtime/clock.h"

#define XDMA_CHANNELS 4 /* of one direction; the IP has no more */
#define XDMA_PAGE 4096u
#define XDMA_ARGUMENTS 64
#define XDMA_STRUCT 1024 /* bytes of the largest struct: a definition allows no more */

/* One character device that moves data in one direction; calls on it serialize in the kernel anyway. */
typedef struct xdma_channel {
    int fd;
    char name[64];
    pthread_mutex_t lock;
} xdma_channel;

typedef struct xdma_direction {
    xdma_channel channels[XDMA_CHANNELS];
    uint32_t count;
    uint32_t next; /* the channel to try first; atomic */
} xdma_direction;

/* Threads that move the slices of large transfers. */
typedef struct xdma_workers {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct xdma_slice *waiting;
    pthread_t threads[2 * XDMA_CHANNELS];
    uint32_t count, idle;
    int stopping;
} xdma_workers;

/* A free range of device memory. */
typedef struct xdma_range {
    uint64_t address, size;
    struct xdma_range *next; /* the next higher one, never adjacent */
} xdma_range;

typedef struct xdma_options {
    char root[256];      /* where the device nodes are */
    char user[256];      /* register node; empty: NAME_user */
    char registers[512]; /* NAME:OFFSET[:buffer|32|64], ... */
    uint64_t base, memory;
    uint64_t control; /* where the kernel's registers begin */
    uint64_t align;   /* 0: ask the device */
    uint64_t channels;
    int64_t events; /* number of the interrupt node; -1: poll */
    int chain;      /* ap_ctrl_chain */
    int by_call;    /* registers by pread and pwrite, not mmap */
} xdma_options;

struct apf_drv_device {
    xdma_options options;
    apf_device_info info;
    uint32_t align;
    xdma_direction directions[2]; /* by APF_TO_DEVICE, APF_FROM_DEVICE */
    xdma_workers workers;
    pthread_mutex_t lock; /* free ranges */
    xdma_range *free;
    int user;                 /* register node; -1: not opened */
    volatile uint8_t *mapped; /* its registers; NULL: by calls */
    uint64_t mapped_size;
    int events;            /* interrupt node; -1: none */
    int kernels;           /* with registers: one at a time; under the lock */
    apf_counters counters; /* changed atomically */
};

struct apf_drv_bo {
    apf_drv_device *device;
    uint8_t *data; /* host side; NULL: none */
    uint64_t size, address, room;
};

/* Type of a register's value. */
enum { XDMA_ANY, XDMA_BUFFER, XDMA_SCALAR_32, XDMA_SCALAR_64, XDMA_BYTES };

typedef struct xdma_register {
    uint64_t offset;
    uint32_t kind;
    uint32_t size; /* bytes of the value; XDMA_ANY: at least */
    uint32_t room; /* bytes up to the next argument's register, at most XDMA_STRUCT */
} xdma_register;

struct apf_drv_kernel {
    apf_drv_device *device;
    char name[128]; /* empty: DMA without a kernel */
    uint32_t count; /* arguments; 0 without a kernel: any number */
    xdma_register *registers;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    apf_drv_run *first, *last; /* not ended, in the order of their starts; the first is in the hardware */
    pthread_t helper;          /* drives while the caller starts more runs */
    int helping, stopping;
    int driving;   /* a thread polls the hardware */
    int64_t usual; /* measured ns of the last run; only the driving thread uses it */
};

/* options.c */
int xdma_options_read(xdma_options *options, const apf_option *given, apf_error *err);
/* Registers of the arguments in `names` (comma-separated), in an array that the caller frees. ARGUMENT, NO_MEMORY. */
int xdma_registers_read(const char *map, const char *names, const char *kernel, xdma_register **registers,
                        uint32_t *count, apf_error *err);

/* dma.c */
int xdma_move(apf_drv_device *device, int direction, uint8_t *data, uint64_t address, uint64_t size, apf_error *err);
void xdma_workers_begin(xdma_workers *workers);
void xdma_workers_end(xdma_workers *workers);
/* DEVICE_LOST if `sys` means that, else `otherwise`. */
int xdma_code(int sys, int otherwise);

/* memory.c */
int xdma_memory_begin(apf_drv_device *device, apf_error *err);
void xdma_memory_end(apf_drv_device *device);
int xdma_bo_alloc(apf_drv_device *device, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err);
int xdma_bo_import(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
                   apf_error *err);
void xdma_bo_free(apf_drv_bo *bo);
int xdma_bo_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err);
int xdma_bo_transfer(apf_drv_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err);

/* registers.c: 4-byte registers of the user BAR */
int xdma_user_open(apf_drv_device *device, uint64_t size, apf_error *err);
void xdma_user_close(apf_drv_device *device);
int xdma_register_get(apf_drv_device *device, uint64_t offset, uint32_t *value, apf_error *err);
int xdma_register_put(apf_drv_device *device, uint64_t offset, uint32_t value, apf_error *err);

/* kernel.c: the handshake of HLS kernels */
int xdma_kernel_prepare(apf_drv_kernel *kernel, apf_error *err);
/* Whether a number or an address fills two registers. */
int xdma_is_wide(const apf_arg *arg, const xdma_register *at);
int xdma_kernel_go(apf_drv_kernel *kernel, const apf_arg *args, apf_error *err);
/* Poll the run that was `started` until it has ended (then *ended is the time) or the deadline has passed (negative:
 * none). Times are in ns of CLOCK_MONOTONIC. IO, DEVICE_LOST. */
int xdma_kernel_watch(apf_drv_kernel *kernel, int64_t started, int64_t deadline, int64_t *ended, apf_error *err);

/* run.c */
int xdma_run_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **run, apf_error *err);
int xdma_run_wait(apf_drv_run *run, int64_t timeout, apf_error *err);
int xdma_run_cancel(apf_drv_run *run, apf_error *err);
void xdma_run_release(apf_drv_run *run);
void xdma_run_times(apf_drv_run *run, apf_times *times);
/* End the helper and free the runs that never ended. */
void xdma_runs_end(apf_drv_kernel *kernel);

#endif
