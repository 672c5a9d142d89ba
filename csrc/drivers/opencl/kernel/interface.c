/* What a program declares, as text: its kernels and their arguments, as far as the platform reports them. */
#include "drivers/opencl/opencl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct json {
    char *text;
    size_t size, used;
} json;

__attribute__((format(printf, 2, 3))) static void put(json *out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const size_t left = out->used < out->size ? out->size - out->used : 0;
    out->used += (size_t)vsnprintf(out->text + out->size - left, left, format, arguments);
    va_end(arguments);
}

/* Names and types are the platform's: what JSON cannot take as it is becomes a blank. */
static void put_text(json *out, const char *key, const char *value)
{
    put(out, "\"%s\": \"", key);
    for (; *value; value++)
        put(out, "%c", *value == '"' || *value == '\\' || (unsigned char)*value < ' ' || *value < 0 ? ' ' : *value);
    put(out, "\"");
}

static void put_kernel(json *out, apf_drv_kernel *kernel)
{
    static const struct {
        char letter;
        const char *name;
    } spaces[] = {{'g', "global"}, {'c', "constant"}, {'l', "local"}, {'p', "private"}};
    put(out, "{");
    put_text(out, "name", kernel->name);
    put(out, ", \"arguments\": [");
    for (uint32_t i = 0; i < kernel->count; i++) {
        ocl_parameter *parameter = &kernel->parameters[i];
        if (kernel->device->version >= 12) ocl_declared(kernel, i, parameter);
        put(out, "%s{", i ? ", " : "");
        put_text(out, "name", parameter->name);
        put(out, ", ");
        put_text(out, "type", parameter->type);
        for (size_t j = 0; j < sizeof spaces / sizeof *spaces; j++)
            if (spaces[j].letter == parameter->space) put(out, ", \"space\": \"%s\"", spaces[j].name);
        put(out, ", \"written\": %s}", apf_opencl_may_write(kernel, i) ? "true" : "false");
    }
    ocl_work_groups(kernel);
    put(out, "], \"work_group\": [%zu, %zu, %zu], \"largest_group\": %zu}", kernel->required[0], kernel->required[1],
        kernel->required[2], kernel->largest);
}

int ocl_kernels_text(apf_drv_device *device, ocl_program *program, const apf_program *from, char *text, size_t size,
                     apf_error *err)
{
    json written = {text, size, 0}, *out = &written;
    char names[4096];
    ocl_kernel_names(device, program->handle, names, sizeof names);
    put(out, "[");
    int code = APF_OK;
    char *rest = NULL;
    for (char *name = strtok_r(names, ", ", &rest); name && code == APF_OK; name = strtok_r(NULL, ", ", &rest)) {
        apf_program one = *from;
        one.kernel = name;
        apf_drv_kernel *kernel = NULL;
        code = ocl_open_kernel(device, program, &one, &kernel, err);
        if (code != APF_OK) break;
        if (out->used > 1) put(out, ", ");
        put_kernel(out, kernel);
        device->api->clReleaseKernel(kernel->handle);
        apf_free(kernel);
    }
    put(out, "]");
    if (code == APF_OK && out->used >= out->size)
        return apf_fail(err, APF_INVALID, 0, "'%.100s' has too many kernels to list", from->name ? from->name : "");
    return code;
}
