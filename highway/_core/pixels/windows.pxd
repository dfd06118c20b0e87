# Windows of images: shared by the kernels for uint8 and for real numbers.

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t

# float16 is passed as its bits in uint16, and bfloat16 as its bits in int16.
ctypedef fused real:
    float
    uint16_t
    int16_t


cdef extern from "pixels.h" nogil:
    ctypedef struct hw_normalization:
        const float *scale
        const float *bias
        int type
        int planar
        int streamed

    enum: HW_STREAMED_BYTES

    enum:
        HW_FLOAT32
        HW_FLOAT16
        HW_BFLOAT16

    void hw_normalize(
        int simd, const uint8_t *source, Py_ssize_t pixels, Py_ssize_t channels,
        const hw_normalization *normalization, void *image, Py_ssize_t at, Py_ssize_t plane
    )
    void hw_normalize16(
        const uint16_t *source, Py_ssize_t pixels, Py_ssize_t channels, const hw_normalization *normalization,
        void *image, Py_ssize_t at, Py_ssize_t plane
    )
    void hw_normalization_fence(const hw_normalization *normalization)


cdef extern from "windows.h" nogil:
    ctypedef struct hw_pixels:
        const uint8_t *data
        Py_ssize_t row_stride
        Py_ssize_t height
        Py_ssize_t width
        Py_ssize_t size

    ctypedef struct hw_window:
        Py_ssize_t top
        Py_ssize_t left
        Py_ssize_t height
        Py_ssize_t width
        int mirror_x
        int mirror_y
        const uint8_t *fill

    void hw_window_copy(
        int simd, const hw_pixels *image, const hw_window *window, Py_ssize_t first, Py_ssize_t rows,
        uint8_t *out
    )
    size_t hw_window_work(Py_ssize_t length)
    void hw_window_normalize(
        int simd, const hw_pixels *image, const hw_window *window, const hw_normalization *normalization,
        uint8_t *work, void *out
    )


cdef inline hw_normalization normalization_of(
    const float[::1] scale, const float[::1] bias, real[:, :, :, ::1] out, bint planar
):
    """For images in `out`, with at least one channel."""
    cdef hw_normalization normalization
    normalization.scale = &scale[0]
    normalization.bias = &bias[0]
    normalization.type = HW_FLOAT32 if real is float else HW_FLOAT16 if real is uint16_t else HW_BFLOAT16
    normalization.planar = planar
    normalization.streamed = <size_t>(out.shape[0] * out.strides[0]) >= HW_STREAMED_BYTES
    return normalization


cdef inline int check_places(
    str what, const int64_t[:, ::1] places, const uint8_t[::1] fill, Py_ssize_t count, Py_ssize_t size
) except -1:
    """Raise ValueError unless there is a place for each image, in range, and a fill pixel."""
    cdef Py_ssize_t sample
    cdef int64_t limit = <int64_t>1 << 31
    if places.shape[0] != count or places.shape[1] != 4:
        raise ValueError(
            f"{what}: places are ({places.shape[0]}, {places.shape[1]}) for {count} images; expected "
            f"({count}, 4): top, left, mirrored in x, mirrored in y"
        )
    if fill.shape[0] != size:
        raise ValueError(f"{what}: fill of {fill.shape[0]} bytes for pixels of {size}")
    for sample in range(count):
        if not -limit <= places[sample, 0] <= limit or not -limit <= places[sample, 1] <= limit:
            raise ValueError(
                f"{what}: window {sample} at ({places[sample, 0]}, {places[sample, 1]}); "
                "expected -2**31 to 2**31"
            )
    return 0


cdef inline int check_sizes(
    str what, Py_ssize_t height, Py_ssize_t width, Py_ssize_t out_height, Py_ssize_t out_width
) except -1:
    if max(height, width, out_height, out_width) > <Py_ssize_t>1 << 31:
        raise ValueError(f"{what}: an image of more than 2**31 rows or columns")
    return 0


cdef inline hw_window window_at(
    const int64_t *place, Py_ssize_t height, Py_ssize_t width, const uint8_t *fill
) noexcept nogil:
    cdef hw_window window
    window.top = <Py_ssize_t>place[0]
    window.left = <Py_ssize_t>place[1]
    window.mirror_x = place[2] != 0
    window.mirror_y = place[3] != 0
    window.height = height
    window.width = width
    window.fill = fill
    return window
