#include "jpeg_header.h"

#include <stdio.h>
#include <string.h>

#include "files.h"
#include "orientation.h"

static unsigned big16(const uint8_t *p) {
    return (unsigned)p[0] << 8 | p[1];
}

/* Reads an APP1 segment. As in PIL, EXIF data is the segments one after another, XMP data the last of
 * them. */
static void note_app1(hw_metadata *metadata, const uint8_t *segment, size_t n) {
    static const char xmp[] = "http://ns.adobe.com/xap/1.0/"; /* with its terminating zero */
    if (n >= 6 && !memcmp(segment, "Exif\0\0", 6)) {
        if (metadata->exif_parts < HW_EXIF_PARTS)
            metadata->exif[metadata->exif_parts++] = (hw_part){segment + 6, n - 6};
    } else if (n >= sizeof xmp && !memcmp(segment, xmp, sizeof xmp)) {
        metadata->xmp = (hw_part){segment + sizeof xmp, n - sizeof xmp};
    }
}

/* Searched from the end, where a complete file has it. */
int hw_jpeg_has_end(const uint8_t *bytes, size_t from, size_t size) {
    for (size_t i = size; i >= from + 2; i--)
        if (bytes[i - 1] == 0xD9 && bytes[i - 2] == 0xFF) return 1;
    return 0;
}

int hw_jpeg_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                    hw_picture *picture, char *message) {
    if (size < 3 || bytes[0] != 0xFF || bytes[1] != 0xD8 || bytes[2] != 0xFF) {
        snprintf(message, HW_MESSAGE_SIZE, "does not begin like a JPEG file");
        return HW_NOT_JPEG;
    }
    picture->height = picture->width = 0;
    picture->orientation = 1;
    picture->format = HW_JPEG;
    hw_metadata metadata;
    metadata.exif_parts = 0;
    metadata.xmp = (hw_part){NULL, 0};
    size_t at = 2;
    for (;;) {
        while (at < size && bytes[at] != 0xFF) at++; /* as libjpeg: junk before a marker is skipped */
        while (at < size && bytes[at] == 0xFF) at++;
        if (at + 3 > size) {
            if (size < file_size) return HW_MORE;
            snprintf(message, HW_MESSAGE_SIZE, "is truncated: the header does not end within %zu bytes",
                     size);
            return HW_BAD_FILE;
        }
        const int marker = bytes[at++];
        if (marker == 0x00 || marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8))
            continue; /* without a segment */
        if (marker == 0xD9) {
            snprintf(message, HW_MESSAGE_SIZE, "is damaged: it ends before its first scan");
            return HW_BAD_FILE;
        }
        const size_t length = big16(bytes + at);
        if (length >= 2 && at + length > size && at + length <= file_size) return HW_MORE;
        if (length < 2 || at + length > size) {
            snprintf(message, HW_MESSAGE_SIZE,
                     "is damaged: segment 0xFF%02X of %zu bytes at offset %zu, file of %zu", (unsigned)marker,
                     length, at, file_size);
            return HW_BAD_FILE;
        }
        const uint8_t *segment = bytes + at + 2;
        if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) {
            if (length >= 8) {
                picture->height = (int)big16(segment + 1);
                picture->width = (int)big16(segment + 3);
            }
        } else if (marker == 0xE1) {
            note_app1(&metadata, segment, length - 2);
        }
        at += length;
        if (marker == 0xDA) break;
    }
    if (picture->height <= 0 || picture->width <= 0) {
        snprintf(message, HW_MESSAGE_SIZE, "is damaged: a picture of %d x %d pixels", picture->height,
                 picture->width);
        return HW_BAD_FILE;
    }
    if ((int64_t)picture->height * picture->width > max_pixels) {
        snprintf(message, HW_MESSAGE_SIZE, "has %d x %d pixels, allowed are %lld in total (max_pixels)",
                 picture->height, picture->width, (long long)max_pixels);
        return HW_BAD_FILE;
    }
    picture->scan = at;
    if (oriented) picture->orientation = hw_orientation(&metadata);
    if (picture->orientation >= 5) {
        const int height = picture->height;
        picture->height = picture->width;
        picture->width = height;
    }
    return HW_OK;
}
