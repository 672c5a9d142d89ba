/* scale: a * x + b for every element, in the elements' own type, as numpy computes it: integers wrap around,
 * floating-point numbers are rounded after the product and again after the sum.
 *
 * a and b are 64-bit integers or doubles, whatever the elements are. dtype: 1 to 10 are int8, uint8, int16 ... uint64,
 * float, double; 11 is half precision. The work is divided over as many work-items as are launched, one on an FPGA.
 * apyfal: --global=count
 */
#pragma OPENCL FP_CONTRACT OFF

/* Unsigned, since only their overflow is defined; a wrapped result has the same bits with and without a sign. */
#define SCALE(TYPE, WIDE, A, B)                                                                                        \
    {                                                                                                                  \
        __global const TYPE *x = (__global const TYPE *)src;                                                           \
        __global TYPE *y = (__global TYPE *)dst;                                                                       \
        const WIDE factor = (WIDE)(A), offset = (WIDE)(B);                                                             \
        for (ulong i = get_global_id(0); i < count; i += get_global_size(0)) y[i] = (TYPE)(factor * x[i] + offset);    \
        break;                                                                                                         \
    }

__kernel void scale(__global const uchar *src, __global uchar *dst, ulong count, uchar8 a, uchar8 b, uint dtype)
{
    switch (dtype) {
    case 1:
    case 2: SCALE(uchar, uint, as_ulong(a), as_ulong(b))
    case 3:
    case 4: SCALE(ushort, uint, as_ulong(a), as_ulong(b))
    case 5:
    case 6: SCALE(uint, uint, as_ulong(a), as_ulong(b))
    case 7:
    case 8: SCALE(ulong, ulong, as_ulong(a), as_ulong(b))
#ifdef cl_khr_fp64
    case 9: SCALE(float, float, as_double(a), as_double(b))
    case 10: SCALE(double, double, as_double(a), as_double(b))
    case 11: {
        __global const half *x = (__global const half *)src;
        __global half *y = (__global half *)dst;
        for (ulong i = get_global_id(0); i < count; i += get_global_size(0)) {
            /* Every value is rounded to half precision, which only a store does on devices without cl_khr_fp16. */
            vstore_half_rte((float)as_double(a), i, y);
            const float factor = vload_half(i, y);
            vstore_half_rte((float)as_double(b), i, y);
            const float offset = vload_half(i, y);
            vstore_half_rte(factor * vload_half(i, x), i, y);
            vstore_half_rte(vload_half(i, y) + offset, i, y);
        }
    }
#endif
    }
}
