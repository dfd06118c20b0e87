/* Point-wise color operations on uint8 images of 1 or 3 channels: a program of several operations reads and
 * writes memory once. */

#ifndef HIGHWAY_POINTWISE_H
#define HIGHWAY_POINTWISE_H

#include <stddef.h>
#include <stdint.h>

#include "simd.h"
#include "windows.h"

/* Each takes up to two arguments. */
enum {
    HW_NONE = 0,
    HW_BRIGHTNESS = 1, /* factor */
    HW_CONTRAST = 2,   /* factor */
    HW_SATURATION = 3, /* factor */
    HW_HUE = 4,        /* turns, -0.5 to 0.5 */
    HW_GRAYSCALE = 5,
    HW_INVERT = 6,
    HW_SOLARIZE = 7,  /* threshold */
    HW_POSTERIZE = 8, /* bits to keep, 0 to 8 */
    HW_AUTOCONTRAST = 9,
    HW_EQUALIZE = 10,
    HW_GAMMA = 11, /* gamma, gain */
    HW_OPERATIONS = 12,
};

/* Bytes that hw_pointwise_run needs at `work` for programs of this length, zeroed before the first run. */
size_t hw_pointwise_work(ptrdiff_t length);

/* Runs `length` operations with two arguments each; `out` has no gaps, and may be the picture itself if it
 * has none. `simd` is a variant of simd.h that this CPU can run. */
void hw_pointwise_run(int simd, const hw_pixels *picture, const int32_t *operations, const float *arguments,
                      ptrdiff_t length, void *work, uint8_t *out);

#endif
