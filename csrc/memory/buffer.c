/* Buffers: counted host memory, and the registry that finds the buffer behind an address. */
#include "runtime/internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* -- registry: live buffers in order of address, so that an array of any kind finds its memory -- */

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

/* Add a reference unless there are none left. */
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
    pthread_rwlock_rdlock(&registry_lock);
    size_t at = registry_upper(start);
    if (at) {
        apf_buffer *candidate = registry[at - 1];
        size_t offset = (size_t)(start - candidate->data);
        if (offset <= candidate->size && size <= candidate->size - offset && retain_alive(candidate)) found = candidate;
    }
    pthread_rwlock_unlock(&registry_lock);
    return found;
}

void apf_registry_fork_prepare(void) { pthread_rwlock_rdlock(&registry_lock); }

void apf_registry_fork_done(void) { pthread_rwlock_unlock(&registry_lock); }

/* -- buffers -- */

int apf_buffer_new(size_t size, apf_buffer **buffer, apf_error *err) { return apf_pool_take(size, buffer, err); }

int apf_buffer_wrap(void *data, size_t size, int readonly, apf_buffer **buffer, apf_error *err)
{
    apf_buffer *made = apf_calloc(1, sizeof *made);
    if (!made) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a buffer object");
    made->data = data;
    made->size = made->capacity = size;
    made->flags = APF_BUFFER_FOREIGN | (readonly ? APF_BUFFER_READONLY : 0);
    made->refs = 1;
    apf_live_add(buffers, 1);
    *buffer = made;
    return APF_OK;
}

void apf_buffer_retain(apf_buffer *buffer) { __atomic_add_fetch(&buffer->refs, 1, __ATOMIC_RELAXED); }

void apf_buffer_release(apf_buffer *buffer)
{
    if (!buffer || __atomic_sub_fetch(&buffer->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    apf_live_add(buffers, -1);
    if (buffer->flags & (APF_BUFFER_FOREIGN | APF_BUFFER_MAPPED))
        apf_buffer_destroy(buffer);
    else
        apf_pool_give(buffer);
}

void apf_buffer_destroy(apf_buffer *buffer)
{
    apf_attachments_drop(buffer);
    if (!(buffer->flags & APF_BUFFER_FOREIGN)) apf_registry_remove(buffer);
    if (!(buffer->flags & (APF_BUFFER_FOREIGN | APF_BUFFER_SLAB))) apf_pages_unmap(buffer->data, buffer->capacity);
    apf_free(buffer);
}

void *apf_buffer_data(const apf_buffer *buffer) { return buffer->data; }

size_t apf_buffer_size(const apf_buffer *buffer) { return buffer->size; }

size_t apf_buffer_capacity(const apf_buffer *buffer) { return buffer->capacity; }

uint32_t apf_buffer_flags(const apf_buffer *buffer) { return buffer->flags; }

uint64_t apf_buffer_refs(const apf_buffer *buffer)
{
    return (uint64_t)__atomic_load_n(&buffer->refs, __ATOMIC_ACQUIRE);
}

int apf_buffer_resize(apf_buffer **buffer, size_t size, apf_error *err)
{
    apf_buffer *old = *buffer;
    if (apf_buffer_refs(old) > 1)
        return apf_fail(err, APF_BUSY, 0, "cannot resize a buffer of %zu bytes: a run or a view uses it", old->size);
    if (old->flags & (APF_BUFFER_FOREIGN | APF_BUFFER_MAPPED))
        return apf_fail(err, APF_INVALID, 0, "cannot resize a buffer of %zu bytes: its memory is not the pool's",
                        old->size);
    if (size <= old->capacity) {
        old->size = size;
        return APF_OK;
    }
    apf_buffer *larger;
    int code = apf_pool_take(size, &larger, err);
    if (code != APF_OK) return code;
    memcpy(larger->data, old->data, old->size);
    apf_buffer_release(old);
    *buffer = larger;
    return APF_OK;
}
