/* JPEG files to resampled pixels. Sound sequential pictures are decoded by jpeg_sequential.h, all others, and
 * those at a reduced scale, by libjpeg-turbo; its setjmp stays inside this file.
 *
 * One hw_jpeg belongs to one thread. hw_jpeg_decode decodes a window of it, at a reduced scale where the
 * target is much smaller, and resamples row by row into the output, so that neither the whole photograph nor
 * the whole window is in memory.
 */
#ifndef HIGHWAY_JPEG_DECODER_H
#define HIGHWAY_JPEG_DECODER_H

#include <stddef.h>
#include <stdint.h>

#include "files.h"
#include "jpeg_header.h"
#include "pixels.h"

typedef struct hw_jpeg hw_jpeg;

/* An image of a batch, or a buffer for a picture whose batch does not exist yet. */
typedef struct {
    void *data;
    int height, width, channels;           /* 1 (gray) or 3 (RGB) */
    const hw_normalization *normalization; /* conversion of bytes; NULL: interleaved bytes */
} hw_image;

typedef struct {
    double x0, y0, x1, y1;  /* window in pixels of the upright picture */
    int left, top;          /* position in the image */
    int height, width;      /* size in the image */
    int mirror_x, mirror_y; /* whether to mirror it */
    int channels;           /* of the image */
    int filter;             /* enum hw_filter */
    int exact;              /* never decode at a reduced scale */
    int simd;               /* variant of simd.h */
} hw_target;

hw_jpeg *hw_jpeg_new(void);
void hw_jpeg_free(hw_jpeg *decoder);

/* Decodes a whole file. On HW_OK every pixel of the target is written; otherwise its pixels are undefined. */
int hw_jpeg_decode(hw_jpeg *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                   const hw_target *target, const hw_image *image, char *message);

/* Writes row `y` of the target, width * channels bytes, to the image. */
void hw_target_put(const hw_target *target, const hw_image *image, int y, const uint8_t *row);

/* Number of pictures that libjpeg was called for. */
int64_t hw_jpeg_by_library(const hw_jpeg *decoder);

/* Version of libjpeg-turbo that this was compiled with, as a number (2001005 is 2.1.5). */
int hw_jpeg_library_version(void);

#endif
