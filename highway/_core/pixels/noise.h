/* Normally distributed noise as a function of seed, epoch, position, sample and place. */

#ifndef HIGHWAY_NOISE_H
#define HIGHWAY_NOISE_H

#include <stddef.h>
#include <stdint.h>

#include "simd.h"

/* The stream of one sample at one position: the key and the first three words of a counter of
 * Philox4x32-10. */
typedef struct {
    uint64_t seed;
    uint32_t index, epoch, position;
} hw_stream;

/* `simd` is a variant of simd.h that this CPU can run. Standard normal numbers are multiplied by `scale`, and
 * `offset` is added; `out` may be `in` itself. */

/* Rounded and clamped to bytes. */
void hw_noise_bytes(int simd, const hw_stream *stream, const uint8_t *in, ptrdiff_t count, float offset,
                    float scale, uint8_t *out);

/* Clamped to `low` to `high`. */
void hw_noise_reals(int simd, const hw_stream *stream, const float *in, ptrdiff_t count, float offset,
                    float scale, float low, float high, float *out);

#endif
