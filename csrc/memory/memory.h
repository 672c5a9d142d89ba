/* memory.h - shared by the files of memory/, and used by runtime/. */
#ifndef APF_MEMORY_H
#define APF_MEMORY_H

#include "apyfal.h"

#include <pthread.h>

#define APF_PAGE 4096u /* alignment of every buffer, whatever the kernel's page size */
#define APF_HUGE_PAGE (2u << 20)

/* Legal states:
 *   in use   refs > 0; registered; attachments possible
 *   claimed  refs == APF_CLAIMED: of the one reference there is, for a resize or a close; registered, not found
 *   idle     refs == 0, in a free list of the pool; registered; keeps its attachments (pin once, reuse)
 *   gone     memory returned; not registered; no attachments
 * FOREIGN buffers are never registered nor pooled; MAPPED ones never pooled. */
struct apf_buffer {
    uint8_t *data;
    size_t size;     /* as asked for; changed atomically */
    size_t capacity; /* bytes of memory behind it */
    uint32_t flags;
    uint32_t size_class;
    int64_t refs;     /* changed atomically */
    apf_bo *attached; /* drivers' views of this memory, kept for the next use; under objects_lock */
    apf_buffer *next; /* idle: next in the free list */
};

/* buffer_registry.c: live memory by address */
int apf_registry_add(apf_buffer *buffer, apf_error *err);
void apf_registry_remove(apf_buffer *buffer);
void apf_registry_fork_prepare(void);
void apf_registry_fork_done(void);

/* buffer.c */
enum { APF_CLAIMED = -1 }; /* instead of a number of references */
/* Claim the buffer if the caller has its only reference: then true. No other reference can be added until `unclaim`. */
int apf_buffer_claim(apf_buffer *buffer);
void apf_buffer_unclaim(apf_buffer *buffer);
/* Change the size of a claimed buffer, in place or by a copy in another buffer (then *larger is set). */
int apf_buffer_grow(apf_buffer *buffer, size_t size, apf_buffer **larger, apf_error *err);
/* End a buffer without references: drop its attachments, unregister, unmap, free. */
void apf_buffer_destroy(apf_buffer *buffer);

/* pool.c */
int apf_pool_take(size_t size, apf_buffer **buffer, apf_error *err);
void apf_pool_give(apf_buffer *buffer);
void apf_pool_fork_prepare(void);
void apf_pool_fork_done(void);

/* pages.c: raw pages */
void *apf_pages_map(size_t size, uint32_t *flags, apf_error *err);
void apf_pages_unmap(void *data, size_t size);

/* runtime/buffer_object.c: the memory of `buffer` is about to be freed; end the drivers' views of it. */
void apf_attachments_drop(apf_buffer *buffer);

#endif
