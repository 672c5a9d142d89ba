"""C error codes as exceptions, the allocation faults of tests, and the counts of what is alive."""

from apyfal._core cimport capi
from apyfal import exceptions

# Indexed by code; the one table from C errors to exceptions.
cdef tuple _classes = tuple({
    capi.APF_OK: exceptions.AcceleratorException,
    capi.APF_NO_MEMORY: exceptions.HostMemoryExhausted,
    capi.APF_INVALID: exceptions.ParameterError,
    capi.APF_BUSY: exceptions.BufferInUse,
    capi.APF_CLOSED: exceptions.ClosedError,
    capi.APF_TIMEOUT: exceptions.RunTimeout,
    capi.APF_CANCELLED: exceptions.RunCancelled,
    capi.APF_NOT_FOUND: exceptions.ProgramError,
    capi.APF_PERMISSION: exceptions.AccessDenied,
    capi.APF_IO: exceptions.DriverError,
    capi.APF_TRUNCATED: exceptions.ObjectChanged,
    capi.APF_MISALIGNED: exceptions.Misaligned,
    capi.APF_READ_ONLY: exceptions.ReadOnly,
    capi.APF_UNSUPPORTED: exceptions.UnsupportedByDriver,
    capi.APF_NO_LIBRARY: exceptions.DriverUnavailable,
    capi.APF_NO_DEVICE: exceptions.DeviceNotFound,
    capi.APF_DEVICE_LOST: exceptions.DeviceLost,
    capi.APF_DEVICE_MEMORY: exceptions.DeviceMemoryExhausted,
    capi.APF_PROGRAM: exceptions.ProgramError,
    capi.APF_ARGUMENT: exceptions.ParameterError,
    capi.APF_KERNEL: exceptions.KernelError,
    capi.APF_FORKED: exceptions.ForkedProcess,
}[code] for code in range(capi.APF_ERROR_COUNT))


cdef int check(int code, const capi.apf_error *err) except -1:
    """Raise what `code` stands for, with the text of `err`."""
    if code == capi.APF_OK:
        return 0
    if 0 < code < capi.APF_ERROR_COUNT:
        raise _classes[code]((<const char *>err.text).decode("utf-8", "replace"))
    raise exceptions.DriverError(f"driver error {code}: {(<const char *>err.text).decode('utf-8', 'replace')}")


def fail_allocation(n):
    """Make the `n`-th allocation of the core from now fail (0: the next); ``None`` stops it. For tests.

    Returns
    -------
    int
        The allocations made so far in this process.
    """
    return capi.apf_fail_allocation(-1 if n is None else n)


def live():
    """What of the core is alive in this process, by kind."""
    cdef capi.apf_live now = capi.apf_live_get()
    return {
        "buffers": now.buffers,
        "mappings": now.mappings,
        "devices": now.devices,
        "kernels": now.kernels,
        "bos": now.bos,
        "runs": now.runs,
        "threads": now.threads,
    }
