"""CRC-32C of bytes, without the GIL."""

from libc.stdint cimport uint8_t, uint32_t

from highway._core cimport simd


cdef extern from "crc32c.h" nogil:
    void hw_crc32c_begin()
    uint32_t hw_crc32c(int simd, uint32_t crc, const uint8_t *bytes, size_t size)


hw_crc32c_begin()


def crc32c(const uint8_t[::1] data not None, uint32_t before):
    """Return the checksum of bytes (Castagnoli, RFC 3720).

    Parameters
    ----------
    data : bytes-like of uint8
    before : int
        Checksum of the preceding bytes; 0 if there are none.

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
