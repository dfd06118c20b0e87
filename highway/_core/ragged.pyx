"""Rows of ragged arrays: padded, joined, and numbered within rows of equal length, without the GIL."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memset


def pad_rows(
    const uint8_t[::1] values not None,
    const int64_t[::1] starts not None,
    const int64_t[::1] counts not None,
    const uint8_t[::1] fill not None,
    uint8_t[:, ::1] out not None,
):
    """Copy the rows of each sample, and fill the rest of its line.

    Parameters
    ----------
    values : uint8 (M * B,)
        Rows of B bytes.
    starts, counts : int64 (N,)
        First row and number of rows of each sample, within `values`.
    fill : uint8 (B,)
        The row that pads, of 1 byte or more.
    out : uint8 (N, L * B)
        L is at least as large as each count.

    Raises
    ------
    ValueError
        Shapes disagree, or rows are outside of `values` or do not fit into `out`.
    """
    cdef Py_ssize_t i, used, width = fill.shape[0], line = out.shape[1]
    cdef Py_ssize_t samples = check("pad_rows", values.shape[0], starts, counts, width)
    cdef bint even
    if out.shape[0] != samples or line % width:
        raise ValueError(
            f"ragged.pad_rows: out has {out.shape[0]} lines of {line} bytes, for {samples} samples in rows of {width}"
        )
    for i in range(samples):
        if counts[i] > line // width:
            raise ValueError(f"ragged.pad_rows: sample {i} has {counts[i]} rows; out has room for {line // width}")
    with nogil:
        even = True
        for i in range(1, width):
            even = even and fill[i] == fill[0]
        for i in range(samples):
            used = <Py_ssize_t> counts[i] * width
            if used:
                memcpy(&out[i, 0], &values[<Py_ssize_t> starts[i] * width], <size_t> used)
            if used < line:
                pad(&out[i, used], line - used, &fill[0], width, even)


cdef void pad(
    uint8_t *out, Py_ssize_t size, const uint8_t *fill, Py_ssize_t width, bint even
) noexcept nogil:
    """Write one row over and over; the size is a multiple of its width."""
    cdef Py_ssize_t done = width
    if even:
        memset(out, fill[0], <size_t> size)
        return
    memcpy(out, fill, <size_t> width)
    # Each copy doubles what is there.
    while done < size:
        memcpy(out + done, out, <size_t> min(done, size - done))
        done += min(done, size - done)


def join_rows(
    const uint8_t[::1] values not None,
    const int64_t[::1] starts not None,
    const int64_t[::1] counts not None,
    Py_ssize_t width,
    uint8_t[::1] out not None,
):
    """Copy the rows of one sample after the other.

    Parameters
    ----------
    values : uint8 (M * width,)
    starts, counts : int64 (N,)
        First row and number of rows of each sample, within `values`.
    width : int
        Bytes of a row, 1 or more.
    out : uint8 (sum of counts * width,)

    Raises
    ------
    ValueError
        Shapes disagree, or rows are outside of `values`.
    """
    cdef Py_ssize_t i, used, at = 0, total = 0
    cdef Py_ssize_t samples = check("join_rows", values.shape[0], starts, counts, width)
    for i in range(samples):
        # Samples may overlap: each is at most as long as `values`, and the sum stops at the size of `out`.
        total += <Py_ssize_t> counts[i]
        if total > out.shape[0] // width:
            break
    if total * width != out.shape[0]:
        raise ValueError(f"ragged.join_rows: out has {out.shape[0]} bytes; expected as many as the rows have")
    with nogil:
        for i in range(samples):
            used = <Py_ssize_t> counts[i] * width
            if used:
                memcpy(&out[at], &values[<Py_ssize_t> starts[i] * width], <size_t> used)
                at += used


def number_rows(
    const int64_t[::1] offsets not None, int32_t[:, ::1] positions not None, int32_t[:, ::1] segments not None
):
    """Number the values of documents that are cut into lines of equal length, one after the other.

    Parameters
    ----------
    offsets : int64 (N + 1,)
        Document i has the values from ``offsets[i]`` to ``offsets[i + 1]`` (exclusive); ascends from 0.
    positions, segments : int32 (R, L)
        Out. Place of each value within the part of its document in the line, from 0; number of this part in the line,
        from 1. Values after the last document have 0 in both. Values beyond the last line are ignored.

    Raises
    ------
    ValueError
        Shapes disagree, or offsets do not ascend from 0.
    """
    cdef Py_ssize_t i, k, part, begin, end, size, length = positions.shape[1]
    cdef int32_t segment
    cdef int32_t *place
    cdef int32_t *number
    if segments.shape[0] != positions.shape[0] or segments.shape[1] != length or length >= 2**31:
        raise ValueError(
            f"ragged.number_rows: positions of {positions.shape[0]} lines of {length}, segments of "
            f"{segments.shape[0]} of {segments.shape[1]}"
        )
    if not offsets.shape[0] or offsets[0] != 0:
        raise ValueError("ragged.number_rows: offsets do not begin with 0")
    for i in range(1, offsets.shape[0]):
        if offsets[i] < offsets[i - 1]:
            raise ValueError(f"ragged.number_rows: offset {i} is {offsets[i]}, after {offsets[i - 1]}")
    size = positions.shape[0] * length
    if not size:
        return
    with nogil:
        place, number = &positions[0, 0], &segments[0, 0]
        segment = 0
        begin = 0
        for i in range(1, offsets.shape[0]):
            end = min(<Py_ssize_t> offsets[i], size)
            while begin < end:
                if begin % length == 0:
                    segment = 0
                segment += 1
                part = min(end - begin, length - begin % length)
                for k in range(part):
                    place[begin + k] = <int32_t> k
                for k in range(part):
                    number[begin + k] = segment
                begin += part
        memset(place + begin, 0, <size_t> (size - begin) * sizeof(int32_t))
        memset(number + begin, 0, <size_t> (size - begin) * sizeof(int32_t))


cdef Py_ssize_t check(
    str function, Py_ssize_t size, const int64_t[::1] starts, const int64_t[::1] counts, Py_ssize_t width
) except -1:
    """Return the number of samples; raise ValueError if rows are not within the values."""
    cdef Py_ssize_t i, samples = starts.shape[0]
    if counts.shape[0] != samples or width < 1 or size % width:
        raise ValueError(
            f"ragged.{function}: {samples} starts, {counts.shape[0]} counts, {size} bytes in rows of {width}"
        )
    for i in range(samples):
        if not (0 <= starts[i] <= size // width and 0 <= counts[i] <= size // width - starts[i]):
            raise ValueError(
                f"ragged.{function}: sample {i} has {counts[i]} rows from {starts[i]} on, of {size // width}"
            )
    return samples
