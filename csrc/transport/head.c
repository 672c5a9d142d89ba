/* Strict on purpose (RFC 9112, sections 4 to 6): one reading only, so that no second parser disagrees about where a
 * body ends. Everything unusual is left to the parser of apyfal.storage.http, which knows what to do with it. */
#include "transport/head.h"
#include "transport/checksum.h"

#include <string.h>
#include <strings.h>

/* A part of the head. */
typedef struct span {
    const uint8_t *data;
    size_t size;
} span;

/* RFC 9110, section 5.6.2: token */
static int is_token(uint8_t c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) return 1;
    return c && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static int is_name(span name, const char *wanted)
{
    return name.size == strlen(wanted) && !strncasecmp((const char *)name.data, wanted, name.size);
}

static int is_text(span value, const char *wanted)
{
    return value.size == strlen(wanted) && !memcmp(value.data, wanted, value.size);
}

/* At most 15 digits, and no zero in front of others. */
static int read_number(span text, uint64_t *number)
{
    if (!text.size || text.size > 15 || (text.size > 1 && text.data[0] == '0')) return 0;
    uint64_t found = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') return 0;
        found = found * 10 + (text.data[i] - '0');
    }
    *number = found;
    return 1;
}

static int sixth_bits(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The base64 of exactly `width` bytes, the most significant first. */
static int read_sum(span text, size_t width, uint64_t *value)
{
    const size_t digits = (width * 8 + 5) / 6, padded = (digits + 3) / 4 * 4;
    if (text.size != padded) return 0;
    uint64_t found = 0;
    size_t bits = 0;
    for (size_t i = 0; i < digits; i++) {
        const int six = sixth_bits(text.data[i]);
        if (six < 0) return 0;
        const size_t take = width * 8 - bits < 6 ? width * 8 - bits : 6;
        if (six & ((1 << (6 - take)) - 1)) return 0; /* bits behind the last byte */
        found = found << take | (uint64_t)(six >> (6 - take));
        bits += take;
    }
    for (size_t i = digits; i < padded; i++)
        if (text.data[i] != '=') return 0;
    *value = found;
    return 1;
}

/* What has been seen of headers that may be there once. */
enum { LENGTH = 1, ETAG = 2, CONNECTION = 4, TYPE = 8, PARTIAL = 16 };

static int read_checksum(span name, span value, apf_head *head)
{
    static const char prefix[] = "x-amz-checksum-";
    const size_t skip = sizeof prefix - 1;
    const span kind = {name.data + skip, name.size - skip};
    uint64_t sum;
    uint8_t bit;
    if (is_name(kind, "crc64nvme") && read_sum(value, 8, &sum)) {
        head->crc64nvme = sum;
        bit = APF_SUM_CRC64NVME;
    } else if (is_name(kind, "crc32c") && read_sum(value, 4, &sum)) {
        head->crc32c = (uint32_t)sum;
        bit = APF_SUM_CRC32C;
    } else if (is_name(kind, "crc32") && read_sum(value, 4, &sum)) {
        head->crc32 = (uint32_t)sum;
        bit = APF_SUM_CRC32;
    } else {
        head->plain = 0; /* another algorithm, or of parts */
        return 1;
    }
    if (head->sums & bit) return 0;
    head->sums |= bit;
    return 1;
}

/* One field; 0: this head is not for here. */
static int read_field(span name, span value, apf_head *head, unsigned *seen)
{
    unsigned one = 0;
    if (is_name(name, "content-length")) {
        one = LENGTH;
        if (!read_number(value, &head->length)) return 0;
    } else if (is_name(name, "etag")) {
        one = ETAG;
        if (value.size < 2 || value.data[0] != '"' || value.data[value.size - 1] != '"') head->plain = 0;
    } else if (is_name(name, "connection")) {
        one = CONNECTION;
        head->keep = value.size == 10 && !strncasecmp((const char *)value.data, "keep-alive", 10);
    } else if (is_name(name, "transfer-encoding") || is_name(name, "trailer") || is_name(name, "upgrade")) {
        return 0;
    } else if (is_name(name, "content-encoding") || is_name(name, "content-range")) {
        head->plain = 0;
    } else if (is_name(name, "x-amz-checksum-type")) {
        one = TYPE;
        if (!is_text(value, "FULL_OBJECT")) *seen |= PARTIAL;
    } else if (name.size > 15 && !strncasecmp((const char *)name.data, "x-amz-checksum-", 15)) {
        return read_checksum(name, value, head);
    }
    if (*seen & one) return 0;
    *seen |= one;
    return 1;
}

static int read_status_line(span line, apf_head *head)
{
    static const char version[] = "HTTP/1.1 ";
    const size_t skip = sizeof version - 1;
    if (line.size < skip + 3 || memcmp(line.data, version, skip)) return 0;
    if (line.size > skip + 3 && line.data[skip + 3] != ' ') return 0;
    uint64_t status;
    if (!read_number((span){line.data + skip, 3}, &status) || status < 200 || status > 599) return 0;
    head->status = (uint32_t)status;
    return status != 204 && status != 205 && status != 304;
}

int apf_head_read(const uint8_t *data, size_t size, apf_head *head)
{
    *head = (apf_head){.keep = 1, .plain = 1};
    const size_t most = size < APF_HEAD_LARGEST ? size : APF_HEAD_LARGEST;
    unsigned seen = 0;
    for (size_t start = 0, lines = 0;; lines++) {
        const uint8_t *end = memchr(data + start, '\n', most - start);
        if (!end) return most < APF_HEAD_LARGEST ? APF_HEAD_MORE : APF_HEAD_ODD;
        span line = {data + start, (size_t)(end - data) - start};
        start += line.size + 1;
        if (!line.size || line.data[line.size - 1] != '\r') return APF_HEAD_ODD;
        line.size--;
        for (size_t i = 0; i < line.size; i++)
            if ((line.data[i] < ' ' && line.data[i] != '\t') || line.data[i] == 0x7f) return APF_HEAD_ODD;
        if (!lines) {
            if (!read_status_line(line, head)) return APF_HEAD_ODD;
            continue;
        }
        if (!line.size) {
            head->size = start;
            break;
        }
        size_t length = 0;
        while (length < line.size && is_token(line.data[length])) length++;
        if (!length || length == line.size || line.data[length] != ':') return APF_HEAD_ODD;
        span value = {line.data + length + 1, line.size - length - 1};
        while (value.size && (value.data[0] == ' ' || value.data[0] == '\t')) value.data++, value.size--;
        while (value.size && (value.data[value.size - 1] == ' ' || value.data[value.size - 1] == '\t')) value.size--;
        if (!read_field((span){line.data, length}, value, head, &seen)) return APF_HEAD_ODD;
    }
    if (!(seen & LENGTH)) return APF_HEAD_ODD;
    if (!(seen & ETAG)) head->plain = 0;
    if (seen & PARTIAL) head->sums = 0; /* of the parts: they say nothing about the whole */
    return APF_HEAD_READ;
}
