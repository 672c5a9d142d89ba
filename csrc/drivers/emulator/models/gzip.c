/* gzip(src, dst, bytes, capacity, report, level): one whole member (RFC 1952) a run, over zlib, with no name and no
 * time in it, so that equal data gives equal files. */
#include "models.h"

#include <zlib.h>

#define SLICE (1u << 20) /* bytes for one call of zlib */

static uInt slice(uint64_t bytes) { return bytes < SLICE ? (uInt)bytes : SLICE; }

static void *allocate(void *context, uInt count, uInt size)
{
    (void)context;
    return apf_calloc(count, size);
}

static void release(void *context, void *memory)
{
    (void)context;
    apf_free(memory);
}

static int compress_member(z_stream *stream, uint64_t bytes, uint64_t capacity, const volatile int *cancelled,
                           apf_error *err)
{
    int result = Z_OK;
    while (result == Z_OK && !apf_model_stopped(cancelled)) {
        const uint64_t in = bytes - stream->total_in, out = capacity - stream->total_out;
        stream->avail_in = slice(in);
        stream->avail_out = slice(out);
        if (!out) return apf_fail(err, APF_KERNEL, 0, "dst is too small: %llu bytes", (unsigned long long)capacity);
        result = deflate(stream, in <= SLICE ? Z_FINISH : Z_NO_FLUSH);
        /* No progress means that the output space is full; the next iteration provides more or reports it. */
        if (result == Z_BUF_ERROR) result = Z_OK;
    }
    if (result != Z_OK && result != Z_STREAM_END)
        return apf_fail(err, APF_KERNEL, 0, "zlib: %s", stream->msg ? stream->msg : zError(result));
    return APF_OK;
}

static int gzip(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled, apf_error *err)
{
    (void)context;
    (void)count;
    uint64_t bytes, capacity, level;
    int code = apf_model_count(&args[2], "bytes", &bytes, err);
    if (code == APF_OK) code = apf_model_count(&args[3], "capacity", &capacity, err);
    if (code == APF_OK) code = apf_model_count(&args[5], "level", &level, err);
    if (code == APF_OK && level > 9)
        code = apf_fail(err, APF_KERNEL, 0, "level is %llu: expected 0 to 9", (unsigned long long)level);
    if (code == APF_OK) code = apf_model_fits(&args[0], "src", bytes, 1, err);
    if (code == APF_OK) code = apf_model_fits(&args[1], "dst", capacity, 1, err);
    if (code == APF_OK) code = apf_model_fits(&args[4], "report", APF_REPORT_COUNT, sizeof(uint64_t), err);
    if (code != APF_OK) return code;
    z_stream stream = {.zalloc = allocate, .zfree = release, .next_in = args[0].data, .next_out = args[1].data};
    /* 15 + 16: the largest window, in gzip's frame; 8: the default memory. */
    const int result = deflateInit2(&stream, (int)level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    if (result != Z_OK) return apf_fail(err, APF_KERNEL, 0, "zlib: %s", zError(result));
    code = compress_member(&stream, bytes, capacity, cancelled, err);
    if (code == APF_OK) apf_model_report(&args[4], stream.total_in, stream.total_out, 0);
    deflateEnd(&stream);
    return code;
}

const apf_model_entry apf_models_gzip[] = {{"gzip", gzip, NULL, "bbssbs", 0, NULL, NULL}, {0}};
