/* loopback and trng: the simplest models, one with an input and one without. */
#include "models.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define COPY_SLICE (8ull << 20)
#define RANDOM_SLICE (256ull << 10)

/* loopback(src, dst, bytes): dst = src. */
static int loopback(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                    apf_error *err)
{
    (void)context;
    (void)count;
    uint64_t bytes;
    int code = apf_model_count(&args[2], "bytes", &bytes, err);
    if (code == APF_OK) code = apf_model_fits(&args[0], "src", bytes, 1, err);
    if (code == APF_OK) code = apf_model_fits(&args[1], "dst", bytes, 1, err);
    const uint8_t *from = args[0].data;
    uint8_t *to = args[1].data;
    for (uint64_t at = 0; code == APF_OK && at < bytes && !apf_model_stopped(cancelled); at += COPY_SLICE)
        memmove(to + at, from + at, bytes - at < COPY_SLICE ? bytes - at : COPY_SLICE);
    return code;
}

/* trng(dst, bytes): random bytes from the operating system. */
static int trng(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled, apf_error *err)
{
    (void)context;
    (void)count;
    uint64_t bytes;
    int code = apf_model_count(&args[1], "bytes", &bytes, err);
    if (code == APF_OK) code = apf_model_fits(&args[0], "dst", bytes, 1, err);
    uint8_t *to = args[0].data;
    for (uint64_t at = 0; code == APF_OK && at < bytes && !apf_model_stopped(cancelled);) {
        const ssize_t got = getrandom(to + at, bytes - at < RANDOM_SLICE ? bytes - at : RANDOM_SLICE, 0);
        if (got >= 0)
            at += (uint64_t)got;
        else if (errno != EINTR)
            code = apf_fail(err, APF_KERNEL, errno, "getrandom");
    }
    return code;
}

const apf_model_entry apf_models_basic[] = {
    {"loopback", loopback, NULL, "bbs", 128 << 10, NULL, NULL},
    {"trng", trng, NULL, "bs", 8 << 10, NULL, NULL},
    {0},
};
