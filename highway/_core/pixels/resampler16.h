/* Separable antialiased resampling of 16-bit rows, with the axes of resampler.h, which must be precise.
 *
 * Weights are doubles and sums are taken in double; a combined row is kept as floats, and each output is
 * rounded once, to nearest. Every variant gives the same bits.
 */
#ifndef HIGHWAY_RESAMPLER16_H
#define HIGHWAY_RESAMPLER16_H

#include "resampler.h"

/* `simd` is a variant of simd.h that this CPU can run. */

/* One row of the output: the weighted sum of `count` rows, which begin at input x->lowest, through the axis.
 * `combined` has room for the numbers of a row, x->lowest to x->highest. */
void hw_resample_rows16(int simd, const hw_axis *x, const uint16_t *const *rows, const double *weights,
                        int count, int channels, float *combined, uint16_t *out);

/* A whole image of x->in_size by y->in_size pixels; strides are in numbers. 0, or -1 without memory. */
int hw_resample_image16(int simd, const hw_axis *x, const hw_axis *y, const uint16_t *image,
                        ptrdiff_t row_stride, int channels, uint16_t *out, ptrdiff_t out_stride,
                        hw_buffer *work);

#endif
