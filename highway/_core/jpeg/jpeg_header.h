/* Reads the header of a JPEG file, without decoding (ITU-T T.81, Annex B). */

#ifndef HIGHWAY_JPEG_HEADER_H
#define HIGHWAY_JPEG_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "header.h"

/* Reads the header out of the first `size` bytes of a file; `oriented`: apply its orientation. Returns a
 * hw_status, or HW_MORE. */
int hw_jpeg_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                    hw_picture *picture, char *message);

/* Whether an end-of-image marker follows `from`. */
int hw_jpeg_has_end(const uint8_t *bytes, size_t from, size_t size);

#endif
