/* Converts coefficients to pixels: inverse DCT, upsampling and colors of JPEG, bit-identical to
 * libjpeg-turbo's defaults ("islow", "fancy" upsampling).
 *
 * `simd` is a variant of simd.h that this CPU can run.
 */
#ifndef HIGHWAY_JPEG_SAMPLES_H
#define HIGHWAY_JPEG_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include "simd.h"

/* Rows of samples may be read this many bytes before and beyond the requested ones, and pixels written this
 * many beyond. */
#define HW_SAMPLES_SLACK 96

/* The quantization steps, in natural order, and the largest coefficients of the first row for which libjpeg's
 * variants agree; real pictures stay below them. */
typedef struct {
    uint16_t steps[64];
    int16_t most[8];
} hw_quantization;

void hw_quantization_complete(hw_quantization *quant);

/* Inverse DCT of `count` adjacent blocks, 64 coefficients each in natural order, which it then zeroes.
 * `only_dc` flags blocks with only a DC value. Writes 8 rows of 8 * count bytes. 0, or -1 if coefficients are
 * too large. */
int hw_inverse_dct(int simd, int16_t *blocks, const uint8_t *only_dc, int count, const hw_quantization *quant,
                   uint8_t *out, ptrdiff_t stride);

/* Doubles the samples in a row: samples [from, to) in, with one neighbor at each side, 2 * (to - from)
 * out. */
void hw_upsample_2x1(int simd, const uint8_t *in, int from, int to, uint8_t *out);

/* Upsamples between two rows of samples: `near` has three times the weight of `far`. */
void hw_upsample_2x2(int simd, const uint8_t *near, const uint8_t *far, int from, int to, uint8_t *out);

/* JFIF's YCbCr to interleaved RGB. */
void hw_ycc_to_rgb(int simd, const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *out);

/* Repeats each value three times. */
void hw_gray_to_rgb(const uint8_t *y, int n, uint8_t *out);

#endif
