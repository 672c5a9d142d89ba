/* loopback: the output is the input.
 *
 * The work is divided over as many work-items as are launched, one on an FPGA.
 * apyfal: --global=bytes/16
 */
__kernel void loopback(__global const uchar *restrict src, __global uchar *restrict dst, ulong bytes)
{
    const ulong blocks = bytes / 16;
    for (ulong i = get_global_id(0); i < blocks; i += get_global_size(0)) vstore16(vload16(i, src), i, dst);
    if (get_global_id(0) == 0)
        for (ulong i = blocks * 16; i < bytes; i++) dst[i] = src[i];
}
