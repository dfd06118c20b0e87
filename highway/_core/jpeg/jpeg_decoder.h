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

#include "drawing.h"
#include "files.h"
#include "header.h"

typedef struct hw_jpeg hw_jpeg;

hw_jpeg *hw_jpeg_new(hw_drawing *drawing);
void hw_jpeg_free(hw_jpeg *decoder);

/* Decodes a whole file. On HW_OK every pixel of the targets is written; otherwise their pixels are undefined.
 */
int hw_jpeg_decode(hw_jpeg *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                   const hw_views *views, char *message);

/* Number of pictures that libjpeg was called for. */
int64_t hw_jpeg_by_library(const hw_jpeg *decoder);

/* Version of libjpeg-turbo that this was compiled with, as a number (2001005 is 2.1.5). */
int hw_jpeg_library_version(void);

#endif
