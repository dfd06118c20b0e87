/* The part of msgpack that Highway speaks: no extensions, no timestamps, no float32.
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md */

#ifndef HIGHWAY_MSGPACK_H
#define HIGHWAY_MSGPACK_H

#include <stddef.h>
#include <stdint.h>

/* Deepest nesting of arrays and maps; one that stands alone is 1. */
enum { HW_MSGPACK_DEPTH = 8 };

enum hw_msgpack_status {
    HW_MSGPACK_OK = 0,
    HW_MSGPACK_SHORT,    /* ends in the middle of an object */
    HW_MSGPACK_TRAILING, /* bytes behind the object */
    HW_MSGPACK_EXT,      /* an extension or a timestamp */
    HW_MSGPACK_FLOAT32,
    HW_MSGPACK_UNUSED, /* a byte that begins nothing */
    HW_MSGPACK_KEY,    /* a key of a map that is no str */
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
    size_t array, map, str, bin; /* most items, pairs, bytes, bytes */
    size_t objects;              /* most in all; keys count, and so does what holds others */
    int raw;                     /* str may be any bytes, and bin may be a key, as in msgpack of old */
} hw_msgpack_limits;

/* Reads the token at `*at` and moves `*at` behind it; never looks at `end` or beyond. */
int hw_msgpack_next(const uint8_t **at, const uint8_t *end, hw_msgpack_token *token);

/* Whether `size` bytes are one object within the limits; `*where` is the offset of what is wrong. */
int hw_msgpack_check(const uint8_t *bytes, size_t size, const hw_msgpack_limits *limits, size_t *where);

/* Where the writers write; each takes the shortest form, and returns 0, or -1 where there is no room. */
typedef struct {
    uint8_t *at, *end;
} hw_msgpack_room;

int hw_msgpack_put_nil(hw_msgpack_room *room);
int hw_msgpack_put_bool(hw_msgpack_room *room, int value);
int hw_msgpack_put_int(hw_msgpack_room *room, int64_t value);
int hw_msgpack_put_uint(hw_msgpack_room *room, uint64_t value);
int hw_msgpack_put_float(hw_msgpack_room *room, double value);
int hw_msgpack_put_str(hw_msgpack_room *room, const char *bytes, size_t size);
int hw_msgpack_put_bin(hw_msgpack_room *room, const char *bytes, size_t size);
int hw_msgpack_put_array(hw_msgpack_room *room, size_t items);
int hw_msgpack_put_map(hw_msgpack_room *room, size_t pairs);

#endif
