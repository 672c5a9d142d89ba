/* gunzip(src, dst, bytes, skip, capacity, state, first, last, report): gzip data (RFC 1952) of any number of members,
 * over any number of runs. A run begins `skip` bytes into src: what earlier runs over the same data consumed.
 *
 * As gzip does, zero bytes after a member are skipped (tapes pad with them); anything else there is an error.
 * Everything that is kept between runs is in the state buffer. */
#include "models.h"

#include <stddef.h>
#include <string.h>
#include <zlib.h>

#define SLICE (1u << 20) /* bytes for one call of zlib */

enum phase { BEGIN = 1, MEMBER, BETWEEN };

typedef struct stream_state {
    uint64_t self;  /* its own address while it is valid: zlib's memory holds pointers into itself */
    uint64_t phase; /* enum phase */
    uint64_t consumed;
    uint64_t used, size; /* of the arena */
    z_stream stream;
    _Alignas(max_align_t) uint8_t arena[]; /* zlib's memory */
} stream_state;

/* The remaining input and output of one run. */
typedef struct part {
    const uint8_t *in, *in_end;
    uint8_t *out, *out_end;
} part;

/* -- the state's memory -- */

static void *arena_take(void *context, uInt count, uInt size)
{
    stream_state *state = context;
    const uint64_t align = _Alignof(max_align_t);
    const uint64_t bytes = ((uint64_t)count * size + align - 1) / align * align;
    if (bytes > state->size - state->used) return Z_NULL;
    void *memory = state->arena + state->used;
    state->used += bytes;
    return memory;
}

/* zlib's memory is released all at once, when the next stream begins. */
static void arena_leave(void *context, void *memory)
{
    (void)context;
    (void)memory;
}

static int begin(const apf_model_arg *arg, apf_error *err)
{
    stream_state *state = arg->data;
    memset(state, 0, sizeof *state);
    state->self = (uintptr_t)state;
    state->phase = BEGIN;
    state->size = arg->size - sizeof *state;
    state->stream.zalloc = arena_take;
    state->stream.zfree = arena_leave;
    state->stream.opaque = state;
    const int result = inflateInit2(&state->stream, 15 + 16); /* any window, in gzip's frame */
    if (result != Z_OK)
        return apf_fail(err, APF_KERNEL, 0, "zlib: %s (state has %llu bytes, expected %d)", zError(result),
                        (unsigned long long)arg->size, APF_GUNZIP_STATE);
    return APF_OK;
}

/* -- data -- */

static int fail_data(stream_state *state, const char *what, apf_error *err)
{
    state->self = 0;
    return apf_fail(err, APF_KERNEL, 0, "damaged gzip data: %s at byte %llu", what,
                    (unsigned long long)state->consumed);
}

/* Between members: skip padding, begin the next member. */
static int next_member(stream_state *state, part *left, apf_error *err)
{
    for (; left->in < left->in_end && !*left->in; left->in++) state->consumed++;
    if (left->in == left->in_end) return APF_OK;
    if (*left->in != 0x1f) return fail_data(state, "other data follows the gzip data", err);
    inflateReset(&state->stream);
    state->phase = MEMBER;
    return APF_OK;
}

static int inflate_some(stream_state *state, part *left, apf_error *err)
{
    z_stream *stream = &state->stream;
    const size_t in = (size_t)(left->in_end - left->in), out = (size_t)(left->out_end - left->out);
    stream->next_in = (Bytef *)(uintptr_t)left->in;
    stream->avail_in = in < SLICE ? (uInt)in : SLICE;
    stream->next_out = left->out;
    stream->avail_out = out < SLICE ? (uInt)out : SLICE;
    const int result = inflate(stream, Z_NO_FLUSH);
    state->consumed += (uint64_t)(stream->next_in - left->in);
    left->in = stream->next_in;
    left->out = stream->next_out;
    if (result == Z_STREAM_END) state->phase = BETWEEN;
    /* Z_BUF_ERROR: zlib can make no progress with this input and output space. */
    if (result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR) return APF_OK;
    return fail_data(state, stream->msg ? stream->msg : zError(result), err);
}

/* Inflate until all input is consumed or the output is full. */
static int inflate_part(stream_state *state, part *left, uint64_t *status, const volatile int *cancelled,
                        apf_error *err)
{
    int code = APF_OK;
    *status = APF_GUNZIP_DONE;
    while (code == APF_OK && !apf_model_stopped(cancelled)) {
        if (state->phase == BEGIN && left->in < left->in_end) state->phase = MEMBER;
        if (state->phase == BETWEEN && (code = next_member(state, left, err)) != APF_OK) break;
        if (state->phase != MEMBER) break; /* no input */
        const part before = *left;
        if ((code = inflate_some(state, left, err)) != APF_OK || state->phase != MEMBER) continue;
        if (left->out == left->out_end) {
            *status = APF_GUNZIP_FULL;
            break;
        }
        if (left->in == before.in && left->out == before.out) break; /* more input is needed */
    }
    return code;
}

static int gunzip(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                  apf_error *err)
{
    (void)context;
    (void)count;
    uint64_t bytes, skip, capacity, first, last, status;
    int code = apf_model_count(&args[2], "bytes", &bytes, err);
    if (code == APF_OK) code = apf_model_count(&args[3], "skip", &skip, err);
    if (code == APF_OK) code = apf_model_count(&args[4], "capacity", &capacity, err);
    if (code == APF_OK) code = apf_model_count(&args[6], "first", &first, err);
    if (code == APF_OK) code = apf_model_count(&args[7], "last", &last, err);
    if (code == APF_OK && skip > bytes)
        code = apf_fail(err, APF_KERNEL, 0, "skip is %llu: expected at most bytes = %llu", (unsigned long long)skip,
                        (unsigned long long)bytes);
    if (code == APF_OK) code = apf_model_fits(&args[0], "src", bytes, 1, err);
    if (code == APF_OK) code = apf_model_fits(&args[1], "dst", capacity, 1, err);
    if (code == APF_OK) code = apf_model_fits(&args[5], "state", 1, sizeof(stream_state), err);
    if (code == APF_OK) code = apf_model_fits(&args[8], "report", APF_REPORT_COUNT, sizeof(uint64_t), err);
    if (code == APF_OK && first && !skip) code = begin(&args[5], err);
    if (code != APF_OK) return code;
    stream_state *state = args[5].data;
    if (state->self != (uintptr_t)state)
        return apf_fail(err, APF_KERNEL, 0, "the state holds no gzip stream: the first run was not made, or it failed");
    const uint8_t *src = args[0].data;
    uint8_t *dst = args[1].data;
    part left = {src + skip, src + bytes, dst, dst + capacity};
    code = inflate_part(state, &left, &status, cancelled, err);
    if (code == APF_OK && last && status == APF_GUNZIP_DONE && state->phase != BETWEEN)
        code = fail_data(state, state->phase == BEGIN ? "it is empty" : "it ends too early", err);
    if (code == APF_OK)
        apf_model_report(&args[8], (uint64_t)(left.in - src) - skip, (uint64_t)(left.out - dst), status);
    return code;
}

const apf_model_entry apf_models_gunzip[] = {{"gunzip", gunzip, NULL, "bbsssbssb", 0, NULL, NULL}, {0}};
