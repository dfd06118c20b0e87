/* Windows of images, mirrored or not: copied, or normalized in the same pass, a few rows at a time. */

#ifndef HIGHWAY_WINDOWS_H
#define HIGHWAY_WINDOWS_H

#include <stddef.h>
#include <stdint.h>

#include "pixels.h"

/* Pixels of `size` bytes, packed in rows; a stride is the bytes from row to row. */
typedef struct {
    const uint8_t *data;
    ptrdiff_t row_stride, height, width, size;
} hw_pixels;

/* The window's first pixel is at (top, left) of the image, 31 bits and sign; parts outside of the image
 * are `fill`. Then it is mirrored. */
typedef struct {
    ptrdiff_t top, left, height, width;
    int mirror_x, mirror_y;
    const uint8_t *fill;
} hw_window;

/* `simd` is a variant of simd.h that this CPU can run. */

/* Copies rows first to first + rows of the window to `out`, without gaps. */
void hw_window_copy(int simd, const hw_pixels *image, const hw_window *window, ptrdiff_t first,
                    ptrdiff_t rows, uint8_t *out);

/* Bytes of workspace of hw_window_normalize for windows with rows of `length` bytes. */
size_t hw_window_work(ptrdiff_t length);

/* Writes the whole window, as float or half precision; bytes are channels. */
void hw_window_normalize(int simd, const hw_pixels *image, const hw_window *window,
                         const hw_normalization *normalization, uint8_t *work, void *out);

#endif
