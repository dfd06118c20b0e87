# Bytes that lie anywhere: what the kernels for records and for mapped tables share.

from libc.stdint cimport uint8_t


cdef class Spans:
    cdef Py_ssize_t count
    cdef const uint8_t **data  # NULL where there is none
    cdef size_t *sizes
    cdef list owners


cdef Spans new_spans(Py_ssize_t count)
