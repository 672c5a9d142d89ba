/* emulator.h - shared by the files of the software card.
 *
 *   driver.c   the driver table: list, open, describe, close
 *   options.c  settings, from configuration and at run time
 *   memory.c   device memory and buffer objects
 *   arena.c    device memory that another process can map, for drivers that run kernels in one
 *   link.c     transfers, simulated time, injected faults
 *   kernel.c   models by name, kernels, argument checks
 *   run.c      runs: start, wait, cancel, and what each stage does
 *   queue.c    lanes: the order of runs, the threads
 *
 * Locks: each card has one, `card->lock`. It is never held while data moves, a model runs, or a model's `drop` is
 * called.
 */
#ifndef APF_EMULATOR_H
#define APF_EMULATOR_H

#include "apyfal.h"
#include "runtime/clock.h"

typedef struct apf_drv_device emu_card;

/* -- settings -- */

enum emu_kind { EMU_COUNT, EMU_SIZE, EMU_MICROSECONDS, EMU_SWITCH };

/* Every setting: name, kind, default, what it means. Times are stored in ns. A fault setting N makes the Nth event
 * after it is set fail, once; 0 is off. */
#define EMU_SETTINGS(X)                                                                                                \
    X(devices, EMU_COUNT, 1, "cards listed")                                                                           \
    X(memory, EMU_SIZE, 8ull << 30, "device memory")                                                                   \
    X(idle_memory, EMU_SIZE, 64ull << 20, "freed device memory kept for reuse")                                        \
    X(to_device_bandwidth, EMU_SIZE, 0, "bytes a second, 0: as fast as it goes")                                       \
    X(from_device_bandwidth, EMU_SIZE, 0, "bytes a second, 0: as fast as it goes")                                     \
    X(compute_bandwidth, EMU_SIZE, 0, "bytes a second of a run's largest buffer, 0: as fast as it goes")               \
    X(latency, EMU_MICROSECONDS, 0, "of a transfer")                                                                   \
    X(run_latency, EMU_MICROSECONDS, 0, "of a run")                                                                    \
    X(import_align, EMU_SIZE, 4096, "alignment of imported host memory")                                               \
    X(read_only_import, EMU_SWITCH, 0, "read-only host memory can be imported")                                        \
    X(ignore_cancel, EMU_SWITCH, 0, "a run that hangs cannot be cancelled")                                            \
    X(fail_alloc, EMU_COUNT, 0, "allocation or import that fails")                                                     \
    X(fail_to_device, EMU_COUNT, 0, "transfer to the device that fails")                                               \
    X(fail_from_device, EMU_COUNT, 0, "transfer from the device that fails")                                           \
    X(fail_run, EMU_COUNT, 0, "run that ends in an error")                                                             \
    X(hang_run, EMU_COUNT, 0, "run that never ends")                                                                   \
    X(lose_device, EMU_COUNT, 0, "operation (allocation, transfer, run) at which the device is lost")

typedef struct emu_settings {
#define EMU_SETTING(name, kind, value, meaning) uint64_t name;
    EMU_SETTINGS(EMU_SETTING)
#undef EMU_SETTING
} emu_settings;

/* Defaults, then the environment's APYFAL_EMULATOR ("devices=4,memory=1GiB"), then `options` (NULL: none). INVALID. */
int emu_settings_read(emu_settings *settings, const apf_option *options, apf_error *err);
/* Change one setting. INVALID: unknown, or not a value for it; the settings are then as before. */
int emu_settings_set(emu_settings *settings, const char *key, const char *value, apf_error *err);

/* -- memory -- */

/* One mapping of pages, in use or in the list of idle ones. */
typedef struct emu_block {
    struct emu_block *next;
    uint8_t *data;
    uint64_t capacity; /* bytes mapped */
} emu_block;

typedef struct emu_arena emu_arena;

/* Create a file in memory for `size` bytes of buffers; free it with `emu_arena_end`. NULL: NO_MEMORY. */
emu_arena *emu_arena_new(uint64_t size, apf_error *err);
void emu_arena_end(emu_arena *arena);
/* Allocate and free whole pages; MAP_FAILED: no room. Under the card's lock. */
void *emu_arena_take(emu_arena *arena, uint64_t size);
void emu_arena_give(emu_arena *arena, void *data, uint64_t size);
int emu_arena_file(const emu_arena *arena);
/* Its address in this process; the driver may use page 0. */
uint8_t *emu_arena_data(const emu_arena *arena);

typedef struct emu_memory {
    emu_arena *arena; /* source of blocks; NULL: private pages of this process */
    uint64_t used;    /* bytes of buffer objects */
    uint64_t idle;    /* bytes of blocks kept for reuse */
    emu_block *free;
    apf_drv_bo *bos; /* every buffer object */
} emu_memory;

struct apf_drv_bo {
    emu_card *card;
    apf_drv_bo *next, *previous;
    emu_block *block;
    uint8_t *host; /* NULL: device memory without a host side */
    uint64_t size;
    int readonly; /* the host side */
    /* Under the card's lock: references of the owner and of the runs in flight that use it. */
    uint32_t refs;
    /* Runs in flight on one buffer object take turns: their uses in the order of their starts, and the number of result
     * transfers in progress. */
    struct emu_use *first_use, *last_use;
    uint32_t leaving;
};

int emu_alloc(emu_card *card, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err);
int emu_import(emu_card *card, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
               apf_error *err);
void emu_free(apf_drv_bo *bo);
/* Release a reference; under the card's lock. */
void emu_bo_drop(apf_drv_bo *bo);
/* Unmap everything; no run is in flight. */
void emu_memory_end(emu_card *card);

/* -- transfers, simulated time, faults -- */

/* Count one event down: 1 if it is the one that must fail. Under the card's lock. */
int emu_due(uint64_t *countdown);
/* Count one operation (see lose_device). DEVICE_LOST. Under the card's lock. */
int emu_operation(emu_card *card, apf_error *err);
int emu_fail_lost(const emu_card *card, apf_error *err);
/* Move bytes of a buffer object, wait for the simulated time, count. Returns early if *cancelled becomes non-zero
 * (NULL: never) or the card is closed. IO, DEVICE_LOST, TRUNCATED, CANCELLED. Without the card's lock. */
int emu_transfer(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, const volatile int *cancelled,
                 apf_error *err);
int emu_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err);
/* Between device memory and any host memory, see driver.h. */
int emu_bo_transfer(apf_drv_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err);
/* Sleep until `deadline`; ends early when cancelled, lost or closing. Under the card's lock, which is released while it
 * sleeps. */
void emu_sleep(emu_card *card, int64_t deadline, const volatile int *cancelled);
/* ns that `bytes` take at `bandwidth` bytes a second (0: none). */
int64_t emu_duration(uint64_t bytes, uint64_t bandwidth);

/* -- kernels -- */

typedef struct emu_model emu_model;

struct apf_drv_kernel {
    emu_card *card;
    emu_model *model;
    char *arguments; /* comma-separated names, or NULL */
    int64_t refs;    /* of the owner and of runs in flight; atomic */
};

int emu_load(emu_card *card, const apf_program *program, apf_drv_kernel **kernel, apf_error *err);
/* Open a kernel that is not a registered model: `entry` with a copy of its name. `drop` is called with its context
 * after the last use. On failure the caller still owns the context. */
int emu_load_entry(emu_card *card, const apf_program *program, const apf_model_entry *entry, void (*drop)(void *),
                   apf_drv_kernel **kernel, apf_error *err);
void emu_unload(apf_drv_kernel *kernel);
int emu_bank(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err);
/* ARGUMENT, READ_ONLY, MISALIGNED. */
int emu_check_arguments(const apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_error *err);
int emu_call_model(const apf_drv_kernel *kernel, const apf_model_arg *args, uint32_t count,
                   const volatile int *cancelled, apf_error *err);
const char *emu_kernel_name(const apf_drv_kernel *kernel);
/* The kernel's JSON about the run that just ended, or NULL; free it with apf_free. */
char *emu_kernel_details(const apf_drv_kernel *kernel);
/* Total bytes of buffers up to which the kernel takes about 20 us at most; see apf_model_entry. */
uint64_t emu_kernel_quick(const apf_drv_kernel *kernel);

/* -- runs (run.c) -- */

/* One buffer argument of a run in flight. */
typedef struct emu_use {
    const apf_drv_run *run;
    apf_drv_bo *bo;
    struct emu_use *next, *previous; /* of the same buffer object */
    uint32_t flags;
    uint64_t offset, size;
} emu_use;

/* A run is waiting in a lane, current in a lane, or done. The card's lock protects the fields, except while the run is
 * current: then the lane owns `error`, `times` and the memory of the arguments. */
struct apf_drv_run {
    emu_card *card;
    apf_drv_kernel *kernel;
    apf_drv_run *next; /* in a lane, or spare */
    int stage;         /* the lane it is in */
    int waiting;       /* in that lane's list */
    int computed;      /* its results are being transferred */
    int released;      /* no caller waits: freed when done */
    int cancelled;     /* atomic: models and transfers check it */
    int done;          /* atomic: read without the lock once it is set */
    int code;
    pthread_cond_t ended;
    apf_times times;
    apf_error error;
    char *details; /* JSON from the kernel, or NULL */
    void *bytes;   /* structs and vectors among the arguments, or NULL */
    uint32_t count, capacity;
    apf_model_arg *args;
    emu_use uses[]; /* as many as args; bo is NULL for scalars */
};

int emu_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **run, apf_error *err);
int emu_wait(apf_drv_run *run, int64_t timeout, apf_error *err);
int emu_cancel(apf_drv_run *run, apf_error *err);
void emu_release(apf_drv_run *run);
void emu_times(apf_drv_run *run, apf_times *times);
/* Copy the kernel's JSON about the run. NOT_FOUND: there is none. */
int emu_details(apf_drv_run *run, char *text, size_t size, apf_error *err);

/* -- queue (queue.c) -- */

/* A run passes three lanes. Each lane has a thread, started at its first use. If a stage takes less time than waking
 * that thread, the thread that has the run executes the stage itself, so that a small job costs no thread switch. */
enum emu_stage { EMU_TO, EMU_RUN, EMU_FROM, EMU_LANES };

typedef struct emu_lane {
    emu_card *card;
    enum emu_stage stage;
    pthread_t thread;
    pthread_cond_t work; /* there may be work */
    int started;
    int exited;
    apf_drv_run *current;      /* being executed in this stage */
    apf_drv_run *first, *last; /* waiting, in order */
} emu_lane;

/* Do one stage of a run; without the lock. Result: its error code. */
int emu_run_stage(apf_drv_run *run, enum emu_stage stage);
/* The kernel is done: later runs on the same buffer objects wait until its results are transferred. Under the lock. */
void emu_run_computed(apf_drv_run *run);
/* A run has ended with `code`: wake its waiters. Under the lock; the run may be freed once the lock is released. */
void emu_run_finish(apf_drv_run *run, int code);
/* Keep a run that is done and released for reuse. Without the lock. */
void emu_run_recycle(apf_drv_run *run);
/* Free the runs kept for reuse; no run is in flight. */
void emu_runs_end(emu_card *card);

/* Submit a new run; it may end at once. Under the lock, which may be released meanwhile. */
void emu_queue_put(apf_drv_run *run);
/* Remove a waiting run from its lane. Under the lock. */
void emu_queue_remove(apf_drv_run *run);
/* Wake the lanes to check for work that can start. Under the lock. */
void emu_queue_poke(emu_card *card);
void emu_queue_init(emu_card *card);
/* End all runs and threads, in bounded time. A thread that is stuck in a model keeps running; it holds a reference to
 * the card and no longer touches host memory. */
void emu_queue_close(emu_card *card);
/* Free the queue's resources; no run is in flight. */
void emu_queue_end(emu_card *card);

/* -- card -- */

enum { EMU_OFFSET_ALIGN = 64 };

struct apf_drv_device {
    pthread_mutex_t lock; /* everything below */
    pthread_cond_t wake;  /* wakes sleepers: cancelled, lost, closing, or a lane has exited */
    uint32_t index;
    int64_t refs; /* the owner and the lanes' threads */
    int lost;
    int closing; /* atomic: transfers read it without the lock */
    emu_settings settings;
    emu_memory memory;
    apf_counters counters; /* memory_used is memory.used */
    int64_t link_free[2];  /* when each direction's last transfer ends, in simulated time */
    emu_lane lanes[EMU_LANES];
    void *companion;                        /* data of a driver built on this card, */
    void (*companion_end)(void *companion); /* and its destructor, called when no run is in flight */
    apf_drv_run *spare;                     /* ended runs, kept for reuse */
    uint32_t spares;
};

/* Functions of the driver's table that other drivers built on this card also use. */
int emu_list(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count, apf_error *err);
int emu_open(const char *selector, const apf_option *options, emu_card **card, apf_error *err);
int emu_describe(emu_card *card, apf_device_info *info, apf_error *err);
void emu_close(emu_card *card);
int emu_counters(emu_card *card, apf_counters *counters, apf_error *err);
int emu_control(emu_card *card, const char *key, const char *value, apf_error *err);
/* Release a reference; the last release frees the card. Without the lock. */
void emu_card_drop(emu_card *card);

#endif
