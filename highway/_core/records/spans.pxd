# Bytes anywhere in memory, shared by the kernels for records and for mapped tables.

from libc.stdint cimport uint8_t


cdef class Spans:
    cdef Py_ssize_t count
    cdef const uint8_t **data  # NULL if missing
    cdef size_t *sizes
    cdef list owners


cdef Spans new_spans(Py_ssize_t count)
