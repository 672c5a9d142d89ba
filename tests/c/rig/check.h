/* check.h - the smallest test harness that says where and what: a test is a function, a failed check ends the program.
 */
#ifndef CHECK_H
#define CHECK_H

#include "apyfal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #condition);                    \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* An integer value, printed where it is not the expected one. */
#define CHECK_EQUAL(value, expected)                                                                                   \
    do {                                                                                                               \
        const long long check_value = (long long)(value), check_expected = (long long)(expected);                      \
        if (check_value != check_expected) {                                                                           \
            fprintf(stderr, "%s:%d: %s: %s is %lld, expected %lld\n", __FILE__, __LINE__, __func__, #value,            \
                    check_value, check_expected);                                                                      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A call that must give `expected`, an APF_ code; `err` is what it filled in. */
#define CHECK_CODE(call, expected, err)                                                                                \
    do {                                                                                                               \
        const int check_code = (call);                                                                                 \
        if (check_code != (expected)) {                                                                                \
            fprintf(stderr, "%s:%d: %s: %s gave %s (%s), expected %s\n", __FILE__, __LINE__, __func__, #call,          \
                    apf_error_name(check_code), check_code ? (err).text : "", apf_error_name(expected));               \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define CHECK_OK(call, err) CHECK_CODE(call, APF_OK, err)

#define CHECK_TEXT(text, part)                                                                                         \
    do {                                                                                                               \
        if (!strstr((text), (part))) {                                                                                 \
            fprintf(stderr, "%s:%d: %s: '%s' does not say '%s'\n", __FILE__, __LINE__, __func__, (text), (part));      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

typedef struct check_test {
    const char *name;
    void (*function)(void);
} check_test;

#define TEST(name) {#name, name}

/* Run the tests that the arguments name, or all; returns how many. */
static inline int check_run(const check_test *tests, int argc, char **argv)
{
    int ran = 0;
    for (; tests->name; tests++) {
        int wanted = argc < 2;
        for (int i = 1; i < argc; i++) wanted |= !strcmp(argv[i], tests->name);
        if (!wanted) continue;
        tests->function();
        printf("ok %s\n", tests->name);
        ran++;
    }
    return ran;
}

#endif
