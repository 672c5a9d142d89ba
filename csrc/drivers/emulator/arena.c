/* Device memory that another process can map: one file in memory, cut into extents.
 *
 * Simulated kernels run in separate processes, which map this file to access the card's memory. Page 0 is never
 * allocated: the driver and that process communicate through it.
 */
#include "emulator.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ull

typedef struct extent {
    struct extent *next; /* sorted by offset; never adjacent */
    uint64_t offset, size;
} extent;

struct emu_arena {
    int file;
    uint8_t *data;
    uint64_t size;
    extent *free;
};

emu_arena *emu_arena_new(uint64_t size, apf_error *err)
{
    emu_arena *arena = apf_calloc(1, sizeof *arena);
    extent *whole = arena ? apf_calloc(1, sizeof *whole) : NULL;
    if (!whole) {
        apf_free(arena);
        apf_fail(err, APF_NO_MEMORY, 0, "no memory for the device memory of a simulated card");
        return NULL;
    }
    /* Blocks are rounded up and leave gaps, so reserve half as much again. A page uses memory only once it is written.
     */
    size = (size + size / 2 + (64ull << 20)) & ~(PAGE - 1);
    arena->file = memfd_create("apyfal-rtl", MFD_CLOEXEC);
    arena->data = arena->file >= 0 && !ftruncate(arena->file, (off_t)size)
                      ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, arena->file, 0)
                      : MAP_FAILED;
    if (arena->data == MAP_FAILED) {
        apf_fail(err, APF_NO_MEMORY, errno, "the host does not have %llu bytes to simulate device memory",
                 (unsigned long long)size);
        if (arena->file >= 0) close(arena->file);
        apf_free(whole);
        apf_free(arena);
        return NULL;
    }
    arena->size = size;
    *whole = (extent){.offset = PAGE, .size = size - PAGE};
    arena->free = whole;
    return arena;
}

void emu_arena_end(emu_arena *arena)
{
    munmap(arena->data, arena->size);
    close(arena->file);
    while (arena->free) {
        extent *first = arena->free;
        arena->free = first->next;
        apf_free(first);
    }
    apf_free(arena);
}

void *emu_arena_take(emu_arena *arena, uint64_t size)
{
    for (extent **at = &arena->free; *at; at = &(*at)->next) {
        extent *found = *at;
        if (found->size < size) continue;
        uint8_t *data = arena->data + found->offset;
        found->offset += size;
        found->size -= size;
        if (!found->size) {
            *at = found->next;
            apf_free(found);
        }
        return data;
    }
    return MAP_FAILED;
}

void emu_arena_give(emu_arena *arena, void *data, uint64_t size)
{
    const uint64_t offset = (uint64_t)((uint8_t *)data - arena->data);
    madvise(data, size, MADV_REMOVE); /* return the pages to the system; a failure is harmless */
    extent *before = NULL, *after = arena->free;
    while (after && after->offset < offset) {
        before = after;
        after = after->next;
    }
    if (before && before->offset + before->size == offset)
        before->size += size;
    else {
        extent *fresh = apf_calloc(1, sizeof *fresh);
        if (!fresh) return; /* these addresses are not allocated again */
        *fresh = (extent){.next = after, .offset = offset, .size = size};
        *(before ? &before->next : &arena->free) = fresh;
        before = fresh;
    }
    if (after && before->offset + before->size == after->offset) {
        before->size += after->size;
        before->next = after->next;
        apf_free(after);
    }
}

int emu_arena_file(const emu_arena *arena) { return arena->file; }
uint8_t *emu_arena_data(const emu_arena *arena) { return arena->data; }
