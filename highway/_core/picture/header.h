/* What the header of a picture file says, in every format. */

#ifndef HIGHWAY_HEADER_H
#define HIGHWAY_HEADER_H

#include <stddef.h>

/* Result of reading a header if more of the file is needed. */
enum { HW_MORE = -1 };

/* Longest side of a PNG or WebP, in pixels. */
#define HW_LONGEST_SIDE (1ul << 24)

/* Bytes of a picture of the longest sides are counted without overflow. */
_Static_assert(sizeof(size_t) >= 8, "Highway needs a system of 64 bits");

enum hw_format { HW_JPEG, HW_PNG, HW_WEBP };

/* Height and width are those of the upright picture if the orientation is applied. */
typedef struct {
    int height, width;
    int orientation; /* EXIF 1..8 */
    int format;      /* enum hw_format */
    size_t scan;     /* offset of the first scan of a JPEG */
} hw_picture;

#endif
