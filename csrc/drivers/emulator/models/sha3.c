/* sha3(src, dst, bytes, state, first, last, bits): SHA3-224, -256, -384 and -512 of FIPS 202, over any number of runs.
 *
 * `state` keeps the sponge between the runs of one message; the last one writes bits / 8 bytes to dst. */
#include "models.h"

#include <string.h>

enum { LANES = 25, ROUNDS = 24, SLICE = 1 << 20 };

typedef struct sponge {
    uint64_t lanes[LANES]; /* x + 5 * y */
    uint64_t filled;       /* bytes of the rate that are in */
    uint64_t bits;
} sponge;

_Static_assert(sizeof(sponge) <= APF_SHA3_STATE, "documented size of the state");

/* FIPS 202, 3.2.5: the round constants of iota. */
static const uint64_t iota[ROUNDS] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b,
    0x0000000080000001, 0x8000000080008081, 0x8000000000008009, 0x000000000000008a, 0x0000000000000088,
    0x0000000080008009, 0x000000008000000a, 0x000000008000808b, 0x800000000000008b, 0x8000000000008089,
    0x8000000000008003, 0x8000000000008002, 0x8000000000000080, 0x000000000000800a, 0x800000008000000a,
    0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
};

static inline uint64_t rotate(uint64_t lane, unsigned by) { return by ? lane << by | lane >> (64 - by) : lane; }

/* One row of the next state: the lanes that pi brings there, rotated by rho (3.2.2, 3.2.3), then chi (3.2.4). */
#define ROW(to, y, a, ra, b, rb, c, rc, d, rd, e, re, constant)                                                        \
    do {                                                                                                               \
        const uint64_t b0 = rotate((a), ra), b1 = rotate((b), rb), b2 = rotate((c), rc), b3 = rotate((d), rd),         \
                       b4 = rotate((e), re);                                                                           \
        to##y##0 = b0 ^ (~b1 & b2) ^ (constant);                                                                       \
        to##y##1 = b1 ^ (~b2 & b3);                                                                                    \
        to##y##2 = b2 ^ (~b3 & b4);                                                                                    \
        to##y##3 = b3 ^ (~b4 & b0);                                                                                    \
        to##y##4 = b4 ^ (~b0 & b1);                                                                                    \
    } while (0)

/* One round from the lanes f.. to the lanes t.., named by y and x. Theta (3.2.1) first: d is XORed into each column. */
#define ROUND(f, t, constant)                                                                                          \
    do {                                                                                                               \
        const uint64_t c0 = f##00 ^ f##10 ^ f##20 ^ f##30 ^ f##40, c1 = f##01 ^ f##11 ^ f##21 ^ f##31 ^ f##41,         \
                       c2 = f##02 ^ f##12 ^ f##22 ^ f##32 ^ f##42, c3 = f##03 ^ f##13 ^ f##23 ^ f##33 ^ f##43,         \
                       c4 = f##04 ^ f##14 ^ f##24 ^ f##34 ^ f##44;                                                     \
        const uint64_t d0 = c4 ^ rotate(c1, 1), d1 = c0 ^ rotate(c2, 1), d2 = c1 ^ rotate(c3, 1),                      \
                       d3 = c2 ^ rotate(c4, 1), d4 = c3 ^ rotate(c0, 1);                                               \
        ROW(t, 0, f##00 ^ d0, 0, f##11 ^ d1, 44, f##22 ^ d2, 43, f##33 ^ d3, 21, f##44 ^ d4, 14, constant);            \
        ROW(t, 1, f##03 ^ d3, 28, f##14 ^ d4, 20, f##20 ^ d0, 3, f##31 ^ d1, 45, f##42 ^ d2, 61, 0);                   \
        ROW(t, 2, f##01 ^ d1, 1, f##12 ^ d2, 6, f##23 ^ d3, 25, f##34 ^ d4, 8, f##40 ^ d0, 18, 0);                     \
        ROW(t, 3, f##04 ^ d4, 27, f##10 ^ d0, 36, f##21 ^ d1, 10, f##32 ^ d2, 15, f##43 ^ d3, 56, 0);                  \
        ROW(t, 4, f##02 ^ d2, 62, f##13 ^ d3, 55, f##24 ^ d4, 39, f##30 ^ d0, 41, f##41 ^ d1, 2, 0);                   \
    } while (0)

/* clang-format off */
#define LANES_OF_ROW(X, p, y)                                                                                          \
    X(p##y##0, 5 * y) X(p##y##1, 5 * y + 1) X(p##y##2, 5 * y + 2) X(p##y##3, 5 * y + 3) X(p##y##4, 5 * y + 4)
#define EACH_LANE(X, p)                                                                                                \
    LANES_OF_ROW(X, p, 0) LANES_OF_ROW(X, p, 1) LANES_OF_ROW(X, p, 2) LANES_OF_ROW(X, p, 3) LANES_OF_ROW(X, p, 4)
/* clang-format on */

/* Keccak-f[1600] with all lanes in variables, two rounds at a time so that none is moved. */
static void permute(uint64_t *lanes)
{
#define LOAD(lane, i) uint64_t lane = lanes[i];
#define DECLARE(lane, i) uint64_t lane;
#define STORE(lane, i) lanes[i] = lane;
    EACH_LANE(LOAD, a)
    EACH_LANE(DECLARE, e)
    for (int round = 0; round < ROUNDS; round += 2) {
        ROUND(a, e, iota[round]);
        ROUND(e, a, iota[round + 1]);
    }
    EACH_LANE(STORE, a)
#undef LOAD
#undef DECLARE
#undef STORE
}

static uint64_t load_little(const uint8_t *bytes)
{
    uint64_t lane;
    memcpy(&lane, bytes, sizeof lane);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    lane = __builtin_bswap64(lane);
#endif
    return lane;
}

static void absorb_byte(sponge *state, uint64_t at, uint8_t byte)
{
    state->lanes[at / 8] ^= (uint64_t)byte << at % 8 * 8;
}

static void absorb(sponge *state, const uint8_t *data, uint64_t size)
{
    const uint64_t rate = 200 - state->bits / 4;
    while (size) {
        if (state->filled == 0 && size >= rate) {
            for (uint64_t i = 0; i < rate / 8; i++) state->lanes[i] ^= load_little(data + 8 * i);
            permute(state->lanes);
            data += rate;
            size -= rate;
            continue;
        }
        absorb_byte(state, state->filled++, *data++);
        size--;
        if (state->filled == rate) {
            permute(state->lanes);
            state->filled = 0;
        }
    }
}

/* Padding 01 10*1 (6.1, 5.1): the suffix's bits and the first 1 make 0x06. */
static void digest(sponge *state, uint8_t *to)
{
    absorb_byte(state, state->filled, 0x06);
    absorb_byte(state, 200 - state->bits / 4 - 1, 0x80);
    permute(state->lanes);
    for (uint64_t i = 0; i < state->bits / 8; i++) to[i] = (uint8_t)(state->lanes[i / 8] >> i % 8 * 8);
}

static int sha3(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled, apf_error *err)
{
    (void)context;
    (void)count;
    uint64_t bytes, first, last, bits;
    int code = apf_model_count(&args[2], "bytes", &bytes, err);
    if (code == APF_OK) code = apf_model_count(&args[4], "first", &first, err);
    if (code == APF_OK) code = apf_model_count(&args[5], "last", &last, err);
    if (code == APF_OK) code = apf_model_count(&args[6], "bits", &bits, err);
    if (code == APF_OK && bits != 224 && bits != 256 && bits != 384 && bits != 512)
        code = apf_fail(err, APF_KERNEL, 0, "there is no SHA3-%llu: expected 224, 256, 384 or 512",
                        (unsigned long long)bits);
    if (code == APF_OK) code = apf_model_fits(&args[0], "src", bytes, 1, err);
    if (code == APF_OK && last) code = apf_model_fits(&args[1], "dst", bits / 8, 1, err);
    if (code == APF_OK) code = apf_model_fits(&args[3], "state", 1, sizeof(sponge), err);
    if (code != APF_OK) return code;
    sponge *state = args[3].data;
    if (first) *state = (sponge){.bits = bits};
    if (state->bits != bits || state->filled >= 200)
        return apf_fail(err, APF_KERNEL, 0, "the state holds no SHA3-%llu message: the first run was not made",
                        (unsigned long long)bits);
    for (uint64_t at = 0; at < bytes && !apf_model_stopped(cancelled); at += SLICE)
        absorb(state, (const uint8_t *)args[0].data + at, bytes - at < SLICE ? bytes - at : SLICE);
    if (last) digest(state, args[1].data);
    return APF_OK;
}

const apf_model_entry apf_models_sha3[] = {{"sha3", sha3, NULL, "bbsbsss", 4 << 10, NULL, NULL}, {0}};
