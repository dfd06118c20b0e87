# Arrays of images in memory: checks before kernels use their addresses, shared by the kernels for pixels.

from libc.stdint cimport uint8_t, uintptr_t

from highway._core.pixels.windows cimport hw_pixels


cdef inline bint overlap(uintptr_t left, size_t left_bytes, uintptr_t right, size_t right_bytes) noexcept nogil:
    return left < right + right_bytes and right < left + left_bytes


cdef inline bint has_pixels(const uint8_t[:, :, :, :] images) noexcept:
    return images.shape[0] > 0 and images.shape[1] > 0 and images.shape[2] > 0 and images.shape[3] > 0


cdef inline size_t address_range(const uint8_t[:, :, :, :] images, uintptr_t *first) noexcept:
    """Return the number of bytes from the first to the last of images with packed rows; there are pixels."""
    cdef Py_ssize_t samples = (images.shape[0] - 1) * images.strides[0]
    cdef Py_ssize_t rows = (images.shape[1] - 1) * images.strides[1]
    first[0] = <uintptr_t>&images[0, 0, 0, 0] + <uintptr_t>(min(samples, 0) + min(rows, 0))
    return <size_t>(max(samples, -samples) + max(rows, -rows) + images.shape[2] * images.shape[3])


cdef inline int check_packed(str module, str what, const uint8_t[:, :, :, :] images) except -1:
    """Raise ValueError unless the rows of images are packed; those of images without pixels are."""
    cdef Py_ssize_t size = images.shape[3], width = images.shape[2]
    if has_pixels(images) and (
        (size > 1 and images.strides[3] != 1) or (width > 1 and images.strides[2] != size)
    ):
        raise ValueError(
            f"{module}.{what}: strides {images.strides[2]} and {images.strides[3]} in rows of pixels of {size} bytes; "
            "expected packed rows, copy the array first"
        )
    return 0


cdef inline hw_pixels pixels_of(const uint8_t[:, :, :, :] images) noexcept:
    """Describe one of the images, except its data."""
    cdef hw_pixels image
    image.data = NULL
    image.row_stride = images.strides[1]
    image.height = images.shape[1]
    image.width = images.shape[2]
    image.size = images.shape[3]
    return image
