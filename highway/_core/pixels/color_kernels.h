/* What is done to the pixels of a color program, in every variant of simd.h: each gives the same bits. */

#ifndef HIGHWAY_COLOR_KERNELS_H
#define HIGHWAY_COLOR_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "fixed.h"
#include "simd.h"

enum {
    /* Bytes that are done together where every third one belongs to the same channel. */
    HW_PERIOD = 96,
    /* What is done to three planes at once is done to whole groups of so many pixels: there is room for them.
     */
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

/* (value - low) * 255 / range, halves up: the quotient in 1 / 65536, rounded up, is in three bytes. As values
 * reach from low to low + range, no result is another than that of exact numbers. For a period of bytes. */
typedef struct {
    uint8_t low[HW_PERIOD], whole[HW_PERIOD], upper[HW_PERIOD], lower[HW_PERIOD];
} hw_spread;

/* `out` may be `in`. */
typedef struct {
    /* Bytes, each by itself: looked up (`changes` is the first 16 bytes of each quarter of the table, then
     * what changes from 16 to 16); from `threshold` on inverted, then masked; on a line. */
    void (*table)(const uint8_t *in, uint8_t *out, ptrdiff_t count, const uint8_t *table,
                  const uint8_t *changes);
    void (*fold)(const uint8_t *in, uint8_t *out, ptrdiff_t count, int threshold, uint8_t mask);
    void (*line)(const uint8_t *in, uint8_t *out, ptrdiff_t count, hw_line line);
    /* Pixels into planes, and back. */
    void (*split)(const uint8_t *in, ptrdiff_t pixels, uint8_t *red, uint8_t *green, uint8_t *blue);
    void (*join)(const uint8_t *red, const uint8_t *green, const uint8_t *blue, ptrdiff_t pixels,
                 uint8_t *out);
    /* Of planes: gray in all, away from it by a factor, hues turned by so much of HW_CIRCLE. */
    void (*gray)(uint8_t *red, uint8_t *green, uint8_t *blue, ptrdiff_t pixels);
    void (*saturate)(uint8_t *red, uint8_t *green, uint8_t *blue, ptrdiff_t pixels, hw_factor factor);
    void (*turn)(uint8_t *red, uint8_t *green, uint8_t *blue, ptrdiff_t pixels, uint16_t turn);
    /* Of pixels as they lie, on the line `first` before, if it is not NULL; NULL where planes are faster. */
    void (*gray_pixels)(const uint8_t *in, uint8_t *out, ptrdiff_t pixels);
    void (*saturate_pixels)(const uint8_t *in, uint8_t *out, ptrdiff_t pixels, hw_factor factor,
                            const hw_line *first);
    void (*stretch)(const uint8_t *in, uint8_t *out, ptrdiff_t count, const hw_spread *by);
    /* Adds every third byte to a sum; takes the lowest and the highest at each place of HW_PERIOD. */
    void (*sums)(const uint8_t *in, ptrdiff_t count, uint64_t *sums);
    void (*extremes)(const uint8_t *in, ptrdiff_t count, uint8_t *low, uint8_t *high);
    /* Of 256: factor times 2 to the power of logarithms * exponent. */
    void (*powers)(const double *logarithms, double exponent, double factor, double *out);
} hw_color_kernels;

/* Those of a variant that this CPU can run. */
const hw_color_kernels *hw_color_kernels_of(int simd);

#endif
