from apyfal._core.capi cimport apf_buffer

cdef class Buffer:
    cdef apf_buffer *handle
    cdef Py_ssize_t exports      # views given out and not released
    cdef bint address_given      # __array_interface__ was read: a view may exist that nobody counts
    cdef object __weakref__
    cdef int opened(self) except -1
    cdef int unused(self, str what) except -1

cdef Buffer wrap(apf_buffer *handle)
