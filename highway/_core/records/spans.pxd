# Bytes anywhere in memory, shared by the kernels for records and for mapped tables.

from libc.stdint cimport int64_t, uint8_t


cdef class Spans:
    cdef Py_ssize_t count
    cdef const uint8_t **data  # NULL if missing
    cdef size_t *sizes
    cdef list owners


cdef Spans new_spans(Py_ssize_t count)
cdef int check_rows(
    str what, Spans spans, const int64_t[::1] at, int64_t size, const int64_t[::1] rows, Py_ssize_t room
) except -1
