#include "apyfal.h"

#include <stdlib.h>

apf_live apf_live_now;

apf_live apf_live_get(void)
{
    apf_live now;
    const int64_t *from = (const int64_t *)&apf_live_now;
    int64_t *to = (int64_t *)&now;
    for (size_t i = 0; i < sizeof now / sizeof *to; i++) to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    return now;
}

static int64_t failing = -1; /* allocations until the injected failure; negative: none */
static uint64_t made;

uint64_t apf_fail_allocation(int64_t n)
{
    __atomic_store_n(&failing, n, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&made, __ATOMIC_RELAXED);
}

int apf_allocation_fails(void)
{
    __atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
    if (__atomic_load_n(&failing, __ATOMIC_RELAXED) < 0) return 0;
    return __atomic_fetch_sub(&failing, 1, __ATOMIC_SEQ_CST) == 0;
}

void *apf_calloc(size_t count, size_t size) { return apf_allocation_fails() ? NULL : calloc(count, size); }

void apf_free(void *memory) { free(memory); }
