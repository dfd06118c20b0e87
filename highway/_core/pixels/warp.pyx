"""Warps images by affine and projective maps: rotation, shear, zoom, perspective.

Coordinates are continuous: the pixel in column x and row y covers x to x + 1 and y to y + 1. A pixel of the
output is sampled at the source point of its center. Bilinear values of bytes are within one level of real
arithmetic; every variant gives the same bits.
"""

from libc.math cimport isfinite
from libc.stdint cimport uint8_t, uintptr_t

from highway._core cimport simd
from highway._core.pixels.arrays cimport overlap


cdef extern from "warper.h" nogil:
    enum:
        HW_NEAREST
        HW_BILINEAR

    ctypedef struct hw_warp_source:
        const void *data
        Py_ssize_t height
        Py_ssize_t width
        Py_ssize_t channels
        int real
        const void *next

    ctypedef struct hw_warp:
        const double *matrix
        const double *bounds
        Py_ssize_t planes
        const void *fill
        int interpolation

    void hw_warp_image(
        int simd, const hw_warp_source *image, const hw_warp *warp, void *out, Py_ssize_t height, Py_ssize_t width
    )


NEAREST = HW_NEAREST
BILINEAR = HW_BILINEAR

ctypedef fused value:
    uint8_t
    float


def sample(
    const value[:, :, :, ::1] images not None,
    const double[:, :, ::1] matrices not None,
    const double[:, :, ::1] bounds not None,
    const value[::1] fill not None,
    int interpolation,
    value[:, :, :, ::1] out not None,
):
    """Sample each pixel of `out` at the source point of its center.

    Parameters
    ----------
    images : uint8 or float32 (N, H, W, C), C order
    matrices : float64 (N, 3, 3)
        Finite; take homogeneous coordinates (x, y, 1) of the output to those of the image, (X, Y, Z); the
        source point is (X / Z, Y / Z).
    bounds : float64 (N, K, 3)
        Half planes (a, b, c) in coordinates of the output.
    fill : as images, (C,)
        A pixel: where Z is not positive, the source point lies outside of the image, or
        ``a * x + b * y + c`` is negative for one of the half planes.
    interpolation : int
        NEAREST takes the pixel that contains the source point, BILINEAR interpolates between the four centers
        around it, repeating those at the edge.
    out : as images, (N, H', W', C), C order
        Shares no memory with the inputs.

    Raises
    ------
    ValueError
        Shapes disagree, a size is 2**30 or more, a matrix is not finite, or memory is shared.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t count = images.shape[0], channels = images.shape[3], sample, i, j
    cdef hw_warp_source image
    cdef hw_warp warp
    if out.shape[0] != count or out.shape[3] != channels or fill.shape[0] != channels:
        raise ValueError(
            f"warp.sample: {count} images of {channels} channels, but out has {out.shape[0]} of {out.shape[3]}, "
            f"and fill {fill.shape[0]}"
        )
    if matrices.shape[0] != count or matrices.shape[1] != 3 or matrices.shape[2] != 3:
        raise ValueError(
            f"warp.sample: matrices are ({matrices.shape[0]}, {matrices.shape[1]}, {matrices.shape[2]}); "
            f"expected ({count}, 3, 3)"
        )
    if bounds.shape[0] != count or bounds.shape[2] != 3:
        raise ValueError(
            f"warp.sample: bounds are ({bounds.shape[0]}, {bounds.shape[1]}, {bounds.shape[2]}); "
            f"expected ({count}, any, 3)"
        )
    if interpolation != HW_NEAREST and interpolation != HW_BILINEAR:
        raise ValueError(f"warp.sample: interpolation is {interpolation}; expected NEAREST or BILINEAR")
    for i in (images.shape[1], images.shape[2], channels, out.shape[1], out.shape[2]):
        if i >= 1 << 30:
            raise ValueError(f"warp.sample: a size is {i}; expected less than {1 << 30}")
    for sample in range(count):
        for i in range(3):
            for j in range(3):
                if not isfinite(matrices[sample, i, j]):
                    raise ValueError(f"warp.sample: matrix {sample} is not finite")
    if count == 0 or channels == 0 or out.shape[1] == 0 or out.shape[2] == 0:
        return
    image.height = images.shape[1]
    image.width = images.shape[2]
    image.channels = channels
    image.real = value is float
    warp.planes = bounds.shape[1]
    warp.fill = &fill[0]
    warp.interpolation = interpolation
    cdef bint some = image.height > 0 and image.width > 0
    cdef uintptr_t start = <uintptr_t>&out[0, 0, 0, 0]
    cdef size_t nbytes = <size_t>(count * out.strides[0])
    if (
        (some and overlap(<uintptr_t>&images[0, 0, 0, 0], <size_t>(count * images.strides[0]), start, nbytes))
        or overlap(<uintptr_t>&fill[0], <size_t>channels * sizeof(value), start, nbytes)
        or overlap(<uintptr_t>&matrices[0, 0, 0], <size_t>count * 9 * sizeof(double), start, nbytes)
        or warp.planes
        and overlap(<uintptr_t>&bounds[0, 0, 0], <size_t>(count * warp.planes) * 3 * sizeof(double), start, nbytes)
    ):
        raise ValueError("warp.sample: out shares memory with what is read; expected another array")
    with nogil:
        for sample in range(count):
            image.data = &images[sample, 0, 0, 0] if some else NULL
            image.next = &images[sample + 1, 0, 0, 0] if some and sample + 1 < count else NULL
            warp.matrix = &matrices[sample, 0, 0]
            warp.bounds = &bounds[sample, 0, 0] if warp.planes else NULL
            hw_warp_image(variant, &image, &warp, &out[sample, 0, 0, 0], out.shape[1], out.shape[2])
