/* Types of scalar arguments that the program defines: typedefs, structs, vectors. The platform reports only the name,
 * so the program's compiler is asked for its size and class. */
#include "drivers/opencl/opencl.h"

#include <stdio.h>
#include <string.h>

/* The kernel is never run: the work-group size that it requires is a constant of the program, which the platform
 * reports. Its first two numbers are the size of the type by 64 (remainder and quotient) and 1, its third the class
 * and 1. */
static const char probe[] = "\n"
                            "#define APYFAL_IS(other) __builtin_types_compatible_p(APYFAL_TYPE, other)\n"
                            "#if defined(cl_khr_fp64) || defined(__opencl_c_fp64)\n"
                            "#define APYFAL_IS_DOUBLE APYFAL_IS(double)\n"
                            "#else\n"
                            "#define APYFAL_IS_DOUBLE 0\n"
                            "#endif\n"
                            "#define APYFAL_CLASS (1 \\\n"
                            " + (APYFAL_IS(char) || APYFAL_IS(signed char) || APYFAL_IS(short) || APYFAL_IS(int) || "
                            "APYFAL_IS(long)) * 1 \\\n"
                            " + (APYFAL_IS(uchar) || APYFAL_IS(ushort) || APYFAL_IS(uint) || APYFAL_IS(ulong)) * 2 \\\n"
                            " + (APYFAL_IS(float) || APYFAL_IS(half) || APYFAL_IS_DOUBLE) * 3)\n"
                            "__kernel __attribute__((reqd_work_group_size(\n"
                            "    1 + sizeof(APYFAL_TYPE) % 64, 1 + sizeof(APYFAL_TYPE) / 64 % 64, APYFAL_CLASS)))\n"
                            "void apyfal_type(__global int *none) { none[0] = 0; }\n";

static const char classes[] = {'s', 'i', 'u', 'f'};

static void ask(apf_drv_device *device, cl_program program, ocl_parameter *parameter)
{
    const ocl_api *api = device->api;
    size_t required[3] = {0};
    cl_int status;
    cl_kernel kernel = api->clCreateKernel(program, "apyfal_type", &status);
    if (status != CL_SUCCESS) return;
    status = api->clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_COMPILE_WORK_GROUP_SIZE, sizeof required,
                                           required, NULL);
    api->clReleaseKernel(kernel);
    if (status != CL_SUCCESS || !required[0] || !required[1] || required[2] < 1 || required[2] > sizeof classes) return;
    parameter->scalar = classes[required[2] - 1];
    parameter->size = (uint32_t)(required[0] - 1 + (required[1] - 1) * 64);
}

void ocl_ask_compiler(apf_drv_device *device, const apf_program *from, const char *options, ocl_parameter *parameter)
{
    char define[160];
    snprintf(define, sizeof define, "\n#define APYFAL_TYPE %s", parameter->type);
    const size_t more = strlen(define) + sizeof probe - 1;
    char *text = apf_calloc(1, from->size + more + 1);
    if (!text) return;
    memcpy(text, from->data, from->size);
    sprintf(text + from->size, "%s%s", define, probe);
    const apf_program asked = {.data = text, .size = from->size + more};
    ocl_program program = {0};
    apf_error none;
    if (ocl_build(device, &asked, options, &program, &none) == APF_OK) {
        ask(device, program.handle, parameter);
        ocl_end_program(device, &program);
    }
    apf_free(text);
}
