from cpython.buffer cimport Py_buffer
from apyfal._core.capi cimport apf_bo, apf_device, apf_kernel

cdef class Device:
    cdef apf_device *handle
    cdef object __weakref__

cdef class Kernel:
    cdef apf_kernel *handle
    cdef readonly Device device
    cdef readonly str name

cdef class BufferObject:
    cdef apf_bo *handle
    cdef readonly Device device
    # Memory of the caller's that the device may touch: kept until this object goes, and that until its runs ended.
    cdef Py_buffer view
    cdef bint viewed
