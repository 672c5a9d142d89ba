/* Kernel arguments: the declared types, and the conversion of values to the declared type. */
#include "drivers/opencl/opencl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *type;
    char scalar;
    char size;
} scalars[] = {
    {"char", 'i', 1},   {"uchar", 'u', 1},         {"unsigned char", 'u', 1},  {"signed char", 'i', 1},
    {"short", 'i', 2},  {"ushort", 'u', 2},        {"unsigned short", 'u', 2}, {"int", 'i', 4},
    {"uint", 'u', 4},   {"unsigned int", 'u', 4},  {"unsigned", 'u', 4},       {"long", 'i', 8},
    {"ulong", 'u', 8},  {"unsigned long", 'u', 8}, {"float", 'f', 4},          {"double", 'f', 8},
    {"half", 'f', 2},   {"bool", 'u', 1},          {"_Bool", 'u', 1},          {"size_t", 'u', 8},
    {"uchar8", 'x', 8}, /* a scalar of any type: integers as 64 bits, floating-point numbers as a double */
};

/* -- declared types -- */

static void copy_name(const char *names, uint32_t index, char *name, size_t size)
{
    for (uint32_t i = 0; names && *names; i++) {
        names += strspn(names, " \t");
        if (i == index) {
            snprintf(name, size, "%.*s", (int)strcspn(names, ", \t"), names);
            return;
        }
        names += strcspn(names, ",");
        names += *names == ',';
    }
}

/* Names of types that are neither memory nor numbers. */
static int is_object(const char *type)
{
    static const char *const names[] = {"image",   "sampler_t", "pipe",        "event_t",
                                        "queue_t", "ndrange_t", "reserve_id_t"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(type, names[i])) return 1;
    return 0;
}

/* "float4": a vector of OpenCL, whose size and alignment the language defines. */
static void known_vector(ocl_parameter *parameter)
{
    char *length;
    const size_t name = strcspn(parameter->type, "0123456789");
    const unsigned long count = strtoul(parameter->type + name, &length, 10);
    if (*length || (count != 2 && count != 3 && count != 4 && count != 8 && count != 16)) return;
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        if (strlen(scalars[i].type) == name && !memcmp(scalars[i].type, parameter->type, name)) {
            parameter->scalar = 's';
            parameter->size = (uint32_t)scalars[i].size * (uint32_t)(count == 3 ? 4 : count);
            return;
        }
}

static void known_scalar(ocl_parameter *parameter)
{
    known_vector(parameter);
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        if (!strcmp(scalars[i].type, parameter->type)) {
            parameter->scalar = scalars[i].scalar;
            parameter->size = (uint32_t)scalars[i].size;
        }
}

void ocl_declared(const apf_drv_kernel *kernel, uint32_t index, ocl_parameter *parameter)
{
    const ocl_api *api = kernel->device->api;
    cl_uint space = 0, access = CL_KERNEL_ARG_ACCESS_NONE;
    cl_bitfield qualifier = 0;
    char text[128] = "";
    const char *recorded = ocl_recorded(kernel);
    if (recorded) {
        memcpy(parameter, recorded + index * sizeof *parameter, sizeof *parameter);
        return;
    }
    if (api->clGetKernelArgInfo(kernel->handle, index, CL_KERNEL_ARG_ADDRESS_QUALIFIER, sizeof space, &space, NULL))
        return; /* a binary without this information */
    parameter->space = space == CL_KERNEL_ARG_ADDRESS_GLOBAL     ? 'g'
                       : space == CL_KERNEL_ARG_ADDRESS_CONSTANT ? 'c'
                       : space == CL_KERNEL_ARG_ADDRESS_LOCAL    ? 'l'
                                                                 : 'p';
    if (!api->clGetKernelArgInfo(kernel->handle, index, CL_KERNEL_ARG_TYPE_QUALIFIER, sizeof qualifier, &qualifier,
                                 NULL))
        parameter->constant = parameter->space == 'c' || qualifier & CL_KERNEL_ARG_TYPE_CONST;
    if (!api->clGetKernelArgInfo(kernel->handle, index, CL_KERNEL_ARG_TYPE_NAME, sizeof text, text, NULL))
        snprintf(parameter->type, sizeof parameter->type, "%s", text);
    if (!api->clGetKernelArgInfo(kernel->handle, index, CL_KERNEL_ARG_NAME, sizeof text, text, NULL))
        snprintf(parameter->name, sizeof parameter->name, "%.47s", text);
    api->clGetKernelArgInfo(kernel->handle, index, CL_KERNEL_ARG_ACCESS_QUALIFIER, sizeof access, &access, NULL);
    parameter->object = access == CL_KERNEL_ARG_ACCESS_READ_ONLY || access == CL_KERNEL_ARG_ACCESS_WRITE_ONLY ||
                        access == CL_KERNEL_ARG_ACCESS_READ_WRITE ||
                        (!strchr(parameter->type, '*') && is_object(parameter->type));
    if (parameter->space == 'p') known_scalar(parameter);
}

/* If a name is in both lists at different positions, the definition's order is not the kernel's. */
static int check_order(const apf_drv_kernel *kernel, const char *names, apf_error *err)
{
    for (uint32_t i = 0; i < kernel->count; i++) {
        char given[sizeof kernel->parameters[0].name] = "", other[sizeof given];
        const char *own = kernel->parameters[i].name;
        copy_name(names, i, given, sizeof given);
        if (!*given || !strcmp(given, own)) continue;
        int elsewhere = 0, given_elsewhere = 0;
        for (uint32_t j = 0; j < kernel->count; j++) {
            *other = 0;
            copy_name(names, j, other, sizeof other);
            elsewhere |= !strcmp(kernel->parameters[j].name, given);
            given_elsewhere |= !strcmp(other, own);
        }
        if (elsewhere && given_elsewhere)
            return apf_fail(err, APF_ARGUMENT, 0,
                            "argument %u of kernel '%s' is %s; got %s: expected the arguments in the kernel's order", i,
                            kernel->name, own, given);
    }
    return APF_OK;
}

static int refuse(const apf_drv_kernel *kernel, uint32_t index, const char *what, apf_error *err)
{
    const ocl_parameter *parameter = &kernel->parameters[index];
    return apf_fail(err, APF_ARGUMENT, 0,
                    "argument %u (%s) of kernel '%s' is %s, %s; expected a buffer, a number, a vector or a struct",
                    index, parameter->name, kernel->name, parameter->type, what);
}

int ocl_parameters(apf_drv_kernel *kernel, const apf_program *program, const char *options, apf_error *err)
{
    for (uint32_t i = 0; i < kernel->count; i++) {
        ocl_parameter *parameter = &kernel->parameters[i];
        copy_name(program->arguments, i, parameter->name, sizeof parameter->name);
        if (kernel->device->version < 12) continue;
        ocl_declared(kernel, i, parameter);
        if (parameter->object) return refuse(kernel, i, "which cannot be passed", err);
        if (parameter->space != 'p' || parameter->scalar || !*parameter->type || !ocl_is_source(program)) continue;
        ocl_ask_compiler(kernel->device, program, options, parameter);
        if (!parameter->scalar) return refuse(kernel, i, "whose size its compiler does not tell", err);
    }
    return check_order(kernel, program->arguments, err);
}

int apf_opencl_may_write(const apf_drv_kernel *kernel, uint32_t index)
{
    return index < kernel->count && kernel->parameters[index].space == 'g' && !kernel->parameters[index].constant;
}

int ocl_only_reads(const apf_drv_kernel *kernel, uint32_t index, const apf_drv_bo *bo)
{
    return kernel->parameters[index].constant || bo->readonly;
}

/* -- values -- */

static char class_of(uint32_t kind)
{
    switch (kind) {
    case APF_I8:
    case APF_I16:
    case APF_I32:
    case APF_I64:
        return 'i';
    case APF_F32:
    case APF_F64:
        return 'f';
    default:
        return 'u';
    }
}

static uint32_t size_of(uint32_t kind)
{
    switch (kind) {
    case APF_I8:
    case APF_U8:
        return 1;
    case APF_I16:
    case APF_U16:
        return 2;
    case APF_I32:
    case APF_U32:
    case APF_F32:
        return 4;
    default:
        return 8;
    }
}

static void value_text(const apf_arg *arg, char *text, size_t size)
{
    switch (class_of(arg->kind)) {
    case 'i':
        snprintf(text, size, "%lld", (long long)arg->value.i);
        break;
    case 'f':
        snprintf(text, size, "%.17g", arg->kind == APF_F32 ? (double)arg->value.f : arg->value.d);
        break;
    default:
        snprintf(text, size, "%llu", (unsigned long long)arg->value.u);
    }
}

/* An integer of `size` bytes from any scalar that is one; 0 if it is none or does not fit. */
static int to_integer(const apf_arg *arg, char wanted, uint32_t size, uint64_t *out)
{
    const unsigned bits = size * 8;
    int negative = 0;
    uint64_t magnitude;
    if (class_of(arg->kind) == 'f') {
        double number = arg->kind == APF_F32 ? (double)arg->value.f : arg->value.d;
        if (!(fabs(number) < 0x1p63) || number != floor(number)) return 0;
        negative = number < 0;
        magnitude = (uint64_t)fabs(number);
    } else {
        negative = class_of(arg->kind) == 'i' && arg->value.i < 0;
        magnitude = negative ? -arg->value.u : arg->value.u;
    }
    const uint64_t top =
        wanted == 'u' ? (negative ? 0 : UINT64_MAX >> (64 - bits)) : (UINT64_MAX >> (65 - bits)) + (uint64_t)negative;
    if (magnitude > top) return 0;
    *out = negative ? -magnitude : magnitude;
    return 1;
}

static double to_double(const apf_arg *arg)
{
    switch (class_of(arg->kind)) {
    case 'i':
        return (double)arg->value.i;
    case 'f':
        return arg->kind == APF_F32 ? (double)arg->value.f : arg->value.d;
    default:
        return (double)arg->value.u;
    }
}

/* Half precision (binary16 of IEEE 754), rounded to the nearest, ties to even; 0 if it does not fit. */
static int to_half(double number, void *out)
{
    const double size = fabs(number);
    uint16_t half;
    if (isnan(number)) {
        half = 0x7e00;
    } else if (isinf(number)) {
        half = 0x7c00;
    } else {
        int exponent = 0;
        frexp(size, &exponent);             /* size is in [2^(exponent - 1), 2^exponent) */
        if (exponent < -13) exponent = -13; /* subnormal: steps of 2^-24 */
        const double steps = nearbyint(ldexp(size, 11 - exponent));
        const uint32_t bits = (uint32_t)(exponent + 13) * 1024 + (uint32_t)steps; /* a carry goes into the exponent */
        if (size && bits >= 0x7c00) return 0;
        half = size ? (uint16_t)bits : 0;
    }
    half |= signbit(number) ? 0x8000 : 0;
    memcpy(out, &half, sizeof half);
    return 1;
}

/* A floating-point number of `size` bytes from any scalar; 0 if it does not fit. */
static int to_floating(const apf_arg *arg, uint32_t size, void *out)
{
    const double number = to_double(arg);
    const float single = arg->kind == APF_F32 ? arg->value.f : (float)number;
    if (size == 2) return to_half(number, out);
    if (size == sizeof single && isinf(single) && !isinf(number)) return 0;
    if (class_of(arg->kind) != 'f') {
        /* Beyond 2^53 (2^24) not every integer can be represented. */
        const double back = size == sizeof single ? (double)single : number;
        uint64_t bits;
        const apf_arg again = {.kind = APF_F64, .value.d = back};
        if (!to_integer(&again, class_of(arg->kind), 8, &bits) || bits != arg->value.u) return 0;
    }
    if (size == sizeof single)
        memcpy(out, &single, sizeof single);
    else
        memcpy(out, &number, sizeof number);
    return 1;
}

/* The value as `size` bytes of class `scalar`; hosts are little-endian, so the low bytes come first. */
static int convert(const apf_arg *arg, char scalar, uint32_t size, void *out)
{
    if (scalar == 'x') scalar = class_of(arg->kind);
    if (scalar == 'f') return to_floating(arg, size, out);
    uint64_t bits;
    if (!to_integer(arg, scalar, size, &bits)) return 0;
    memcpy(out, &bits, size);
    return 1;
}

/* Whether a value of the declared type may be passed as the kernel's: a float as an integer, or an integer as a float,
 * only if both have the same size. A value that was meant for another argument rarely has that size. */
static int alike(const apf_arg *arg, const ocl_parameter *parameter)
{
    const int given = class_of(arg->kind) == 'f', wanted = parameter->scalar == 'f';
    if (parameter->scalar == 's') return 0;
    return parameter->scalar == 'x' || given == wanted || size_of(arg->kind) == parameter->size;
}

/* -- setting -- */

static const char *size_text(const ocl_parameter *parameter, char *text, size_t size)
{
    snprintf(text, size, " of %u bytes", parameter->size);
    return text;
}

static int failed(apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, cl_int status, apf_error *err)
{
    const ocl_parameter *parameter = &kernel->parameters[index];
    const char *name = *parameter->name ? parameter->name : "?";
    static const char *const kinds[] = {"",       "int8",  "uint8",  "int16",   "uint16", "int32",
                                        "uint32", "int64", "uint64", "float32", "float64"};
    char given[64] = "a buffer", value[40], size[32];
    if (arg->kind == APF_BYTES) {
        snprintf(given, sizeof given, "a struct or vector of %llu bytes", (unsigned long long)arg->size);
    } else if (arg->kind != APF_BUFFER) {
        value_text(arg, value, sizeof value);
        snprintf(given, sizeof given, "%s, declared %s", value, kinds[arg->kind <= APF_F64 ? arg->kind : 0]);
    }
    if (status == CL_INVALID_ARG_SIZE || status == CL_INVALID_ARG_VALUE || status == CL_INVALID_MEM_OBJECT)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u (%s) of kernel '%s' is %s%s; got %s", index, name,
                        kernel->name, *parameter->type ? parameter->type : "of another type",
                        parameter->scalar == 's' ? size_text(parameter, size, sizeof size) : "", given);
    return ocl_fail(kernel->device, err, status, APF_ARGUMENT, "argument %u (%s) of kernel '%s', %s", index, name,
                    kernel->name, given);
}

static int wrong(apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err)
{
    return failed(kernel, index, arg, CL_INVALID_ARG_VALUE, err);
}

static int set(apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, size_t size, const void *value,
               apf_error *err)
{
    cl_int status = kernel->device->api->clSetKernelArg(kernel->handle, index, size, value);
    return status == CL_SUCCESS ? APF_OK : failed(kernel, index, arg, status, err);
}

static int set_buffer(apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err)
{
    const char space = kernel->parameters[index].space;
    if (space == 'p' || space == 'l') return wrong(kernel, index, arg, err);
    cl_mem handle;
    int code = ocl_part_of(arg->bo, arg->offset, arg->size, &handle, err);
    return code == APF_OK ? set(kernel, index, arg, sizeof handle, &handle, err) : code;
}

/* If the width is unknown, try the value's width first, then the other widths that can hold it. */
static int set_by_trial(apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err)
{
    if (arg->kind == APF_BYTES) return set(kernel, index, arg, arg->size, arg->value.data, err);
    const char scalar = class_of(arg->kind);
    const uint32_t widths[] = {size_of(arg->kind), 4, 8, 2, 1};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        unsigned char bytes[8];
        if ((scalar == 'f' && widths[i] < 4) || !convert(arg, scalar, widths[i], bytes)) continue;
        cl_int status = kernel->device->api->clSetKernelArg(kernel->handle, index, widths[i], bytes);
        if (status == CL_SUCCESS) return APF_OK;
        if (status != CL_INVALID_ARG_SIZE) return failed(kernel, index, arg, status, err);
    }
    return wrong(kernel, index, arg, err);
}

int ocl_set_argument(apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err)
{
    if (arg->kind == APF_BUFFER) return set_buffer(kernel, index, arg, err);
    const ocl_parameter *parameter = &kernel->parameters[index];
    unsigned char bytes[8];
    uint64_t size;
    switch (parameter->space) {
    case 'g':
    case 'c':
        return wrong(kernel, index, arg, err);
    case 'l': /* memory of the work-group: the value is its size */
        if (arg->kind == APF_BYTES || !to_integer(arg, 'u', 8, &size)) return wrong(kernel, index, arg, err);
        if (__builtin_add_overflow(kernel->local_sum, size, &kernel->local_sum)) kernel->local_sum = UINT64_MAX;
        return set(kernel, index, arg, size, NULL, err);
    default:
        if (!parameter->scalar) return set_by_trial(kernel, index, arg, err);
        if (arg->kind == APF_BYTES) {
            if (parameter->size != arg->size || !strchr("sx", parameter->scalar)) return wrong(kernel, index, arg, err);
            return set(kernel, index, arg, arg->size, arg->value.data, err);
        }
        if (!alike(arg, parameter) || !convert(arg, parameter->scalar, parameter->size, bytes))
            return wrong(kernel, index, arg, err);
        return set(kernel, index, arg, parameter->size, bytes, err);
    }
}

int ocl_work_items(const apf_drv_kernel *kernel, const apf_arg *args, ocl_space *space, apf_error *err)
{
    size_t items = kernel->global;
    if (kernel->required[1] > 1 || kernel->required[2] > 1)
        return apf_fail(err, APF_PROGRAM, 0,
                        "%s: kernel '%s' requires work-groups of %zux%zux%zu; expected an index space of as many "
                        "dimensions: 'global' in the definition",
                        kernel->device->info.name, kernel->name, kernel->required[0], kernel->required[1],
                        kernel->required[2]);
    if (kernel->global_argument >= 0) {
        const uint32_t index = (uint32_t)kernel->global_argument;
        uint64_t count;
        if (index >= kernel->count || args[index].kind == APF_BUFFER || args[index].kind == APF_BYTES ||
            !to_integer(&args[index], 'u', 8, &count))
            return apf_fail(err, APF_ARGUMENT, 0, "argument %u of kernel '%s' must be the number of work-items", index,
                            kernel->name);
        items = count / kernel->share + (count % kernel->share != 0);
    }
    /* OpenCL before 2.0 runs only whole work-groups, so kernels compare their index with the number of work-items. */
    if (kernel->local > 1) items = (items + kernel->local - 1) / kernel->local * kernel->local;
    *space = (ocl_space){.dimensions = 1, .global = {items}, .local = {kernel->local}};
    return APF_OK;
}
