/* Read an xclbin: container layout of <xrt/xclbin.h> (struct axlf), kernels from its embedded XML metadata. */
#include "xclbin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Offsets in struct axlf, and what follows it. */
#define LENGTH_AT 304
#define UUID_AT 416
#define SECTIONS_COUNT_AT 448
#define SECTIONS_AT 456
#define SECTION_SIZE 40 /* kind, name[16], padding, offset, size */
#define MEMORY_SIZE 40  /* type, used, padding, KiB, base address, tag[16] */

enum { SECTION_METADATA = 2, SECTION_MEMORY = 6, SECTION_GROUPS = 26 };
enum { MEMORY_STREAMING = 3, MEMORY_STREAMING_CONNECTION = 9, MEMORY_HOST = 10 };

static uint32_t u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static int read_banks(xrt_xclbin *xclbin, const uint8_t *section, uint64_t size, const char *name, apf_error *err)
{
    if (size < 8 || (size - 8) / MEMORY_SIZE < u32(section))
        return apf_fail(err, APF_PROGRAM, 0, "'%s' is damaged: its memory topology is cut", name);
    const uint32_t count = u32(section);
    xrt_bank *banks = apf_calloc(count ? count : 1, sizeof *banks);
    if (!banks) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for %u memory banks", count);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *memory = section + 8 + (size_t)i * MEMORY_SIZE;
        const uint8_t type = memory[0];
        banks[i].used = memory[1] && type != MEMORY_STREAMING && type != MEMORY_STREAMING_CONNECTION;
        banks[i].size = u64(memory + 8) << 10;
        banks[i].host = type == MEMORY_HOST || strncmp((const char *)memory + 24, "HOST[", 5) == 0;
    }
    apf_free(xclbin->banks);
    xclbin->banks = banks;
    xclbin->banks_count = count;
    return APF_OK;
}

int xrt_xclbin_read(xrt_xclbin *xclbin, const void *data, size_t size, const char *name, apf_error *err)
{
    const uint8_t *bytes = data;
    memset(xclbin, 0, sizeof *xclbin);
    if (size < SECTIONS_AT || memcmp(bytes, "xclbin2", 8) != 0)
        return apf_fail(err, APF_PROGRAM, 0, "'%s' is not an xclbin: it does not begin with 'xclbin2'", name);
    if (u64(bytes + LENGTH_AT) != size)
        return apf_fail(err, APF_PROGRAM, 0, "'%s' is damaged: it has %zu bytes, its header says %llu", name, size,
                        (unsigned long long)u64(bytes + LENGTH_AT));
    const uint32_t count = u32(bytes + SECTIONS_COUNT_AT);
    if (count > (size - SECTIONS_AT) / SECTION_SIZE)
        return apf_fail(err, APF_PROGRAM, 0, "'%s' is damaged: %u sections do not fit in it", name, count);
    memcpy(xclbin->uuid, bytes + UUID_AT, sizeof xclbin->uuid);
    xclbin->data = bytes;
    int groups = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *section = bytes + SECTIONS_AT + (size_t)i * SECTION_SIZE;
        const uint32_t kind = u32(section);
        const uint64_t offset = u64(section + 24), length = u64(section + 32);
        if (offset > size || length > size - offset) {
            xrt_xclbin_end(xclbin);
            return apf_fail(err, APF_PROGRAM, 0, "'%s' is damaged: section %u (kind %u) lies outside of it", name, i,
                            kind);
        }
        /* If there are argument groups, buffers are allocated in them; otherwise in the banks. */
        if (kind == SECTION_GROUPS || (kind == SECTION_MEMORY && !groups)) {
            groups |= kind == SECTION_GROUPS;
            const int code = read_banks(xclbin, bytes + offset, length, name, err);
            if (code != APF_OK) {
                xrt_xclbin_end(xclbin);
                return code;
            }
        } else if (kind == SECTION_METADATA) {
            xclbin->xml = (const char *)bytes + offset;
            xclbin->xml_size = length;
        }
    }
    return APF_OK;
}

void xrt_xclbin_end(xrt_xclbin *xclbin)
{
    apf_free(xclbin->banks);
    xclbin->banks = NULL;
    xclbin->banks_count = 0;
}

/* -- XML -- */

typedef struct span {
    const char *at, *end;
} span;

static const char *find(span in, const char *text)
{
    return in.at < in.end ? memmem(in.at, (size_t)(in.end - in.at), text, strlen(text)) : NULL;
}

/* The next element `<name ...>` from in->at on, which moves behind it; false: none. */
static int next_element(span *in, const char *name, span *element)
{
    char opening[24];
    snprintf(opening, sizeof opening, "<%s ", name);
    const char *at = find(*in, opening);
    if (!at) return 0;
    const char *end = memchr(at, '>', (size_t)(in->end - at));
    if (!end) return 0;
    *element = (span){at, end};
    in->at = end;
    return 1;
}

/* Copy an attribute's value; empty if there is none. */
static void attribute(span element, const char *name, char *value, size_t size)
{
    char opening[32];
    snprintf(opening, sizeof opening, " %s=\"", name);
    const char *at = find(element, opening);
    *value = '\0';
    if (!at) return;
    at += strlen(opening);
    const char *end = memchr(at, '"', (size_t)(element.end - at));
    if (!end) return;
    const size_t length = (size_t)(end - at) < size - 1 ? (size_t)(end - at) : size - 1;
    memcpy(value, at, length);
    value[length] = '\0';
}

static uint32_t number(span element, const char *name)
{
    char value[24];
    attribute(element, name, value, sizeof value);
    return (uint32_t)strtoul(value, NULL, 0);
}

static uint32_t count_elements(span in, const char *name)
{
    span element;
    uint32_t count = 0;
    while (next_element(&in, name, &element)) count++;
    return count;
}

static int read_parameters(span body, xrt_parameter **parameters, uint32_t *count, apf_error *err)
{
    const uint32_t total = count_elements(body, "arg");
    xrt_parameter *list = apf_calloc(total ? total : 1, sizeof *list);
    if (!list) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for %u kernel arguments", total);
    span element;
    while (next_element(&body, "arg", &element)) {
        const uint32_t index = number(element, "id");
        if (index >= total) continue; /* hidden arguments of some kernels have no number */
        xrt_parameter *parameter = &list[index];
        attribute(element, "name", parameter->name, sizeof parameter->name);
        attribute(element, "type", parameter->type, sizeof parameter->type);
        parameter->qualifier = number(element, "addressQualifier");
        parameter->size = number(element, "size");
        if (index >= *count) *count = index + 1;
    }
    *parameters = list;
    return APF_OK;
}

int xrt_xclbin_kernel(const xrt_xclbin *xclbin, const char *kernel, xrt_parameter **parameters, uint32_t *count,
                      uint32_t *units, apf_error *err)
{
    span rest = {xclbin->xml, xclbin->xml + xclbin->xml_size}, element;
    const size_t length = strcspn(kernel, ":");
    char names[512] = "";
    size_t used = 0;
    *count = 0;
    while (xclbin->xml && next_element(&rest, "kernel", &element)) {
        char name[128];
        attribute(element, "name", name, sizeof name);
        const char *end = find(rest, "</kernel>");
        const span body = {rest.at, end ? end : rest.end};
        if (strlen(name) == length && memcmp(name, kernel, length) == 0) {
            *units = count_elements(body, "instance");
            return read_parameters(body, parameters, count, err);
        }
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", name);
        rest.at = body.end;
    }
    return apf_fail(err, APF_NOT_FOUND, 0, "no kernel '%.*s' in the xclbin; it has: %s", (int)length, kernel,
                    used ? names : "none");
}
