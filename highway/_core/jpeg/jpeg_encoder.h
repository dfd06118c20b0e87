/* Encodes pixels as a JPEG file in memory, by libjpeg-turbo. */

#ifndef HIGHWAY_JPEG_ENCODER_H
#define HIGHWAY_JPEG_ENCODER_H

#include <stddef.h>
#include <stdint.h>

#include "files.h"

/* Encodes height x width pixels of 3 (RGB, its colors halved both ways) or 1 (gray) channels, rows packed and
 * `stride` bytes apart, with a quality of 1 to 100. On HW_OK the file is `*size` bytes at `*file`, which the
 * caller frees; otherwise there is no file, and the message says why. */
int hw_jpeg_encode(const uint8_t *pixels, ptrdiff_t stride, int height, int width, int channels, int quality,
                   uint8_t **file, size_t *size, char *message);

#endif
