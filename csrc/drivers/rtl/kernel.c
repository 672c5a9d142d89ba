/* A simulated design as a kernel of the software card. */
#include "rtl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH = 1024, ANSWER = 128 << 10 };
#define BASE 0x10000000ull /* address at which a design sees the first byte of the card's memory */

const char *const rtl_kinds[RTL_KINDS] = {"scalar32", "scalar64", "bytes", "buffer", "source", "sink"};

typedef struct rtl_kernel {
    emu_card *card;
    char name[64]; /* for errors; a longer one is cut */
    char simulator[PATH];
    char signature[RTL_ARGUMENTS + 1];
    uint64_t sizes[RTL_ARGUMENTS]; /* of structs */
    struct {
        enum rtl_kind kind;
        uint64_t where;
    } arguments[RTL_ARGUMENTS];
    uint32_t count;
    rtl_process process;
    uint64_t changes; /* the card's, when the process was started */
    char *answer;     /* of the last run */
    int good;         /* that run ended well */
} rtl_kernel;

/* -- description -- */

static int parse_argument(rtl_kernel *kernel, const char *line)
{
    char kind[16];
    unsigned long long where, size = 0;
    if (kernel->count == RTL_ARGUMENTS || sscanf(line, "argument %15s %llu %llu", kind, &where, &size) < 2) return 0;
    for (int i = 0; i < RTL_KINDS; i++)
        if (!strcmp(kind, rtl_kinds[i])) {
            if (i == RTL_BYTES && (!size || size > RTL_BYTES_MOST)) return 0;
            kernel->sizes[kernel->count] = size;
            kernel->signature[kernel->count] = i >= RTL_BUFFER ? 'b' : i == RTL_BYTES ? 'r' : 's';
            kernel->arguments[kernel->count].kind = (enum rtl_kind)i;
            kernel->arguments[kernel->count++].where = where;
            return 1;
        }
    return 0;
}

static int parse(rtl_kernel *kernel, const apf_program *program, apf_error *err)
{
    static const char magic[] = "apyfal-rtl 1\n";
    const char *text = program->data, *end = text + program->size;
    if (!text || program->size < sizeof magic || memcmp(text, magic, sizeof magic - 1) != 0)
        return apf_fail(err, APF_PROGRAM, 0, "%s: expected Verilog sources", program->name ? program->name : "program");
    for (text += sizeof magic - 1; text < end;) {
        char line[PATH + 32];
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        const size_t length = (size_t)((stop ? stop : end) - text);
        if (length >= sizeof line) return apf_fail(err, APF_PROGRAM, 0, "a line of the program is too long");
        memcpy(line, text, length);
        line[length] = '\0';
        text += length + 1;
        if (!strncmp(line, "simulator ", 10) && strlen(line + 10) < PATH)
            memcpy(kernel->simulator, line + 10, strlen(line + 10) + 1);
        else if (line[0] && !parse_argument(kernel, line))
            return apf_fail(err, APF_PROGRAM, 0, "'%.60s' is not a line of a program", line);
    }
    if (!kernel->simulator[0]) return apf_fail(err, APF_PROGRAM, 0, "the program does not name a simulator");
    return APF_OK;
}

/* -- run -- */

static int start_process(rtl_kernel *kernel, apf_error *err)
{
    rtl_card *ours = kernel->card->companion;
    rtl_settings settings;
    pthread_mutex_lock(&ours->lock);
    const int same = kernel->process.pid && kernel->changes == ours->changes;
    int code = same ? APF_OK : rtl_settings_copy(&settings, &ours->settings, err);
    const uint64_t changes = ours->changes;
    pthread_mutex_unlock(&ours->lock);
    if (same || code != APF_OK) return code;
    rtl_process_end(&kernel->process);
    code = rtl_process_start(&kernel->process, kernel->simulator, &settings, kernel->card->memory.arena, err);
    kernel->changes = changes;
    rtl_settings_end(&settings);
    return code;
}

/* The bytes of a struct as hexadecimal digits, the first byte first. */
static size_t append_bytes(char *text, size_t size, size_t length, uint64_t where, const apf_model_arg *arg)
{
    const uint8_t *bytes = arg->data;
    int added = snprintf(text + length, size - length, "%s %llu ", rtl_kinds[RTL_BYTES], (unsigned long long)where);
    length += added > 0 ? (size_t)added : 0;
    for (uint64_t i = 0; i < arg->size && length + 4 < size; i++, length += 2)
        snprintf(text + length, size - length, "%02x", bytes[i]);
    text[length++] = '\n';
    return length;
}

static size_t append(char *text, size_t size, size_t length, const rtl_kernel *kernel, uint32_t index,
                     const apf_model_arg *arg)
{
    unsigned long long value = arg->value.u, bytes = 0;
    const enum rtl_kind kind = kernel->arguments[index].kind;
    if (kind == RTL_BYTES) return append_bytes(text, size, length, kernel->arguments[index].where, arg);
    if (kind >= RTL_BUFFER) {
        value = BASE + (uint64_t)((uint8_t *)arg->data - emu_arena_data(kernel->card->memory.arena));
        bytes = arg->size;
    } else if (arg->kind == APF_F32) {
        uint32_t bits;
        memcpy(&bits, &arg->value.f, sizeof bits);
        value = bits;
    } /* the bits of a double are its 64 bits, those of an integer its two's complement */
    const int added = snprintf(text + length, size - length, "%s %llu %llu %llu\n", rtl_kinds[kind],
                               (unsigned long long)kernel->arguments[index].where, value, bytes);
    return length + (added > 0 ? (size_t)added : 0);
}

/* Find "key":"..." in an answer and copy the text, without its escapes of one character. */
static void copy_string(const char *answer, const char *key, char *text, size_t size)
{
    const char *at = strstr(answer, key);
    size_t length = 0;
    for (at = at ? at + strlen(key) : ""; *at && *at != '"' && length + 1 < size; at++) {
        if (*at == '\\' && at[1]) at++;
        text[length++] = *at;
    }
    text[length] = '\0';
}

static int run(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled, apf_error *err)
{
    rtl_kernel *kernel = context;
    uint64_t records = 0;
    kernel->good = 0;
    if (start_process(kernel, err) != APF_OK) return 1;
    for (uint32_t i = 0; i < count; i++) records += kernel->sizes[i];
    const size_t room = RTL_ARGUMENTS * 96 + 8 + 2 * records;
    char *request = apf_calloc(1, room);
    if (!request) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a run of kernel '%s'", kernel->name);
    size_t length = (size_t)snprintf(request, room, "run\n");
    for (uint32_t i = 0; i < count; i++) length = append(request, room, length, kernel, i, &args[i]);
    const int code =
        rtl_process_ask(&kernel->process, request, kernel->answer, ANSWER, kernel->card->memory.arena, cancelled, err);
    apf_free(request);
    if (code != APF_OK) return 1;
    if (!strncmp(kernel->answer, "ok ", 3)) {
        kernel->good = 1;
        return 0;
    }
    char text[700];
    copy_string(kernel->answer, "\"error\":\"", text, sizeof text);
    apf_fail(err, APF_KERNEL, 0, "kernel '%s': %s", kernel->name, text[0] ? text : kernel->answer);
    return 1;
}

static char *details(void *context)
{
    rtl_kernel *kernel = context;
    const char *object = kernel->good ? strchr(kernel->answer, ' ') : NULL;
    if (!object) return NULL;
    const size_t size = strlen(object + 1) + 1;
    char *copy = apf_calloc(1, size);
    if (copy) memcpy(copy, object + 1, size);
    return copy;
}

static void drop(void *context)
{
    rtl_kernel *kernel = context;
    rtl_process_end(&kernel->process);
    apf_free(kernel->answer);
    apf_free(kernel);
}

int rtl_load(emu_card *card, const apf_program *program, apf_drv_kernel **loaded, apf_error *err)
{
    rtl_kernel *kernel = apf_calloc(1, sizeof *kernel);
    if (kernel) kernel->process = (rtl_process){.socket = -1, .log = -1};
    if (!kernel || !(kernel->answer = apf_calloc(1, ANSWER))) {
        apf_free(kernel);
        return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a simulated kernel");
    }
    kernel->card = card;
    const char *name = program->kernel && *program->kernel ? program->kernel : "kernel";
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    int code = parse(kernel, program, err);
    const apf_model_entry entry = {.name = name,
                                   .function = run,
                                   .context = kernel,
                                   .details = details,
                                   .signature = kernel->signature,
                                   .sizes = kernel->sizes};
    if (code == APF_OK) code = emu_load_entry(card, program, &entry, drop, loaded, err);
    if (code != APF_OK) drop(kernel);
    return code;
}
