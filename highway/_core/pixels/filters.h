/* Filters of small neighborhoods on uint8 images without gaps: sharpening and Gaussian blur. */

#ifndef HIGHWAY_FILTERS_H
#define HIGHWAY_FILTERS_H

#include <stddef.h>
#include <stdint.h>

#include "simd.h"
#include "windows.h"

/* A kernel is at most twice as long, plus one. */
enum { HW_MOST_REACH = 100 };

/* `simd` is a variant of simd.h that this CPU can run; out has no gaps and is another image. */

/* Bytes of workspace for rows of `length` bytes and a kernel of so many columns. */
size_t hw_filter_work(ptrdiff_t length, ptrdiff_t channels, ptrdiff_t columns);

/* Sharpens by a factor from 0 (smoothed) through 1 (unchanged) to below 128. */
void hw_sharpen(int simd, const hw_pixels *image, float factor, void *work, uint8_t *out);

/* The weights of a Gaussian of odd length from its middle on, in 1 / 32768: the whole kernel sums to 1. */
void hw_gaussian(double sigma, ptrdiff_t length, int16_t *weights);

/* Weighted sums of columns and rows; weights are those from the middle on, `reach_y` + 1 and
 * `reach_x` + 1. */
void hw_blur(int simd, const hw_pixels *image, const int16_t *weights_y, ptrdiff_t reach_y,
             const int16_t *weights_x, ptrdiff_t reach_x, void *work, uint8_t *out);

void hw_copy_rows(const hw_pixels *image, uint8_t *out);

#endif
