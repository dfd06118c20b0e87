/* What the header of a JPEG file says, without decoding (ITU-T T.81, Annex B). */

#ifndef HIGHWAY_JPEG_HEADER_H
#define HIGHWAY_JPEG_HEADER_H

#include <stddef.h>
#include <stdint.h>

/* hw_jpeg_inspect's answer where the header goes on behind the bytes that it was given. */
enum { HW_MORE = -1 };

/* What a header says. Height and width are those of the upright picture when the orientation is applied. */
typedef struct {
    int height, width;
    int orientation; /* EXIF 1..8 */
    size_t scan;     /* offset of its first scan */
} hw_picture;

/* Reads the header out of the first `size` bytes of a file; `oriented` says whether its orientation counts.
 */
int hw_jpeg_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                    hw_picture *picture, char *message);

/* Whether an end-of-image marker stands behind `from`. */
int hw_jpeg_has_end(const uint8_t *bytes, size_t from, size_t size);

#endif
