"""Pinned host memory as a Python object, and the pool that it comes from."""

from cpython.buffer cimport PyBUF_ANY_CONTIGUOUS, PyBuffer_FillInfo, PyBuffer_Release
from cpython.buffer cimport PyObject_GetBuffer

from apyfal._core cimport capi
from apyfal._core.errors cimport check
from apyfal import exceptions


cdef Buffer wrap(capi.apf_buffer *handle):
    """A Buffer that takes over one reference to `handle`."""
    cdef Buffer buffer = Buffer.__new__(Buffer)
    buffer.handle = handle
    return buffer


cdef class Buffer:
    """Page-aligned memory that every driver can use in place.

    Parameters
    ----------
    nbytes : int
        Size in bytes; the contents are undefined.

    Raises
    ------
    HostMemoryExhausted
        There is no memory, or the pool reached its limit.

    Notes
    -----
    States: *open* (views and runs may come and go); *closed* (every use raises `ClosedError`). `close` and `resize` are
    refused with `BufferInUse` while a view or a run is alive. The memory goes back to the pool with the last
    reference of any kind, so a buffer that a device may touch is never reused.
    """

    def __init__(self, nbytes):
        cdef capi.apf_error err
        cdef capi.apf_buffer *handle = NULL
        if self.handle != NULL:
            raise exceptions.ParameterError("a Buffer is initialised once")
        if nbytes < 0:
            raise exceptions.ParameterError(f"a buffer of {nbytes} bytes; expected 0 or more")
        if nbytes > 1 << 62:
            raise exceptions.HostMemoryExhausted(f"cannot allocate a buffer of {nbytes} bytes")
        cdef size_t size = nbytes
        cdef int code
        with nogil:
            code = capi.apf_buffer_new(size, &handle, &err)
        check(code, &err)
        self.handle = handle

    def __dealloc__(self):
        cdef capi.apf_buffer *handle = self.handle
        if handle != NULL:
            self.handle = NULL
            with nogil:
                capi.apf_buffer_release(handle)

    cdef int opened(self) except -1:
        if self.handle == NULL:
            raise exceptions.ClosedError("the buffer is closed")
        return 0

    cdef int unused(self, str what) except -1:
        self.opened()
        if self.exports or self.address_given:
            raise exceptions.BufferInUse(f"cannot {what} a buffer of {self.nbytes} bytes: a view of it is alive")
        if capi.apf_buffer_refs(self.handle) > 1:
            raise exceptions.BufferInUse(f"cannot {what} a buffer of {self.nbytes} bytes: a run uses it")
        return 0

    @property
    def nbytes(self):
        """Size in bytes, as asked for."""
        self.opened()
        return capi.apf_buffer_size(self.handle)

    @property
    def capacity(self):
        """Bytes of memory behind it."""
        self.opened()
        return capi.apf_buffer_capacity(self.handle)

    @property
    def address(self):
        """Where the memory begins; a multiple of 4096."""
        self.opened()
        return <size_t> capi.apf_buffer_data(self.handle)

    @property
    def locked(self):
        """Whether the memory is mlocked (the process may be limited by RLIMIT_MEMLOCK)."""
        self.opened()
        return bool(capi.apf_buffer_flags(self.handle) & capi.APF_BUFFER_LOCKED)

    @property
    def mapped(self):
        """Whether this is a mapped file."""
        self.opened()
        return bool(capi.apf_buffer_flags(self.handle) & capi.APF_BUFFER_MAPPED)

    @property
    def readonly(self):
        """Whether the memory cannot be written."""
        self.opened()
        return bool(capi.apf_buffer_flags(self.handle) & capi.APF_BUFFER_READONLY)

    @property
    def closed(self):
        """Whether `close` was called."""
        return self.handle == NULL

    def close(self):
        """Give the memory back; closing twice is fine.

        Raises
        ------
        BufferInUse
            A view or a run is alive.
        """
        if self.handle == NULL:
            return
        self.unused("close")
        cdef capi.apf_buffer *handle = self.handle
        self.handle = NULL
        with nogil:
            capi.apf_buffer_release(handle)

    def resize(self, nbytes):
        """Change the size in bytes; keeps the contents, may move the memory.

        Raises
        ------
        BufferInUse
            A view or a run is alive.
        """
        cdef capi.apf_error err
        cdef size_t size = nbytes
        cdef int code
        self.unused("resize")
        with nogil:
            code = capi.apf_buffer_resize(&self.handle, size, &err)
        check(code, &err)

    def __len__(self):
        return self.nbytes

    def __enter__(self):
        self.opened()
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        if self.handle == NULL:
            return "<apyfal Buffer, closed>"
        kind = "mapped file" if self.mapped else "pinned" if self.locked else "not locked"
        return f"<apyfal Buffer of {self.nbytes} bytes at {self.address:#x}, {kind}>"

    # -- what others see ----------------------------------------------------------------------------------------------
    def __getbuffer__(self, Py_buffer *view, int flags):
        self.opened()
        PyBuffer_FillInfo(view, self, capi.apf_buffer_data(self.handle), capi.apf_buffer_size(self.handle),
                          self.readonly, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1

    @property
    def __array_interface__(self):
        """Version 3 of numpy's array interface.

        The address cannot be taken back: `close` and `resize` are refused from now on.
        """
        self.opened()
        self.address_given = True
        return {"version": 3, "shape": (self.nbytes,), "typestr": "|u1", "data": (self.address, self.readonly)}

    def __dlpack__(self, **keywords):
        """Export as one-dimensional uint8; the consumer's tensor keeps the memory alive."""
        import numpy

        return numpy.frombuffer(self, numpy.uint8).__dlpack__(**keywords)

    def __dlpack_device__(self):
        """Return kDLCPU, device 0."""
        return (1, 0)


# -- by address -------------------------------------------------------------------------------------------------------
def is_pinned(data):
    """Whether the bytes of `data` (any object with the buffer protocol) lie in memory of the pool or in a mapped file.

    Raises
    ------
    TypeError
        `data` has no buffer.
    """
    cdef Py_buffer view
    cdef capi.apf_buffer *found
    try:
        PyObject_GetBuffer(data, &view, PyBUF_ANY_CONTIGUOUS)
    except (BufferError, ValueError):
        return False  # not contiguous
    found = capi.apf_buffer_find(view.buf, view.len)
    PyBuffer_Release(&view)
    if found == NULL:
        return False
    capi.apf_buffer_release(found)
    return True


# -- the pool ---------------------------------------------------------------------------------------------------------
def pool_stats():
    """Bytes and counts of the pool: limit, used, idle, locked, reuses, growths."""
    cdef capi.apf_pool_stats stats
    capi.apf_pool_stats_get(&stats)
    return {
        "limit": stats.limit,
        "used": stats.used,
        "idle": stats.idle,
        "locked": stats.locked,
        "reuses": stats.reuses,
        "growths": stats.growths,
    }


def set_pool_limit(nbytes):
    """Limit the bytes that the pool holds, used and idle; ``None``: half of the machine's memory."""
    cdef unsigned long long limit = 0 if nbytes is None else nbytes
    with nogil:
        capi.apf_pool_limit_set(limit)


def trim_pool(keep=0):
    """Give idle memory back to the system, all but `keep` bytes."""
    cdef unsigned long long bytes_kept = keep
    with nogil:
        capi.apf_pool_trim(bytes_kept)
