/* The reader of heads, and the CRCs. */
#include "check.h"
#include "transport/checksum.h"
#include "transport/head.h"

static void heads_are_read_strictly(void)
{
    static const struct {
        const char *text;
        int found;
    } table[] = {
        {"", APF_HEAD_MORE},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", APF_HEAD_MORE},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_READ},
        {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", APF_HEAD_READ},
        {"HTTP/1.1 200 \r\ncontent-length:0\t \r\n\r\n", APF_HEAD_READ},
        {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\rb\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 204 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 01\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1234567890123456\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\n Content-Length: 1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n folded\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: \"a\"\r\nETag: \"b\"\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n: x\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX\r\n\r\n", APF_HEAD_ODD},
    };
    apf_head head;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const size_t size = strlen(table[i].text);
        uint8_t *copy = malloc(size + 1); /* the sanitizer sees a byte too many */
        CHECK(copy);
        memcpy(copy, table[i].text, size);
        if (apf_head_read(copy, size, &head) != table[i].found) {
            fprintf(stderr, "%s\n", table[i].text);
            CHECK_EQUAL(apf_head_read(copy, size, &head), table[i].found);
        }
        free(copy);
    }
    static uint8_t endless[APF_HEAD_LARGEST + 100];
    memset(endless, 'a', sizeof endless);
    memcpy(endless, "HTTP/1.1 200 ", 13);
    CHECK_EQUAL(apf_head_read(endless, 1000, &head), APF_HEAD_MORE);
    CHECK_EQUAL(apf_head_read(endless, sizeof endless, &head), APF_HEAD_ODD);
    static const char closing[] = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\nETag: \"\"\r\n\r\n";
    CHECK_EQUAL(apf_head_read((const uint8_t *)closing, sizeof closing - 1, &head), APF_HEAD_READ);
    CHECK_EQUAL(head.keep, 0);
    CHECK_EQUAL(head.plain, 1);
    CHECK_EQUAL(head.length, 7);
    static const char parts[] = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nx-amz-checksum-crc32: NhCmhg==\r\n"
                                "x-amz-checksum-type: COMPOSITE\r\n\r\n";
    CHECK_EQUAL(apf_head_read((const uint8_t *)parts, sizeof parts - 1, &head), APF_HEAD_READ);
    CHECK_EQUAL(head.sums, 0);
}

/* The check values of the catalogue of parametrised CRC algorithms, also in pieces. */
static void checksums_are_the_known_ones(void)
{
    static const char digits[] = "123456789";
    static const struct {
        apf_sum kind;
        uint64_t value;
    } table[] = {{APF_SUM_CRC64NVME, 0xae8b14860a799888u}, {APF_SUM_CRC32C, 0xe3069283u}, {APF_SUM_CRC32, 0xcbf43926u}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (size_t split = 0; split <= 9; split++) {
            const uint64_t first = apf_sum_update(table[i].kind, 0, digits, split);
            CHECK(apf_sum_update(table[i].kind, first, digits + split, 9 - split) == table[i].value);
        }
}

const check_test tests_heads[] = {
    TEST(heads_are_read_strictly),
    TEST(checksums_are_the_known_ones),
    {NULL, NULL},
};
