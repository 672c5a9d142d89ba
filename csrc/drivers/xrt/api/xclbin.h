/* xclbin.h - the contents of an xclbin: kernels, their arguments, memory banks. */
#ifndef APF_XRT_XCLBIN_H
#define APF_XRT_XCLBIN_H

#include "apyfal.h"

typedef struct xrt_bank {
    uint64_t size; /* bytes */
    int used;
    int host; /* the host's own memory, not the card's */
} xrt_bank;

/* How an argument is passed, as xclbins number it (addressQualifier). */
enum { XRT_ARG_SCALAR = 0, XRT_ARG_GLOBAL = 1, XRT_ARG_CONSTANT = 2, XRT_ARG_LOCAL = 3, XRT_ARG_STREAM = 4 };

typedef struct xrt_parameter {
    char name[32];
    char type[24];
    uint32_t qualifier;
    uint32_t size; /* bytes of a scalar, or of a struct */
} xrt_parameter;

typedef struct xrt_xclbin {
    unsigned char uuid[16];
    const uint8_t *data; /* owned by the caller; the next two point into it */
    const char *xml;
    size_t xml_size;
    uint32_t banks_count;
    xrt_bank *banks;
} xrt_xclbin;

/* Check the container (every section lies inside it: XRT does not check this) and find its parts; free it with
 * xrt_xclbin_end. `name` is for messages. PROGRAM, NO_MEMORY. */
int xrt_xclbin_read(xrt_xclbin *xclbin, const void *data, size_t size, const char *name, apf_error *err);
void xrt_xclbin_end(xrt_xclbin *xclbin);

/* The parameters of `kernel` (without ":{...}"), in an array that the caller frees; *units is the number of its compute
 * units. NOT_FOUND (the text lists the kernels there are), NO_MEMORY. */
int xrt_xclbin_kernel(const xrt_xclbin *xclbin, const char *kernel, xrt_parameter **parameters, uint32_t *count,
                      uint32_t *units, apf_error *err);

#endif
