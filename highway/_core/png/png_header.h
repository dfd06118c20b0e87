/* Reads the header and the metadata of a PNG file, without decoding (ISO/IEC 15948). */

#ifndef HIGHWAY_PNG_HEADER_H
#define HIGHWAY_PNG_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "header.h"

enum { HW_PNG_GRAY = 0, HW_PNG_RGB = 2, HW_PNG_PALETTE = 3, HW_PNG_GRAY_ALPHA = 4, HW_PNG_RGBA = 6 };

/* The chunk IHDR; height and width as stored. */
typedef struct {
    int height, width;
    int bits; /* of a sample */
    int color;
    int samples; /* of a pixel */
    int interlaced;
} hw_png_info;

/* Bytes of the signature, and of signature and IHDR. */
enum { HW_PNG_SIGNATURE = 8, HW_PNG_HEAD = 33 };

int hw_png_begins(const uint8_t *bytes, size_t size);

unsigned long hw_png_number(const uint8_t *p);

/* Reads IHDR out of the first HW_PNG_HEAD bytes of a file; 0 if it is not valid. */
int hw_png_read_info(const uint8_t *bytes, hw_png_info *info);

/* Reads the header out of the first `size` bytes of a file; with `oriented`, also the metadata, which may
 * follow the pixels, and applies the orientation. Returns HW_OK, HW_MORE, HW_REFUSED, HW_BAD_FILE if the
 * picture is too large, or HW_NOT_JPEG if the metadata is compressed. */
int hw_png_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                   hw_picture *picture, char *message);

#endif
