/* The decoders of one thread: finds the format of a file, and calls its decoder. */

#ifndef HIGHWAY_DECODERS_H
#define HIGHWAY_DECODERS_H

#include <stddef.h>
#include <stdint.h>

#include "drawing.h"

typedef struct hw_decoders hw_decoders;

hw_decoders *hw_decoders_new(void);
void hw_decoders_free(hw_decoders *decoders);

/* Reads the header out of the first `size` bytes of a file; `oriented`: apply its orientation. Returns a
 * hw_status, or HW_MORE. */
int hw_picture_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                       hw_picture *picture, char *message);

/* Decodes a whole file. On HW_OK every pixel of the targets is written; otherwise their pixels are undefined.
 */
int hw_picture_decode(hw_decoders *decoders, const uint8_t *bytes, size_t size, const hw_picture *picture,
                      const hw_views *views, char *message);

/* Number of JPEGs that libjpeg was called for. */
int64_t hw_decoders_by_library(const hw_decoders *decoders);

/* Writes the version of the library of a format to `text`; 0 if the core was compiled without it. */
int hw_decoders_version(int format, char *text, size_t n);

#endif
