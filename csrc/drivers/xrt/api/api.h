/* api.h - the part of XRT's C interface that the xrt driver uses, loaded at first use.
 *
 * The prototypes are those of <xrt/xrt_device.h>, <xrt/xrt_bo.h>, <xrt/xrt_kernel.h> and <experimental/xrt_ini.h>, the
 * same from XRT 2.13 on; they are declared here so that no XRT is needed to build.
 */
#ifndef APF_XRT_API_H
#define APF_XRT_API_H

#include "apyfal.h"

typedef void *xrt_device; /* xrtDeviceHandle and so on */
typedef void *xrt_kernel;
typedef void *xrt_bo;
typedef void *xrt_run;

/* Every entry point: result, name, parameters. One list defines the structure here and the look-ups in api.c. */
#define XRT_API(X)                                                                                                     \
    X(xrt_device, DeviceOpen, (unsigned index))                                                                        \
    X(xrt_device, DeviceOpenByBDF, (const char *bdf))                                                                  \
    X(int, DeviceClose, (xrt_device))                                                                                  \
    X(int, DeviceLoadXclbin, (xrt_device, const void *axlf))                                                           \
    X(int, DeviceGetXclbinUUID, (xrt_device, unsigned char uuid[16]))                                                  \
    X(xrt_kernel, PLKernelOpen, (xrt_device, const unsigned char uuid[16], const char *name))                          \
    X(int, KernelClose, (xrt_kernel))                                                                                  \
    X(int, KernelArgGroupId, (xrt_kernel, int index))                                                                  \
    X(xrt_bo, BOAlloc, (xrt_device, size_t size, uint64_t flags, uint32_t group))                                      \
    X(xrt_bo, BOAllocUserPtr, (xrt_device, void *data, size_t size, uint64_t flags, uint32_t group))                   \
    X(xrt_bo, BOSubAlloc, (xrt_bo parent, size_t size, size_t offset))                                                 \
    X(int, BOFree, (xrt_bo))                                                                                           \
    X(void *, BOMap, (xrt_bo))                                                                                         \
    X(int, BOSync, (xrt_bo, int direction, size_t size, size_t offset))                                                \
    X(xrt_run, RunOpen, (xrt_kernel))                                                                                  \
    X(int, RunSetArg, (xrt_run, int index, ...))                                                                       \
    X(int, RunStart, (xrt_run))                                                                                        \
    X(int, RunWaitFor, (xrt_run, unsigned milliseconds))                                                               \
    X(int, RunState, (xrt_run))                                                                                        \
    X(int, RunClose, (xrt_run))                                                                                        \
    X(int, IniStringSet, (const char *key, const char *value))

typedef struct xrt_api {
#define XRT_ENTRY(result, name, parameters) result(*name) parameters;
    XRT_API(XRT_ENTRY)
#undef XRT_ENTRY
    /* `bytes` of any type, which must be the argument's size in the xclbin. A C++ function, which XRT exports for its
     * own tools and declares in no header; NULL: it is not there. RunSetArg takes 8 bytes of a type that it does not
     * know. */
    int (*RunSetArgV)(xrt_run, int index, const void *value, size_t bytes);
    int emulation;    /* XCL_EMULATION_MODE is set: no real card */
    char mode[16];    /* its value */
    char version[32]; /* of XRT, "2.13.0"; empty: not known */
    unsigned minor;   /* of XRT's version, from 2.16 on; 0: an earlier one, which does not state it */
} xrt_api;

/* From XRT 2.16 on, its shims are C++ objects. Since then, and at least until 2.26, the shim for cards has two faults:
 *
 *   - it drops what the kernel module returns for a transfer, so that xrtBOSync returns 0 for a failed one; only errno
 *     tells that it failed;
 *   - an abort names its run by the address of a C++ object, but the kernel module expects the number of the run's
 *     command: it aborts nothing, and waits for the end of the run. */
#define XRT_SHIM_OBJECTS 16

/* Buffer flags, <xrt/xrt_mem.h>. */
#define XRT_BO_DEVICE_ONLY (1u << 28)
#define XRT_BO_HOST_ONLY (1u << 29)

/* Command states, <xrt/ert.h>. */
enum {
    XRT_STATE_COMPLETED = 4,
    XRT_STATE_ERROR = 5,
    XRT_STATE_ABORT = 6,
    XRT_STATE_SUBMITTED = 7,
    XRT_STATE_TIMEOUT = 8,
    XRT_STATE_NO_RESPONSE = 9,
    XRT_STATE_SOFT_ERROR = 10,
    XRT_STATE_SOFT_CRASHED = 11,
};

/* XRT, ready for its first call; it stays loaded. Options: root (an installation), log (`capture` | `keep`).
 * NO_LIBRARY: the text says what was searched for; INVALID: an option. XRT cannot abort the process. */
int xrt_load(const apf_option *options, const xrt_api **api, apf_error *err);

/* Fill *err with the text, errno (zeroed before the call that failed) and XRT's log messages from this thread since
 * then. */
int xrt_fail(apf_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The code for a failed call: DEVICE_LOST or BUSY if errno means that, else `otherwise`. */
int xrt_code(int otherwise);

/* log.c: XRT's messages go to a file in memory, whose lines end up in errors. */
void xrt_log_capture(xrt_api *api);
/* Copy the errors that this thread logged since its last call, as one line of at most `size` bytes; false: none. */
int xrt_log_take(char *text, size_t size);

/* abort.c: XRT's abort, which its C interface lacks. Blocks until the run ended. False: the abort could not be
 * requested. */
int xrt_abort_available(const xrt_api *api);
int xrt_abort(xrt_run run);
/* Have XRT take a run in flight for an aborted one, so that it can be destroyed. The card goes on with it: for the end
 * of the process only. */
void xrt_give_up(const xrt_api *api, xrt_run run);

#endif
