/* JPEG files to resampled pixels. Sound sequential pictures are decoded by jpeg_sequential.h, all others, and
 * those at a reduced scale, by libjpeg-turbo, with its setjmp on this side of the door.
 *
 * One hw_jpeg belongs to one thread. hw_jpeg_decode decodes a window of it, at a reduced scale where the
 * target is much smaller, and resamples row by row into the output, so that neither the photograph nor the
 * window exists whole in memory.
 */
#ifndef HIGHWAY_JPEG_DECODER_H
#define HIGHWAY_JPEG_DECODER_H

#include <stddef.h>
#include <stdint.h>

#include "files.h"
#include "jpeg_header.h"
#include "pixels.h"

typedef struct hw_jpeg hw_jpeg;

/* An image of a batch, or of a place where one waits for its batch. */
typedef struct {
    void *data;
    int height, width, channels; /* 1 (gray) or 3 (RGB) */
    const hw_numbers *numbers;   /* what becomes of bytes; NULL: they stay bytes, interleaved */
} hw_image;

typedef struct {
    double x0, y0, x1, y1;  /* window in pixels of the upright picture */
    int left, top;          /* where it goes to in the image */
    int height, width;      /* and how large it becomes there */
    int mirror_x, mirror_y; /* whether it is mirrored on the way */
    int channels;           /* of the image */
    int filter;             /* enum hw_filter */
    int exact;              /* never decode at a reduced scale */
    int simd;               /* variant of simd.h */
} hw_target;

hw_jpeg *hw_jpeg_new(void);
void hw_jpeg_free(hw_jpeg *decoder);

/* Decodes a whole file. Every pixel of the target is written on HW_OK, none is promised otherwise. */
int hw_jpeg_decode(hw_jpeg *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                   const hw_target *target, const hw_image *image, char *message);

/* Row `y` of the target, width * channels bytes, to the image. */
void hw_target_put(const hw_target *target, const hw_image *image, int y, const uint8_t *row);

/* How many pictures libjpeg was asked to decode so far. */
int64_t hw_jpeg_by_library(const hw_jpeg *decoder);

/* Version of libjpeg-turbo that this was compiled with, as a number (2001005 is 2.1.5). */
int hw_jpeg_library_version(void);

#endif
