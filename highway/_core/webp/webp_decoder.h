/* WebP files to resampled pixels: 8 bits of gray or RGB, without alpha. libwebp decodes the first frame.
 *
 * Only sound files are decoded; all others are refused, and another decoder may judge them. One hw_webp
 * belongs to one thread.
 */
#ifndef HIGHWAY_WEBP_DECODER_H
#define HIGHWAY_WEBP_DECODER_H

#include <stddef.h>
#include <stdint.h>

#include "drawing.h"

typedef struct hw_webp hw_webp;

hw_webp *hw_webp_new(hw_drawing *drawing);
void hw_webp_free(hw_webp *decoder);

int hw_webp_begins(const uint8_t *bytes, size_t size);

/* Reads the header out of the first `size` bytes of a file; with `oriented`, also the metadata, which follows
 * the pixels, and applies the orientation. Returns HW_OK, HW_MORE, HW_REFUSED, or HW_BAD_FILE if the picture
 * is too large. */
int hw_webp_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                    hw_picture *picture, char *message);

/* Decodes a whole file. On HW_OK every pixel of the targets is written; otherwise their pixels are undefined.
 */
int hw_webp_decode(hw_webp *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                   const hw_views *views, char *message);

/* Version of libwebp in use, as 0xMMmmpp. */
int hw_webp_library_version(void);

#endif
