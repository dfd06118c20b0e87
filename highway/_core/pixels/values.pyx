"""Normalizes uint8 and uint16 images to float32, float16 or bfloat16, in either layout, in one pass.

Defined to the bit: value = float32(float32(x) * scale) + bias in float32, each operation rounded to
nearest, ties to even, never fused (the build forbids contraction); float16 and bfloat16 are that value rounded
once more.
"""

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uintptr_t

from highway._core cimport simd
from highway._core.pixels.arrays cimport address_range, check_packed, has_pixels, overlap, pixels_of
from highway._core.pixels.windows cimport (
    check_places,
    check_sizes,
    hw_normalization,
    hw_normalization_fence,
    hw_normalize,
    hw_normalize16,
    hw_pixels,
    hw_window,
    hw_window_normalize,
    hw_window_work,
    normalization_of,
    real,
    window_at,
)


cdef int check(
    const uint8_t[:, :, :, :] images,
    const float[::1] scale,
    const float[::1] bias,
    Py_ssize_t count,
    Py_ssize_t height,
    Py_ssize_t width,
    Py_ssize_t channels,
) except -1:
    """Raise ValueError unless rows are packed and all shapes match."""
    if (
        images.shape[0] != count or images.shape[1] != height or images.shape[2] != width
        or images.shape[3] != channels
    ):
        raise ValueError(
            f"values.normalize: images are ({images.shape[0]}, {images.shape[1]}, {images.shape[2]}, "
            f"{images.shape[3]}), out has {count} of {height} rows, {width} columns and {channels} channels"
        )
    return check_values("normalize", images, scale, bias)


cdef int check_values(
    str what, const uint8_t[:, :, :, :] images, const float[::1] scale, const float[::1] bias
) except -1:
    """Raise ValueError unless rows are packed, with a scale and a bias for each channel."""
    cdef Py_ssize_t channels = images.shape[3]
    if scale.shape[0] != channels or bias.shape[0] != channels:
        raise ValueError(
            f"values.{what}: scale of {scale.shape[0]} and bias of {bias.shape[0]} for {channels} channels; "
            "expected one for each"
        )
    return check_packed("values", what, images)


cdef int check_apart(
    str what,
    const uint8_t[:, :, :, :] images,
    const float[::1] scale,
    const float[::1] bias,
    uintptr_t out,
    size_t nbytes,
) except -1:
    """Raise ValueError if out, of `nbytes`, overlaps an input; out is not empty."""
    cdef size_t factors = <size_t>scale.shape[0] * sizeof(float), images_bytes
    cdef uintptr_t first
    if has_pixels(images):
        images_bytes = address_range(images, &first)
        if overlap(first, images_bytes, out, nbytes):
            raise ValueError(f"values.{what}: images and out share memory; expected another array")
    if overlap(<uintptr_t>&scale[0], factors, out, nbytes) or overlap(<uintptr_t>&bias[0], factors, out, nbytes):
        raise ValueError(f"values.{what}: scale or bias shares memory with out; expected another array")
    return 0


def normalize(
    const uint8_t[:, :, :, :] images not None,
    const float[::1] scale not None,
    const float[::1] bias not None,
    bint planar,
    real[:, :, :, ::1] out not None,
):
    """out[n, y, x, c] = images[n, y, x, c] * scale[c] + bias[c]; planar: out[n, c, y, x].

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    scale, bias : float32 (C,)
    planar : bool
    out : float32, or the bits of float16 as uint16, or of bfloat16 as int16
        (N, H, W, C), or planar (N, C, H, W), C order

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, or out shares memory with an input.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t sample, row, rows = images.shape[1], pixels = images.shape[2]
    cdef Py_ssize_t channels = images.shape[3], plane = images.shape[1] * images.shape[2]
    cdef size_t nbytes = <size_t>(out.shape[0] * out.strides[0])
    cdef hw_normalization normalization
    check(
        images, scale, bias, out.shape[0], out.shape[2 if planar else 1], out.shape[3 if planar else 2],
        out.shape[1 if planar else 3],
    )
    if images.shape[0] == 0 or rows == 0 or pixels == 0 or channels == 0:
        return
    check_apart("normalize", images, scale, bias, <uintptr_t>&out[0, 0, 0, 0], nbytes)
    normalization = normalization_of(scale, bias, out, planar)
    # Images without gaps between their rows are one long row.
    if rows == 1 or images.strides[1] == pixels * channels:
        pixels *= rows
        rows = 1
    with nogil:
        for sample in range(images.shape[0]):
            for row in range(rows):
                hw_normalize(
                    variant, &images[sample, row, 0, 0], pixels, channels, &normalization, &out[sample, 0, 0, 0],
                    row * pixels, plane,
                )
        hw_normalization_fence(&normalization)


def normalize16(
    const uint16_t[:, :, :, ::1] images not None,
    const float[::1] scale not None,
    const float[::1] bias not None,
    bint planar,
    real[:, :, :, ::1] out not None,
):
    """Apply `normalize` to 16-bit numbers.

    Parameters
    ----------
    images : uint16 (N, H, W, C), C order
    scale, bias : float32 (C,)
    planar : bool
    out : float32, or the bits of float16 as uint16, or of bfloat16 as int16
        (N, H, W, C), or planar (N, C, H, W), C order

    Raises
    ------
    ValueError
        Shapes disagree, or out shares memory with an input.
    """
    cdef Py_ssize_t sample, count = images.shape[0], height = images.shape[1], width = images.shape[2]
    cdef Py_ssize_t channels = images.shape[3], plane = height * width
    cdef size_t factors = <size_t>channels * sizeof(float), nbytes = <size_t>(out.shape[0] * out.strides[0])
    cdef uintptr_t first
    cdef hw_normalization normalization
    if out.shape[0] != count or (
        (out.shape[1], out.shape[2], out.shape[3])
        != ((channels, height, width) if planar else (height, width, channels))
    ):
        raise ValueError(
            f"values.normalize16: images are ({count}, {height}, {width}, {channels}), out is ({out.shape[0]}, "
            f"{out.shape[1]}, {out.shape[2]}, {out.shape[3]}), {'planar' if planar else 'interleaved'}"
        )
    if scale.shape[0] != channels or bias.shape[0] != channels:
        raise ValueError(
            f"values.normalize16: scale of {scale.shape[0]} and bias of {bias.shape[0]} for {channels} channels; "
            "expected one for each"
        )
    if count == 0 or plane == 0 or channels == 0:
        return
    first = <uintptr_t>&out[0, 0, 0, 0]
    if (
        overlap(<uintptr_t>&images[0, 0, 0, 0], <size_t>(count * images.strides[0]), first, nbytes)
        or overlap(<uintptr_t>&scale[0], factors, first, nbytes)
        or overlap(<uintptr_t>&bias[0], factors, first, nbytes)
    ):
        raise ValueError("values.normalize16: an input shares memory with out; expected another array")
    normalization = normalization_of(scale, bias, out, planar)
    with nogil:
        for sample in range(count):
            hw_normalize16(
                &images[sample, 0, 0, 0], plane, channels, &normalization, &out[sample, 0, 0, 0], 0, plane
            )


def normalize_windows(
    const uint8_t[:, :, :, :] images not None,
    const int64_t[:, ::1] places not None,
    const uint8_t[::1] fill not None,
    const float[::1] scale not None,
    const float[::1] bias not None,
    bint planar,
    real[:, :, :, ::1] out not None,
):
    """Apply `normalize` to the windows of `geometry.windows`, in one pass.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    places : int64 (N, 4)
        As for `geometry.windows`: top, left, mirrored left to right, mirrored top to bottom.
    fill : uint8 (C,)
        A pixel.
    scale, bias : float32 (C,)
    planar : bool
    out : float32, or the bits of float16 as uint16, or of bfloat16 as int16
        (N, h, w, C), or planar (N, C, h, w), C order
        h and w are the size of the windows.

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, an offset is out of range, or out shares memory with an input.
    MemoryError
        No memory for a row of a window.
    """
    cdef hw_normalization normalization
    cdef Py_ssize_t height = out.shape[2 if planar else 1], width = out.shape[3 if planar else 2]
    cdef Py_ssize_t channels = out.shape[1 if planar else 3]
    cdef size_t nbytes = <size_t>(out.shape[0] * out.strides[0])
    if out.shape[0] != images.shape[0] or channels != images.shape[3]:
        raise ValueError(
            f"values.normalize_windows: {images.shape[0]} images of {images.shape[3]} channels, "
            f"but out has {out.shape[0]} of {channels}"
        )
    check_values("normalize_windows", images, scale, bias)
    check_sizes("values.normalize_windows", images.shape[1], images.shape[2], height, width)
    check_places("values.normalize_windows", places, fill, images.shape[0], images.shape[3])
    if out.shape[0] == 0 or height == 0 or width == 0 or channels == 0:
        return
    check_apart("normalize_windows", images, scale, bias, <uintptr_t>&out[0, 0, 0, 0], nbytes)
    normalization = normalization_of(scale, bias, out, planar)
    run_windows(images, places, fill, &normalization, height, width, &out[0, 0, 0, 0], out.strides[0])


cdef int run_windows(
    const uint8_t[:, :, :, :] images,
    const int64_t[:, ::1] places,
    const uint8_t[::1] fill,
    const hw_normalization *normalization,
    Py_ssize_t height,
    Py_ssize_t width,
    void *out,
    Py_ssize_t out_stride,
) except -1:
    """Arguments are checked, and no window is empty."""
    cdef int variant = simd.level
    cdef hw_pixels image = pixels_of(images)
    cdef hw_window window
    cdef Py_ssize_t sample
    cdef bint some = has_pixels(images)
    cdef uint8_t *work = <uint8_t *>PyMem_RawMalloc(hw_window_work(width * images.shape[3]))
    if work == NULL:
        raise MemoryError
    with nogil:
        for sample in range(images.shape[0]):
            # An image without pixels is never read.
            image.data = &images[sample, 0, 0, 0] if some else NULL
            window = window_at(&places[sample, 0], height, width, &fill[0])
            hw_window_normalize(
                variant, &image, &window, normalization, work, <uint8_t *>out + sample * out_stride
            )
        hw_normalization_fence(normalization)
    PyMem_RawFree(work)
    return 0
