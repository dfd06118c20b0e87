/* Separable antialiased resampling of 8-bit rows, one output row at a time.
 *
 * An axis holds, for every output position, the first input position and the fixed-point weights of its
 * inputs. The filters and their support are Pillow's: Image.resize(box=...) without reducing_gap. Rows are
 * combined vertically first, since that pass runs over whole rows at full vector width; the horizontal pass
 * then processes only as many rows as the output has.
 */
#ifndef HIGHWAY_RESAMPLER_H
#define HIGHWAY_RESAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "simd.h"

enum hw_filter { HW_NEAREST = 0, HW_BOX, HW_BILINEAR, HW_BICUBIC, HW_LANCZOS, HW_FILTERS };

/* A combined row is read up to this many bytes beyond its end by the horizontal pass. */
#define HW_ROW_SLACK 64

typedef struct {
    /* what it was built for */
    int filter, in_size, out_size, reversed;
    double begin, end;
    /* output i is the sum over k < stride of weights[i * stride + k] * input[first[i] + k] */
    int taps;   /* the largest number of inputs of an output */
    int stride; /* taps rounded up to a multiple of 4; the weights beyond are 0 */
    int lowest; /* no input outside of [lowest, highest) is used */
    int highest;
    int identity; /* output i is input begin + i: nothing to compute */
    int32_t *first;
    int16_t *weights;
    int16_t *spread; /* the same weights, laid out for the vector kernel of three channels */
    double *exact;   /* the same weights before they are rounded; only if `precise` */
    int precise;
    double *scratch;
    size_t outputs_capacity, weights_capacity, exact_capacity, scratch_capacity;
} hw_axis;

/* Makes the axis that takes [begin, end) of in_size inputs to out_size outputs, in reverse order if
 * `reversed`, and its exact weights if `precise`. An axis starts zeroed, and is reused if its arguments are
 * unchanged. 0, or -1 without memory. */
int hw_axis_build(hw_axis *axis, int filter, int in_size, double begin, double end, int out_size,
                  int reversed, int precise);
void hw_axis_free(hw_axis *axis);

/* `simd` is a variant of simd.h that this CPU can run. */

/* out[0..n) = weighted sum of `count` rows of n bytes. */
void hw_combine_rows(int simd, const uint8_t *const *rows, const int16_t *weights, int count, uint8_t *out,
                     size_t n);

/* One row through the axis; row[0] is input `origin`, and the row may be read HW_ROW_SLACK bytes beyond its
 * end. */
void hw_resample_row(int simd, const hw_axis *x, const uint8_t *row, int origin, int channels, uint8_t *out);

/* A whole image of x->in_size by y->in_size pixels; 0, or -1 when there is no memory. */
int hw_resample_image(int simd, const hw_axis *x, const hw_axis *y, const uint8_t *image,
                      ptrdiff_t row_stride, int channels, uint8_t *out, ptrdiff_t out_stride,
                      hw_buffer *work);

/* The same for floats; strides are in floats. Sums in float, in the order of the inputs. */
int hw_resample_floats(const hw_axis *x, const hw_axis *y, const float *image, ptrdiff_t row_stride,
                       int channels, float *out, ptrdiff_t out_stride, hw_buffer *work);

#endif
