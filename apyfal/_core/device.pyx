"""Devices, the kernels and buffer objects on them, and the drivers there are."""

from cpython.buffer cimport PyBUF_ANY_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from apyfal._core cimport capi
from apyfal._core.errors cimport check
from apyfal import exceptions

TO_DEVICE = capi.APF_TO_DEVICE
FROM_DEVICE = capi.APF_FROM_DEVICE

CAPABILITIES = {
    "import": capi.APF_CAP_IMPORT,
    "import-read-only": capi.APF_CAP_IMPORT_READONLY,
    "offset": capi.APF_CAP_OFFSET,
    "cancel": capi.APF_CAP_CANCEL,
    "counters": capi.APF_CAP_COUNTERS,
    "duplex": capi.APF_CAP_DUPLEX,
    "separate-memory": capi.APF_CAP_SEPARATE_MEMORY,
    "shared-memory": capi.APF_CAP_SHARED_MEMORY,
    "structs": capi.APF_CAP_STRUCTS,
}

# What is made by other objects alone is made with it: no object of theirs is without its handle.
cdef object MADE_HERE = object()


cdef bytes encoded(what, value):
    """Return text in UTF-8 for drivers. They read up to the first NUL, so a text with a NUL is an error."""
    text = str(value)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise exceptions.ParameterError(f"{what} {text!r} holds a lone surrogate; expected text") from None
    if b"\0" in raw:
        raise exceptions.ParameterError(f"{what} {text!r} holds a NUL; expected text without it")
    return raw


cdef class _Options:
    """A NULL-terminated list of options, with the bytes that it points to."""

    cdef capi.apf_option *list
    cdef list kept

    def __cinit__(self, options):
        self.kept = [
            (encoded("option", key), encoded(f"option {key} =", value)) for key, value in (options or {}).items()
        ]
        self.list = <capi.apf_option *> calloc(len(self.kept) + 1, sizeof(capi.apf_option))
        if self.list == NULL:
            raise MemoryError
        for index, (key, value) in enumerate(self.kept):
            self.list[index].key = <const char *> (<bytes> key)
            self.list[index].value = <const char *> (<bytes> value)

    def __dealloc__(self):
        free(self.list)


cdef str text(const char *value):
    return value.decode("utf-8", "replace")


cdef dict describe(const capi.apf_device_info *info):
    return {
        "name": text(info.name),
        "vendor": text(info.vendor),
        "identity": text(info.identity),
        "version": text(info.version),
        "memory": info.memory,
        "max_buffer": info.max_buffer,
        "import_align": info.import_align,
        "size_align": info.size_align,
        "offset_align": info.offset_align,
        "compute_units": info.compute_units,
        "capabilities": frozenset(name for name, bit in CAPABILITIES.items() if info.capabilities & bit),
    }


cdef const capi.apf_driver *find(str name) except NULL:
    raw = encoded("driver", name)
    cdef const capi.apf_driver *driver = capi.apf_driver_find(raw)
    if driver == NULL:
        raise exceptions.ConfigurationError(f"unknown driver {name!r}" + exceptions.did_you_mean(name, drivers()))
    return driver


def drivers():
    """The drivers there are: name to a one-line summary. None of them has been tried."""
    cdef const capi.apf_driver *driver
    found = {}
    index = 0
    while True:
        driver = capi.apf_driver_at(index)
        if driver == NULL:
            return found
        found[text(driver.name)] = text(driver.summary)
        index += 1


def load_driver(path):
    """Load a third party's driver from a shared library; returns its name.

    Raises
    ------
    DriverUnavailable, UnsupportedByDriver, ParameterError
    """
    cdef capi.apf_error err
    cdef const capi.apf_driver *driver = NULL
    name = encoded("driver", path)
    cdef const char *raw = name
    cdef int code
    with nogil:
        code = capi.apf_driver_load(raw, &driver, &err)
    check(code, &err)
    return text(driver.name)


def list_devices(str driver not None, options=None):
    """Describe the devices of a driver.

    Returns
    -------
    list of dict
        One for each device: name, vendor, identity, version, memory, max_buffer, import_align, size_align, offset_align
        (bytes), compute_units, capabilities.

    Raises
    ------
    ConfigurationError
        There is no such driver.
    DriverUnavailable
        Its vendor library is not usable.
    """
    cdef const capi.apf_driver *found = find(driver)
    cdef capi.apf_error err
    cdef capi.apf_device_info infos[64]
    cdef unsigned int count = 0
    cdef _Options raw = _Options(options)
    cdef int code
    memset(infos, 0, sizeof(infos))
    with nogil:
        code = found.list(raw.list, infos, 64, &count, &err)
    check(code, &err)
    return [describe(&infos[index]) for index in range(min(count, 64))]


cdef class Device:
    """One open device. Usable from any thread; a forked child gets `ForkedProcess`.

    Parameters
    ----------
    driver : str
        A name in `drivers`.
    selector : str or None
        An index, or a part of a device's name or identity; ``None``: the first.
    options : mapping
        The driver's own options.

    Raises
    ------
    ConfigurationError, DriverUnavailable, DeviceNotFound, AccessDenied, ParameterError
    """

    def __cinit__(self, str driver not None, selector=None, options=None):
        cdef const capi.apf_driver *found = find(driver)
        cdef capi.apf_error err
        cdef _Options raw = _Options(options)
        wanted = None if selector is None else encoded("device", selector)
        cdef const char *chosen = NULL
        if wanted is not None:
            chosen = <const char *> (<bytes> wanted)
        cdef int code
        with nogil:
            code = capi.apf_device_open(found, chosen, raw.list, &self.handle, &err)
        check(code, &err)

    def __dealloc__(self):
        cdef capi.apf_device *handle = self.handle
        if handle != NULL:
            self.handle = NULL
            with nogil:
                capi.apf_device_release(handle)

    def close(self):
        """End all that lives on the device, and close it; closing twice is fine.

        Raises
        ------
        BufferInUse
            Runs are in flight.
        """
        cdef capi.apf_error err
        cdef int code
        with nogil:
            code = capi.apf_device_close(self.handle, &err)
        check(code, &err)

    @property
    def driver(self):
        """Name of the driver."""
        return text(capi.apf_device_driver(self.handle).name)

    @property
    def info(self):
        """What the driver says of the device, as in `list_devices`."""
        return describe(capi.apf_device_info_of(self.handle))

    @property
    def transfers(self):
        """Whether device memory of `alloc` can be moved from and to any host memory: `BufferObject.transfer`."""
        return bool(capi.apf_device_transfers(self.handle))

    def counters(self):
        """Bytes to and from the device, runs, and device memory in use, since it was opened."""
        cdef capi.apf_error err
        cdef capi.apf_counters counters
        cdef int code
        with nogil:
            code = capi.apf_device_counters(self.handle, &counters, &err)
        check(code, &err)
        return {
            "to_device": counters.to_device,
            "from_device": counters.from_device,
            "runs": counters.runs,
            "memory_used": counters.memory_used,
        }

    def control(self, key, value):
        """Change a setting of the open device (see the driver's documentation)."""
        cdef capi.apf_error err
        raw_key, raw_value = encoded("setting", key), encoded(f"setting {key} =", value)
        cdef const char *c_key = raw_key
        cdef const char *c_value = raw_value
        cdef int code
        with nogil:
            code = capi.apf_device_control(self.handle, c_key, c_value, &err)
        check(code, &err)

    def load(self, str kernel not None, program=None, str name="", str options="", str arguments=""):
        """Load a program and open its kernel.

        Parameters
        ----------
        kernel : str
            The kernel's name in the program.
        program : bytes-like or None
            Source or binary, by driver; ``None`` where the driver needs none.
        name : str
            Where the program came from, for messages.
        options : str
            Build options for source.
        arguments : str
            The definition's argument names in order, separated by commas.

        Raises
        ------
        ProgramError
            With the build log, or the kernels there are.
        """
        cdef capi.apf_error err
        cdef capi.apf_program raw
        cdef Py_buffer view
        cdef Kernel loaded = Kernel.__new__(Kernel, MADE_HERE)
        texts = [
            encoded("the name of the program", name),
            encoded("kernel", kernel),
            encoded("build options", options),
            encoded("the arguments", arguments),
        ]
        memset(&raw, 0, sizeof(raw))
        raw.name, raw.kernel, raw.options, raw.arguments = texts[0], texts[1], texts[2], texts[3]
        cdef int code
        if program is not None:
            PyObject_GetBuffer(program, &view, PyBUF_ANY_CONTIGUOUS)
            raw.data, raw.size = view.buf, view.len
        with nogil:
            code = capi.apf_kernel_load(self.handle, &raw, &loaded.handle, &err)
        if program is not None:
            PyBuffer_Release(&view)
        check(code, &err)
        loaded.device = self
        loaded.name = kernel
        return loaded

    def interface(self, program not None, str name="", str options=""):
        """What a program declares, as the driver's JSON text: see ``interface`` in driver.h.

        Parameters
        ----------
        program, name, options
            As for `load`.

        Raises
        ------
        ProgramError, UnsupportedByDriver
        """
        cdef capi.apf_error err
        cdef capi.apf_program raw
        cdef Py_buffer view
        cdef size_t size = 1 << 18
        texts = [encoded("the name of the program", name), encoded("build options", options)]
        cdef bytearray kept = bytearray(size)
        cdef char *out = kept
        memset(&raw, 0, sizeof(raw))
        raw.name, raw.options = texts[0], texts[1]
        cdef int code
        PyObject_GetBuffer(program, &view, PyBUF_ANY_CONTIGUOUS)
        raw.data, raw.size = view.buf, view.len
        with nogil:
            code = capi.apf_device_interface(self.handle, &raw, out, size, &err)
        PyBuffer_Release(&view)
        check(code, &err)
        return kept.partition(b"\0")[0].decode("utf-8", "replace")

    def alloc(self, nbytes, bank=0):
        """Device memory with no host side, as a `BufferObject`.

        Raises
        ------
        DeviceMemoryExhausted
        """
        cdef capi.apf_error err
        cdef BufferObject bo = BufferObject.__new__(BufferObject, MADE_HERE)
        cdef unsigned long long size = nbytes
        cdef unsigned int where = bank
        cdef int code
        with nogil:
            code = capi.apf_bo_alloc(self.handle, size, where, &bo.handle, &err)
        check(code, &err)
        bo.device = self
        return bo

    def import_memory(self, data, bint writable=True, bank=0):
        """Use host memory in place.

        Parameters
        ----------
        data : object with the buffer protocol
            Contiguous. Memory of the pool and of mapped files is pinned once and stays so; any other is pinned for as
            long as the result lives, and kept alive by it.
        writable : bool
            Whether the device may write there; ``False`` accepts read-only memory where the driver does.
        bank : int
            The memory bank, from `Kernel.bank`.

        Returns
        -------
        (BufferObject, int)
            And the offset of `data` in it, in bytes.

        Raises
        ------
        Misaligned, ReadOnly, DeviceMemoryExhausted
        """
        cdef capi.apf_error err
        cdef capi.apf_buffer *buffer
        cdef BufferObject bo = BufferObject.__new__(BufferObject, MADE_HERE)
        cdef unsigned int where = bank
        cdef int code
        PyObject_GetBuffer(data, &bo.view, PyBUF_ANY_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0))
        bo.viewed = True
        bo.device = self
        buffer = capi.apf_buffer_find(bo.view.buf, bo.view.len)
        if buffer == NULL:
            check(capi.apf_buffer_wrap(bo.view.buf, bo.view.len, bo.view.readonly, &buffer, &err), &err)
        cdef size_t offset = <size_t> bo.view.buf - <size_t> capi.apf_buffer_data(buffer)
        with nogil:
            code = capi.apf_bo_import(self.handle, buffer, where, &bo.handle, &err)
            capi.apf_buffer_release(buffer)
        check(code, &err)
        return bo, offset


cdef class Kernel:
    """One kernel of a loaded program; made by `Device.load`."""

    def __cinit__(self, key=None):
        if key is not MADE_HERE:
            raise TypeError("a Kernel is made by Device.load")

    def __dealloc__(self):
        cdef capi.apf_kernel *handle = self.handle
        if handle != NULL:
            self.handle = NULL
            with nogil:
                capi.apf_kernel_release(handle)

    def may_write(self, index):
        """Return whether the kernel's source lets it write to buffer argument `index`; False where nobody tells."""
        cdef unsigned int argument = index
        cdef int may
        with nogil:
            may = capi.apf_kernel_may_write(self.handle, argument)
        return bool(may)

    def bank(self, index):
        """Return the memory bank that buffer argument `index` must be in."""
        cdef capi.apf_error err
        cdef unsigned int bank = 0
        cdef unsigned int argument = index
        cdef int code
        with nogil:
            code = capi.apf_kernel_bank(self.handle, argument, &bank, &err)
        check(code, &err)
        return bank


cdef class BufferObject:
    """Memory on a device, with or without a host side; made by `Device.alloc` and `Device.import_memory`."""

    def __cinit__(self, key=None):
        if key is not MADE_HERE:
            raise TypeError("a BufferObject is made by Device.alloc and Device.import_memory")

    def __dealloc__(self):
        cdef capi.apf_bo *handle = self.handle
        if handle != NULL:
            self.handle = NULL
            with nogil:
                capi.apf_bo_release(handle)
        if self.viewed:
            PyBuffer_Release(&self.view)

    @property
    def nbytes(self):
        """Size in bytes; that of the whole imported block where the memory is the pool's."""
        return capi.apf_bo_size(self.handle)

    @property
    def address(self):
        """Where the host side begins; ``None`` for device memory."""
        cdef void *data = capi.apf_bo_host(self.handle)
        return None if data == NULL else <size_t> data

    def sync(self, direction, offset=0, nbytes=None):
        """Move bytes between the two sides, `TO_DEVICE` or `FROM_DEVICE`; returns when they are there."""
        cdef capi.apf_error err
        cdef int way = direction
        cdef unsigned long long start = offset
        cdef unsigned long long size = capi.apf_bo_size(self.handle) - start if nbytes is None else nbytes
        cdef int code
        with nogil:
            code = capi.apf_bo_sync(self.handle, way, start, size, &err)
        check(code, &err)

    def transfer(self, direction, data, offset=0, nbytes=None):
        """Move bytes between device memory, which has no host side, and host memory; returns when they are there.

        Parameters
        ----------
        direction : int
            `TO_DEVICE` or `FROM_DEVICE`.
        data : object with the buffer protocol, or None
            Contiguous and writable host memory, whose bytes all move; ``None``: `nbytes` zeros to the device.
        offset : int
            Where they begin in the device memory.
        nbytes : int or None
            Number of zeros.

        Raises
        ------
        UnsupportedByDriver
            Not with this driver: see `Device.transfers`.
        ParameterError
            It has a host side, or less room.
        """
        cdef capi.apf_error err
        cdef Py_buffer view
        cdef int way = direction
        cdef unsigned long long start = offset
        cdef unsigned long long size = 0
        cdef void *memory = NULL
        cdef int code
        if data is not None:
            PyObject_GetBuffer(data, &view, PyBUF_ANY_CONTIGUOUS | PyBUF_WRITABLE)
            memory, size = view.buf, view.len
        else:
            size = nbytes
        with nogil:
            code = capi.apf_bo_transfer(self.handle, way, start, memory, size, &err)
        if data is not None:
            PyBuffer_Release(&view)
        check(code, &err)
