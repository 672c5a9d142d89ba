/* The pool: memory is faulted in and locked once, and reused (first touch of fresh memory costs five to twenty-five
 * times a memcpy of it). Free memory is kept by size class, last in first out; small classes are cut from slabs, since
 * each separate mapping would cost a kernel object (vm.max_map_count is 65530). */
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    STEPS = 4,        /* classes in a doubling: at most a fifth of a block is unused */
    FIRST_SHIFT = 12, /* the smallest class is one page */
    LAST_SHIFT = 47,  /* user address space */
    CLASSES = (LAST_SHIFT - FIRST_SHIFT) * STEPS + 1,
    SLAB = APF_HUGE_PAGE,
    SMALL = 128 << 10, /* up to this, blocks are cut from slabs */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static apf_buffer *idle[CLASSES];
static apf_pool_stats stats;
static uint64_t slab_idle; /* idle bytes that cannot be returned to the system */

static uint64_t default_limit(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 2 : UINT64_MAX;
}

static uint64_t limit_locked(void) { return stats.limit ? stats.limit : (stats.limit = default_limit()); }

/* The class of `size` and the bytes of its blocks: 1, 1.25, 1.5, 1.75 times a power of two, in whole pages. */
static uint32_t class_of(size_t size, size_t *bytes)
{
    if (size <= APF_PAGE) {
        *bytes = APF_PAGE;
        return 0;
    }
    unsigned shift = 63u - (unsigned)__builtin_clzll(size - 1); /* 2^shift <= size - 1 */
    size_t step = ((size_t)1 << shift) / STEPS;
    size_t steps = (size - ((size_t)1 << shift) + step - 1) / step;
    *bytes = (((size_t)1 << shift) + steps * step + APF_PAGE - 1) & ~(size_t)(APF_PAGE - 1);
    return (shift - FIRST_SHIFT) * STEPS + (uint32_t)steps;
}

/* -- new memory -- */

static apf_buffer *describe(void *data, size_t capacity, uint32_t flags, uint32_t size_class, apf_error *err)
{
    apf_buffer *buffer = apf_calloc(1, sizeof *buffer);
    if (!buffer) {
        apf_fail(err, APF_NO_MEMORY, 0, "no memory for a buffer object");
        return NULL;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    buffer->flags = flags;
    buffer->size_class = size_class;
    if (apf_registry_add(buffer, err) != APF_OK) {
        apf_free(buffer);
        return NULL;
    }
    return buffer;
}

static void count_new(const apf_buffer *buffer)
{
    stats.growths++;
    if (buffer->flags & APF_BUFFER_LOCKED) stats.locked += buffer->capacity;
}

/* A block with a separate mapping. */
static apf_buffer *new_large(size_t bytes, uint32_t size_class, apf_error *err)
{
    uint32_t flags = 0;
    void *data = apf_pages_map(bytes, &flags, err);
    if (!data) return NULL;
    apf_buffer *buffer = describe(data, bytes, flags, size_class, err);
    if (!buffer) apf_pages_unmap(data, bytes);
    return buffer;
}

/* A slab's first block; the others go to the free list (as many as there is memory to describe). */
static apf_buffer *new_small(size_t bytes, uint32_t size_class, apf_error *err)
{
    uint32_t flags = APF_BUFFER_SLAB;
    uint8_t *slab = apf_pages_map(SLAB, &flags, err);
    if (!slab) return NULL;
    apf_buffer *first = describe(slab, bytes, flags, size_class, err);
    if (!first) {
        apf_pages_unmap(slab, SLAB);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    for (size_t at = bytes; at + bytes <= SLAB; at += bytes) {
        apf_buffer *more = describe(slab + at, bytes, flags, size_class, NULL);
        if (!more) break;
        more->next = idle[size_class];
        idle[size_class] = more;
        stats.idle += bytes;
        slab_idle += bytes;
        if (flags & APF_BUFFER_LOCKED) stats.locked += bytes;
    }
    pthread_mutex_unlock(&lock);
    return first;
}

/* -- allocate and free -- */

/* Unlink idle blocks, largest first, until at most `keep` idle bytes are left; the caller destroys the list. */
static apf_buffer *unlink_idle(uint64_t keep)
{
    apf_buffer *gone = NULL;
    size_t smallest;
    for (uint32_t c = CLASSES; c-- > class_of(SMALL + 1, &smallest);)
        while (idle[c] && stats.idle > keep) {
            apf_buffer *buffer = idle[c];
            idle[c] = buffer->next;
            stats.idle -= buffer->capacity;
            if (buffer->flags & APF_BUFFER_LOCKED) stats.locked -= buffer->capacity;
            buffer->next = gone;
            gone = buffer;
        }
    return gone;
}

static void destroy_list(apf_buffer *buffer)
{
    while (buffer) {
        apf_buffer *next = buffer->next;
        apf_buffer_destroy(buffer);
        buffer = next;
    }
}

static apf_buffer *take_idle(uint32_t size_class)
{
    apf_buffer *buffer = idle[size_class];
    if (!buffer) return NULL;
    idle[size_class] = buffer->next;
    stats.idle -= buffer->capacity;
    if (buffer->flags & APF_BUFFER_SLAB) slab_idle -= buffer->capacity;
    stats.reuses++;
    return buffer;
}

int apf_pool_take(size_t size, apf_buffer **taken, apf_error *err)
{
    if (size > (size_t)1 << (LAST_SHIFT - 1))
        return apf_fail(err, APF_NO_MEMORY, 0, "cannot allocate a buffer of %zu bytes", size);
    size_t bytes;
    uint32_t size_class = class_of(size, &bytes);

    pthread_mutex_lock(&lock);
    apf_buffer *buffer = take_idle(size_class), *gone = NULL;
    uint64_t limit = limit_locked(), others = stats.used;
    stats.used += bytes; /* reserved before the unlock, so that two threads cannot both take the same space */
    if (!buffer && others + stats.idle + bytes > limit)
        gone = unlink_idle(limit > others + bytes ? limit - others - bytes : 0);
    const int over = !buffer && others + stats.idle + bytes > limit + slab_idle;
    if (over) stats.used -= bytes;
    pthread_mutex_unlock(&lock);

    destroy_list(gone);
    if (over)
        return apf_fail(err, APF_NO_MEMORY, 0,
                        "the pool of pinned memory is full: %zu bytes asked for, %llu in use, limit %llu", size,
                        (unsigned long long)others, (unsigned long long)limit);
    if (!buffer) {
        buffer = bytes <= SMALL ? new_small(bytes, size_class, err) : new_large(bytes, size_class, err);
        pthread_mutex_lock(&lock);
        if (buffer)
            count_new(buffer);
        else
            stats.used -= bytes;
        pthread_mutex_unlock(&lock);
        if (!buffer) return APF_NO_MEMORY;
    }
    __atomic_store_n(&buffer->size, size, __ATOMIC_RELAXED);
    buffer->next = NULL;
    __atomic_store_n(&buffer->refs, 1, __ATOMIC_RELEASE);
    apf_live_add(buffers, 1);
    *taken = buffer;
    return APF_OK;
}

void apf_pool_give(apf_buffer *buffer)
{
    pthread_mutex_lock(&lock);
    stats.used -= buffer->capacity;
    stats.idle += buffer->capacity;
    if (buffer->flags & APF_BUFFER_SLAB) slab_idle += buffer->capacity;
    buffer->next = idle[buffer->size_class];
    idle[buffer->size_class] = buffer;
    uint64_t limit = limit_locked();
    apf_buffer *gone =
        stats.used + stats.idle > limit ? unlink_idle(limit > stats.used ? limit - stats.used : 0) : NULL;
    pthread_mutex_unlock(&lock);
    destroy_list(gone);
}

/* -- settings -- */

void apf_pool_stats_get(apf_pool_stats *out)
{
    pthread_mutex_lock(&lock);
    limit_locked();
    *out = stats;
    pthread_mutex_unlock(&lock);
}

void apf_pool_limit_set(uint64_t bytes)
{
    pthread_mutex_lock(&lock);
    stats.limit = bytes ? bytes : default_limit();
    apf_buffer *gone = stats.used + stats.idle > stats.limit
                           ? unlink_idle(stats.limit > stats.used ? stats.limit - stats.used : 0)
                           : NULL;
    pthread_mutex_unlock(&lock);
    destroy_list(gone);
}

void apf_pool_trim(uint64_t keep)
{
    pthread_mutex_lock(&lock);
    apf_buffer *gone = unlink_idle(keep);
    pthread_mutex_unlock(&lock);
    destroy_list(gone);
}

/* A fork between lock and unlock would leave the child's copy locked for ever. */
void apf_pool_fork_prepare(void) { pthread_mutex_lock(&lock); }

void apf_pool_fork_done(void) { pthread_mutex_unlock(&lock); }
