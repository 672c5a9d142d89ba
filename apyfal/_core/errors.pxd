from apyfal._core.capi cimport apf_error

cdef int check(int code, const apf_error *err) except -1
