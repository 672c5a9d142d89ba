/* histogram: how many elements fall into each of `bins` equal parts of lo to hi, as numpy.histogram counts them.
 *
 * One work-item. `state` keeps the counts between the parts of an input: cleared where `first` is set, copied to dst
 * where `last` is. dtype: 1 to 10 are int8, uint8, int16 ... uint64, float, double. What makes the counts numpy's to the
 * last bit is its order of operations (numpy/lib/_histograms_impl.py, and linspace in numpy/_core/function_base.py):
 * edges are i * step + lo in double precision, rounded to the elements' type; an index is estimated and then corrected
 * against the edges on both sides.
 */
#pragma OPENCL FP_CONTRACT OFF
#pragma OPENCL EXTENSION cl_khr_fp64 : enable

double edge(uint index, uint bins, double lo, double hi)
{
    const double step = (hi - lo) / bins;
    if (index == bins) return hi;
    return step == 0 ? (double)index / bins * (hi - lo) + lo : index * step + lo;
}

/* REAL is the type of edges and distances. NaN is in no bin: both comparisons fail. */
#define COUNT(TYPE, REAL)                                                                                              \
    {                                                                                                                  \
        __global const TYPE *x = (__global const TYPE *)src;                                                           \
        for (ulong i = 0; i < count; i++) {                                                                            \
            const REAL value = (REAL)x[i];                                                                             \
            if (!(value >= (REAL)lo && value <= (REAL)hi)) continue;                                                   \
            const REAL distance = value - (REAL)lo;                                                                    \
            ulong index = (ulong)((double)distance / (hi - lo) * bins);                                                \
            if (index >= bins) index = bins - 1;                                                                       \
            if (value < (REAL)edge(index, bins, lo, hi))                                                               \
                index--;                                                                                               \
            else if (index != bins - 1 && value >= (REAL)edge(index + 1, bins, lo, hi))                                \
                index++;                                                                                               \
            state[index]++;                                                                                            \
        }                                                                                                              \
        break;                                                                                                         \
    }

__kernel void histogram(__global const uchar *src, __global ulong *dst, ulong count, __global ulong *state, uint first,
                        uint last, uint bins, uint dtype, double lo, double hi)
{
    if (first)
        for (uint i = 0; i < bins; i++) state[i] = 0;
    switch (dtype) {
    case 1: COUNT(char, double)
    case 2: COUNT(uchar, double)
    case 3: COUNT(short, double)
    case 4: COUNT(ushort, double)
    case 5: COUNT(int, double)
    case 6: COUNT(uint, double)
    case 7: COUNT(long, double)
    case 8: COUNT(ulong, double)
    case 9: COUNT(float, float)
    case 10: COUNT(double, double)
    }
    if (last)
        for (uint i = 0; i < bins; i++) dst[i] = state[i];
}
