/* Warps images by affine and projective maps: every pixel of the output is sampled at its source point.

   Coordinates are continuous: the pixel in column x and row y covers x to x + 1 and y to y + 1. Nothing here
   allocates or fails; every variant gives the same bits. */

#ifndef HIGHWAY_WARPER_H
#define HIGHWAY_WARPER_H

#include <stddef.h>
#include <stdint.h>

#include "simd.h"

enum { HW_NEAREST = 0, HW_BILINEAR = 1 };

/* Packed pixels of `channels` bytes, or floats. */
typedef struct {
    const void *data;
    ptrdiff_t height, width, channels;
    int real;         /* float, else uint8_t */
    const void *next; /* an image of the same size that is sampled next, or NULL: prefetched */
} hw_warp_source;

typedef struct {
    const double
        *matrix; /* nine finite numbers, by rows: from coordinates of the output to those of the image */
    const double *bounds; /* a, b, c of `planes` half planes: visible where a * x + b * y + c >= 0 */
    ptrdiff_t planes;
    const void *fill;  /* a pixel, where nothing is visible */
    int interpolation; /* HW_NEAREST or HW_BILINEAR */
} hw_warp;

/* Fill `out`, `height` rows of `width` pixels, packed; it does not overlap the image. Sizes are below
 * 2**30. */
void hw_warp_image(int simd, const hw_warp_source *image, const hw_warp *warp, void *out, ptrdiff_t height,
                   ptrdiff_t width);

#endif
