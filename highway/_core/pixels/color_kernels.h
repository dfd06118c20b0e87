/* Kernels of color programs, in every variant of simd.h: all give the same bits. */

#ifndef HIGHWAY_COLOR_KERNELS_H
#define HIGHWAY_COLOR_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "fixed.h"
#include "simd.h"

enum {
    /* Bytes processed together if every third one belongs to the same channel. */
    HW_PERIOD = 96,
    /* Kernels of three planes process whole groups of this many pixels: planes have room for them. */
    HW_GROUP = 128,
    /* A sixth of the circle of hues. */
    HW_SEXTANT = 4096,
    HW_CIRCLE = 6 * HW_SEXTANT,
};

/* value * factor + offset in fixed point: offset is in 1 / 2**shift, and holds the half that rounds. */
typedef struct {
    int16_t factor, offset;
    int shift;
} hw_line;

/* (value - low) * 255 / range, halves up: the quotient in 1 / 65536, rounded up, has three bytes. For values
 * from low to low + range, results are exact. For a period of bytes. */
typedef struct {
    uint8_t low[HW_PERIOD], whole[HW_PERIOD], upper[HW_PERIOD], lower[HW_PERIOD];
} hw_spread;

/* `out` may be `in`. */
typedef struct {
    /* Per byte: table lookup (`changes` is the first 16 bytes of each quarter of the table, then the changes
     * from 16 to 16); inversion from `threshold` on, then mask; line. */
    void (*table)(const uint8_t *in, uint8_t *out, ptrdiff_t count, const uint8_t *table,
                  const uint8_t *changes);
    void (*fold)(const uint8_t *in, uint8_t *out, ptrdiff_t count, int threshold, uint8_t mask);
    void (*line)(const uint8_t *in, uint8_t *out, ptrdiff_t count, hw_line line);
    /* Pixels into planes, and back. */
    void (*split)(const uint8_t *in, ptrdiff_t pixels, uint8_t *red, uint8_t *green, uint8_t *blue);
    void (*join)(const uint8_t *red, const uint8_t *green, const uint8_t *blue, ptrdiff_t pixels,
                 uint8_t *out);
    /* On planes: gray in all, saturation by a factor, hues turned by a part of HW_CIRCLE. */
    void (*gray)(uint8_t *red, uint8_t *green, uint8_t *blue, ptrdiff_t pixels);
    void (*saturate)(uint8_t *red, uint8_t *green, uint8_t *blue, ptrdiff_t pixels, hw_factor factor);
    void (*turn)(uint8_t *red, uint8_t *green, uint8_t *blue, ptrdiff_t pixels, uint16_t turn);
    /* On interleaved pixels, after the line `first` if it is not NULL. */
    void (*gray_pixels)(const uint8_t *in, uint8_t *out, ptrdiff_t pixels);
    void (*saturate_pixels)(const uint8_t *in, uint8_t *out, ptrdiff_t pixels, hw_factor factor,
                            const hw_line *first);
    void (*stretch)(const uint8_t *in, uint8_t *out, ptrdiff_t count, const hw_spread *by);
    /* Adds every third byte to a sum; updates the minimum and maximum at each position of HW_PERIOD. */
    void (*sums)(const uint8_t *in, ptrdiff_t count, uint64_t *sums);
    void (*extremes)(const uint8_t *in, ptrdiff_t count, uint8_t *low, uint8_t *high);
    /* Of 256: factor times 2 to the power of logarithms * exponent. */
    void (*powers)(const double *logarithms, double exponent, double factor, double *out);
} hw_color_kernels;

/* Returns the kernels of a variant that this CPU can run. */
const hw_color_kernels *hw_color_kernels_of(int simd);

#endif
