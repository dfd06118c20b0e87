"""The layout of the records of a store, as highway/store/records.py describes it, and checks without the GIL."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from highway._core cimport simd
from highway._core.records.spans cimport Spans


cdef extern from "crc32c.h" nogil:
    void hw_crc32c_begin()
    uint32_t hw_crc32c(int simd, uint32_t crc, const uint8_t *bytes, size_t size)


hw_crc32c_begin()

cdef enum:
    HEADER = 32
    BEFORE_CHECKED = 8  # the magic bytes and the checksum
    ALIGNED = 16
    LENGTH = 8
    # Bits of the kind of a column.
    IS_EXTRA = 1
    IS_RAGGED = 2
    IS_ENCODED = 4
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

# Bytes of the key of a record without one; no enum, which would make it negative.
cdef int64_t HAS_NO_KEY = 0xffffffff
cdef const char *MAGIC_BYTES = b"HWR\x01"

MAGIC = <bytes> MAGIC_BYTES
HEADER_BYTES = HEADER
NO_KEY = HAS_NO_KEY
ALIGNMENT = ALIGNED
LENGTH_BYTES = LENGTH
EXTRA = IS_EXTRA
RAGGED = IS_RAGGED
ENCODED = IS_ENCODED
SOUND = IS_SOUND
NO_MAGIC = HAS_NO_MAGIC
WRONG_CHECKSUM = HAS_WRONG_CHECKSUM
WRONG_NUMBER = HAS_WRONG_NUMBER
WRONG_COLUMNS = HAS_WRONG_COLUMNS
WRONG_SIZE = HAS_WRONG_SIZE
CHECKED = COLUMNS


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
        As in the description. ENCODED: a length of eight bytes, then that many bytes (`sizes` is ignored).
    out : int64 (N, CHECKED + C)
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
            f"layout.check_records: {spans.count} spans, {numbers.shape[0]} numbers, room for {out.shape[0]} of "
            f"{out.shape[1]}"
        )
    if kinds.shape[0] != columns:
        raise ValueError(f"layout.check_records: {columns} sizes and {kinds.shape[0]} kinds")
    for i in range(columns):
        if sizes[i] < 0:
            raise ValueError(f"layout.check_records: a column of {sizes[i]} bytes")
    for i in range(spans.count):
        if spans.data[i] == NULL:
            raise ValueError(f"layout.check_records: span {i} is missing")
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
    if size < HEADER or memcmp(data, MAGIC_BYTES, 4) != 0:
        return HAS_NO_MAGIC
    if hw_crc32c(variant, 0, data + BEFORE_CHECKED, <size_t> (size - BEFORE_CHECKED)) != word(data + 4):
        return HAS_WRONG_CHECKSUM
    out[ROWS] = <int64_t> (<uint64_t> word(data + 8) | <uint64_t> word(data + 12) << 32)
    if <uint64_t> out[ROWS] != number:
        return HAS_WRONG_NUMBER
    at = HEADER + <int64_t> word(data + 16)
    key_bytes = word(data + 20)
    rows = word(data + 24)
    if key_bytes == HAS_NO_KEY:
        key_bytes = -1
    out[KEY] = at
    out[KEY_BYTES] = key_bytes
    out[ROWS] = rows
    if described == NULL:
        return IS_SOUND if at <= size else HAS_WRONG_COLUMNS
    if at - HEADER != described_bytes or at > size or memcmp(data + HEADER, described, <size_t> described_bytes) != 0:
        return HAS_WRONG_COLUMNS
    if key_bytes > 0:
        at += key_bytes
    for column in range(sizes.shape[0]):
        at += -at & (ALIGNED - 1)
        out[COLUMNS + column] = at
        if kinds[column] & IS_ENCODED:
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
        times = rows if kinds[column] & IS_RAGGED else 1
        # Far beyond any record, so that no sum overflows.
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
