#include "orientation.h"

#include <string.h>

enum { NONE = 0, UPRIGHT = 1, ORIENTATION = 0x0112 };

enum {
    TYPE_BYTE = 1,
    TYPE_SHORT = 3,
    TYPE_LONG = 4,
    TYPE_RATIONAL = 5,
    TYPE_SBYTE = 6,
    TYPE_SSHORT = 8,
    TYPE_SLONG = 9,
    TYPE_SRATIONAL = 10,
    TYPE_FLOAT = 11,
    TYPE_DOUBLE = 12,
    TYPE_IFD = 13,
    TYPE_LONG8 = 16,
    TYPES
};

/* Bytes of one value of each type; 0 if the type does not exist. */
static const uint8_t type_sizes[TYPES] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};

static uint64_t number(const uint8_t *p, size_t n, int little) {
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) value = value << 8 | p[little ? n - 1 - i : i];
    return value;
}

static int from_integer(uint64_t value) {
    return value >= 1 && value <= 8 ? (int)value : UPRIGHT;
}

static int from_real(double value) {
    for (int k = 1; k <= 8; k++)
        if (value == k) return k;
    return UPRIGHT;
}

static int from_fraction(int64_t numerator, int64_t denominator) {
    if (denominator == 0 || numerator % denominator) return UPRIGHT;
    return from_integer((uint64_t)(numerator / denominator));
}

/* The first value of an entry. Text and untyped bytes are not numbers. */
static int from_value(unsigned type, const uint8_t *p, int little) {
    const uint64_t value = number(p, type_sizes[type], little);
    switch (type) {
    case TYPE_BYTE:
    case TYPE_SHORT:
    case TYPE_LONG:
    case TYPE_SBYTE: /* A negative one is large here, and out of range too. */
    case TYPE_SSHORT:
    case TYPE_SLONG:
    case TYPE_IFD:
    case TYPE_LONG8: return from_integer(value);
    case TYPE_RATIONAL:
        return from_fraction((int64_t)number(p, 4, little), (int64_t)number(p + 4, 4, little));
    case TYPE_SRATIONAL:
        return from_fraction((int32_t)number(p, 4, little), (int32_t)number(p + 4, 4, little));
    case TYPE_FLOAT: {
        const uint32_t bits = (uint32_t)value;
        float real;
        memcpy(&real, &bits, sizeof real);
        return from_real(real);
    }
    case TYPE_DOUBLE: {
        double real;
        memcpy(&real, &value, sizeof real);
        return from_real(real);
    }
    default: return UPRIGHT;
    }
}

/* Copies n bytes of the EXIF data; 0 if it is shorter. */
static int copy(const hw_metadata *metadata, uint64_t at, uint8_t *out, size_t n) {
    for (int i = 0; i < metadata->exif_parts && n; i++) {
        const hw_part *part = &metadata->exif[i];
        if (at >= part->size) {
            at -= part->size;
            continue;
        }
        const size_t here = part->size - at < n ? part->size - (size_t)at : n;
        memcpy(out, part->bytes + at, here);
        out += here;
        n -= here;
        at = 0;
    }
    return n == 0;
}

/* NONE if no entry has it. */
static int exif_orientation(const hw_metadata *metadata) {
    uint8_t head[8], entry[12], value[8];
    uint64_t size = 0, begin = 0;
    for (int i = 0; i < metadata->exif_parts; i++) size += metadata->exif[i].size;
    while (copy(metadata, begin, head, 6) && !memcmp(head, "Exif\0\0", 6)) begin += 6;
    if (begin == size) return NONE;
    if (!copy(metadata, begin, head, sizeof head)) return UPRIGHT;
    const int little = head[0] == 'I';
    if (!(head[0] == head[1] && (little || head[0] == 'M'))) return UPRIGHT;
    /* PIL reads a version in the wrong byte order, and BigTIFF's in big endian, as TIFF's. */
    if (!((head[2] == 42 && head[3] == 0) || (head[2] == 0 && (head[3] == 42 || (head[3] == 43 && !little)))))
        return UPRIGHT;
    const uint64_t directory = begin + number(head + 4, 4, little);
    if (!copy(metadata, directory, head, 2)) return NONE;
    const uint64_t entries = number(head, 2, little);
    for (uint64_t i = 0; i < entries; i++) {
        if (!copy(metadata, directory + 2 + i * 12, entry, sizeof entry)) break;
        const unsigned type = (unsigned)number(entry + 2, 2, little);
        if (type >= TYPES || !type_sizes[type]) continue;
        const uint64_t bytes = number(entry + 4, 4, little) * type_sizes[type];
        if (bytes == 0) continue;
        const uint64_t at = begin + number(entry + 8, 4, little);
        /* The data is cut here, and PIL reads no further. */
        if (bytes > 4 && at + bytes > size) break;
        if (number(entry, 2, little) != ORIENTATION) continue;
        if (bytes <= 4) return from_value(type, entry + 8, little);
        return copy(metadata, at, value, type_sizes[type]) ? from_value(type, value, little) : UPRIGHT;
    }
    return NONE;
}

/* The first match of the regular expression tiff:Orientation(="|>)([0-9]). */
static int xmp_orientation(const hw_part *xmp) {
    static const char name[] = "tiff:Orientation";
    enum { NAME = sizeof name - 1, CAPITAL = 5 };
    size_t at = 0;
    while (xmp->size >= NAME && at <= xmp->size - NAME) {
        const uint8_t *capital = memchr(xmp->bytes + at + CAPITAL, 'O', xmp->size - NAME - at + 1);
        if (!capital) break;
        const uint8_t *found = capital - CAPITAL, *next = found + NAME, *end = xmp->bytes + xmp->size;
        at = (size_t)(found - xmp->bytes) + 1;
        if (memcmp(found, name, NAME)) continue;
        if (end - next >= 2 && next[0] == '=' && next[1] == '"')
            next += 2;
        else if (end - next >= 1 && next[0] == '>')
            next += 1;
        else
            continue;
        if (next < end && *next >= '0' && *next <= '9') return from_integer(*next - '0');
    }
    return UPRIGHT;
}

int hw_orientation(const hw_metadata *metadata) {
    const int stated = exif_orientation(metadata);
    return stated == NONE ? xmp_orientation(&metadata->xmp) : stated;
}
