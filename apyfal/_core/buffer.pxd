from apyfal._core.capi cimport apf_buffer, apf_hold, apf_hold_info

cdef class Buffer:
    cdef apf_hold hold           # every state is in there, changed atomically: methods of any thread may meet
    cdef object __weakref__
    cdef int look(self, apf_hold_info *info) except -1
    cdef int view(self, apf_hold_info *info) except -1

cdef Buffer wrap(apf_buffer *handle)
