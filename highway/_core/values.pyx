"""From bytes to real numbers: normalize uint8 images to float32 or float16, in either layout, in one pass.

Defined to the bit: value = float32(float32(x) * scale) + bias in float32, each operation rounded to
nearest, ties to even, never fused (the build forbids contraction); float16 is that value rounded once more.
"""

from libc.stdint cimport uint8_t, uint16_t

import os


cdef extern from "pixels.h" nogil:
    enum:
        HW_PLAIN
        HW_SSSE3
        HW_AVX2
    int hw_use(int variant)
    void hw_normalize(
        const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels, const float *scale,
        const float *bias, float *out
    )
    void hw_normalize_half(
        const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels, const float *scale,
        const float *bias, uint16_t *out
    )
    void hw_normalize_planar(
        const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels, const float *scale,
        const float *bias, float *out, Py_ssize_t plane
    )
    void hw_normalize_planar_half(
        const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels, const float *scale,
        const float *bias, uint16_t *out, Py_ssize_t plane
    )


# float16 comes as its bits.
ctypedef fused real:
    float
    uint16_t


VARIANTS = {"plain": HW_PLAIN, "ssse3": HW_SSSE3, "avx2": HW_AVX2}


def use_variant(str name not None):
    """Choose the code that runs from now on in this process: "plain", "ssse3" or "avx2".

    Every variant gives the same bits; tests compare them. At import it is what HIGHWAY_SIMD says, or the
    best.

    Returns
    -------
    str
        What is in use: the best that this CPU has, when that is less.

    Raises
    ------
    ValueError
        There is no such variant.
    """
    if name not in VARIANTS:
        raise ValueError(f"HIGHWAY_SIMD (or name) is {name!r}; expected one of {', '.join(VARIANTS)}")
    cdef int used = hw_use(VARIANTS[name])
    return list(VARIANTS)[used]


use_variant(os.environ.get("HIGHWAY_SIMD") or "avx2")


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
        Shapes disagree, or rows are not packed.
    """
    cdef Py_ssize_t sample, row, rows = images.shape[1], pixels = images.shape[2]
    cdef Py_ssize_t channels = images.shape[3]
    check("normalize", images, scale, bias, out.shape[0], out.shape[1], out.shape[2], out.shape[3])
    if images.shape[0] == 0 or rows == 0 or pixels == 0 or channels == 0:
        return
    # Images without gaps between their rows are one long row.
    if rows == 1 or images.strides[1] == pixels * channels:
        pixels *= rows
        rows = 1
    with nogil:
        for sample in range(images.shape[0]):
            for row in range(rows):
                if real is float:
                    hw_normalize(
                        &images[sample, row, 0, 0], pixels, channels, &scale[0], &bias[0],
                        &out[sample, row, 0, 0],
                    )
                else:
                    hw_normalize_half(
                        &images[sample, row, 0, 0], pixels, channels, &scale[0], &bias[0],
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
        Shapes disagree, or rows are not packed.
    """
    cdef Py_ssize_t sample, row, rows = images.shape[1], pixels = images.shape[2]
    cdef Py_ssize_t channels = images.shape[3], plane = images.shape[1] * images.shape[2]
    check("normalize_planar", images, scale, bias, out.shape[0], out.shape[2], out.shape[3], out.shape[1])
    if images.shape[0] == 0 or rows == 0 or pixels == 0 or channels == 0:
        return
    # Images without gaps between their rows are one long row.
    if rows == 1 or images.strides[1] == pixels * channels:
        pixels *= rows
        rows = 1
    with nogil:
        for sample in range(images.shape[0]):
            for row in range(rows):
                if real is float:
                    hw_normalize_planar(
                        &images[sample, row, 0, 0], pixels, channels, &scale[0], &bias[0],
                        &out[sample, 0, row, 0], plane,
                    )
                else:
                    hw_normalize_planar_half(
                        &images[sample, row, 0, 0], pixels, channels, &scale[0], &bias[0],
                        &out[sample, 0, row, 0], plane,
                    )
