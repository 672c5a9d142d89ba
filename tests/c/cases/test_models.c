/* The software models against answers that were not computed here: published vectors, zlib, properties. */
#include "rig.h"

#include "drivers/emulator/models/models.h"

#include <math.h>
#include <zlib.h>

#define KIB 1024u
#define MIB (1024u * KIB)

/* -- sha3 -- */

/* Hash `size` bytes in runs of at most `part`. */
static const char *sha3_hex(rig *it, apf_drv_kernel *kernel, const char *data, size_t size, size_t part, unsigned bits)
{
    static char hex[129];
    memset(it->memory[1], 0, 64);
    size_t at = 0;
    do {
        const size_t bytes = size - at < part ? size - at : part;
        memcpy(it->memory[0], data + at, bytes);
        const int last = at + bytes == size;
        const apf_arg args[] = {arg_buffer(it, 0, APF_SYNC_TO),
                                arg_buffer(it, 1, last ? APF_SYNC_FROM : 0),
                                arg_u64(bytes),
                                arg_buffer(it, 2, 0),
                                arg_u64(at == 0),
                                arg_u64((uint64_t)last),
                                arg_u64(bits)};
        CHECK_OK(rig_run(it, kernel, args, 7), it->err);
        at += bytes;
    } while (at < size);
    for (unsigned i = 0; i < bits / 8; i++) sprintf(hex + 2 * i, "%02x", ((uint8_t *)it->memory[1])[i]);
    return hex;
}

/* NIST's examples of SHA3 with 0, 24 ("abc") and 1600 bits (0xa3 200 times). */
static void sha3_gives_the_published_digests(void)
{
    static const struct {
        unsigned bits;
        const char *text, *hex;
    } examples[] = {
        {224, "", "6b4e03423667dbb73b6e15454f0eb1abd4597f9a1b078e3f5b5a6bc7"},
        {256, "", "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"},
        {384, "", "0c63a75b845e4f7d01107d852e4c2485c51a50aaaa94fc61995e71bbee983a2ac3713831264adb47fb6bd1e058d5f004"},
        {512, "",
         "a69f73cca23a9ac5c8b567dc185a756e97c982164fe25859e0d1dcc1475c80a615b2123af1f5f94c11e3e9402c3ac558f500199d95b6d"
         "3"
         "e301758586281dcd26"},
        {256, "abc", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"},
        {256, NULL, "79f38adec5c20307a98ef76e8324afbfd46cfd81b22e3973c65fa1bd9de31787"},
        {512, NULL,
         "e76dfad22084a8b1467fcf2ffa58361bec7628edf5f3fdc0e4805dc48caeeca81b7c13c30adf52a3659584739a2df46be589c51ca1a4a"
         "8"
         "416df6545a1ce8ba00"},
    };
    char message[200];
    memset(message, 0xa3, sizeof message);
    rig it = rig_open(NULL);
    rig_import(&it, 4096);
    rig_import(&it, 64);
    rig_alloc(&it, APF_SHA3_STATE);
    apf_drv_kernel *kernel = rig_load(&it, "sha3", NULL);
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        const char *text = examples[i].text ? examples[i].text : message;
        const size_t size = examples[i].text ? strlen(text) : sizeof message;
        for (size_t part = 1; part <= 200; part += part < 8 ? 1 : 31)
            CHECK_TEXT(sha3_hex(&it, kernel, text, size, part, examples[i].bits), examples[i].hex);
    }
    it.driver->unload(kernel);
    rig_close(&it);
}

static void sha3_needs_a_beginning(void)
{
    rig it = rig_open(NULL);
    rig_import(&it, 4096);
    rig_import(&it, 64);
    rig_alloc(&it, APF_SHA3_STATE);
    apf_drv_kernel *kernel = rig_load(&it, "sha3", NULL);
    apf_arg args[] = {
        arg_buffer(&it, 0, 0), arg_buffer(&it, 1, 0), arg_u64(0), arg_buffer(&it, 2, 0), arg_u64(0), arg_u64(1),
        arg_u64(256)};
    CHECK_CODE(rig_run(&it, kernel, args, 7), APF_KERNEL, it.err);
    CHECK_TEXT(it.err.text, "no SHA3-256 message");
    args[6] = arg_u64(255);
    CHECK_CODE(rig_run(&it, kernel, args, 7), APF_KERNEL, it.err);
    CHECK_TEXT(it.err.text, "SHA3-255");
    args[6] = arg_u64(512);
    args[4] = arg_u64(1);
    args[1].size = 63;
    CHECK_CODE(rig_run(&it, kernel, args, 7), APF_KERNEL, it.err);
    CHECK_TEXT(it.err.text, "dst");
    it.driver->unload(kernel);
    rig_close(&it);
}

/* -- scale -- */

static void scale_wraps_and_rounds(void)
{
    rig it = rig_open(NULL);
    const int src = rig_import(&it, 4096), dst = rig_import(&it, 4096);
    apf_drv_kernel *kernel = rig_load(&it, "scale", NULL);
    apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO),
                      arg_buffer(&it, dst, APF_SYNC_FROM),
                      arg_u64(3),
                      arg_u64(3),
                      arg_u64(0),
                      arg_u64(APF_I8)};
    memcpy(it.memory[src], (int8_t[]){127, -128, 5}, 3);
    args[4] = (apf_arg){.kind = APF_I8, .value.i = -1};
    CHECK_OK(rig_run(&it, kernel, args, 6), it.err);
    CHECK(!memcmp(it.memory[dst], (int8_t[]){124, 127, 14}, 3)); /* 380, -385, 14 modulo 256 */
    memcpy(it.memory[src], (int64_t[]){INT64_MAX, -1, 7}, 24);
    args[5] = arg_u64(APF_I64);
    CHECK_OK(rig_run(&it, kernel, args, 6), it.err);
    CHECK(!memcmp(it.memory[dst], (int64_t[]){INT64_MAX - 3, -4, 20}, 24));
    /* In double precision a fused product and sum would give 2**-60 here. */
    const double x = 1 + 0x1p-30;
    memcpy(it.memory[src], (double[]){x, x, x}, 24);
    args[3] = arg_f64(x);
    args[4] = arg_f64(-(1 + 0x1p-29));
    args[5] = arg_u64(APF_F64);
    CHECK_OK(rig_run(&it, kernel, args, 6), it.err);
    CHECK(*(double *)it.memory[dst] == 0);
    args[5] = arg_u64(APF_I32);
    CHECK_CODE(rig_run(&it, kernel, args, 6), APF_KERNEL, it.err);
    CHECK_TEXT(it.err.text, "a is not a whole number");
    args[2] = arg_u64(4096 / 4 + 1);
    CHECK_CODE(rig_run(&it, kernel, args, 6), APF_KERNEL, it.err);
    args[2] = (apf_arg){.kind = APF_I32, .value.i = -1};
    CHECK_CODE(rig_run(&it, kernel, args, 6), APF_KERNEL, it.err);
    args[5] = arg_u64(77);
    CHECK_CODE(rig_run(&it, kernel, args, 6), APF_KERNEL, it.err);
    it.driver->unload(kernel);
    rig_close(&it);
}

static void half_precision_goes_both_ways(void)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const float value = apf_half_to_float((uint16_t)bits);
        CHECK_EQUAL(apf_float_to_half(value), bits);
        if (!(bits & 0x7fff) || (bits & 0x7fff) >= 0x7bff) continue;
        /* Halfway to the next larger magnitude goes to the even one, and a bit less or more to its own side. */
        const float next = apf_half_to_float((uint16_t)(bits + 1)), middle = (value + next) / 2;
        CHECK_EQUAL(apf_float_to_half(middle), bits + (bits & 1));
        CHECK_EQUAL(apf_float_to_half(nextafterf(middle, value)), bits);
        CHECK_EQUAL(apf_float_to_half(nextafterf(middle, next)), bits + 1);
    }
    CHECK_EQUAL(apf_float_to_half(65519.996f), 0x7bff);
    CHECK_EQUAL(apf_float_to_half(65520), 0x7c00);
    CHECK_EQUAL(apf_float_to_half(-1e30f), 0xfc00);
    CHECK_EQUAL(apf_float_to_half(0x1p-25f), 0);
    CHECK_EQUAL(apf_float_to_half(nextafterf(0x1p-25f, 1)), 1);
}

/* -- histogram -- */

/* Where every element is at its own edge, a wrong rounding shows. */
static void histogram_puts_edges_right(void)
{
    enum { BINS = 1000 };
    rig it = rig_open(NULL);
    const int src = rig_import(&it, (BINS + 4) * sizeof(double)), dst = rig_import(&it, BINS * sizeof(uint64_t));
    const int state = rig_alloc(&it, BINS * sizeof(uint64_t));
    apf_drv_kernel *kernel = rig_load(&it, "histogram", NULL);
    double *in = it.memory[src];
    const double step = (0.7 - 0.1) / BINS;
    for (int i = 0; i < BINS; i++) in[i] = i * step + 0.1;
    in[BINS] = 0.7;
    in[BINS + 1] = NAN;
    in[BINS + 2] = nextafter(0.1, 0);
    in[BINS + 3] = INFINITY;
    for (uint64_t part = 1; part <= 2; part++) {
        const apf_arg args[] = {arg_buffer(&it, src, APF_SYNC_TO),
                                arg_buffer(&it, dst, part == 2 ? APF_SYNC_FROM : 0),
                                arg_u64(BINS + 4),
                                arg_buffer(&it, state, 0),
                                arg_u64(part == 1),
                                arg_u64(part == 2),
                                arg_u64(BINS),
                                arg_u64(APF_F64),
                                arg_f64(0.1),
                                arg_f64(0.7)};
        CHECK_OK(rig_run(&it, kernel, args, 10), it.err);
    }
    const uint64_t *counts = it.memory[dst];
    for (int i = 0; i < BINS - 1; i++) CHECK_EQUAL(counts[i], 2);
    CHECK_EQUAL(counts[BINS - 1], 4); /* the last bin has its right edge too */
    it.driver->unload(kernel);
    rig_close(&it);
}

/* -- gzip and gunzip -- */

typedef struct zip {
    rig it;
    apf_drv_kernel *gzip, *gunzip;
    int src, dst, state, report;
} zip;

static zip zip_open(size_t size)
{
    zip z = {.it = rig_open(NULL)};
    z.src = rig_import(&z.it, size);
    z.dst = rig_import(&z.it, size);
    z.state = rig_alloc(&z.it, APF_GUNZIP_STATE);
    z.report = rig_import(&z.it, APF_REPORT_COUNT * 8);
    z.gzip = rig_load(&z.it, "gzip", NULL);
    z.gunzip = rig_load(&z.it, "gunzip", NULL);
    return z;
}

static void zip_close(zip *z)
{
    z->it.driver->unload(z->gzip);
    z->it.driver->unload(z->gunzip);
    rig_close(&z->it);
}

static const uint64_t *zip_report(const zip *z) { return z->it.memory[z->report]; }

static int zip_deflate(zip *z, size_t bytes, size_t capacity, uint64_t level)
{
    const apf_arg args[] = {arg_buffer(&z->it, z->src, APF_SYNC_TO),
                            arg_buffer(&z->it, z->dst, APF_SYNC_FROM),
                            arg_u64(bytes),
                            arg_u64(capacity),
                            arg_buffer(&z->it, z->report, APF_SYNC_FROM),
                            arg_u64(level)};
    return rig_run(&z->it, z->gzip, args, 6);
}

/* One run over `bytes` of data, of which earlier ones consumed `skip`. */
static int zip_inflate_rest(zip *z, const void *data, size_t bytes, size_t skip, size_t capacity, int first, int last)
{
    memcpy(z->it.memory[z->src], data, bytes);
    const apf_arg args[] = {arg_buffer(&z->it, z->src, APF_SYNC_TO),
                            arg_buffer(&z->it, z->dst, APF_SYNC_FROM),
                            arg_u64(bytes),
                            arg_u64(skip),
                            arg_u64(capacity),
                            arg_buffer(&z->it, z->state, 0),
                            arg_u64((uint64_t)first),
                            arg_u64((uint64_t)last),
                            arg_buffer(&z->it, z->report, APF_SYNC_FROM)};
    return rig_run(&z->it, z->gunzip, args, 9);
}

static int zip_inflate(zip *z, const void *data, size_t bytes, size_t capacity, int first, int last)
{
    return zip_inflate_rest(z, data, bytes, 0, capacity, first, last);
}

/* Inflate `size` bytes in parts of `part` with `room` for the output of a run; returns what came out. */
static size_t zip_inflate_all(zip *z, const uint8_t *data, size_t size, size_t part, size_t room, uint8_t *out)
{
    size_t produced = 0;
    for (size_t begin = 0; begin < size; begin += part) {
        const size_t bytes = size - begin < part ? size - begin : part;
        size_t skip = 0;
        do {
            CHECK_OK(zip_inflate_rest(z, data + begin, bytes, skip, room, begin == 0, begin + bytes == size),
                     z->it.err);
            memcpy(out + produced, z->it.memory[z->dst], zip_report(z)[APF_REPORT_PRODUCED]);
            skip += zip_report(z)[APF_REPORT_CONSUMED];
            produced += zip_report(z)[APF_REPORT_PRODUCED];
        } while (zip_report(z)[APF_REPORT_STATUS] == APF_GUNZIP_FULL);
        CHECK_EQUAL(skip, bytes);
    }
    return produced;
}

static void fill_text(uint8_t *data, size_t size)
{
    unsigned seed = 1;
    for (size_t i = 0; i < size; i++) data[i] = (uint8_t)("abcdefgh \n"[rand_r(&seed) % 10]);
}

static void gzip_and_gunzip_undo_each_other(void)
{
    enum { SIZE = 3 * MIB };
    zip z = zip_open(SIZE);
    uint8_t *text = malloc(SIZE), *packed = malloc(2 * SIZE), *out = malloc(2 * SIZE);
    CHECK(text && packed && out);
    fill_text(text, SIZE);
    memcpy(z.it.memory[z.src], text, SIZE);
    CHECK_OK(zip_deflate(&z, SIZE, SIZE, 1), z.it.err);
    size_t size = zip_report(&z)[APF_REPORT_PRODUCED];
    CHECK(size < SIZE / 2);
    memcpy(packed, z.it.memory[z.dst], size);
    CHECK(!memcmp(packed + 4, "\0\0\0\0", 4)); /* no time */
    /* A second, empty member and a tail of zeros. */
    CHECK_OK(zip_deflate(&z, 0, SIZE, 9), z.it.err);
    memcpy(packed + size, z.it.memory[z.dst], zip_report(&z)[APF_REPORT_PRODUCED]);
    size += zip_report(&z)[APF_REPORT_PRODUCED];
    memset(packed + size, 0, 1000);
    size += 1000;
    static const size_t parts[][2] = {{SIZE, SIZE}, {100000, 4096}, {4096, 100000}, {50001, 50001}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        CHECK_EQUAL(zip_inflate_all(&z, packed, size, parts[i][0], parts[i][1], out), SIZE);
        CHECK(!memcmp(text, out, SIZE));
    }
    free(text);
    free(packed);
    free(out);
    zip_close(&z);
}

static void gunzip_takes_one_byte_at_a_time(void)
{
    zip z = zip_open(4096);
    uint8_t packed[256], out[512];
    fill_text(z.it.memory[z.src], 100);
    CHECK_OK(zip_deflate(&z, 100, 4096, 6), z.it.err);
    const size_t size = zip_report(&z)[APF_REPORT_PRODUCED];
    CHECK(2 * size <= sizeof packed);
    memcpy(packed, z.it.memory[z.dst], size);
    memcpy(packed + size, packed, size);
    CHECK_EQUAL(zip_inflate_all(&z, packed, 2 * size, 1, 1, out), 200);
    CHECK(!memcmp(out, out + 100, 100));
    zip_close(&z);
}

static void gzip_says_when_there_is_no_room(void)
{
    zip z = zip_open(4096);
    CHECK_CODE(zip_deflate(&z, 4096, 16, 0), APF_KERNEL, z.it.err);
    CHECK_TEXT(z.it.err.text, "too small: 16 bytes");
    CHECK_CODE(zip_deflate(&z, 4096, 4097, 0), APF_KERNEL, z.it.err);
    CHECK_CODE(zip_deflate(&z, 1, 4096, 10), APF_KERNEL, z.it.err);
    CHECK_TEXT(z.it.err.text, "level is 10");
    zip_close(&z);
}

static void damaged_gzip_data_is_refused(void)
{
    zip z = zip_open(8192);
    uint8_t good[4096];
    memset(z.it.memory[z.src], 'x', 1000);
    CHECK_OK(zip_deflate(&z, 1000, 8192, 6), z.it.err);
    const size_t size = zip_report(&z)[APF_REPORT_PRODUCED];
    memcpy(good, z.it.memory[z.dst], size);
#define EXPECT(part, bytes)                                                                                            \
    CHECK_CODE(zip_inflate(&z, good, bytes, 8192, 1, 1), APF_KERNEL, z.it.err);                                        \
    CHECK_TEXT(z.it.err.text, part)
    for (size_t bytes = 1; bytes < size; bytes++) {
        EXPECT("ends too early", bytes);
    }
    EXPECT("empty", 0);
    CHECK_CODE(zip_inflate(&z, good, 0, 8192, 0, 1), APF_KERNEL, z.it.err); /* it failed, and was not begun again */
    CHECK_TEXT(z.it.err.text, "no gzip stream");
    good[size] = 'g';
    EXPECT("other data follows the gzip data", size + 1);
    memcpy(good + size, "\x1f\x8c", 2);
    EXPECT("header", size + 2);
    good[size - 8] ^= 1;
    EXPECT("data check", size);
    good[size - 8] ^= 1;
    good[0] = 'x';
    EXPECT("header", size);
#undef EXPECT
    CHECK_CODE(zip_inflate(&z, good, 100, 8193, 1, 1), APF_KERNEL, z.it.err);
    CHECK_TEXT(z.it.err.text, "dst has 8192 bytes");
    CHECK_CODE(zip_inflate_rest(&z, good, 100, 101, 8192, 1, 1), APF_KERNEL, z.it.err);
    CHECK_TEXT(z.it.err.text, "skip is 101");
    zip_close(&z);
}

/* -- trng -- */

static void trng_fills_all_of_it(void)
{
    enum { SIZE = 600000 };
    rig it = rig_open(NULL);
    const int dst = rig_import(&it, SIZE);
    apf_drv_kernel *kernel = rig_load(&it, "trng", NULL);
    const apf_arg args[] = {arg_buffer(&it, dst, APF_SYNC_FROM), arg_u64(SIZE)};
    CHECK_OK(rig_run(&it, kernel, args, 2), it.err);
    uint64_t ones = 0;
    for (size_t i = 0; i < SIZE; i++) ones += (uint64_t)__builtin_popcount(((uint8_t *)it.memory[dst])[i]);
    /* 8 * SIZE fair coins: 10 standard deviations are sqrt(2 * SIZE) * 10. */
    CHECK(fabs((double)ones - 4.0 * SIZE) < 10 * sqrt(2.0 * SIZE));
    it.driver->unload(kernel);
    rig_close(&it);
}

const check_test tests_models[] = {
    TEST(sha3_gives_the_published_digests),
    TEST(sha3_needs_a_beginning),
    TEST(scale_wraps_and_rounds),
    TEST(half_precision_goes_both_ways),
    TEST(histogram_puts_edges_right),
    TEST(gzip_and_gunzip_undo_each_other),
    TEST(gunzip_takes_one_byte_at_a_time),
    TEST(gzip_says_when_there_is_no_room),
    TEST(damaged_gzip_data_is_refused),
    TEST(trng_fills_all_of_it),
    {0},
};
