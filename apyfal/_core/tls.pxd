"""A TLS session, for the modules that exchange data over it."""

from apyfal._core cimport capi


cdef class Context:
    cdef capi.apf_tls_context *handle


cdef class Session:
    cdef capi.apf_tls *handle
    cdef readonly object sock
    cdef object host
    cdef long long timeout
    cdef int _claim(self) except -1
    cdef int _let_go(self) except -1
    cdef int _left(self) except -1
    cdef int _check_open(self) except -1
    cdef object _failed(self)
