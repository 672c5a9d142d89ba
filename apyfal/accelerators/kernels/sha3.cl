/* sha3: SHA3-224, -256, -384 and -512 (FIPS 202) of an input in any number of parts.
 *
 * One work-item. `state` keeps the sponge between the parts: 25 lanes, then the bytes of the block that are in. It is
 * cleared where `first` is set; where `last` is, the digest of bits / 8 bytes goes to dst.
 */
#define LANES 25

/* FIPS 202, 3.2.5: what iota adds in each round. */
__constant ulong IOTA[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b,
    0x0000000080000001, 0x8000000080008081, 0x8000000000008009, 0x000000000000008a, 0x0000000000000088,
    0x0000000080008009, 0x000000008000000a, 0x000000008000808b, 0x800000000000008b, 0x8000000000008089,
    0x8000000000008003, 0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
};

/* 3.2.2: how far rho rotates lane x + 5 * y; modulo 64, table 2. */
__constant ulong RHO[LANES] = {0,  1,  62, 28, 27, 36, 44, 6,  55, 20, 3,  10, 43,
                               25, 39, 41, 45, 15, 21, 8,  18, 2,  61, 56, 14};

void permute(ulong *lanes)
{
    for (int round = 0; round < 24; round++) {
        ulong column[5], moved[LANES];
#pragma unroll
        for (int x = 0; x < 5; x++)
            column[x] = lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20];
#pragma unroll
        for (int x = 0; x < 5; x++) {
            const ulong theta = column[(x + 4) % 5] ^ rotate(column[(x + 1) % 5], (ulong)1);
#pragma unroll
            for (int y = 0; y < 5; y++) /* rho, then pi: lane (x, y) moves to (y, 2x + 3y) */
                moved[y + 5 * ((2 * x + 3 * y) % 5)] = rotate(lanes[x + 5 * y] ^ theta, RHO[x + 5 * y]);
        }
#pragma unroll
        for (int y = 0; y < LANES; y += 5)
#pragma unroll
            for (int x = 0; x < 5; x++)
                lanes[y + x] = moved[y + x] ^ (~moved[y + (x + 1) % 5] & moved[y + (x + 2) % 5]); /* chi */
        lanes[0] ^= IOTA[round];
    }
}

__kernel void sha3(__global const uchar *src, __global uchar *dst, ulong bytes, __global ulong *state, uint first,
                   uint last, uint bits)
{
    const uint rate = 200 - bits / 4;
    ulong lanes[LANES];
    uint filled = first ? 0 : (uint)state[LANES];
    for (int i = 0; i < LANES; i++) lanes[i] = first ? 0 : state[i];
    for (ulong at = 0; at < bytes;) {
        if (filled == 0 && bytes - at >= rate) {
            for (uint i = 0; i < rate / 8; i++) lanes[i] ^= as_ulong(vload8(0, src + at + 8 * i));
            at += rate;
            filled = rate;
        } else {
            lanes[filled / 8] ^= (ulong)src[at++] << filled % 8 * 8;
            filled++;
        }
        if (filled == rate) {
            permute(lanes);
            filled = 0;
        }
    }
    if (last) {
        /* Padding 01 10*1 (6.1, 5.1): the suffix's bits and the first 1 make 0x06. */
        lanes[filled / 8] ^= (ulong)0x06 << filled % 8 * 8;
        lanes[rate / 8 - 1] ^= (ulong)0x80 << 56;
        permute(lanes);
        for (uint i = 0; i < bits / 8; i++) dst[i] = (uchar)(lanes[i / 8] >> i % 8 * 8);
    }
    for (int i = 0; i < LANES; i++) state[i] = lanes[i];
    state[LANES] = filled;
}
