"""Copies of scattered rows of one array, and of windows of adjacent rows, without the GIL unless they are small."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #define highway_prefetch(address) __builtin_prefetch((address), 0, 2)
    """
    void highway_prefetch(const void *address) noexcept nogil

cdef enum:
    LINE = 64
    # Bytes that are on their way from memory while others are copied: a row at a time would wait for each.
    AHEAD = 2048
    # Lines of one row: those after them are adjacent, and the processor fetches them by itself.
    MOST_LINES = 16
    # Copies of fewer bytes keep the GIL: to release it and to take it again costs more, where others wait for it.
    KEPT = 16384

# How `gather` copies: runs of `run` rows of `size` bytes, `step` bytes apart, and how many rows and lines ahead it
# prefetches.
cdef struct Copies:
    const uint8_t *base
    int64_t step
    Py_ssize_t size
    Py_ssize_t run
    bint adjacent
    Py_ssize_t ahead
    Py_ssize_t lines

ctypedef fused item:
    uint8_t
    uint16_t
    uint32_t
    uint64_t


cdef void copy_bytes(uint8_t *to, const uint8_t *source, size_t size) noexcept nogil:
    """Copy bytes; a copy of a known size is a few instructions."""
    if size == 8:
        memcpy(to, source, 8)
    elif size == 4:
        memcpy(to, source, 4)
    elif size == 1:
        to[0] = source[0]
    elif size == 2:
        memcpy(to, source, 2)
    elif size == 16:
        memcpy(to, source, 16)
    else:
        memcpy(to, source, size)


cdef int check_firsts(
    str what, const int64_t[::1] firsts, int64_t lowest, int64_t highest, Py_ssize_t count
) except -1:
    """Raise ValueError unless rows ``first + lowest`` to ``first + highest`` are among `count` for each first row."""
    cdef Py_ssize_t i
    if lowest < 0 or highest >= count:
        raise ValueError(f"{what}: rows {lowest} to {highest} of {count}")
    for i in range(firsts.shape[0]):
        if not 0 <= firsts[i] < count - highest:
            raise ValueError(f"{what}: rows from {firsts[i]} on, to {highest} after it, of {count}")
    return 0


cdef void copy_rows(
    Copies how,
    const int64_t *firsts,
    Py_ssize_t count,
    const int64_t *parts,
    Py_ssize_t part_count,
    uint8_t *to,
) noexcept nogil:
    cdef Py_ssize_t i, j, r
    cdef const uint8_t *source
    for i in range(min(how.ahead, count)):
        source = how.base + (firsts[i] + parts[0]) * how.step
        for j in range(how.lines):
            highway_prefetch(source + j * LINE)
    for i in range(count):
        if i + how.ahead < count:
            source = how.base + (firsts[i + how.ahead] + parts[0]) * how.step
            for j in range(how.lines):
                highway_prefetch(source + j * LINE)
        for j in range(part_count):
            source = how.base + (firsts[i] + parts[j]) * how.step
            if how.adjacent:
                copy_bytes(to, source, <size_t> (how.size * how.run))
                to += how.size * how.run
            else:
                for r in range(how.run):
                    copy_bytes(to, source + r * how.step, <size_t> how.size)
                    to += how.size


def gather(
    const uint8_t[:, :] rows not None,
    const int64_t[::1] firsts not None,
    const int64_t[::1] parts not None,
    Py_ssize_t run,
    uint8_t[:, ::1] out not None,
):
    """Copy, for each first row, runs of adjacent rows, each of which begins `parts` rows after it.

    Parameters
    ----------
    rows : uint8 (M, K)
        The bytes of a row are adjacent; rows may be apart, also in descending order.
    firsts : int64 (N,)
    parts : int64 (P,)
        One 0 for single rows and for windows of adjacent rows.
    run : int
        Rows of a run.
    out : uint8 (N, P * run * K), C order

    Raises
    ------
    ValueError
        There is no such row, or shapes disagree; nothing was copied.
    """
    cdef Py_ssize_t j, ahead, lines, count = firsts.shape[0], size = rows.shape[1]
    cdef int64_t lowest = 0, highest = 0, step = rows.strides[0]
    cdef bint adjacent = step == size or run == 1
    cdef const uint8_t *base
    cdef Copies copies
    if run < 1 or run > rows.shape[0] or not parts.shape[0]:
        raise ValueError(f"gather.gather: {parts.shape[0]} runs of {run} rows of {rows.shape[0]}")
    if size > 1 and rows.strides[1] != 1:
        raise ValueError(f"gather.gather: bytes of a row are {rows.strides[1]} apart; expected adjacent bytes")
    # Divided, not multiplied: products might overflow.
    if out.shape[0] != count or (
        out.shape[1] // parts.shape[0] // run != size or out.shape[1] != parts.shape[0] * run * size
    ):
        raise ValueError(
            f"gather.gather: out has {out.shape[0]} rows of {out.shape[1]} bytes; expected {count} of "
            f"{parts.shape[0]} x {run} x {size}"
        )
    lowest = highest = parts[0]
    for j in range(parts.shape[0]):
        lowest = min(lowest, parts[j])
        highest = max(highest, parts[j])
    if highest > rows.shape[0] - run:
        raise ValueError(f"gather.gather: a run of {run} rows from {highest} on, of {rows.shape[0]}")
    check_firsts("gather.gather", firsts, lowest, highest + run - 1, rows.shape[0])
    if not size or not count:
        return
    base = &rows[0, 0]
    ahead = max(1, AHEAD // (size * run if adjacent else size))
    lines = min((size * (run if adjacent else 1) + LINE - 1) // LINE, MOST_LINES)
    copies.base, copies.step, copies.size, copies.run, copies.adjacent = base, step, size, run, adjacent
    copies.ahead, copies.lines = ahead, lines
    if out.shape[0] * out.shape[1] < KEPT:
        copy_rows(copies, &firsts[0], count, &parts[0], parts.shape[0], &out[0, 0])
        return
    with nogil:
        copy_rows(copies, &firsts[0], count, &parts[0], parts.shape[0], &out[0, 0])


def gather_planar(
    const item[:, :, ::1] images not None,
    const int64_t[::1] indices not None,
    item[:, :, ::1] out not None,
):
    """Copy planar images, with the channels of each pixel side by side.

    Parameters
    ----------
    images : uint8, uint16, uint32 or uint64 (M, C, H * W), C order
        The bits of any numbers of that size.
    indices : int64 (N,)
    out : as images (N, H * W, C), C order

    Raises
    ------
    ValueError
        There is no such image, or shapes disagree; nothing was copied.
    """
    cdef Py_ssize_t i, pixel, channel, channels = images.shape[1], pixels = images.shape[2]
    cdef const item *first
    cdef const item *second
    cdef const item *third
    cdef item *to
    if out.shape[0] != indices.shape[0] or out.shape[1] != pixels or out.shape[2] != channels:
        raise ValueError(
            f"gather.gather_planar: out has {out.shape[0]} images of {out.shape[1]} x {out.shape[2]}; expected "
            f"{indices.shape[0]} of {pixels} x {channels}"
        )
    check_firsts("gather.gather_planar", indices, 0, 0, images.shape[0])
    if not pixels or not channels:
        return
    with nogil:
        for i in range(indices.shape[0]):
            to = &out[i, 0, 0]
            first = &images[indices[i], 0, 0]
            if channels == 3:
                second, third = first + pixels, first + 2 * pixels
                for pixel in range(pixels):
                    to[3 * pixel] = first[pixel]
                    to[3 * pixel + 1] = second[pixel]
                    to[3 * pixel + 2] = third[pixel]
                continue
            for channel in range(channels):
                for pixel in range(pixels):
                    to[pixel * channels + channel] = first[channel * pixels + pixel]
