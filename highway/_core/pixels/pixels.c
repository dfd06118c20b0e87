#include "pixels.h"

#include <string.h>

#if HW_X86
#include <immintrin.h>
#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2,f16c")))
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Reverse and swap */

/* With `size` a constant, memcpy is a plain load and store. */
ALWAYS_INLINE void reverse_pixels(const uint8_t *in, uint8_t *out, ptrdiff_t pixels, ptrdiff_t size) {
    for (ptrdiff_t i = 0; i < pixels; i++) memcpy(out + i * size, in + (pixels - 1 - i) * size, (size_t)size);
}

static void reverse_plain(const uint8_t *in, uint8_t *out, ptrdiff_t pixels, ptrdiff_t size) {
    switch (size) {
    case 1: reverse_pixels(in, out, pixels, 1); break;
    case 2: reverse_pixels(in, out, pixels, 2); break;
    case 3: reverse_pixels(in, out, pixels, 3); break;
    case 4: reverse_pixels(in, out, pixels, 4); break;
    case 6: reverse_pixels(in, out, pixels, 6); break;
    case 12: reverse_pixels(in, out, pixels, 12); break;
    case 16: reverse_pixels(in, out, pixels, 16); break;
    default: reverse_pixels(in, out, pixels, size);
    }
}

ALWAYS_INLINE void exchange_pixels(uint8_t *row, ptrdiff_t first, ptrdiff_t pixels, ptrdiff_t size) {
    for (ptrdiff_t i = first; i < pixels / 2; i++) {
        uint8_t *left = row + i * size, *right = row + (pixels - 1 - i) * size;
        for (ptrdiff_t byte = 0; byte < size; byte++) {
            uint8_t kept = left[byte];
            left[byte] = right[byte];
            right[byte] = kept;
        }
    }
}

/* Reverse in place; the first and last `first` pixels are reversed already. */
static void exchange_plain(uint8_t *row, ptrdiff_t first, ptrdiff_t pixels, ptrdiff_t size) {
    switch (size) {
    case 1: exchange_pixels(row, first, pixels, 1); break;
    case 3: exchange_pixels(row, first, pixels, 3); break;
    case 4: exchange_pixels(row, first, pixels, 4); break;
    default: exchange_pixels(row, first, pixels, size);
    }
}

/* Transpose */

/* A block of rows of `in` becomes columns of `out`, so that the cache lines of both stay in the cache. */
ALWAYS_INLINE void transpose_pixels(const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t rows,
                                    ptrdiff_t columns, ptrdiff_t size) {
    enum { BLOCK = 16 };
    for (ptrdiff_t top = 0; top < rows; top += BLOCK) {
        const ptrdiff_t bottom = top + BLOCK < rows ? top + BLOCK : rows;
        for (ptrdiff_t column = 0; column < columns; column++) {
            const uint8_t *from = in + top * in_stride + column * size;
            uint8_t *to = out + (column * rows + top) * size;
            for (ptrdiff_t row = top; row < bottom; row++, from += in_stride, to += size)
                memcpy(to, from, (size_t)size);
        }
    }
}

static void transpose_plain(const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t rows,
                            ptrdiff_t columns, ptrdiff_t size) {
    switch (size) {
    case 1: transpose_pixels(in, in_stride, out, rows, columns, 1); break;
    case 2: transpose_pixels(in, in_stride, out, rows, columns, 2); break;
    case 3: transpose_pixels(in, in_stride, out, rows, columns, 3); break;
    case 4: transpose_pixels(in, in_stride, out, rows, columns, 4); break;
    case 8: transpose_pixels(in, in_stride, out, rows, columns, 8); break;
    case 12: transpose_pixels(in, in_stride, out, rows, columns, 12); break;
    case 16: transpose_pixels(in, in_stride, out, rows, columns, 16); break;
    default: transpose_pixels(in, in_stride, out, rows, columns, size);
    }
}

#if HW_X86

/* Squares of four by four pixels of 3 or 4 bytes, from the top left, as far as registers of 16 bytes stay in
   their rows. The next square overwrites the excess bytes of the previous one. */
SSE4 ALWAYS_INLINE void transpose_squares(const uint8_t *in, ptrdiff_t in_stride, uint8_t *out,
                                          ptrdiff_t rows, ptrdiff_t size, ptrdiff_t high, ptrdiff_t wide) {
    /* Loads go down the rows, stores along them: the input is prefetched in its own order. */
    enum { BLOCK = 256, LINE = 64 };
    const __m128i spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const __m128i packed = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    for (ptrdiff_t start = 0; start < high; start += BLOCK) {
        const ptrdiff_t end = start + BLOCK < high ? start + BLOCK : high;
        for (ptrdiff_t row = start; row < end; row++)
            for (ptrdiff_t byte = 0; byte < wide * size; byte += LINE)
                (void)((const volatile uint8_t *)in)[row * in_stride + byte];
        for (ptrdiff_t column = 0; column < wide; column += 4) {
            for (ptrdiff_t top = start; top < end; top += 4) {
                __m128i four[4];
                for (int i = 0; i < 4; i++) {
                    const uint8_t *from = in + (top + i) * in_stride + column * size;
                    four[i] = _mm_loadu_si128((const __m128i *)from);
                    if (size == 3) four[i] = _mm_shuffle_epi8(four[i], spread);
                }
                const __m128i low = _mm_unpacklo_epi32(four[0], four[1]);
                const __m128i low_below = _mm_unpacklo_epi32(four[2], four[3]);
                const __m128i high_part = _mm_unpackhi_epi32(four[0], four[1]);
                const __m128i high_below = _mm_unpackhi_epi32(four[2], four[3]);
                four[0] = _mm_unpacklo_epi64(low, low_below);
                four[1] = _mm_unpackhi_epi64(low, low_below);
                four[2] = _mm_unpacklo_epi64(high_part, high_below);
                four[3] = _mm_unpackhi_epi64(high_part, high_below);
                for (int i = 0; i < 4; i++) {
                    if (size == 3) four[i] = _mm_shuffle_epi8(four[i], packed);
                    _mm_storeu_si128((__m128i *)(out + ((column + i) * rows + top) * size), four[i]);
                }
            }
        }
    }
}

SSE4 static void transpose_sse4(const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t rows,
                                ptrdiff_t columns, ptrdiff_t size) {
    /* Two pixels of 3 bytes must follow a square. */
    const ptrdiff_t spare = size == 3 ? 2 : 0;
    const ptrdiff_t high = rows < spare ? 0 : (rows - spare) & ~3,
                    wide = columns < spare ? 0 : (columns - spare) & ~3;
    if (size == 3)
        transpose_squares(in, in_stride, out, rows, 3, high, wide);
    else
        transpose_squares(in, in_stride, out, rows, 4, high, wide);
    /* On the right, and below. */
    for (ptrdiff_t column = 0; column < columns; column++)
        for (ptrdiff_t row = column < wide ? high : 0; row < rows; row++)
            memcpy(out + (column * rows + row) * size, in + row * in_stride + column * size, (size_t)size);
}

#endif

void hw_transpose(int simd, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t rows,
                  ptrdiff_t columns, ptrdiff_t size) {
#if HW_X86
    if (simd >= HW_SSE4 && (size == 3 || size == 4)) {
        transpose_sse4(in, in_stride, out, rows, columns, size);
        return;
    }
#endif
    transpose_plain(in, in_stride, out, rows, columns, size);
}

#if HW_X86

/* Bytes reversed at once: a whole number of pixels of 1, 2, 3, 4, 6, 8, 12 or 16 bytes. */
enum { GROUP = 48 };

/* Shuffles that move bytes from each third of a group to each third of its reverse. No pixel of these sizes
   moves from the first third to the first, or from the last to the last. */
typedef struct {
    __m128i middle_to_first, last_to_first;
    __m128i first_to_middle, middle_to_middle, last_to_middle;
    __m128i first_to_last, middle_to_last;
} group_masks;

SSE4 static __m128i group_mask(ptrdiff_t size, ptrdiff_t from, ptrdiff_t to) {
    int8_t mask[16];
    for (ptrdiff_t byte = 0; byte < 16; byte++) {
        ptrdiff_t place = 16 * to + byte;
        ptrdiff_t source = GROUP - size - place / size * size + place % size;
        mask[byte] = (int8_t)(source / 16 == from ? source % 16 : -1);
    }
    return _mm_loadu_si128((const __m128i *)mask);
}

SSE4 static group_masks masks_of(ptrdiff_t size) {
    group_masks masks = {
        .middle_to_first = group_mask(size, 1, 0),
        .last_to_first = group_mask(size, 2, 0),
        .first_to_middle = group_mask(size, 0, 1),
        .middle_to_middle = group_mask(size, 1, 1),
        .last_to_middle = group_mask(size, 2, 1),
        .first_to_last = group_mask(size, 0, 2),
        .middle_to_last = group_mask(size, 1, 2),
    };
    return masks;
}

typedef struct {
    __m128i first, middle, last;
} group;

SSE4 ALWAYS_INLINE group load_reversed(const uint8_t *in, const group_masks *masks) {
    __m128i first = _mm_loadu_si128((const __m128i *)in);
    __m128i middle = _mm_loadu_si128((const __m128i *)(in + 16));
    __m128i last = _mm_loadu_si128((const __m128i *)(in + 32));
    group reversed;
    reversed.first = _mm_or_si128(_mm_shuffle_epi8(middle, masks->middle_to_first),
                                  _mm_shuffle_epi8(last, masks->last_to_first));
    reversed.middle = _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(first, masks->first_to_middle),
                                                _mm_shuffle_epi8(middle, masks->middle_to_middle)),
                                   _mm_shuffle_epi8(last, masks->last_to_middle));
    reversed.last = _mm_or_si128(_mm_shuffle_epi8(first, masks->first_to_last),
                                 _mm_shuffle_epi8(middle, masks->middle_to_last));
    return reversed;
}

SSE4 ALWAYS_INLINE void store_group(uint8_t *out, group values) {
    _mm_storeu_si128((__m128i *)out, values.first);
    _mm_storeu_si128((__m128i *)(out + 16), values.middle);
    _mm_storeu_si128((__m128i *)(out + 32), values.last);
}

SSE4 static void reverse_sse4(const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t out_stride,
                              ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t size) {
    enum { LINE = 64 };
    group_masks masks = masks_of(size);
    ptrdiff_t total = pixels * size;
    for (ptrdiff_t row = 0; row < rows; row++, in += in_stride, out += out_stride) {
        ptrdiff_t done = 0;
        /* Rows are read from their end, which CPUs do not predict: the next row is prefetched in its own
         * order. */
        for (ptrdiff_t byte = 0; row + 1 < rows && byte < total; byte += LINE)
            (void)((const volatile uint8_t *)in)[in_stride + byte];
        for (; done + GROUP <= total; done += GROUP)
            store_group(out + done, load_reversed(in + total - done - GROUP, &masks));
        if (total >= GROUP) /* The rest is the end of one more group, which writes some bytes twice. */
            store_group(out + total - GROUP, load_reversed(in, &masks));
        else
            reverse_plain(in, out, pixels, size);
    }
}

SSE4 static void exchange_sse4(uint8_t *image, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t pixels,
                               ptrdiff_t size) {
    group_masks masks = masks_of(size);
    ptrdiff_t total = pixels * size;
    for (ptrdiff_t row = 0; row < rows; row++, image += stride) {
        ptrdiff_t done = 0;
        /* In the middle the two groups may overlap: both are loaded before either is stored. */
        for (; 2 * done + GROUP <= total; done += GROUP) {
            group left = load_reversed(image + done, &masks);
            group right = load_reversed(image + total - done - GROUP, &masks);
            store_group(image + done, right);
            store_group(image + total - done - GROUP, left);
        }
        exchange_plain(image, done / size, pixels, size);
    }
}

#endif

void hw_reverse(int simd, const uint8_t *in, ptrdiff_t in_stride, uint8_t *out, ptrdiff_t out_stride,
                ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t size) {
#if HW_X86
    if (simd >= HW_SSE4 && size >= 1 && size <= 16 && GROUP % size == 0) {
        reverse_sse4(in, in_stride, out, out_stride, rows, pixels, size);
        return;
    }
#endif
    for (ptrdiff_t row = 0; row < rows; row++)
        reverse_plain(in + row * in_stride, out + row * out_stride, pixels, size);
}

void hw_reverse_in_place(int simd, uint8_t *image, ptrdiff_t stride, ptrdiff_t rows, ptrdiff_t pixels,
                         ptrdiff_t size) {
#if HW_X86
    if (simd >= HW_SSE4 && size >= 1 && size <= 16 && GROUP % size == 0) {
        exchange_sse4(image, stride, rows, pixels, size);
        return;
    }
#endif
    for (ptrdiff_t row = 0; row < rows; row++) exchange_plain(image + row * stride, 0, pixels, size);
}

void hw_swap(uint8_t *restrict left, uint8_t *restrict right, ptrdiff_t bytes) {
    for (ptrdiff_t i = 0; i < bytes; i++) {
        uint8_t kept = left[i];
        left[i] = right[i];
        right[i] = kept;
    }
}

void hw_fill(uint8_t *out, ptrdiff_t pixels, const uint8_t *pixel, ptrdiff_t size) {
    ptrdiff_t total = pixels * size, done = size;
    if (total <= 0) return;
    if (size == 1) {
        memset(out, pixel[0], (size_t)total);
        return;
    }
    memcpy(out, pixel, (size_t)size);
    /* Twice as much each time. */
    while (done < total) {
        ptrdiff_t more = done < total - done ? done : total - done;
        memcpy(out + done, out, (size_t)more);
        done += more;
    }
}

/* Normalize */

/* Output types: those of pixels.h, and floats that go past the caches, to aligned addresses. */
enum { FLOATS = HW_FLOAT32, HALVES = HW_FLOAT16, BFLOATS = HW_BFLOAT16, STREAMED };

/* Rounds to half precision, to nearest, ties to even. */
ALWAYS_INLINE uint16_t half_bits(float value) {
    uint32_t bits, result;
    memcpy(&bits, &value, 4);
    uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude >= 0x47800000u) {
        result = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
    } else if (magnitude < 0x38800000u) {
        /* Below the smallest normal half: 0.5 plus the value has its last bit at the last bit of the
         * result. */
        float shifted;
        memcpy(&shifted, &magnitude, 4);
        shifted += 0.5f;
        memcpy(&result, &shifted, 4);
        result -= 0x3F000000u;
    } else {
        result = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
    }
    return (uint16_t)((bits >> 16 & 0x8000u) | result);
}

/* Rounds to bfloat16, the upper half of a float, to nearest, ties to even; no NaN. */
ALWAYS_INLINE uint16_t bfloat_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

/* A pattern of scales and biases that is `period` long, over and over; with a constant `period` the compiler
 * vectorizes it. */
ALWAYS_INLINE void apply_pattern(const uint8_t *restrict in, float *restrict out, ptrdiff_t total,
                                 ptrdiff_t period, const float *restrict scale, const float *restrict bias) {
    ptrdiff_t start = 0;
    for (; start + period <= total; start += period)
        for (ptrdiff_t i = 0; i < period; i++) out[start + i] = (float)in[start + i] * scale[i] + bias[i];
    for (ptrdiff_t i = 0; start + i < total; i++) out[start + i] = (float)in[start + i] * scale[i] + bias[i];
}

ALWAYS_INLINE void normalize_interleaved(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                                         const float *scale, const float *bias, float *out) {
    float scales[64], biases[64];
    ptrdiff_t total = pixels * channels;
    if (channels > 4) {
        apply_pattern(in, out, total, channels, scale, bias);
        return;
    }
    for (ptrdiff_t i = 0; i < 16 * channels; i++) {
        scales[i] = scale[i % channels];
        biases[i] = bias[i % channels];
    }
    switch (channels) {
    case 1: apply_pattern(in, out, total, 16, scales, biases); break;
    case 2: apply_pattern(in, out, total, 32, scales, biases); break;
    case 3: apply_pattern(in, out, total, 48, scales, biases); break;
    default: apply_pattern(in, out, total, 64, scales, biases);
    }
}

/* Pixels from `first` on of one channel; with constant `channels` the compiler vectorizes it if the CPU
 * can. */
ALWAYS_INLINE void normalize_channel(const uint8_t *restrict in, ptrdiff_t first, ptrdiff_t pixels,
                                     ptrdiff_t channels, float scale, float bias, float *restrict out) {
    for (ptrdiff_t i = first; i < pixels; i++) out[i] = (float)in[i * channels] * scale + bias;
}

ALWAYS_INLINE void normalize_channels(const uint8_t *in, ptrdiff_t first, ptrdiff_t pixels,
                                      ptrdiff_t channels, const float *scale, const float *bias, float *out,
                                      ptrdiff_t plane) {
    for (ptrdiff_t c = 0; c < channels; c++) {
        switch (channels) {
        case 1: normalize_channel(in, first, pixels, 1, scale[0], bias[0], out); break;
        case 3: normalize_channel(in + c, first, pixels, 3, scale[c], bias[c], out + c * plane); break;
        case 4: normalize_channel(in + c, first, pixels, 4, scale[c], bias[c], out + c * plane); break;
        default: normalize_channel(in + c, first, pixels, channels, scale[c], bias[c], out + c * plane);
        }
    }
}

#if HW_X86

/* The vector code processes whole groups of pixels; the last group is moved back to end with the row and
   writes some numbers twice. The plain code does rows shorter than a group. */

/* half_bits for four values, in the low half. */
SSE4 ALWAYS_INLINE __m128i half_bits_sse4(__m128 values) {
    const __m128i bits = _mm_castps_si128(values);
    const __m128i magnitude = _mm_and_si128(bits, _mm_set1_epi32(0x7FFFFFFF));
    const __m128i sign = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(0x8000));
    const __m128i odd = _mm_and_si128(_mm_srli_epi32(magnitude, 13), _mm_set1_epi32(1));
    const __m128i normal =
        _mm_srli_epi32(_mm_add_epi32(_mm_add_epi32(magnitude, _mm_set1_epi32(0xFFF - 0x38000000)), odd), 13);
    const __m128 shifted = _mm_add_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0.5f));
    const __m128i small = _mm_sub_epi32(_mm_castps_si128(shifted), _mm_set1_epi32(0x3F000000));
    const __m128i nan = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7F800000));
    const __m128i large = _mm_blendv_epi8(_mm_set1_epi32(0x7C00), _mm_set1_epi32(0x7E00), nan);
    const __m128i is_large = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x47800000 - 1));
    const __m128i is_small = _mm_cmplt_epi32(magnitude, _mm_set1_epi32(0x38800000));
    const __m128i result = _mm_blendv_epi8(_mm_blendv_epi8(normal, small, is_small), large, is_large);
    return _mm_packus_epi32(_mm_or_si128(sign, result), _mm_setzero_si128());
}

/* bfloat_bits for four values, in the low half. */
SSE4 ALWAYS_INLINE __m128i bfloat_bits_sse4(__m128 values) {
    const __m128i bits = _mm_castps_si128(values);
    const __m128i odd = _mm_and_si128(_mm_srli_epi32(bits, 16), _mm_set1_epi32(1));
    const __m128i sums = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7FFF)));
    return _mm_packus_epi32(_mm_srli_epi32(sums, 16), _mm_setzero_si128());
}

/* For eight values. */
AVX2 ALWAYS_INLINE __m128i bfloat_bits_avx2(__m256 values) {
    const __m256i bits = _mm256_castps_si256(values);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sums = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256i high = _mm256_srli_epi32(sums, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

enum { PIECE = 512 }; /* numbers of a plane written in a row */

/* Writes four values at index `at` of an array of the output type. */
SSE4 ALWAYS_INLINE void put_four(__m128 values, void *out, ptrdiff_t at, int kind) {
    if (kind == HALVES)
        _mm_storel_epi64((__m128i *)((uint16_t *)out + at), half_bits_sse4(values));
    else if (kind == BFLOATS)
        _mm_storel_epi64((__m128i *)((uint16_t *)out + at), bfloat_bits_sse4(values));
    else
        _mm_storeu_ps((float *)out + at, values);
}

AVX2 ALWAYS_INLINE void put_eight(__m256 values, void *out, ptrdiff_t at, int kind) {
    if (kind == HALVES)
        _mm_storeu_si128((__m128i *)((uint16_t *)out + at),
                         _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
    else if (kind == BFLOATS)
        _mm_storeu_si128((__m128i *)((uint16_t *)out + at), bfloat_bits_avx2(values));
    else
        _mm256_storeu_ps((float *)out + at, values);
}

/* Interleaved, four pixels at a time; returns the number of pixels done. */
SSE4 ALWAYS_INLINE ptrdiff_t interleaved_sse4(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                                              const float *scale, const float *bias, void *out, int kind) {
    float pattern[16];
    __m128 scales[4], biases[4];
    if (pixels < 4) return 0;
    for (ptrdiff_t k = 0; k < 4 * channels; k++) pattern[k] = scale[k % channels];
    for (ptrdiff_t v = 0; v < channels; v++) scales[v] = _mm_loadu_ps(pattern + 4 * v);
    for (ptrdiff_t k = 0; k < 4 * channels; k++) pattern[k] = bias[k % channels];
    for (ptrdiff_t v = 0; v < channels; v++) biases[v] = _mm_loadu_ps(pattern + 4 * v);
    for (ptrdiff_t i = 0; i < pixels; i += 4) {
        if (i > pixels - 4) i = pixels - 4;
        for (ptrdiff_t v = 0; v < channels; v++) {
            const ptrdiff_t at = i * channels + 4 * v;
            int32_t four;
            memcpy(&four, in + at, 4);
            const __m128 values = _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
            put_four(_mm_add_ps(_mm_mul_ps(values, scales[v]), biases[v]), out, at, kind);
        }
    }
    return pixels;
}

/* The same, eight pixels at a time. */
AVX2 ALWAYS_INLINE ptrdiff_t interleaved_avx2(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                                              const float *scale, const float *bias, void *out, int kind) {
    float pattern[32];
    __m256 scales[4], biases[4];
    if (pixels < 8) return 0;
    for (ptrdiff_t k = 0; k < 8 * channels; k++) pattern[k] = scale[k % channels];
    for (ptrdiff_t v = 0; v < channels; v++) scales[v] = _mm256_loadu_ps(pattern + 8 * v);
    for (ptrdiff_t k = 0; k < 8 * channels; k++) pattern[k] = bias[k % channels];
    for (ptrdiff_t v = 0; v < channels; v++) biases[v] = _mm256_loadu_ps(pattern + 8 * v);
    for (ptrdiff_t i = 0; i < pixels; i += 8) {
        if (i > pixels - 8) i = pixels - 8;
        for (ptrdiff_t v = 0; v < channels; v++) {
            const ptrdiff_t at = i * channels + 8 * v;
            const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in + at)));
            put_eight(_mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(bytes), scales[v]), biases[v]), out, at,
                      kind);
        }
    }
    return pixels;
}

/* Shuffles for a load of pixels 0 to 3, and one that ends with pixel 7, by number of channels and channel:
   they widen bytes to integers. */
#define FOUR_BYTES(first, step)                                                                              \
    first, -1, -1, -1, (first) + (step), -1, -1, -1, (first) + 2 * (step), -1, -1, -1, (first) + 3 * (step), \
        -1, -1, -1
#define MASKS(channels, c) {FOUR_BYTES(c, channels), FOUR_BYTES(16 - 4 * (channels) + (c), channels)}
static const int8_t channel_masks[5][4][32] = {
    [2] = {MASKS(2, 0), MASKS(2, 1)},
    [3] = {MASKS(3, 0), MASKS(3, 1), MASKS(3, 2)},
    [4] = {MASKS(4, 0), MASKS(4, 1), MASKS(4, 2), MASKS(4, 3)},
};

/* Planar, two to four channels, eight pixels at a time; returns the number of pixels done. Eight pixels are
 * at least sixteen bytes: both loads stay inside of them. */
SSE4 ALWAYS_INLINE ptrdiff_t planar_sse4(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                                         const float *scale, const float *bias, void *out, ptrdiff_t plane,
                                         int kind) {
    __m128i low_masks[4], high_masks[4];
    __m128 scales[4], biases[4];
    if (pixels < 8) return 0;
    /* Alternating planes does not help past the caches; see planar_avx2. */
    if (kind == STREAMED) kind = FLOATS;
    for (ptrdiff_t c = 0; c < channels; c++) {
        low_masks[c] = _mm_loadu_si128((const __m128i *)channel_masks[channels][c]);
        high_masks[c] = _mm_loadu_si128((const __m128i *)(channel_masks[channels][c] + 16));
        scales[c] = _mm_set1_ps(scale[c]);
        biases[c] = _mm_set1_ps(bias[c]);
    }
    for (ptrdiff_t i = 0; i < pixels; i += 8) {
        if (i > pixels - 8) i = pixels - 8;
        const uint8_t *from = in + i * channels;
        const __m128i low = _mm_loadu_si128((const __m128i *)from);
        const __m128i high = _mm_loadu_si128((const __m128i *)(from + 8 * channels - 16));
        for (ptrdiff_t c = 0; c < channels; c++) {
            const __m128 first = _mm_cvtepi32_ps(_mm_shuffle_epi8(low, low_masks[c]));
            const __m128 second = _mm_cvtepi32_ps(_mm_shuffle_epi8(high, high_masks[c]));
            put_four(_mm_add_ps(_mm_mul_ps(first, scales[c]), biases[c]), out, c * plane + i, kind);
            put_four(_mm_add_ps(_mm_mul_ps(second, scales[c]), biases[c]), out, c * plane + i + 4, kind);
        }
    }
    return pixels;
}

/* Both loads in one register. */
AVX2 ALWAYS_INLINE __m256i eight_pixels(const uint8_t *from, ptrdiff_t channels) {
    const __m128i low = _mm_loadu_si128((const __m128i *)from);
    const __m128i high = _mm_loadu_si128((const __m128i *)(from + 8 * channels - 16));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

AVX2 ALWAYS_INLINE __m256 normalization_of(__m256i pixels, __m256i mask, __m256 scale, __m256 bias) {
    const __m256 values = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(pixels, mask));
    return _mm256_add_ps(_mm256_mul_ps(values, scale), bias);
}

/* Writes `count` floats, a multiple of eight, past the caches. Two cache lines a step: with one vector a step
 * the rate depended on where the compiler placed the loop, by up to 20 %. */
AVX2 ALWAYS_INLINE void stream_floats(const float *in, ptrdiff_t count, float *out) {
    ptrdiff_t i = 0;
    for (; i <= count - 32; i += 32) {
        const __m256 a = _mm256_load_ps(in + i), b = _mm256_load_ps(in + i + 8);
        const __m256 c = _mm256_load_ps(in + i + 16), d = _mm256_load_ps(in + i + 24);
        _mm256_stream_ps(out + i, a);
        _mm256_stream_ps(out + i + 8, b);
        _mm256_stream_ps(out + i + 16, c);
        _mm256_stream_ps(out + i + 24, d);
    }
    for (; i < count; i += 8) _mm256_stream_ps(out + i, _mm256_load_ps(in + i));
}

AVX2 ALWAYS_INLINE ptrdiff_t planar_avx2(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                                         const float *scale, const float *bias, void *out, ptrdiff_t plane,
                                         int kind) {
    __m256i masks[4];
    __m256 scales[4], biases[4];
    if (pixels < 8) return 0;
    for (ptrdiff_t c = 0; c < channels; c++) {
        masks[c] = _mm256_loadu_si256((const __m256i *)channel_masks[channels][c]);
        scales[c] = _mm256_set1_ps(scale[c]);
        biases[c] = _mm256_set1_ps(bias[c]);
    }
    ptrdiff_t i = 0;
    if (kind == STREAMED) {
        /* Memory accepts many consecutive lines much faster than single lines of alternating planes. */
        float pieces[4][PIECE] __attribute__((aligned(64)));
        while (i <= pixels - 8) {
            const ptrdiff_t left = (pixels - i) / 8 * 8, size = left < PIECE ? left : PIECE;
            for (ptrdiff_t k = 0; k < size; k += 8) {
                const __m256i eight = eight_pixels(in + (i + k) * channels, channels);
                for (ptrdiff_t c = 0; c < channels; c++)
                    _mm256_store_ps(pieces[c] + k, normalization_of(eight, masks[c], scales[c], biases[c]));
            }
            for (ptrdiff_t c = 0; c < channels; c++)
                stream_floats(pieces[c], size, (float *)out + c * plane + i);
            i += size;
        }
        kind = FLOATS;
    }
    for (; i < pixels; i += 8) {
        if (i > pixels - 8) i = pixels - 8;
        const __m256i eight = eight_pixels(in + i * channels, channels);
        for (ptrdiff_t c = 0; c < channels; c++)
            put_eight(normalization_of(eight, masks[c], scales[c], biases[c]), out, c * plane + i, kind);
    }
    return pixels;
}

/* Compiled separately for each number of channels, layout and type, so that its tables stay in registers; 0
   pixels for any other number of channels. A plane of one channel is interleaved. */
#define INTERLEAVED_CASES(CODE, channels)                                                                    \
    case channels * 8:                                                                                       \
    case channels * 8 + STREAMED: return CODE(in, pixels, channels, scale, bias, out, FLOATS);               \
    case channels * 8 + HALVES: return CODE(in, pixels, channels, scale, bias, out, HALVES);                 \
    case channels * 8 + BFLOATS: return CODE(in, pixels, channels, scale, bias, out, BFLOATS);
/* Past the caches with three channels only. */
#define PLANAR_CASES(CODE, channels)                                                                         \
    case channels * 8 + 4: return CODE(in, pixels, channels, scale, bias, out, plane, FLOATS);               \
    case channels * 8 + 4 + HALVES: return CODE(in, pixels, channels, scale, bias, out, plane, HALVES);      \
    case channels * 8 + 4 + BFLOATS: return CODE(in, pixels, channels, scale, bias, out, plane, BFLOATS);    \
    case channels * 8 + 4 + STREAMED:                                                                        \
        return CODE(in, pixels, channels, scale, bias, out, plane, channels == 3 ? STREAMED : FLOATS);
#define VECTOR_CODE(NAME, INTERLEAVED, PLANAR)                                                               \
    static ptrdiff_t NAME(const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels, const float *scale,       \
                          const float *bias, void *out, ptrdiff_t plane, int planar, int kind) {             \
        switch (channels * 8 + (planar && channels > 1) * 4 + kind) {                                        \
            INTERLEAVED_CASES(INTERLEAVED, 1)                                                                \
            INTERLEAVED_CASES(INTERLEAVED, 2)                                                                \
            INTERLEAVED_CASES(INTERLEAVED, 3)                                                                \
            INTERLEAVED_CASES(INTERLEAVED, 4)                                                                \
            PLANAR_CASES(PLANAR, 2)                                                                          \
            PLANAR_CASES(PLANAR, 3)                                                                          \
            PLANAR_CASES(PLANAR, 4)                                                                          \
        default: return 0;                                                                                   \
        }                                                                                                    \
    }

SSE4 VECTOR_CODE(normalize_sse4, interleaved_sse4, planar_sse4)
AVX2 VECTOR_CODE(normalize_avx2, interleaved_avx2, planar_avx2)

#endif

    /* Pixels done by vector code. */
    static ptrdiff_t
    normalize_vectors(int simd, const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels, const float *scale,
                      const float *bias, void *out, ptrdiff_t plane, int planar, int kind) {
#if HW_X86
    if (simd >= HW_AVX2) return normalize_avx2(in, pixels, channels, scale, bias, out, plane, planar, kind);
    if (simd >= HW_SSE4) return normalize_sse4(in, pixels, channels, scale, bias, out, plane, planar, kind);
#endif
    return 0;
}

/* Whether every store of eight floats in a plane is aligned to their size. */
static int is_aligned(const void *out, ptrdiff_t plane) {
    const uintptr_t bytes = 8 * sizeof(float);
    return (uintptr_t)out % bytes == 0 && (uintptr_t)plane % 8 == 0;
}

void hw_normalize(int simd, const uint8_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                  const hw_normalization *normalization, void *image, ptrdiff_t at, ptrdiff_t plane) {
    const float *scale = normalization->scale, *bias = normalization->bias;
    const int type = normalization->type, planar = normalization->planar;
    const ptrdiff_t first = planar ? at : at * channels;
    void *out = type ? (void *)((uint16_t *)image + first) : (void *)((float *)image + first);
    const int kind = type == FLOATS && normalization->streamed && is_aligned(out, plane) ? STREAMED : type;
    const ptrdiff_t done =
        normalize_vectors(simd, in, pixels, channels, scale, bias, out, plane, planar, kind);
    if (type == FLOATS && planar) {
        normalize_channels(in, done, pixels, channels, scale, bias, out, plane);
    } else if (type == FLOATS) {
        normalize_interleaved(in + done * channels, pixels - done, channels, scale, bias,
                              (float *)out + done * channels);
    } else {
        for (ptrdiff_t c = 0; c < channels; c++)
            for (ptrdiff_t i = done; i < pixels; i++) {
                const float value = (float)in[i * channels + c] * scale[c] + bias[c];
                ((uint16_t *)out)[planar ? c * plane + i : i * channels + c] =
                    type == HALVES ? half_bits(value) : bfloat_bits(value);
            }
    }
}

/* Numbers of one channel, `step` apart in the input and the output. */
ALWAYS_INLINE void normalize_channel16(const uint16_t *in, ptrdiff_t pixels, ptrdiff_t step, float scale,
                                       float bias, void *out, ptrdiff_t out_step, int type) {
    for (ptrdiff_t i = 0; i < pixels; i++) {
        const float value = (float)in[i * step] * scale + bias;
        if (type == FLOATS)
            ((float *)out)[i * out_step] = value;
        else
            ((uint16_t *)out)[i * out_step] = type == HALVES ? half_bits(value) : bfloat_bits(value);
    }
}

void hw_normalize16(const uint16_t *in, ptrdiff_t pixels, ptrdiff_t channels,
                    const hw_normalization *normalization, void *image, ptrdiff_t at, ptrdiff_t plane) {
    const int planar = normalization->planar;
    const ptrdiff_t step = planar ? 1 : channels;
    for (ptrdiff_t c = 0; c < channels; c++) {
        const float scale = normalization->scale[c], bias = normalization->bias[c];
        const ptrdiff_t first = planar ? at + c * plane : at * channels + c;
        switch (normalization->type) {
        case FLOATS:
            normalize_channel16(in + c, pixels, channels, scale, bias, (float *)image + first, step, FLOATS);
            break;
        case HALVES:
            normalize_channel16(in + c, pixels, channels, scale, bias, (uint16_t *)image + first, step,
                                HALVES);
            break;
        default:
            normalize_channel16(in + c, pixels, channels, scale, bias, (uint16_t *)image + first, step,
                                BFLOATS);
        }
    }
}

void hw_normalization_fence(const hw_normalization *normalization) {
#if HW_X86
    if (normalization->streamed) _mm_sfence();
#endif
}
