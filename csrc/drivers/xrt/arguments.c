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
    const int real = strcmp(parameter->type, "float") == 0 || strcmp(parameter->type, "double") == 0;
    if (is_float(arg->kind) && !real)
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s %s) is an integer; got %g", index, kernel->name,
                        parameter->type, parameter->name, as_double(arg));
    if (!real && !fits(arg, parameter->size))
        return apf_fail(err, APF_ARGUMENT, 0, "argument %u of '%s' (%s %s) has %u bytes; %lld does not fit", index,
                        kernel->name, parameter->type, parameter->name, parameter->size, (long long)arg->value.i);
    return APF_OK;
}

/* XRT reads a scalar from its variable arguments with the type in the xclbin. */
int xrt_scalar_set(const apf_drv_kernel *kernel, xrt_run run, uint32_t index, const apf_arg *arg)
{
    const xrt_api *xrt = kernel->device->xrt;
    const xrt_parameter *parameter = &kernel->parameters[index];
    if (strcmp(parameter->type, "float") == 0 || strcmp(parameter->type, "double") == 0)
        return xrt->RunSetArg(run, (int)index, as_double(arg));
    if (parameter->size > 4) return xrt->RunSetArg(run, (int)index, arg->value.u);
    return xrt->RunSetArg(run, (int)index, (int)arg->value.u);
}
