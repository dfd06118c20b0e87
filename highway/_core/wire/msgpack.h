/* The subset of msgpack that Highway uses: no extensions, no timestamps, no float32. Format:
 * https://github.com/msgpack/msgpack/blob/master/spec.md */

#ifndef HIGHWAY_MSGPACK_H
#define HIGHWAY_MSGPACK_H

#include <stddef.h>
#include <stdint.h>

/* Deepest nesting of arrays and maps; a single one is 1. */
enum { HW_MSGPACK_DEPTH = 8 };

enum hw_msgpack_status {
    HW_MSGPACK_OK = 0,
    HW_MSGPACK_SHORT,    /* ends in the middle of an object */
    HW_MSGPACK_TRAILING, /* bytes after the object */
    HW_MSGPACK_EXT,      /* an extension or a timestamp */
    HW_MSGPACK_FLOAT32,
    HW_MSGPACK_UNUSED, /* an unused lead byte */
    HW_MSGPACK_KEY,    /* a map key that is not a str */
    HW_MSGPACK_UTF8,
    HW_MSGPACK_DEEP,
    HW_MSGPACK_LONG_ARRAY,
    HW_MSGPACK_LONG_MAP,
    HW_MSGPACK_LONG_STR,
    HW_MSGPACK_LONG_BIN,
    HW_MSGPACK_MANY, /* too many objects in all */
};

enum hw_msgpack_kind {
    HW_MSGPACK_NIL,
    HW_MSGPACK_BOOL,
    HW_MSGPACK_INT,  /* negative */
    HW_MSGPACK_UINT, /* not negative */
    HW_MSGPACK_FLOAT,
    HW_MSGPACK_STR,
    HW_MSGPACK_BIN,
    HW_MSGPACK_ARRAY,
    HW_MSGPACK_MAP,
};

/* A scalar, a text, or the beginning of an array or a map. */
typedef struct {
    int kind;
    int64_t negative;    /* HW_MSGPACK_INT */
    uint64_t natural;    /* HW_MSGPACK_UINT, HW_MSGPACK_BOOL */
    double real;         /* HW_MSGPACK_FLOAT */
    size_t length;       /* bytes of a text, items of an array, pairs of a map */
    const uint8_t *data; /* of HW_MSGPACK_STR and HW_MSGPACK_BIN */
} hw_msgpack_token;

typedef struct {
    size_t array, map, str, bin; /* maximum items, pairs, bytes, bytes */
    size_t objects;              /* maximum in all, including keys, arrays and maps */
    int raw;                     /* str may be any bytes, and bin may be a key, as in old msgpack */
} hw_msgpack_limits;

/* Reads the token at `*at` and moves `*at` past it; never reads at `end` or beyond. */
int hw_msgpack_next(const uint8_t **at, const uint8_t *end, hw_msgpack_token *token);

/* Checks that `size` bytes are one object within the limits; `*where` is the offset of a fault. */
int hw_msgpack_check(const uint8_t *bytes, size_t size, const hw_msgpack_limits *limits, size_t *where);

#endif
