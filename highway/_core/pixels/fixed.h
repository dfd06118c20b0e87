/* A fixed-point factor for differences of bytes: the arithmetic of mulhrs instructions, also in plain C. */

#ifndef HIGHWAY_FIXED_H
#define HIGHWAY_FIXED_H

#include <stdint.h>

/* factor is value * 2**15 / scale rounded, below 2**15; scale is a power of two, up to 128. */
typedef struct {
    int16_t scale, factor;
} hw_factor;

/* For a value from 0 to below 128. */
static inline hw_factor hw_factor_of(float value) {
    hw_factor found;
    int32_t scale = 1;
    while ((int32_t)((double)value * (32768 / scale) + 0.5) > 32767) scale *= 2;
    found.scale = (int16_t)scale;
    found.factor = (int16_t)((double)value * (32768 / scale) + 0.5);
    return found;
}

/* left * right / 2**15, rounded; halves go up. */
static inline __attribute__((always_inline)) int16_t hw_mulhrs(int16_t left, int16_t right) {
    return (int16_t)((left * right + 0x4000) >> 15);
}

/* base + factor * (value - base), of bytes, rounded and clamped. */
static inline __attribute__((always_inline)) uint8_t hw_blend(uint8_t base, uint8_t value, int16_t scale,
                                                              int16_t factor) {
    int sum = base + hw_mulhrs((int16_t)((value - base) * scale), factor);
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

#endif
