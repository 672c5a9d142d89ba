"""Runs: a kernel at work on buffer objects."""

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from apyfal._core cimport capi
from apyfal._core.device cimport BufferObject, Kernel
from apyfal._core.errors cimport check
from apyfal import exceptions

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)

cdef object MADE_HERE = object()  # no other module makes a Run, so that none is without its handle

cdef enum:
    MOST = 24  # arguments of a kernel

cdef long long SLICE = 100_000_000     # ns; how late Ctrl-C may be noticed
cdef long long GRACE = 2_000_000_000   # ns that an unwanted run gets to end before it is abandoned

SYNC_TO = capi.APF_SYNC_TO
SYNC_FROM = capi.APF_SYNC_FROM
READS = capi.APF_READS
CLEAR = capi.APF_CLEAR

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

    Notes
    -----
    Every method may be called from any thread: a run starts with each argument as one call set it.
    """

    cdef pthread_mutex_t lock                # the arrays; never held while Python code may run
    cdef capi.apf_run_arg values[MOST]
    cdef PyObject *owners[MOST]              # a reference to the buffer object of each argument, or NULL
    cdef unsigned int count

    def __cinit__(self, count):
        pthread_mutex_init(&self.lock, NULL)
        if not 0 <= count <= MOST:
            raise exceptions.ParameterError(f"a kernel with {count} arguments; at most {MOST} are supported")
        self.count = count

    def __dealloc__(self):
        cdef unsigned int index
        for index in range(self.count):
            if self.owners[index] != NULL:
                Py_DECREF(<object> self.owners[index])
        pthread_mutex_destroy(&self.lock)

    cdef unsigned int at(self, index) except? 0:
        if not 0 <= index < self.count:
            raise exceptions.ParameterError(f"argument {index} of {self.count}")
        return index

    cdef void put(self, unsigned int index, const capi.apf_run_arg *value, object owner) noexcept:
        """Set one argument and its owner (or None) at once."""
        cdef PyObject *fresh = NULL
        cdef PyObject *old
        if owner is not None:
            fresh = <PyObject *> owner
            Py_INCREF(owner)
        pthread_mutex_lock(&self.lock)
        self.values[index] = value[0]
        old, self.owners[index] = self.owners[index], fresh
        pthread_mutex_unlock(&self.lock)
        if old != NULL:
            Py_DECREF(<object> old)

    def set_buffer(self, index, BufferObject bo not None, offset, nbytes, flags=0):
        """Argument `index` is `nbytes` bytes of `bo` from `offset`; `flags` are SYNC_TO, SYNC_FROM, READS and CLEAR."""
        cdef unsigned int position = self.at(index)
        cdef capi.apf_run_arg value
        memset(&value, 0, sizeof(value))
        value.arg.kind = capi.APF_BUFFER
        value.arg.flags = flags
        value.arg.offset = offset
        value.arg.size = nbytes
        value.bo = bo.handle
        self.put(position, &value, bo)

    def set_scalar(self, index, str dtype not None, number):
        """Argument `index` is a number of this dtype (a key of `SCALARS`).

        Raises
        ------
        OverflowError
            The number does not fit.
        """
        cdef unsigned int position = self.at(index)
        cdef unsigned int kind = SCALARS[dtype]
        cdef capi.apf_run_arg value
        memset(&value, 0, sizeof(value))
        if kind == capi.APF_F32:
            value.arg.value.f = number
        elif kind == capi.APF_F64:
            value.arg.value.d = number
        elif kind in (capi.APF_U8, capi.APF_U16, capi.APF_U32, capi.APF_U64):
            value.arg.value.u = number
        else:
            value.arg.value.i = number
        value.arg.kind = kind
        self.put(position, &value, None)

    def set_bytes(self, index, bytes value not None):
        """Argument `index` is a struct or vector: its bytes, as the kernel reads them."""
        cdef unsigned int position = self.at(index)
        cdef capi.apf_run_arg argument
        memset(&argument, 0, sizeof(argument))
        argument.arg.kind = capi.APF_BYTES
        argument.arg.size = len(value)
        argument.arg.value.data = <const char *> value
        self.put(position, &argument, value)

    def clear(self, index):
        """Let go of the buffer object of argument `index`; it must be set again before the next `start`."""
        cdef unsigned int position = self.at(index)
        cdef capi.apf_run_arg value
        memset(&value, 0, sizeof(value))  # a buffer argument with no buffer object
        self.put(position, &value, None)

    cdef void take(self, capi.apf_run_arg *values, PyObject **owners) noexcept:
        """Copy all arguments as they are now, with a reference to each owner."""
        cdef unsigned int index
        pthread_mutex_lock(&self.lock)
        memcpy(values, self.values, self.count * sizeof(values[0]))
        for index in range(self.count):
            owners[index] = self.owners[index]
            if owners[index] != NULL:
                Py_INCREF(<object> owners[index])
        pthread_mutex_unlock(&self.lock)

    cdef list keep(self, PyObject **owners):
        """Turn the references of `take` into a list."""
        cdef unsigned int index
        kept = []
        for index in range(self.count):
            if owners[index] != NULL:
                kept.append(<object> owners[index])
                Py_DECREF(<object> owners[index])
        return kept

    def start(self, Kernel kernel not None, launch=None):
        """Start a run of `kernel` with these values; they may be changed as soon as this returns.

        Parameters
        ----------
        kernel : Kernel
        launch : tuple of three sequences of int, or None
            The index space in work-items, 1 to 3 numbers each: offset, size, work-group (empty: the kernel's own).
            ``None``: as the kernel was loaded.

        Raises
        ------
        ParameterError
            Count or type of an argument is not the kernel's.
        KernelError
            The kernel cannot run over this index space.
        UnsupportedByDriver
            The driver has no index spaces.
        """
        cdef capi.apf_launch space
        cdef const capi.apf_launch *over = read_launch(launch, &space)
        cdef capi.apf_error err
        cdef capi.apf_run_arg values[MOST]
        cdef PyObject *owners[MOST]
        cdef Run run = Run.__new__(Run, MADE_HERE)
        cdef int code
        self.take(values, owners)
        run.kernel = kernel
        run.owners = self.keep(owners)
        with nogil:
            code = capi.apf_run_start_over(kernel.handle, values, self.count, over, &run.handle, &err)
        check(code, &err)
        return run

    def run(self, Kernel kernel not None, launch=None, double seconds=0.05):
        """Start a run of `kernel` with these values and wait for its end, in one call without the interpreter's lock.

        Parameters
        ----------
        kernel, launch
            As for `start`.
        seconds : float
            How long to wait at most.

        Returns
        -------
        Run or None
            ``None``: it ended well, and the device says nothing more of it. Otherwise the run, which is still in flight
            or has `Run.details`.

        Raises
        ------
        RunCancelled, KernelError, DeviceLost, DriverError
            And what `start` raises.
        """
        cdef capi.apf_launch space
        cdef const capi.apf_launch *over = read_launch(launch, &space)
        cdef capi.apf_error err
        cdef capi.apf_run_arg values[MOST]
        cdef PyObject *owners[MOST]
        cdef capi.apf_run *handle = NULL
        cdef long long most = <long long> (seconds * 1e9)
        cdef unsigned int index
        cdef bint done = True
        cdef int code
        cdef Run run
        self.take(values, owners)
        with nogil:
            code = capi.apf_run_start_over(kernel.handle, values, self.count, over, &handle, &err)
            if code == capi.APF_OK:
                code = capi.apf_run_wait(handle, most, &err)
                done = code != capi.APF_TIMEOUT and capi.apf_run_details(handle) == NULL
                if done:
                    capi.apf_run_release(handle, 0)
        if not done:
            run = Run.__new__(Run, MADE_HERE)
            run.handle = handle
            run.kernel = kernel
            run.owners = self.keep(owners)
            return run
        for index in range(self.count):
            if owners[index] != NULL:
                Py_DECREF(<object> owners[index])
        check(code, &err)


cdef const capi.apf_launch *read_launch(object launch, capi.apf_launch *space) except? NULL:
    """The index space of `Arguments.start` in `space`; NULL for ``None``."""
    if launch is None:
        return NULL
    cdef unsigned int position
    offset, size, group = map(tuple, launch)  # as they are now: other threads may change lists
    if not 1 <= len(size) <= 3:
        raise exceptions.ParameterError(f"an index space of {len(size)} dimensions; expected 1 to 3")
    for what, given in (("offsets", offset), ("sizes of a work-group", group)):
        if given and len(given) != len(size):
            raise exceptions.ParameterError(
                f"an index space of {len(size)} dimensions with {len(given)} {what}; expected {len(size)}, or none"
            )
    memset(space, 0, sizeof(space[0]))
    space.dimensions = len(size)
    for position in range(space.dimensions):
        space.offset[position] = offset[position] if offset else 0
        space.global_[position] = size[position]
        space.local[position] = group[position] if group else 0
    return space


cdef class Steps:
    """Runs that are started one after another, each with arguments, a kernel and an index space of its own.

    Parameters
    ----------
    steps : sequence of (Arguments, Kernel, launch)
        As `Arguments.start` takes them. A step's arguments may be changed between runs.
    """

    cdef tuple arguments
    cdef tuple kernels
    cdef tuple over                # whether a step has an index space
    cdef capi.apf_launch *spaces
    cdef unsigned int count

    def __cinit__(self, steps):
        cdef unsigned int place
        self.count = len(steps)
        if self.count == 0:
            raise exceptions.ParameterError("no steps; expected one or more")
        self.spaces = <capi.apf_launch *> calloc(self.count, sizeof(capi.apf_launch))
        if self.spaces == NULL:
            raise MemoryError
        arguments, kernels, over = [], [], []
        for place in range(self.count):
            one, kernel, launch = steps[place]
            if not isinstance(one, Arguments) or not isinstance(kernel, Kernel):
                raise TypeError(f"step {place}: expected Arguments, a Kernel and an index space or None")
            over.append(read_launch(launch, &self.spaces[place]) != NULL)
            arguments.append(one)
            kernels.append(kernel)
        self.arguments, self.kernels, self.over = tuple(arguments), tuple(kernels), tuple(over)

    def __dealloc__(self):
        free(self.spaces)

    def start(self):
        """Start all runs, and return them as a list. If one cannot be started, those before it are cancelled.

        Raises
        ------
        ParameterError, KernelError, UnsupportedByDriver
            As `Arguments.start` does.
        """
        cdef capi.apf_error err
        cdef capi.apf_run_arg values[MOST]
        cdef PyObject *owners[MOST]
        cdef const capi.apf_launch *space
        cdef capi.apf_run *handle
        cdef Arguments arguments
        cdef Run run
        cdef unsigned int place, count
        cdef int code
        runs = []
        for place in range(self.count):
            arguments = <Arguments> self.arguments[place]
            run = Run.__new__(Run, MADE_HERE)
            run.kernel = <Kernel> self.kernels[place]
            count = arguments.count
            space = &self.spaces[place] if self.over[place] else NULL
            arguments.take(values, owners)
            run.owners = arguments.keep(owners)
            with nogil:
                code = capi.apf_run_start_over(run.kernel.handle, values, count, space, &handle, &err)
            check(code, &err)
            run.handle = handle
            runs.append(run)
        return runs

    def run(self, double seconds=0.05):
        """Start all runs, and wait for their ends.

        Parameters
        ----------
        seconds : float
            How long to wait for each at most.

        Returns
        -------
        list of Run or None
            ``None``: they ended well, and the device says nothing more of them. Otherwise the runs: one has failed, is
            still in flight, or has `Run.details`.
        """
        cdef capi.apf_error err
        cdef long long most = <long long> (seconds * 1e9)
        cdef capi.apf_run *handle
        cdef int code
        cdef bint quiet
        runs = self.start()
        for run in reversed(runs):  # the last one first: when it has ended, the others have
            handle = (<Run> run).handle
            with nogil:
                code = capi.apf_run_wait(handle, most, &err)
                quiet = code == capi.APF_OK and capi.apf_run_details(handle) == NULL
            if not quiet:
                return runs
        return None


cdef class Run:
    """A run in flight; made by `Arguments.start`. It holds all memory that the device may touch until it has ended.

    Dropping a run in flight cancels it and waits a bounded time; a run that does not end even then keeps its memory for
    good.
    """

    cdef capi.apf_run *handle
    cdef Kernel kernel
    cdef list owners      # buffer objects, for the memory of callers' that they keep
    cdef object __weakref__

    def __cinit__(self, key=None):
        if key is not MADE_HERE:
            raise TypeError("a Run is made by Arguments.start")

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
            raise exceptions.RunTimeout(
                f"a run of kernel {self.kernel.name!r} on {self.kernel.device.info['name']!r} did not end within "
                f"{timeout:g} s"
            )
        check(code, &err)

    def ended(self, timeout=0.0):
        """Wait up to `timeout` seconds (``None``: until it has ended), and return whether the run has ended.

        Raises
        ------
        RunCancelled, KernelError, DeviceLost, DriverError
            It has ended in an error.
        """
        cdef capi.apf_error err
        cdef int code
        if timeout is None or timeout > SLICE * 1e-9:
            try:
                self.wait(timeout)
            except exceptions.RunTimeout:
                return False
            return True
        cdef long long left = max(0, <long long> (timeout * 1e9))
        with nogil:
            code = capi.apf_run_wait(self.handle, left, &err)
        if code == capi.APF_TIMEOUT:
            return False
        check(code, &err)
        return True

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
    def details(self):
        """What the device says of the run once it has ended well: text of a JSON object, or ``None``."""
        cdef const char *text = capi.apf_run_details(self.handle)
        return None if text == NULL else text.decode("utf-8", "replace")

    @property
    def seconds(self):
        """How long the device worked, by its own clock; 0.0 where the driver does not measure."""
        cdef capi.apf_times times
        capi.apf_run_times(self.handle, &times)
        return (times.end - times.start) * 1e-9
