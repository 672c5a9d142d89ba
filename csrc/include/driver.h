/* driver.h - the driver ABI.
 *
 * A driver makes one kind of device usable: it fills in one apf_driver table. The five built-in drivers are linked in;
 * a third party ships a shared library that exports
 *
 *     const apf_driver *apf_driver_v1(void);
 *
 * This header stands alone, so that such a library needs nothing else from apyfal.
 *
 * Contract, for every function of the table:
 *   - It returns APF_OK or one code of APF_ERRORS, and then fills *err with the vendor's own text.
 *   - It is called from any thread, without Python's GIL; calls on different objects may overlap. The caller never
 *     frees or closes an object that another call is using.
 *   - Handles belong to the caller, who ends each with the function named beside it.
 *   - It never blocks without bound: only `wait` waits for work on the device, and the vendor's timeout bounds a DMA.
 *   - The layer above has checked that ranges lie in their buffer objects, and that there is a host side,
 *     writable if it is written.
 *   - It is not called in a forked child: the layer above refuses that.
 */
#ifndef APF_DRIVER_H
#define APF_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define APF_DRIVER_ABI 1

/* Every error there is: name, text. One list defines the enum here, and the names and texts in error.c. Order is
 * ABI. */
#define APF_ERRORS(X)                                                                                                  \
    X(OK, "success")                                                                                                   \
    X(NO_MEMORY, "out of host memory")                                                                                 \
    X(INVALID, "invalid argument")                                                                                     \
    X(BUSY, "in use by a transfer, a run or a view")                                                                   \
    X(CLOSED, "already closed")                                                                                        \
    X(TIMEOUT, "timed out")                                                                                            \
    X(CANCELLED, "cancelled")                                                                                          \
    X(NOT_FOUND, "not found")                                                                                          \
    X(PERMISSION, "permission denied")                                                                                 \
    X(IO, "input/output error")                                                                                        \
    X(TRUNCATED, "the mapped file shrank")                                                                             \
    X(MISALIGNED, "misaligned")                                                                                        \
    X(READ_ONLY, "memory is read-only")                                                                                \
    X(UNSUPPORTED, "not supported by this driver")                                                                     \
    X(NO_LIBRARY, "vendor library not usable")                                                                         \
    X(NO_DEVICE, "no such device")                                                                                     \
    X(DEVICE_LOST, "device lost")                                                                                      \
    X(DEVICE_MEMORY, "out of device memory")                                                                           \
    X(PROGRAM, "program cannot be loaded")                                                                             \
    X(ARGUMENT, "wrong kernel argument")                                                                               \
    X(KERNEL, "run ended in an error")                                                                                 \
    X(FORKED, "used in a forked child")

enum {
#define APF_ERROR_CODE(name, text) APF_##name,
    APF_ERRORS(APF_ERROR_CODE)
#undef APF_ERROR_CODE
        APF_ERROR_COUNT
};

/* What failed. `sys` is an errno or the vendor's error number (0: none); `text` one line, always terminated. */
typedef struct apf_error {
    int32_t code;
    int32_t sys;
    char text[1016];
} apf_error;

/* A driver option, from configuration or arguments: text both. Lists end with a NULL key. */
typedef struct apf_option {
    const char *key;
    const char *value;
} apf_option;

/* What a device or its driver can do (apf_device_info.capabilities). */
enum {
    APF_CAP_IMPORT = 1 << 0,          /* host memory is used in place (else copied through the driver's buffers) */
    APF_CAP_IMPORT_READONLY = 1 << 1, /* read-only host memory too */
    APF_CAP_OFFSET = 1 << 2,          /* an argument may begin inside a buffer object, at info.offset_align */
    APF_CAP_CANCEL = 1 << 3,          /* a run that started can be cancelled */
    APF_CAP_COUNTERS = 1 << 4,        /* `counters` counts bytes and runs */
    APF_CAP_DUPLEX = 1 << 5,          /* both DMA directions and compute overlap */
    APF_CAP_SEPARATE_MEMORY = 1 << 6, /* device memory is not host memory: a missing sync shows */
    APF_CAP_SHARED_MEMORY = 1 << 7, /* what either side writes to imported memory is there for the other without sync */
    APF_CAP_STRUCTS = 1 << 8,       /* APF_BYTES: a kernel's scalar may be a struct or a vector */
};

typedef struct apf_device_info {
    char name[128];
    char vendor[64];
    char identity[64];      /* bus address or the like, stable over restarts */
    char version[64];       /* of the vendor's driver or library */
    uint64_t memory;        /* bytes; 0: unknown */
    uint64_t max_buffer;    /* bytes in one buffer object; 0: no limit */
    uint32_t import_align;  /* address of imported memory must be a multiple of this */
    uint32_t size_align;    /* and its size of this (1: any) */
    uint32_t offset_align;  /* an argument's offset in a buffer object must be a multiple of this */
    uint32_t capabilities;  /* APF_CAP_* */
    uint32_t compute_units; /* runs that make progress at once */
    uint32_t reserved[7];
} apf_device_info;

typedef struct apf_program {
    const void *data; /* the program's bytes: source or binary; NULL if the driver needs none */
    size_t size;
    const char *name;    /* where it came from, for messages; its suffix may tell the format */
    const char *kernel;  /* the kernel to open in it */
    const char *options; /* build options for source; may be NULL */
    const char
        *arguments; /* the definition's argument names in order, comma-separated; for messages and register maps */
} apf_program;

enum { APF_TO_DEVICE = 0, APF_FROM_DEVICE = 1 };

/* Scalars are passed as 8 bytes in the host's order, with their type. */
#define APF_SCALARS(X) X(I8) X(U8) X(I16) X(U16) X(I32) X(U32) X(I64) X(U64) X(F32) X(F64)
enum {
    APF_BUFFER = 0,
#define APF_SCALAR_KIND(name) APF_##name,
    APF_SCALARS(APF_SCALAR_KIND)
#undef APF_SCALAR_KIND
    /* Added later: a scalar of any size. Only drivers with APF_CAP_STRUCTS get it. */
    APF_BYTES
};

enum {
    APF_SYNC_TO = 1 << 0,   /* `start` brings [offset, offset + size) to the device before the kernel runs */
    APF_SYNC_FROM = 1 << 1, /* `wait` brings it back after a good run */
    /* Added later: the kernel only reads it, so runs that do no more need not wait for each other. A driver may ignore
     * this. */
    APF_READS = 1 << 2,
};

typedef struct apf_drv_device apf_drv_device;
typedef struct apf_drv_kernel apf_drv_kernel;
typedef struct apf_drv_bo apf_drv_bo;
typedef struct apf_drv_run apf_drv_run;

/* One kernel argument. For APF_BUFFER: bo, offset and size in it, flags. For scalars: value. For APF_BYTES: size, and
 * value.data, which may be freed when `start` returns. */
typedef struct apf_arg {
    uint32_t kind;
    uint32_t flags;
    apf_drv_bo *bo;
    uint64_t offset;
    uint64_t size;
    union {
        int64_t i;
        uint64_t u;
        float f;
        double d;
        uint8_t bytes[8];
        const void *data;
    } value;
} apf_arg;

/* The index space of a run, in work-items. `global` is a multiple of `local`, whose numbers are all 0 if the kernel or
 * the driver chooses the work-groups. Numbers beyond `dimensions` (1 to 3) are not used. */
typedef struct apf_launch {
    uint32_t dimensions;
    uint32_t reserved;
    uint64_t offset[3];
    uint64_t global[3];
    uint64_t local[3];
} apf_launch;

typedef struct apf_counters {
    uint64_t to_device;   /* bytes */
    uint64_t from_device; /* bytes */
    uint64_t runs;        /* that ended well */
    uint64_t memory_used; /* device bytes allocated now */
} apf_counters;

/* Nanoseconds on CLOCK_MONOTONIC; 0 if the driver does not measure. */
typedef struct apf_times {
    uint64_t start;
    uint64_t end;
} apf_times;

typedef struct apf_driver {
    uint32_t abi;     /* APF_DRIVER_ABI */
    uint32_t size;    /* sizeof(apf_driver), as the driver was compiled */
    const char *name; /* value of the setting `driver` */
    const char *summary;

    /* Describe up to `capacity` devices and store how many there are in *count (may be 0).
     * NO_LIBRARY: the vendor's stack is not usable, with the reason. */
    int (*list)(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count, apf_error *err);

    /* Open one device: `selector` is an index in `list`, a part of a name or identity, or NULL for the first.
     * NO_DEVICE, NO_LIBRARY, PERMISSION, BUSY, INVALID (an option), UNSUPPORTED (this kind of device). */
    int (*open)(const char *selector, const apf_option *options, apf_drv_device **device, apf_error *err);
    int (*describe)(apf_drv_device *device, apf_device_info *info, apf_error *err);
    /* Every kernel, buffer object and run has been ended before. */
    void (*close)(apf_drv_device *device);

    /* Load a program and open its kernel; ended with `unload`. The bytes may be freed when this returns. PROGRAM (with
     * build log or the vendor's reason), NOT_FOUND (no such kernel; the text lists those there are). */
    int (*load)(apf_drv_device *device, const apf_program *program, apf_drv_kernel **kernel, apf_error *err);
    void (*unload)(apf_drv_kernel *kernel);
    /* The memory bank that argument `index` must be in. ARGUMENT: no such argument, or a scalar. Optional (NULL): there
     * is one, 0. */
    int (*bank)(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err);

    /* Device memory with no host side. DEVICE_MEMORY. Ended with `free`, like the next. */
    int (*alloc)(apf_drv_device *device, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err);
    /* A buffer object whose host side is the caller's [data, data + size), which outlives it.
     * MISALIGNED, READ_ONLY, DEVICE_MEMORY, UNSUPPORTED. */
    int (*import)(apf_drv_device *device, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
                  apf_error *err);
    void (*free)(apf_drv_bo *bo);

    /* Move [offset, offset + size) between the two sides of a buffer object; returns when it is done.
     * IO, DEVICE_LOST, TRUNCATED (its host side is a mapped file that shrank). */
    int (*sync)(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err);

    /* Start a run; returns at once, except for the time of its SYNC_TO. Runs of one kernel are executed in the order of
     * their starts, or at the same time if the device has several compute units and the runs share no writable buffer.
     * The argument array may be freed when this returns; buffer objects stay until `wait` has ended or until `release`.
     * ARGUMENT (count, type or size). Ended with `release`. */
    int (*start)(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **run, apf_error *err);
    /* Wait until the run and its SYNC_FROM are done; timeout in ns, negative: none. May be called again after TIMEOUT.
     * TIMEOUT, CANCELLED, KERNEL, DEVICE_LOST, IO. */
    int (*wait)(apf_drv_run *run, int64_t timeout, apf_error *err);
    /* Ask a run to end; `wait` then says how it ended. UNSUPPORTED: it cannot be stopped. Only this function may be
     * called on a run while another thread is in `wait` on it. Optional (NULL): UNSUPPORTED. */
    int (*cancel)(apf_drv_run *run, apf_error *err);
    /* The run has ended, or is abandoned: then its buffer objects stay untouched until the device is closed. */
    void (*release)(apf_drv_run *run);

    /* Optional (NULL): when a run began and ended on the device; */
    void (*times)(apf_drv_run *run, apf_times *times);
    /* bytes and runs since open; and settings while open (fault injection, registers ...). */
    int (*counters)(apf_drv_device *device, apf_counters *counters, apf_error *err);
    int (*control)(apf_drv_device *device, const char *key, const char *value, apf_error *err);

    /* Added later; a driver whose table ends before this entry does not have it. Optional (NULL): the device's data
     * about a run that succeeded, as a JSON object ("cycles", bytes and waits by port ...); cut at `size`. NOT_FOUND:
     * there is none. */
    int (*details)(apf_drv_run *run, char *text, size_t size, apf_error *err);
    /* Added later. Optional (NULL): as `start`, over an index space. KERNEL: the kernel cannot run over it. */
    int (*start_over)(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, const apf_launch *launch,
                      apf_drv_run **run, apf_error *err);
    /* What a program declares, as a JSON array of {"name", "arguments": [{"name", "type", "space", "written"}],
     * "work_group": [x, y, z] (0: not required), "largest_group"}; what is not known is left out. INVALID: it is longer
     * than `size`. */
    int (*interface)(apf_drv_device *device, const apf_program *program, char *text, size_t size, apf_error *err);
    /* Added later. Optional (NULL): move [offset, offset + size) of memory from `alloc` to or from the host memory at
     * `data`, which may begin anywhere, and whose pages may be written; returns when it is done. `data` NULL, to the
     * device: zeros that are made there, which is not counted. IO, DEVICE_LOST, TRUNCATED; UNSUPPORTED: the device
     * cannot make zeros. */
    int (*transfer)(apf_drv_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err);
} apf_driver;

/* Bytes of the smallest table that is accepted. */
#define APF_DRIVER_SIZE_MIN offsetof(apf_driver, details)

typedef const apf_driver *(*apf_driver_entry)(void); /* the type of apf_driver_v1 */

#ifdef __cplusplus
}
#endif
#endif
