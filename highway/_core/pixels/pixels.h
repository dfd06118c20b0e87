/* Leaf functions over rows of pixels: reverse, transpose, swap, fill, normalize.

   A pixel is any number of bytes in a row. Nothing here allocates or fails; every variant gives the same
   bits. */

#ifndef HIGHWAY_PIXELS_H
#define HIGHWAY_PIXELS_H

#include <stddef.h>
#include <stdint.h>

#include "simd.h"

/* `simd` is a variant of simd.h that this CPU can run. */

/* Reverse the order of the pixels in each row; in and out do not overlap. A stride is the bytes from row to
 * row. */
void hw_reverse(int simd, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t out_stride,
                ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t size);

void hw_reverse_in_place(int simd, uint8_t *image, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t pixels,
                         ptrdiff_t size);

/* Rows become columns; `out` is packed and does not overlap `in`. */
void hw_transpose(int simd, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t rows,
                  ptrdiff_t columns, ptrdiff_t size);

/* Exchange two rows that do not overlap. */
void hw_swap(uint8_t *left, uint8_t *right, ptrdiff_t bytes);

/* Write one pixel `pixels` times. */
void hw_fill(uint8_t *out, ptrdiff_t pixels, const uint8_t *pixel, ptrdiff_t size);

/* Types of numbers; the two short ones are rounded once more, to nearest, ties to even. */
enum { HW_FLOAT32, HW_FLOAT16, HW_BFLOAT16 };

/* Conversion of samples: sample * scale + bias in float, both rounded, with a scale and bias for each
 * channel. */
typedef struct {
    const float *scale, *bias;
    int type;
    int planar;   /* channel c of an image starts c planes after its beginning */
    int streamed; /* past the caches if possible; then call hw_normalization_fence */
} hw_normalization;

/* Batches larger than this leave the caches before they are read. */
#define HW_STREAMED_BYTES ((size_t)16 << 20)

/* Converts pixels to numbers; the first is number `at` of an image of `plane` pixels that begins at `image`.
 * Factors are finite: short types do not keep a NaN. */
void hw_normalize(int simd, const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                  const hw_normalization *normalization, void *image, ptrdiff_t at, ptrdiff_t plane);

/* The same for pixels of 16-bit numbers, without vector code of its own. */
void hw_normalize16(const uint16_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                    const hw_normalization *normalization, void *image, ptrdiff_t at, ptrdiff_t plane);

/* Makes the numbers written by this thread visible to all threads. */
void hw_normalization_fence(const hw_normalization *normalization);

#endif
