/* The registry: live buffers sorted by address, so that the buffer that contains an array's memory can be found. */
#include "memory.h"

#include <string.h>

static pthread_rwlock_t registry_lock = PTHREAD_RWLOCK_INITIALIZER;
static apf_buffer **registry;
static size_t registered, registry_room;

/* The number of registered buffers that begin at or below `data`. */
static size_t registry_upper(const uint8_t *data)
{
    size_t low = 0, high = registered;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (registry[middle]->data <= data)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int registry_grow(void)
{
    size_t room = registry_room ? 2 * registry_room : 64;
    apf_buffer **larger = apf_calloc(room, sizeof *larger);
    if (!larger) return APF_NO_MEMORY;
    if (registered) memcpy(larger, registry, registered * sizeof *larger);
    apf_free(registry);
    registry = larger;
    registry_room = room;
    return APF_OK;
}

int apf_registry_add(apf_buffer *buffer, apf_error *err)
{
    pthread_rwlock_wrlock(&registry_lock);
    if (registered == registry_room && registry_grow() != APF_OK) {
        pthread_rwlock_unlock(&registry_lock);
        return apf_fail(err, APF_NO_MEMORY, 0, "no memory to register a buffer of %zu bytes", buffer->size);
    }
    size_t at = registry_upper(buffer->data);
    memmove(registry + at + 1, registry + at, (registered - at) * sizeof *registry);
    registry[at] = buffer;
    registered++;
    pthread_rwlock_unlock(&registry_lock);
    return APF_OK;
}

void apf_registry_remove(apf_buffer *buffer)
{
    pthread_rwlock_wrlock(&registry_lock);
    size_t at = registry_upper(buffer->data);
    if (at && registry[at - 1] == buffer) {
        memmove(registry + at - 1, registry + at, (registered - at) * sizeof *registry);
        registered--;
    }
    pthread_rwlock_unlock(&registry_lock);
}

/* Add a reference unless the count is 0. */
static int retain_alive(apf_buffer *buffer)
{
    int64_t refs = __atomic_load_n(&buffer->refs, __ATOMIC_RELAXED);
    while (refs > 0)
        if (__atomic_compare_exchange_n(&buffer->refs, &refs, refs + 1, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return 1;
    return 0;
}

apf_buffer *apf_buffer_find(const void *data, size_t size)
{
    const uint8_t *start = data;
    apf_buffer *found = NULL;
    size_t offset = 0;
    pthread_rwlock_rdlock(&registry_lock);
    size_t at = registry_upper(start);
    if (at) {
        apf_buffer *candidate = registry[at - 1];
        offset = (size_t)(start - candidate->data);
        if (offset <= candidate->capacity && retain_alive(candidate)) found = candidate;
    }
    pthread_rwlock_unlock(&registry_lock);
    if (!found) return NULL;
    /* The size is only certain with a reference: before, the pool may have handed the buffer out again. */
    const size_t room = apf_buffer_size(found);
    if (offset <= room && size <= room - offset) return found;
    apf_buffer_release(found);
    return NULL;
}

void apf_registry_fork_prepare(void) { pthread_rwlock_rdlock(&registry_lock); }

void apf_registry_fork_done(void) { pthread_rwlock_unlock(&registry_lock); }
