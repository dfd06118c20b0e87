/* Weighted means of two arrays. */

#ifndef HIGHWAY_BLEND_H
#define HIGHWAY_BLEND_H

#include <stddef.h>
#include <stdint.h>

#include "simd.h"

/* `simd` is a variant of simd.h that this CPU can run; `out` does not overlap the inputs; every variant gives
 * the same bits. */

/* (left * weight + right * (32768 - weight)) / 32768, rounded to the nearest, halves up; weight is 0 to
 * 32768. */
void hw_blend_bytes(int simd, const uint8_t *left, const uint8_t *right, ptrdiff_t count, int weight,
                    uint8_t *out);

/* left * left_weight + right * right_weight, with three roundings. */
void hw_blend_reals(int simd, const float *left, const float *right, ptrdiff_t count, float left_weight,
                    float right_weight, float *out);

#endif
