/* driver_support.h - helpers for authors of drivers; not part of the ABI.
 *
 * Like driver.h, it needs no other file: all functions are inline.
 */
#ifndef APF_DRIVER_SUPPORT_H
#define APF_DRIVER_SUPPORT_H

#include "driver.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __GNUC__
#define APF_PRINTF __attribute__((format(printf, 3, 4), unused))
#else
#define APF_PRINTF
#endif

/* Fill in *err (unless it is NULL) and return `code`. The text is one line that names the value and what was expected.
 */
APF_PRINTF static inline int apf_support_fail(apf_error *err, int code, const char *format, ...)
{
    if (!err) return code;
    err->code = code;
    err->sys = 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    return code;
}

/* Whether `text` contains `part`, ignoring case. */
static inline int apf_support_contains(const char *text, const char *part)
{
    for (; *text; text++) {
        size_t i = 0;
        while (part[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i])) i++;
        if (!part[i]) return 1;
    }
    return !*part;
}

/* Whether `selector`, as `open` gets it, means the device that `list` has at `index`: NULL or empty means the first,
 * digits an index, anything else a part of its name or identity. */
static inline int apf_support_selects(const char *selector, uint32_t index, const apf_device_info *info)
{
    if (!selector || !*selector) return index == 0;
    char *end;
    const unsigned long number = strtoul(selector, &end, 10);
    if (isdigit((unsigned char)*selector) && !*end) return number == index;
    return apf_support_contains(info->name, selector) || apf_support_contains(info->identity, selector);
}

/* Check a run's arguments against a signature with one letter each, b for a buffer and s for a scalar; and that buffers
 * begin at multiples of `align`. The caller has checked that they lie in their buffer objects. ARGUMENT, MISALIGNED. */
static inline int apf_support_check(const char *kernel, const char *signature, uint32_t align, const apf_arg *args,
                                    uint32_t count, apf_error *err)
{
    if (count != strlen(signature))
        return apf_support_fail(err, APF_ARGUMENT, "'%s' has %zu arguments; got %u", kernel, strlen(signature), count);
    for (uint32_t i = 0; i < count; i++) {
        const int wanted = signature[i] == 'b', given = args[i].kind == APF_BUFFER;
        if (wanted != given)
            return apf_support_fail(err, APF_ARGUMENT, "argument %u of '%s' is a %s; got a %s", i, kernel,
                                    wanted ? "buffer" : "scalar", given ? "buffer" : "scalar");
        if (given && args[i].offset % align)
            return apf_support_fail(err, APF_MISALIGNED,
                                    "argument %u of '%s' begins at byte %llu; expected a "
                                    "multiple of %u",
                                    i, kernel, (unsigned long long)args[i].offset, align);
    }
    return APF_OK;
}

#ifdef __GNUC__
/* Copy counters that other threads change by atomic operations. */
static inline void apf_support_counters(const apf_counters *counters, apf_counters *copy)
{
    copy->to_device = __atomic_load_n(&counters->to_device, __ATOMIC_RELAXED);
    copy->from_device = __atomic_load_n(&counters->from_device, __ATOMIC_RELAXED);
    copy->runs = __atomic_load_n(&counters->runs, __ATOMIC_RELAXED);
    copy->memory_used = __atomic_load_n(&counters->memory_used, __ATOMIC_RELAXED);
}
#endif

#endif
