"""Mixes images with the next image of their batch, and replaces rectangles of images.

The image after the last one is the first. Every variant gives the same bits.
"""

from libc.math cimport rint
from libc.stdint cimport int64_t, uint8_t, uintptr_t
from libc.string cimport memcpy

from highway._core cimport simd
from highway._core.pixels.arrays cimport overlap


cdef extern from "blend.h" nogil:
    void hw_blend_bytes(
        int simd, const uint8_t *left, const uint8_t *right, Py_ssize_t count, int weight, uint8_t *out
    )
    void hw_blend_reals(
        int simd, const float *left, const float *right, Py_ssize_t count, float left_weight, float right_weight,
        float *out
    )

cdef extern from "pixels.h" nogil:
    void hw_fill(uint8_t *out, Py_ssize_t pixels, const uint8_t *pixel, Py_ssize_t size)


ctypedef fused value:
    uint8_t
    float


def blend(const value[:, ::1] images not None, const double[::1] own not None, value[:, ::1] out not None):
    """out[n] = images[n] * own[n] + images[n + 1] * (1 - own[n]).

    Parameters
    ----------
    images : uint8 or float32 (N, L), C order
    own : float64 (N,)
        0 to 1. For bytes it is rounded to a multiple of 1 / 32768, and the result to the nearest, halves up; for
        float32 it and 1 - own are rounded to float32.
    out : as images
        Shares no memory with them.

    Raises
    ------
    ValueError
        Shapes disagree, a part is not 0 to 1, or memory is shared.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t count = images.shape[0], length = images.shape[1], sample
    cdef const value *next_one
    if out.shape[0] != count or out.shape[1] != length or own.shape[0] != count:
        raise ValueError(
            f"mix.blend: images are ({count}, {length}), out is ({out.shape[0]}, {out.shape[1]}) and there are "
            f"{own.shape[0]} parts; expected as many images, and values, as of images"
        )
    for sample in range(count):
        if not 0.0 <= own[sample] <= 1.0:
            raise ValueError(f"mix.blend: part {sample} is {own[sample]}; expected 0 to 1")
    if count == 0 or length == 0:
        return
    cdef size_t nbytes = <size_t>(count * length) * sizeof(value)
    if overlap(<uintptr_t>&images[0, 0], nbytes, <uintptr_t>&out[0, 0], nbytes):
        raise ValueError("mix.blend: images and out share memory; expected another array")
    with nogil:
        for sample in range(count):
            next_one = &images[sample + 1 if sample + 1 < count else 0, 0]
            if value is uint8_t:
                hw_blend_bytes(
                    variant, &images[sample, 0], next_one, length, <int>rint(own[sample] * 32768), &out[sample, 0]
                )
            elif own[sample] == 1.0:
                # Ignores the other image: 0 * inf is nan.
                memcpy(&out[sample, 0], &images[sample, 0], <size_t>length * sizeof(value))
            else:
                hw_blend_reals(
                    variant, &images[sample, 0], next_one, length, <float>own[sample], <float>(1 - own[sample]),
                    &out[sample, 0],
                )


cdef int check_boxes(
    str what, const uint8_t[:, :, :, ::1] images, const int64_t[:, ::1] boxes, uint8_t[:, :, :, ::1] out, bint in_place
) except -1:
    """Raise ValueError unless each image contains its box, and out has their shape and its own memory (or is them, if
    allowed)."""
    cdef Py_ssize_t sample
    cdef uintptr_t start, place
    cdef size_t nbytes
    for sample in range(4):
        if out.shape[sample] != images.shape[sample]:
            raise ValueError(
                f"mix.{what}: images are ({images.shape[0]}, {images.shape[1]}, {images.shape[2]}, "
                f"{images.shape[3]}), out is ({out.shape[0]}, {out.shape[1]}, {out.shape[2]}, {out.shape[3]}); "
                "expected one shape"
            )
    if boxes.shape[0] != images.shape[0] or boxes.shape[1] != 4:
        raise ValueError(
            f"mix.{what}: boxes are ({boxes.shape[0]}, {boxes.shape[1]}) for {images.shape[0]} images; expected "
            f"({images.shape[0]}, 4)"
        )
    for sample in range(boxes.shape[0]):
        if not (
            0 <= boxes[sample, 0] <= boxes[sample, 2] <= images.shape[2]
            and 0 <= boxes[sample, 1] <= boxes[sample, 3] <= images.shape[1]
        ):
            raise ValueError(
                f"mix.{what}: box {sample} is ({boxes[sample, 0]}, {boxes[sample, 1]}, {boxes[sample, 2]}, "
                f"{boxes[sample, 3]}); expected x0 <= x1 <= {images.shape[2]} and y0 <= y1 <= {images.shape[1]}"
            )
    if images.shape[0] == 0 or images.shape[1] == 0 or images.shape[2] == 0 or images.shape[3] == 0:
        return 0
    start = <uintptr_t>&images[0, 0, 0, 0]
    place = <uintptr_t>&out[0, 0, 0, 0]
    nbytes = <size_t>(out.shape[0] * out.strides[0])
    if not (in_place and start == place) and overlap(start, nbytes, place, nbytes):
        raise ValueError(f"mix.{what}: images and out share memory; expected another array")
    return 0


def paste(
    const uint8_t[:, :, :, ::1] images not None,
    const int64_t[:, ::1] boxes not None,
    uint8_t[:, :, :, ::1] out not None,
):
    """Copy images, with a rectangle of each from the next one.

    Parameters
    ----------
    images : uint8 (N, H, W, C), C order
        C is the bytes of a pixel.
    boxes : int64 (N, 4)
        x0, y0, x1, y1 within the image; may be empty.
    out : uint8 (N, H, W, C), C order
        Shares no memory with `images`.

    Raises
    ------
    ValueError
        Shapes disagree, a box is not within the image, or memory is shared.
    """
    cdef Py_ssize_t count = images.shape[0], size = images.shape[3], sample, other, row, left, length
    check_boxes("paste", images, boxes, out, False)
    if count == 0 or images.shape[1] == 0 or images.shape[2] == 0 or size == 0:
        return
    with nogil:
        for sample in range(count):
            other = sample + 1 if sample + 1 < count else 0
            memcpy(&out[sample, 0, 0, 0], &images[sample, 0, 0, 0], <size_t>out.strides[0])
            left = boxes[sample, 0]
            length = (boxes[sample, 2] - left) * size
            if length:
                for row in range(boxes[sample, 1], boxes[sample, 3]):
                    memcpy(&out[sample, row, left, 0], &images[other, row, left, 0], <size_t>length)


def paint(
    const uint8_t[:, :, :, ::1] images not None,
    const int64_t[:, ::1] boxes not None,
    const uint8_t[::1] pixel not None,
    uint8_t[:, :, :, ::1] out not None,
):
    """Copy images, with a rectangle of each in one color.

    Parameters
    ----------
    images : uint8 (N, H, W, C), C order
        C is the bytes of a pixel.
    boxes : int64 (N, 4)
        x0, y0, x1, y1 within the image; may be empty.
    pixel : uint8 (C,)
        Shares no memory with `out`.
    out : uint8 (N, H, W, C), C order
        `images` itself, or shares no memory with them.

    Raises
    ------
    ValueError
        Shapes disagree, a box is not within the image, or memory is shared.
    """
    cdef Py_ssize_t count = images.shape[0], size = images.shape[3], sample, row, left, top, width
    cdef uint8_t *first
    check_boxes("paint", images, boxes, out, True)
    if pixel.shape[0] != size:
        raise ValueError(f"mix.paint: a pixel of {pixel.shape[0]} bytes for images of {size}")
    if count == 0 or images.shape[1] == 0 or images.shape[2] == 0 or size == 0:
        return
    cdef bint copies = &images[0, 0, 0, 0] != &out[0, 0, 0, 0]
    with nogil:
        for sample in range(count):
            if copies:
                memcpy(&out[sample, 0, 0, 0], &images[sample, 0, 0, 0], <size_t>out.strides[0])
            left = boxes[sample, 0]
            top = boxes[sample, 1]
            width = boxes[sample, 2] - left
            if width == 0 or top == boxes[sample, 3]:
                continue
            first = &out[sample, top, left, 0]
            hw_fill(first, width, &pixel[0], size)
            for row in range(top + 1, boxes[sample, 3]):
                memcpy(&out[sample, row, left, 0], first, <size_t>(width * size))
