/* opencl.h - shared by the files of the OpenCL driver. No other file includes it.
 *
 * Locks: a device's `submit` orders the starts of runs, so that a buffer object's `last` holds the commands that were
 * enqueued before. A run's lock is taken inside `submit` or without it; `submit` is never taken under a run's lock.
 */
#ifndef OPENCL_DRIVER_H
#define OPENCL_DRIVER_H

#include <pthread.h>

#include "api.h"
#include "apyfal.h"
#include "runtime/clock.h"

/* Queues of a device: one a DMA direction and one a compute unit, each in order. */
enum { OCL_TO, OCL_FROM, OCL_COMPUTE, OCL_MAX_UNITS = 16, OCL_MAX_QUEUES = OCL_COMPUTE + OCL_MAX_UNITS };

struct apf_drv_device {
    const ocl_api *api;
    cl_device_id id;
    cl_context context;
    cl_command_queue queues[OCL_MAX_QUEUES];
    uint32_t units;
    uint32_t version; /* of the platform, times 10: 12 is OpenCL 1.2 */
    int migrates;     /* DMA by clEnqueueMigrateMemObjects */
    int shares;       /* the device works in imported memory: no transfer is needed */
    int lost;         /* atomic: the vendor's library reported that the device is gone */
    apf_device_info info;
    char *build;     /* options for programs without options; may be NULL */
    char *cache;     /* directory of built programs; NULL: they are not kept */
    char *builder;   /* what builds them, as text: platform, driver, processor, environment */
    size_t built_by; /* bytes of `builder` */

    pthread_mutex_t submit;
    uint32_t next_unit;

    pthread_mutex_t loading;
    struct ocl_program *programs;

    int64_t unfinished;                 /* atomic: runs whose last command has not ended */
    apf_counters counted;               /* each field changed atomically */
    struct apf_drv_device *next_undead; /* in the list of devices that cannot be closed */
};

/* A built program, shared by the kernels opened in it. */
typedef struct ocl_program {
    struct ocl_program *next;
    cl_program handle;
    uint64_t digest; /* of the bytes and the options */
    size_t size;
    uint32_t refs;
    char *declared; /* what its binary does not tell, from the cache; NULL: the platform tells it */
    size_t declared_size;
} ocl_program;

/* One argument of a kernel, as far as the platform reports it. */
typedef struct ocl_parameter {
    char name[48];
    char type[128];
    uint32_t size; /* of a scalar; 0: unknown, or not a scalar */
    char scalar;   /* 'i' signed, 'u' unsigned, 'f' floating, 's' struct or vector, 'x' any; 0: unknown, or none */
    char space;    /* 'g' global, 'c' constant, 'l' local, 'p' private; 0: unknown */
    char constant; /* the kernel only reads it */
    char object;   /* an image, a sampler or a pipe: neither memory nor a number */
} ocl_parameter;

struct apf_drv_kernel {
    apf_drv_device *device;
    ocl_program *program;
    cl_kernel handle;
    char name[128];
    int global_argument; /* index of the scalar that gives the number of work-items; -1: `global` gives it */
    size_t global;
    uint64_t share;      /* elements for each work-item: the scalar is divided by this */
    size_t local;        /* 0: the platform chooses */
    size_t required[3];  /* work-groups that the source requires; 0: none */
    size_t largest;      /* work-items of a work-group at most; 0: unknown */
    uint64_t local_own;  /* bytes of a work-group's memory: what the source declares, */
    uint64_t local_sum;  /* what the arguments of the last run ask for (under the device's `submit`), */
    uint64_t local_most; /* and what the device has; 0: unknown */
    uint32_t count;
    ocl_parameter parameters[];
};

/* The index space of one run; `local[0]` = 0: the platform chooses the work-groups. */
typedef struct ocl_space {
    cl_uint dimensions;
    size_t offset[3];
    size_t global[3];
    size_t local[3];
} ocl_space;

/* A part of a buffer object, made at first use and kept, because kernels and migrations do not accept offsets. */
typedef struct ocl_part {
    struct ocl_part *next;
    cl_mem handle;
    uint64_t offset;
    uint64_t size;
} ocl_part;

struct apf_drv_bo {
    apf_drv_device *device;
    cl_mem handle;
    char *data; /* host side; NULL: none */
    uint64_t size;
    int readonly;
    /* The rest is under the device's `submit`. */
    ocl_part *parts;
    /* The last command on each queue that uses this memory (retained), which commands on the
     * other queues wait for. `shared`: that command only reads it. */
    cl_event last[OCL_MAX_QUEUES];
    char shared[OCL_MAX_QUEUES];
};

typedef enum ocl_stage { OCL_UPLOAD, OCL_RUN, OCL_DOWNLOAD } ocl_stage;

typedef struct ocl_command {
    cl_event event;
    ocl_stage stage;
    uint32_t argument;
} ocl_command;

struct apf_drv_run {
    apf_drv_device *device;
    const ocl_api *api; /* the device may be freed before the last reference */
    const char *kernel; /* its name, while the run is in flight */
    uint32_t refs;      /* atomic: of the caller, and of the callback until it has run */

    /* Used by the caller's thread. */
    int finished;
    int called_back; /* a callback was asked for */
    int code;
    apf_error error;
    uint64_t enqueued; /* CLOCK_MONOTONIC, when the kernel was enqueued */

    /* Shared with the callback. */
    pthread_mutex_t lock;
    pthread_cond_t done;
    int signalled;
    int abandoned;

    /* Under `submit`. */
    uint32_t bo_count;
    apf_drv_bo **bos;
    uint32_t command_count;
    ocl_command commands[]; /* the last one waits, directly or indirectly, for all the others */
};

/* -- library.c */
/* The entry points, loading the library at the first call. NO_LIBRARY, FORKED. */
int ocl_library(const ocl_api **api, apf_error *err);
/* Some vendors' libraries fail if several threads make the first call at once (PoCL then reports no device).
 */
void ocl_begin_opening(void);
void ocl_end_opening(void);
const char *ocl_error_name(cl_int status);
/* The code of driver.h for a status; `otherwise` if the status alone does not determine it. */
int ocl_code(cl_int status, int otherwise);
/* Fill *err with "WHAT: CL_NAME (-n)", for a device: "DEVICE: WHAT: ...", and remember a lost one. */
int ocl_fail(apf_drv_device *device, apf_error *err, cl_int status, int otherwise, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* DEVICE_LOST once the device is gone. */
int ocl_alive(apf_drv_device *device, apf_error *err);

/* -- discovery.c */
typedef struct ocl_found {
    cl_platform_id platform;
    cl_device_id device;
    uint32_t index;   /* among all */
    uint32_t sibling; /* among its platform's */
    uint32_t version; /* of the platform, times 10 */
    char platform_name[128];
} ocl_found;

enum { OCL_MAX_DEVICES = 256 };
/* All devices of all platforms (or of those whose name contains `platform`), in the loader's order. NO_LIBRARY. */
int ocl_discover(const ocl_api *api, const char *platform, ocl_found *found, uint32_t *count, apf_error *err);
void ocl_describe(const ocl_api *api, const ocl_found *found, apf_device_info *info);
int ocl_migrates(const ocl_found *found, const apf_device_info *info);

/* -- kernel/program.c */
/* Whether a program is text, not a binary. */
int ocl_is_source(const apf_program *program);
int ocl_load(apf_drv_device *device, const apf_program *program, apf_drv_kernel **kernel, apf_error *err);
void ocl_unload(apf_drv_kernel *kernel);
/* The kernels of a program as JSON, see driver.h. */
int ocl_interface(apf_drv_device *device, const apf_program *program, char *text, size_t size, apf_error *err);
int ocl_bank(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err);
/* Build a program, or take the built one from the cache. PROGRAM. */
int ocl_build(apf_drv_device *device, const apf_program *from, const char *options, ocl_program *built, apf_error *err);
void ocl_end_program(const apf_drv_device *device, ocl_program *program);
/* Names of a program's kernels, "a, b"; returns how many. */
uint32_t ocl_kernel_names(const apf_drv_device *device, cl_program program, char *text, size_t size);
/* Open one kernel: handle, name and count of its arguments. NOT_FOUND, PROGRAM. */
int ocl_open_kernel(apf_drv_device *device, ocl_program *program, const apf_program *from, apf_drv_kernel **out,
                    apf_error *err);
/* FNV-1a, the 64-bit constants of its specification (draft-eastlake-fnv). */
#define OCL_DIGEST_OF_NOTHING 0xcbf29ce484222325u
uint64_t ocl_digest(uint64_t hash, const void *data, size_t size);

/* -- kernel/interface.c */
/* The kernels of a program as JSON, see driver.h. INVALID: longer than `size`. */
int ocl_kernels_text(apf_drv_device *device, ocl_program *program, const apf_program *from, char *text, size_t size,
                     apf_error *err);

/* -- kernel/cache.c: all under `loading`, and without errors: what cannot be cached is built. */
typedef struct ocl_cached {
    char *path;
    char *key; /* all that decides what is built; NULL: this program is not cached */
    size_t key_size;
} ocl_cached;

/* Use this directory, which exists, for the programs of a device. */
void ocl_open_cache(apf_drv_device *device, const char *directory);
void ocl_close_cache(apf_drv_device *device);
void ocl_find_cached(const apf_drv_device *device, const apf_program *from, const char *options, ocl_cached *entry);
/* True if the program was there, with the kernels that it had when it was built. */
int ocl_read_cached(apf_drv_device *device, const ocl_cached *entry, ocl_program *program);
/* Keep a program, if its binary has the same kernels. */
void ocl_write_cached(apf_drv_device *device, const ocl_cached *entry, ocl_program *program);
/* The parameters of a kernel as its source declared them; NULL: they are not recorded. */
const char *ocl_recorded(const apf_drv_kernel *kernel);
void ocl_end_cached(ocl_cached *entry);

/* -- kernel/arguments.c */
/* Ask the platform about every parameter of the kernel, and the compiler, with these options, about types that the
 * program defines. If the platform gives no names, the definition's names are used. ARGUMENT: a type that no argument
 * can have, or the definition's order is not the kernel's. */
int ocl_parameters(apf_drv_kernel *kernel, const apf_program *program, const char *options, apf_error *err);
/* Ask the platform about one parameter of the kernel. */
void ocl_declared(const apf_drv_kernel *kernel, uint32_t index, ocl_parameter *parameter);
/* Set one argument; under `submit`. ARGUMENT, MISALIGNED, UNSUPPORTED, DEVICE_MEMORY. */
int ocl_set_argument(apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err);
/* The number of work-items for these arguments. ARGUMENT. */
int ocl_work_items(const apf_drv_kernel *kernel, const apf_arg *args, ocl_space *space, apf_error *err);
/* True if the kernel is known not to write to this buffer argument. */
int ocl_only_reads(const apf_drv_kernel *kernel, uint32_t index, const apf_drv_bo *bo);

/* -- kernel/space.c */
/* Read the work-groups that the kernel requires and takes. */
void ocl_work_groups(apf_drv_kernel *kernel);
/* ARGUMENT if the arguments that are set need more of a work-group's memory than the device has: some platforms end the
 * process then. */
int ocl_check_local(const apf_drv_kernel *kernel, apf_error *err);
/* The index space that a run asks for, checked against what the kernel declares. KERNEL. */
int ocl_space_of(const apf_drv_kernel *kernel, const apf_launch *launch, ocl_space *space, apf_error *err);
/* The error of a work-group that the platform refused: with the sizes that the kernel accepts. */
int ocl_wrong_group(const apf_drv_kernel *kernel, const ocl_space *space, cl_int status, apf_error *err);

/* -- kernel/types.c */
/* Find the class and size of a type that the program defines; they stay 0 if the compiler cannot tell. */
void ocl_ask_compiler(apf_drv_device *device, const apf_program *from, const char *options, ocl_parameter *parameter);

/* -- memory.c */
int ocl_alloc(apf_drv_device *device, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err);
int ocl_import(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
               apf_error *err);
void ocl_free(apf_drv_bo *bo);
/* The memory object for an argument at [offset, offset + size): the whole, or a kept part; under `submit`.
 * MISALIGNED, UNSUPPORTED, DEVICE_MEMORY. */
int ocl_part_of(apf_drv_bo *bo, uint64_t offset, uint64_t size, cl_mem *handle, apf_error *err);
/* Drop the oldest kept parts if there are many; under `submit`, while no start is using them. */
void ocl_trim_parts(apf_drv_bo *bo);
/* Enqueue the DMA of a part behind the events; under `submit`. */
int ocl_enqueue_dma(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, cl_uint count, const cl_event *after,
                    cl_event *event, apf_error *err);
/* The same between the buffer and any host memory; `data` NULL: zeros, if ocl_fills. */
int ocl_enqueue_copy(apf_drv_bo *bo, int direction, uint64_t offset, char *data, uint64_t size, cl_uint count,
                     const cl_event *after, cl_event *event, apf_error *err);
/* Whether the platform makes zeros on the device. */
int ocl_fills(const apf_drv_device *device);

/* -- sharing.c */
/* Find out whether the device works directly in imported memory. */
int ocl_probe_sharing(const apf_drv_device *device);

/* -- submit.c (under `submit`) */
/* Enqueue the uploads, the kernel and the downloads of a run; after an error, some commands may have been enqueued. */
int ocl_submit(apf_drv_run *run, apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, const apf_launch *launch,
               apf_error *err);
/* Enqueue one transfer that belongs to no run: between the two sides of a buffer object (`data` is not used), */
int ocl_submit_sync(apf_drv_run *run, const apf_arg *arg, int direction, char *data, apf_error *err);
/* or between the device and any host memory; NULL: zeros. */
int ocl_submit_copy(apf_drv_run *run, const apf_arg *arg, int direction, char *data, apf_error *err);
/* The run has ended: later commands no longer wait for it. */
void ocl_forget_uses(apf_drv_run *run);

/* -- run.c */
int ocl_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **run, apf_error *err);
int ocl_start_over(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, const apf_launch *launch,
                   apf_drv_run **run, apf_error *err);
int ocl_wait(apf_drv_run *run, int64_t timeout, apf_error *err);
int ocl_cancel(apf_drv_run *run, apf_error *err);
void ocl_release(apf_drv_run *run);
void ocl_times(apf_drv_run *run, apf_times *times);
int ocl_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err);
int ocl_transfer(apf_drv_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err);

#endif
