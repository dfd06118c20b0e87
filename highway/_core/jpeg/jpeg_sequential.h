/* Sequential 8-bit Huffman JPEGs, which photographs are, as rows of pixels: our own decoder.
 *
 * It takes gray and YCbCr pictures of one scan, with color at full size, at half the width, or at half the
 * width and height, and gives to the bit what libjpeg-turbo gives with its defaults. Everything else, and
 * whatever is not entirely sound, it leaves to libjpeg, which decides what is still a picture.
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

/* Reads the header; `width` and `height` are what the caller knows of it already. */
int hw_sequential_open(hw_sequential *decoder, const uint8_t *bytes, size_t size, int width, int height);

/* Rows from `top` on, columns [left, right), of `channels` 1 (gray) or 3 (RGB) will be read. `simd` is a
 * variant of simd.h that this CPU can run. Passes over what is above. */
int hw_sequential_begin(hw_sequential *decoder, int simd, int channels, int left, int right, int top);

/* Writes the next row, and up to HW_SAMPLES_SLACK bytes beyond it. */
int hw_sequential_read(hw_sequential *decoder, uint8_t *row);

#endif
