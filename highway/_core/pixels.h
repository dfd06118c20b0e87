/* Leaf functions over rows of pixels: reverse, swap, fill, normalize.

   A pixel is any number of bytes in a row. Nothing here allocates or fails; every variant gives the same
   bits. */

#ifndef HIGHWAY_PIXELS_H
#define HIGHWAY_PIXELS_H

#include <stddef.h>
#include <stdint.h>

/* Variants, each including those before it. */
enum { HW_PLAIN = 0, HW_SSSE3 = 1, HW_AVX2 = 2 };

/* Best variant of this CPU. */
int hw_best(void);

/* Use this variant from now on, or the best of this CPU if that is less; returns the one in use. */
int hw_use(int variant);

/* out[i] = in[pixels - 1 - i]; the two rows do not overlap. */
void hw_reverse(const uint8_t *in, uint8_t *out, ptrdiff_t pixels, ptrdiff_t size);

void hw_reverse_in_place(uint8_t *row, ptrdiff_t pixels, ptrdiff_t size);

/* Exchange two rows that do not overlap. */
void hw_swap(uint8_t *left, uint8_t *right, ptrdiff_t bytes);

/* Write one pixel `pixels` times. */
void hw_fill(uint8_t *out, ptrdiff_t pixels, const uint8_t *pixel, ptrdiff_t size);

/* out = in * scale + bias in float, both roundings, with a scale and bias for each channel; interleaved like
 * the input. */
void hw_normalize(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels, const float *scale,
                  const float *bias, float *out);

/* The same, rounded once more to IEEE half precision (to nearest, ties to even). */
void hw_normalize_half(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels, const float *scale,
                       const float *bias, uint16_t *out);

/* The same two with channel c going to out + c * plane. */
void hw_normalize_planar(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels, const float *scale,
                         const float *bias, float *out, ptrdiff_t plane);
void hw_normalize_planar_half(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels, const float *scale,
                              const float *bias, uint16_t *out, ptrdiff_t plane);

#endif
