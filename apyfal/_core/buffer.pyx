"""Pinned host memory as a Python object, and the pool that it comes from."""

from cpython.buffer cimport PyBUF_ANY_CONTIGUOUS, PyBuffer_FillInfo, PyBuffer_Release
from cpython.buffer cimport PyObject_GetBuffer

from apyfal._core cimport capi
from apyfal._core.errors cimport check
from apyfal import exceptions


cdef class _Handle:
    """A reference to a buffer, on its way into a `Buffer`."""

    cdef capi.apf_buffer *handle


cdef Buffer wrap(capi.apf_buffer *handle):
    """A Buffer that takes over one reference to `handle`."""
    cdef _Handle given = _Handle.__new__(_Handle)
    given.handle = handle
    return Buffer.__new__(Buffer, given)


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
    refused with `BufferInUse` while a view or a run is alive; a view that is asked for while `resize` moves the memory
    waits for its end. The memory goes back to the pool with the last reference of any kind, so a buffer that a device
    may touch is never reused. Every method may be called from any thread.
    """

    def __cinit__(self, nbytes):
        cdef capi.apf_error err
        cdef size_t size
        cdef int code
        if type(nbytes) is _Handle:
            self.hold.buffer = (<_Handle> nbytes).handle
            return
        if nbytes < 0:
            raise exceptions.ParameterError(f"a buffer of {nbytes} bytes; expected 0 or more")
        if nbytes > 1 << 62:
            raise exceptions.HostMemoryExhausted(f"cannot allocate a buffer of {nbytes} bytes")
        size = nbytes
        with nogil:
            code = capi.apf_buffer_new(size, &self.hold.buffer, &err)
        check(code, &err)

    def __dealloc__(self):
        with nogil:
            capi.apf_hold_end(&self.hold)

    cdef int look(self, capi.apf_hold_info *info) except -1:
        """Fill in what the buffer is now."""
        cdef int code = capi.apf_hold_look(&self.hold, False, info)
        if code == capi.APF_BUSY:
            with nogil:
                code = capi.apf_hold_look(&self.hold, True, info)
        if code != capi.APF_OK:
            raise exceptions.ClosedError("the buffer is closed")
        return 0

    cdef int view(self, capi.apf_hold_info *info) except -1:
        """Take a view, to be given back by `apf_hold_unview`: close and resize are refused until then."""
        cdef int code = capi.apf_hold_view(&self.hold, False, info)
        if code == capi.APF_BUSY:
            with nogil:
                code = capi.apf_hold_view(&self.hold, True, info)
        if code != capi.APF_OK:
            raise exceptions.ClosedError("the buffer is closed")
        return 0

    @property
    def nbytes(self):
        """Size in bytes, as asked for."""
        cdef capi.apf_hold_info info
        self.look(&info)
        return info.size

    @property
    def capacity(self):
        """Bytes of memory behind it."""
        cdef capi.apf_hold_info info
        self.look(&info)
        return info.capacity

    @property
    def address(self):
        """Where the memory begins; a multiple of 4096. It is not a view: `close` and `resize` do not know of it."""
        cdef capi.apf_hold_info info
        self.look(&info)
        return <size_t> info.data

    @property
    def locked(self):
        """Whether the memory is mlocked (the process may be limited by RLIMIT_MEMLOCK)."""
        cdef capi.apf_hold_info info
        self.look(&info)
        return bool(info.flags & capi.APF_BUFFER_LOCKED)

    @property
    def mapped(self):
        """Whether this is a mapped file."""
        cdef capi.apf_hold_info info
        self.look(&info)
        return bool(info.flags & capi.APF_BUFFER_MAPPED)

    @property
    def readonly(self):
        """Whether the memory cannot be written."""
        cdef capi.apf_hold_info info
        self.look(&info)
        return bool(info.flags & capi.APF_BUFFER_READONLY)

    @property
    def closed(self):
        """Whether `close` was called."""
        cdef capi.apf_hold_info info
        return capi.apf_hold_look(&self.hold, False, &info) == capi.APF_CLOSED

    def close(self):
        """Give the memory back; closing twice is fine.

        Raises
        ------
        BufferInUse
            A view or a run is alive.
        """
        cdef capi.apf_error err
        cdef int code
        with nogil:
            code = capi.apf_hold_close(&self.hold, &err)
        check(code, &err)

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
        with nogil:
            code = capi.apf_hold_resize(&self.hold, size, &err)
        check(code, &err)

    def __len__(self):
        return self.nbytes

    def __enter__(self):
        cdef capi.apf_hold_info info
        self.look(&info)
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        cdef capi.apf_hold_info info
        try:
            self.look(&info)
        except exceptions.ClosedError:
            return "<apyfal Buffer, closed>"
        mapped, locked = info.flags & capi.APF_BUFFER_MAPPED, info.flags & capi.APF_BUFFER_LOCKED
        kind = "mapped file" if mapped else "pinned" if locked else "not locked"
        return f"<apyfal Buffer of {info.size} bytes at {<size_t> info.data:#x}, {kind}>"

    # -- what others see ----------------------------------------------------------------------------------------------
    def __getbuffer__(self, Py_buffer *view, int flags):
        cdef capi.apf_hold_info info
        self.view(&info)
        try:
            PyBuffer_FillInfo(view, self, info.data, info.size, (info.flags & capi.APF_BUFFER_READONLY) != 0, flags)
        except BaseException:
            capi.apf_hold_unview(&self.hold)
            raise

    def __releasebuffer__(self, Py_buffer *view):
        capi.apf_hold_unview(&self.hold)

    @property
    def __array_interface__(self):
        """Version 3 of numpy's array interface.

        The address cannot be taken back: `close` and `resize` are refused from now on.
        """
        cdef capi.apf_hold_info info
        self.view(&info)  # for good
        readonly = bool(info.flags & capi.APF_BUFFER_READONLY)
        return {"version": 3, "shape": (info.size,), "typestr": "|u1", "data": (<size_t> info.data, readonly)}

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
