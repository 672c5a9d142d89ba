/* emulator.h - what the files of the software card share.
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

/* Every setting: name, kind, default, what it means. Times are kept in ns. A fault N makes the Nth event from when it
 * is set fail, once; 0 is off. */
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

/* One mapping of pages; its owner's or in the list of idle ones. */
typedef struct emu_block {
    struct emu_block *next;
    uint8_t *data;
    uint64_t capacity; /* bytes mapped */
} emu_block;

typedef struct emu_arena emu_arena;

/* A file in memory for `size` bytes of buffers; ended with `emu_arena_end`. NULL: NO_MEMORY. */
emu_arena *emu_arena_new(uint64_t size, apf_error *err);
void emu_arena_end(emu_arena *arena);
/* Take and give back whole pages; MAP_FAILED: no room. Under the card's lock. */
void *emu_arena_take(emu_arena *arena, uint64_t size);
void emu_arena_give(emu_arena *arena, void *data, uint64_t size);
int emu_arena_file(const emu_arena *arena);
/* Where it is mapped here; page 0 is free for the driver. */
uint8_t *emu_arena_data(const emu_arena *arena);

typedef struct emu_memory {
    emu_arena *arena; /* where blocks come from; NULL: pages of this process alone */
    uint64_t used;    /* bytes of buffer objects */
    uint64_t idle;    /* bytes of blocks kept for reuse */
    emu_block *free;
    apf_drv_bo *bos; /* every buffer object */
} emu_memory;

struct apf_drv_bo {
    emu_card *card;
    apf_drv_bo *next, *previous;
    emu_block *block;
    uint8_t *host; /* NULL: device memory alone */
    uint64_t size;
    int readonly; /* the host side */
    /* Under the card's lock: the owner and the runs in flight that use it. */
    uint32_t refs;
    /* Runs in flight on one buffer object take turns: their uses of it in the order of their starts, and how many
     * results are on the way out of it. */
    struct emu_use *first_use, *last_use;
    uint32_t leaving;
};

int emu_alloc(emu_card *card, uint64_t size, uint32_t bank, apf_drv_bo **bo, apf_error *err);
int emu_import(emu_card *card, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
               apf_error *err);
void emu_free(apf_drv_bo *bo);
/* Give a reference back; under the card's lock. */
void emu_bo_drop(apf_drv_bo *bo);
/* Unmap everything; nothing runs any more. */
void emu_memory_end(emu_card *card);

/* -- transfers, simulated time, faults -- */

/* Count one event down: 1 if it is the one that must fail. Under the card's lock. */
int emu_due(uint64_t *countdown);
/* Count one operation (see lose_device). DEVICE_LOST. Under the card's lock. */
int emu_operation(emu_card *card, apf_error *err);
int emu_fail_lost(const emu_card *card, apf_error *err);
/* Move bytes of a buffer object, take the simulated time, count. Returns early where *cancelled becomes non-zero (NULL:
 * never) or the card is closed. IO, DEVICE_LOST, TRUNCATED, CANCELLED. Without the card's lock. */
int emu_transfer(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, const volatile int *cancelled,
                 apf_error *err);
int emu_sync(apf_drv_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err);
/* Sleep until `deadline`; ends early when cancelled, lost or closing. Under the card's lock, given up meanwhile. */
void emu_sleep(emu_card *card, int64_t deadline, const volatile int *cancelled);
/* ns that `bytes` take at `bandwidth` bytes a second (0: none). */
int64_t emu_duration(uint64_t bytes, uint64_t bandwidth);

/* -- kernels -- */

typedef struct emu_model emu_model;

struct apf_drv_kernel {
    emu_card *card;
    emu_model *model;
    char *arguments; /* comma-separated names, or NULL */
    int64_t refs;    /* the owner and runs in flight; atomic */
};

int emu_load(emu_card *card, const apf_program *program, apf_drv_kernel **kernel, apf_error *err);
/* Open a kernel that is no registered model: `entry` with a copy of its name; `drop` is called with its context when
 * nothing uses it any more. On failure the context is still the caller's. */
int emu_load_entry(emu_card *card, const apf_program *program, const apf_model_entry *entry, void (*drop)(void *),
                   apf_drv_kernel **kernel, apf_error *err);
void emu_unload(apf_drv_kernel *kernel);
int emu_bank(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err);
/* ARGUMENT, READ_ONLY, MISALIGNED. */
int emu_check_arguments(const apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_error *err);
int emu_call_model(const apf_drv_kernel *kernel, const apf_model_arg *args, uint32_t count,
                   const volatile int *cancelled, apf_error *err);
const char *emu_kernel_name(const apf_drv_kernel *kernel);
/* What the kernel says of the run that just ended, for apf_free, or NULL. */
char *emu_kernel_details(const apf_drv_kernel *kernel);
/* Bytes of buffers over which the kernel is done at once; see apf_model_entry. */
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

/* A run is waiting in a lane, current in a lane, or done. Fields are under the card's lock, except while the run is
 * current: then `error`, `times` and what the arguments point to are the lane's. */
struct apf_drv_run {
    emu_card *card;
    apf_drv_kernel *kernel;
    apf_drv_run *next; /* in a lane, or spare */
    int stage;         /* the lane it is in */
    int waiting;       /* in that lane's list */
    int computed;      /* its results are on the way out */
    int released;      /* nobody waits any more: freed when done */
    int cancelled;     /* atomic: models and transfers look at it */
    int done;          /* atomic: read without the lock once it is set */
    int code;
    pthread_cond_t ended;
    apf_times times;
    apf_error error;
    char *details; /* JSON of the kernel's own, or NULL */
    uint32_t count, capacity;
    apf_model_arg *args;
    emu_use uses[]; /* as many as args; bo is NULL for scalars */
};

int emu_start(apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_drv_run **run, apf_error *err);
int emu_wait(apf_drv_run *run, int64_t timeout, apf_error *err);
int emu_cancel(apf_drv_run *run, apf_error *err);
void emu_release(apf_drv_run *run);
void emu_times(apf_drv_run *run, apf_times *times);
/* Copy what the kernel said of the run. NOT_FOUND: nothing. */
int emu_details(apf_drv_run *run, char *text, size_t size, apf_error *err);

/* -- queue (queue.c) -- */

/* A run passes three lanes, each with a thread of its own, made when it is first needed. What takes less time than
 * waking that thread is done by the one that has the run, in its turn: a small job costs no change of threads. */
enum emu_stage { EMU_TO, EMU_RUN, EMU_FROM, EMU_LANES };

typedef struct emu_lane {
    emu_card *card;
    enum emu_stage stage;
    pthread_t thread;
    pthread_cond_t work; /* something to look at */
    int started;
    int exited;
    apf_drv_run *current;      /* in this stage now */
    apf_drv_run *first, *last; /* waiting, in order */
} emu_lane;

/* Do one stage of a run; without the lock. Result: its error code. */
int emu_run_stage(apf_drv_run *run, enum emu_stage stage);
/* The kernel is done: later runs on the same buffer objects wait for the results to leave. Under the lock. */
void emu_run_computed(apf_drv_run *run);
/* A run has ended with `code`: tell who waits. Under the lock; the run may be gone when that is given up. */
void emu_run_finish(apf_drv_run *run, int code);
/* Put a run that is done and released away for reuse. Without the lock. */
void emu_run_recycle(apf_drv_run *run);
/* Free the runs kept for reuse; nothing runs any more. */
void emu_runs_end(emu_card *card);

/* Let a new run begin its way; it may end at once. Under the lock, which may be given up meanwhile. */
void emu_queue_put(apf_drv_run *run);
/* Take a waiting run out of its lane. Under the lock. */
void emu_queue_remove(apf_drv_run *run);
/* Look again for work whose turn has come. Under the lock. */
void emu_queue_poke(emu_card *card);
void emu_queue_init(emu_card *card);
/* End all runs and threads, in bounded time. A thread that is stuck in a model is left behind; it keeps the card alive
 * and touches no host memory any more. */
void emu_queue_close(emu_card *card);
/* Nothing runs any more. */
void emu_queue_end(emu_card *card);

/* -- card -- */

enum { EMU_OFFSET_ALIGN = 64 };

struct apf_drv_device {
    pthread_mutex_t lock; /* everything below */
    pthread_cond_t wake;  /* sleepers look again: cancelled, lost, closing, a lane has exited */
    uint32_t index;
    int64_t refs; /* the owner and the lanes' threads */
    int lost;
    int closing; /* atomic for transfers */
    emu_settings settings;
    emu_memory memory;
    apf_counters counters; /* memory_used is memory.used */
    int64_t link_free[2];  /* when each direction's last transfer ends, in simulated time */
    emu_lane lanes[EMU_LANES];
    void *companion;                        /* what a driver over this card keeps with it, */
    void (*companion_end)(void *companion); /* and how it ends, when nothing runs any more */
    apf_drv_run *spare;                     /* ended runs, kept for reuse */
    uint32_t spares;
};

/* The functions of the driver's table that a driver over the same card uses too. */
int emu_list(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count, apf_error *err);
int emu_open(const char *selector, const apf_option *options, emu_card **card, apf_error *err);
int emu_describe(emu_card *card, apf_device_info *info, apf_error *err);
void emu_close(emu_card *card);
int emu_counters(emu_card *card, apf_counters *counters, apf_error *err);
int emu_control(emu_card *card, const char *key, const char *value, apf_error *err);
/* Give a reference back; the last one frees the card. Without the lock. */
void emu_card_drop(emu_card *card);

#endif
