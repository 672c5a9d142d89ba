/* xrt.h - shared by the files of the xrt driver. */
#ifndef APF_XRT_INTERNAL_H
#define APF_XRT_INTERNAL_H

#include "api/api.h"
#include "api/xclbin.h"
#include "runtime/clock.h"

#define XRT_OFFSET_ALIGN 64u /* of arguments in buffer objects: the widest AXI port has 512 bits */

struct apf_drv_device {
    const xrt_api *xrt;
    xrt_device handle;
    apf_device_info info;
    pthread_mutex_t lock;      /* the loaded xclbin: the next two */
    unsigned kernels;          /* open in it */
    xrt_xclbin xclbin;         /* uuid and banks; its data is freed */
    apf_drv_run *abandoned;    /* runs that never ended, closed with the device; under the lock */
    apf_counters counters;     /* changed atomically */
    pthread_mutex_t order;     /* of the runs: the rest, and their phases */
    pthread_cond_t moved;      /* a phase or claim has changed */
    apf_drv_run *first, *last; /* not ended, in the order of their starts */
    apf_drv_device *next;      /* open; exit.c's */
    pthread_t helper;          /* transfers results while the caller starts more runs */
    int helping, stopping;
};

struct apf_drv_kernel {
    apf_drv_device *device;
    xrt_kernel handle;
    char name[128];
    uint32_t count;
    xrt_parameter *parameters;
    pthread_mutex_t lock;
    apf_drv_run *idle; /* ended runs, for the next start; under the lock */
    uint32_t idle_count;
};

/* Part of a buffer object from `offset` on, as an argument. Stays with the object while it is used or recent. */
typedef struct xrt_part {
    xrt_bo handle;
    uint64_t offset;
    uint64_t identity; /* unique in the process, unlike handles */
    uint32_t users;    /* runs */
    struct xrt_part *next;
} xrt_part;

struct apf_drv_bo {
    apf_drv_device *device;
    uint64_t size;
    uint8_t *data;   /* the caller's memory; NULL: none */
    uint8_t *mapped; /* memory of a host-only object, owned by XRT; otherwise NULL */
    int device_only; /* no host side */
    xrt_part whole;  /* users is not counted */
    xrt_part *parts; /* with other offsets; under the lock */
    pthread_mutex_t lock;
};

/* What an argument of XRT's run was last set to: identity of a part, or a scalar's bits. */
typedef struct xrt_setting {
    uint64_t value;
    uint32_t kind;
    int set;
} xrt_setting;

/* A buffer argument of the current start. */
typedef struct xrt_held {
    apf_drv_bo *bo;
    xrt_part *part; /* NULL: none, or ended */
    uint64_t offset;
    uint64_t size;
    uint32_t flags;
} xrt_held;

/* Idle runs are in their kernel's list. From start on:
 *   deferred  an earlier run uses the same memory; not yet given to XRT
 *   started   XRT has it
 *   ended     its results are transferred, or failed; no longer in the device's order
 * The thread that claims a run moves it to the next phase; the lock is released meanwhile. */
enum { XRT_DEFERRED, XRT_STARTED, XRT_ENDED };

struct apf_drv_run {
    apf_drv_kernel *kernel;
    xrt_run handle;
    apf_drv_run *next;            /* idle or abandoned: in a list */
    apf_drv_run *later, *earlier; /* in the device's order */
    int phase, claimed, abandoned;
    uint64_t results; /* bytes to bring back */
    int code;         /* ended: how */
    apf_error error;
    pthread_mutex_t lock; /* of the next three */
    int aborting;         /* abort was asked for */
    int abort_running;    /* a thread is calling it */
    pthread_cond_t abort_ended;
    xrt_setting *settings; /* kernel->count of them; the next has as many */
    xrt_held *held;
};

/* buffer.c */
int xrt_bo_alloc(apf_drv_device *device, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err);
int xrt_bo_import(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
                  apf_error *err);
void xrt_bo_free(apf_drv_bo *bo);
int xrt_bo_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err);
/* The part from `offset` on, used until xrt_part_leave. */
int xrt_part_use(apf_drv_bo *bo, uint64_t offset, xrt_part **part, apf_error *err);
void xrt_part_leave(apf_drv_bo *bo, xrt_part *part);
/* Buffer objects are made and freed under one lock: XRT's emulation shims are not thread-safe there (2.13), and each
 * run has a hidden one. */
void xrt_objects_lock(void);
void xrt_objects_unlock(void);

/* arguments.c */
/* Check argument `index` against what the xclbin says, before it is used. ARGUMENT. */
int xrt_argument_check(const apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err);
/* Set a scalar that was checked; as xrtRunSetArg. */
int xrt_scalar_set(const apf_drv_kernel *kernel, xrt_run run, uint32_t index, const apf_arg *arg);

/* run.c */
int xrt_run_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **run, apf_error *err);
void xrt_run_release(apf_drv_run *run);
void xrt_run_times(apf_drv_run *run, apf_times *times);
/* Move the data of the arguments with `flag`. */
int xrt_held_sync(const apf_drv_run *run, uint32_t flag, int direction, apf_error *err);
void xrt_held_leave(apf_drv_run *run);
/* Close a list of runs. */
void xrt_runs_close(const xrt_api *xrt, apf_drv_run *runs);

/* order.c */
/* Append a run to the device's order, and start it unless it must wait for an earlier one. */
int xrt_order_enter(apf_drv_run *run, apf_error *err);
int xrt_run_wait(apf_drv_run *run, int64_t timeout, apf_error *err);
/* End the helper of a device without runs. */
void xrt_order_end(apf_drv_device *device);
/* If XRT does not have the run, or no longer has it: remove it from the order and return true. */
int xrt_order_leave(apf_drv_run *run);

/* If XRT does not have the run yet: end it as cancelled and return true. */
int xrt_order_cancel(apf_drv_run *run);

/* exit.c */
void xrt_exit_watch(apf_drv_device *device);
/* Before the device is closed: close its abandoned runs, or keep them. */
void xrt_exit_forget(apf_drv_device *device);

/* state.c */
#define XRT_RESET "; if the card stays so, reset it (xbutil reset, or xrt-smi reset)"
int xrt_state_ended(int state);
/* Wait for an end state until `deadline` (ns, negative: for ever); returns the last state. */
int xrt_state_wait(const xrt_api *xrt, xrt_run handle, int64_t deadline);
/* Convert an end state to an error code. */
int xrt_state_code(apf_drv_run *run, int state, apf_error *err);
int xrt_run_cancel(apf_drv_run *run, apf_error *err);

#endif
