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

/* As they lie. */
static void gray_pixels_plain(const uint8_t *in, uint8_t *out, ptrdiff_t pixels) {
    for (ptrdiff_t i = 0; i < 3 * pixels; i += 3)
        out[i] = out[i + 1] = out[i + 2] = gray_of(in[i], in[i + 1], in[i + 2]);
}

/* Of what `first` makes of the bytes, if there is one. */
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

/* Masks that gather channel `channel` of 16 pixels out of their third `third`. */
SSE4 static __m128i split_mask(int channel, int third) {
    int8_t mask[16];
    for (int pixel = 0; pixel < 16; pixel++) {
        int place = 3 * pixel + channel - 16 * third;
        mask[pixel] = (int8_t)(place >= 0 && place < 16 ? place : -1);
    }
    return _mm_loadu_si128((const __m128i *)mask);
}

/* Masks that spread a channel into a third of 16 pixels. */
SSE4 static __m128i join_mask(int channel, int third) {
    int8_t mask[16];
    for (int byte = 0; byte < 16; byte++) {
        int place = 16 * third + byte;
        mask[byte] = (int8_t)(place % 3 == channel ? place / 3 : -1);
    }
    return _mm_loadu_si128((const __m128i *)mask);
}

SSE4 static void split_sse4(const uint8_t *in, ptrdiff_t count, uint8_t *red, uint8_t *green, uint8_t *blue) {
    uint8_t *planes[3] = {red, green, blue};
    __m128i masks[3][3];
    ptrdiff_t i = 0;
    for (int channel = 0; channel < 3; channel++)
        for (int third = 0; third < 3; third++) masks[channel][third] = split_mask(channel, third);
    for (; i + 16 <= count; i += 16) {
        __m128i thirds[3];
        for (int third = 0; third < 3; third++)
            thirds[third] = _mm_loadu_si128((const __m128i *)(in + 3 * i + 16 * third));
        for (int channel = 0; channel < 3; channel++)
            _mm_storeu_si128((__m128i *)(planes[channel] + i),
                             _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(thirds[0], masks[channel][0]),
                                                       _mm_shuffle_epi8(thirds[1], masks[channel][1])),
                                          _mm_shuffle_epi8(thirds[2], masks[channel][2])));
    }
    split_plain(in + 3 * i, count - i, red + i, green + i, blue + i);
}

SSE4 static void join_sse4(const uint8_t *red, const uint8_t *green, const uint8_t *blue, ptrdiff_t count,
                           uint8_t *out) {
    const uint8_t *planes[3] = {red, green, blue};
    __m128i masks[3][3];
    ptrdiff_t i = 0;
    for (int channel = 0; channel < 3; channel++)
        for (int third = 0; third < 3; third++) masks[channel][third] = join_mask(channel, third);
    for (; i + 16 <= count; i += 16) {
        __m128i channels[3];
        for (int channel = 0; channel < 3; channel++)
            channels[channel] = _mm_loadu_si128((const __m128i *)(planes[channel] + i));
        for (int third = 0; third < 3; third++)
            _mm_storeu_si128((__m128i *)(out + 3 * i + 16 * third),
                             _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(channels[0], masks[0][third]),
                                                       _mm_shuffle_epi8(channels[1], masks[1][third])),
                                          _mm_shuffle_epi8(channels[2], masks[2][third])));
    }
    join_plain(red + i, green + i, blue + i, count - i, out + 3 * i);
}

/* Mask of bytes whose position has this remainder modulo three. */
AVX2 ALWAYS_INLINE __m256i each_third(int remainder, int period) {
    int8_t mask[32];
    for (int i = 0; i < 32; i++) mask[i] = (int8_t)(i % period % 3 == remainder ? -1 : 0);
    return _mm256_loadu_si256((const __m256i *)mask);
}

/* Cycles through `parts` from byte to byte, beginning with part `first`. */
AVX2 ALWAYS_INLINE __m256i in_turns(const __m256i parts[3], int first, int step, __m256i second,
                                    __m256i third) {
    const __m256i two = _mm256_blendv_epi8(parts[first % 3], parts[(first + step) % 3], second);
    return _mm256_blendv_epi8(two, parts[(first + 2 * step) % 3], third);
}

/* 32 interleaved pixels: the first 16 in the lower halves, the others in the upper ones. */
AVX2 ALWAYS_INLINE void load_pixels(const uint8_t *in, __m256i thirds[3]) {
    for (int part = 0; part < 3; part++)
        thirds[part] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(in + 16 * part))),
            _mm_loadu_si128((const __m128i *)(in + 48 + 16 * part)), 1);
}

AVX2 ALWAYS_INLINE void store_third(uint8_t *out, int part, __m256i third) {
    _mm_storeu_si128((__m128i *)(out + 16 * part), _mm256_castsi256_si128(third));
    _mm_storeu_si128((__m128i *)(out + 48 + 16 * part), _mm256_extracti128_si256(third, 1));
}

/* The 16 bytes of a channel have 16 different positions in the thirds: blends collect them, one shuffle
 * orders them. */
AVX2 static void split_avx2(const uint8_t *in, ptrdiff_t count, uint8_t *red, uint8_t *green, uint8_t *blue) {
    uint8_t *planes[3] = {red, green, blue};
    const __m256i second = each_third(1, 16), third = each_third(2, 16);
    __m256i order[3];
    ptrdiff_t i = 0;
    for (int channel = 0; channel < 3; channel++) {
        int8_t mask[16];
        for (int pixel = 0; pixel < 16; pixel++) mask[pixel] = (int8_t)((3 * pixel + channel) % 16);
        order[channel] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)mask));
    }
    for (; i + 32 <= count; i += 32) {
        __m256i thirds[3];
        load_pixels(in + 3 * i, thirds);
        for (int channel = 0; channel < 3; channel++) {
            const __m256i mixed = in_turns(thirds, channel, 2, second, third);
            _mm256_storeu_si256((__m256i *)(planes[channel] + i), _mm256_shuffle_epi8(mixed, order[channel]));
        }
    }
    split_plain(in + 3 * i, count - i, red + i, green + i, blue + i);
}

AVX2 static void join_avx2(const uint8_t *red, const uint8_t *green, const uint8_t *blue, ptrdiff_t count,
                           uint8_t *out) {
    const uint8_t *planes[3] = {red, green, blue};
    const __m256i second = each_third(1, 16), third = each_third(2, 16);
    __m256i order[3];
    ptrdiff_t i = 0;
    for (int channel = 0; channel < 3; channel++) {
        int8_t mask[16];
        for (int pixel = 0; pixel < 16; pixel++) mask[(3 * pixel + channel) % 16] = (int8_t)pixel;
        order[channel] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)mask));
    }
    for (; i + 32 <= count; i += 32) {
        __m256i mixed[3];
        for (int channel = 0; channel < 3; channel++)
            mixed[channel] = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(planes[channel] + i)),
                                                 order[channel]);
        for (int part = 0; part < 3; part++)
            store_third(out + 3 * i, part, in_turns(mixed, part, 1, second, third));
    }
    join_plain(red + i, green + i, blue + i, count - i, out + 3 * i);
}

SSE4 static void sums_sse4(const uint8_t *in, ptrdiff_t count, uint64_t sum[3]) {
    __m128i second, third, sums[3] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
    int8_t masks[2][16];
    ptrdiff_t i = 0;
    for (int at = 0; at < 16; at++) {
        masks[0][at] = (int8_t)(at % 3 == 1 ? -1 : 0);
        masks[1][at] = (int8_t)(at % 3 == 2 ? -1 : 0);
    }
    second = _mm_loadu_si128((const __m128i *)masks[0]);
    third = _mm_loadu_si128((const __m128i *)masks[1]);
    for (; i + 48 <= count; i += 48) {
        __m128i thirds[3];
        for (int part = 0; part < 3; part++)
            thirds[part] = _mm_loadu_si128((const __m128i *)(in + i + 16 * part));
        for (int part = 0; part < 3; part++) {
            __m128i mixed = _mm_blendv_epi8(thirds[part], thirds[(part + 2) % 3], second);
            mixed = _mm_blendv_epi8(mixed, thirds[(part + 1) % 3], third);
            sums[part] = _mm_add_epi64(sums[part], _mm_sad_epu8(mixed, _mm_setzero_si128()));
        }
    }
    for (int part = 0; part < 3; part++) {
        uint64_t lanes[2];
        _mm_storeu_si128((__m128i *)lanes, sums[part]);
        sum[part] += lanes[0] + lanes[1];
    }
    sums_plain(in + i, count - i, sum);
}

AVX2 static void sums_avx2(const uint8_t *in, ptrdiff_t count, uint64_t sum[3]) {
    const __m256i second = each_third(1, 32), third = each_third(2, 32);
    __m256i sums[3] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    ptrdiff_t i = 0;
    for (; i + HW_PERIOD <= count; i += HW_PERIOD) {
        __m256i thirds[3];
        for (int part = 0; part < 3; part++)
            thirds[part] = _mm256_loadu_si256((const __m256i *)(in + i + 32 * part));
        for (int part = 0; part < 3; part++) {
            const __m256i mixed = in_turns(thirds, 2 * part, 1, second, third);
            sums[part] = _mm256_add_epi64(sums[part], _mm256_sad_epu8(mixed, _mm256_setzero_si256()));
        }
    }
    for (int part = 0; part < 3; part++) {
        uint64_t lanes[4];
        _mm256_storeu_si256((__m256i *)lanes, sums[part]);
        sum[part] += lanes[0] + lanes[1] + lanes[2] + lanes[3];
    }
    sums_plain(in + i, count - i, sum);
}

/* The next functions process whole groups of pixels: planes have room for them. */

SSE4 ALWAYS_INLINE __m128i gray_eight(__m128i red, __m128i green, __m128i blue) {
    const __m128i one = _mm_set1_epi16(1);
    const __m128i first = _mm_set1_epi32(RED | GREEN << 16), second = _mm_set1_epi32(BLUE | HALF << 16);
    __m128i low = _mm_add_epi32(_mm_madd_epi16(_mm_unpacklo_epi16(red, green), first),
                                _mm_madd_epi16(_mm_unpacklo_epi16(blue, one), second));
    __m128i high = _mm_add_epi32(_mm_madd_epi16(_mm_unpackhi_epi16(red, green), first),
                                 _mm_madd_epi16(_mm_unpackhi_epi16(blue, one), second));
    return _mm_packs_epi32(_mm_srli_epi32(low, 15), _mm_srli_epi32(high, 15));
}

/* A weight in two signed bytes. */
#define UPPER(weight) (((weight) + 128) >> 8)
#define LOWER(weight) ((weight) - 256 * UPPER(weight))

AVX2 ALWAYS_INLINE __m256i two_bytes(int first, int second) {
    return _mm256_set1_epi16((short)((first & 255) | second * 256));
}

/* For 16 pixels: the carry from the lower to the upper sums drops only bits that the shift drops. */
AVX2 ALWAYS_INLINE __m256i gray_sixteen(__m256i red_green, __m256i blue_zero) {
    const __m256i upper =
        _mm256_add_epi16(_mm256_maddubs_epi16(red_green, two_bytes(UPPER(RED), UPPER(GREEN))),
                         _mm256_maddubs_epi16(blue_zero, two_bytes(UPPER(BLUE), 0)));
    const __m256i lower =
        _mm256_add_epi16(_mm256_maddubs_epi16(red_green, two_bytes(LOWER(RED), LOWER(GREEN))),
                         _mm256_maddubs_epi16(blue_zero, two_bytes(LOWER(BLUE), 0)));
    /* In 1 / 128, halves up. */
    return _mm256_mulhrs_epi16(_mm256_add_epi16(upper, _mm256_srai_epi16(lower, 8)), _mm256_set1_epi16(256));
}

AVX2 ALWAYS_INLINE void gray_thirtytwo(__m256i red, __m256i green, __m256i blue, __m256i gray[2]) {
    const __m256i zero = _mm256_setzero_si256();
    gray[0] = gray_sixteen(_mm256_unpacklo_epi8(red, green), _mm256_unpacklo_epi8(blue, zero));
    gray[1] = gray_sixteen(_mm256_unpackhi_epi8(red, green), _mm256_unpackhi_epi8(blue, zero));
}

SSE4 ALWAYS_INLINE __m128i load_eight(const uint8_t *in) {
    return _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)in));
}

SSE4 ALWAYS_INLINE void store_eight(uint8_t *out, __m128i values) {
    _mm_storel_epi64((__m128i *)out, _mm_packus_epi16(values, values));
}

SSE4 static void gray_sse4(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                           ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += 8) {
        __m128i gray = gray_eight(load_eight(red + i), load_eight(green + i), load_eight(blue + i));
        store_eight(red + i, gray);
        store_eight(green + i, gray);
        store_eight(blue + i, gray);
    }
}

AVX2 static void gray_avx2(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                           ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += 32) {
        __m256i gray[2];
        gray_thirtytwo(_mm256_loadu_si256((const __m256i *)(red + i)),
                       _mm256_loadu_si256((const __m256i *)(green + i)),
                       _mm256_loadu_si256((const __m256i *)(blue + i)), gray);
        const __m256i found = _mm256_packus_epi16(gray[0], gray[1]);
        _mm256_storeu_si256((__m256i *)(red + i), found);
        _mm256_storeu_si256((__m256i *)(green + i), found);
        _mm256_storeu_si256((__m256i *)(blue + i), found);
    }
}

/* Moves away from gray, or towards it: `words` are the gray of lower and upper bytes. */
AVX2 ALWAYS_INLINE __m256i away_thirtytwo(__m256i values, __m256i gray, const __m256i words[2], __m256i scale,
                                          __m256i part) {
    const __m256i low = _mm256_maddubs_epi16(_mm256_unpacklo_epi8(values, gray), scale);
    const __m256i high = _mm256_maddubs_epi16(_mm256_unpackhi_epi8(values, gray), scale);
    return _mm256_packus_epi16(_mm256_adds_epi16(words[0], _mm256_mulhrs_epi16(low, part)),
                               _mm256_adds_epi16(words[1], _mm256_mulhrs_epi16(high, part)));
}

SSE4 static void saturate_sse4(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                               ptrdiff_t count, hw_factor factor) {
    const __m128i scale = _mm_set1_epi16(factor.scale), part = _mm_set1_epi16(factor.factor);
    for (ptrdiff_t i = 0; i < count; i += 8) {
        uint8_t *places[3] = {red + i, green + i, blue + i};
        __m128i values[3] = {load_eight(red + i), load_eight(green + i), load_eight(blue + i)};
        __m128i gray = gray_eight(values[0], values[1], values[2]);
        for (int channel = 0; channel < 3; channel++) {
            __m128i away = _mm_mullo_epi16(_mm_sub_epi16(values[channel], gray), scale);
            store_eight(places[channel], _mm_adds_epi16(gray, _mm_mulhrs_epi16(away, part)));
        }
    }
}

AVX2 static void saturate_avx2(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                               ptrdiff_t count, hw_factor factor) {
    if (factor.scale > 127) {
        /* Not a signed byte. */
        saturate_plain(red, green, blue, count, factor);
        return;
    }
    const __m256i scale = two_bytes(factor.scale, -factor.scale), part = _mm256_set1_epi16(factor.factor);
    for (ptrdiff_t i = 0; i < count; i += 32) {
        uint8_t *places[3] = {red + i, green + i, blue + i};
        __m256i values[3], gray[2];
        for (int channel = 0; channel < 3; channel++)
            values[channel] = _mm256_loadu_si256((const __m256i *)places[channel]);
        gray_thirtytwo(values[0], values[1], values[2], gray);
        const __m256i base = _mm256_packus_epi16(gray[0], gray[1]);
        for (int channel = 0; channel < 3; channel++)
            _mm256_storeu_si256((__m256i *)places[channel],
                                away_thirtytwo(values[channel], base, gray, scale, part));
    }
}

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

AVX2 ALWAYS_INLINE __m256i both_halves(const int8_t *mask) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)mask));
}

/* Gray three times, in the order of the pixels' bytes. */
AVX2 ALWAYS_INLINE void gray_pixels_of(const __m256i thirds[3], __m256i gray[3]) {
    __m256i found[2];
    for (int half = 0; half < 2; half++) {
        __m256i pairs[2];
        for (int pair = 0; pair < 2; pair++)
            pairs[pair] = _mm256_or_si256(
                _mm256_shuffle_epi8(thirds[half], both_halves(pair_masks[pair][half][0])),
                _mm256_shuffle_epi8(thirds[half + 1], both_halves(pair_masks[pair][half][1])));
        found[half] = gray_sixteen(pairs[0], pairs[1]);
    }
    const __m256i once = _mm256_packus_epi16(found[0], found[1]);
    for (int part = 0; part < 3; part++)
        gray[part] = _mm256_shuffle_epi8(once, both_halves(thrice_masks[part]));
}

AVX2 static void gray_pixels_avx2(const uint8_t *in, uint8_t *out, ptrdiff_t pixels) {
    ptrdiff_t i = 0;
    for (; i + 32 <= pixels; i += 32) {
        __m256i thirds[3], gray[3];
        load_pixels(in + 3 * i, thirds);
        gray_pixels_of(thirds, gray);
        for (int part = 0; part < 3; part++) store_third(out + 3 * i, part, gray[part]);
    }
    gray_pixels_plain(in + 3 * i, out + 3 * i, pixels - i);
}

/* A line for vectors: the offset excludes the half; multiplying by `unit` shifts and rounds. */
typedef struct {
    __m256i factor, offset, unit;
} vector_line;

AVX2 ALWAYS_INLINE vector_line vector_line_of(hw_line line) {
    return (vector_line){_mm256_set1_epi16(line.factor),
                         _mm256_set1_epi16((int16_t)(line.offset - (1 << (line.shift - 1)))),
                         _mm256_set1_epi16((int16_t)(1 << (15 - line.shift)))};
}

/* Whether it begins at 0. */
ALWAYS_INLINE int is_multiple(hw_line line) {
    return line.offset == 1 << (line.shift - 1);
}

AVX2 ALWAYS_INLINE __m256i sixteen_on_line(__m256i values, vector_line line, int multiple) {
    const __m256i product = _mm256_mulhrs_epi16(_mm256_slli_epi16(values, 7), line.factor);
    return _mm256_mulhrs_epi16(multiple ? product : _mm256_add_epi16(product, line.offset), line.unit);
}

AVX2 ALWAYS_INLINE __m256i thirtytwo_on_line(__m256i values, vector_line line, int multiple) {
    const __m256i zero = _mm256_setzero_si256();
    return _mm256_packus_epi16(sixteen_on_line(_mm256_unpacklo_epi8(values, zero), line, multiple),
                               sixteen_on_line(_mm256_unpackhi_epi8(values, zero), line, multiple));
}

AVX2 static void line_avx2(const uint8_t *in, uint8_t *out, ptrdiff_t count, hw_line line) {
    const vector_line vectors = vector_line_of(line);
    ptrdiff_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m256i values = _mm256_loadu_si256((const __m256i *)(in + i));
        _mm256_storeu_si256((__m256i *)(out + i), thirtytwo_on_line(values, vectors, 0));
    }
    line_plain(in + i, out + i, count - i, line);
}

/* `first`, if there is one, is applied on the way; whether it is a multiple. */
AVX2 ALWAYS_INLINE ptrdiff_t saturate_groups(const uint8_t *in, uint8_t *out, ptrdiff_t pixels,
                                             hw_factor factor, const hw_line *first, int multiple) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i scale = two_bytes(factor.scale, -factor.scale), part = _mm256_set1_epi16(factor.factor);
    const vector_line vectors = first ? vector_line_of(*first) : (vector_line){zero, zero, zero};
    ptrdiff_t i = 0;
    for (; i + 32 <= pixels; i += 32) {
        __m256i thirds[3], gray[3];
        load_pixels(in + 3 * i, thirds);
        for (int third = 0; third < 3 && first; third++)
            thirds[third] = thirtytwo_on_line(thirds[third], vectors, multiple);
        gray_pixels_of(thirds, gray);
        for (int third = 0; third < 3; third++) {
            const __m256i words[2] = {_mm256_unpacklo_epi8(gray[third], zero),
                                      _mm256_unpackhi_epi8(gray[third], zero)};
            store_third(out + 3 * i, third, away_thirtytwo(thirds[third], gray[third], words, scale, part));
        }
    }
    return i;
}

AVX2 static void saturate_pixels_avx2(const uint8_t *in, uint8_t *out, ptrdiff_t pixels, hw_factor factor,
                                      const hw_line *first) {
    ptrdiff_t i = 0;
    /* Larger scales are not signed bytes. The differences are constants, so that each variant is compiled
     * separately. */
    if (factor.scale <= 127) {
        if (!first)
            i = saturate_groups(in, out, pixels, factor, NULL, 0);
        else if (is_multiple(*first))
            i = saturate_groups(in, out, pixels, factor, first, 1);
        else
            i = saturate_groups(in, out, pixels, factor, first, 0);
    }
    saturate_pixels_plain(in + 3 * i, out + 3 * i, pixels - i, factor, first);
}

SSE4 static void line_sse4(const uint8_t *in, uint8_t *out, ptrdiff_t count, hw_line line) {
    const __m128i factor = _mm_set1_epi16(line.factor), offset = _mm_set1_epi16(line.offset);
    const __m128i shift = _mm_cvtsi32_si128(line.shift);
    ptrdiff_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m128i values = _mm_loadu_si128((const __m128i *)(in + i));
        __m128i low = _mm_slli_epi16(_mm_unpacklo_epi8(values, _mm_setzero_si128()), 7);
        __m128i high = _mm_slli_epi16(_mm_unpackhi_epi8(values, _mm_setzero_si128()), 7);
        low = _mm_sra_epi16(_mm_add_epi16(_mm_mulhrs_epi16(low, factor), offset), shift);
        high = _mm_sra_epi16(_mm_add_epi16(_mm_mulhrs_epi16(high, factor), offset), shift);
        _mm_storeu_si128((__m128i *)(out + i), _mm_packus_epi16(low, high));
    }
    line_plain(in + i, out + i, count - i, line);
}

SSE4 static void stretch_sse4(const uint8_t *in, uint8_t *out, ptrdiff_t count, const hw_spread *by) {
    const __m128i zero = _mm_setzero_si128(), half = _mm_set1_epi16(128);
    ptrdiff_t first = 0;
    for (; first + HW_PERIOD <= count; first += HW_PERIOD) {
        for (int i = 0; i < HW_PERIOD; i += 16) {
            const __m128i low = _mm_loadu_si128((const __m128i *)(by->low + i));
            const __m128i whole = _mm_loadu_si128((const __m128i *)(by->whole + i));
            const __m128i upper = _mm_loadu_si128((const __m128i *)(by->upper + i));
            const __m128i lower = _mm_loadu_si128((const __m128i *)(by->lower + i));
            const __m128i above = _mm_subs_epu8(_mm_loadu_si128((const __m128i *)(in + first + i)), low);
            const __m128i left = _mm_unpacklo_epi8(zero, above), right = _mm_unpackhi_epi8(zero, above);
            const __m128i left_sum = _mm_add_epi16(_mm_mulhi_epu16(left, _mm_unpacklo_epi8(lower, upper)),
                                                   _mm_mullo_epi16(left, _mm_unpacklo_epi8(whole, zero)));
            const __m128i right_sum = _mm_add_epi16(_mm_mulhi_epu16(right, _mm_unpackhi_epi8(lower, upper)),
                                                    _mm_mullo_epi16(right, _mm_unpackhi_epi8(whole, zero)));
            _mm_storeu_si128((__m128i *)(out + first + i),
                             _mm_packus_epi16(_mm_srli_epi16(_mm_add_epi16(left_sum, half), 8),
                                              _mm_srli_epi16(_mm_add_epi16(right_sum, half), 8)));
        }
    }
    stretch_plain(in + first, out + first, count - first, by);
}

AVX2 static void stretch_avx2(const uint8_t *in, uint8_t *out, ptrdiff_t count, const hw_spread *by) {
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi16(128);
    __m256i low[3], whole[3][2], part[3][2];
    ptrdiff_t first = 0;
    for (int v = 0; v < 3; v++) {
        const __m256i wholes = _mm256_loadu_si256((const __m256i *)(by->whole + 32 * v));
        const __m256i upper = _mm256_loadu_si256((const __m256i *)(by->upper + 32 * v));
        const __m256i lower = _mm256_loadu_si256((const __m256i *)(by->lower + 32 * v));
        low[v] = _mm256_loadu_si256((const __m256i *)(by->low + 32 * v));
        whole[v][0] = _mm256_unpacklo_epi8(wholes, zero);
        whole[v][1] = _mm256_unpackhi_epi8(wholes, zero);
        part[v][0] = _mm256_unpacklo_epi8(lower, upper);
        part[v][1] = _mm256_unpackhi_epi8(lower, upper);
    }
    for (; first + HW_PERIOD <= count; first += HW_PERIOD) {
        for (int v = 0; v < 3; v++) {
            const __m256i values = _mm256_loadu_si256((const __m256i *)(in + first + 32 * v));
            const __m256i above = _mm256_subs_epu8(values, low[v]);
            const __m256i left = _mm256_unpacklo_epi8(zero, above), right = _mm256_unpackhi_epi8(zero, above);
            const __m256i left_sum =
                _mm256_add_epi16(_mm256_mulhi_epu16(left, part[v][0]), _mm256_mullo_epi16(left, whole[v][0]));
            const __m256i right_sum = _mm256_add_epi16(_mm256_mulhi_epu16(right, part[v][1]),
                                                       _mm256_mullo_epi16(right, whole[v][1]));
            _mm256_storeu_si256((__m256i *)(out + first + 32 * v),
                                _mm256_packus_epi16(_mm256_srli_epi16(_mm256_add_epi16(left_sum, half), 8),
                                                    _mm256_srli_epi16(_mm256_add_epi16(right_sum, half), 8)));
        }
    }
    stretch_plain(in + first, out + first, count - first, by);
}

SSE4 static void extremes_sse4(const uint8_t *in, ptrdiff_t count, uint8_t *low, uint8_t *high) {
    if (count < HW_PERIOD) {
        extremes_plain(in, count, low, high);
        return;
    }
    __m128i least[6], most[6];
    for (int v = 0; v < 6; v++) {
        least[v] = _mm_loadu_si128((const __m128i *)(low + 16 * v));
        most[v] = _mm_loadu_si128((const __m128i *)(high + 16 * v));
    }
    for (ptrdiff_t i = 0; i < count; i += HW_PERIOD) {
        /* Counts some twice, at equivalent positions: pixels have three bytes, and on a plane all positions
         * are equal. */
        const uint8_t *place = in + (i + HW_PERIOD <= count ? i : count - HW_PERIOD);
        for (int v = 0; v < 6; v++) {
            const __m128i values = _mm_loadu_si128((const __m128i *)(place + 16 * v));
            least[v] = _mm_min_epu8(least[v], values);
            most[v] = _mm_max_epu8(most[v], values);
        }
    }
    for (int v = 0; v < 6; v++) {
        _mm_storeu_si128((__m128i *)(low + 16 * v), least[v]);
        _mm_storeu_si128((__m128i *)(high + 16 * v), most[v]);
    }
}

AVX2 static void extremes_avx2(const uint8_t *in, ptrdiff_t count, uint8_t *low, uint8_t *high) {
    if (count < HW_PERIOD) {
        extremes_plain(in, count, low, high);
        return;
    }
    __m256i least[3], most[3];
    for (int v = 0; v < 3; v++) {
        least[v] = _mm256_loadu_si256((const __m256i *)(low + 32 * v));
        most[v] = _mm256_loadu_si256((const __m256i *)(high + 32 * v));
    }
    for (ptrdiff_t i = 0; i < count; i += HW_PERIOD) {
        /* Counts some twice, at equivalent positions: pixels have three bytes, and on a plane all positions
         * are equal. */
        const uint8_t *place = in + (i + HW_PERIOD <= count ? i : count - HW_PERIOD);
        for (int v = 0; v < 3; v++) {
            const __m256i values = _mm256_loadu_si256((const __m256i *)(place + 32 * v));
            least[v] = _mm256_min_epu8(least[v], values);
            most[v] = _mm256_max_epu8(most[v], values);
        }
    }
    for (int v = 0; v < 3; v++) {
        _mm256_storeu_si256((__m256i *)(low + 32 * v), least[v]);
        _mm256_storeu_si256((__m256i *)(high + 32 * v), most[v]);
    }
}

SSE4 ALWAYS_INLINE __m128i part_eight(__m128i range, __m128i part) {
    part = _mm_min_epi16(_mm_max_epi16(part, _mm_setzero_si128()), _mm_set1_epi16(HW_SEXTANT));
    return _mm_mulhrs_epi16(_mm_slli_epi16(range, 3), part);
}

SSE4 ALWAYS_INLINE __m128i quotient_four(__m128i above, __m128i below) {
    __m128 scaled = _mm_mul_ps(_mm_cvtepi32_ps(above), _mm_set1_ps((float)HW_SEXTANT));
    __m128 found = _mm_div_ps(scaled, _mm_cvtepi32_ps(below));
    return _mm_cvttps_epi32(_mm_add_ps(found, _mm_set1_ps(0.5f)));
}

SSE4 static void turn_sse4(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                           ptrdiff_t count, uint16_t turn) {
    const int more = turn < HW_SEXTANT ? turn + HW_CIRCLE - HW_SEXTANT : turn - HW_SEXTANT;
    const __m128i zero = _mm_setzero_si128(), one = _mm_set1_epi16(1), sextant = _mm_set1_epi16(HW_SEXTANT);
    for (ptrdiff_t i = 0; i < count; i += 8) {
        const __m128i r = load_eight(red + i), g = load_eight(green + i), b = load_eight(blue + i);
        const __m128i high = _mm_max_epi16(_mm_max_epi16(r, g), b);
        const __m128i low = _mm_min_epi16(_mm_min_epi16(r, g), b);
        const __m128i range = _mm_sub_epi16(high, low), divisor = _mm_max_epi16(range, one);
        const __m128i is_red = _mm_cmpeq_epi16(r, high), is_green = _mm_cmpeq_epi16(g, high);
        __m128i side = _mm_blendv_epi8(_mm_sub_epi16(r, g), _mm_sub_epi16(b, r), is_green);
        side = _mm_blendv_epi8(side, _mm_sub_epi16(g, b), is_red);
        side = _mm_add_epi16(side, range);
        __m128i start =
            _mm_blendv_epi8(_mm_set1_epi16(4 * HW_SEXTANT), _mm_set1_epi16(2 * HW_SEXTANT), is_green);
        start = _mm_andnot_si128(is_red, start);
        const __m128i part =
            _mm_packs_epi32(quotient_four(_mm_unpacklo_epi16(side, zero), _mm_unpacklo_epi16(divisor, zero)),
                            quotient_four(_mm_unpackhi_epi16(side, zero), _mm_unpackhi_epi16(divisor, zero)));
        __m128i hue = _mm_add_epi16(_mm_add_epi16(part, start), _mm_set1_epi16((short)more));
        /* Below a circle, the difference is larger as an unsigned number. */
        hue = _mm_min_epu16(hue, _mm_sub_epi16(hue, _mm_set1_epi16(HW_CIRCLE)));
        const __m128i from_cyan = _mm_abs_epi16(_mm_sub_epi16(hue, _mm_set1_epi16(3 * HW_SEXTANT)));
        const __m128i from_green = _mm_abs_epi16(_mm_sub_epi16(hue, _mm_set1_epi16(2 * HW_SEXTANT)));
        const __m128i from_blue = _mm_abs_epi16(_mm_sub_epi16(hue, _mm_set1_epi16(4 * HW_SEXTANT)));
        const __m128i two = _mm_set1_epi16(2 * HW_SEXTANT);
        store_eight(red + i, _mm_add_epi16(low, part_eight(range, _mm_sub_epi16(from_cyan, sextant))));
        store_eight(green + i, _mm_add_epi16(low, part_eight(range, _mm_sub_epi16(two, from_green))));
        store_eight(blue + i, _mm_add_epi16(low, part_eight(range, _mm_sub_epi16(two, from_blue))));
    }
}

/* For 16 hues: `range` times the part of a channel, by the distance of the hues from `middle`. */
AVX2 ALWAYS_INLINE __m256i near_sixteen(__m256i range, __m256i hue, int middle) {
    const __m256i away = _mm256_abs_epi16(_mm256_sub_epi16(hue, _mm256_set1_epi16((short)middle)));
    const __m256i part = _mm256_subs_epu16(_mm256_set1_epi16(2 * HW_SEXTANT), away);
    return _mm256_mulhrs_epi16(range, _mm256_min_epi16(part, _mm256_set1_epi16(HW_SEXTANT)));
}

AVX2 ALWAYS_INLINE __m256i far_sixteen(__m256i range, __m256i hue, int middle) {
    const __m256i away = _mm256_abs_epi16(_mm256_sub_epi16(hue, _mm256_set1_epi16((short)middle)));
    const __m256i part = _mm256_subs_epu16(away, _mm256_set1_epi16(HW_SEXTANT));
    return _mm256_mulhrs_epi16(range, _mm256_min_epi16(part, _mm256_set1_epi16(HW_SEXTANT)));
}

/* Rounds to the nearest: as divisors are below 2 * HW_SEXTANT, there are no ties. */
AVX2 ALWAYS_INLINE __m256i quotient_eight(__m256i above, __m256i below) {
    return _mm256_cvtps_epi32(_mm256_div_ps(_mm256_cvtepi32_ps(above), _mm256_cvtepi32_ps(below)));
}

AVX2 static void turn_avx2(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                           ptrdiff_t count, uint16_t turn) {
    /* Sides are -1 to 1 here, and 0 to 2 in `turn`. */
    const int more = turn < HW_SEXTANT ? turn + HW_CIRCLE : turn;
    const __m256i zero = _mm256_setzero_si256(), eight = _mm256_set1_epi16(8);
    /* As starts are multiples of 256, only the upper bytes of their sums with `more` differ. */
    const __m256i rest = _mm256_set1_epi8((char)(more & 255));
    const __m256i starts[3] = {_mm256_set1_epi8((char)(more >> 8)),
                               _mm256_set1_epi8((char)((more + 2 * HW_SEXTANT) >> 8)),
                               _mm256_set1_epi8((char)((more + 4 * HW_SEXTANT) >> 8))};
    for (ptrdiff_t i = 0; i < count; i += 32) {
        const __m256i r = _mm256_loadu_si256((const __m256i *)(red + i));
        const __m256i g = _mm256_loadu_si256((const __m256i *)(green + i));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(blue + i));
        const __m256i high = _mm256_max_epu8(_mm256_max_epu8(r, g), b);
        const __m256i low = _mm256_min_epu8(_mm256_min_epu8(r, g), b);
        const __m256i range = _mm256_sub_epi8(high, low);
        const __m256i is_red = _mm256_cmpeq_epi8(r, high), is_green = _mm256_cmpeq_epi8(g, high);
        const __m256i next = _mm256_blendv_epi8(_mm256_blendv_epi8(r, b, is_green), g, is_red);
        const __m256i last = _mm256_blendv_epi8(_mm256_blendv_epi8(g, r, is_green), b, is_red);
        const __m256i start =
            _mm256_blendv_epi8(_mm256_blendv_epi8(starts[2], starts[1], is_green), starts[0], is_red);
        __m256i reds[2], greens[2], blues[2];
        for (int half = 0; half < 2; half++) {
            const __m256i pair = half ? _mm256_unpackhi_epi8(next, last) : _mm256_unpacklo_epi8(next, last);
            const __m256i side = _mm256_maddubs_epi16(pair, two_bytes(8, -8));
            const __m256i wide = half ? _mm256_unpackhi_epi8(range, zero) : _mm256_unpacklo_epi8(range, zero);
            const __m256i eightfold = _mm256_slli_epi16(wide, 3);
            /* 2**19 sides over 2**7 ranges: the part of a sextant. */
            const __m256i divisor = _mm256_slli_epi16(_mm256_max_epi16(eightfold, eight), 4);
            const __m256i part = _mm256_packs_epi32(
                quotient_eight(_mm256_unpacklo_epi16(zero, side), _mm256_unpacklo_epi16(divisor, zero)),
                quotient_eight(_mm256_unpackhi_epi16(zero, side), _mm256_unpackhi_epi16(divisor, zero)));
            __m256i hue = half ? _mm256_unpackhi_epi8(rest, start) : _mm256_unpacklo_epi8(rest, start);
            hue = _mm256_add_epi16(hue, part);
            /* Below a circle, the difference is larger as an unsigned number. */
            hue = _mm256_min_epu16(hue, _mm256_sub_epi16(hue, _mm256_set1_epi16(HW_CIRCLE)));
            reds[half] = far_sixteen(eightfold, hue, 3 * HW_SEXTANT);
            greens[half] = near_sixteen(eightfold, hue, 2 * HW_SEXTANT);
            blues[half] = near_sixteen(eightfold, hue, 4 * HW_SEXTANT);
        }
        _mm256_storeu_si256((__m256i *)(red + i),
                            _mm256_add_epi8(low, _mm256_packus_epi16(reds[0], reds[1])));
        _mm256_storeu_si256((__m256i *)(green + i),
                            _mm256_add_epi8(low, _mm256_packus_epi16(greens[0], greens[1])));
        _mm256_storeu_si256((__m256i *)(blue + i),
                            _mm256_add_epi8(low, _mm256_packus_epi16(blues[0], blues[1])));
    }
}

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

#define KERNELS(table, gray_pixels, saturate_pixels, variant)                                                \
    {table,                                                                                                  \
     fold_##variant,                                                                                         \
     line_##variant,                                                                                         \
     split_##variant,                                                                                        \
     join_##variant,                                                                                         \
     gray_##variant,                                                                                         \
     saturate_##variant,                                                                                     \
     turn_##variant,                                                                                         \
     gray_pixels,                                                                                            \
     saturate_pixels,                                                                                        \
     stretch_##variant,                                                                                      \
     sums_##variant,                                                                                         \
     extremes_##variant,                                                                                     \
     powers_##variant}

static const hw_color_kernels variants[] = {
    KERNELS(table_plain, gray_pixels_plain, saturate_pixels_plain, plain),
#if HW_X86
    /* Shuffles of 16 bytes are slower than plain table lookups. */
    KERNELS(table_plain, NULL, NULL, sse4),
    KERNELS(table_avx2, gray_pixels_avx2, saturate_pixels_avx2, avx2),
    /* A table of 256 in four registers; the rest is the AVX2 code. */
    KERNELS(table_avx512, gray_pixels_avx2, saturate_pixels_avx2, avx2),
#endif
};

const hw_color_kernels *hw_color_kernels_of(int simd) {
    return &variants[HW_X86 ? simd : 0];
}
