/* Raw pages for the pool: mapped, faulted in at once, and locked if the process is allowed to. */
#include "memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; glibc older than the kernel lacks the name */
#endif

static void fault_in(uint8_t *data, size_t size)
{
    if (madvise(data, size, MADV_POPULATE_WRITE) == 0) return;
    for (size_t at = 0; at < size; at += APF_PAGE) ((volatile uint8_t *)data)[at] = 0;
}

/* Pages of at least `size` bytes (a multiple of the page). Large ones are aligned to a huge page and request huge
 * pages: first touch costs a third of the time, and mlock of them next to nothing (bench/cards/bench_memory.py). */
void *apf_pages_map(size_t size, uint32_t *flags, apf_error *err)
{
    const int huge = size >= APF_HUGE_PAGE;
    const size_t slack = huge ? APF_HUGE_PAGE : 0;
    uint8_t *mapped = MAP_FAILED;
    if (!apf_allocation_fails())
        mapped = mmap(NULL, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
        apf_fail(err, APF_NO_MEMORY, ENOMEM, "cannot map %zu bytes of host memory", size);
        return NULL;
    }
    uint8_t *data = mapped;
    if (huge) {
        size_t before = -(uintptr_t)mapped & (APF_HUGE_PAGE - 1);
        if (before) munmap(mapped, before);
        data += before;
        if (slack - before) munmap(data + size, slack - before);
        if (madvise(data, size, MADV_HUGEPAGE) == 0) *flags |= APF_BUFFER_HUGE;
    }
    fault_in(data, size);
    if (mlock(data, size) == 0) *flags |= APF_BUFFER_LOCKED;
    apf_live_add(mappings, 1);
    return data;
}

void apf_pages_unmap(void *data, size_t size)
{
    munmap(data, size);
    apf_live_add(mappings, -1);
}
