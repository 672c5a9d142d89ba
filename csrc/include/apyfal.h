/* apyfal.h - the interface of csrc/ for the layer above.
 *
 * Conventions: a function that can fail returns APF_OK or an error code of driver.h and fills *err. Objects are opaque
 * and counted: `x_retain` adds a reference, `x_release` releases one (NULL is allowed). Nothing here depends on Python.
 */
#ifndef APYFAL_H
#define APYFAL_H

#include "driver.h"

#include <pthread.h>

/* -- errors (error.c) -- */

const char *apf_error_name(int code);                         /* "NO_MEMORY" */
const char *apf_error_text(int code);                         /* "out of host memory" */
const char *apf_sys_text(int sys, char *buffer, size_t size); /* "Permission denied"; may use the buffer, or not */
/* Fill *err (NULL: nothing) and return `code`. `sys` is 0 or an errno, whose text is appended. */
int apf_fail(apf_error *err, int code, int sys, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* -- allocation (alloc.c): every allocation of csrc/ goes through these, so that each can be made to fail -- */

void *apf_calloc(size_t count, size_t size);
void apf_free(void *memory);
/* The allocation after the next `n` fails, once; negative: none. For tests. Returns the allocations made so far. */
uint64_t apf_fail_allocation(int64_t n);
/* Counts down the injected failure for an allocation that is not a calloc (a mapping, a thread): true if it must fail.
 */
int apf_allocation_fails(void);

/* What is alive in this process. Zero when everything has been closed. */
#define APF_LIVE(X) X(buffers) X(mappings) X(devices) X(kernels) X(bos) X(runs) X(threads)
typedef struct apf_live {
#define APF_LIVE_FIELD(name) int64_t name;
    APF_LIVE(APF_LIVE_FIELD)
#undef APF_LIVE_FIELD
} apf_live;
extern apf_live apf_live_now; /* changed atomically */
apf_live apf_live_get(void);
#define apf_live_add(name, n) __atomic_add_fetch(&apf_live_now.name, (n), __ATOMIC_RELAXED)

/* -- host memory (buffer.c) -- */

enum {
    APF_BUFFER_LOCKED = 1 << 0,   /* mlock succeeded: it cannot be paged out */
    APF_BUFFER_HUGE = 1 << 1,     /* huge pages were requested */
    APF_BUFFER_MAPPED = 1 << 2,   /* a mapped file */
    APF_BUFFER_READONLY = 1 << 3, /* writing faults */
    APF_BUFFER_FOREIGN = 1 << 4,  /* memory that the caller owns */
    APF_BUFFER_SLAB = 1 << 5,     /* part of a slab: its memory is not unmapped separately */
};

/* Page-aligned host memory that drivers may use in place. States: in use (refs > 0), idle in the pool (refs == 0),
 * freed. Only the last reference makes it idle, so memory that a run or an array holds is never reused. */
typedef struct apf_buffer apf_buffer;

/* `size` bytes (0 is one page) from the pool: faulted in, contents undefined. NO_MEMORY (also: over the pool's limit).
 */
int apf_buffer_new(size_t size, apf_buffer **buffer, apf_error *err);
/* The caller's memory, for one call; the caller keeps it alive while there are references. */
int apf_buffer_wrap(void *data, size_t size, int readonly, apf_buffer **buffer, apf_error *err);
void apf_buffer_retain(apf_buffer *buffer);
void apf_buffer_release(apf_buffer *buffer);
void *apf_buffer_data(const apf_buffer *buffer);
size_t apf_buffer_size(const apf_buffer *buffer);     /* requested size */
size_t apf_buffer_capacity(const apf_buffer *buffer); /* largest size without a move */
uint32_t apf_buffer_flags(const apf_buffer *buffer);
int64_t apf_buffer_refs(const apf_buffer *buffer);
/* Change the size; keeps the contents, may move. BUSY with more than one reference. */
int apf_buffer_resize(apf_buffer **buffer, size_t size, apf_error *err);
/* The live buffer that contains [data, data + size), retained, or NULL. */
apf_buffer *apf_buffer_find(const void *data, size_t size);

/* -- gates (gate.c): count the users of an object that its owner may close, or may change while it has no users -- */

typedef struct apf_gate {
    uint64_t state; /* 0: open, no users */
} apf_gate;

/* Enter as a user until `leave`. CLOSED; BUSY while it is locked, unless `wait`; FORKED: locked by a thread of the
 * process that this one was forked from; `adopt` transfers the lock to one caller in this process. */
int apf_gate_enter(apf_gate *gate, int wait);
void apf_gate_leave(apf_gate *gate);
/* The same for a short read: `lock` waits for its end, but fails if there is a user. */
int apf_gate_look(apf_gate *gate, int wait);
void apf_gate_looked(apf_gate *gate);
/* Lock it exclusively. BUSY: there are users; CLOSED; FORKED. Waits until another lock ends. */
int apf_gate_lock(apf_gate *gate);
int apf_gate_adopt(apf_gate *gate);
void apf_gate_unlock(apf_gate *gate);
void apf_gate_unlock_closed(apf_gate *gate);
/* Refuse new users; returns the number of current users. */
uint32_t apf_gate_close(apf_gate *gate);

/* -- holds (hold.c): a buffer with one owner, and the views of it. Every call may come from any thread -- */

typedef struct apf_hold {
    apf_gate gate;
    apf_buffer *buffer; /* one reference; NULL once closed */
} apf_hold;

typedef struct apf_hold_info {
    void *data;
    size_t size;
    size_t capacity;
    uint32_t flags;
} apf_hold_info;

/* Take a view: the memory stays where it is until `unview`. CLOSED; BUSY during a resize, unless `wait`. */
int apf_hold_view(apf_hold *hold, int wait, apf_hold_info *info);
void apf_hold_unview(apf_hold *hold);
/* Its current state, which may change at once. The same errors. */
int apf_hold_look(apf_hold *hold, int wait, apf_hold_info *info);
/* BUSY: a view is alive, or a run. Closing twice is allowed. */
int apf_hold_close(apf_hold *hold, apf_error *err);
int apf_hold_resize(apf_hold *hold, size_t size, apf_error *err); /* and CLOSED, and as apf_buffer_resize */
/* Free the hold; there are no views. A run may still use the memory. */
void apf_hold_end(apf_hold *hold);

/* -- the pool (pool.c) -- */

typedef struct apf_pool_stats {
    uint64_t limit;   /* bytes that the pool may hold in total */
    uint64_t used;    /* bytes in use */
    uint64_t idle;    /* bytes kept for reuse */
    uint64_t locked;  /* of both, bytes that are mlocked */
    uint64_t reuses;  /* requests served without new memory */
    uint64_t growths; /* requests that took new memory */
} apf_pool_stats;
void apf_pool_stats_get(apf_pool_stats *stats);
void apf_pool_limit_set(uint64_t bytes); /* 0: the default, half of the machine's memory */
/* Return idle memory to the system until at most `keep` bytes are idle (slabs of small buffers stay). */
void apf_pool_trim(uint64_t keep);

/* -- host files (mapped_file.c) -- */

enum {
    APF_MAP_READ = 0,  /* shared, read-only: drivers that pin for writing refuse it */
    APF_MAP_WRITE = 1, /* shared, writable: changes reach the file; usable in place by every driver */
};
/* Map [offset, offset + size) of the open regular file `fd` (kept by the caller, may be closed afterwards) as a buffer.
 * `offset` is a multiple of the page size; the range lies inside the file.
 * INVALID (not a regular file, range), MISALIGNED, PERMISSION, NO_MEMORY, IO. */
int apf_mapped_file_new(int fd, uint64_t offset, size_t size, int mode, int populate, apf_buffer **buffer,
                        apf_error *err);
/* Write a writable map's changes to the disk. */
int apf_mapped_file_flush(apf_buffer *buffer, apf_error *err);
/* memcpy that returns TRUNCATED instead of dying of SIGBUS when either side is a mapped file that shrank. */
int apf_copy(void *to, const void *from, size_t size, apf_error *err);
/* The same for setting memory to zero. */
int apf_zero(void *to, size_t size, apf_error *err);

/* -- drivers and devices (drivers.c, device.c, run.c): the ABI of driver.h with ownership, fork checks and reuse -----
 */

typedef struct apf_device apf_device;
typedef struct apf_kernel apf_kernel;
typedef struct apf_bo apf_bo;
typedef struct apf_run apf_run;

/* A built-in driver, or one loaded before. NULL: unknown. */
const apf_driver *apf_driver_find(const char *name);
const apf_driver *apf_driver_at(uint32_t index); /* NULL past the last */
/* Load a third party's driver. NO_LIBRARY, UNSUPPORTED (another ABI version), INVALID (the name is taken). */
int apf_driver_load(const char *path, const apf_driver **driver, apf_error *err);

int apf_device_open(const apf_driver *driver, const char *selector, const apf_option *options, apf_device **device,
                    apf_error *err);
void apf_device_retain(apf_device *device);
void apf_device_release(apf_device *device);
/* Drop cached imports and refuse new work. BUSY while runs are in flight. The handle stays valid until released. */
int apf_device_close(apf_device *device, apf_error *err);
const apf_device_info *apf_device_info_of(const apf_device *device);
const apf_driver *apf_device_driver(const apf_device *device);
int apf_device_counters(apf_device *device, apf_counters *counters, apf_error *err);
int apf_device_control(apf_device *device, const char *key, const char *value, apf_error *err);

int apf_kernel_load(apf_device *device, const apf_program *program, apf_kernel **kernel, apf_error *err);
void apf_kernel_release(apf_kernel *kernel);
/* The driver's JSON about the kernels of a program; `size` bytes at `text`. UNSUPPORTED: the driver cannot tell. */
int apf_device_interface(apf_device *device, const apf_program *program, char *text, size_t size, apf_error *err);
/* Whether the kernel's source lets it write to buffer argument `index`. Also 0 if it is unknown. */
int apf_kernel_may_write(apf_kernel *kernel, uint32_t index);
int apf_kernel_bank(apf_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err);

/* Device memory. When it is full, cached imports that nothing uses are dropped first. */
int apf_bo_alloc(apf_device *device, uint64_t size, uint32_t bank, apf_bo **bo, apf_error *err);
/* The buffer object whose host side is `buffer`, made at first use. For pooled and mapped memory it is kept with that
 * memory ("pin once, reuse"), so the next import costs only a look-up. The bo holds a reference to the buffer. */
int apf_bo_import(apf_device *device, apf_buffer *buffer, uint32_t bank, apf_bo **bo, apf_error *err);
void apf_bo_retain(apf_bo *bo);
void apf_bo_release(apf_bo *bo);
uint64_t apf_bo_size(const apf_bo *bo);
void *apf_bo_host(const apf_bo *bo); /* where its host side begins; NULL for device memory */
int apf_bo_sync(apf_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err);
/* Whether the device's driver can do the next. */
int apf_device_transfers(const apf_device *device);
/* Move bytes between device memory (from apf_bo_alloc) and any host memory; `data` NULL, to the device: zeros.
 * UNSUPPORTED: the driver cannot, or not make zeros. */
int apf_bo_transfer(apf_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err);

/* A flag of an argument, in addition to those of driver.h: the host side is set to zero, and then the device's
 * memory. */
enum { APF_CLEAR = 1 << 16 };

/* Like apf_arg, with the counted object. */
typedef struct apf_run_arg {
    apf_arg arg; /* arg.bo is filled in from bo */
    apf_bo *bo;
} apf_run_arg;

/* Start a run. It holds its kernel and buffer objects (so their host memory) until it has ended. */
int apf_run_start(apf_kernel *kernel, const apf_run_arg *args, uint32_t count, apf_run **run, apf_error *err);
/* The same over an index space (NULL: as the kernel was loaded). UNSUPPORTED: the driver has none. */
int apf_run_start_over(apf_kernel *kernel, const apf_run_arg *args, uint32_t count, const apf_launch *launch,
                       apf_run **run, apf_error *err);
/* Wait; timeout in ns, negative: none. TIMEOUT leaves the run in flight. */
int apf_run_wait(apf_run *run, int64_t timeout, apf_error *err);
int apf_run_cancel(apf_run *run, apf_error *err);
void apf_run_times(apf_run *run, apf_times *times);
/* The driver's JSON about a run that succeeded, owned by the run; NULL: none. */
const char *apf_run_details(apf_run *run);
/* Ended: free it. Still in flight: cancel it, wait up to `grace` ns; after that it is abandoned with everything it
 * holds. Its memory is never reused, since the device may still write there. */
int apf_run_release(apf_run *run, int64_t grace); /* returns 1 when it was abandoned */

/* Changes in a forked child: devices and threads of the parent do not exist in it, and calls on them give FORKED. */
uint32_t apf_fork_generation(void);
/* Hold a lock during forks, so that no thread that is missing in the child leaves it locked there. For static locks;
 * call it from a constructor: `static void guard(void)` with `__attribute__((constructor))`. A thread that holds such a
 * lock must not take another lock of csrc/. */
void apf_fork_guard(pthread_mutex_t *lock);

/* -- built-in drivers -- */

/* Only OpenCL reports this: apf_kernel_may_write for one of its kernels. */
int apf_opencl_may_write(const apf_drv_kernel *kernel, uint32_t index);

extern const apf_driver apf_driver_emulator, apf_driver_opencl, apf_driver_xrt, apf_driver_xdma, apf_driver_rtl;

/* -- software models of the emulator (drivers/emulator) -- */

/* One argument as a model sees it: device memory, or a scalar. */
typedef struct apf_model_arg {
    uint32_t kind;
    void *data;    /* APF_BUFFER and APF_BYTES */
    uint64_t size; /* of both: bytes of the argument */
    union {
        int64_t i;
        uint64_t u;
        float f;
        double d;
    } value;
} apf_model_arg;

/* Run a kernel over device memory. `cancelled` becomes non-zero when the run should end early (then return anything).
 * Non-zero return: KERNEL with *err. */
typedef int (*apf_model)(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                         apf_error *err);

typedef struct apf_model_entry {
    const char *name;
    apf_model function;
    void *context;
    const char *signature; /* one letter an argument: b buffer, s scalar, r struct or vector; NULL: any */
    uint64_t quick;        /* up to this total size of buffers it takes about 20 us at most; 0: it may take any time */
    char *(*details)(void *context); /* optional: JSON about the run that just ended, for apf_free; or NULL */
    const uint64_t *sizes;           /* where the signature has r: bytes of that argument */
} apf_model_entry;

extern const apf_model_entry *const
    apf_models_builtin[]; /* NULL-terminated list of tables, each ended by a NULL name */
/* Make a model loadable by name, or replace it (NULL: remove it); `drop` is called with context after the last use.
 * INVALID (a built-in model has the name), NO_MEMORY; the caller then still owns context. */
int apf_model_register(const char *name, apf_model function, void *context, void (*drop)(void *), apf_error *err);

#endif
