/* The C tests of the core and the software card: all, or those named as arguments. */
#include "check.h"

extern const check_test tests_emulator[], tests_queue[], tests_card_faults[], tests_registered[], tests_models[],
    tests_answers[], tests_heads[], tests_transport[], tests_tls[];

int main(int argc, char **argv)
{
    const check_test *const groups[] = {tests_emulator, tests_queue, tests_card_faults, tests_registered, tests_models,
                                        tests_answers,  tests_heads, tests_transport,   tests_tls};
    int ran = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) ran += check_run(groups[i], argc, argv);
    if (!ran) fprintf(stderr, "no such test\n");
    return !ran;
}
