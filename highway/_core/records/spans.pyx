"""Spans of bytes anywhere in memory: checks records and copies them into the rows of arrays, without the GIL."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from highway._core cimport simd
from highway._core.pixels.windows cimport (
    check_places,
    check_sizes,
    hw_numbers,
    hw_numbers_are_there,
    hw_pixels,
    hw_window,
    hw_window_copy,
    hw_window_normalize,
    hw_window_work,
    numbers_of,
    real,
    window_at,
)


cdef extern from "crc32c.h" nogil:
    void hw_crc32c_begin()
    uint32_t hw_crc32c(int simd, uint32_t crc, const uint8_t *bytes, size_t size)


hw_crc32c_begin()

cdef enum:
    # Layout of a record, see highway/store/records.py.
    HEAD = 32
    UNCHECKED = 8  # bytes before those that the checksum covers
    ALIGNED = 16
    LENGTH = 8  # before a file
    IS_PLAIN = 0
    IS_RAGGED = 1
    IS_FILE = 2
    # Results of `check_records`.
    IS_SOUND = 0
    HAS_NO_MAGIC = 1
    HAS_WRONG_CHECKSUM = 2
    HAS_WRONG_NUMBER = 3
    HAS_WRONG_COLUMNS = 4
    HAS_WRONG_SIZE = 5
    # Columns of its output.
    STATUS = 0
    KEY = 1
    KEY_BYTES = 2
    ROWS = 3
    COLUMNS = 4

PLAIN = IS_PLAIN
RAGGED = IS_RAGGED
FILE = IS_FILE
SOUND = IS_SOUND
NO_MAGIC = HAS_NO_MAGIC
WRONG_CHECKSUM = HAS_WRONG_CHECKSUM
WRONG_NUMBER = HAS_WRONG_NUMBER
WRONG_COLUMNS = HAS_WRONG_COLUMNS
WRONG_SIZE = HAS_WRONG_SIZE
CHECKED = COLUMNS


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
            check_inside("parts", self, i, at[i], sizes[i])
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
            check_inside("texts", self, i, at[i], sizes[i])
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
        raise ValueError(f"spans.{what}: {size} bytes from {at} of {whole} of span {number}; expected what is there")
    return 0


def rows_of(const uint8_t[:, ::1] array not None, const int64_t[::1] indices not None):
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
            raise ValueError(f"spans.rows_of: row {indices[i]} of {array.shape[0]}")
        spans.data[i] = &array[indices[i], 0] if array.shape[1] else <const uint8_t *> b""
        spans.sizes[i] = <size_t> array.shape[1]
    return spans


def check_records(
    Spans spans not None,
    const int64_t[::1] numbers not None,
    bytes description,
    const int64_t[::1] sizes not None,
    const uint8_t[::1] kinds not None,
    int64_t[:, ::1] out not None,
):
    """Check records, and find the offsets of their columns.

    Parameters
    ----------
    spans : Spans of N
    numbers : int64 (N,)
    description : bytes or None
        The description of all records; None if unknown: then the bytes after it are not checked.
    sizes : int64 (C,)
        Bytes of each column, 0 or more; for a ragged column, of a row.
    kinds : uint8 (C,)
        PLAIN, RAGGED, or FILE: a length of eight bytes, then that many bytes (`sizes` is ignored).
    out : int64 (N, 4 + C)
        SOUND or the fault; offset and size of the key, -1 for none; the rows of the ragged columns; the offset of each
        column. With WRONG_NUMBER the record's number instead of the rows, with WRONG_SIZE the expected size; otherwise
        unset for a bad record.

    Raises
    ------
    ValueError
        Shapes disagree, or a span is missing.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t i, columns = sizes.shape[0]
    cdef const uint8_t *described = NULL
    cdef Py_ssize_t described_bytes = 0
    if numbers.shape[0] != spans.count or out.shape[0] != spans.count or out.shape[1] != COLUMNS + columns:
        raise ValueError(
            f"spans.check_records: {spans.count} spans, {numbers.shape[0]} numbers, room for {out.shape[0]} of "
            f"{out.shape[1]}"
        )
    if kinds.shape[0] != columns:
        raise ValueError(f"spans.check_records: {columns} sizes and {kinds.shape[0]} kinds")
    for i in range(columns):
        if sizes[i] < 0:
            raise ValueError(f"spans.check_records: a column of {sizes[i]} bytes")
    for i in range(spans.count):
        if spans.data[i] == NULL:
            raise ValueError(f"spans.check_records: span {i} is not there")
    if description is not None:
        described = <const uint8_t *> <const char *> description
        described_bytes = len(description)
    with nogil:
        for i in range(spans.count):
            out[i, STATUS] = check_record(
                variant, spans.data[i], <int64_t> spans.sizes[i], <uint64_t> numbers[i], described, described_bytes,
                sizes, kinds, &out[i, 0],
            )


cdef int check_record(
    int variant,
    const uint8_t *data,
    int64_t size,
    uint64_t number,
    const uint8_t *described,
    int64_t described_bytes,
    const int64_t[::1] sizes,
    const uint8_t[::1] kinds,
    int64_t *out,
) noexcept nogil:
    cdef Py_ssize_t column
    cdef int64_t at, rows, times, key_bytes
    cdef uint64_t length
    if size < HEAD or memcmp(data, b"HWR\x01", 4) != 0:
        return HAS_NO_MAGIC
    if hw_crc32c(variant, 0, data + UNCHECKED, <size_t> (size - UNCHECKED)) != word(data + 4):
        return HAS_WRONG_CHECKSUM
    out[ROWS] = <int64_t> (<uint64_t> word(data + 8) | <uint64_t> word(data + 12) << 32)
    if <uint64_t> out[ROWS] != number:
        return HAS_WRONG_NUMBER
    at = HEAD + <int64_t> word(data + 16)
    key_bytes = word(data + 20)
    rows = word(data + 24)
    if key_bytes == <int64_t> 0xffffffff:
        key_bytes = -1
    out[KEY] = at
    out[KEY_BYTES] = key_bytes
    out[ROWS] = rows
    if described == NULL:
        return IS_SOUND if at <= size else HAS_WRONG_COLUMNS
    if at - HEAD != described_bytes or at > size or memcmp(data + HEAD, described, <size_t> described_bytes) != 0:
        return HAS_WRONG_COLUMNS
    if key_bytes > 0:
        at += key_bytes
    for column in range(sizes.shape[0]):
        at += -at & (ALIGNED - 1)
        out[COLUMNS + column] = at
        if kinds[column] == IS_FILE:
            if at > size - LENGTH:
                out[ROWS] = at + LENGTH
                return HAS_WRONG_SIZE
            length = <uint64_t> word(data + at) | <uint64_t> word(data + at + 4) << 32
            at += LENGTH
            if length > <uint64_t> (size - at):
                out[ROWS] = at + <int64_t> min(length, <uint64_t> 1 << 62)
                return HAS_WRONG_SIZE
            at += <int64_t> length
            continue
        times = rows if kinds[column] == IS_RAGGED else 1
        # Stops adding up far beyond the end.
        if times and sizes[column] > ((<int64_t> 1 << 62) - at) // times:
            out[ROWS] = <int64_t> 1 << 62
            return HAS_WRONG_SIZE
        at += times * sizes[column]
    if at != size:
        out[ROWS] = at
        return HAS_WRONG_SIZE
    return IS_SOUND


cdef inline uint32_t word(const uint8_t *data) noexcept nogil:
    return <uint32_t> data[0] | <uint32_t> data[1] << 8 | <uint32_t> data[2] << 16 | <uint32_t> data[3] << 24


cdef int check_rows(
    str what, Spans spans, const int64_t[::1] at, int64_t size, const int64_t[::1] rows, Py_ssize_t room
) except -1:
    """Raise ValueError unless each span has `size` bytes from its offset on, and a row."""
    cdef Py_ssize_t i
    if at.shape[0] != spans.count or rows.shape[0] != spans.count:
        raise ValueError(f"spans.{what}: {spans.count} spans, {at.shape[0]} beginnings, {rows.shape[0]} rows")
    for i in range(spans.count):
        check_inside(what, spans, i, at[i], size)
        if not 0 <= rows[i] < room:
            raise ValueError(f"spans.{what}: row {rows[i]} of {room}; expected what is there")
    return 0


def place(
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
    check_rows("place", spans, at, out.shape[1], rows, out.shape[0])
    if not size:
        return
    with nogil:
        for i in range(spans.count):
            memcpy(&out[rows[i], 0], spans.data[i] + at[i], size)


cdef int describe(
    str what,
    Spans spans,
    const int64_t[::1] at,
    tuple shape,
    const int64_t[:, ::1] places,
    const uint8_t[::1] fill,
    const int64_t[::1] rows,
    Py_ssize_t room,
    Py_ssize_t height,
    Py_ssize_t width,
    Py_ssize_t channels,
    hw_pixels *picture,
) except -1:
    """Fill in `picture`, except its data; raise ValueError if an argument does not fit."""
    cdef Py_ssize_t limit = <Py_ssize_t> 1 << 31
    picture.height, picture.width, picture.size = shape
    check_sizes(f"spans.{what}", picture.height, picture.width, height, width)
    if min(shape) < 0 or channels != picture.size or channels > limit:
        raise ValueError(f"spans.{what}: images of {shape}, but out has {channels} channels")
    picture.row_stride = picture.width * picture.size
    if picture.row_stride and picture.height > (<int64_t> 1 << 62) // picture.row_stride:
        raise ValueError(f"spans.{what}: images of {shape}")
    check_rows(what, spans, at, picture.row_stride * picture.height, rows, room)
    return check_places(f"spans.{what}", places, fill, spans.count, channels)


def place_windows(
    Spans spans not None,
    const int64_t[::1] at not None,
    tuple shape not None,
    const int64_t[:, ::1] places not None,
    const uint8_t[::1] fill not None,
    uint8_t[:, :, :, ::1] out not None,
    const int64_t[::1] rows not None,
):
    """Copy a window of each image, as `geometry.windows` does.

    Parameters
    ----------
    spans : Spans of N
    at : int64 (N,)
        Offset of each image in its span.
    shape : (int, int, int)
        H, W and C of the images, which are uint8, C order.
    places : int64 (N, 4)
    fill : uint8 (C,)
        As for `geometry.windows`.
    out : uint8 (M, h, w, C), C order
    rows : int64 (N,)
        Target row of each image.

    Raises
    ------
    ValueError
        Shapes disagree, or bytes are missing.
    """
    cdef int variant = simd.level
    cdef hw_pixels picture
    cdef hw_window window
    cdef Py_ssize_t i, height = out.shape[1], width = out.shape[2]
    describe(
        "place_windows", spans, at, shape, places, fill, rows, out.shape[0], height, width, out.shape[3], &picture
    )
    if height == 0 or width == 0 or out.shape[3] == 0:
        return
    with nogil:
        for i in range(spans.count):
            picture.data = spans.data[i] + at[i]
            window = window_at(&places[i, 0], height, width, &fill[0])
            hw_window_copy(variant, &picture, &window, 0, height, &out[rows[i], 0, 0, 0])


def normalize_windows(
    Spans spans not None,
    const int64_t[::1] at not None,
    tuple shape not None,
    const int64_t[:, ::1] places not None,
    const uint8_t[::1] fill not None,
    const float[::1] scale not None,
    const float[::1] bias not None,
    bint planar,
    real[:, :, :, ::1] out not None,
    const int64_t[::1] rows not None,
):
    """Normalize a window of each image, as `values.normalize_windows` or, planar, `values.normalize_windows_planar`.

    Parameters
    ----------
    spans, at, shape, places, fill, rows
        As for `place_windows`.
    scale, bias : float32 (C,)
    planar : bool
    out : float32, or the bits of float16 as uint16, or of bfloat16 as int16
        (M, h, w, C), or planar (M, C, h, w), C order

    Raises
    ------
    ValueError
        Shapes disagree, or bytes are missing.
    MemoryError
        No memory for a row of a window.
    """
    cdef int variant = simd.level
    cdef hw_pixels picture
    cdef hw_window window
    cdef hw_numbers numbers
    cdef Py_ssize_t i, height = out.shape[2 if planar else 1], width = out.shape[3 if planar else 2]
    cdef Py_ssize_t channels = out.shape[1 if planar else 3]
    cdef uint8_t *work
    describe(
        "normalize_windows", spans, at, shape, places, fill, rows, out.shape[0], height, width, channels, &picture
    )
    if scale.shape[0] != channels or bias.shape[0] != channels:
        raise ValueError(
            f"spans.normalize_windows: scale of {scale.shape[0]} and bias of {bias.shape[0]} for {channels} channels"
        )
    if height == 0 or width == 0 or channels == 0:
        return
    numbers = numbers_of(scale, bias, out, planar)
    work = <uint8_t *> PyMem_RawMalloc(hw_window_work(width * channels))
    if work == NULL:
        raise MemoryError
    with nogil:
        for i in range(spans.count):
            picture.data = spans.data[i] + at[i]
            window = window_at(&places[i, 0], height, width, &fill[0])
            hw_window_normalize(variant, &picture, &window, &numbers, work, &out[rows[i], 0, 0, 0])
        hw_numbers_are_there(&numbers)
    PyMem_RawFree(work)
