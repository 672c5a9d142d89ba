/* Built programs on disk: by all that decides what is built, so that the next process does not build them again.
 *
 * An entry holds its whole key, which is compared: equal digests do not confuse two programs. It appears by a rename,
 * and its digest tells a damaged one, which is built anew. A binary is kept only if the program that is made of it
 * declares the same kernels and arguments: some platforms' binaries lose what the checks of arguments need.
 */
#include "drivers/opencl/opencl.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

enum {
    LARGEST = 64 << 20, /* bytes of a key and of a binary */
    NAMES = 4096,       /* bytes of the names of a program's kernels */
};

typedef struct header {
    char magic[16];
    uint64_t key, declared, binary; /* bytes, in this order behind the header */
    uint64_t digest;                /* of all three */
} header;

static const char magic[16] = "apyfal-program1";

/* -- what builds -- */

static int put_platform(const apf_drv_device *device, FILE *out)
{
    const ocl_api *api = device->api;
    char text[2048];
    cl_platform_id platform = NULL;
    if (api->clGetDeviceInfo(device->id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL)) return 0;
    static const cl_uint of_platform[] = {CL_PLATFORM_NAME, CL_PLATFORM_VENDOR, CL_PLATFORM_VERSION};
    static const cl_uint of_device[] = {CL_DEVICE_NAME, CL_DEVICE_VENDOR, CL_DEVICE_VERSION, CL_DRIVER_VERSION};
    for (size_t i = 0; i < sizeof of_platform / sizeof *of_platform; i++) {
        if (api->clGetPlatformInfo(platform, of_platform[i], sizeof text, text, NULL)) return 0;
        fprintf(out, "%s%c", text, 0);
    }
    for (size_t i = 0; i < sizeof of_device / sizeof *of_device; i++) {
        if (api->clGetDeviceInfo(device->id, of_device[i], sizeof text, text, NULL)) return 0;
        fprintf(out, "%s%c", text, 0);
    }
    return 1;
}

/* Platforms on CPUs compile for the processor, which their names do not always tell: a home directory can be on many
 * machines. */
static void put_processor(FILE *out)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char *line = NULL;
    size_t room = 0;
    while (file && getline(&line, &room, file) > 1)
        if (!strncmp(line, "model name", 10) || !strncmp(line, "flags", 5) || !strncmp(line, "Features", 8) ||
            !strncmp(line, "CPU ", 4))
            fputs(line, out);
    free(line);
    if (file) fclose(file);
}

/* Variables by which the platforms' compilers are set: their digest, since such a name can also be that of a secret
 * (NVIDIA_API_KEY), which must not lie on the disk. */
static void put_environment(FILE *out)
{
    static const char *const prefixes[] = {"AMD_",  "CL_", "CLANG_", "CUDA_", "GPU_",  "IGC_", "INTEL_",
                                           "LLVM_", "NEO", "NV",     "OCL_",  "POCL_", "ROC",  "XCL_"};
    uint64_t digest = OCL_DIGEST_OF_NOTHING;
    for (char **one = environ; one && *one; one++)
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
            if (!strncmp(*one, prefixes[i], strlen(prefixes[i]))) digest = ocl_digest(digest, *one, strlen(*one) + 1);
    fprintf(out, "%016llx%c", (unsigned long long)digest, 0);
}

void ocl_open_cache(apf_drv_device *device, const char *directory)
{
    if (!device->api->clGetProgramInfo) return;
    FILE *out = open_memstream(&device->builder, &device->built_by);
    if (!out) return;
    int known = put_platform(device, out);
    fprintf(out, "%zu%c", sizeof(ocl_parameter), 0);
    put_processor(out);
    put_environment(out);
    known &= !ferror(out);
    known &= !fclose(out);
    if (known) device->cache = strdup(directory);
}

void ocl_close_cache(apf_drv_device *device)
{
    free(device->cache);
    free(device->builder);
}

/* -- what can be cached -- */

/* The length of a `#line` directive at a place of the text, with its newline. It is skipped, since the file name in it
 * includes nothing. 0: there is none, or a backslash joins the line with another. */
static size_t line_mark(const char *text, size_t size, size_t at)
{
    static const char mark[] = "#line ";
    if (size - at < sizeof mark || memcmp(text + at, mark, sizeof mark - 1)) return 0;
    if (at && (text[at - 1] != '\n' || (at > 1 && strchr("\\/\r", text[at - 2])))) return 0;
    const char *end = memchr(text + at, '\n', size - at);
    return end && !strchr("\\/\r", end[-1]) ? (size_t)(end - text) + 1 - at : 0;
}

/* True if the text holds `word`, also over lines that a backslash (or its trigraph) joins. */
static int holds(const char *text, size_t size, const char *word)
{
    for (size_t begin = 0; begin < size; begin++) {
        for (size_t mark; (mark = line_mark(text, size, begin)) > 0;) begin += mark;
        const char *wanted = word;
        for (size_t at = begin; at < size && *wanted; at++) {
            if (text[at] == *wanted)
                wanted++;
            else if (wanted == word || !memchr("\\?/ \t\r\n\v\f", text[at], 9))
                break;
        }
        if (!*wanted) return 1;
    }
    return 0;
}

/* Whether the text alone decides what is built. It does not if it brings in a file, whose content is not known here,
 * or the time. A directive's name is not expanded, so it is in the text as it is. */
static int is_complete(const char *text, size_t size)
{
    static const char *const words[] = {"include", "import",   "embed",    "incbin",
                                        "asm",     "__DATE__", "__TIME__", "__TIMESTAMP__"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (holds(text, size, words[i])) return 0;
    return 1;
}

/* Whether all options are known to name no file, except include directories, which a complete text does not use, and
 * contain no word of `is_complete`. Others could name one: a program with such an option is built every time. */
static int are_known(const char *options)
{
    static const char *const known[] = {"-D",      "-U",    "-I",      "-cl-",  "-O", "-w",
                                        "-Werror", "-Wall", "-Wextra", "-Wno-", "-g"};
    int value = 0, directory = 0;
    while (*(options += strspn(options, " \t\n"))) {
        const size_t length = strcspn(options, " \t\n");
        int found = value;
        for (size_t i = 0; !found && i < sizeof known / sizeof *known; i++)
            found = !strncmp(options, known[i], strlen(known[i]));
        directory = value ? directory : !strncmp(options, "-I", 2);
        if (!found || (!directory && !is_complete(options, length))) return 0;
        value = !value && length == 2 && strchr("DUI", options[1]) != NULL;
        options += length;
    }
    return 1;
}

void ocl_find_cached(const apf_drv_device *device, const apf_program *from, const char *options, ocl_cached *entry)
{
    *entry = (ocl_cached){0};
    if (!device->cache || !is_complete(from->data, from->size) || !are_known(options)) return;
    const size_t given = strlen(options) + 1, size = device->built_by + given + from->size;
    char *key = malloc(size);
    if (!key || size > LARGEST) {
        free(key);
        return;
    }
    memcpy(key, device->builder, device->built_by);
    memcpy(key + device->built_by, options, given);
    memcpy(key + device->built_by + given, from->data, from->size);
    if (asprintf(&entry->path, "%s/%016llx", device->cache,
                 (unsigned long long)ocl_digest(OCL_DIGEST_OF_NOTHING, key, size)) < 0) {
        free(key);
        return;
    }
    entry->key = key;
    entry->key_size = size;
}

void ocl_end_cached(ocl_cached *entry)
{
    if (!entry->key) return;
    free(entry->path);
    free(entry->key);
}

/* -- binaries -- */

static cl_program of_binary(const apf_drv_device *device, const unsigned char *binary, size_t size)
{
    const ocl_api *api = device->api;
    cl_int status, taken = CL_SUCCESS;
    cl_program program =
        api->clCreateProgramWithBinary(device->context, 1, &device->id, &size, &binary, &taken, &status);
    if (status != CL_SUCCESS) return NULL;
    if (taken == CL_SUCCESS && api->clBuildProgram(program, 1, &device->id, "", NULL, NULL) == CL_SUCCESS)
        return program;
    api->clReleaseProgram(program);
    return NULL;
}

/* One kernel of what is recorded; its parameters, each an ocl_parameter, follow. */
typedef struct record {
    char name[128];
    uint64_t count;
    uint64_t required[3]; /* size of work-groups */
} record;

/* The record of a kernel; NULL: there is none with as many arguments. */
static const char *record_of(const apf_drv_kernel *kernel, record *found)
{
    const ocl_program *program = kernel->program;
    const char *at = program->declared;
    for (size_t left = program->declared_size; at && left >= sizeof *found;) {
        memcpy(found, at, sizeof *found);
        if (found->count > (left - sizeof *found) / sizeof(ocl_parameter)) return NULL;
        const size_t size = sizeof *found + (size_t)found->count * sizeof(ocl_parameter);
        if (!strncmp(found->name, kernel->name, sizeof found->name))
            return found->count == kernel->count ? at + sizeof *found : NULL;
        at += size;
        left -= size;
    }
    return NULL;
}

const char *ocl_recorded(const apf_drv_kernel *kernel)
{
    record found;
    return kernel->program->declared ? record_of(kernel, &found) : NULL;
}

static int put_record(apf_drv_kernel *kernel, FILE *out)
{
    record one = {.count = kernel->count};
    snprintf(one.name, sizeof one.name, "%s", kernel->name);
    for (int i = 0; i < 3; i++) one.required[i] = kernel->required[i];
    fwrite(&one, sizeof one, 1, out);
    for (uint32_t i = 0; i < kernel->count; i++) {
        ocl_parameter parameter = {0};
        if (kernel->device->version >= 12) ocl_declared(kernel, i, &parameter);
        fwrite(&parameter, sizeof parameter, 1, out);
    }
    return !ferror(out);
}

static int agrees(apf_drv_kernel *kernel, FILE *unused)
{
    (void)unused;
    record found;
    if (!record_of(kernel, &found)) return 0;
    for (int i = 0; i < 3; i++)
        if (found.required[i] != kernel->required[i]) return 0;
    return 1;
}

/* True if there are kernels, and `visit` is true for each. */
static int for_all(apf_drv_device *device, ocl_program *program, int (*visit)(apf_drv_kernel *, FILE *), FILE *out)
{
    char names[NAMES], *rest = NULL;
    int good = ocl_kernel_names(device, program->handle, names, sizeof names) > 0;
    for (char *name = strtok_r(names, ", ", &rest); name && good; name = strtok_r(NULL, ", ", &rest)) {
        const apf_program from = {.kernel = name};
        apf_drv_kernel *kernel = NULL;
        apf_error none;
        good = ocl_open_kernel(device, program, &from, &kernel, &none) == APF_OK;
        if (!good) break;
        ocl_work_groups(kernel);
        good = visit(kernel, out);
        device->api->clReleaseKernel(kernel->handle);
        apf_free(kernel);
    }
    return good;
}

/* Make a program of a binary, if it has the kernels that are recorded; it owns the record then. */
static int of_entry(apf_drv_device *device, const void *declared, size_t declared_size, const void *binary, size_t size,
                    ocl_program *program)
{
    ocl_program made = {.handle = of_binary(device, binary, size), .declared_size = declared_size};
    if (!made.handle) return 0;
    made.declared = malloc(declared_size + 1);
    if (made.declared) memcpy(made.declared, declared, declared_size);
    if (made.declared && for_all(device, &made, agrees, NULL)) {
        program->handle = made.handle;
        program->declared = made.declared;
        program->declared_size = made.declared_size;
        return 1;
    }
    ocl_end_program(device, &made);
    return 0;
}

/* -- entries -- */

/* The bytes of a file that nobody else could have written; NULL: there is none. */
static char *content_of(const char *path, size_t *size)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return NULL;
    struct stat status;
    char *content = NULL;
    if (!fstat(file, &status) && S_ISREG(status.st_mode) && status.st_uid == geteuid() && !(status.st_mode & 022) &&
        status.st_size >= (off_t)sizeof(header) && status.st_size <= 2 * (off_t)LARGEST)
        content = malloc((size_t)status.st_size);
    *size = 0;
    ssize_t count = 1;
    while (content && count > 0 && *size < (size_t)status.st_size) {
        count = read(file, content + *size, (size_t)status.st_size - *size);
        if (count > 0) *size += (size_t)count;
    }
    if (content && *size == (size_t)status.st_size) {
        futimens(file, NULL); /* entries that were not used for longest are removed first */
    } else {
        free(content);
        content = NULL;
    }
    close(file);
    return content;
}

int ocl_read_cached(apf_drv_device *device, const ocl_cached *entry, ocl_program *program)
{
    size_t size;
    char *content = entry->key ? content_of(entry->path, &size) : NULL;
    if (!content) return 0;
    header head;
    memcpy(&head, content, sizeof head);
    const char *key = content + sizeof head;
    const size_t left = size - sizeof head;
    int found = 0;
    if (!memcmp(head.magic, magic, sizeof magic) && head.key == entry->key_size && head.key <= left &&
        head.declared <= left - head.key && head.binary == left - head.key - head.declared &&
        head.digest == ocl_digest(OCL_DIGEST_OF_NOTHING, key, left) && !memcmp(key, entry->key, head.key))
        found = of_entry(device, key + head.key, head.declared, key + head.key + head.declared, head.binary, program);
    free(content);
    return found;
}

static int write_all(int file, const void *data, size_t size)
{
    for (const char *at = data; size;) {
        const ssize_t count = write(file, at, size);
        if (count <= 0) return 0;
        at += count;
        size -= (size_t)count;
    }
    return 1;
}

static void store(const apf_drv_device *device, const ocl_cached *entry, const char *declared, size_t declared_size,
                  const unsigned char *binary, size_t size)
{
    header head = {.key = entry->key_size, .declared = declared_size, .binary = size};
    memcpy(head.magic, magic, sizeof magic);
    head.digest = ocl_digest(OCL_DIGEST_OF_NOTHING, entry->key, entry->key_size);
    head.digest = ocl_digest(ocl_digest(head.digest, declared, head.declared), binary, size);
    char *scratch;
    if (asprintf(&scratch, "%s/build-XXXXXX", device->cache) < 0) return;
    const int file = mkostemp(scratch, O_CLOEXEC);
    if (file >= 0) {
        int good = write_all(file, &head, sizeof head) && write_all(file, entry->key, entry->key_size) &&
                   write_all(file, declared, head.declared) && write_all(file, binary, size);
        good &= !close(file);
        if (!good || rename(scratch, entry->path)) unlink(scratch);
    }
    free(scratch);
}

void ocl_write_cached(apf_drv_device *device, const ocl_cached *entry, ocl_program *program)
{
    const ocl_api *api = device->api;
    size_t size = 0;
    if (!entry->key || api->clGetProgramInfo(program->handle, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) ||
        !size || size > LARGEST)
        return;
    unsigned char *binary = malloc(size);
    char *declared = NULL;
    size_t declared_size = 0;
    FILE *out = open_memstream(&declared, &declared_size);
    int good = binary && out && for_all(device, program, put_record, out);
    if (out) good &= !fclose(out);
    good = good && !api->clGetProgramInfo(program->handle, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL);
    ocl_program again = {0};
    if (good && of_entry(device, declared, declared_size, binary, size, &again)) {
        ocl_end_program(device, &again);
        store(device, entry, declared, declared_size, binary, size);
    }
    free(declared);
    free(binary);
}
