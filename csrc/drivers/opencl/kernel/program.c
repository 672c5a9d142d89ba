/* Programs: built from source or from a binary, once for all kernels that are opened in one. */
#include "drivers/opencl/opencl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Build options as the definition gives them, split into compiler options and launch options. */
typedef struct ocl_options {
    char *build;
    char global[64]; /* a number, or the name of an argument, or "argument/elements of a work-item" */
    char local[64];
} ocl_options;

uint64_t ocl_digest(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* Binaries of every vendor are ELF, xclbin or begin with another byte that no source contains. */
int ocl_is_source(const apf_program *program)
{
    const size_t looked_at = program->size < 4096 ? program->size : 4096;
    return memcmp(program->data, "xclbin", looked_at < 6 ? looked_at : 6) != 0 &&
           memchr(program->data, 0, looked_at) == NULL;
}

/* -- options -- */

/* Parse one word of the options: true if it is a launch option. */
static int launch_option(ocl_options *out, const char *word, size_t length)
{
    static const char global[] = "--global=", local[] = "--local=";
    char *into = NULL;
    size_t skip = 0;
    if (length >= sizeof global - 1 && !memcmp(word, global, sizeof global - 1)) {
        into = out->global;
        skip = sizeof global - 1;
    } else if (length >= sizeof local - 1 && !memcmp(word, local, sizeof local - 1)) {
        into = out->local;
        skip = sizeof local - 1;
    }
    if (!into || length < skip || length - skip >= sizeof out->global) return 0;
    snprintf(into, sizeof out->global, "%.*s", (int)(length - skip), word + skip);
    return 1;
}

/* A source may contain its launch options, on one line of a comment: "apyfal: --global=count". */
static void launch_options_of_source(const apf_program *program, ocl_options *out)
{
    static const char mark[] = "apyfal: --";
    const char *text = program->data, *end = text + program->size;
    const char *at = memmem(text, program->size, mark, sizeof mark - 1);
    if (!at) return;
    for (at += sizeof mark - 3; at < end && *at == '-';) {
        char word[96] = "";
        size_t length = 0;
        while (at + length < end && length < sizeof word - 1 && !isspace((unsigned char)at[length])) length++;
        memcpy(word, at, length);
        launch_option(out, word, length);
        for (at += length; at < end && *at == ' ';) at++;
    }
}

static int split_options(const apf_drv_device *device, const apf_program *program, ocl_options *out, apf_error *err)
{
    static const char information[] = " -cl-kernel-arg-info";
    const char *options = program->options && *program->options ? program->options : device->build;
    if (!options) options = "";
    *out = (ocl_options){.global = "1"};
    out->build = apf_calloc(1, strlen(options) + sizeof information + 1);
    if (!out->build) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for build options");
    if (ocl_is_source(program)) launch_options_of_source(program, out);
    char *end = out->build;
    while (*(options += strspn(options, " \t\n"))) {
        const size_t length = strcspn(options, " \t\n");
        if (!launch_option(out, options, length))
            end += sprintf(end, "%s%.*s", end == out->build ? "" : " ", (int)length, options);
        options += length;
    }
    if (device->version >= 12) strcpy(end, information);
    return APF_OK;
}

static int named_argument(const char *names, const char *wanted)
{
    const size_t length = strlen(wanted);
    for (int index = 0; names && *names; index++) {
        names += strspn(names, " \t");
        const size_t here = strcspn(names, ", \t");
        if (here == length && !strncmp(names, wanted, length)) return index;
        names += strcspn(names, ",");
        names += *names == ',';
    }
    return -1;
}

/* The size of work-groups: from the option or required by the kernel; an error if they differ. */
static int work_group(apf_drv_kernel *kernel, const ocl_options *options, apf_error *err)
{
    const size_t *required = kernel->required, largest = kernel->largest;
    kernel->local = required[0] ? required[0] : kernel->global_argument < 0 && kernel->global == 1;
    /* Work-groups of several dimensions are for an index space of the definition: a run without one is an error. */
    if (!*options->local || required[1] > 1 || required[2] > 1) return APF_OK;
    char *end;
    kernel->local = strtoull(options->local, &end, 10);
    if (*end || !isdigit((unsigned char)options->local[0]) || !kernel->local)
        return apf_fail(err, APF_PROGRAM, 0, "--local=%s: expected a number of work-items", options->local);
    if (required[0] && kernel->local != required[0])
        return apf_fail(err, APF_PROGRAM, 0, "--local=%s: kernel '%s' requires work-groups of %zu work-items",
                        options->local, kernel->name, required[0]);
    if (largest && kernel->local > largest)
        return apf_fail(err, APF_PROGRAM, 0,
                        "--local=%s: the largest work-group of kernel '%s' on %s has %zu work-items", options->local,
                        kernel->name, kernel->device->info.name, largest);
    return APF_OK;
}

static int launch_shape(apf_drv_kernel *kernel, const ocl_options *options, const char *names, apf_error *err)
{
    char *end;
    kernel->global_argument = -1;
    kernel->global = strtoull(options->global, &end, 10);
    kernel->share = 1;
    if (*end || !isdigit((unsigned char)options->global[0])) {
        char argument[sizeof options->global];
        const size_t length = strcspn(options->global, "/");
        snprintf(argument, sizeof argument, "%.*s", (int)length, options->global);
        kernel->global_argument = named_argument(names, argument);
        if (options->global[length]) kernel->share = strtoull(options->global + length + 1, &end, 10);
        if (kernel->global_argument < 0 || (options->global[length] && *end) || !kernel->share)
            return apf_fail(
                err, APF_PROGRAM, 0,
                "--global=%s: expected a number of work-items, or one of the arguments (%s), which '/N' may "
                "divide; several dimensions, and counts that are not an argument, are 'global = ...' in the definition",
                options->global, names ? names : "");
    }
    return work_group(kernel, options, err);
}

/* -- building -- */

/* The compiler's output on one line, from the first error on. */
static int build_failed(const apf_drv_device *device, cl_program program, cl_int status, const apf_program *from,
                        apf_error *err)
{
    size_t size = 0;
    device->api->clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size);
    char *log = apf_calloc(1, size + 1);
    if (log) device->api->clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, size, log, NULL);
    const char *text = log ? log : "";
    const char *error = strstr(text, "error");
    while (error && error > text && error[-1] != '\n') error--;
    if (error) text = error;
    char line[800];
    size_t used = 0;
    for (int gap = 0; *text && used < sizeof line - 2; text++) {
        if (isspace((unsigned char)*text)) {
            gap = used > 0;
            continue;
        }
        if (gap) line[used++] = ' ';
        gap = 0;
        line[used++] = *text;
    }
    line[used] = 0;
    apf_free(log);
    apf_fail(err, APF_PROGRAM, 0, "%s: '%.100s' does not build: %s (%d): %s", device->info.name,
             from->name ? from->name : "program", ocl_error_name(status), status, line);
    if (err) err->sys = status;
    return APF_PROGRAM;
}

static int build(apf_drv_device *device, const apf_program *from, const char *options, cl_program *built,
                 apf_error *err)
{
    const char *name = from->name ? from->name : "program";
    cl_int status;
    if (ocl_is_source(from)) {
        const char *text = from->data;
        *built = device->api->clCreateProgramWithSource(device->context, 1, &text, &from->size, &status);
    } else {
        const unsigned char *bytes = from->data;
        cl_int taken = CL_SUCCESS;
        *built = device->api->clCreateProgramWithBinary(device->context, 1, &device->id, &from->size, &bytes, &taken,
                                                        &status);
        options = ""; /* a binary was compiled with its options already */
    }
    if (status != CL_SUCCESS)
        return ocl_fail(device, err, status, APF_PROGRAM, "'%.100s' (%s of %zu bytes) is not a program for it", name,
                        ocl_is_source(from) ? "source" : "binary", from->size);
    status = device->api->clBuildProgram(*built, 1, &device->id, options, NULL, NULL);
    if (status == CL_SUCCESS) return APF_OK;
    int code = ocl_code(status, APF_PROGRAM) == APF_PROGRAM
                   ? build_failed(device, *built, status, from, err)
                   : ocl_fail(device, err, status, APF_PROGRAM, "building '%.100s'", name);
    device->api->clReleaseProgram(*built);
    return code;
}

int ocl_build(apf_drv_device *device, const apf_program *from, const char *options, ocl_program *built, apf_error *err)
{
    ocl_cached entry = {0};
    if (ocl_is_source(from)) ocl_find_cached(device, from, options, &entry);
    int code = APF_OK;
    if (!ocl_read_cached(device, &entry, built)) {
        code = build(device, from, options, &built->handle, err);
        if (code == APF_OK) ocl_write_cached(device, &entry, built);
    }
    ocl_end_cached(&entry);
    return code;
}

/* Find or build the program with these bytes and options. Under `loading`. */
static int get_program(apf_drv_device *device, const apf_program *from, const char *options, ocl_program **out,
                       apf_error *err)
{
    const uint64_t hash =
        ocl_digest(ocl_digest(OCL_DIGEST_OF_NOTHING, from->data, from->size), options, strlen(options));
    for (ocl_program *known = device->programs; known; known = known->next)
        if (known->digest == hash && known->size == from->size) {
            known->refs++;
            *out = known;
            return APF_OK;
        }
    ocl_program *program = apf_calloc(1, sizeof *program);
    if (!program) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a program");
    int code = ocl_build(device, from, options, program, err);
    if (code != APF_OK) {
        apf_free(program);
        return code;
    }
    program->next = device->programs;
    program->digest = hash;
    program->size = from->size;
    program->refs = 1;
    device->programs = program;
    *out = program;
    return APF_OK;
}

void ocl_end_program(const apf_drv_device *device, ocl_program *program)
{
    device->api->clReleaseProgram(program->handle);
    free(program->declared);
}

static void put_program(apf_drv_device *device, ocl_program *program)
{
    if (--program->refs) return;
    ocl_program **link = &device->programs;
    while (*link != program) link = &(*link)->next;
    *link = program->next;
    ocl_end_program(device, program);
    apf_free(program);
}

/* -- kernels -- */

/* Read from the kernels, not from the program: platforms before 1.2 cannot list a program's kernels. */
uint32_t ocl_kernel_names(const apf_drv_device *device, cl_program program, char *text, size_t size)
{
    enum { MOST = 64 };
    const ocl_api *api = device->api;
    cl_kernel kernels[MOST];
    cl_uint count = 0;
    size_t used = 0;
    *text = 0;
    if (api->clCreateKernelsInProgram(program, 0, NULL, &count) != CL_SUCCESS || count > MOST ||
        api->clCreateKernelsInProgram(program, count, kernels, NULL) != CL_SUCCESS)
        return 0;
    for (cl_uint i = 0; i < count; i++) {
        char name[128] = "?";
        api->clGetKernelInfo(kernels[i], CL_KERNEL_FUNCTION_NAME, sizeof name, name, NULL);
        if (used < size) used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", name);
        api->clReleaseKernel(kernels[i]);
    }
    return count;
}

int ocl_open_kernel(apf_drv_device *device, ocl_program *program, const apf_program *from, apf_drv_kernel **out,
                    apf_error *err)
{
    char names[512];
    const char *wanted = from->kernel && *from->kernel ? from->kernel : NULL;
    if (!wanted && ocl_kernel_names(device, program->handle, names, sizeof names) == 1) wanted = names;
    cl_int status = CL_INVALID_KERNEL_NAME;
    cl_kernel handle = wanted ? device->api->clCreateKernel(program->handle, wanted, &status) : NULL;
    if (status == CL_INVALID_KERNEL_NAME) {
        ocl_kernel_names(device, program->handle, names, sizeof names);
        return apf_fail(err, APF_NOT_FOUND, 0, "%s: no kernel '%.100s' in '%.100s'; there are: %s", device->info.name,
                        wanted ? wanted : "", from->name ? from->name : "program", names);
    }
    if (status != CL_SUCCESS)
        return ocl_fail(device, err, status, APF_PROGRAM, "opening kernel '%.100s'", wanted ? wanted : "");
    cl_uint count = 0;
    device->api->clGetKernelInfo(handle, CL_KERNEL_NUM_ARGS, sizeof count, &count, NULL);
    apf_drv_kernel *kernel = apf_calloc(1, sizeof *kernel + count * sizeof *kernel->parameters);
    if (!kernel) {
        device->api->clReleaseKernel(handle);
        return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a kernel");
    }
    kernel->device = device;
    kernel->program = program;
    kernel->handle = handle;
    kernel->count = count;
    snprintf(kernel->name, sizeof kernel->name, "%.127s", wanted);
    *out = kernel;
    return APF_OK;
}

int ocl_load(apf_drv_device *device, const apf_program *program, apf_drv_kernel **out, apf_error *err)
{
    int code = ocl_alive(device, err);
    if (code != APF_OK) return code;
    if (!program->data || !program->size)
        return apf_fail(err, APF_PROGRAM, 0, "%s: '%s' is empty: expected OpenCL source or a binary", device->info.name,
                        program->name ? program->name : "program");
    ocl_options options;
    code = split_options(device, program, &options, err);
    if (code != APF_OK) return code;
    ocl_program *built = NULL;
    apf_drv_kernel *kernel = NULL;
    pthread_mutex_lock(&device->loading);
    code = get_program(device, program, options.build, &built, err);
    if (code == APF_OK) code = ocl_open_kernel(device, built, program, &kernel, err);
    if (code == APF_OK) {
        ocl_work_groups(kernel);
        code = launch_shape(kernel, &options, program->arguments, err);
    }
    if (code == APF_OK) {
        code = ocl_parameters(kernel, program, options.build, err);
    }
    if (code == APF_OK) {
        *out = kernel;
    } else {
        if (kernel) device->api->clReleaseKernel(kernel->handle);
        apf_free(kernel);
        if (built) put_program(device, built);
    }
    pthread_mutex_unlock(&device->loading);
    apf_free(options.build);
    return code;
}

/* -- what a program declares -- */

int ocl_interface(apf_drv_device *device, const apf_program *program, char *text, size_t size, apf_error *err)
{
    int code = ocl_alive(device, err);
    if (code != APF_OK) return code;
    if (!program->data || !program->size)
        return apf_fail(err, APF_PROGRAM, 0, "%s: '%s' is empty: expected OpenCL source or a binary", device->info.name,
                        program->name ? program->name : "program");
    ocl_options options;
    code = split_options(device, program, &options, err);
    if (code != APF_OK) return code;
    ocl_program *built = NULL;
    pthread_mutex_lock(&device->loading);
    code = get_program(device, program, options.build, &built, err);
    if (code == APF_OK) code = ocl_kernels_text(device, built, program, text, size, err);
    if (built) put_program(device, built);
    pthread_mutex_unlock(&device->loading);
    apf_free(options.build);
    return code;
}

void ocl_unload(apf_drv_kernel *kernel)
{
    apf_drv_device *device = kernel->device;
    device->api->clReleaseKernel(kernel->handle);
    pthread_mutex_lock(&device->loading);
    put_program(device, kernel->program);
    pthread_mutex_unlock(&device->loading);
    apf_free(kernel);
}

int ocl_bank(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err)
{
    if (index >= kernel->count)
        return apf_fail(err, APF_ARGUMENT, 0, "kernel '%s' has no argument %u: it takes %u", kernel->name, index,
                        kernel->count);
    const ocl_parameter *parameter = &kernel->parameters[index];
    if (parameter->space == 'p' || parameter->space == 'l')
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u (%s) of kernel '%s' is not a buffer: %s", index,
                        parameter->name, kernel->name, parameter->type);
    *bank = 0;
    return APF_OK;
}
