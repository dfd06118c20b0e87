#include "msgpack.h"

#include <string.h>

static uint64_t big(const uint8_t *p, size_t n) {
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) value = value << 8 | p[i];
    return value;
}

static void natural(hw_msgpack_token *token, uint64_t value) {
    token->kind = HW_MSGPACK_UINT;
    token->natural = value;
}

static void negative(hw_msgpack_token *token, int64_t value) {
    if (value >= 0) return natural(token, (uint64_t)value);
    token->kind = HW_MSGPACK_INT;
    token->negative = value;
}

/* Reads the bytes of a text after its length. */
static int text(const uint8_t **at, const uint8_t *end, hw_msgpack_token *token) {
    if ((size_t)(end - *at) < token->length) return HW_MSGPACK_SHORT;
    token->data = *at;
    *at += token->length;
    return HW_MSGPACK_OK;
}

/* For each lead byte from 0xC0 to 0xDF: its type, and the bytes of number or length after it. */
enum { FALSE_ = HW_MSGPACK_MAP + 1, TRUE_, SIGNED, FLOAT32, EXT, UNUSED };
static const struct {
    uint8_t what, bytes;
} LEAD[32] = {
    {HW_MSGPACK_NIL, 0},
    {UNUSED, 0},
    {FALSE_, 0},
    {TRUE_, 0},
    {HW_MSGPACK_BIN, 1},
    {HW_MSGPACK_BIN, 2},
    {HW_MSGPACK_BIN, 4},
    {EXT, 0},
    {EXT, 0},
    {EXT, 0},
    {FLOAT32, 0},
    {HW_MSGPACK_FLOAT, 8},
    {HW_MSGPACK_UINT, 1},
    {HW_MSGPACK_UINT, 2},
    {HW_MSGPACK_UINT, 4},
    {HW_MSGPACK_UINT, 8},
    {SIGNED, 1},
    {SIGNED, 2},
    {SIGNED, 4},
    {SIGNED, 8},
    {EXT, 0},
    {EXT, 0},
    {EXT, 0},
    {EXT, 0},
    {EXT, 0},
    {HW_MSGPACK_STR, 1},
    {HW_MSGPACK_STR, 2},
    {HW_MSGPACK_STR, 4},
    {HW_MSGPACK_ARRAY, 2},
    {HW_MSGPACK_ARRAY, 4},
    {HW_MSGPACK_MAP, 2},
    {HW_MSGPACK_MAP, 4},
};

int hw_msgpack_next(const uint8_t **at, const uint8_t *end, hw_msgpack_token *token) {
    if (*at >= end) return HW_MSGPACK_SHORT;
    const uint8_t lead = *(*at)++;
    if (lead < 0x80) {
        natural(token, lead);
        return HW_MSGPACK_OK;
    }
    if (lead >= 0xE0) {
        negative(token, (int64_t)lead - 256);
        return HW_MSGPACK_OK;
    }
    if (lead < 0xC0) {
        token->kind = lead < 0x90 ? HW_MSGPACK_MAP : lead < 0xA0 ? HW_MSGPACK_ARRAY : HW_MSGPACK_STR;
        token->length = lead & (lead < 0xA0 ? 0x0F : 0x1F);
        return token->kind == HW_MSGPACK_STR ? text(at, end, token) : HW_MSGPACK_OK;
    }
    const int what = LEAD[lead - 0xC0].what;
    const size_t n = LEAD[lead - 0xC0].bytes;
    if ((size_t)(end - *at) < n) return HW_MSGPACK_SHORT;
    const uint64_t number = big(*at, n);
    *at += n;
    switch (what) {
    case EXT: return HW_MSGPACK_EXT;
    case FLOAT32: return HW_MSGPACK_FLOAT32;
    case UNUSED: return HW_MSGPACK_UNUSED;
    case FALSE_:
    case TRUE_:
        token->kind = HW_MSGPACK_BOOL;
        token->natural = what == TRUE_;
        return HW_MSGPACK_OK;
    case HW_MSGPACK_UINT: natural(token, number); return HW_MSGPACK_OK;
    case SIGNED: {
        /* The sign bit of an n byte number becomes that of the whole: the usual xor and subtraction. */
        const uint64_t sign = (uint64_t)1 << (8 * n - 1);
        negative(token, (int64_t)((number ^ sign) - sign));
        return HW_MSGPACK_OK;
    }
    case HW_MSGPACK_FLOAT:
        token->kind = HW_MSGPACK_FLOAT;
        memcpy(&token->real, &number, sizeof token->real);
        return HW_MSGPACK_OK;
    case HW_MSGPACK_NIL: token->kind = HW_MSGPACK_NIL; return HW_MSGPACK_OK;
    default:
        token->kind = what;
        token->length = (size_t)number;
        return what == HW_MSGPACK_STR || what == HW_MSGPACK_BIN ? text(at, end, token) : HW_MSGPACK_OK;
    }
}

/* Whether the bytes are valid UTF-8: shortest form, no surrogates, nothing above U+10FFFF. */
static int is_utf8(const uint8_t *bytes, size_t size) {
    const uint8_t *end = bytes + size;
    while (bytes < end) {
        const uint8_t lead = *bytes++;
        if (lead < 0x80) continue;
        if (lead < 0xC2 || lead > 0xF4) return 0;
        const int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        if (end - bytes < more) return 0;
        /* The second byte excludes long forms, surrogates and values that are too large (Unicode 15, table
         * 3-7). */
        const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (bytes[0] < low || bytes[0] > high) return 0;
        for (int i = 1; i < more; i++)
            if ((bytes[i] & 0xC0) != 0x80) return 0;
        bytes += more;
    }
    return 1;
}

/* Checks a single token. */
static int check_token(const hw_msgpack_token *token, const hw_msgpack_limits *limits) {
    switch (token->kind) {
    case HW_MSGPACK_STR:
        if (token->length > limits->str) return HW_MSGPACK_LONG_STR;
        return limits->raw || is_utf8(token->data, token->length) ? HW_MSGPACK_OK : HW_MSGPACK_UTF8;
    case HW_MSGPACK_BIN: return token->length > limits->bin ? HW_MSGPACK_LONG_BIN : HW_MSGPACK_OK;
    case HW_MSGPACK_ARRAY: return token->length > limits->array ? HW_MSGPACK_LONG_ARRAY : HW_MSGPACK_OK;
    case HW_MSGPACK_MAP: return token->length > limits->map ? HW_MSGPACK_LONG_MAP : HW_MSGPACK_OK;
    default: return HW_MSGPACK_OK;
    }
}

int hw_msgpack_check(const uint8_t *bytes, size_t size, const hw_msgpack_limits *limits, size_t *where) {
    const uint8_t *at = bytes, *end = bytes + size;
    /* For each open array and map: remaining objects, and whether it is a map. */
    size_t open[HW_MSGPACK_DEPTH];
    int is_map[HW_MSGPACK_DEPTH];
    int depth = 0;
    size_t objects = 0;
    do {
        hw_msgpack_token token;
        *where = (size_t)(at - bytes);
        if (++objects > limits->objects) return HW_MSGPACK_MANY;
        int status = hw_msgpack_next(&at, end, &token);
        if (status == HW_MSGPACK_OK) status = check_token(&token, limits);
        if (status != HW_MSGPACK_OK) return status;
        /* An even number remains in a map: a key is next. */
        if (depth && is_map[depth - 1] && open[depth - 1] % 2 == 0 && token.kind != HW_MSGPACK_STR &&
            !(limits->raw && token.kind == HW_MSGPACK_BIN))
            return HW_MSGPACK_KEY;
        if (depth) open[depth - 1]--;
        if (token.kind == HW_MSGPACK_ARRAY || token.kind == HW_MSGPACK_MAP) {
            if (depth == HW_MSGPACK_DEPTH) return HW_MSGPACK_DEEP;
            is_map[depth] = token.kind == HW_MSGPACK_MAP;
            open[depth] = token.length << is_map[depth];
            depth++;
        }
        while (depth && open[depth - 1] == 0) depth--;
    } while (depth);
    *where = (size_t)(at - bytes);
    return at == end ? HW_MSGPACK_OK : HW_MSGPACK_TRAILING;
}
