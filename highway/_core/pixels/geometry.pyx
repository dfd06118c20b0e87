"""Flips, transposes and windows of image batches, for pixels of any number of bytes.

Input is uint8 (N, H, W, C) whose rows are packed (the strides of a pixel and of a byte are C and 1);
samples and rows may have any stride. Pass arrays of other dtypes as bytes, with C the bytes of a pixel.
"""

from libc.stdint cimport int64_t, uint8_t, uintptr_t
from libc.string cimport memcpy

from highway._core cimport simd
from highway._core.pixels.arrays cimport address_range, check_packed, has_pixels, overlap, pixels_of
from highway._core.pixels.windows cimport (
    check_places,
    check_sizes,
    hw_pixels,
    hw_window,
    hw_window_copy,
    window_at,
)


cdef extern from "pixels.h" nogil:
    void hw_reverse(
        int simd, const uint8_t *source, Py_ssize_t source_stride, uint8_t *out, Py_ssize_t out_stride,
        Py_ssize_t rows, Py_ssize_t pixels, Py_ssize_t size
    )
    void hw_reverse_in_place(
        int simd, uint8_t *image, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t pixels, Py_ssize_t size
    )
    void hw_transpose(
        int simd, const uint8_t *source, Py_ssize_t source_stride, uint8_t *out, Py_ssize_t rows, Py_ssize_t columns,
        Py_ssize_t size
    )
    void hw_swap(uint8_t *left, uint8_t *right, Py_ssize_t size)


cdef struct StridedImages:
    Py_ssize_t count
    Py_ssize_t height
    Py_ssize_t width
    Py_ssize_t size  # bytes of a pixel
    Py_ssize_t sample_stride
    Py_ssize_t row_stride
    uint8_t *data  # NULL if there are no bytes


cdef int describe(const uint8_t[:, :, :, :] array, str what, StridedImages *images) except -1:
    """Fill in `images`; raise ValueError if rows are not packed."""
    images.count = array.shape[0]
    images.height = array.shape[1]
    images.width = array.shape[2]
    images.size = array.shape[3]
    images.sample_stride = array.strides[0]
    images.row_stride = array.strides[1]
    images.data = NULL
    check_packed("geometry", what, array)
    if has_pixels(array):
        images.data = <uint8_t *>&array[0, 0, 0, 0]
    return 0


cdef bint share_memory(const uint8_t[:, :, :, :] images, uint8_t[:, :, :, ::1] out) noexcept:
    cdef uintptr_t first
    cdef size_t nbytes
    if not has_pixels(images) or not has_pixels(out):
        return False
    nbytes = address_range(images, &first)
    return overlap(first, nbytes, <uintptr_t>&out[0, 0, 0, 0], <size_t>(out.shape[0] * out.strides[0]))


cdef int describe_flip(
    str what,
    const uint8_t[:, :, :, :] images,
    const uint8_t[::1] flags,
    uint8_t[:, :, :, ::1] out,
    StridedImages *source,
    StridedImages *target,
) except -1:
    describe(images, what, source)
    describe(out, what, target)
    if (
        target.count != source.count or target.height != source.height
        or target.width != source.width or target.size != source.size
    ):
        raise ValueError(
            f"geometry.{what}: images are ({source.count}, {source.height}, {source.width}, {source.size}), "
            f"out is ({target.count}, {target.height}, {target.width}, {target.size}); expected the same"
        )
    if share_memory(images, out):
        raise ValueError(f"geometry.{what}: images and out share memory; use {what}_in_place")
    return check_flags(what, source, flags)


cdef int check_flags(str what, const StridedImages *images, const uint8_t[::1] flags) except -1:
    if flags.shape[0] != images.count:
        raise ValueError(
            f"geometry.{what}: {flags.shape[0]} flags for {images.count} images; expected one for each"
        )
    return 0


cdef void copy_image(const StridedImages *source, const StridedImages *target, Py_ssize_t sample) noexcept nogil:
    cdef const uint8_t *image = source.data + sample * source.sample_stride
    cdef uint8_t *out = target.data + sample * target.sample_stride
    cdef Py_ssize_t row, length = source.width * source.size
    if source.row_stride == length:
        memcpy(out, image, source.height * length)
        return
    for row in range(source.height):
        memcpy(out + row * target.row_stride, image + row * source.row_stride, length)


def flip_x(
    const uint8_t[:, :, :, :] images not None, const uint8_t[::1] flags not None, uint8_t[:, :, :, ::1] out
    not None
):
    """Copy images, those with a flag mirrored left to right.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    flags : uint8 (N,)
        Not 0: mirrored.
    out : uint8 (N, H, W, C), C order
        Shares no memory with `images`.

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, or memory is shared.
    """
    cdef int variant = simd.level
    cdef StridedImages source, target
    cdef Py_ssize_t sample
    describe_flip("flip_x", images, flags, out, &source, &target)
    if source.data == NULL:
        return
    with nogil:
        for sample in range(source.count):
            if not flags[sample]:
                copy_image(&source, &target, sample)
                continue
            hw_reverse(
                variant,
                source.data + sample * source.sample_stride,
                source.row_stride,
                target.data + sample * target.sample_stride,
                target.row_stride,
                source.height,
                source.width,
                source.size,
            )


def flip_x_in_place(uint8_t[:, :, :, :] images not None, const uint8_t[::1] flags not None):
    """Mirror the images that have a flag left to right.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    flags : uint8 (N,)
        Not 0: mirrored.

    Raises
    ------
    ValueError
        Shapes disagree, or rows are not packed.
    """
    cdef int variant = simd.level
    cdef StridedImages target
    cdef Py_ssize_t sample
    describe(images, "flip_x_in_place", &target)
    check_flags("flip_x_in_place", &target, flags)
    if target.data == NULL:
        return
    with nogil:
        for sample in range(target.count):
            if flags[sample]:
                hw_reverse_in_place(
                    variant,
                    target.data + sample * target.sample_stride,
                    target.row_stride,
                    target.height,
                    target.width,
                    target.size,
                )


def flip_y(
    const uint8_t[:, :, :, :] images not None, const uint8_t[::1] flags not None, uint8_t[:, :, :, ::1] out
    not None
):
    """Copy images, those with a flag mirrored top to bottom.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    flags : uint8 (N,)
        Not 0: mirrored.
    out : uint8 (N, H, W, C), C order
        Shares no memory with `images`.

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, or memory is shared.
    """
    cdef StridedImages source, target
    cdef Py_ssize_t sample, row
    describe_flip("flip_y", images, flags, out, &source, &target)
    if source.data == NULL:
        return
    with nogil:
        for sample in range(source.count):
            if not flags[sample]:
                copy_image(&source, &target, sample)
                continue
            for row in range(source.height):
                memcpy(
                    target.data + sample * target.sample_stride + (target.height - 1 - row) *
                    target.row_stride, source.data + sample * source.sample_stride + row *
                    source.row_stride, source.width * source.size,
                )


def flip_y_in_place(uint8_t[:, :, :, :] images not None, const uint8_t[::1] flags not None):
    """Mirror the images that have a flag top to bottom.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    flags : uint8 (N,)
        Not 0: mirrored.

    Raises
    ------
    ValueError
        Shapes disagree, or rows are not packed.
    """
    cdef StridedImages target
    cdef Py_ssize_t sample, row
    cdef uint8_t *image
    describe(images, "flip_y_in_place", &target)
    check_flags("flip_y_in_place", &target, flags)
    if target.data == NULL:
        return
    with nogil:
        for sample in range(target.count):
            if flags[sample]:
                image = target.data + sample * target.sample_stride
                for row in range(target.height // 2):
                    hw_swap(
                        image + row * target.row_stride,
                        image + (target.height - 1 - row) * target.row_stride,
                        target.width * target.size,
                    )


def transpose(
    const uint8_t[:, :, :, :] images not None, const uint8_t[::1] flags not None, uint8_t[:, :, :, ::1] out
    not None
):
    """Copy images, those with a flag with rows and columns exchanged.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    flags : uint8 (N,)
        Not 0: transposed. All of them are, unless H is W.
    out : uint8 (N, W, H, C), C order
        Shares no memory with `images`.

    Raises
    ------
    ValueError
        Shapes disagree, an image that keeps its shape is not square, rows are not packed, or memory is shared.
    """
    cdef int variant = simd.level
    cdef StridedImages source, target
    cdef Py_ssize_t sample
    describe(images, "transpose", &source)
    describe(out, "transpose", &target)
    if (
        target.count != source.count or target.height != source.width
        or target.width != source.height or target.size != source.size
    ):
        raise ValueError(
            f"geometry.transpose: images are ({source.count}, {source.height}, {source.width}, {source.size}), "
            f"out is ({target.count}, {target.height}, {target.width}, {target.size}); "
            "expected height and width exchanged"
        )
    if share_memory(images, out):
        raise ValueError("geometry.transpose: images and out share memory")
    check_flags("transpose", &source, flags)
    if source.height != source.width:
        for sample in range(source.count):
            if not flags[sample]:
                raise ValueError(
                    f"geometry.transpose: image {sample} is ({source.height}, {source.width}) and has no flag; "
                    "expected one for each image that is not square"
                )
    if source.data == NULL:
        return
    with nogil:
        for sample in range(source.count):
            if not flags[sample]:
                copy_image(&source, &target, sample)
                continue
            hw_transpose(
                variant,
                source.data + sample * source.sample_stride,
                source.row_stride,
                target.data + sample * target.sample_stride,
                source.height,
                source.width,
                source.size,
            )


def windows(
    const uint8_t[:, :, :, :] images not None,
    const int64_t[:, ::1] places not None,
    const uint8_t[::1] fill not None,
    uint8_t[:, :, :, ::1] out not None,
):
    """Copy a window of each image, mirrored or not; parts outside of the image are filled.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed
    places : int64 (N, 4)
        Row and column of the image where the window's first pixel is, -2**31 to 2**31; then, not 0, whether the
        window is mirrored left to right, and top to bottom.
    fill : uint8 (C,)
        A pixel.
    out : uint8 (N, h, w, C), C order
        Shares no memory with `images`; h and w are the size of the windows.

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, an offset is out of range, or memory is shared.
    """
    cdef int variant = simd.level
    cdef StridedImages source, target
    cdef hw_pixels image = pixels_of(images)
    cdef hw_window window
    cdef Py_ssize_t sample
    describe(images, "windows", &source)
    describe(out, "windows", &target)
    if target.count != source.count or target.size != source.size:
        raise ValueError(
            f"geometry.windows: {source.count} images of {source.size} channels, "
            f"but out has {target.count} of {target.size}"
        )
    check_sizes("geometry.windows", source.height, source.width, target.height, target.width)
    check_places("geometry.windows", places, fill, source.count, source.size)
    if share_memory(images, out):
        raise ValueError("geometry.windows: images and out share memory")
    if target.data == NULL:
        return
    with nogil:
        for sample in range(source.count):
            image.data = source.data + sample * source.sample_stride
            window = window_at(&places[sample, 0], target.height, target.width, &fill[0])
            hw_window_copy(
                variant, &image, &window, 0, target.height, target.data + sample * target.sample_stride
            )
