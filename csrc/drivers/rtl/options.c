/* Settings of the simulator: each is checked here and passed on its command line. */
#include "rtl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { NUMBER, FRACTION, PERCENT, SWITCH, TEXT };

/* Name, kind of value, and whether the simulator gets it (otherwise only the build). The order is that of
 * rtl_settings. */
static const struct {
    const char *name;
    enum kind kind;
    int simulator;
} known[] = {
    {"latency", NUMBER, 1},      {"bandwidth", FRACTION, 1}, {"outstanding", NUMBER, 1},
    {"early_data", NUMBER, 1},   {"banks", TEXT, 1},         {"stall", PERCENT, 1},
    {"reorder", SWITCH, 1},      {"seed", NUMBER, 1},        {"max_cycles", NUMBER, 1},
    {"hang_cycles", NUMBER, 1},  {"trace", TEXT, 1},         {"trace_from", NUMBER, 1},
    {"trace_cycles", NUMBER, 1}, {"coverage", TEXT, 1},      {"clock2_percent", NUMBER, 1},
    {"clock", TEXT, 1},          {"registers", TEXT, 0},     {"protocol", TEXT, 0},
    {"parameters", TEXT, 0},     {"optimize", TEXT, 0},
};

enum { KNOWN = sizeof known / sizeof *known };
_Static_assert((int)KNOWN <= (int)RTL_OPTIONS, "a place for each setting");

static int find(const char *key)
{
    for (int i = 0; i < KNOWN; i++)
        if (!strcmp(known[i].name, key)) return i;
    return -1;
}

int rtl_option_is_ours(const char *key) { return find(key) >= 0; }

static int is_number(const char *text, int fraction)
{
    const char *at = text;
    while (isdigit((unsigned char)*at) || (fraction && *at == '.')) at++;
    return at != text && !*at && at - text < 19;
}

static int valid(enum kind kind, const char *value)
{
    switch (kind) {
    case NUMBER:
        return is_number(value, 0);
    case FRACTION:
        return is_number(value, 1);
    case PERCENT:
        return is_number(value, 0) && atol(value) <= 95;
    case SWITCH:
        return !strcmp(value, "0") || !strcmp(value, "1");
    default:
        return 1;
    }
}

int rtl_settings_set(rtl_settings *settings, const char *key, const char *value, apf_error *err)
{
    static const char *const expected[] = {"a whole number", "a number", "percent, 0 to 95", "0 or 1", "text"};
    const int index = find(key);
    if (index < 0 || !valid(known[index].kind, value))
        return apf_fail(err, APF_INVALID, 0, "rtl: %s = '%s' is wrong: expected %s", key, value,
                        expected[index < 0 ? TEXT : known[index].kind]);
    if (!known[index].simulator || !*value) return APF_OK;
    const size_t size = strlen(key) + strlen(value) + 2;
    char *text = apf_calloc(1, size);
    if (!text) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for setting %s", key);
    snprintf(text, size, "%s=%s", key, value);
    apf_free(settings->values[index]);
    settings->values[index] = text;
    return APF_OK;
}

int rtl_settings_copy(rtl_settings *copy, const rtl_settings *settings, apf_error *err)
{
    *copy = (rtl_settings){0};
    for (int i = 0; i < RTL_OPTIONS; i++) {
        if (!settings->values[i]) continue;
        const size_t size = strlen(settings->values[i]) + 1;
        if (!(copy->values[i] = apf_calloc(1, size))) {
            rtl_settings_end(copy);
            return apf_fail(err, APF_NO_MEMORY, 0, "no memory for the simulator's settings");
        }
        memcpy(copy->values[i], settings->values[i], size);
    }
    return APF_OK;
}

void rtl_settings_end(rtl_settings *settings)
{
    for (int i = 0; i < RTL_OPTIONS; i++) {
        apf_free(settings->values[i]);
        settings->values[i] = NULL;
    }
}
