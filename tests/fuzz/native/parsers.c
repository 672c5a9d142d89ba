/* The parsers of csrc/ that read what other people wrote: the container and the XML of an xclbin, the options in an
 * OpenCL source, and the head of an HTTP response. Alone, this program reads files and mutations of them: `parsers
 * COUNT FILE...`. Linked with clang's -fsanitize=fuzzer and -DAPF_LIBFUZZER it is guided by coverage. An input's first
 * byte chooses the parser. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apyfal.h"
#include "drivers/xrt/api/xclbin.h"
#include "transport/head.h"

/* Its static functions are needed, and its other ones are there already. */
#define ocl_is_source fuzzed_is_source
#define ocl_load fuzzed_load
#define ocl_unload fuzzed_unload
#define ocl_bank fuzzed_bank
#define ocl_interface fuzzed_interface
#define ocl_digest fuzzed_digest
#define ocl_build fuzzed_build
#define ocl_end_program fuzzed_end_program
#define ocl_kernel_names fuzzed_kernel_names
#define ocl_open_kernel fuzzed_open_kernel
#include "drivers/opencl/kernel/program.c"

enum { OPTIONS = 1, LENGTH = 2, RESPONSE = 4, LENGTH_AT = 304, LARGEST = 1 << 16 };

static void read_xclbin(uint8_t *data, size_t size, int length)
{
    const uint64_t right = size;
    if (length && size >= LENGTH_AT + sizeof right) memcpy(data + LENGTH_AT, &right, sizeof right);
    static const char *const kernels[] = {"k", "vadd:{vadd_1}", ""};
    xrt_xclbin xclbin;
    apf_error error;
    if (xrt_xclbin_read(&xclbin, data, size, "fuzz", &error) != APF_OK) return;
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        xrt_parameter *parameters = NULL;
        uint32_t count = 0, units = 0;
        if (xrt_xclbin_kernel(&xclbin, kernels[i], &parameters, &count, &units, &error) != APF_OK) continue;
        for (uint32_t j = 0; j < count; j++)
            if (strlen(parameters[j].name) >= sizeof parameters[j].name) abort();
        apf_free(parameters);
    }
    xrt_xclbin_end(&xclbin);
}

static cl_int no_limits(cl_kernel kernel, cl_device_id device, cl_uint what, size_t size, void *value, size_t *used)
{
    (void)kernel, (void)device, (void)what, (void)used;
    memset(value, 0, size);
    return CL_SUCCESS;
}

/* Options, a NUL, and the source, which has no end of its own. */
static void read_options(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, 0, size);
    if (!end || end + 1 == data + size) return;
    const ocl_api api = {.clGetKernelWorkGroupInfo = no_limits};
    apf_drv_device device = {.api = &api, .version = 12};
    const apf_program program = {
        .data = end + 1, .size = size - (size_t)(end + 1 - data), .options = (const char *)data, .name = "fuzz"};
    apf_drv_kernel kernel = {.device = &device};
    ocl_options options;
    apf_error error;
    if (split_options(&device, &program, &options, &error) != APF_OK) return;
    if (launch_shape(&kernel, &options, "src, dst, count", &error) == APF_OK && !kernel.share) abort();
    apf_free(options.build);
}

/* What is read at once is read in pieces too, and no head reaches beyond its end. */
static void read_head(const uint8_t *data, size_t size)
{
    apf_head whole, part;
    const int found = apf_head_read(data, size, &whole);
    if (found == APF_HEAD_READ && (whole.size > size || memcmp(data + whole.size - 4, "\r\n\r\n", 4))) abort();
    if (found == APF_HEAD_READ && (whole.status < 200 || whole.status > 599 || whole.length > 999999999999999)) abort();
    for (size_t cut = 0; cut < size && cut < 300; cut++) {
        const int early = apf_head_read(data, cut, &part);
        if (early == APF_HEAD_READ && (found != early || part.size != whole.size)) abort();
        if (early == APF_HEAD_ODD && found != early) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    uint8_t *copy = malloc(size - 1); /* of just this size: the sanitizer sees a byte too many */
    if (!copy) abort();
    memcpy(copy, data + 1, size - 1);
    if (data[0] & RESPONSE)
        read_head(copy, size - 1);
    else if (data[0] & OPTIONS)
        read_options(copy, size - 1);
    else
        read_xclbin(copy, size - 1, data[0] & LENGTH);
    free(copy);
    return 0;
}

#ifndef APF_LIBFUZZER

/* The same numbers in each run: xorshift64, the constants of Marsaglia, "Xorshift RNGs" (2003). */
static uint64_t next_number(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static void mutate(uint8_t *data, size_t *size)
{
    static const uint8_t odd[] = {0, 1, 0x22, 0x3c, 0x3e, 0x7f, 0x80, 0xff};
    const uint64_t kind = next_number() % 8;
    if (kind == 0 && *size > 2) {
        *size -= next_number() % (*size / 2);
    } else if (kind == 1 && *size > 2) {
        const size_t at = 1 + next_number() % (*size - 1), left = *size - at, gone = 1 + next_number() % left;
        memmove(data + at, data + at + gone, left - gone);
        *size -= gone;
    } else {
        for (uint64_t i = 1 + next_number() % 8; i; i--)
            data[next_number() % *size] = kind % 2 ? (uint8_t)next_number() : odd[next_number() % sizeof odd];
    }
}

int main(int count, char **arguments)
{
    static uint8_t data[LARGEST], changed[LARGEST];
    unsigned long read = 0;
    for (int i = 2; i < count; i++) {
        FILE *file = fopen(arguments[i], "rb");
        if (!file) {
            perror(arguments[i]);
            return 1;
        }
        const size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        LLVMFuzzerTestOneInput(data, size);
        for (unsigned long j = strtoul(arguments[1], NULL, 10); size > 2 && j; j--, read++) {
            size_t left = size;
            memcpy(changed, data, size);
            for (uint64_t times = 1 + next_number() % 3; times && left > 2; times--) mutate(changed, &left);
            LLVMFuzzerTestOneInput(changed, left);
        }
    }
    printf("%lu mutations\n", read);
    return 0;
}

#endif
