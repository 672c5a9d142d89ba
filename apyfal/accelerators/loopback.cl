/* loopback: the output is the input.
 *
 * The work is divided over as many work-items as are launched, one on an FPGA.
 * apyfal: --global=bytes
 */
__kernel void loopback(__global const uchar *restrict src, __global uchar *restrict dst, ulong bytes)
{
    for (ulong i = get_global_id(0); i < bytes; i += get_global_size(0)) dst[i] = src[i];
}
