"""From bytes to real numbers: normalize uint8 images to float32 or float16, in either layout, in one pass.

Defined to the bit: value = float32(float32(x) * scale) + bias in float32, each operation rounded to
nearest, ties to even, never fused (the build forbids contraction); float16 is that value rounded once more.
"""

from libc.stdint cimport uint8_t, uint16_t, uintptr_t

from highway._core cimport simd


cdef extern from "pixels.h" nogil:
    void hw_normalize(
        int simd, const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels, const float *scale,
        const float *bias, float *out
    )
    void hw_normalize_half(
        int simd, const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels, const float *scale,
        const float *bias, uint16_t *out
    )
    void hw_normalize_planar(
        int simd, const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels, const float *scale,
        const float *bias, float *out, Py_ssize_t plane
    )
    void hw_normalize_planar_half(
        int simd, const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels, const float *scale,
        const float *bias, uint16_t *out, Py_ssize_t plane
    )


# float16 comes as its bits.
ctypedef fused real:
    float
    uint16_t


cdef int check(
    str what,
    const uint8_t[:, :, :, :] images,
    const float[::1] scale,
    const float[::1] bias,
    Py_ssize_t count,
    Py_ssize_t height,
    Py_ssize_t width,
    Py_ssize_t channels,
) except -1:
    """ValueError unless rows are packed and everything has the given size."""
    if (
        images.shape[0] != count or images.shape[1] != height or images.shape[2] != width
        or images.shape[3] != channels
    ):
        raise ValueError(
            f"values.{what}: images are ({images.shape[0]}, {images.shape[1]}, {images.shape[2]}, "
            f"{images.shape[3]}), out has {count} of {height} rows, {width} columns and {channels} channels"
        )
    if scale.shape[0] != channels or bias.shape[0] != channels:
        raise ValueError(
            f"values.{what}: scale of {scale.shape[0]} and bias of {bias.shape[0]} for {channels} channels; "
            "expected one for each"
        )
    if count and height and (
        (channels > 1 and images.strides[3] != 1) or (width > 1 and images.strides[2] != channels)
    ):
        raise ValueError(
            f"values.{what}: strides {images.strides[2]} and {images.strides[3]} in a row of {channels} "
            "channels; expected packed rows, copy the array first"
        )
    return 0


cdef int check_apart(
    str what,
    const uint8_t[:, :, :, :] images,
    const float[::1] scale,
    const float[::1] bias,
    uintptr_t out,
    size_t itemsize,
) except -1:
    """ValueError where out, of as many items as images, lies where what is read does; nothing is empty."""
    cdef Py_ssize_t samples = (images.shape[0] - 1) * images.strides[0]
    cdef Py_ssize_t rows = (images.shape[1] - 1) * images.strides[1]
    cdef uintptr_t start = <uintptr_t>&images[0, 0, 0, 0]
    cdef uintptr_t first = start + <uintptr_t>(min(samples, 0) + min(rows, 0))
    cdef uintptr_t last = start + <uintptr_t>(
        max(samples, 0) + max(rows, 0) + images.shape[2] * images.shape[3] - 1
    )
    cdef size_t nbytes = <size_t>(images.shape[0] * images.shape[1] * images.shape[2] * images.shape[3]) * itemsize
    cdef size_t factors = <size_t>scale.shape[0] * sizeof(float)
    if overlap(first, last - first + 1, out, nbytes):
        raise ValueError(f"values.{what}: images and out share memory; expected another array")
    if overlap(<uintptr_t>&scale[0], factors, out, nbytes) or overlap(<uintptr_t>&bias[0], factors, out, nbytes):
        raise ValueError(f"values.{what}: scale or bias shares memory with out; expected another array")
    return 0


cdef bint overlap(uintptr_t left, size_t left_bytes, uintptr_t right, size_t right_bytes) noexcept nogil:
    return left < right + right_bytes and right < left + left_bytes


def normalize(
    const uint8_t[:, :, :, :] images not None,
    const float[::1] scale not None,
    const float[::1] bias not None,
    real[:, :, :, ::1] out not None,
):
    """out[n, y, x, c] = images[n, y, x, c] * scale[c] + bias[c].

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    scale, bias : float32 (C,)
    out : float32, or the bits of float16 as uint16 (N, H, W, C), C order

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, or out shares memory with what is read.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t sample, row, rows = images.shape[1], pixels = images.shape[2]
    cdef Py_ssize_t channels = images.shape[3]
    check("normalize", images, scale, bias, out.shape[0], out.shape[1], out.shape[2], out.shape[3])
    if images.shape[0] == 0 or rows == 0 or pixels == 0 or channels == 0:
        return
    check_apart(
        "normalize", images, scale, bias, <uintptr_t>&out[0, 0, 0, 0], sizeof(real)
    )
    # Images without gaps between their rows are one long row.
    if rows == 1 or images.strides[1] == pixels * channels:
        pixels *= rows
        rows = 1
    with nogil:
        for sample in range(images.shape[0]):
            for row in range(rows):
                if real is float:
                    hw_normalize(
                        variant, &images[sample, row, 0, 0], pixels, channels, &scale[0], &bias[0],
                        &out[sample, row, 0, 0],
                    )
                else:
                    hw_normalize_half(
                        variant, &images[sample, row, 0, 0], pixels, channels, &scale[0], &bias[0],
                        &out[sample, row, 0, 0],
                    )


def normalize_planar(
    const uint8_t[:, :, :, :] images not None,
    const float[::1] scale not None,
    const float[::1] bias not None,
    real[:, :, :, ::1] out not None,
):
    """out[n, c, y, x] = images[n, y, x, c] * scale[c] + bias[c].

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    scale, bias : float32 (C,)
    out : float32, or the bits of float16 as uint16 (N, C, H, W), C order

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, or out shares memory with what is read.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t sample, row, rows = images.shape[1], pixels = images.shape[2]
    cdef Py_ssize_t channels = images.shape[3], plane = images.shape[1] * images.shape[2]
    check("normalize_planar", images, scale, bias, out.shape[0], out.shape[2], out.shape[3], out.shape[1])
    if images.shape[0] == 0 or rows == 0 or pixels == 0 or channels == 0:
        return
    check_apart(
        "normalize_planar", images, scale, bias, <uintptr_t>&out[0, 0, 0, 0], sizeof(real)
    )
    # Images without gaps between their rows are one long row.
    if rows == 1 or images.strides[1] == pixels * channels:
        pixels *= rows
        rows = 1
    with nogil:
        for sample in range(images.shape[0]):
            for row in range(rows):
                if real is float:
                    hw_normalize_planar(
                        variant, &images[sample, row, 0, 0], pixels, channels, &scale[0], &bias[0],
                        &out[sample, 0, row, 0], plane,
                    )
                else:
                    hw_normalize_planar_half(
                        variant, &images[sample, row, 0, 0], pixels, channels, &scale[0], &bias[0],
                        &out[sample, 0, row, 0], plane,
                    )
