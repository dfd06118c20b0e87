#include "png_header.h"

#include <stdio.h>
#include <string.h>

#include "files.h"
#include "orientation.h"

int hw_png_begins(const uint8_t *bytes, size_t size) {
    return size >= HW_PNG_SIGNATURE && !memcmp(bytes, "\x89PNG\r\n\x1a\n", HW_PNG_SIGNATURE);
}

unsigned long hw_png_number(const uint8_t *p) {
    return (unsigned long)p[0] << 24 | (unsigned long)p[1] << 16 | (unsigned long)p[2] << 8 | p[3];
}

int hw_png_read_info(const uint8_t *bytes, hw_png_info *info) {
    /* Bit b is set if samples may have b bits. */
    static const struct {
        unsigned long bits;
        int samples;
    } COLORS[] = {{0x10116, 1}, {0, 0}, {0x10100, 3}, {0x116, 1}, {0x10100, 2}, {0, 0}, {0x10100, 4}};
    const unsigned long width = hw_png_number(bytes + 16), height = hw_png_number(bytes + 20);
    const int bits = bytes[24], color = bytes[25], interlaced = bytes[28];
    if (hw_png_number(bytes + 8) != 13 || memcmp(bytes + 12, "IHDR", 4)) return 0;
    if (width - 1 >= HW_LONGEST_SIDE || height - 1 >= HW_LONGEST_SIDE) return 0;
    if (color > HW_PNG_RGBA || bits > 16 || !(COLORS[color].bits >> bits & 1)) return 0;
    if (bytes[26] || bytes[27] || interlaced > 1) return 0;
    *info = (hw_png_info){(int)height, (int)width, bits, color, COLORS[color].samples, interlaced};
    return 1;
}

static int is_word(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int lower = p[i] | 0x20;
        if (!((lower >= 'a' && lower <= 'z') || (p[i] >= '0' && p[i] <= '9') || p[i] == '_')) return 0;
    }
    return 1;
}

static int is_kind(const uint8_t *kind, const char *name) {
    return !memcmp(kind, name, 4);
}

/* The part after the keyword of a text, if it has this keyword; otherwise NULL bytes. */
static hw_part after_keyword(const uint8_t *data, size_t n, const char *keyword) {
    const size_t length = strlen(keyword);
    if (n < length || memcmp(data, keyword, length) || (n > length && data[length]))
        return (hw_part){NULL, 0};
    const size_t begin = n > length ? length + 1 : n;
    return (hw_part){data + begin, n - begin};
}

/* Text of a chunk iTXt after its keyword; 0 if it is compressed. Without text its bytes are NULL. */
static int international_text(hw_part rest, hw_part *text) {
    *text = (hw_part){NULL, 0};
    if (rest.size < 2) return 1;
    if (rest.bytes[0]) return 0;
    const uint8_t *end = rest.bytes + rest.size, *at = rest.bytes + 2;
    for (int k = 0; k < 2; k++) { /* the language, and the keyword in it */
        const uint8_t *zero = memchr(at, 0, (size_t)(end - at));
        if (!zero) return 1;
        at = zero + 1;
    }
    *text = (hw_part){at, (size_t)(end - at)};
    return 1;
}

/* Notes the metadata in a chunk of text; 0 if it is compressed, or there are several. */
static int note_text(hw_metadata *metadata, int *xmps, const uint8_t *kind, const uint8_t *data, size_t n) {
    const int plain = is_kind(kind, "tEXt"), international = is_kind(kind, "iTXt");
    if (!plain && !international && !is_kind(kind, "zTXt")) return 1;
    if (after_keyword(data, n, "Raw profile type exif").bytes) return 0;
    const hw_part exif = after_keyword(data, n, "exif"), xmp = after_keyword(data, n, "XML:com.adobe.xmp");
    if (exif.bytes && plain) {
        metadata->exif[0] = exif;
        metadata->exif_parts = 1;
    }
    if (!xmp.bytes) return 1;
    hw_part text = xmp;
    if (!plain && (!international || !international_text(xmp, &text))) return 0;
    if (!text.bytes) return 1;
    metadata->xmp = text;
    return ++*xmps == 1;
}

/* Finds the metadata of the first picture, before and after its pixels; 0 if it is compressed, or there are
 * several texts. */
static int read_metadata(const uint8_t *bytes, size_t size, hw_metadata *metadata) {
    unsigned long frames = 0;
    int framed = 0, pixels = 0, xmps = 0;
    metadata->exif_parts = 0;
    metadata->xmp = (hw_part){NULL, 0};
    for (size_t at = HW_PNG_SIGNATURE; at + 8 <= size;) {
        const size_t length = hw_png_number(bytes + at);
        const uint8_t *kind = bytes + at + 4, *data = bytes + at + 8;
        if (is_kind(kind, "IEND") || length > size - at - 8 || !is_word(kind, 4)) break;
        if (is_kind(kind, "IDAT") || is_kind(kind, "fdAT")) {
            pixels = 1;
        } else if (is_kind(kind, "acTL") && !pixels && length >= 8) {
            const unsigned long count = hw_png_number(data);
            frames = !frames && count <= 1ul << 31 ? count : 0;
        } else if (is_kind(kind, "fcTL")) {
            /* If the first frame is not part of the animation, the next one begins here. */
            if (pixels && frames && frames + !framed > 1) break;
            framed = framed || !pixels;
        } else if (is_kind(kind, "eXIf")) {
            metadata->exif[0] = (hw_part){data, length};
            metadata->exif_parts = 1;
        } else if (!note_text(metadata, &xmps, kind, data, length)) {
            return 0;
        }
        at += 8 + length + 4;
    }
    return 1;
}

int hw_png_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                   hw_picture *picture, char *message) {
    hw_png_info info;
    hw_metadata metadata;
    if (size < HW_PNG_HEAD && size < file_size) return HW_MORE;
    if (size < HW_PNG_HEAD || !hw_png_read_info(bytes, &info)) {
        snprintf(message, HW_MESSAGE_SIZE, "is damaged: a PNG without a valid header (IHDR)");
        return HW_REFUSED;
    }
    if ((int64_t)info.height * info.width > max_pixels) {
        snprintf(message, HW_MESSAGE_SIZE, "has %d x %d pixels, allowed are %lld in total (max_pixels)",
                 info.height, info.width, (long long)max_pixels);
        return HW_BAD_FILE;
    }
    if (oriented && size < file_size) return HW_MORE;
    *picture = (hw_picture){info.height, info.width, 1, HW_PNG, 0};
    if (!oriented) return HW_OK;
    if (!read_metadata(bytes, size, &metadata)) {
        snprintf(message, HW_MESSAGE_SIZE, "has compressed metadata");
        return HW_NOT_JPEG;
    }
    picture->orientation = hw_orientation(&metadata);
    if (picture->orientation >= 5) {
        picture->height = info.width;
        picture->width = info.height;
    }
    return HW_OK;
}
