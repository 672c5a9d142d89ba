/* histogram(src, dst, count, state, first, last, bins, type, lo, hi): equal to numpy.histogram(src, bins, (lo, hi)).
 *
 * `state` has 64-bit counts of the bins; the first part of the input clears it, the last one copies it to dst. The
 * counts equal numpy's exactly because the operations are done in numpy's order (numpy/lib/_histograms_impl.py, 2.x,
 * and linspace in numpy/_core/function_base.py): edges are i * step + lo in double precision, then rounded to the
 * elements' type; an index is estimated in that type and double, and corrected against the edges on both sides. */
#include "models.h"

#include <float.h>
#include <string.h>

#define SLICE (1ull << 20) /* elements */

typedef struct job {
    const void *src;
    uint64_t *counts;
    uint64_t first, last; /* elements */
    uint64_t bins;
    double lo, hi;
    double lowest, highest; /* the same, rounded to the elements' type */
    double step;            /* 0: hi - lo is too small to be divided */
} job;

static double edge(const job *todo, uint64_t index)
{
    if (index == todo->bins) return todo->hi;
    if (todo->step == 0) return (double)index / (double)todo->bins * (todo->hi - todo->lo) + todo->lo;
    return (double)index * todo->step + todo->lo;
}

/* Round to the type that numpy uses for edges and distances: double for integers, else the elements' type. */
#define TO_DOUBLE(value) ((double)(value))
#define TO_FLOAT(value) ((float)(value))
#define TO_HALF(value) apf_half_to_float(apf_double_to_half((double)(value)))

/* `value` is an element as a real number, between lowest and highest. */
#define PLACE(name, real, rounded)                                                                                     \
    static inline uint64_t name(const job *todo, real value)                                                           \
    {                                                                                                                  \
        const real distance = rounded(value - (real)todo->lowest);                                                     \
        const double estimate = (double)distance / (todo->hi - todo->lo) * (double)todo->bins;                         \
        const uint64_t index = estimate < (double)todo->bins ? (uint64_t)estimate : todo->bins - 1;                    \
        if (value < rounded(edge(todo, index))) return index - 1;                                                      \
        return index + (index != todo->bins - 1 && value >= rounded(edge(todo, index + 1)));                           \
    }

PLACE(place_double, double, TO_DOUBLE)
PLACE(place_float, float, TO_FLOAT)
PLACE(place_half, float, TO_HALF)

/* NaN is in no bin: both comparisons fail. */
static inline int inside(const job *todo, double value) { return value >= todo->lowest && value <= todo->highest; }

/* The loop uses a local copy of the job: stores to the counts cannot change it, so it stays in registers. */
#define COUNT(name, type, real, loaded, place)                                                                         \
    static void name(const job *todo)                                                                                  \
    {                                                                                                                  \
        const job own = *todo;                                                                                         \
        const type *src = own.src;                                                                                     \
        for (uint64_t i = own.first; i < own.last; i++) {                                                              \
            const real value = loaded(src[i]);                                                                         \
            if (inside(&own, (double)value)) own.counts[place(&own, value)]++;                                         \
        }                                                                                                              \
    }

/* Bytes: count each value first, in four tables so that runs of one value do not wait for each other's stores. */
#define COUNT_BYTES(name, type)                                                                                        \
    static void name(const job *todo)                                                                                  \
    {                                                                                                                  \
        uint32_t tables[4][256];                                                                                       \
        count_bytes((const uint8_t *)todo->src + todo->first, todo->last - todo->first, tables);                       \
        for (int byte = 0; byte < 256; byte++) {                                                                       \
            const uint64_t found = (uint64_t)tables[0][byte] + tables[1][byte] + tables[2][byte] + tables[3][byte];    \
            const double value = (double)(type)byte;                                                                   \
            if (found && inside(todo, value)) todo->counts[place_double(todo, value)] += found;                        \
        }                                                                                                              \
    }

static void count_bytes(const uint8_t *src, uint64_t count, uint32_t tables[4][256])
{
    memset(tables, 0, 4 * sizeof *tables);
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        uint64_t eight;
        memcpy(&eight, src + i, sizeof eight);
        for (int at = 0; at < 8; at++) tables[at & 3][eight >> 8 * at & 0xff]++;
    }
    for (; i < count; i++) tables[0][src[i]]++;
}

COUNT_BYTES(count_i8, int8_t)
COUNT_BYTES(count_u8, uint8_t)
COUNT(count_i16, int16_t, double, TO_DOUBLE, place_double)
COUNT(count_u16, uint16_t, double, TO_DOUBLE, place_double)
COUNT(count_i32, int32_t, double, TO_DOUBLE, place_double)
COUNT(count_u32, uint32_t, double, TO_DOUBLE, place_double)
COUNT(count_i64, int64_t, double, TO_DOUBLE, place_double)
COUNT(count_u64, uint64_t, double, TO_DOUBLE, place_double)
COUNT(count_f16, uint16_t, float, apf_half_to_float, place_half)
COUNT(count_f32, float, float, TO_FLOAT, place_float)
COUNT(count_f64, double, double, TO_DOUBLE, place_double)

static void (*const counters[])(const job *) = {
    [APF_I8] = count_i8,   [APF_U8] = count_u8,   [APF_I16] = count_i16,       [APF_U16] = count_u16,
    [APF_I32] = count_i32, [APF_U32] = count_u32, [APF_I64] = count_i64,       [APF_U64] = count_u64,
    [APF_F32] = count_f32, [APF_F64] = count_f64, [APF_MODEL_F16] = count_f16,
};

static double rounded_to(uint64_t type, double value)
{
    /* volatile: gcc 12 drops the two conversions if it vectorizes a pair of them. */
    const volatile float single = TO_FLOAT(value);
    if (type == APF_F32) return (double)single;
    return type == APF_MODEL_F16 ? (double)TO_HALF(value) : value;
}

/* Bins and edges, as numpy accepts them. */
static int prepare(job *todo, uint64_t type, apf_error *err)
{
    if (todo->bins == 0) return apf_fail(err, APF_KERNEL, 0, "bins is 0: expected at least 1");
    if (todo->lo == todo->hi) {
        todo->lo -= 0.5;
        todo->hi += 0.5;
    }
    todo->lowest = rounded_to(type, todo->lo);
    todo->highest = rounded_to(type, todo->hi);
    if (!(todo->lo < todo->hi && rounded_to(type, todo->highest - todo->lowest) <= DBL_MAX))
        return apf_fail(err, APF_KERNEL, 0,
                        "the range is %g to %g: expected finite numbers, lo <= hi, and a finite difference", todo->lo,
                        todo->hi);
    todo->step = (todo->hi - todo->lo) / (double)todo->bins;
    for (uint64_t i = 0; i < todo->bins; i++)
        if (rounded_to(type, edge(todo, i)) >= rounded_to(type, edge(todo, i + 1)))
            return apf_fail(err, APF_KERNEL, 0, "%llu bins are too many for the range %g to %g",
                            (unsigned long long)todo->bins, todo->lo, todo->hi);
    return APF_OK;
}

static int histogram(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                     apf_error *err)
{
    (void)context;
    (void)count;
    uint64_t elements, first, last, type, size = 0;
    job todo = {.src = args[0].data, .counts = args[3].data};
    int code = apf_model_count(&args[2], "count", &elements, err);
    if (code == APF_OK) code = apf_model_count(&args[4], "first", &first, err);
    if (code == APF_OK) code = apf_model_count(&args[5], "last", &last, err);
    if (code == APF_OK) code = apf_model_count(&args[6], "bins", &todo.bins, err);
    if (code == APF_OK) code = apf_model_count(&args[7], "type", &type, err);
    if (code == APF_OK) code = apf_model_element(type, &size, err);
    if (code == APF_OK) code = apf_model_fits(&args[0], "src", elements, size, err);
    if (code == APF_OK) code = apf_model_fits(&args[3], "state", todo.bins, sizeof(uint64_t), err);
    if (code == APF_OK && last) code = apf_model_fits(&args[1], "dst", todo.bins, sizeof(uint64_t), err);
    todo.lo = apf_model_real(&args[8]);
    todo.hi = apf_model_real(&args[9]);
    if (code == APF_OK) code = prepare(&todo, type, err);
    if (code != APF_OK) return code;
    if (first) memset(todo.counts, 0, todo.bins * sizeof(uint64_t));
    while (todo.first < elements && !apf_model_stopped(cancelled)) {
        todo.last = elements - todo.first < SLICE ? elements : todo.first + SLICE;
        counters[type](&todo);
        todo.first = todo.last;
    }
    if (last) memcpy(args[1].data, todo.counts, todo.bins * sizeof(uint64_t));
    return APF_OK;
}

const apf_model_entry apf_models_histogram[] = {{"histogram", histogram, NULL, "bbsbssssss", 64 << 10, NULL, NULL},
                                                {0}};
