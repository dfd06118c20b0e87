/* From coefficients to pixels: inverse DCT, upsampling and colors of JPEG, to the bit as libjpeg-turbo's
 * defaults ("islow", "fancy" upsampling) do it.
 *
 * `simd` is a variant of simd.h that this CPU can run.
 */
#ifndef HIGHWAY_JPEG_SAMPLES_H
#define HIGHWAY_JPEG_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include "simd.h"

/* Rows of samples may be read this many bytes in front of and beyond what is asked for, and pixels written
 * this many beyond. */
#define HW_SAMPLES_SLACK 96

/* The steps of a quantisation, in natural order, and the largest coefficients of the first row with which
 * libjpeg's variants agree; no picture has such large ones. */
typedef struct {
    uint16_t steps[64];
    int16_t most[8];
} hw_quantisation;

void hw_quantisation_complete(hw_quantisation *quant);

/* Inverse DCT of `count` blocks that stand side by side, 64 coefficients each in natural order, which are
 * zeroed. `only_dc` says which of them have no other. Writes 8 rows of 8 * count bytes. 0, or -1 where
 * coefficients are too large. */
int hw_inverse_dct(int simd, int16_t *blocks, const uint8_t *only_dc, int count, const hw_quantisation *quant,
                   uint8_t *out, ptrdiff_t stride);

/* Twice as many samples in a row: samples [from, to) in, with one neighbor at each side, 2 * (to - from)
 * out. */
void hw_upsample_2x1(int simd, const uint8_t *in, int from, int to, uint8_t *out);

/* The same between two rows of samples: `near` counts three times as much as `far`. */
void hw_upsample_2x2(int simd, const uint8_t *near, const uint8_t *far, int from, int to, uint8_t *out);

/* JFIF's YCbCr to interleaved RGB. */
void hw_ycc_to_rgb(int simd, const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *out);

/* The same value three times. */
void hw_grey_to_rgb(const uint8_t *y, int n, uint8_t *out);

#endif
