#include "jpeg_entropy.h"

#include <string.h>

#include "simd.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* Largest sizes of values in 8-bit pictures (T.81, tables F.1 and F.2). */
enum { DC_SIZE = 11, AC_SIZE = 10 };

/* Maximum bytes of a block: a DC and 63 AC values with the longest codes. The decoder may read this far
 * beyond the end before it notices. */
enum { BLOCK_BYTES = (16 + DC_SIZE + 63 * (16 + AC_SIZE)) / 8 + 1, SPARE_BYTES = BLOCK_BYTES + 24 };

/* Positions of the values in a block, in coding order; a damaged block may run over. */
static const uint8_t NATURAL[HW_BLOCK + 16] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33,
    40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

/* ---- tables ----
 *
 * A symbol is a code and the value after it: bits of both in bits 0 to 5 of the entry, bits of the code in 8
 * to 13, of the value in 16 to 21, and from 24 on the zeros before the value. Shifts by these numbers need no
 * mask, since 64-bit shifts use only six bits. */

enum { CODE_AT = 8, SIZE_AT = 16, RUN_AT = 24 };

ALWAYS_INLINE uint32_t symbol_of(unsigned value, unsigned length, int is_ac) {
    const unsigned size = is_ac ? value & 15 : value, run = is_ac ? value >> 4 : 0;
    return (length + size) | length << CODE_AT | size << SIZE_AT | run << RUN_AT;
}

int hw_huffman_build(hw_huffman *table, const uint8_t counts[16], const uint8_t *values, int is_ac) {
    int total = 0;
    for (int i = 0; i < 16; i++) total += counts[i];
    if (total > 256) return -1;
    if (table->total == total && total && !memcmp(table->counts, counts, 16) &&
        !memcmp(table->values, values, (size_t)total))
        return 0;
    table->total = 0; /* not valid until it is complete */
    memset(table->look, 0, sizeof table->look);
    uint32_t code = 0;
    int place = 0;
    for (int length = 1; length <= 16; length++) {
        table->offsets[length] = place - (int32_t)code;
        for (int i = 0; i < counts[length - 1]; i++, code++, place++) {
            const unsigned value = values[place];
            if (code >= 1u << length || (is_ac ? (value & 15) > AC_SIZE : value > DC_SIZE)) return -1;
            if (length > HW_HUFFMAN_LOOK) continue;
            const uint32_t symbol = symbol_of(value, (unsigned)length, is_ac);
            const int spare = HW_HUFFMAN_LOOK - length;
            for (uint32_t k = 0; k < 1u << spare; k++) table->look[(code << spare) + k] = symbol;
        }
        table->ends[length] = code << (16 - length);
        code <<= 1;
    }
    memcpy(table->counts, counts, 16);
    memcpy(table->values, values, (size_t)total);
    table->total = total;
    return 0;
}

/* Finds a code that is longer than the table's lookup; 0 if there is none. */
static __attribute__((noinline)) uint32_t search(const hw_huffman *table, uint64_t bits, int is_ac) {
    const uint32_t next = (uint32_t)(bits >> 48);
    for (int length = HW_HUFFMAN_LOOK + 1; length <= 16; length++)
        if (next < table->ends[length])
            return symbol_of(table->values[(int32_t)(next >> (16 - length)) + table->offsets[length]],
                             (unsigned)length, is_ac);
    return 0;
}

/* ---- intervals ---- */

/* Removes the stuffed zeros from the data up to the next marker (T.81, F.1.2.3), so that bits can be read
 * eight bytes at a time. Zeros follow the data. */
static void begin_interval(hw_scan *scan) {
    uint8_t *out = scan->interval.bytes;
    const uint8_t *at = scan->file, *const end = scan->file_end;
    for (size_t room = scan->room; at < end && room;) {
        const size_t most = (size_t)(end - at) < room ? (size_t)(end - at) : room;
        const uint8_t *ff = memchr(at, 0xFF, most);
        const size_t plain = ff ? (size_t)(ff - at) : most;
        memcpy(out, at, plain);
        out += plain;
        at += plain;
        room -= plain;
        if (!ff) continue;
        if (end - ff < 2 || ff[1]) break;
        *out++ = 0xFF;
        at += 2;
        room--;
    }
    memset(out, 0, SPARE_BYTES);
    scan->file = at;
    scan->at = scan->interval.bytes;
    scan->end = out;
    scan->bits = 0;
    scan->count = 0;
    scan->until_restart = scan->restart_interval;
    for (int c = 0; c < scan->components; c++) scan->component[c].predicted = 0;
}

int hw_scan_begin(hw_scan *scan, int rows, const uint8_t *bytes, size_t size) {
    size_t blocks = 0;
    for (int c = 0; c < scan->components; c++)
        blocks += (size_t)(scan->component[c].across * scan->component[c].down);
    blocks *= (size_t)scan->columns * (size_t)rows;
    /* Bytes after the maximum length of the blocks are ignored. */
    scan->room = blocks < size / BLOCK_BYTES ? blocks * BLOCK_BYTES : size;
    hw_buffer_trim(&scan->interval, scan->room + SPARE_BYTES);
    if (hw_buffer_reserve(&scan->interval, scan->room + SPARE_BYTES)) return -1;
    scan->file = bytes;
    scan->file_end = bytes + size;
    scan->next_restart = 0;
    begin_interval(scan);
    return 0;
}

/* The marker between two intervals (T.81, B.2.1). */
static int restart(hw_scan *scan) {
    if (scan->file_end - scan->file < 2 || scan->file[0] != 0xFF ||
        scan->file[1] != 0xD0 + scan->next_restart)
        return -1;
    scan->file += 2;
    scan->next_restart = (scan->next_restart + 1) & 7;
    begin_interval(scan);
    return 0;
}

/* ---- bits ---- */

typedef struct {
    const uint8_t *at;
    uint64_t bits;
    unsigned used; /* bits from the top used since the last refill; above bit 5 is noise */
} reader;

/* Refills to at least 56 bits. Bits not yet counted in `at` may be present already: they are the next ones
 * anyway. */
ALWAYS_INLINE void refill(reader *r, unsigned *count) {
    uint64_t next;
    memcpy(&next, r->at, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    next = __builtin_bswap64(next);
#endif
    *count -= r->used & 63;
    r->bits |= next >> (*count & 63);
    r->at += (63 - *count) >> 3;
    *count |= 56;
    r->used = 0;
}

ALWAYS_INLINE uint32_t next_symbol(const reader *r, const hw_huffman *table, int is_ac) {
    const uint32_t symbol = table->look[r->bits >> (64 - HW_HUFFMAN_LOOK)];
    return LIKELY(symbol) ? symbol : search(table, r->bits, is_ac);
}

/* The value after a code: its bits or, if the first bit is 0, the bits minus (2^size - 1). */
ALWAYS_INLINE int value_of(const reader *r, uint32_t symbol) {
    const uint64_t from = r->bits << (symbol >> CODE_AT & 63);
    const unsigned size = symbol >> SIZE_AT; /* not 0 */
    const int64_t negative = ~(int64_t)from >> 63;
    const int64_t value = (int64_t)(from >> (-size & 63));
    return (int)((value | (int64_t)((uint64_t)negative << (size & 63))) - negative);
}

ALWAYS_INLINE void consume(reader *r, uint32_t symbol) {
    r->bits <<= symbol & 63;
    r->used += symbol;
}

/* ---- blocks ---- */

/* Decodes one AC symbol; exits at the end of the block. */
#define AC_SYMBOL()                                                                                          \
    symbol = next_symbol(&r, ac, 1);                                                                         \
    if (UNLIKELY(!symbol)) return -1;                                                                        \
    if (UNLIKELY(!(symbol & 15u << SIZE_AT))) {                                                              \
        consume(&r, symbol);                                                                                 \
        if (symbol >> RUN_AT != 15) goto done;                                                               \
        k += 16;                                                                                             \
    } else {                                                                                                 \
        k += symbol >> RUN_AT;                                                                               \
        if (kept) block[NATURAL[k]] = (int16_t)value_of(&r, symbol);                                         \
        consume(&r, symbol);                                                                                 \
        k++;                                                                                                 \
    }                                                                                                        \
    if (k >= HW_BLOCK) goto done

/* Decodes one block, or skips it unless `kept`. -1 if the data are damaged. */
ALWAYS_INLINE int decode_block(reader *state, unsigned *count, hw_scan_component *component, const int kept,
                               int16_t *block, uint8_t *only_dc) {
    const hw_huffman *const ac = component->ac;
    reader r = *state;
    unsigned k = 1;
    refill(&r, count);
    uint32_t symbol = next_symbol(&r, component->dc, 0);
    if (UNLIKELY(!symbol)) return -1;
    component->predicted += symbol & 15u << SIZE_AT ? (uint32_t)value_of(&r, symbol) : 0u;
    if (kept) block[0] = (int16_t)component->predicted;
    consume(&r, symbol);
    /* One refill suffices for the DC value and one more, then for two. */
    for (;;) {
        AC_SYMBOL();
        refill(&r, count);
        AC_SYMBOL();
    }
done:
    *state = r;
    if (kept) *only_dc = k == 1;
    return k > HW_BLOCK ? -1 : 0;
}

/* Unused bits of the interval; negative if more were used than it has. */
ALWAYS_INLINE ptrdiff_t bits_left(const hw_scan *scan, const reader *r, unsigned count) {
    return (scan->end - r->at) * 8 + (ptrdiff_t)(count - (r->used & 63));
}

/* Decodes MCUs [from, to) of a row, or skips them unless `kept`. */
ALWAYS_INLINE int decode_mcus(hw_scan *scan, reader *state, unsigned *count, int from, int to, const int kept,
                              int16_t *const blocks[3], uint8_t *const only_dc[3]) {
    reader r = *state;
    for (int column = from; column < to; column++) {
        if (scan->restart_interval && !scan->until_restart--) {
            const ptrdiff_t left = bits_left(scan, &r, *count);
            if (left < 0 || left >= 8 || restart(scan)) return -1;
            r = (reader){scan->at, 0, 0};
            *count = 0;
            scan->until_restart--;
        }
        for (int c = 0; c < scan->components; c++) {
            hw_scan_component *const component = &scan->component[c];
            const int across = component->across;
            for (int y = 0; y < component->down; y++)
                for (int x = 0; x < across; x++) {
                    const ptrdiff_t place =
                        kept ? ((ptrdiff_t)y * (to - from) + column - from) * across + x : 0;
                    if (UNLIKELY(r.at > scan->end + 8)) return -1;
                    if (UNLIKELY(decode_block(&r, count, component, kept,
                                              kept ? blocks[c] + place * HW_BLOCK : NULL,
                                              kept ? only_dc[c] + place : NULL)))
                        return -1;
                }
        }
    }
    *state = r;
    return 0;
}

ALWAYS_INLINE int decode_row(hw_scan *scan, int first, int last, int16_t *const blocks[3],
                             uint8_t *const only_dc[3]) {
    reader r = {scan->at, scan->bits, 0};
    unsigned count = (unsigned)scan->count;
    if (decode_mcus(scan, &r, &count, 0, first, 0, NULL, NULL) ||
        decode_mcus(scan, &r, &count, first, last, 1, blocks, only_dc) ||
        decode_mcus(scan, &r, &count, last, scan->columns, 0, NULL, NULL) || bits_left(scan, &r, count) < 0)
        return -1;
    scan->at = r.at;
    scan->bits = r.bits;
    scan->count = (int)(count - (r.used & 63));
    return 0;
}

#if HW_X86
/* BMI2 shifts take the number from any register. */
__attribute__((target("bmi,bmi2"))) static int
decode_row_bmi2(hw_scan *scan, int first, int last, int16_t *const blocks[3], uint8_t *const only_dc[3]) {
    return decode_row(scan, first, last, blocks, only_dc);
}
#endif

int hw_scan_row(hw_scan *scan, int simd, int first, int last, int16_t *const blocks[3],
                uint8_t *const only_dc[3]) {
#if HW_X86
    if (simd >= HW_AVX2) return decode_row_bmi2(scan, first, last, blocks, only_dc);
#endif
    return decode_row(scan, first, last, blocks, only_dc);
}
