/* The orientation in the metadata of a picture (Exif 2.32; TIFF 6.0, section 2; XMP, part 2). */

#ifndef HIGHWAY_ORIENTATION_H
#define HIGHWAY_ORIENTATION_H

#include <stddef.h>
#include <stdint.h>

/* A JPEG file splits EXIF data that is too long for one segment. More parts than these are ignored. */
enum { HW_EXIF_PARTS = 32 };

typedef struct {
    const uint8_t *bytes;
    size_t size;
} hw_part;

/* EXIF data (the concatenation of its parts) and XMP data. */
typedef struct {
    hw_part exif[HW_EXIF_PARTS];
    int exif_parts;
    hw_part xmp;
} hw_metadata;

/* Returns the EXIF orientation, 1 to 8, as PIL's ImageOps.exif_transpose finds it; 1 if there is none.
 *
 * XMP counts if the EXIF data has no orientation entry. If the EXIF data does not begin like a TIFF file,
 * neither counts. Reads only within the parts and allocates nothing.
 */
int hw_orientation(const hw_metadata *metadata);

#endif
