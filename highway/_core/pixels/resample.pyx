"""Windows of pictures, and antialiased resampling of windows of images in memory."""

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t

from highway._core cimport simd

cdef extern from "resampler.h" nogil:
    enum: HW_FILTERS

    ctypedef struct hw_axis:
        pass

    ctypedef struct hw_buffer:
        pass

    int hw_axis_build(hw_axis *axis, int filter, int in_size, double begin, double end, int out_size, int reversed,
                      int precise)
    void hw_axis_free(hw_axis *axis)
    void hw_buffer_free(hw_buffer *buffer)
    int hw_resample_image(int simd, const hw_axis *x, const hw_axis *y, const uint8_t *image,
                          ptrdiff_t row_stride, int channels, uint8_t *out, ptrdiff_t out_stride, hw_buffer *work)
    int hw_resample_floats(const hw_axis *x, const hw_axis *y, const float *image, ptrdiff_t row_stride,
                           int channels, float *out, ptrdiff_t out_stride, hw_buffer *work)

cdef extern from "resampler16.h" nogil:
    int hw_resample_image16(int simd, const hw_axis *x, const hw_axis *y, const uint16_t *image,
                            ptrdiff_t row_stride, int channels, uint16_t *out, ptrdiff_t out_stride, hw_buffer *work)

cdef extern from "string.h" nogil:
    void *memset(void *, int, size_t)

ctypedef fused value:
    uint8_t
    uint16_t
    float

FILTERS = ("nearest", "box", "bilinear", "bicubic", "lanczos")
assert len(FILTERS) == HW_FILTERS


def center_windows(
    const int64_t[:] heights not None,
    const int64_t[:] widths not None,
    double height,
    double width,
    double[:, ::1] windows not None,
):
    """Compute the largest centered windows of one aspect ratio.

    Parameters
    ----------
    heights, widths : int64 (N,)
        Sizes of the pictures in pixels.
    height, width : float
        The aspect ratio is width / height; both above 0.
    windows : float64 (N, 4)
        x0, y0, x1, y1 in pixels, written.

    Raises
    ------
    ValueError
        Shapes disagree.
    """
    cdef Py_ssize_t n = heights.shape[0], i
    cdef double ratio = width / height, inverse = 1 / ratio, side
    if widths.shape[0] != n or windows.shape[0] != n or windows.shape[1] != 4:
        raise ValueError(
            f"center_windows: {n} heights, {widths.shape[0]} widths and windows of shape "
            f"{windows.shape[0]} x {windows.shape[1]}; expected N, N and N x 4"
        )
    with nogil:
        for i in range(n):
            side = min(<double> widths[i], heights[i] * ratio)
            windows[i, 0] = (widths[i] - side) / 2
            windows[i, 2] = min(windows[i, 0] + side, <double> widths[i])
            side = min(<double> heights[i], widths[i] * inverse)
            windows[i, 1] = (heights[i] - side) / 2
            windows[i, 3] = min(windows[i, 1] + side, <double> heights[i])


cdef int check_placement(
    const double[:, ::1] windows, const int32_t[:, ::1] targets, Py_ssize_t i, Py_ssize_t height, Py_ssize_t width,
    Py_ssize_t out_height, Py_ssize_t out_width,
) noexcept nogil:
    # written so that a NaN fails
    return (
        windows[i, 0] >= 0 and windows[i, 1] >= 0 and windows[i, 2] <= width and windows[i, 3] <= height
        and windows[i, 2] > windows[i, 0] and windows[i, 3] > windows[i, 1]
        and targets[i, 0] >= 0 and targets[i, 1] >= 0 and targets[i, 2] <= out_width and targets[i, 3] <= out_height
        and targets[i, 2] > targets[i, 0] and targets[i, 3] > targets[i, 1]
    )


cdef int resize_all(
    const value[:, :, :, ::1] images, const double[:, ::1] windows, const int32_t[:, ::1] targets,
    const uint8_t[:, ::1] mirrored, int filter, int variant, value[:, :, :, ::1] out,
) noexcept nogil:
    cdef hw_axis x, y
    cdef hw_buffer work
    cdef Py_ssize_t i
    cdef int channels = <int> images.shape[3]
    cdef int status = 0
    memset(&x, 0, sizeof(x))
    memset(&y, 0, sizeof(y))
    memset(&work, 0, sizeof(work))
    for i in range(images.shape[0]):
        status = hw_axis_build(
            &x, filter, <int> images.shape[2], windows[i, 0], windows[i, 2], targets[i, 2] - targets[i, 0],
            mirrored[i, 0] != 0, value is uint16_t,
        )
        if not status:
            status = hw_axis_build(
                &y, filter, <int> images.shape[1], windows[i, 1], windows[i, 3], targets[i, 3] - targets[i, 1],
                mirrored[i, 1] != 0, value is uint16_t,
            )
        if not status:
            if value is uint8_t:
                status = hw_resample_image(
                    variant, &x, &y, &images[i, 0, 0, 0], images.shape[2] * channels, channels,
                    &out[i, targets[i, 1], targets[i, 0], 0], out.shape[2] * channels, &work,
                )
            elif value is uint16_t:
                status = hw_resample_image16(
                    variant, &x, &y, &images[i, 0, 0, 0], images.shape[2] * channels, channels,
                    &out[i, targets[i, 1], targets[i, 0], 0], out.shape[2] * channels, &work,
                )
            else:
                status = hw_resample_floats(
                    &x, &y, &images[i, 0, 0, 0], images.shape[2] * channels, channels,
                    &out[i, targets[i, 1], targets[i, 0], 0], out.shape[2] * channels, &work,
                )
        if status:
            break
    hw_axis_free(&x)
    hw_axis_free(&y)
    hw_buffer_free(&work)
    return status


def resize_batch(
    const value[:, :, :, ::1] images not None,
    const double[:, ::1] windows not None,
    const int32_t[:, ::1] targets not None,
    const uint8_t[:, ::1] mirrored not None,
    int filter,
    value[:, :, :, ::1] out not None,
):
    """Resample one window of every image into a rectangle of `out`.

    Parameters
    ----------
    images : uint8, uint16 or float32 (N, H, W, C)
    windows : float64 (N, 4)
        x0, y0, x1, y1 in pixels of the image, within it; need not be whole numbers.
    targets : int32 (N, 4)
        x0, y0, x1, y1 in pixels of `out`. Pixels outside of them are unchanged.
    mirrored : uint8 (N, 2)
        Not 0: mirrored left to right, and top to bottom.
    filter : int
        Index into `FILTERS`.
    out : (N, H', W', C), as images

    Raises
    ------
    ValueError
        Shapes disagree, or a rectangle is empty or outside of its picture.
    MemoryError

    Notes
    -----
    Same definition as Pillow's ``Image.resize(size, filter, box=window)``: the filter widens with the scale and
    includes pixels around the window. Weights have 14 bits; results differ from Pillow's by rounding. For uint16 the
    weights are float64, and only the result is rounded.
    """
    cdef Py_ssize_t n = images.shape[0], i
    cdef int variant = simd.level
    cdef int status
    if out.shape[0] != n or windows.shape[0] != n or targets.shape[0] != n or mirrored.shape[0] != n:
        raise ValueError(
            f"resize_batch: {n} images, {windows.shape[0]} windows, {targets.shape[0]} targets, {mirrored.shape[0]} "
            f"rows of mirrored and {out.shape[0]} outputs; these must be equal"
        )
    if windows.shape[1] != 4 or targets.shape[1] != 4 or mirrored.shape[1] != 2:
        raise ValueError(
            f"resize_batch: rectangles of {windows.shape[1]} and {targets.shape[1]} numbers, and {mirrored.shape[1]} "
            "of mirrored; expected 4, 4 and 2"
        )
    if out.shape[3] != images.shape[3] or not 1 <= images.shape[3] <= 64:
        raise ValueError(f"resize_batch: {images.shape[3]} channels in, {out.shape[3]} out; expected the same, 1 to 64")
    if max(images.shape[1], images.shape[2], out.shape[1], out.shape[2]) > 1 << 24:
        raise ValueError("resize_batch: a side is longer than 2**24 pixels")
    if not 0 <= filter < HW_FILTERS:
        raise ValueError(f"resize_batch: filter {filter}; expected 0..{HW_FILTERS - 1}")
    for i in range(n):
        if not check_placement(
            windows, targets, i, images.shape[1], images.shape[2], out.shape[1], out.shape[2]
        ):
            raise ValueError(
                f"resize_batch: window {[windows[i, k] for k in range(4)]} of image {i} "
                f"({images.shape[1]} x {images.shape[2]}) or target {[targets[i, k] for k in range(4)]} in "
                f"{out.shape[1]} x {out.shape[2]} is empty or not inside (x0, y0, x1, y1)"
            )
    with nogil:
        status = resize_all(images, windows, targets, mirrored, filter, variant, out)
    if status:
        raise MemoryError("resize_batch: no memory for the weights")
