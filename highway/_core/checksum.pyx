"""CRC-32C of bytes, and bytes into the rows of an array, without the GIL, for many at a time."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from highway._core cimport simd


cdef extern from "crc32c.h" nogil:
    void hw_crc32c_begin()
    uint32_t hw_crc32c(int simd, uint32_t crc, const uint8_t *bytes, size_t size)


cdef enum:
    GROUP = 64

hw_crc32c_begin()


def crc32c(const uint8_t[::1] data not None, uint32_t before):
    """Checksum of bytes (Castagnoli, RFC 3720).

    Parameters
    ----------
    data : bytes-like of uint8
    before : int
        Checksum of what comes before them; 0 where nothing does.

    Returns
    -------
    int
        0 to 2**32 - 1.
    """
    cdef int variant = simd.level
    cdef size_t size = data.shape[0]
    cdef uint32_t crc = before
    if size:
        with nogil:
            crc = hw_crc32c(variant, before, &data[0], size)
    return crc


def crc32c_of(tuple values not None, Py_ssize_t skipped, uint32_t[::1] out not None):
    """Checksum of each of some bytes, without their first ones.

    Parameters
    ----------
    values : tuple of bytes (N,)
    skipped : int
        How many of the first bytes of each do not count; all of them, where it has no more.
    out : uint32 (N,)

    Raises
    ------
    ValueError
        Something else.
    """
    cdef int variant = simd.level
    cdef const uint8_t *bytes_of[GROUP]
    cdef size_t sizes[GROUP]
    cdef Py_ssize_t count = len(values), first, last, i
    if out.shape[0] != count or skipped < 0:
        raise ValueError(f"checksum.crc32c_of: {count} values, room for {out.shape[0]}, {skipped} bytes skipped")
    for first in range(0, count, GROUP):
        last = min(first + GROUP, count)
        for i in range(first, last):
            begin(values[i], skipped, &bytes_of[i - first], &sizes[i - first])
        with nogil:
            for i in range(first, last):
                out[i] = hw_crc32c(variant, 0, bytes_of[i - first], sizes[i - first])


def place(
    tuple values not None,
    const int64_t[::1] at not None,
    uint8_t[:, ::1] out not None,
    const int64_t[::1] rows not None,
):
    """Copy bytes into rows of an array: as many as a row has, from value i, from number ``at[i]`` on, into ``rows[i]``.

    Parameters
    ----------
    values : tuple of bytes (N,)
    at, rows : int64 (N,)
    out : uint8 (M, K)

    Raises
    ------
    ValueError
        They are not all there, or the rows are not; nothing was copied.
    """
    cdef const uint8_t *bytes_of[GROUP]
    cdef size_t sizes[GROUP]
    cdef Py_ssize_t count = len(values), first, last, i
    cdef size_t size = out.shape[1]
    cdef int64_t begun
    if at.shape[0] != count or rows.shape[0] != count:
        raise ValueError(f"checksum.place: {count} values, {at.shape[0]} beginnings, {rows.shape[0]} rows")
    for i in range(count):
        begin(values[i], 0, &bytes_of[0], &sizes[0])
        begun = at[i]
        if begun < 0 or begun > <int64_t> sizes[0] or size > sizes[0] - begun or not 0 <= rows[i] < out.shape[0]:
            raise ValueError(
                f"checksum.place: {size} bytes from {at[i]} of {sizes[0]}, row {rows[i]} of {out.shape[0]}; "
                "expected what is there"
            )
    if not size:
        return
    for first in range(0, count, GROUP):
        last = min(first + GROUP, count)
        for i in range(first, last):
            begin(values[i], at[i], &bytes_of[i - first], &sizes[i - first])
        with nogil:
            for i in range(first, last):
                memcpy(&out[rows[i], 0], bytes_of[i - first], size)


cdef int begin(value, Py_ssize_t skipped, const uint8_t **bytes_of, size_t *size) except -1:
    """Where some bytes begin, behind the first ones, and how many are left."""
    if type(value) is not bytes:
        raise ValueError(f"checksum: a value is a {type(value).__name__}; expected bytes")
    cdef Py_ssize_t length = PyBytes_GET_SIZE(value)
    skipped = min(skipped, length)
    bytes_of[0] = <const uint8_t *> PyBytes_AS_STRING(value) + skipped
    size[0] = length - skipped
    return 0
