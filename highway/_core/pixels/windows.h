/* Windows of pictures, mirrored or not: copied, or normalized on the way, a few rows at a time. */

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

/* The window's first pixel is at (top, left) of the picture, 31 bits and sign; what of it lies outside of the
 * picture is fill. Then it is mirrored. */
typedef struct {
    ptrdiff_t top, left, height, width;
    int mirror_x, mirror_y;
    const uint8_t *fill;
} hw_window;

/* `simd` is a variant of simd.h that this CPU can run. */

/* Rows first to first + rows of the window go to out, without gaps. */
void hw_window_copy(int simd, const hw_pixels *picture, const hw_window *window, ptrdiff_t first,
                    ptrdiff_t rows, uint8_t *out);

/* Bytes that hw_window_normalize needs at `work` for windows of rows of `length` bytes. */
size_t hw_window_work(ptrdiff_t length);

/* The whole window, as float or half precision; bytes are channels. */
void hw_window_normalize(int simd, const hw_pixels *picture, const hw_window *window,
                         const hw_numbers *numbers, uint8_t *work, void *out);

#endif
