/* rig.h - a software card, host memory and one kernel, ready for a test; nothing may be alive when it is put away. */
#ifndef RIG_H
#define RIG_H

#include "check.h"

enum { RIG_MOST = 12 };

typedef struct rig {
    const apf_driver *driver;
    apf_drv_device *device;
    apf_error err;
    void *memory[RIG_MOST];
    size_t sizes[RIG_MOST];
    apf_drv_bo *bos[RIG_MOST];
    int count;
} rig;

/* Open a card; `settings` is a NULL-ended list of keys and values, or NULL. */
rig rig_open(const char *const *settings);
void rig_close(rig *it);
void rig_set(rig *it, const char *key, const char *value);
apf_drv_kernel *rig_load(rig *it, const char *name, const char *arguments);
/* `size` bytes of host memory, page-aligned and zero, imported; the index of both. */
int rig_import(rig *it, size_t size);
/* Device memory alone. */
int rig_alloc(rig *it, size_t size);
apf_counters rig_counters(rig *it);

apf_arg arg_buffer(const rig *it, int index, uint32_t flags);
apf_arg arg_u64(uint64_t value);
apf_arg arg_f64(double value);
/* Start, wait, release; the run's result. */
int rig_run(rig *it, apf_drv_kernel *kernel, const apf_arg *args, uint32_t count);

/* Threads of cards that are alive. */
int64_t rig_threads(void);
/* ns, CLOCK_MONOTONIC */
uint64_t rig_now(void);

#endif
