/* Forking: a child has a copy of the parent's memory, but neither its threads nor its devices. */
#include "runtime.h"

static uint32_t generation;

static void before(void)
{
    apf_drivers_fork_prepare();
    apf_objects_fork_prepare();
    apf_pool_fork_prepare();
    apf_registry_fork_prepare();
}

static void after_in_parent(void)
{
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
