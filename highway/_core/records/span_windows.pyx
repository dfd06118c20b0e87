"""Windows of the images in spans, copied or normalized into the rows of an array, without the GIL."""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint8_t

from highway._core cimport simd
from highway._core.pixels.windows cimport (
    check_places,
    check_sizes,
    hw_normalization,
    hw_normalization_fence,
    hw_pixels,
    hw_window,
    hw_window_copy,
    hw_window_normalize,
    hw_window_work,
    normalization_of,
    real,
    window_at,
)
from highway._core.records.spans cimport Spans, check_rows


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
    hw_pixels *image,
) except -1:
    """Fill in `image`, except its data; raise ValueError if an argument does not fit."""
    cdef Py_ssize_t limit = <Py_ssize_t> 1 << 31
    image.height, image.width, image.size = shape
    check_sizes(f"{what}", image.height, image.width, height, width)
    if min(shape) < 0 or channels != image.size or channels > limit:
        raise ValueError(f"{what}: images of {shape}, but out has {channels} channels")
    image.row_stride = image.width * image.size
    if image.row_stride and image.height > (<int64_t> 1 << 62) // image.row_stride:
        raise ValueError(f"{what}: images of {shape}")
    check_rows(what, spans, at, image.row_stride * image.height, rows, room)
    return check_places(f"{what}", places, fill, spans.count, channels)


def copy(
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
    cdef hw_pixels image
    cdef hw_window window
    cdef Py_ssize_t i, height = out.shape[1], width = out.shape[2]
    describe(
        "span_windows.copy", spans, at, shape, places, fill, rows, out.shape[0], height, width, out.shape[3], &image
    )
    if height == 0 or width == 0 or out.shape[3] == 0:
        return
    with nogil:
        for i in range(spans.count):
            image.data = spans.data[i] + at[i]
            window = window_at(&places[i, 0], height, width, &fill[0])
            hw_window_copy(variant, &image, &window, 0, height, &out[rows[i], 0, 0, 0])


def normalize(
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
    """Normalize a window of each image, as `values.normalize_windows` does.

    Parameters
    ----------
    spans, at, shape, places, fill, rows
        As for `copy`.
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
    cdef hw_pixels image
    cdef hw_window window
    cdef hw_normalization normalization
    cdef Py_ssize_t i, height = out.shape[2 if planar else 1], width = out.shape[3 if planar else 2]
    cdef Py_ssize_t channels = out.shape[1 if planar else 3]
    cdef uint8_t *work
    describe(
        "span_windows.normalize", spans, at, shape, places, fill, rows, out.shape[0], height, width, channels, &image
    )
    if scale.shape[0] != channels or bias.shape[0] != channels:
        raise ValueError(
            f"span_windows.normalize: scale of {scale.shape[0]} and bias of {bias.shape[0]} for {channels} channels"
        )
    if height == 0 or width == 0 or channels == 0:
        return
    normalization = normalization_of(scale, bias, out, planar)
    work = <uint8_t *> PyMem_RawMalloc(hw_window_work(width * channels))
    if work == NULL:
        raise MemoryError
    with nogil:
        for i in range(spans.count):
            image.data = spans.data[i] + at[i]
            window = window_at(&places[i, 0], height, width, &fill[0])
            hw_window_normalize(variant, &image, &window, &normalization, work, &out[rows[i], 0, 0, 0])
        hw_normalization_fence(&normalization)
    PyMem_RawFree(work)
