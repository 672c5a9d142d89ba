"""Host files mapped into memory that drivers can use."""

from apyfal._core cimport capi
from apyfal._core.buffer cimport Buffer, wrap
from apyfal._core.errors cimport check


def map_file(fd, offset, nbytes, writable=False, populate=True):
    """Map part of an open regular file.

    Parameters
    ----------
    fd : int
        An open descriptor; it may be closed afterwards.
    offset, nbytes : int
        The range in bytes; `offset` is a multiple of 4096, the range lies inside the file.
    writable : bool
        Shared and writable: `fd` is open for both, changes reach the file, and every driver can use the memory in
        place. Otherwise read-only: drivers that pin for writing (all vendors' kernel modules) refuse it, so it is
        copied once.
    populate : bool
        Fault all pages in now.

    Returns
    -------
    Buffer
        With `mapped` true. The file may be cut short by others while it is mapped: transfers then raise
        `ObjectChanged`, while reading the memory directly ends the process (SIGBUS), as for any mapping.

    Raises
    ------
    ParameterError, Misaligned, AccessDenied, HostMemoryExhausted
    """
    cdef capi.apf_error err
    cdef capi.apf_buffer *handle = NULL
    cdef int descriptor = fd
    cdef unsigned long long start = offset
    cdef size_t size = nbytes
    cdef int mode = capi.APF_MAP_WRITE if writable else capi.APF_MAP_READ
    cdef int faulted = populate
    cdef int code
    with nogil:
        code = capi.apf_mapped_file_new(descriptor, start, size, mode, faulted, &handle, &err)
    check(code, &err)
    return wrap(handle)


def flush(Buffer buffer not None):
    """Write the changes of a writable map to the disk (msync)."""
    cdef capi.apf_error err
    cdef capi.apf_hold_info info
    cdef int code
    buffer.view(&info)  # so that nobody closes it meanwhile
    with nogil:
        code = capi.apf_mapped_file_flush(buffer.hold.buffer, &err)
        capi.apf_hold_unview(&buffer.hold)
    check(code, &err)
