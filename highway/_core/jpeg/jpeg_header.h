/* Reads the header of a JPEG file, without decoding (ITU-T T.81, Annex B). */

#ifndef HIGHWAY_JPEG_HEADER_H
#define HIGHWAY_JPEG_HEADER_H

#include <stddef.h>
#include <stdint.h>

/* Result of hw_jpeg_inspect if the header is longer than the given bytes. */
enum { HW_MORE = -1 };

/* Contents of a header. Height and width are those of the upright picture if the orientation is applied. */
typedef struct {
    int height, width;
    int orientation; /* EXIF 1..8 */
    size_t scan;     /* offset of its first scan */
} hw_picture;

/* Reads the header out of the first `size` bytes of a file; `oriented`: apply its orientation. */
int hw_jpeg_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                    hw_picture *picture, char *message);

/* Whether an end-of-image marker follows `from`. */
int hw_jpeg_has_end(const uint8_t *bytes, size_t from, size_t size);

#endif
