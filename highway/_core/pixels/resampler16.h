/* Separable antialiased resampling of 16-bit rows, with the axes of resampler.h, which must be precise.
 *
 * Weights are doubles and sums are taken in double; a combined row is kept as floats, and each output is
 * rounded once, to nearest. Every variant gives the same bits.
 */
#ifndef HIGHWAY_RESAMPLER16_H
#define HIGHWAY_RESAMPLER16_H

#include "resampler.h"

/* `simd` is a variant of simd.h that this CPU can run. */

/* out[0..n) = weighted sum of `count` rows of n numbers. */
void hw_combine_rows16(int simd, const uint16_t *const *rows, const double *weights, int count, float *out,
                       size_t n);

/* One combined row through the axis; row[0] is input `origin`. */
void hw_resample_row16(const hw_axis *x, const float *row, int origin, int channels, uint16_t *out);

/* A whole image of x->in_size by y->in_size pixels; strides are in numbers. 0, or -1 without memory. */
int hw_resample_image16(int simd, const hw_axis *x, const hw_axis *y, const uint16_t *image,
                        ptrdiff_t row_stride, int channels, uint16_t *out, ptrdiff_t out_stride,
                        hw_buffer *work);

#endif
