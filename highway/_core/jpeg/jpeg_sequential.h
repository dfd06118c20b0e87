/* Decoder of sequential 8-bit Huffman JPEGs, the usual format of photographs, by rows of pixels.
 *
 * It decodes gray and YCbCr pictures of one scan, with color at full size, at half the width, or at half the
 * width and height, bit-identical to libjpeg-turbo with its defaults. Everything else, including damaged
 * files, goes to libjpeg, which decides.
 */
#ifndef HIGHWAY_JPEG_SEQUENTIAL_H
#define HIGHWAY_JPEG_SEQUENTIAL_H

#include <stddef.h>
#include <stdint.h>

typedef struct hw_sequential hw_sequential;

enum hw_sequential_status {
    HW_SEQUENTIAL_OK = 0,
    HW_SEQUENTIAL_OTHER, /* not for this decoder */
    HW_SEQUENTIAL_NO_MEMORY,
};

hw_sequential *hw_sequential_new(void);
void hw_sequential_free(hw_sequential *decoder);

/* Reads the header; `width` and `height` are those that the caller read. */
int hw_sequential_open(hw_sequential *decoder, const uint8_t *bytes, size_t size, int width, int height);

/* Rows from `top` on, columns [left, right), of `channels` 1 (gray) or 3 (RGB) will be read. `simd` is a
 * variant of simd.h that this CPU can run. Skips the rows before `top`. */
int hw_sequential_begin(hw_sequential *decoder, int simd, int channels, int left, int right, int top);

/* Writes the next row, and up to HW_SAMPLES_SLACK bytes beyond it. */
int hw_sequential_read(hw_sequential *decoder, uint8_t *row);

#endif
