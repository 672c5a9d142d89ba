/* Holds: a buffer with one owner that several threads read, view, resize and close. */
#include "memory.h"

/* The thread that was closing or resizing the buffer during a fork does not exist in this process: undo its lock, once.
 */
static void undo(apf_hold *hold)
{
    if (!apf_gate_adopt(&hold->gate)) return;
    if (!hold->buffer) {
        apf_gate_unlock_closed(&hold->gate);
        return;
    }
    if (apf_buffer_refs(hold->buffer) == APF_CLAIMED) apf_buffer_unclaim(hold->buffer);
    apf_gate_unlock(&hold->gate);
}

static int come(apf_hold *hold, int (*how)(apf_gate *gate, int wait), int wait)
{
    int code;
    while ((code = how(&hold->gate, wait)) == APF_FORKED) undo(hold);
    return code;
}

static void fill(const apf_hold *hold, apf_hold_info *info)
{
    const apf_buffer *buffer = hold->buffer;
    info->data = buffer->data;
    info->size = apf_buffer_size(buffer);
    info->capacity = buffer->capacity;
    info->flags = buffer->flags;
}

int apf_hold_view(apf_hold *hold, int wait, apf_hold_info *info)
{
    const int code = come(hold, apf_gate_enter, wait);
    if (code == APF_OK) fill(hold, info);
    return code;
}

void apf_hold_unview(apf_hold *hold) { apf_gate_leave(&hold->gate); }

int apf_hold_look(apf_hold *hold, int wait, apf_hold_info *info)
{
    const int code = come(hold, apf_gate_look, wait);
    if (code != APF_OK) return code;
    fill(hold, info);
    apf_gate_looked(&hold->gate);
    return APF_OK;
}

static int in_use(apf_hold *hold, const char *what, const char *by, apf_error *err)
{
    apf_hold_info info = {0};
    apf_hold_look(hold, 1, &info);
    return apf_fail(err, APF_BUSY, 0, "cannot %s a buffer of %zu bytes: %s", what, info.size, by);
}

/* Lock the buffer exclusively: no view, and no run or other reference. */
static int lock(apf_hold *hold, const char *what, apf_error *err)
{
    int code;
    while ((code = apf_gate_lock(&hold->gate)) == APF_FORKED) undo(hold);
    if (code == APF_BUSY) return in_use(hold, what, "a view of it is alive", err);
    if (code != APF_OK) return apf_fail(err, code, 0, "the buffer is closed");
    if (apf_buffer_claim(hold->buffer)) return APF_OK;
    apf_gate_unlock(&hold->gate);
    return in_use(hold, what, "a run uses it", err);
}

int apf_hold_close(apf_hold *hold, apf_error *err)
{
    const int code = lock(hold, "close", err);
    if (code != APF_OK) return code == APF_CLOSED ? APF_OK : code;
    apf_buffer *buffer = hold->buffer;
    hold->buffer = NULL;
    apf_gate_unlock_closed(&hold->gate);
    apf_buffer_unclaim(buffer);
    apf_buffer_release(buffer);
    return APF_OK;
}

int apf_hold_resize(apf_hold *hold, size_t size, apf_error *err)
{
    int code = lock(hold, "resize", err);
    if (code != APF_OK) return code;
    apf_buffer *old = hold->buffer, *larger = NULL;
    code = apf_buffer_grow(old, size, &larger, err);
    if (larger) hold->buffer = larger;
    apf_buffer_unclaim(old);
    apf_gate_unlock(&hold->gate);
    if (larger) apf_buffer_release(old);
    return code;
}

void apf_hold_end(apf_hold *hold)
{
    apf_gate_close(&hold->gate);
    apf_buffer_release(hold->buffer);
    hold->buffer = NULL;
}
