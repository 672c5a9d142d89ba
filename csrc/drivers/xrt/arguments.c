/* Arguments of XRT's kernels: a value must match the declaration in the xclbin, or it is an error. */
#include "xrt.h"

#include <string.h>

static int is_float(uint32_t kind) { return kind == APF_F32 || kind == APF_F64; }

static int is_signed(uint32_t kind) { return kind == APF_I8 || kind == APF_I16 || kind == APF_I32 || kind == APF_I64; }

static double as_double(const apf_arg *arg)
{
    if (arg->kind == APF_F32) return (double)arg->value.f;
    if (arg->kind == APF_F64) return arg->value.d;
    return is_signed(arg->kind) ? (double)arg->value.i : (double)arg->value.u;
}

/* Whether an integer fits in `size` bytes, as signed or unsigned. */
static int fits(const apf_arg *arg, uint32_t size)
{
    if (size >= 8) return 1;
    const unsigned bits = 8 * size;
    if (!is_signed(arg->kind)) return arg->value.u >> bits == 0;
    return arg->value.i >= -(INT64_C(1) << (bits - 1)) && arg->value.i < INT64_C(1) << bits;
}

/* Whether a type in an xclbin is a number of C. Others are structs, vectors, or numbers with names of their own. */
static int is_number(const char *type)
{
    static const char *const names[] = {"char",    "short",    "int",      "long",    "float",   "double",
                                        "half",    "bool",     "uchar",    "ushort",  "uint",    "ulong",
                                        "size_t",  "signed",   "int8_t",   "int16_t", "int32_t", "int64_t",
                                        "uint8_t", "uint16_t", "uint32_t", "uint64_t"};
    if (strncmp(type, "unsigned", 8) == 0 || strncmp(type, "signed ", 7) == 0 || strncmp(type, "long ", 5) == 0)
        return 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(type, names[i]) == 0) return 1;
    return 0;
}

static int check_bytes(const apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err)
{
    const xrt_parameter *parameter = &kernel->parameters[index];
    if (!is_number(parameter->type) && arg->size == parameter->size) return APF_OK;
    return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s %s) has %u bytes; got a struct or vector of %llu",
                    index, kernel->name, parameter->type, parameter->name, parameter->size,
                    (unsigned long long)arg->size);
}

int xrt_argument_check(const apf_drv_kernel *kernel, uint32_t index, const apf_arg *arg, apf_error *err)
{
    const xrt_parameter *parameter = &kernel->parameters[index];
    const int buffer = parameter->qualifier == XRT_ARG_GLOBAL || parameter->qualifier == XRT_ARG_CONSTANT;
    if (!buffer && parameter->qualifier != XRT_ARG_SCALAR)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s) is a stream or local memory; it cannot be set",
                        index, kernel->name, parameter->name);
    if (buffer != (arg->kind == APF_BUFFER))
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s %s) is a %s; got a %s", index, kernel->name,
                        parameter->type, parameter->name, buffer ? "buffer" : "scalar", buffer ? "scalar" : "buffer");
    if (buffer) {
        if (arg->offset > arg->bo->size || arg->size > arg->bo->size - arg->offset)
            return apf_fail(err, APF_ARGUMENT, 0,
                            "argument %u of '%s' (%s) is [%llu, %llu + %llu) of a buffer object of %llu bytes", index,
                            kernel->name, parameter->name, (unsigned long long)arg->offset,
                            (unsigned long long)arg->offset, (unsigned long long)arg->size,
                            (unsigned long long)arg->bo->size);
        if (arg->offset % XRT_OFFSET_ALIGN)
            return apf_fail(err, APF_MISALIGNED, 0,
                            "argument %u of '%s' (%s) begins at byte %llu of its buffer object; expected a multiple of "
                            "%u",
                            index, kernel->name, parameter->name, (unsigned long long)arg->offset, XRT_OFFSET_ALIGN);
        return APF_OK;
    }
    if (arg->kind == APF_BYTES) return check_bytes(kernel, index, arg, err);
    if (parameter->size > 8)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s %s) has %u bytes; got a number", index,
                        kernel->name, parameter->type, parameter->name, parameter->size);
    const int real = strcmp(parameter->type, "float") == 0 || strcmp(parameter->type, "double") == 0;
    if (is_float(arg->kind) && !real)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s %s) is an integer; got %g", index, kernel->name,
                        parameter->type, parameter->name, as_double(arg));
    if (!real && !fits(arg, parameter->size))
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s %s) has %u bytes; %lld does not fit", index,
                        kernel->name, parameter->type, parameter->name, parameter->size, (long long)arg->value.i);
    return APF_OK;
}

/* XRT reads a number from its variable arguments with the type in the xclbin. */
int xrt_scalar_set(const apf_drv_kernel *kernel, xrt_run run, uint32_t index, const apf_arg *arg)
{
    const xrt_api *xrt = kernel->device->xrt;
    const xrt_parameter *parameter = &kernel->parameters[index];
    if (arg->kind == APF_BYTES) return xrt->RunSetArgV(run, (int)index, arg->value.data, arg->size);
    if (strcmp(parameter->type, "float") == 0 || strcmp(parameter->type, "double") == 0)
        return xrt->RunSetArg(run, (int)index, as_double(arg));
    if (parameter->size > 4) return xrt->RunSetArg(run, (int)index, arg->value.u);
    return xrt->RunSetArg(run, (int)index, (int)arg->value.u);
}
