"""Software models: Python functions as kernels of the emulator."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.ref cimport Py_DECREF, Py_INCREF

from apyfal._core cimport capi
from apyfal._core.errors cimport check


cdef class _DeviceView:
    """Device memory for the time of one call; knows whether a view of it was kept."""

    cdef void *data
    cdef Py_ssize_t nbytes
    cdef capi.apf_gate views   # closed when the call ends, whichever threads the model started

    def __getbuffer__(self, Py_buffer *view, int flags):
        if capi.apf_gate_enter(&self.views, False) != capi.APF_OK:
            raise BufferError("device memory is only there while the model runs")
        try:
            PyBuffer_FillInfo(view, self, self.data, self.nbytes, False, flags)
        except BaseException:
            capi.apf_gate_leave(&self.views)
            raise

    def __releasebuffer__(self, Py_buffer *view):
        capi.apf_gate_leave(&self.views)


cdef object argument(const capi.apf_model_arg *arg):
    cdef _DeviceView view
    if arg.kind == capi.APF_BUFFER:
        view = _DeviceView.__new__(_DeviceView)
        view.data = arg.data
        view.nbytes = arg.size
        return view
    if arg.kind == capi.APF_BYTES:
        return (<const char *> arg.data)[:arg.size]
    if arg.kind == capi.APF_F32:
        return arg.value.f
    if arg.kind == capi.APF_F64:
        return arg.value.d
    if arg.kind in (capi.APF_U8, capi.APF_U16, capi.APF_U32, capi.APF_U64):
        return arg.value.u
    return arg.value.i


cdef int call(void *context, const capi.apf_model_arg *args, unsigned int count, const volatile int *cancelled,
              capi.apf_error *err) noexcept with gil:
    """Run a Python model on the emulator's thread."""
    cdef _DeviceView view
    cdef str kept = None
    values = []
    try:
        values = [argument(&args[index]) for index in range(count)]
        (<object> context)(*values)
    except BaseException as error:
        message = f"{type(error).__name__}: {error}".encode()
        error.__traceback__ = None  # its frames hold views
        return capi.apf_fail(err, capi.APF_KERNEL, 0, "%s", <const char *> message)
    finally:
        for index, value in enumerate(values):
            if isinstance(value, _DeviceView):
                view = value
                if capi.apf_gate_close(&view.views):
                    kept = f"argument {index}"
    if kept is not None:
        message = f"the model kept a view of device memory ({kept}) after it returned".encode()
        return capi.apf_fail(err, capi.APF_KERNEL, 0, "%s", <const char *> message)
    return 0


cdef void drop(void *context) noexcept with gil:
    Py_DECREF(<object> context)


def register_model(str name not None, function):
    """Make `function` a kernel of the emulator under `name`, or replace the one of that name.

    It is called with the kernel's arguments in order, on a thread of the emulator: buffers as objects with the buffer
    protocol (device memory, writable, gone when the call ends), scalars as numbers, structs and vectors as bytes.
    """
    cdef capi.apf_error err
    cdef int code
    encoded = name.encode()
    cdef const char *raw = encoded
    if not callable(function):
        raise TypeError(f"model {name!r} is {function!r}; expected a function")
    Py_INCREF(function)
    cdef void *context = <void *> function
    with nogil:
        code = capi.apf_model_register(raw, call, context, drop, &err)
    if code != capi.APF_OK:
        Py_DECREF(function)
    check(code, &err)
