"""Runs: a kernel at work on buffer objects."""

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_INCREF
from libc.string cimport memset

from apyfal._core cimport capi
from apyfal._core.device cimport BufferObject, Kernel
from apyfal._core.errors cimport check
from apyfal import exceptions

cdef enum:
    MOST = 24  # arguments of a kernel

cdef long long SLICE = 100_000_000     # ns; how late Ctrl-C may be noticed
cdef long long GRACE = 2_000_000_000   # ns that an unwanted run gets to end before it is abandoned

SYNC_TO = capi.APF_SYNC_TO
SYNC_FROM = capi.APF_SYNC_FROM

SCALARS = {
    "int8": capi.APF_I8, "uint8": capi.APF_U8, "int16": capi.APF_I16, "uint16": capi.APF_U16,
    "int32": capi.APF_I32, "uint32": capi.APF_U32, "int64": capi.APF_I64, "uint64": capi.APF_U64,
    "float32": capi.APF_F32, "float64": capi.APF_F64,
}


cdef class Arguments:
    """The arguments of one kernel, filled in once and changed between runs.

    Parameters
    ----------
    count : int
        How many; all must be set before `start`.
    """

    cdef capi.apf_run_arg values[MOST]
    cdef list owners
    cdef unsigned int count

    def __init__(self, count):
        if not 0 <= count <= MOST:
            raise exceptions.ParameterError(f"a kernel with {count} arguments; at most {MOST} are supported")
        memset(self.values, 0, sizeof(self.values))
        self.count = count
        self.owners = [None] * count

    cdef capi.apf_run_arg *at(self, index) except NULL:
        if not 0 <= index < self.count:
            raise exceptions.ParameterError(f"argument {index} of {self.count}")
        return &self.values[<unsigned int> index]

    def set_buffer(self, index, BufferObject bo not None, offset, nbytes, flags=0):
        """Argument `index` is `nbytes` bytes of `bo` from `offset`; `flags` is SYNC_TO, SYNC_FROM, both or 0."""
        cdef capi.apf_run_arg *value = self.at(index)
        value.arg.kind = capi.APF_BUFFER
        value.arg.flags = flags
        value.arg.offset = offset
        value.arg.size = nbytes
        value.bo = bo.handle
        self.owners[index] = bo

    def set_scalar(self, index, str dtype not None, number):
        """Argument `index` is a number of this dtype (a key of `SCALARS`).

        Raises
        ------
        OverflowError
            The number does not fit.
        """
        cdef capi.apf_run_arg *value = self.at(index)
        cdef unsigned int kind = SCALARS[dtype]
        value.arg.value.u = 0
        if kind == capi.APF_F32:
            value.arg.value.f = number
        elif kind == capi.APF_F64:
            value.arg.value.d = number
        elif kind in (capi.APF_U8, capi.APF_U16, capi.APF_U32, capi.APF_U64):
            value.arg.value.u = number
        else:
            value.arg.value.i = number
        value.arg.kind = kind
        value.arg.flags = 0
        value.bo = NULL
        self.owners[index] = None

    def clear(self, index):
        """Let go of the buffer object of argument `index`; it must be set again before the next `start`."""
        self.at(index).bo = NULL
        self.owners[index] = None

    def start(self, Kernel kernel not None):
        """Start a run of `kernel` with these values; they may be changed as soon as this returns.

        Raises
        ------
        ParameterError
            Count or type of an argument is not the kernel's.
        """
        cdef capi.apf_error err
        cdef Run run = Run.__new__(Run)
        cdef int code
        run.owners = [kernel, *self.owners]
        with nogil:
            code = capi.apf_run_start(kernel.handle, self.values, self.count, &run.handle, &err)
        check(code, &err)
        return run


cdef class Run:
    """A run in flight; made by `Arguments.start`. It holds all memory that the device may touch until it has ended.

    Dropping a run in flight cancels it and waits a bounded time; a run that does not end even then keeps its memory for
    good.
    """

    cdef capi.apf_run *handle
    cdef list owners
    cdef object __weakref__

    def __dealloc__(self):
        cdef capi.apf_run *handle = self.handle
        cdef int abandoned
        if handle != NULL:
            self.handle = NULL
            with nogil:
                abandoned = capi.apf_run_release(handle, GRACE)
            if abandoned:
                Py_INCREF(self.owners)  # the device may still write there

    def wait(self, timeout=None):
        """Wait until the results are on the host side.

        Parameters
        ----------
        timeout : float or None
            Seconds. When it passes, the run is still in flight.

        Raises
        ------
        RunTimeout, RunCancelled, KernelError, DeviceLost, DriverError
        """
        cdef capi.apf_error err
        cdef long long left = -1 if timeout is None else max(0, <long long> (timeout * 1e9))
        cdef long long slice
        cdef int code
        while True:
            slice = SLICE if left < 0 or left > SLICE else left
            with nogil:
                code = capi.apf_run_wait(self.handle, slice, &err)
            if code != capi.APF_TIMEOUT:
                break
            PyErr_CheckSignals()
            if left >= 0:
                left -= slice
                if left <= 0:
                    break
        if code == capi.APF_TIMEOUT:
            kernel = <Kernel> self.owners[0]
            raise exceptions.RunTimeout(
                f"a run of kernel {kernel.name!r} on {kernel.device.info['name']!r} did not end within {timeout:g} s"
            )
        check(code, &err)

    def cancel(self):
        """Ask the run to end; `wait` then raises `RunCancelled`. No effect on one that has ended.

        Raises
        ------
        UnsupportedByDriver
            This driver cannot stop a run.
        """
        cdef capi.apf_error err
        cdef int code
        with nogil:
            code = capi.apf_run_cancel(self.handle, &err)
        check(code, &err)

    @property
    def seconds(self):
        """How long the device worked, by its own clock; 0.0 where the driver does not measure."""
        cdef capi.apf_times times
        capi.apf_run_times(self.handle, &times)
        return (times.end - times.start) * 1e-9
