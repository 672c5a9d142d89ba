#include "rig.h"

#include <sys/mman.h>
#include <time.h>

rig rig_open(const char *const *settings)
{
    apf_option options[24] = {{0}};
    for (int i = 0; settings && settings[2 * i]; i++) options[i] = (apf_option){settings[2 * i], settings[2 * i + 1]};
    rig it = {.driver = &apf_driver_emulator};
    CHECK_OK(it.driver->open(NULL, options, &it.device, &it.err), it.err);
    return it;
}

void rig_close(rig *it)
{
    for (int i = 0; i < it->count; i++) {
        if (it->bos[i]) it->driver->free(it->bos[i]);
        if (it->memory[i]) munmap(it->memory[i], it->sizes[i]);
    }
    it->driver->close(it->device);
    CHECK_EQUAL(rig_threads(), 0);
}

void rig_set(rig *it, const char *key, const char *value)
{
    CHECK_OK(it->driver->control(it->device, key, value, &it->err), it->err);
}

apf_drv_kernel *rig_load(rig *it, const char *name, const char *arguments)
{
    apf_drv_kernel *kernel;
    const apf_program program = {.kernel = name, .arguments = arguments};
    CHECK_OK(it->driver->load(it->device, &program, &kernel, &it->err), it->err);
    return kernel;
}

static int rig_add(rig *it, void *memory, size_t size)
{
    const int index = it->count++;
    CHECK(index < RIG_MOST);
    it->memory[index] = memory;
    it->sizes[index] = size;
    if (memory)
        CHECK_OK(it->driver->import(it->device, memory, size, 0, 0, &it->bos[index], &it->err), it->err);
    else
        CHECK_OK(it->driver->alloc(it->device, size, 0, &it->bos[index], &it->err), it->err);
    return index;
}

int rig_import(rig *it, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return rig_add(it, memory, size);
}

int rig_alloc(rig *it, size_t size) { return rig_add(it, NULL, size); }

apf_counters rig_counters(rig *it)
{
    apf_counters counters;
    CHECK_OK(it->driver->counters(it->device, &counters, &it->err), it->err);
    return counters;
}

apf_arg arg_buffer(const rig *it, int index, uint32_t flags)
{
    return (apf_arg){.kind = APF_BUFFER, .flags = flags, .bo = it->bos[index], .size = it->sizes[index]};
}

apf_arg arg_u64(uint64_t value) { return (apf_arg){.kind = APF_U64, .value.u = value}; }

apf_arg arg_f64(double value) { return (apf_arg){.kind = APF_F64, .value.d = value}; }

int rig_run(rig *it, apf_drv_kernel *kernel, const apf_arg *args, uint32_t count)
{
    apf_drv_run *run;
    CHECK_OK(it->driver->start(kernel, args, count, &run, &it->err), it->err);
    const int code = it->driver->wait(run, 60000000000, &it->err);
    it->driver->release(run);
    return code;
}

int64_t rig_threads(void) { return __atomic_load_n(&apf_live_now.threads, __ATOMIC_ACQUIRE); }

uint64_t rig_now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}
