/* Options of the xdma driver, and its register map. */
#include "xdma.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS                                                                                                           \
    "xdma.root, xdma.user, xdma.base, xdma.memory, xdma.channels, xdma.align, xdma.registers, xdma.control, "          \
    "xdma.protocol, xdma.events, xdma.access"

/* A number in C's notation, with an optional binary unit. */
static int read_number(const apf_option *option, uint64_t *value, apf_error *err)
{
    char *end;
    errno = 0;
    const unsigned long long number = strtoull(option->value, &end, 0);
    unsigned shift = 0;
    while (*end == ' ') end++;
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    for (unsigned i = 0; i < 4; i++)
        if (strcmp(end, units[i]) == 0) shift = 10 * (i + 1), end += 3;
    if (errno || *end || end == option->value || *option->value == '-' || number > UINT64_MAX >> shift)
        return apf_fail(err, APF_INVALID, 0, "xdma.%s is '%s'; expected a number such as 4096, 0x1000 or 4 KiB",
                        option->key, option->value);
    *value = (uint64_t)number << shift;
    return APF_OK;
}

static int read_text(const apf_option *option, char *text, size_t size, apf_error *err)
{
    if (strlen(option->value) >= size)
        return apf_fail(err, APF_INVALID, 0, "xdma.%s has more than %zu characters", option->key, size - 1);
    strcpy(text, option->value);
    return APF_OK;
}

static int read_choice(const apf_option *option, const char *no, const char *yes, int *value, apf_error *err)
{
    *value = strcmp(option->value, yes) == 0;
    if (*value || strcmp(option->value, no) == 0) return APF_OK;
    return apf_fail(err, APF_INVALID, 0, "xdma.%s is '%s'; expected %s or %s", option->key, option->value, no, yes);
}

static int read_option(xdma_options *options, const apf_option *option, apf_error *err)
{
    const char *key = option->key;
    if (strcmp(key, "root") == 0) return read_text(option, options->root, sizeof options->root, err);
    if (strcmp(key, "user") == 0) return read_text(option, options->user, sizeof options->user, err);
    if (strcmp(key, "registers") == 0) return read_text(option, options->registers, sizeof options->registers, err);
    if (strcmp(key, "base") == 0) return read_number(option, &options->base, err);
    if (strcmp(key, "memory") == 0) return read_number(option, &options->memory, err);
    if (strcmp(key, "control") == 0) return read_number(option, &options->control, err);
    if (strcmp(key, "align") == 0) return read_number(option, &options->align, err);
    if (strcmp(key, "channels") == 0) return read_number(option, &options->channels, err);
    if (strcmp(key, "events") == 0) return read_number(option, (uint64_t *)&options->events, err);
    if (strcmp(key, "protocol") == 0) return read_choice(option, "ap_ctrl_hs", "ap_ctrl_chain", &options->chain, err);
    if (strcmp(key, "access") == 0) return read_choice(option, "mmap", "call", &options->by_call, err);
    return apf_fail(err, APF_INVALID, 0, "unknown option 'xdma.%s'; the xdma driver has " KEYS, option->key);
}

int xdma_options_read(xdma_options *options, const apf_option *given, apf_error *err)
{
    const char *root = getenv("APYFAL_XDMA_ROOT");
    *options = (xdma_options){.memory = 1ull << 30, .channels = XDMA_CHANNELS, .events = -1};
    snprintf(options->root, sizeof options->root, "%s", root ? root : "/dev");
    for (; given && given->key; given++) {
        const int code = read_option(options, given, err);
        if (code != APF_OK) return code;
    }
    if (options->channels < 1 || options->channels > XDMA_CHANNELS)
        return apf_fail(err, APF_INVALID, 0, "xdma.channels is %llu; expected 1 to %d",
                        (unsigned long long)options->channels, XDMA_CHANNELS);
    if (options->align > XDMA_PAGE || (options->align & (options->align - 1)))
        return apf_fail(err, APF_INVALID, 0, "xdma.align is %llu; expected a power of two up to %u",
                        (unsigned long long)options->align, XDMA_PAGE);
    if (options->base % XDMA_PAGE || options->memory > (1ull << 62) || options->base > (1ull << 62))
        return apf_fail(err, APF_INVALID, 0, "xdma.base is %#llx; expected a multiple of %u below 2^62",
                        (unsigned long long)options->base, XDMA_PAGE);
    return APF_OK;
}

/* -- register map -- */

/* The next item of a comma-separated list, without blanks around it; NULL at the end. */
static const char *next_item(const char *at, const char **item, size_t *length)
{
    at += strspn(at, ", \t\n");
    if (!*at) return NULL;
    *item = at;
    const char *end = at + strcspn(at, ",");
    at = end;
    while (end > *item && strchr(" \t\n", end[-1])) end--;
    *length = (size_t)(end - *item);
    return at;
}

/* The size of a struct that is given in bits, as in BITS_<NAME>_DATA of x<kernel>_hw.h; 0: malformed. */
static uint32_t read_bits(const char *text, const char *end)
{
    uint32_t bits = 0;
    for (; text < end && *text >= '0' && *text <= '9' && bits <= 8 * XDMA_STRUCT; text++)
        bits = 10 * bits + (uint32_t)(*text - '0');
    return text < end || bits % 8 || bits <= 64 || bits > 8 * XDMA_STRUCT ? 0 : bits / 8;
}

/* Parse what follows NAME: OFFSET[:buffer|32|64|BITS]; false: malformed. */
static int read_place(const char *text, const char *end, xdma_register *found)
{
    char *rest;
    found->offset = strtoull(text, &rest, 0);
    found->kind = XDMA_ANY;
    found->size = 4;
    if (rest == text || found->offset % 4 || found->offset > 1u << 30) return 0;
    if (rest == end) return 1;
    const size_t length = (size_t)(end - rest);
    if (length == 3 && memcmp(rest, ":32", 3) == 0) found->kind = XDMA_SCALAR_32;
    if (length == 3 && memcmp(rest, ":64", 3) == 0) found->kind = XDMA_SCALAR_64;
    if (length == 7 && memcmp(rest, ":buffer", 7) == 0) found->kind = XDMA_BUFFER;
    if (found->kind != XDMA_ANY) {
        found->size = found->kind == XDMA_SCALAR_32 ? 4 : 8;
        return 1;
    }
    found->size = *rest == ':' ? read_bits(rest + 1, end) : 0;
    found->kind = XDMA_BYTES;
    return found->size != 0;
}

static int read_register(const char *map, const char *name, size_t length, const char *kernel, xdma_register *found,
                         apf_error *err)
{
    const char *item = NULL;
    size_t size = 0;
    for (const char *at = map; (at = next_item(at, &item, &size));) {
        if (size <= length || memcmp(item, name, length) != 0 || item[length] != ':') continue;
        if (read_place(item + length + 1, item + size, found)) return APF_OK;
        return apf_fail(
            err, APF_ARGUMENT, 0,
            "xdma.registers has '%.*s'; expected NAME:OFFSET or NAME:OFFSET:buffer|32|64 (for a struct its size in "
            "bits, 72 to %u), OFFSET a multiple of 4",
            (int)size, item, 8 * XDMA_STRUCT);
    }
    return apf_fail(err, APF_ARGUMENT, 0, "argument '%.*s' of '%s' has no register; xdma.registers is '%s'",
                    (int)length, name, kernel, map);
}

/* Registers follow each other: those of one argument must end where the next one's begin. */
static int measure_room(xdma_register *registers, uint32_t count, const char *kernel, apf_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        xdma_register *at = &registers[i];
        at->room = XDMA_STRUCT;
        for (uint32_t j = 0; j < count; j++) {
            if (j == i || registers[j].offset < at->offset) continue;
            const uint64_t room = registers[j].offset - at->offset;
            if (room < at->size)
                return apf_fail(err, APF_ARGUMENT, 0,
                                "arguments %u and %u of '%s' share the register at %#llx; see xdma.registers",
                                i < j ? i : j, i < j ? j : i, kernel, (unsigned long long)registers[j].offset);
            if (room < at->room) at->room = (uint32_t)room;
        }
    }
    return APF_OK;
}

int xdma_registers_read(const char *map, const char *names, const char *kernel, xdma_register **registers,
                        uint32_t *count, apf_error *err)
{
    xdma_register *list = apf_calloc(XDMA_ARGUMENTS, sizeof *list);
    if (!list) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for the registers of '%s'", kernel);
    const char *name = NULL;
    size_t length = 0;
    int code = APF_OK;
    *count = 0;
    for (const char *at = names ? names : ""; code == APF_OK && (at = next_item(at, &name, &length));) {
        if (*count == XDMA_ARGUMENTS)
            code = apf_fail(err, APF_ARGUMENT, 0, "'%s' has more than %d arguments", kernel, XDMA_ARGUMENTS);
        else
            code = read_register(map, name, length, kernel, &list[(*count)++], err);
    }
    if (code == APF_OK) code = measure_room(list, *count, kernel, err);
    if (code == APF_OK)
        *registers = list;
    else
        apf_free(list);
    return code;
}
