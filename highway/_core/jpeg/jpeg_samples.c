#include "jpeg_samples.h"

#include <string.h>

#if HW_X86
#include <immintrin.h>
#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2")))
#define LOAD_128(at) _mm_loadu_si128((const __m128i *)(at))
#define LOAD_256(at) _mm256_loadu_si256((const __m256i *)(at))
#endif

/* ---- inverse DCT ----
 *
 * Loeffler, Ligtenberg, Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications" (1989), with
 * constants of 13 bits; 2 bits more are kept between the two passes. Sums of inputs wrap in 16 bits and
 * results saturate, as the vector code does; sound files do neither. */

enum { CONSTANT_BITS = 13, BETWEEN_BITS = 2 };
enum { SHIFT_COLUMNS = CONSTANT_BITS - BETWEEN_BITS, SHIFT_ROWS = CONSTANT_BITS + BETWEEN_BITS + 3 };

/* Round(x * 2^13) of the constants, already added up for the pairs that they multiply. */
enum {
    C_2_2 = 10703,  /* 0.541196100 + 0.765366865 */
    C_2_6 = 4433,   /* 0.541196100 */
    C_6_6 = -10704, /* 0.541196100 - 1.847759065 */
    C_Z3 = -6436,   /* 1.175875602 - 1.961570560 */
    C_Z = 9633,     /* 1.175875602 */
    C_Z4 = 6437,    /* 1.175875602 - 0.390180644 */
    C_7_7 = -4927,  /* 0.298631336 - 0.899976223 */
    C_7_1 = -7373,  /* -0.899976223 */
    C_1_1 = 4926,   /* 1.501321110 - 0.899976223 */
    C_5_5 = -4176,  /* 2.053119869 - 2.562915447 */
    C_5_3 = -20995, /* -2.562915447 */
    C_3_3 = 4177,   /* 3.072711026 - 2.562915447 */
};

#if HW_X86

/* Sources of the red, green and blue bytes in each third of 16 interleaved pixels. */
static const int8_t INTERLEAVE[3][3][16] = {
    {{0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5},
     {-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1},
     {-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1}},
    {{-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1},
     {5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10},
     {-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1}},
    {{-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1},
     {-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1},
     {10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15}},
};

/* A row of a block, and of the next one in a second lane. */
SSE4 static inline __m128i load_row_sse4(const int16_t *row) {
    return LOAD_128(row);
}

AVX2 static inline __m256i load_row_avx2(const int16_t *row) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(LOAD_128(row)), LOAD_128(row + 64), 1);
}

#define LANES_FILE "jpeg_lanes.h"
#include "lanes.h"

#endif

static int16_t saturate(int64_t value) {
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

static uint8_t to_sample(int64_t value) {
    return (uint8_t)(value < -128 ? 0 : value > 127 ? 255 : value + 128);
}

/* Eight values `step` apart, in place. */
static void transform_eight(const int16_t *in, ptrdiff_t step, int shift, int32_t out[8]) {
    const int32_t x0 = in[0], x1 = in[step], x2 = in[2 * step], x3 = in[3 * step];
    const int32_t x4 = in[4 * step], x5 = in[5 * step], x6 = in[6 * step], x7 = in[7 * step];
    const uint32_t round = 1u << (shift - 1);
    const uint32_t even2 = (uint32_t)(x2 * C_2_6 + x6 * C_6_6), even3 = (uint32_t)(x2 * C_2_2 + x6 * C_2_6);
    const uint32_t sum = (uint32_t)((int16_t)(x0 + x4) * (1 << CONSTANT_BITS)) + round;
    const uint32_t difference = (uint32_t)((int16_t)(x0 - x4) * (1 << CONSTANT_BITS)) + round;
    const uint32_t even[4] = {sum + even3, difference + even2, difference - even2, sum - even3};
    const int32_t z3 = (int16_t)(x7 + x3), z4 = (int16_t)(x5 + x1);
    const uint32_t from3 = (uint32_t)(z3 * C_Z3 + z4 * C_Z), from4 = (uint32_t)(z3 * C_Z + z4 * C_Z4);
    const uint32_t odd[4] = {
        (uint32_t)(x1 * C_1_1 + x7 * C_7_1) + from4,
        (uint32_t)(x3 * C_3_3 + x5 * C_5_3) + from3,
        (uint32_t)(x5 * C_5_5 + x3 * C_5_3) + from4,
        (uint32_t)(x7 * C_7_7 + x1 * C_7_1) + from3,
    };
    for (int i = 0; i < 4; i++) {
        out[i] = (int32_t)(even[i] + odd[i]) >> shift;
        out[7 - i] = (int32_t)(even[i] - odd[i]) >> shift;
    }
}

static void inverse_dct_plain(const int16_t *block, const uint16_t quant[64], uint8_t *out,
                              ptrdiff_t stride) {
    int16_t work[64];
    int32_t eight[8];
    for (int i = 0; i < 64; i++) work[i] = (int16_t)((uint32_t)block[i] * quant[i]);
    for (int column = 0; column < 8; column++) {
        transform_eight(work + column, 8, SHIFT_COLUMNS, eight);
        for (int i = 0; i < 8; i++) work[8 * i + column] = saturate(eight[i]);
    }
    for (int row = 0; row < 8; row++) {
        transform_eight(work + 8 * row, 1, SHIFT_ROWS, eight);
        for (int i = 0; i < 8; i++) out[row * stride + i] = to_sample(eight[i]);
    }
}

static void fill_block(int16_t dc, uint16_t quant, uint8_t *out, ptrdiff_t stride) {
    const int16_t between = saturate((int64_t)(int16_t)((uint32_t)dc * quant) * (1 << BETWEEN_BITS));
    const uint8_t sample = to_sample((between + 16) >> 5);
    for (int row = 0; row < 8; row++) memset(out + row * stride, sample, 8);
}

#if HW_X86

SSE4 static void inverse_dct_sse4(const int16_t *block, const uint16_t quant[64], uint8_t *out,
                                  ptrdiff_t stride) {
    __m128i rows[4];
    transform_sse4(block, quant, rows);
    for (int i = 0; i < 4; i++) {
        _mm_storel_epi64((__m128i *)(out + 2 * i * stride), rows[i]);
        _mm_storel_epi64((__m128i *)(out + (2 * i + 1) * stride), _mm_unpackhi_epi64(rows[i], rows[i]));
    }
}

/* Two adjacent blocks. */
AVX2 static void inverse_dct_avx2(const int16_t *blocks, const uint16_t quant[64], uint8_t *out,
                                  ptrdiff_t stride) {
    __m256i rows[4];
    transform_avx2(blocks, quant, rows);
    for (int i = 0; i < 4; i++) {
        const __m256i both = _mm256_permute4x64_epi64(rows[i], 0xD8);
        _mm_storeu_si128((__m128i *)(out + 2 * i * stride), _mm256_castsi256_si128(both));
        _mm_storeu_si128((__m128i *)(out + (2 * i + 1) * stride), _mm256_extracti128_si256(both, 1));
    }
}

#endif

/* Above this, libjpeg-turbo's vector code wraps if only the first row of a block is not zero. */
enum { MOST = 8191 };

void hw_quantization_complete(hw_quantization *quant) {
    for (int i = 0; i < 8; i++) quant->most[i] = (int16_t)(quant->steps[i] ? MOST / quant->steps[i] : MOST);
}

static int too_large(const int16_t *block, const int16_t most[8]) {
    int found = 0;
    for (int i = 0; i < 8; i++) found |= (block[i] > most[i]) | (block[i] < -most[i]);
    return found;
}

int hw_inverse_dct(int simd, int16_t *blocks, const uint8_t *only_dc, int count, const hw_quantization *quant,
                   uint8_t *out, ptrdiff_t stride) {
    const uint16_t *const steps = quant->steps;
    for (int i = 0; i < count; i++)
        if (too_large(blocks + 64 * i, quant->most)) return -1;

    for (int i = 0; i < count; i++) {
        int16_t *const block = blocks + 64 * i;
#if HW_X86
        if (simd >= HW_AVX2 && i + 1 < count && !(only_dc[i] && only_dc[i + 1])) {
            inverse_dct_avx2(block, steps, out + 8 * i, stride);
            memset(block, 0, 128 * sizeof *block);
            i++;
            continue;
        }
#endif
        if (only_dc[i]) {
            fill_block(block[0], steps[0], out + 8 * i, stride);
            block[0] = 0;
            continue;
        }
#if HW_X86
        if (simd >= HW_SSE4)
            inverse_dct_sse4(block, steps, out + 8 * i, stride);
        else
#endif
            inverse_dct_plain(block, steps, out + 8 * i, stride);
        memset(block, 0, 64 * sizeof *block);
    }
    return 0;
}

/* ---- upsampling ---- */

static void upsample_2x1_plain(const uint8_t *in, int from, int to, uint8_t *out) {
    for (int i = from; i < to; i++) {
        *out++ = (uint8_t)((3 * in[i] + in[i - 1] + 1) >> 2);
        *out++ = (uint8_t)((3 * in[i] + in[i + 1] + 2) >> 2);
    }
}

static void upsample_2x2_plain(const uint8_t *near, const uint8_t *far, int from, int to, uint8_t *out) {
    for (int i = from; i < to; i++) {
        const int here = 3 * near[i] + far[i];
        *out++ = (uint8_t)((3 * here + 3 * near[i - 1] + far[i - 1] + 8) >> 4);
        *out++ = (uint8_t)((3 * here + 3 * near[i + 1] + far[i + 1] + 7) >> 4);
    }
}

#if HW_X86

/* Sixteen columns: 3 * near + far, in two vectors of 16 bits. */
SSE4 static inline void sums(const uint8_t *near, const uint8_t *far, __m128i *low, __m128i *high) {
    const __m128i a = LOAD_128(near), b = LOAD_128(far);
    const __m128i three_one = _mm_set1_epi16(0x0103);
    *low = _mm_maddubs_epi16(_mm_unpacklo_epi8(a, b), three_one);
    *high = _mm_maddubs_epi16(_mm_unpackhi_epi8(a, b), three_one);
}

SSE4 static inline void store_pairs(__m128i even, __m128i odd, uint8_t *out) {
    _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi8(even, odd));
    _mm_storeu_si128((__m128i *)(out + 16), _mm_unpackhi_epi8(even, odd));
}

SSE4 static void upsample_2x1_sse4(const uint8_t *in, int from, int to, uint8_t *out) {
    const __m128i one = _mm_set1_epi16(1), two = _mm_set1_epi16(2);
    for (int i = from; i < to; i += 16, out += 32) {
        __m128i even_low, even_high, odd_low, odd_high;
        sums(in + i, in + i - 1, &even_low, &even_high);
        sums(in + i, in + i + 1, &odd_low, &odd_high);
        store_pairs(_mm_packus_epi16(_mm_srli_epi16(_mm_add_epi16(even_low, one), 2),
                                     _mm_srli_epi16(_mm_add_epi16(even_high, one), 2)),
                    _mm_packus_epi16(_mm_srli_epi16(_mm_add_epi16(odd_low, two), 2),
                                     _mm_srli_epi16(_mm_add_epi16(odd_high, two), 2)),
                    out);
    }
}

/* (3 * here + there + round) / 16 */
SSE4 static inline __m128i mix(__m128i here, __m128i there, __m128i round) {
    const __m128i three = _mm_add_epi16(here, _mm_add_epi16(here, here));
    return _mm_srli_epi16(_mm_add_epi16(_mm_add_epi16(three, there), round), 4);
}

SSE4 static void upsample_2x2_sse4(const uint8_t *near, const uint8_t *far, int from, int to, uint8_t *out) {
    const __m128i seven = _mm_set1_epi16(7), eight = _mm_set1_epi16(8);
    for (int i = from; i < to; i += 16, out += 32) {
        __m128i here_low, here_high, left_low, left_high, right_low, right_high;
        sums(near + i, far + i, &here_low, &here_high);
        sums(near + i - 1, far + i - 1, &left_low, &left_high);
        sums(near + i + 1, far + i + 1, &right_low, &right_high);
        store_pairs(_mm_packus_epi16(mix(here_low, left_low, eight), mix(here_high, left_high, eight)),
                    _mm_packus_epi16(mix(here_low, right_low, seven), mix(here_high, right_high, seven)),
                    out);
    }
}

#endif

void hw_upsample_2x1(int simd, const uint8_t *in, int from, int to, uint8_t *out) {
#if HW_X86
    if (simd >= HW_SSE4) {
        upsample_2x1_sse4(in, from, to, out);
        return;
    }
#endif
    upsample_2x1_plain(in, from, to, out);
}

void hw_upsample_2x2(int simd, const uint8_t *near, const uint8_t *far, int from, int to, uint8_t *out) {
#if HW_X86
    if (simd >= HW_SSE4) {
        upsample_2x2_sse4(near, far, from, to, out);
        return;
    }
#endif
    upsample_2x2_plain(near, far, from, to, out);
}

/* ---- colors ----
 *
 * ITU-T T.871: R = Y + 1.402 Cr, G = Y - 0.34414 Cb - 0.71414 Cr, B = Y + 1.772 Cb, with Cb and Cr less 128
 * and constants of 16 bits; the terms added to Y are rounded. */

static uint8_t to_byte(int value) {
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void ycc_to_rgb_plain(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *out) {
    for (int i = 0; i < n; i++, out += 3) {
        const int blue = cb[i] - 128, red = cr[i] - 128;
        out[0] = to_byte(y[i] + ((91881 * red + 32768) >> 16));
        out[1] = to_byte(y[i] + ((-22554 * blue - 46802 * red + 32768) >> 16));
        out[2] = to_byte(y[i] + ((116130 * blue + 32768) >> 16));
    }
}

#if HW_X86

SSE4 static void ycc_to_rgb_sse4(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n,
                                 uint8_t *out) {
    for (int i = 0; i < n; i += 16, out += 48) {
        __m128i rgb[3];
        colors_sse4(LOAD_128(y + i), LOAD_128(cb + i), LOAD_128(cr + i), rgb);
        for (int k = 0; k < 3; k++) _mm_storeu_si128((__m128i *)(out + 16 * k), rgb[k]);
    }
}

AVX2 static void ycc_to_rgb_avx2(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n,
                                 uint8_t *out) {
    for (int i = 0; i < n; i += 32, out += 96) {
        __m256i rgb[3];
        colors_avx2(LOAD_256(y + i), LOAD_256(cb + i), LOAD_256(cr + i), rgb);
        _mm256_storeu_si256((__m256i *)out, _mm256_permute2x128_si256(rgb[0], rgb[1], 0x20));
        _mm256_storeu_si256((__m256i *)(out + 32), _mm256_blend_epi32(rgb[2], rgb[0], 0xF0));
        _mm256_storeu_si256((__m256i *)(out + 64), _mm256_permute2x128_si256(rgb[1], rgb[2], 0x31));
    }
}

#endif

void hw_ycc_to_rgb(int simd, const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int n, uint8_t *out) {
#if HW_X86
    if (simd >= HW_AVX2) {
        ycc_to_rgb_avx2(y, cb, cr, n, out);
        return;
    }
    if (simd >= HW_SSE4) {
        ycc_to_rgb_sse4(y, cb, cr, n, out);
        return;
    }
#endif
    ycc_to_rgb_plain(y, cb, cr, n, out);
}

void hw_gray_to_rgb(const uint8_t *y, int n, uint8_t *out) {
    for (int i = 0; i < n; i++, out += 3) out[0] = out[1] = out[2] = y[i];
}
