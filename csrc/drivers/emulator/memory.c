/* Device memory of the software card.
 *
 * Its pages are never shared with host memory. Each allocation is filled with poison, so that data that was never
 * transferred is visible. Mapping fresh pages costs far more than filling them, so freed blocks are kept, up to
 * `idle_memory`. Large blocks are not kept; they use memory only for the pages that are written.
 */
#include "emulator.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { POISON = 0xA5 };

#define PAGE 4096ull
#define HUGE_PAGE (2ull << 20)
#define LARGE (256ull << 20) /* not kept from this size on; poisoned at first access */

/* -- blocks -- */

/* Sizes in steps of at most a quarter, so that a block fits the next request of about its size. */
static uint64_t block_capacity(uint64_t size)
{
    if (size <= PAGE) return PAGE;
    const uint64_t step = 1ull << (63 - __builtin_clzll(size - 1)) >> 2;
    const uint64_t unit = step > PAGE ? step : PAGE;
    return (size + unit - 1) / unit * unit;
}

static void *map_pages(uint64_t capacity)
{
    void *data = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data != MAP_FAILED && capacity >= HUGE_PAGE) madvise(data, capacity, MADV_HUGEPAGE); /* a failure is harmless */
    return data;
}

/* Create a file of poison. Returns its descriptor, or -1 if the system has no memory for it. */
static int poison_file(uint64_t size)
{
    const int file = memfd_create("apyfal-emulator", MFD_CLOEXEC);
    if (file < 0) return -1;
    void *data =
        ftruncate(file, (off_t)size) ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) {
        close(file);
        return -1;
    }
    memset(data, POISON, size);
    munmap(data, size);
    return file;
}

/* Memory that reads as poison until it is written: adjacent private maps of one small file of poison. A page uses
 * memory only once it is written. */
static void *map_poison(uint64_t capacity)
{
    const uint64_t piece = capacity >> 11 > HUGE_PAGE ? capacity >> 11 & ~(PAGE - 1) : HUGE_PAGE; /* about 2048 maps */
    const int file = poison_file(piece);
    if (file < 0) return MAP_FAILED;
    const int flags = MAP_PRIVATE | MAP_NORESERVE, protection = PROT_READ | PROT_WRITE;
    uint8_t *data = mmap(NULL, capacity, protection, flags | MAP_ANONYMOUS, -1, 0);
    for (uint64_t at = 0; data != MAP_FAILED && at < capacity; at += piece) {
        const uint64_t size = capacity - at < piece ? capacity - at : piece;
        if (mmap(data + at, size, protection, flags | MAP_FIXED, file, 0) != MAP_FAILED) continue;
        munmap(data, capacity);
        data = MAP_FAILED;
    }
    close(file);
    return data;
}

static emu_block *block_map(emu_card *card, uint64_t capacity, apf_error *err)
{
    emu_block *block = apf_calloc(1, sizeof *block);
    if (!block) {
        apf_fail(err, APF_NO_MEMORY, 0, "no memory for a block of device memory");
        return NULL;
    }
    void *data = MAP_FAILED;
    if (apf_allocation_fails())
        data = MAP_FAILED;
    else if (card->memory.arena) {
        pthread_mutex_lock(&card->lock);
        data = emu_arena_take(card->memory.arena, capacity);
        pthread_mutex_unlock(&card->lock);
    } else
        data = capacity >= LARGE ? map_poison(capacity) : map_pages(capacity);
    if (data == MAP_FAILED) {
        apf_fail(err, APF_NO_MEMORY, ENOMEM, "the host does not have %llu bytes to simulate device memory",
                 (unsigned long long)capacity);
        apf_free(block);
        return NULL;
    }
    block->data = data;
    block->capacity = capacity;
    return block;
}

/* Under the lock. */
static void block_unmap(emu_memory *memory, emu_block *block)
{
    if (memory->arena)
        emu_arena_give(memory->arena, block->data, block->capacity);
    else
        munmap(block->data, block->capacity);
    apf_free(block);
}

/* An idle block for `capacity` bytes, or NULL. Under the lock. */
static emu_block *block_reuse(emu_memory *memory, uint64_t capacity)
{
    for (emu_block **at = &memory->free; *at; at = &(*at)->next)
        if ((*at)->capacity == capacity) {
            emu_block *block = *at;
            *at = block->next;
            memory->idle -= capacity;
            return block;
        }
    return NULL;
}

/* Keep a block, or return it to the system if enough are kept. Under the lock. */
static void block_keep(emu_card *card, emu_block *block)
{
    emu_memory *memory = &card->memory;
    if (block->capacity >= LARGE || memory->idle + block->capacity > card->settings.idle_memory) {
        block_unmap(memory, block);
        return;
    }
    memory->idle += block->capacity;
    block->next = memory->free;
    memory->free = block;
}

/* Unmap idle blocks, the oldest first, until at most `keep` bytes are left. Under the lock. */
static void blocks_trim(emu_memory *memory, uint64_t keep)
{
    while (memory->free && memory->idle > keep) {
        emu_block **at = &memory->free;
        while ((*at)->next) at = &(*at)->next;
        memory->idle -= (*at)->capacity;
        block_unmap(memory, *at);
        *at = NULL;
    }
}

/* -- buffer objects -- */

static int fail_full(const emu_card *card, uint64_t size, apf_error *err)
{
    const uint64_t total = card->settings.memory, used = card->memory.used;
    return apf_fail(err, APF_DEVICE_MEMORY, 0, "software card %u: %llu bytes asked for, %llu of %llu are free",
                    card->index, (unsigned long long)size, (unsigned long long)(total > used ? total - used : 0),
                    (unsigned long long)total);
}

/* Reserve `size` bytes of the card's memory, and take an idle block if one fits. */
static int reserve(emu_card *card, uint64_t size, emu_block **block, apf_error *err)
{
    pthread_mutex_lock(&card->lock);
    const uint64_t total = card->settings.memory;
    int code = emu_operation(card, err);
    if (code == APF_OK && emu_due(&card->settings.fail_alloc))
        code = apf_fail(err, APF_DEVICE_MEMORY, 0, "software card %u: injected failure of an allocation", card->index);
    if (code == APF_OK && (size > total || card->memory.used > total - size)) code = fail_full(card, size, err);
    if (code == APF_OK) {
        card->memory.used += size;
        const uint64_t capacity = block_capacity(size);
        *block = block_reuse(&card->memory, capacity);
        if (!*block && card->memory.idle + capacity > card->settings.idle_memory)
            blocks_trim(&card->memory, card->settings.idle_memory / 2);
    }
    pthread_mutex_unlock(&card->lock);
    return code;
}

static void unreserve(emu_card *card, uint64_t size)
{
    pthread_mutex_lock(&card->lock);
    card->memory.used -= size;
    pthread_mutex_unlock(&card->lock);
}

static void bo_link(apf_drv_bo *bo)
{
    emu_card *card = bo->card;
    pthread_mutex_lock(&card->lock);
    bo->next = card->memory.bos;
    if (bo->next) bo->next->previous = bo;
    card->memory.bos = bo;
    pthread_mutex_unlock(&card->lock);
}

int emu_alloc(emu_card *card, uint64_t size, uint32_t bank, apf_drv_bo **made, apf_error *err)
{
    (void)bank; /* there is one */
    apf_drv_bo *bo = apf_calloc(1, sizeof *bo);
    if (!bo) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a buffer object");
    int code = reserve(card, size, &bo->block, err);
    if (code != APF_OK) {
        apf_free(bo);
        return code;
    }
    if (!bo->block && !(bo->block = block_map(card, block_capacity(size), err))) {
        unreserve(card, size);
        apf_free(bo);
        return APF_NO_MEMORY;
    }
    if (bo->block->capacity < LARGE || card->memory.arena) memset(bo->block->data, POISON, size);
    bo->card = card;
    bo->size = size;
    bo->refs = 1;
    bo_link(bo);
    *made = bo;
    return APF_OK;
}

int emu_import(emu_card *card, void *data, uint64_t size, uint32_t readonly, uint32_t bank, apf_drv_bo **bo,
               apf_error *err)
{
    pthread_mutex_lock(&card->lock);
    const uint64_t align = card->settings.import_align;
    const int read_only_too = card->settings.read_only_import != 0;
    pthread_mutex_unlock(&card->lock);
    if (!data) return apf_fail(err, APF_INVALID, 0, "software card %u: no memory to import", card->index);
    if ((uintptr_t)data % align)
        return apf_fail(err, APF_MISALIGNED, 0, "software card %u: address %p is not a multiple of %llu", card->index,
                        data, (unsigned long long)align);
    if (readonly && !read_only_too)
        return apf_fail(err, APF_READ_ONLY, 0, "software card %u: imports only memory that can be written",
                        card->index);
    int code = emu_alloc(card, size, bank, bo, err);
    if (code != APF_OK) return code;
    (*bo)->host = data;
    (*bo)->readonly = readonly != 0;
    return APF_OK;
}

static void bo_end(apf_drv_bo *bo)
{
    emu_memory *memory = &bo->card->memory;
    if (bo->next) bo->next->previous = bo->previous;
    *(bo->previous ? &bo->previous->next : &memory->bos) = bo->next;
    memory->used -= bo->size;
    block_keep(bo->card, bo->block);
    apf_free(bo);
}

void emu_bo_drop(apf_drv_bo *bo)
{
    if (--bo->refs == 0) bo_end(bo);
}

void emu_free(apf_drv_bo *bo)
{
    emu_card *card = bo->card;
    pthread_mutex_lock(&card->lock);
    emu_bo_drop(bo);
    pthread_mutex_unlock(&card->lock);
}

void emu_memory_end(emu_card *card)
{
    while (card->memory.bos) bo_end(card->memory.bos);
    blocks_trim(&card->memory, 0);
    if (card->memory.arena) emu_arena_end(card->memory.arena);
}
