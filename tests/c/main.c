/* The C tests: all, or those named as arguments. */
#include "check.h"

extern const check_test tests_emulator[], tests_queue[], tests_models[];

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    const int none = check_run(tests_emulator, argc, argv) + check_run(tests_queue, argc, argv) +
                     check_run(tests_models, argc, argv);
    if (none == 3) fprintf(stderr, "no such test\n");
    return none == 3;
}
