#include "apyfal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
#define NAME(name, text) #name,
    APF_ERRORS(NAME)
#undef NAME
};

static const char *const texts[] = {
#define TEXT(name, text) text,
    APF_ERRORS(TEXT)
#undef TEXT
};

static int known(int code) { return code >= 0 && code < APF_ERROR_COUNT; }

const char *apf_error_name(int code) { return known(code) ? names[code] : "UNKNOWN"; }

const char *apf_error_text(int code) { return known(code) ? texts[code] : "unknown error"; }

/* glibc's strerror_r returns the text, musl's a status. */
const char *apf_sys_text(int sys, char *buffer, size_t size)
{
#ifdef __GLIBC__
    return strerror_r(sys, buffer, size);
#else
    return strerror_r(sys, buffer, size) ? "unknown error" : buffer;
#endif
}

int apf_fail(apf_error *err, int code, int sys, const char *format, ...)
{
    if (!err) return code;
    err->code = code;
    err->sys = sys;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    if (sys > 0 && length >= 0 && (size_t)length < sizeof err->text) {
        char buffer[128];
        snprintf(err->text + length, sizeof err->text - (size_t)length, ": %s",
                 apf_sys_text(sys, buffer, sizeof buffer));
    }
    return code;
}
