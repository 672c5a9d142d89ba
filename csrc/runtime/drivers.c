/* The list of drivers: built in, or loaded from a third party's shared library. */
#include "runtime.h"

#include <dlfcn.h>
#include <string.h>

enum { MOST = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const apf_driver *drivers[MOST] = {
    &apf_driver_emulator, &apf_driver_opencl, &apf_driver_xrt, &apf_driver_xdma, &apf_driver_rtl,
};

void apf_drivers_fork_prepare(void) { pthread_mutex_lock(&lock); }

void apf_drivers_fork_done(void) { pthread_mutex_unlock(&lock); }

const apf_driver *apf_driver_at(uint32_t index)
{
    pthread_mutex_lock(&lock);
    const apf_driver *driver = index < MOST ? drivers[index] : NULL;
    pthread_mutex_unlock(&lock);
    return driver;
}

const apf_driver *apf_driver_find(const char *name)
{
    const apf_driver *driver;
    for (uint32_t i = 0; (driver = apf_driver_at(i)); i++)
        if (!strcmp(driver->name, name)) return driver;
    return NULL;
}

static int add(const apf_driver *driver, const char *path, apf_error *err)
{
    pthread_mutex_lock(&lock);
    uint32_t i = 0;
    while (i < MOST && drivers[i] && strcmp(drivers[i]->name, driver->name)) i++;
    int code = APF_OK;
    if (i == MOST)
        code = apf_fail(err, APF_NO_MEMORY, 0, "%s: more than %d drivers", path, MOST);
    else if (!drivers[i])
        drivers[i] = driver;
    else if (drivers[i] != driver)
        code = apf_fail(err, APF_INVALID, 0, "%s: there is another driver named '%s'", path, driver->name);
    pthread_mutex_unlock(&lock);
    return code;
}

int apf_driver_load(const char *path, const apf_driver **loaded, apf_error *err)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* never closed: its devices may exist until exit */
    if (!library) return apf_fail(err, APF_NO_LIBRARY, 0, "%s", dlerror());
    apf_driver_entry entry;
    *(void **)&entry = dlsym(library, "apf_driver_v1");
    if (!entry) return apf_fail(err, APF_UNSUPPORTED, 0, "%s: no driver: it does not export apf_driver_v1", path);
    const apf_driver *driver = entry();
    if (!driver || driver->abi != APF_DRIVER_ABI || driver->size < APF_DRIVER_SIZE_MIN)
        return apf_fail(err, APF_UNSUPPORTED, 0, "%s: driver ABI %u, expected %u", path, driver ? driver->abi : 0,
                        APF_DRIVER_ABI);
    int code = add(driver, path, err);
    if (code == APF_OK) *loaded = driver;
    return code;
}
