/* CRC-64/NVME (NVM Express base specification), CRC-32C (RFC 3720) and CRC-32 (RFC 1952), eight bytes a step. */
#include "transport/checksum.h"

#include <pthread.h>
#include <string.h>
#include <zlib.h>

#define POLYNOMIAL_64 0x9a6c9329ac4bc9b5u
#define POLYNOMIAL_32C 0x82f63b78u

static uint64_t table_64[8][256];
static uint32_t table_32c[8][256];
static pthread_once_t made = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t wide = i;
        uint32_t narrow = i;
        for (int bit = 0; bit < 8; bit++) {
            wide = wide & 1 ? wide >> 1 ^ POLYNOMIAL_64 : wide >> 1;
            narrow = narrow & 1 ? narrow >> 1 ^ POLYNOMIAL_32C : narrow >> 1;
        }
        table_64[0][i] = wide;
        table_32c[0][i] = narrow;
    }
    for (unsigned i = 0; i < 256; i++)
        for (int step = 1; step < 8; step++) {
            table_64[step][i] = table_64[step - 1][i] >> 8 ^ table_64[0][table_64[step - 1][i] & 0xff];
            table_32c[step][i] = table_32c[step - 1][i] >> 8 ^ table_32c[0][table_32c[step - 1][i] & 0xff];
        }
}

static uint64_t word_at(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static uint64_t crc64(uint64_t crc, const uint8_t *data, size_t size)
{
    for (; size >= 8; data += 8, size -= 8) {
        crc ^= word_at(data);
        crc = table_64[7][crc & 0xff] ^ table_64[6][crc >> 8 & 0xff] ^ table_64[5][crc >> 16 & 0xff] ^
              table_64[4][crc >> 24 & 0xff] ^ table_64[3][crc >> 32 & 0xff] ^ table_64[2][crc >> 40 & 0xff] ^
              table_64[1][crc >> 48 & 0xff] ^ table_64[0][crc >> 56];
    }
    for (; size; data++, size--) crc = crc >> 8 ^ table_64[0][(crc ^ *data) & 0xff];
    return crc;
}

static uint32_t crc32c_by_table(uint32_t crc, const uint8_t *data, size_t size)
{
    for (; size >= 8; data += 8, size -= 8) {
        const uint64_t word = word_at(data) ^ crc;
        crc = table_32c[7][word & 0xff] ^ table_32c[6][word >> 8 & 0xff] ^ table_32c[5][word >> 16 & 0xff] ^
              table_32c[4][word >> 24 & 0xff] ^ table_32c[3][word >> 32 & 0xff] ^ table_32c[2][word >> 40 & 0xff] ^
              table_32c[1][word >> 48 & 0xff] ^ table_32c[0][word >> 56];
    }
    for (; size; data++, size--) crc = crc >> 8 ^ table_32c[0][(crc ^ *data) & 0xff];
    return crc;
}

#ifdef __x86_64__
/* The processor's own instruction (SSE 4.2) is for this polynomial. Clang has a name of its own for it since 14. */
#if defined(__clang__) && __clang_major__ >= 14
#define WITH_CRC32 __attribute__((target("sse4.2,crc32")))
#else
#define WITH_CRC32 __attribute__((target("sse4.2")))
#endif
WITH_CRC32 static uint32_t crc32c_by_processor(uint32_t crc, const uint8_t *data, size_t size)
{
    uint64_t wide = crc;
    for (; size >= 8; data += 8, size -= 8) wide = __builtin_ia32_crc32di(wide, word_at(data));
    crc = (uint32_t)wide;
    for (; size; data++, size--) crc = __builtin_ia32_crc32qi(crc, *data);
    return crc;
}
#endif

static uint32_t crc32c(uint32_t crc, const uint8_t *data, size_t size)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2")) return crc32c_by_processor(crc, data, size);
#endif
    return crc32c_by_table(crc, data, size);
}

uint64_t apf_sum_update(apf_sum kind, uint64_t value, const void *data, size_t size)
{
    if (kind == APF_SUM_CRC32) return crc32_z(value, data, size);
    pthread_once(&made, make_tables);
    if (kind == APF_SUM_CRC64NVME) return ~crc64(~value, data, size);
    if (kind == APF_SUM_CRC32C) return ~crc32c(~(uint32_t)value, data, size) & 0xffffffffu;
    return value;
}
