/* Settings of the software card: one table defines the parser, the errors and the defaults. */
#include "emulator.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct option {
    const char *name;
    enum emu_kind kind;
    size_t field;
    uint64_t value;
} option;

static const option options_known[] = {
#define OPTION(name, kind, value, meaning) {#name, kind, offsetof(emu_settings, name), value},
    EMU_SETTINGS(OPTION)
#undef OPTION
};

enum { OPTIONS = sizeof options_known / sizeof *options_known };

static uint64_t *field_of(emu_settings *settings, const option *known)
{
    return (uint64_t *)(void *)((char *)settings + known->field);
}

static const option *option_find(const char *name, size_t length)
{
    for (size_t i = 0; i < OPTIONS; i++)
        if (strlen(options_known[i].name) == length && !memcmp(options_known[i].name, name, length))
            return &options_known[i];
    return NULL;
}

static int fail_unknown(const char *name, size_t length, apf_error *err)
{
    char all[512] = "";
    for (size_t i = 0; i < OPTIONS; i++) {
        if (i) strncat(all, ", ", sizeof all - strlen(all) - 1);
        strncat(all, options_known[i].name, sizeof all - strlen(all) - 1);
    }
    return apf_fail(err, APF_INVALID, 0, "unknown setting '%.*s' of the emulator; there are: %s", (int)length, name,
                    all);
}

static double power(double base, int exponent)
{
    double result = 1;
    while (exponent-- > 0) result *= base;
    return result;
}

/* Units as in apyfal.units: KiB and K are 1024, KB is 1000, in any case. 0: unknown. */
static double size_unit(const char *text)
{
    static const char letters[] = "KMGTP";
    if (!*text || !strcasecmp(text, "B")) return 1;
    const char *letter = strchr(letters, toupper((unsigned char)*text));
    if (!letter) return 0;
    const int exponent = (int)(letter - letters) + 1;
    if (!text[1] || !strcasecmp(text + 1, "iB")) return power(1024, exponent);
    return strcasecmp(text + 1, "B") ? 0 : power(1000, exponent);
}

/* In ns; microseconds if no unit is given. 0: unknown. */
static double time_unit(const char *text)
{
    if (!*text || !strcmp(text, "us")) return 1e3;
    if (!strcmp(text, "ms")) return 1e6;
    return strcmp(text, "s") ? 0 : 1e9;
}

static const char *expected(enum emu_kind kind)
{
    switch (kind) {
    case EMU_COUNT:
        return "a whole number";
    case EMU_SIZE:
        return "bytes, or text like '64KiB', '2GiB'";
    case EMU_MICROSECONDS:
        return "microseconds, or text like '1.5ms'";
    default:
        return "0 or 1";
    }
}

/* The largest value of a kind. A double holds every whole number up to 2**53. */
static double largest(enum emu_kind kind)
{
    if (kind == EMU_SWITCH) return 1;
    return kind == EMU_COUNT ? UINT32_MAX : 0x1p53;
}

static int parse(const option *known, const char *text, size_t length, uint64_t *value)
{
    char copy[64];
    if (!length || length >= sizeof copy) return 0;
    memcpy(copy, text, length);
    copy[length] = '\0';
    if (!isdigit((unsigned char)*copy) && *copy != '.') return 0; /* no sign, no "inf", no "nan" */
    char *unit;
    double number = strtod(copy, &unit);
    while (*unit == ' ') unit++;
    double factor = !*unit;
    if (known->kind == EMU_SIZE) factor = size_unit(unit);
    if (known->kind == EMU_MICROSECONDS) factor = time_unit(unit);
    number *= factor;
    if (factor == 0 || !(number <= largest(known->kind))) return 0;
    *value = (uint64_t)number;
    return (double)*value == number || known->kind == EMU_MICROSECONDS;
}

static int settings_set(emu_settings *settings, const char *key, size_t key_length, const char *value, size_t length,
                        apf_error *err)
{
    const option *known = option_find(key, key_length);
    if (!known) return fail_unknown(key, key_length, err);
    uint64_t parsed;
    if (!parse(known, value, length, &parsed))
        return apf_fail(err, APF_INVALID, 0, "emulator: %s = '%.*s' is wrong: expected %s", known->name, (int)length,
                        value, expected(known->kind));
    if (known->field == offsetof(emu_settings, import_align) &&
        (parsed == 0 || parsed & (parsed - 1) || parsed > 1u << 30))
        return apf_fail(err, APF_INVALID, 0,
                        "emulator: import_align = '%.*s' is wrong: expected a power of two to 1GiB", (int)length,
                        value);
    *field_of(settings, known) = parsed;
    return APF_OK;
}

int emu_settings_set(emu_settings *settings, const char *key, const char *value, apf_error *err)
{
    return settings_set(settings, key, strlen(key), value, strlen(value), err);
}

/* "key=value,key=value", from the environment. */
static int settings_read_list(emu_settings *settings, const char *list, apf_error *err)
{
    while (*list) {
        const size_t length = strcspn(list, ",");
        const size_t key = strcspn(list, "=,");
        if (length && key == length)
            return apf_fail(err, APF_INVALID, 0, "APYFAL_EMULATOR: '%.*s' is not key=value", (int)length, list);
        if (length) {
            int code = settings_set(settings, list, key, list + key + 1, length - key - 1, err);
            if (code != APF_OK) return code;
        }
        list += length + (list[length] == ',');
    }
    return APF_OK;
}

int emu_settings_read(emu_settings *settings, const apf_option *options, apf_error *err)
{
    for (size_t i = 0; i < OPTIONS; i++) *field_of(settings, &options_known[i]) = options_known[i].value;
    const char *environment = getenv("APYFAL_EMULATOR");
    int code = environment ? settings_read_list(settings, environment, err) : APF_OK;
    for (; code == APF_OK && options && options->key; options++)
        code = emu_settings_set(settings, options->key, options->value, err);
    return code;
}
