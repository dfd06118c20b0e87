"""Colors of uint8 images: programs of point-wise operations, sharpening, blur and noise.

Every variant gives the same bits. Results are rounded to the nearest whole number (halves up), and clamped to
0 to 255.
"""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.math cimport isfinite
from libc.stdint cimport int16_t, int32_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from highway._core cimport simd
from highway._core.pixels.arrays cimport address_range, check_packed, overlap, pixels_of
from highway._core.pixels.windows cimport hw_pixels


cdef extern from "pointwise.h" nogil:
    enum:
        HW_NONE
        HW_BRIGHTNESS
        HW_CONTRAST
        HW_SATURATION
        HW_HUE
        HW_GRAYSCALE
        HW_INVERT
        HW_SOLARIZE
        HW_POSTERIZE
        HW_AUTOCONTRAST
        HW_EQUALIZE
        HW_GAMMA
        HW_OPERATIONS
    size_t hw_pointwise_work(Py_ssize_t length)
    void hw_pointwise_run(
        int simd, const hw_pixels *image, const int32_t *operations, const float *arguments,
        Py_ssize_t length, void *work, uint8_t *out
    )

cdef extern from "filters.h" nogil:
    enum:
        HW_MOST_REACH
    size_t hw_filter_work(Py_ssize_t length, Py_ssize_t channels, Py_ssize_t columns)
    void hw_sharpen(int simd, const hw_pixels *image, float factor, void *work, uint8_t *out)
    void hw_gaussian(double sigma, Py_ssize_t length, int16_t *weights)
    void hw_blur(
        int simd, const hw_pixels *image, const int16_t *weights_y, Py_ssize_t reach_y,
        const int16_t *weights_x, Py_ssize_t reach_x, void *work, uint8_t *out
    )
    void hw_copy_rows(const hw_pixels *image, uint8_t *out)

cdef extern from "noise.h" nogil:
    ctypedef struct hw_stream:
        uint64_t seed
        uint32_t index
        uint32_t epoch
        uint32_t position
    void hw_noise_bytes(
        int simd, const hw_stream *stream, const uint8_t *data, Py_ssize_t count, float offset, float scale,
        uint8_t *out
    )
    void hw_noise_reals(
        int simd, const hw_stream *stream, const float *data, Py_ssize_t count, float offset, float scale,
        float low, float high, float *out
    )


NONE = HW_NONE
BRIGHTNESS = HW_BRIGHTNESS
CONTRAST = HW_CONTRAST
SATURATION = HW_SATURATION
HUE = HW_HUE
GRAYSCALE = HW_GRAYSCALE
INVERT = HW_INVERT
SOLARIZE = HW_SOLARIZE
POSTERIZE = HW_POSTERIZE
AUTOCONTRAST = HW_AUTOCONTRAST
EQUALIZE = HW_EQUALIZE
GAMMA = HW_GAMMA

MOST_FACTOR = 100.0
"""Highest factor of brightness, contrast, saturation and sharpness, and the highest gamma and gain."""

MOST_KERNEL = 2 * HW_MOST_REACH + 1
"""Longest side of the kernel of a blur."""

cdef float most_factor = 100.0

ctypedef fused sample_type:
    uint8_t
    float


cdef int check(
    str what, const uint8_t[:, :, :, :] images, uint8_t[:, :, :, ::1] out, bint in_place
) except -1:
    """Raise ValueError unless rows are packed, and out has the shape of images and its own memory (or is
    images, if allowed)."""
    cdef Py_ssize_t channels = images.shape[3], width = images.shape[2]
    cdef uintptr_t first
    cdef size_t nbytes
    cdef bint same
    if (
        out.shape[0] != images.shape[0] or out.shape[1] != images.shape[1] or out.shape[2] != width
        or out.shape[3] != channels
    ):
        raise ValueError(
            f"color.{what}: images are ({images.shape[0]}, {images.shape[1]}, {width}, {channels}) and out is "
            f"({out.shape[0]}, {out.shape[1]}, {out.shape[2]}, {out.shape[3]}); expected one shape"
        )
    if channels != 1 and channels != 3:
        raise ValueError(f"color.{what}: images have {channels} channels; expected 1 or 3")
    if images.shape[0] == 0 or images.shape[1] == 0 or width == 0:
        return 0
    check_packed("color", what, images)
    same = (
        &images[0, 0, 0, 0] == &out[0, 0, 0, 0]
        and (images.shape[1] == 1 or images.strides[1] == out.strides[1])
        and (images.shape[0] == 1 or images.strides[0] == out.strides[0])
    )
    if same and in_place:
        return 0
    nbytes = address_range(images, &first)
    if overlap(first, nbytes, <uintptr_t>&out[0, 0, 0, 0], <size_t>(out.shape[0] * out.strides[0])):
        raise ValueError(f"color.{what}: images and out share memory; expected another array")
    return 0


cdef int check_program(const int32_t[:, ::1] operations, const float[:, :, ::1] arguments, Py_ssize_t count) except -1:
    """Raise ValueError unless there is a program for each image, with arguments in range."""
    cdef Py_ssize_t sample, k
    cdef int32_t code
    cdef float first, second
    cdef bint fits
    if (
        operations.shape[0] != count or arguments.shape[0] != count
        or arguments.shape[1] != operations.shape[1] or arguments.shape[2] != 2
    ):
        raise ValueError(
            f"color.run: operations are ({operations.shape[0]}, {operations.shape[1]}) and arguments are "
            f"({arguments.shape[0]}, {arguments.shape[1]}, {arguments.shape[2]}) for {count} images; "
            f"expected ({count}, K) and ({count}, K, 2)"
        )
    for sample in range(count):
        for k in range(operations.shape[1]):
            code = operations[sample, k]
            first = arguments[sample, k, 0]
            second = arguments[sample, k, 1]
            if code < 0 or code >= HW_OPERATIONS:
                raise ValueError(
                    f"color.run: operation {k} of image {sample} is {code}; expected 0 to {HW_OPERATIONS - 1}"
                )
            fits = True
            if code == HW_BRIGHTNESS or code == HW_CONTRAST or code == HW_SATURATION:
                fits = 0.0 <= first <= most_factor
            elif code == HW_HUE:
                fits = -0.5 <= first <= 0.5
            elif code == HW_SOLARIZE:
                fits = isfinite(first)
            elif code == HW_POSTERIZE:
                fits = 0.0 <= first <= 8.0
            elif code == HW_GAMMA:
                fits = 0.0 <= first <= most_factor and 0.0 <= second <= most_factor
            if not fits:
                raise ValueError(
                    f"color.run: arguments of operation {k} of image {sample} are {first} and {second}, "
                    f"out of the range of operation {code}"
                )
    return 0


def run(
    const uint8_t[:, :, :, :] images not None,
    const int32_t[:, ::1] operations not None,
    const float[:, :, ::1] arguments not None,
    uint8_t[:, :, :, ::1] out not None,
):
    """Run a program of point-wise operations over every image.

    Each operation gives the same result as alone, rounded to bytes, but the program reads and writes memory
    once, plus once for each operation that needs the whole image (contrast, autocontrast, equalize), when an
    image of usual size is in the cache.

    Operations are those of torchvision.transforms.v2.functional for uint8, except that results are rounded to
    the nearest instead of truncated. SATURATION, HUE and GRAYSCALE do not change images with one channel.
    Exact definitions:

    - NONE. Arguments not named here are ignored.
    - BRIGHTNESS (factor, 0 to 100): value * factor.
    - CONTRAST (factor, 0 to 100): value * factor + mean * (1 - factor). Mean is that of gray, which is
      0.2989 R + 0.587 G + 0.114 B, not rounded. Here and for BRIGHTNESS, factors below 4 are in fixed point:
      before rounding, the result is within 0.05 of exact arithmetic.
    - SATURATION (factor, 0 to 100): gray + factor * (value - gray), with the factor in 15 significant bits.
    - HUE (turns, -0.5 to 0.5): hue in HSV is turned, saturation and value are kept; hues are whole multiples
      of 1 / 24576 turn.
    - GRAYSCALE: (9794 R + 19235 G + 3736 B) / 32768 in all channels.
    - INVERT: 255 - value.
    - SOLARIZE (threshold): 255 - value where value is threshold or more.
    - POSTERIZE (bits, 0 to 8): keeps that many upper bits.
    - AUTOCONTRAST: lowest value of each channel to 0, highest to 255; a channel with a single value is
    unchanged.
    - EQUALIZE: as PIL.ImageOps.equalize, each channel separately.
    - GAMMA (gamma and gain, 0 to 100): 255 * gain * (value / 255) ** gamma, in float64.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed, C 1 or 3
    operations : int32 (N, K)
        A program for each image.
    arguments : float32 (N, K, 2)
    out : uint8 (N, H, W, C), C order
        May be `images` itself.

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, there is no such operation, an argument is out of range, or out
        shares memory with images without being the same.
    MemoryError
        No memory for a program.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t sample, length = operations.shape[1]
    cdef const float *values
    cdef const int32_t *codes
    cdef hw_pixels image
    cdef void *work
    check("run", images, out, True)
    check_program(operations, arguments, images.shape[0])
    if images.shape[0] == 0 or images.shape[1] == 0 or images.shape[2] == 0:
        return
    work = PyMem_RawCalloc(1, hw_pointwise_work(length))
    if work == NULL:
        raise MemoryError
    codes = &operations[0, 0] if length else NULL
    values = &arguments[0, 0, 0] if length else NULL
    image = pixels_of(images)
    if images.shape[1] == 1:
        image.row_stride = out.strides[1]
    with nogil:
        for sample in range(images.shape[0]):
            image.data = &images[sample, 0, 0, 0]
            hw_pointwise_run(
                variant, &image, codes + sample * length, values + 2 * sample * length, length, work,
                &out[sample, 0, 0, 0],
            )
    PyMem_RawFree(work)


def sharpen(
    const uint8_t[:, :, :, :] images not None,
    const float[::1] factors not None,
    uint8_t[:, :, :, ::1] out not None,
):
    """Sharpen or smooth every image: smooth + factor * (value - smooth).

    Smooth is the mean of 3 by 3 pixels, with weight 5 for the center, rounded; the border is unchanged, and
    so is an image of less than 3 rows or columns. torchvision's adjust_sharpness, but rounded at the end.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed, C 1 or 3
    factors : float32 (N,)
        0 to 100: 0 is smooth, 1 copies.
    out : uint8 (N, H, W, C), C order

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, a factor is out of range, or out shares memory with images.
    MemoryError
        No memory for a row.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t sample
    cdef hw_pixels image
    cdef void *work
    check("sharpen", images, out, False)
    check_numbers("sharpen", "factors", factors, images.shape[0], 0, most_factor)
    if images.shape[0] == 0 or images.shape[1] == 0 or images.shape[2] == 0:
        return
    work = PyMem_RawCalloc(1, hw_filter_work(images.shape[2] * images.shape[3], images.shape[3], 0))
    if work == NULL:
        raise MemoryError
    image = pixels_of(images)
    with nogil:
        for sample in range(images.shape[0]):
            image.data = &images[sample, 0, 0, 0]
            if factors[sample] == 1.0:
                hw_copy_rows(&image, &out[sample, 0, 0, 0])
            else:
                hw_sharpen(variant, &image, factors[sample], work, &out[sample, 0, 0, 0])
    PyMem_RawFree(work)


def blur(
    const uint8_t[:, :, :, :] images not None,
    const float[::1] sigmas not None,
    Py_ssize_t rows,
    Py_ssize_t columns,
    uint8_t[:, :, :, ::1] out not None,
):
    """Blur every image with a Gaussian, sigma by sigma, mirrored at the borders without repeating them.

    torchvision's gaussian_blur. Rows first, then columns; weights in 1 / 32768, intermediate sums in 1 / 64,
    each product rounded: the result is within 1 of exact arithmetic, and nearly always equal.

    Parameters
    ----------
    images : uint8 (N, H, W, C), rows packed, C 1 or 3
    sigmas : float32 (N,)
        Standard deviations in pixels, 0 or more; 0 copies.
    rows, columns : int
        Size of the kernel, odd, 1 to 201.
    out : uint8 (N, H, W, C), C order

    Raises
    ------
    ValueError
        Shapes disagree, rows are not packed, a number is out of range, or out shares memory with images.
    MemoryError
        No memory for a row.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t sample
    cdef int16_t[HW_MOST_REACH + 1] weights_y
    cdef int16_t[HW_MOST_REACH + 1] weights_x
    cdef hw_pixels image
    cdef void *work
    check("blur", images, out, False)
    check_numbers("blur", "sigmas", sigmas, images.shape[0], 0, 1e9)
    if not (rows % 2 == 1 and columns % 2 == 1 and 1 <= rows <= MOST_KERNEL and 1 <= columns <= MOST_KERNEL):
        raise ValueError(
            f"color.blur: kernel of {rows} rows and {columns} columns; expected odd numbers from 1 to {MOST_KERNEL}"
        )
    if images.shape[0] == 0 or images.shape[1] == 0 or images.shape[2] == 0:
        return
    work = PyMem_RawCalloc(1, hw_filter_work(images.shape[2] * images.shape[3], images.shape[3], columns))
    if work == NULL:
        raise MemoryError
    image = pixels_of(images)
    with nogil:
        for sample in range(images.shape[0]):
            image.data = &images[sample, 0, 0, 0]
            if sigmas[sample] == 0:
                hw_copy_rows(&image, &out[sample, 0, 0, 0])
                continue
            hw_gaussian(sigmas[sample], rows, weights_y)
            hw_gaussian(sigmas[sample], columns, weights_x)
            hw_blur(
                variant, &image, weights_y, rows // 2, weights_x, columns // 2, work, &out[sample, 0, 0, 0]
            )
    PyMem_RawFree(work)


cdef int check_numbers(
    str what, str name, const float[::1] numbers, Py_ssize_t count, float low, float high
) except -1:
    """Raise ValueError unless there is a number for each image, in range."""
    cdef Py_ssize_t sample
    if numbers.shape[0] != count:
        raise ValueError(f"color.{what}: {numbers.shape[0]} {name} for {count} images; expected one for each")
    for sample in range(count):
        if not low <= numbers[sample] <= high:
            raise ValueError(
                f"color.{what}: {name}[{sample}] is {numbers[sample]}; expected {low:g} to {high:g}"
            )
    return 0


def add_noise(
    const sample_type[:, ::1] images not None,
    uint64_t seed,
    uint32_t epoch,
    uint32_t position,
    const uint32_t[::1] indices not None,
    const float[::1] offsets not None,
    const float[::1] scales not None,
    float low,
    float high,
    sample_type[:, ::1] out not None,
):
    """Add normally distributed numbers: scale * number + offset, in float32.

    The numbers of a sample come from its blocks 1, 2, ... of Philox4x32-10 (block 0 is reserved for draws): a
    function of seed, epoch, position, index and place in the image. Each pair of numbers takes 32 bits, by
    the method of Box and Muller with 2**20 radii and 4096 angles: mean 0 and variance 1 to 1e-5, none beyond
    5.4; the distribution function is right to 1e-4.

    Parameters
    ----------
    images : uint8 or float32 (N, L), C order
    seed, epoch, position : int
        64, 32 and 32 bits.
    indices : uint32 (N,)
    offsets, scales : float32 (N,)
        In units of the images, finite, scales 0 or more. Where both are 0 the image is copied.
    low, high : float
        Range of float32 results; uint8 results are rounded and clamped to 0 to 255.
    out : as images
        May be `images` itself.

    Raises
    ------
    ValueError
        Shapes disagree, a row has 2**32 values or more, a number is out of range, or out shares memory with
        images without being the same.
    """
    cdef int variant = simd.level
    cdef Py_ssize_t sample, length = images.shape[1]
    cdef uintptr_t start, place
    cdef size_t nbytes = <size_t>(images.shape[0] * length) * sizeof(sample_type)
    cdef hw_stream stream
    if out.shape[0] != images.shape[0] or out.shape[1] != length:
        raise ValueError(
            f"color.add_noise: images are ({images.shape[0]}, {length}) and out is "
            f"({out.shape[0]}, {out.shape[1]}); expected one shape"
        )
    if <uint64_t>length >= <uint64_t>1 << 32:
        raise ValueError(f"color.add_noise: images of {length} values; expected fewer than 2**32")
    if indices.shape[0] != images.shape[0]:
        raise ValueError(
            f"color.add_noise: {indices.shape[0]} indices for {images.shape[0]} images; expected one for each"
        )
    check_numbers("add_noise", "offsets", offsets, images.shape[0], -1e9, 1e9)
    check_numbers("add_noise", "scales", scales, images.shape[0], 0, 1e9)
    if images.shape[0] == 0 or length == 0:
        return
    start = <uintptr_t>&images[0, 0]
    place = <uintptr_t>&out[0, 0]
    if start != place and overlap(start, nbytes, place, nbytes):
        raise ValueError("color.add_noise: images and out share memory; expected another array")
    stream.seed = seed
    stream.epoch = epoch
    stream.position = position
    with nogil:
        for sample in range(images.shape[0]):
            if offsets[sample] == 0 and scales[sample] == 0:
                if start != place:
                    memcpy(&out[sample, 0], &images[sample, 0], <size_t>length * sizeof(sample_type))
                continue
            stream.index = indices[sample]
            if sample_type is uint8_t:
                hw_noise_bytes(
                    variant, &stream, &images[sample, 0], length, offsets[sample], scales[sample],
                    &out[sample, 0],
                )
            else:
                hw_noise_reals(
                    variant, &stream, &images[sample, 0], length, offsets[sample], scales[sample], low, high,
                    &out[sample, 0],
                )
