"""A TLS session, for the modules that exchange data over it."""

from apyfal._core cimport capi


cdef class Context:
    cdef capi.apf_tls_context *handle


cdef class Session:
    cdef capi.apf_tls *handle
    cdef readonly object sock
    cdef object host
    cdef long long timeout
    cdef bint closed
    cdef int _claim(self) except -1
    cdef object _failed(self)
