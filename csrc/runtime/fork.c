/* Forking: a child has a copy of the parent's memory, but neither its threads nor its devices. */
#include "runtime.h"

#include <stdlib.h>

enum { MOST = 16 };

static uint32_t generation;
static pthread_mutex_t *guarded[MOST];
static unsigned guards;

void apf_fork_guard(pthread_mutex_t *lock)
{
    if (guards == MOST) abort(); /* a constructor too many: the library cannot be loaded at all */
    guarded[guards++] = lock;
}

static void before(void)
{
    apf_drivers_fork_prepare();
    apf_objects_fork_prepare();
    apf_pool_fork_prepare();
    apf_registry_fork_prepare();
    for (unsigned i = 0; i < guards; i++) pthread_mutex_lock(guarded[i]);
}

static void after_in_parent(void)
{
    for (unsigned i = guards; i--;) pthread_mutex_unlock(guarded[i]);
    apf_registry_fork_done();
    apf_pool_fork_done();
    apf_objects_fork_done();
    apf_drivers_fork_done();
}

static void after_in_child(void)
{
    generation++;
    after_in_parent();
}

__attribute__((constructor)) static void install(void) { pthread_atfork(before, after_in_parent, after_in_child); }

uint32_t apf_fork_generation(void) { return generation; }
