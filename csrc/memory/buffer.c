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
