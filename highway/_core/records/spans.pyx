"""Spans of bytes anywhere in memory, and copies of them into the rows of arrays, without the GIL."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy


cdef class Span:
    """A span of bytes and its owner."""

    cdef const uint8_t *data
    cdef Py_ssize_t size
    cdef object owners

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void *> self.data, self.size, True, flags)


cdef class Spans:
    """A sequence of spans of bytes anywhere in memory, without copies.

    Parameters
    ----------
    values : sequence of bytes-like or None
        Read-only; None: missing.

    Raises
    ------
    ValueError
        A value is writable.
    """

    def __cinit__(self, values=()):
        cdef Py_ssize_t i
        self.owners = []
        make_room(self, len(values))
        for i, value in enumerate(values):
            if value is not None:
                self.put(i, value)

    def __dealloc__(self):
        PyMem_RawFree(self.data)
        PyMem_RawFree(self.sizes)

    def __len__(self):
        return self.count

    def __getitem__(self, Py_ssize_t number):
        """Return one span as a read-only memoryview that keeps its owner alive, or None if it is missing."""
        cdef Span span
        if not 0 <= number < self.count:
            raise IndexError(f"spans.Spans: number {number} of {self.count}")
        if self.data[number] == NULL:
            return None
        span = Span()
        span.data, span.size, span.owners = self.data[number], <Py_ssize_t> self.sizes[number], self.owners
        return memoryview(span)

    def put(self, Py_ssize_t number, value):
        """Set a span that is missing."""
        if not 0 <= number < self.count or self.data[number] != NULL:
            raise ValueError(f"spans.Spans: number {number} of {self.count} is not free")
        view = memoryview(value).cast("B")
        cdef Py_buffer *buffer = PyMemoryView_GET_BUFFER(view)
        if not buffer.readonly or not view.c_contiguous:
            raise ValueError("spans.Spans: bytes that can be written to; expected read-only ones")
        self.owners.append(view)
        # A span of 0 bytes may have no address.
        self.data[number] = <const uint8_t *> buffer.buf if buffer.len else <const uint8_t *> b""
        self.sizes[number] = <size_t> buffer.len

    def missing(self):
        """Return the indices of the missing spans."""
        return [i for i in range(self.count) if self.data[i] == NULL]

    def take(self, const int64_t[::1] numbers not None):
        """Return the selected spans."""
        cdef Py_ssize_t i
        cdef Spans taken = new_spans(numbers.shape[0])
        taken.owners.append(self)
        for i in range(taken.count):
            if not 0 <= numbers[i] < self.count:
                raise IndexError(f"spans.Spans: number {numbers[i]} of {self.count}")
            taken.data[i] = self.data[numbers[i]]
            taken.sizes[i] = self.sizes[numbers[i]]
        return taken

    def parts(self, const int64_t[::1] at not None, const int64_t[::1] sizes not None):
        """Return ``sizes[i]`` bytes of each span from offset ``at[i]`` on, as read-only memoryviews that keep their
        owner alive.

        Raises
        ------
        ValueError
            Bytes are missing.
        """
        cdef Py_ssize_t i
        cdef Span span
        if at.shape[0] != self.count or sizes.shape[0] != self.count:
            raise ValueError(f"spans.parts: {self.count} spans, {at.shape[0]} beginnings, {sizes.shape[0]} sizes")
        found = []
        for i in range(self.count):
            check_inside("spans.parts", self, i, at[i], sizes[i])
            span = Span()
            span.data, span.size, span.owners = self.data[i] + at[i], sizes[i], self.owners
            found.append(memoryview(span))
        return found

    def texts(self, const int64_t[::1] at not None, const int64_t[::1] sizes not None):
        """Return a copy of ``sizes[i]`` bytes of each span from offset ``at[i]`` on.

        Raises
        ------
        ValueError
            Bytes are missing.
        """
        cdef Py_ssize_t i
        if at.shape[0] != self.count or sizes.shape[0] != self.count:
            raise ValueError(f"spans.texts: {self.count} spans, {at.shape[0]} beginnings, {sizes.shape[0]} sizes")
        for i in range(self.count):
            check_inside("spans.texts", self, i, at[i], sizes[i])
        return [PyBytes_FromStringAndSize(<const char *> self.data[i] + at[i], sizes[i]) for i in range(self.count)]


cdef Spans new_spans(Py_ssize_t count):
    cdef Spans spans = Spans.__new__(Spans)
    make_room(spans, count)
    return spans


cdef int make_room(Spans spans, Py_ssize_t count) except -1:
    PyMem_RawFree(spans.data)
    PyMem_RawFree(spans.sizes)
    spans.data = <const uint8_t **> PyMem_RawCalloc(max(count, 1), sizeof(uint8_t *))
    spans.sizes = <size_t *> PyMem_RawCalloc(max(count, 1), sizeof(size_t))
    if spans.data == NULL or spans.sizes == NULL:
        raise MemoryError
    spans.count = count
    return 0


cdef int check_inside(str what, Spans spans, Py_ssize_t number, int64_t at, int64_t size) except -1:
    """Raise ValueError unless a span exists and has `size` bytes from offset `at` on."""
    cdef int64_t whole = <int64_t> spans.sizes[number]
    if spans.data[number] == NULL or at < 0 or size < 0 or at > whole or size > whole - at:
        raise ValueError(f"{what}: {size} bytes from {at} of {whole} of span {number}; expected bytes of the span")
    return 0


def spans_of_rows(const uint8_t[:, ::1] array not None, const int64_t[::1] indices not None):
    """Return rows of an array as spans.

    Parameters
    ----------
    array : uint8 (M, K)
        Must not change.
    indices : int64 (N,)

    Returns
    -------
    Spans

    Raises
    ------
    ValueError
        There is no such row.
    """
    cdef Py_ssize_t i
    cdef Spans spans = new_spans(indices.shape[0])
    spans.owners.append(array)
    for i in range(spans.count):
        if not 0 <= indices[i] < array.shape[0]:
            raise ValueError(f"spans.spans_of_rows: row {indices[i]} of {array.shape[0]}")
        spans.data[i] = &array[indices[i], 0] if array.shape[1] else <const uint8_t *> b""
        spans.sizes[i] = <size_t> array.shape[1]
    return spans


cdef int check_rows(
    str what, Spans spans, const int64_t[::1] at, int64_t size, const int64_t[::1] rows, Py_ssize_t room
) except -1:
    """Raise ValueError unless each span has `size` bytes from its offset on, and a row."""
    cdef Py_ssize_t i
    if at.shape[0] != spans.count or rows.shape[0] != spans.count:
        raise ValueError(f"{what}: {spans.count} spans, {at.shape[0]} beginnings, {rows.shape[0]} rows")
    for i in range(spans.count):
        check_inside(what, spans, i, at[i], size)
        if not 0 <= rows[i] < room:
            raise ValueError(f"{what}: row {rows[i]} of {room}; expected a row of out")
    return 0


def copy_rows(
    Spans spans not None,
    const int64_t[::1] at not None,
    uint8_t[:, ::1] out not None,
    const int64_t[::1] rows not None,
):
    """Copy bytes into rows of an array: the bytes of a row from span i, offset ``at[i]`` on, into ``rows[i]``.

    Parameters
    ----------
    spans : Spans of N
    at, rows : int64 (N,)
    out : uint8 (M, K)

    Raises
    ------
    ValueError
        Bytes or rows are missing; nothing was copied.
    """
    cdef Py_ssize_t i
    cdef size_t size = out.shape[1]
    check_rows("spans.copy_rows", spans, at, out.shape[1], rows, out.shape[0])
    if not size:
        return
    with nogil:
        for i in range(spans.count):
            memcpy(&out[rows[i], 0], spans.data[i] + at[i], size)
