/* rtl.h - shared by the files of the rtl driver.
 *
 *   driver.c   the driver table: the software card of drivers/emulator, whose kernels are simulated designs
 *   options.c  settings of the simulator, in addition to those of the card
 *   kernel.c   from a program's description to a kernel; one run
 *   process.c  the simulator: a process, its socket, its end
 *
 * A program is a description that apyfal.rtl makes, one line an item:
 *
 *     apyfal-rtl 1
 *     simulator PATH
 *     argument KIND WHERE          once for each argument, in order; see `rtl_kinds`
 *     argument bytes WHERE SIZE    a struct or vector, in registers that follow each other
 *
 * A design's crash, hang or $finish is a failed run. The next run begins with a fresh process.
 */
#ifndef APF_RTL_H
#define APF_RTL_H

#include "drivers/emulator/emulator.h"

enum { RTL_ARGUMENTS = 24, RTL_OPTIONS = 24, RTL_BYTES_MOST = 1024 };

/* Kinds of places, by the names that the simulator knows. */
enum rtl_kind { RTL_SCALAR32, RTL_SCALAR64, RTL_BYTES, RTL_BUFFER, RTL_SOURCE, RTL_SINK, RTL_KINDS };
extern const char *const rtl_kinds[RTL_KINDS];

/* -- options -- */

typedef struct rtl_settings {
    char *values[RTL_OPTIONS]; /* "name=value", for the simulator's command line; NULL: not set */
} rtl_settings;

/* Whether `key` is a setting of the simulator, or one that only the program's build uses. */
int rtl_option_is_ours(const char *key);
/* INVALID, NO_MEMORY. */
int rtl_settings_set(rtl_settings *settings, const char *key, const char *value, apf_error *err);
int rtl_settings_copy(rtl_settings *copy, const rtl_settings *settings, apf_error *err);
void rtl_settings_end(rtl_settings *settings);

/* -- process -- */

typedef struct rtl_process {
    int pid;    /* 0: none */
    int socket; /* -1: none */
    int log;    /* file of its output; -1: none */
} rtl_process;

/* Start the simulator `path` over the card's memory, and wait until it is ready. PROGRAM, NO_MEMORY. */
int rtl_process_start(rtl_process *process, const char *path, const rtl_settings *settings, const emu_arena *arena,
                      apf_error *err);
/* Send a request and wait for the answer, which is put into answer (terminated). When *cancelled becomes non-zero the
 * simulator is asked to end the run, and killed if it does not. KERNEL (it died, with what is known), CANCELLED. */
int rtl_process_ask(rtl_process *process, const char *request, char *answer, size_t size, const emu_arena *arena,
                    const volatile int *cancelled, apf_error *err);
/* End it; no effect if there is none. */
void rtl_process_end(rtl_process *process);

/* -- kernel -- */

/* This driver's data of a card. */
typedef struct rtl_card {
    pthread_mutex_t lock;
    rtl_settings settings;
    uint64_t changes; /* number of changed settings: a process started before the last change is replaced */
} rtl_card;

int rtl_load(emu_card *card, const apf_program *program, apf_drv_kernel **kernel, apf_error *err);

#endif
