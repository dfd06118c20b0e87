#include "color_kernels.h"

#include <string.h>

#if HW_X86
#include <immintrin.h>
#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi")))
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Weights of red, green and blue in gray, in 1 / 32768: 0.2989, 0.587 and 0.114. */
enum { RED = 9794, GREEN = 19235, BLUE = 3736, HALF = 16384 };

/* Plain C */

ALWAYS_INLINE void fold(const uint8_t *in, uint8_t *out, ptrdiff_t count, int threshold, uint8_t mask) {
    /* In bytes only: nothing is below a threshold of 0, and nothing above one of 256. */
    uint8_t least = (uint8_t)(threshold > 255 ? 255 : threshold), change = threshold > 255 ? 0 : 255;
    /* Also in place: each byte depends only on itself. */
#pragma GCC ivdep
    for (ptrdiff_t i = 0; i < count; i++) {
        uint8_t flip = in[i] >= least ? change : 0;
        out[i] = (uint8_t)((in[i] ^ flip) & mask);
    }
}

ALWAYS_INLINE uint8_t gray_of(uint8_t red, uint8_t green, uint8_t blue) {
    return (uint8_t)((RED * red + GREEN * green + BLUE * blue + HALF) >> 15);
}

ALWAYS_INLINE uint8_t on_line(uint8_t value, hw_line line) {
    int found = (hw_mulhrs((int16_t)(value * 128), line.factor) + line.offset) >> line.shift;
    return (uint8_t)(found < 0 ? 0 : found > 255 ? 255 : found);
}

/* `range` times the part, 0 to a HW_SEXTANT, that a channel has of it. */
ALWAYS_INLINE uint8_t part_of(int range, int part) {
    part = part < 0 ? 0 : part > HW_SEXTANT ? HW_SEXTANT : part;
    return (uint8_t)hw_mulhrs((int16_t)(range * 8), (int16_t)part);
}

ALWAYS_INLINE int distance(int from, int to) {
    return from < to ? to - from : from - to;
}

/* Hue in HSV, in 1 / 4096 sextants; in a sextant a channel goes linearly from the least to the most of the
 * three, so hue, least and range define a color. */
ALWAYS_INLINE void turn(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                        ptrdiff_t count, uint16_t turn) {
    /* Hues start one sextant below red, so that none is negative. */
    int more = turn < HW_SEXTANT ? turn + HW_CIRCLE - HW_SEXTANT : turn - HW_SEXTANT;
    for (ptrdiff_t i = 0; i < count; i++) {
        int r = red[i], g = green[i], b = blue[i];
        int high = r > g ? r : g, low = r < g ? r : g;
        high = high > b ? high : b;
        low = low < b ? low : b;
        int range = high - low;
        int side = r == high ? g - b : g == high ? b - r : r - g;
        int start = r == high ? 0 : g == high ? 2 * HW_SEXTANT : 4 * HW_SEXTANT;
        float divisor = (float)(range ? range : 1);
        int hue = (int)((float)(side + range) * (float)HW_SEXTANT / divisor + 0.5f) + start + more;
        hue = hue >= HW_CIRCLE ? hue - HW_CIRCLE : hue;
        red[i] = (uint8_t)(low + part_of(range, distance(hue, 3 * HW_SEXTANT) - HW_SEXTANT));
        green[i] = (uint8_t)(low + part_of(range, 2 * HW_SEXTANT - distance(hue, 2 * HW_SEXTANT)));
        blue[i] = (uint8_t)(low + part_of(range, 2 * HW_SEXTANT - distance(hue, 4 * HW_SEXTANT)));
    }
}

ALWAYS_INLINE uint8_t on_spread(uint8_t value, const hw_spread *by, int i) {
    const uint8_t low = by->low[i];
    const uint16_t above = (uint16_t)(((value > low ? value : low) - low) << 8);
    const uint16_t part = (uint16_t)(by->upper[i] << 8 | by->lower[i]);
    const uint16_t found = (uint16_t)((uint32_t)above * part >> 16);
    return (uint8_t)((uint16_t)(found + (uint16_t)(above * by->whole[i]) + 128) >> 8);
}

static void stretch_plain(const uint8_t *in, uint8_t *out, ptrdiff_t count, const hw_spread *by) {
    ptrdiff_t first = 0;
    for (; first + HW_PERIOD <= count; first += HW_PERIOD) {
#pragma GCC ivdep
        for (int i = 0; i < HW_PERIOD; i++) out[first + i] = on_spread(in[first + i], by, i);
    }
    for (int i = 0; first + i < count; i++) out[first + i] = on_spread(in[first + i], by, i);
}

/* Adds every third byte. */
static void sums_plain(const uint8_t *in, ptrdiff_t count, uint64_t sum[3]) {
    ptrdiff_t i = 0;
    for (; i + 3 <= count; i += 3)
        for (int part = 0; part < 3; part++) sum[part] += in[i + part];
    for (int part = 0; i + part < count; part++) sum[part] += in[i + part];
}

/* Minimum and maximum at every position of a period. */
static void extremes_plain(const uint8_t *in, ptrdiff_t count, uint8_t *restrict low,
                           uint8_t *restrict high) {
    ptrdiff_t first = 0;
    for (; first + HW_PERIOD <= count; first += HW_PERIOD) {
        for (int i = 0; i < HW_PERIOD; i++) {
            low[i] = in[first + i] < low[i] ? in[first + i] : low[i];
            high[i] = in[first + i] > high[i] ? in[first + i] : high[i];
        }
    }
    for (int i = 0; first + i < count; i++) {
        low[i] = in[first + i] < low[i] ? in[first + i] : low[i];
        high[i] = in[first + i] > high[i] ? in[first + i] : high[i];
    }
}

/* factor times 2 to the power of logarithms * exponent, which are 0 to -1000, with a relative error of
 * 1e-9. */
ALWAYS_INLINE void powers(const double *logarithms, double exponent, double factor, double *out) {
    for (int i = 0; i < 256; i++) {
        /* Rounds to a whole number in the lowest bits of the sum. */
        const double power = logarithms[i] * exponent, sum = power + 0x1.8p52;
        const double rest = (power - (sum - 0x1.8p52)) * 0x1.62e42fefa39efp-1;
        double series = 1.0 + rest * (1.0 / 8);
        series = 1.0 + rest * (1.0 / 7) * series;
        series = 1.0 + rest * (1.0 / 6) * series;
        series = 1.0 + rest * (1.0 / 5) * series;
        series = 1.0 + rest * (1.0 / 4) * series;
        series = 1.0 + rest * (1.0 / 3) * series;
        series = 1.0 + rest * (1.0 / 2) * series;
        series = 1.0 + rest * series;
        uint64_t bits;
        double scale;
        memcpy(&bits, &sum, sizeof bits);
        bits = (bits + 1023) << 52;
        memcpy(&scale, &bits, sizeof scale);
        out[i] = factor * (series * scale);
    }
}

static void line_plain(const uint8_t *in, uint8_t *out, ptrdiff_t count, hw_line line) {
#pragma GCC ivdep
    for (ptrdiff_t i = 0; i < count; i++) out[i] = on_line(in[i], line);
}

static void turn_plain(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                       ptrdiff_t count, uint16_t sextants) {
    turn(red, green, blue, count, sextants);
}

static void table_plain(const uint8_t *in, uint8_t *out, ptrdiff_t count, const uint8_t *table,
                        const uint8_t *changes) {
    (void)changes;
    for (ptrdiff_t i = 0; i < count; i++) out[i] = table[in[i]];
}

static void split_plain(const uint8_t *in, ptrdiff_t count, uint8_t *red, uint8_t *green, uint8_t *blue) {
    for (ptrdiff_t i = 0; i < count; i++) {
        red[i] = in[3 * i];
        green[i] = in[3 * i + 1];
        blue[i] = in[3 * i + 2];
    }
}

static void join_plain(const uint8_t *red, const uint8_t *green, const uint8_t *blue, ptrdiff_t count,
                       uint8_t *out) {
    for (ptrdiff_t i = 0; i < count; i++) {
        out[3 * i] = red[i];
        out[3 * i + 1] = green[i];
        out[3 * i + 2] = blue[i];
    }
}

static void gray_plain(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                       ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) red[i] = green[i] = blue[i] = gray_of(red[i], green[i], blue[i]);
}

static void saturate_plain(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                           ptrdiff_t count, hw_factor factor) {
    for (ptrdiff_t i = 0; i < count; i++) {
        uint8_t gray = gray_of(red[i], green[i], blue[i]);
        red[i] = hw_blend(gray, red[i], factor.scale, factor.factor);
        green[i] = hw_blend(gray, green[i], factor.scale, factor.factor);
        blue[i] = hw_blend(gray, blue[i], factor.scale, factor.factor);
    }
}

/* Interleaved pixels. */
static void gray_pixels_plain(const uint8_t *in, uint8_t *out, ptrdiff_t pixels) {
    for (ptrdiff_t i = 0; i < 3 * pixels; i += 3)
        out[i] = out[i + 1] = out[i + 2] = gray_of(in[i], in[i + 1], in[i + 2]);
}

/* The same, after the line `first` if it is not NULL. */
static void saturate_pixels_plain(const uint8_t *in, uint8_t *out, ptrdiff_t pixels, hw_factor factor,
                                  const hw_line *first) {
    for (ptrdiff_t i = 0; i < 3 * pixels; i += 3) {
        uint8_t values[3];
        for (int channel = 0; channel < 3; channel++)
            values[channel] = first ? on_line(in[i + channel], *first) : in[i + channel];
        uint8_t gray = gray_of(values[0], values[1], values[2]);
        for (int channel = 0; channel < 3; channel++)
            out[i + channel] = hw_blend(gray, values[channel], factor.scale, factor.factor);
    }
}

#if HW_X86

/* Makes a value opaque to the compiler, so that it does not reorder the code after it and run out of
 * registers. */
#define SETTLED(value) __asm__("" : "+x"(value))

/* Looks up two vectors of indices in a quarter of a table, less 0, 16, 32 and 48. */
AVX2 ALWAYS_INLINE void quarter_of(const uint8_t *changes, __m256i index[2][4], __m256i found[2]) {
    for (int part = 0; part < 4; part++) {
        const __m256i change =
            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(changes + 16 * part)));
        for (int v = 0; v < 2; v++) {
            const __m256i one = _mm256_shuffle_epi8(change, index[v][part]);
            found[v] = part ? _mm256_xor_si256(found[v], one) : one;
            SETTLED(found[v]);
        }
    }
}

/* Table of 256 by sixteen shuffles of 16 each. A shuffle takes the low four bits of an index below 128, and
   gives 0 for others. With 16 subtracted again and again an index below 64 passes through as many of four
   shuffles as it has sixteens, so the parts of a quarter of the table hold the changes from one part to the
   next. The other quarters work the same way, and the top two bits select one of them. */
AVX2 static void table_avx2(const uint8_t *in, uint8_t *out, ptrdiff_t count, const uint8_t *table,
                            const uint8_t *changes) {
    ptrdiff_t i = 0;
    for (; i + 64 <= count; i += 64) {
        __m256i index[2][4], half[2][2], first[2], second[2];
        for (int v = 0; v < 2; v++) {
            const __m256i value = _mm256_loadu_si256((const __m256i *)(in + i + 32 * v));
            index[v][0] = _mm256_and_si256(value, _mm256_set1_epi8(63));
            for (int part = 1; part < 4; part++)
                index[v][part] = _mm256_sub_epi8(index[v][0], _mm256_set1_epi8((char)(16 * part)));
        }
        for (int side = 0; side < 2; side++) {
            quarter_of(changes + 128 * side, index, first);
            quarter_of(changes + 128 * side + 64, index, second);
            for (int v = 0; v < 2; v++) {
                const __m256i value = _mm256_loadu_si256((const __m256i *)(in + i + 32 * v));
                half[side][v] = _mm256_blendv_epi8(first[v], second[v], _mm256_add_epi8(value, value));
                SETTLED(half[side][v]);
            }
        }
        for (int v = 0; v < 2; v++) {
            const __m256i value = _mm256_loadu_si256((const __m256i *)(in + i + 32 * v));
            _mm256_storeu_si256((__m256i *)(out + i + 32 * v),
                                _mm256_blendv_epi8(half[0][v], half[1][v], value));
        }
    }
    table_plain(in + i, out + i, count - i, table, changes);
}

/* Each instruction looks up 128 entries by the lower seven bits. */
AVX512 static void table_avx512(const uint8_t *in, uint8_t *out, ptrdiff_t count, const uint8_t *table,
                                const uint8_t *changes) {
    (void)changes;
    __m512i quarters[4];
    for (int quarter = 0; quarter < 4; quarter++)
        quarters[quarter] = _mm512_loadu_si512(table + 64 * quarter);
    for (ptrdiff_t i = 0; i < count; i += 64) {
        const ptrdiff_t left = count - i;
        const __mmask64 these = left < 64 ? ((__mmask64)1 << left) - 1 : ~(__mmask64)0;
        const __m512i values = _mm512_maskz_loadu_epi8(these, in + i);
        const __m512i lower = _mm512_permutex2var_epi8(quarters[0], values, quarters[1]);
        const __m512i upper = _mm512_permutex2var_epi8(quarters[2], values, quarters[3]);
        _mm512_mask_storeu_epi8(out + i, these,
                                _mm512_mask_blend_epi8(_mm512_movepi8_mask(values), lower, upper));
    }
}

/* A weight in two signed bytes. */
#define UPPER(weight) (((weight) + 128) >> 8)
#define LOWER(weight) ((weight) - 256 * UPPER(weight))

/* Masks that gather bytes of eight pixels, two from each, out of a third of 16 pixels. Constants: computing
 * them would take about as long as a block of pixels. NO_BYTE is in no third, whatever the pixel. */
#define IN_THIRD(place) ((place) >= 0 && (place) < 16 ? (place) : -1)
#define OF_PIXEL(third, pixel, first, second)                                                                \
    IN_THIRD(3 * (pixel) + (first) - 16 * (third)), IN_THIRD(3 * (pixel) + (second) - 16 * (third))
#define OF_EIGHT(third, pixel, first, second)                                                                \
    {OF_PIXEL(third, pixel, first, second),       OF_PIXEL(third, (pixel) + 1, first, second),               \
     OF_PIXEL(third, (pixel) + 2, first, second), OF_PIXEL(third, (pixel) + 3, first, second),               \
     OF_PIXEL(third, (pixel) + 4, first, second), OF_PIXEL(third, (pixel) + 5, first, second),               \
     OF_PIXEL(third, (pixel) + 6, first, second), OF_PIXEL(third, (pixel) + 7, first, second)}
#define NO_BYTE (-64)

/* Red and green, then blue and 0, of the first eight pixels and of the others, each spread over two
 * thirds. */
static const int8_t pair_masks[2][2][2][16] = {
    {{OF_EIGHT(0, 0, 0, 1), OF_EIGHT(1, 0, 0, 1)}, {OF_EIGHT(1, 8, 0, 1), OF_EIGHT(2, 8, 0, 1)}},
    {{OF_EIGHT(0, 0, 2, NO_BYTE), OF_EIGHT(1, 0, 2, NO_BYTE)},
     {OF_EIGHT(1, 8, 2, NO_BYTE), OF_EIGHT(2, 8, 2, NO_BYTE)}},
};

/* Masks that repeat a value of a pixel three times, in each third. */
static const int8_t thrice_masks[3][16] = {
    {0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5},
    {5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10},
    {10, 11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15},
};

/* Whether it begins at 0. */
ALWAYS_INLINE int is_multiple(hw_line line) {
    return line.offset == 1 << (line.shift - 1);
}

/* 16 interleaved pixels have 48 bytes: a second lane has those of the next 16. */
SSE4 ALWAYS_INLINE __m128i load_apart_sse4(const uint8_t *at) {
    return _mm_loadu_si128((const __m128i *)at);
}

SSE4 ALWAYS_INLINE void store_apart_sse4(uint8_t *at, __m128i values) {
    _mm_storeu_si128((__m128i *)at, values);
}

AVX2 ALWAYS_INLINE __m256i load_apart_avx2(const uint8_t *at) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at)),
                                   _mm_loadu_si128((const __m128i *)(at + 48)), 1);
}

AVX2 ALWAYS_INLINE void store_apart_avx2(uint8_t *at, __m256i values) {
    _mm_storeu_si128((__m128i *)at, _mm256_castsi256_si128(values));
    _mm_storeu_si128((__m128i *)(at + 48), _mm256_extracti128_si256(values, 1));
}

#define LANES_FILE "color_lanes.h"
#include "lanes.h"

/* Plain C for each instruction set: the compiler vectorizes it. */
#define VARIANTS(result, name, parameters, arguments)                                                        \
    static result name##_plain parameters {                                                                  \
        return name arguments;                                                                               \
    }                                                                                                        \
    SSE4 static result name##_sse4 parameters {                                                              \
        return name arguments;                                                                               \
    }                                                                                                        \
    AVX2 static result name##_avx2 parameters {                                                              \
        return name arguments;                                                                               \
    }

#else

#define VARIANTS(result, name, parameters, arguments)                                                        \
    static result name##_plain parameters {                                                                  \
        return name arguments;                                                                               \
    }

#endif

VARIANTS(void, fold, (const uint8_t *in, uint8_t *out, ptrdiff_t count, int threshold, uint8_t mask),
         (in, out, count, threshold, mask))
VARIANTS(void, powers, (const double *logarithms, double exponent, double factor, double *out),
         (logarithms, exponent, factor, out))

#define KERNELS(table, variant)                                                                              \
    {table,                                                                                                  \
     fold_##variant,                                                                                         \
     line_##variant,                                                                                         \
     split_##variant,                                                                                        \
     join_##variant,                                                                                         \
     gray_##variant,                                                                                         \
     saturate_##variant,                                                                                     \
     turn_##variant,                                                                                         \
     gray_pixels_##variant,                                                                                  \
     saturate_pixels_##variant,                                                                              \
     stretch_##variant,                                                                                      \
     sums_##variant,                                                                                         \
     extremes_##variant,                                                                                     \
     powers_##variant}

static const hw_color_kernels variants[] = {
    KERNELS(table_plain, plain),
#if HW_X86
    /* Shuffles of 16 bytes are slower than plain table lookups. */
    KERNELS(table_plain, sse4),
    KERNELS(table_avx2, avx2),
    /* A table of 256 in four registers; the rest is the AVX2 code. */
    KERNELS(table_avx512, avx2),
#endif
};

const hw_color_kernels *hw_color_kernels_of(int simd) {
    return &variants[HW_X86 ? simd : 0];
}
