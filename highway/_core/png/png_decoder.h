/* PNG files to resampled pixels of gray or RGB. libdeflate decompresses the data.
 *
 * Only sound files are decoded; all others are refused, and another decoder may judge them. One hw_png
 * belongs to one thread. A picture that is neither interlaced nor turned is converted row by row: in memory
 * are its decompressed data, and no picture.
 */
#ifndef HIGHWAY_PNG_DECODER_H
#define HIGHWAY_PNG_DECODER_H

#include <stddef.h>
#include <stdint.h>

#include "drawing.h"

typedef struct hw_png hw_png;

hw_png *hw_png_new(hw_drawing *drawing);
void hw_png_free(hw_png *decoder);

/* Decodes a whole file. On HW_OK every pixel of the targets is written; otherwise their pixels are undefined.
 */
int hw_png_decode(hw_png *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                  const hw_views *views, char *message);

/* Version of libdeflate that this was compiled with. */
const char *hw_png_library_version(void);

#endif
