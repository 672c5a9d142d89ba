/* scale(src, dst, count, a, b, type): dst = a * src + b, in the elements' own type, as numpy computes it: integers wrap
 * around, floats are rounded after the product and after the sum (so this file is compiled without contraction to
 * fused multiply-adds: -ffp-contract=off). */
#include "models.h"

#define SLICE (1ull << 20) /* elements */

typedef struct job {
    const void *src;
    void *dst;
    uint64_t first, last;
    uint64_t a, b; /* integers */
    double ra, rb; /* floats */
} job;

/* Unsigned, since signed overflow has no meaning in C; `wide` is the narrowest type in which nothing of the result is
 * lost. Everything is in local variables, since the compiler must assume that a store to bytes changes any other
 * memory. */
#define SCALE_INTEGER(name, type, wide)                                                                                \
    static void name(const job *todo)                                                                                  \
    {                                                                                                                  \
        const type *src = todo->src;                                                                                   \
        type *dst = todo->dst;                                                                                         \
        const wide a = (wide)todo->a, b = (wide)todo->b;                                                               \
        const uint64_t last = todo->last;                                                                              \
        for (uint64_t i = todo->first; i < last; i++) dst[i] = (type)(a * (wide)src[i] + b);                           \
    }

#define SCALE_FLOAT(name, type)                                                                                        \
    static void name(const job *todo)                                                                                  \
    {                                                                                                                  \
        const type *src = todo->src;                                                                                   \
        type *dst = todo->dst;                                                                                         \
        const type a = (type)todo->ra, b = (type)todo->rb;                                                             \
        const uint64_t last = todo->last;                                                                              \
        for (uint64_t i = todo->first; i < last; i++) dst[i] = a * src[i] + b;                                         \
    }

/* A wrapped result has the same bits whether its type has a sign or not. */
SCALE_INTEGER(scale_8, uint8_t, uint16_t)
SCALE_INTEGER(scale_16, uint16_t, uint32_t)
SCALE_INTEGER(scale_32, uint32_t, uint32_t)
SCALE_INTEGER(scale_64, uint64_t, uint64_t)
SCALE_FLOAT(scale_f32, float)
SCALE_FLOAT(scale_f64, double)

static void scale_f16(const job *todo)
{
    const uint16_t *src = todo->src;
    uint16_t *dst = todo->dst;
    const float a = apf_half_to_float(apf_float_to_half((float)todo->ra));
    const float b = apf_half_to_float(apf_float_to_half((float)todo->rb));
    for (uint64_t i = todo->first; i < todo->last; i++) {
        const float product = apf_half_to_float(apf_float_to_half(a * apf_half_to_float(src[i])));
        dst[i] = apf_float_to_half(product + b);
    }
}

static void (*const scalers[])(const job *) = {
    [APF_I8] = scale_8,    [APF_U8] = scale_8,    [APF_I16] = scale_16,        [APF_U16] = scale_16,
    [APF_I32] = scale_32,  [APF_U32] = scale_32,  [APF_I64] = scale_64,        [APF_U64] = scale_64,
    [APF_F32] = scale_f32, [APF_F64] = scale_f64, [APF_MODEL_F16] = scale_f16,
};

static int scale(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                 apf_error *err)
{
    (void)context;
    (void)count;
    uint64_t elements, type, size = 0;
    int code = apf_model_count(&args[2], "count", &elements, err);
    if (code == APF_OK) code = apf_model_count(&args[5], "type", &type, err);
    if (code == APF_OK) code = apf_model_element(type, &size, err);
    if (code == APF_OK) code = apf_model_fits(&args[0], "src", elements, size, err);
    if (code == APF_OK) code = apf_model_fits(&args[1], "dst", elements, size, err);
    job todo = {.src = args[0].data, .dst = args[1].data};
    if (code == APF_OK && type >= APF_F32) {
        todo.ra = apf_model_real(&args[3]);
        todo.rb = apf_model_real(&args[4]);
    } else if (code == APF_OK) {
        code = apf_model_integer(&args[3], "a", &todo.a, err);
        if (code == APF_OK) code = apf_model_integer(&args[4], "b", &todo.b, err);
    }
    while (code == APF_OK && todo.first < elements && !apf_model_stopped(cancelled)) {
        todo.last = elements - todo.first < SLICE ? elements : todo.first + SLICE;
        scalers[type](&todo);
        todo.first = todo.last;
    }
    return code;
}

const apf_model_entry apf_models_scale[] = {{"scale", scale, NULL, "bbssss", 128 << 10, NULL, NULL}, {0}};
