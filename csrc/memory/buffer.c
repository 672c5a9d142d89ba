/* Buffers: counted host memory. */
#include "memory.h"

#include <string.h>

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

size_t apf_buffer_size(const apf_buffer *buffer) { return __atomic_load_n(&buffer->size, __ATOMIC_RELAXED); }

size_t apf_buffer_capacity(const apf_buffer *buffer) { return buffer->capacity; }

uint32_t apf_buffer_flags(const apf_buffer *buffer) { return buffer->flags; }

int64_t apf_buffer_refs(const apf_buffer *buffer) { return __atomic_load_n(&buffer->refs, __ATOMIC_ACQUIRE); }

int apf_buffer_claim(apf_buffer *buffer)
{
    int64_t one = 1;
    return __atomic_compare_exchange_n(&buffer->refs, &one, APF_CLAIMED, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void apf_buffer_unclaim(apf_buffer *buffer) { __atomic_store_n(&buffer->refs, 1, __ATOMIC_RELEASE); }

int apf_buffer_grow(apf_buffer *buffer, size_t size, apf_buffer **larger, apf_error *err)
{
    if (buffer->flags & (APF_BUFFER_FOREIGN | APF_BUFFER_MAPPED))
        return apf_fail(err, APF_INVALID, 0, "cannot resize a buffer of %zu bytes: its memory is not the pool's",
                        buffer->size);
    if (size <= buffer->capacity) {
        __atomic_store_n(&buffer->size, size, __ATOMIC_RELAXED);
        return APF_OK;
    }
    const int code = apf_pool_take(size, larger, err);
    if (code == APF_OK) memcpy((*larger)->data, buffer->data, buffer->size);
    return code;
}

int apf_buffer_resize(apf_buffer **buffer, size_t size, apf_error *err)
{
    apf_buffer *old = *buffer, *larger = NULL;
    if (!apf_buffer_claim(old))
        return apf_fail(err, APF_BUSY, 0, "cannot resize a buffer of %zu bytes: a run or a view uses it",
                        apf_buffer_size(old));
    const int code = apf_buffer_grow(old, size, &larger, err);
    apf_buffer_unclaim(old);
    if (larger) {
        *buffer = larger;
        apf_buffer_release(old);
    }
    return code;
}
