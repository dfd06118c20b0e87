#include "resampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if HW_X86
#include <immintrin.h>
#endif

#define WEIGHT_BITS 14
#define WEIGHT_ONE (1 << WEIGHT_BITS)
#define WEIGHT_HALF (1 << (WEIGHT_BITS - 1))

/* ---- axes ---- */

static double box_filter(double x) {
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

static double bilinear_filter(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Keys, "Cubic convolution interpolation for digital image processing" (1981), with a = -0.5. */
static double bicubic_filter(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

static double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos_filter(double x) {
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

static const struct {
    double (*weigh)(double);
    double support;
} FILTERS[HW_FILTERS] = {
    [HW_BOX] = {box_filter, 0.5},
    [HW_BILINEAR] = {bilinear_filter, 1.0},
    [HW_BICUBIC] = {bicubic_filter, 2.0},
    [HW_LANCZOS] = {lanczos_filter, 3.0},
};

static int grow(void **block, size_t *capacity, size_t n, size_t item) {
    if (n <= *capacity) return 0;
    void *larger = realloc(*block, n * item);
    if (!larger) return -1;
    *block = larger;
    *capacity = n;
    return 0;
}

/* Rounds cumulative sums of the weights, so that they sum to exactly one, however many and small they are: a
 * constant area keeps its value. */
static void quantize(const double *exact, double sum, int16_t *weights, int count) {
    double reached = 0.0;
    long before = 0;
    for (int k = 0; k < count; k++) {
        reached += exact[k];
        const long upto = k + 1 < count ? lrint(reached / sum * WEIGHT_ONE) : WEIGHT_ONE;
        weights[k] = (int16_t)(upto - before);
        before = upto;
    }
}

static void clamp_span(int *first, int *last, int in_size) {
    if (*first < 0) *first = 0;
    if (*last > in_size) *last = in_size;
    if (*first > in_size - 1) *first = in_size - 1;
    if (*last <= *first) *last = *first + 1;
}

int hw_axis_build(hw_axis *axis, int filter, int in_size, double begin, double end, int out_size,
                  int reversed, int precise) {
    if (axis->out_size == out_size && axis->in_size == in_size && axis->begin == begin && axis->end == end &&
        axis->filter == filter && axis->reversed == reversed && axis->precise >= precise)
        return 0;
    const double scale = (end - begin) / out_size;
    const double stretch = scale > 1.0 ? scale : 1.0;
    const double support = FILTERS[filter].support * stretch;
    axis->out_size = 0; /* not valid until it is complete */

    size_t most = filter == HW_NEAREST ? 1 : (size_t)ceil(support) * 2 + 2;
    if (most > (size_t)in_size) most = (size_t)in_size;
    if (grow((void **)&axis->scratch, &axis->scratch_capacity, most, sizeof(double))) return -1;
    if ((size_t)out_size > axis->outputs_capacity) {
        free(axis->first);
        axis->first = malloc((size_t)out_size * sizeof(int32_t));
        axis->outputs_capacity = axis->first ? (size_t)out_size : 0;
        if (!axis->first) return -1;
    }

    /* The spans first: the longest determines the stride of the weights. */
    int taps = 1, lowest = in_size, highest = 0;
    double nearest = begin + 0.5 * scale;
    for (int i = 0; i < out_size; i++) {
        double center = begin + (i + 0.5) * scale;
        int first, last;
        if (filter == HW_NEAREST) { /* added as in Pillow, so that halves round the same way */
            first = (int)nearest;
            last = first + 1;
            nearest += scale;
        } else {
            first = (int)(center - support + 0.5);
            last = (int)(center + support + 0.5);
        }
        clamp_span(&first, &last, in_size);
        axis->first[reversed ? out_size - 1 - i : i] = first;
        if (last - first > taps) taps = last - first;
        if (first < lowest) lowest = first;
        if (last > highest) highest = last;
    }
    const int stride = (taps + 3) & ~3;
    const size_t n_weights = (size_t)out_size * (size_t)stride;
    if (n_weights > axis->weights_capacity) {
        free(axis->weights);
        free(axis->spread);
        axis->weights = malloc((n_weights + 1) * sizeof(int16_t)); /* one more: they are read in pairs */
        axis->spread = malloc(n_weights * 4 * sizeof(int16_t));
        axis->weights_capacity = axis->weights && axis->spread ? n_weights : 0;
        if (!axis->weights_capacity) return -1;
    }
    memset(axis->weights, 0, (n_weights + 1) * sizeof(int16_t));
    axis->precise = precise;
    if (precise) {
        if (grow((void **)&axis->exact, &axis->exact_capacity, n_weights, sizeof(double))) return -1;
        memset(axis->exact, 0, n_weights * sizeof(double));
    }

    for (int i = 0; i < out_size; i++) {
        const int place = reversed ? out_size - 1 - i : i;
        const double center = begin + (i + 0.5) * scale;
        int first = axis->first[place];
        int16_t *weights = axis->weights + (size_t)place * (size_t)stride;
        if (first > highest - taps) { /* no output reads beyond the highest input */
            axis->first[place] = highest - taps;
            weights += first - (highest - taps);
        }
        if (filter == HW_NEAREST) {
            weights[0] = WEIGHT_ONE;
        } else {
            int last = (int)(center + support + 0.5);
            clamp_span(&first, &last, in_size);
            double sum = 0.0;
            for (int k = 0; k < last - first; k++) {
                axis->scratch[k] = FILTERS[filter].weigh((first + k - center + 0.5) / stretch);
                sum += axis->scratch[k];
            }
            if (sum == 0.0) sum = axis->scratch[0] = 1.0; /* a box that falls between two centers */
            quantize(axis->scratch, sum, weights, last - first);
            for (int k = 0; precise && k < last - first; k++)
                axis->exact[weights - axis->weights + k] = axis->scratch[k] / sum;
        }
        if (precise && filter == HW_NEAREST) axis->exact[weights - axis->weights] = 1.0;
    }

    /* Four taps a group: (w0 w1) four times for the low half of a vector, (w2 w3) four times for the high
     * half. */
    for (size_t group = 0; group < n_weights / 4; group++) {
        const int16_t *w = axis->weights + group * 4;
        int16_t *out = axis->spread + group * 16;
        for (int j = 0; j < 4; j++) {
            out[2 * j] = w[0];
            out[2 * j + 1] = w[1];
            out[8 + 2 * j] = w[2];
            out[8 + 2 * j + 1] = w[3];
        }
    }
    axis->filter = filter;
    axis->in_size = in_size;
    axis->begin = begin;
    axis->end = end;
    axis->reversed = reversed;
    axis->taps = taps;
    axis->stride = stride;
    axis->lowest = lowest;
    axis->highest = highest;
    axis->identity = !reversed && end - begin == out_size && begin == floor(begin);
    axis->out_size = out_size;
    return 0;
}

void hw_axis_free(hw_axis *axis) {
    free(axis->first);
    free(axis->weights);
    free(axis->spread);
    free(axis->exact);
    free(axis->scratch);
    memset(axis, 0, sizeof *axis);
}

/* ---- plain C ---- */

static inline uint8_t to_byte(int32_t sum) {
    sum >>= WEIGHT_BITS;
    return sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t)sum;
}

static void combine_span(const uint8_t *const *rows, const int16_t *weights, int count, uint8_t *out,
                         size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        int32_t sum = WEIGHT_HALF;
        for (int k = 0; k < count; k++) sum += weights[k] * rows[k][i];
        out[i] = to_byte(sum);
    }
}

static void resample_span(const hw_axis *x, const uint8_t *row, int origin, int channels, uint8_t *out,
                          int from, int to) {
    for (int i = from; i < to; i++) {
        const uint8_t *in = row + (ptrdiff_t)(x->first[i] - origin) * channels;
        const int16_t *weights = x->weights + (size_t)i * (size_t)x->stride;
        for (int c = 0; c < channels; c++) {
            int32_t sum = WEIGHT_HALF;
            for (int k = 0; k < x->taps; k++) sum += weights[k] * in[k * channels + c];
            out[i * channels + c] = to_byte(sum);
        }
    }
}

#if HW_X86

#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2")))
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define LANES_FILE "resampler_lanes.h"
#include "lanes.h"

/* ---- SSE4 ---- */

SSE4 static void combine_sse4(const uint8_t *const *rows, const int16_t *weights, int count, uint8_t *out,
                              size_t n) {
    if (n < 16) {
        combine_span(rows, weights, count, out, 0, n);
        return;
    }
    for (size_t at = 0; at + 16 <= n; at += 16) combine_block_sse4(rows, weights, count, out, at);
    if (n % 16) combine_block_sse4(rows, weights, count, out, n - 16);
}

/* One output pixel of three channels: lanes R G B 0. */
SSE4 ALWAYS_INLINE __m128i pixel3_sse4(const uint8_t *in, const int16_t *weights, int groups) {
    const __m128i first = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m128i second = _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    __m128i sum = _mm_set1_epi32(WEIGHT_HALF);
    for (int g = 0; g < groups; g++) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(in + 12 * g));
        const __m128i w01 = _mm_loadu_si128((const __m128i *)(weights + 16 * g));
        const __m128i w23 = _mm_loadu_si128((const __m128i *)(weights + 16 * g + 8));
        sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_shuffle_epi8(bytes, first), w01));
        sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_shuffle_epi8(bytes, second), w23));
    }
    return _mm_srai_epi32(sum, WEIGHT_BITS);
}

SSE4 ALWAYS_INLINE void resample3_sse4(const hw_axis *x, const uint8_t *row, int origin, uint8_t *out,
                                       const int groups) {
    const __m128i drop_fourth = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const int32_t *first = x->first;
    const int16_t *weights = x->spread;
    const size_t step = (size_t)groups * 16;
    int i = 0;
    row -= (ptrdiff_t)origin * 3;
    for (; i + 4 <= x->out_size; i += 4, weights += 4 * step, out += 12) {
        const __m128i p0 = pixel3_sse4(row + (ptrdiff_t)first[i] * 3, weights, groups);
        const __m128i p1 = pixel3_sse4(row + (ptrdiff_t)first[i + 1] * 3, weights + step, groups);
        const __m128i p2 = pixel3_sse4(row + (ptrdiff_t)first[i + 2] * 3, weights + 2 * step, groups);
        const __m128i p3 = pixel3_sse4(row + (ptrdiff_t)first[i + 3] * 3, weights + 3 * step, groups);
        const __m128i pixels = _mm_packus_epi16(_mm_packs_epi32(p0, p1), _mm_packs_epi32(p2, p3));
        const __m128i rgb = _mm_shuffle_epi8(pixels, drop_fourth);
        const int32_t last = _mm_extract_epi32(rgb, 2);
        _mm_storel_epi64((__m128i *)out, rgb);
        memcpy(out + 8, &last, 4);
    }
    row += (ptrdiff_t)origin * 3;
    resample_span(x, row, origin, 3, out - (ptrdiff_t)i * 3, i, x->out_size);
}

/* Four bytes each for four outputs, from the four places on where their inputs begin. */
SSE4 ALWAYS_INLINE __m128i inputs_of_four(const uint8_t *row, const int32_t *first) {
    int32_t a, b, c, d;
    memcpy(&a, row + first[0], 4);
    memcpy(&b, row + first[1], 4);
    memcpy(&c, row + first[2], 4);
    memcpy(&d, row + first[3], 4);
    return _mm_setr_epi32(a, b, c, d);
}

/* Four weights each for two outputs that are `stride` weights apart. */
SSE4 ALWAYS_INLINE __m128i weights_of_two(const int16_t *weights, ptrdiff_t stride) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)weights),
                              _mm_loadl_epi64((const __m128i *)(weights + stride)));
}

/* One channel, four outputs at a time. */
SSE4 ALWAYS_INLINE void resample1_sse4(const hw_axis *x, const uint8_t *row, int origin, uint8_t *out,
                                       const int groups) {
    const __m128i zero = _mm_setzero_si128(), half = _mm_set1_epi32(WEIGHT_HALF);
    const ptrdiff_t stride = (ptrdiff_t)groups * 4;
    const int16_t *weights = x->weights;
    int i = 0;
    for (; i + 4 <= x->out_size; i += 4, weights += 4 * stride) {
        __m128i sum01 = zero, sum23 = zero; /* two sums to be added for each */
        for (int g = 0; g < groups; g++) {
            const __m128i bytes = inputs_of_four(row - origin + 4 * g, x->first + i);
            const __m128i w01 = weights_of_two(weights + 4 * g, stride);
            const __m128i w23 = weights_of_two(weights + 2 * stride + 4 * g, stride);
            sum01 = _mm_add_epi32(sum01, _mm_madd_epi16(_mm_unpacklo_epi8(bytes, zero), w01));
            sum23 = _mm_add_epi32(sum23, _mm_madd_epi16(_mm_unpackhi_epi8(bytes, zero), w23));
        }
        const __m128i sums = _mm_add_epi32(_mm_hadd_epi32(sum01, sum23), half);
        const __m128i words = _mm_packs_epi32(_mm_srai_epi32(sums, WEIGHT_BITS), zero);
        const int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, zero));
        memcpy(out + i, &bytes, 4);
    }
    resample_span(x, row, origin, 1, out, i, x->out_size);
}

/* With constants, the compiler unrolls the usual cases. */
#define BY_GROUPS(NAME, CODE)                                                                                \
    static void NAME(const hw_axis *x, const uint8_t *row, int origin, uint8_t *out) {                       \
        switch (x->stride / 4) {                                                                             \
        case 1: CODE(x, row, origin, out, 1); break;                                                         \
        case 2: CODE(x, row, origin, out, 2); break;                                                         \
        case 3: CODE(x, row, origin, out, 3); break;                                                         \
        default: CODE(x, row, origin, out, x->stride / 4);                                                   \
        }                                                                                                    \
    }

SSE4 BY_GROUPS(rgb_sse4, resample3_sse4)
SSE4 BY_GROUPS(gray_sse4, resample1_sse4)

/* ---- AVX2 ---- */

AVX2 static void combine_avx2(const uint8_t *const *rows, const int16_t *weights, int count, uint8_t *out,
                              size_t n) {
    if (n < 32) {
        combine_sse4(rows, weights, count, out, n);
        return;
    }
    for (size_t at = 0; at + 32 <= n; at += 32) combine_block_avx2(rows, weights, count, out, at);
    if (n % 32) combine_block_avx2(rows, weights, count, out, n - 32);
}

/* Sums over the taps of one output pixel: lanes (R G B 0) of taps 0 1 4 5 .., then (R G B 0) of taps 2 3 6 7
 * .. */
AVX2 static inline __m256i pixel3(const uint8_t *in, const int16_t *weights, int groups) {
    const __m256i pairs = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 6, -1, 9,
                                           -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    __m256i sum = _mm256_setzero_si256();
    for (int g = 0; g < groups; g++) {
        const __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(in + 12 * g)));
        const __m256i w = _mm256_loadu_si256((const __m256i *)(weights + 16 * g));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(bytes, pairs), w));
    }
    return sum;
}

/* Halves of two pixels added up: pixel a in the low lane, pixel b in the high lane. */
AVX2 static inline __m256i fold(__m256i a, __m256i b) {
    return _mm256_add_epi32(_mm256_blend_epi32(a, b, 0xF0), _mm256_permute2x128_si256(a, b, 0x21));
}

AVX2 ALWAYS_INLINE void resample3_avx2(const hw_axis *x, const uint8_t *row, int origin, uint8_t *out,
                                       const int groups) {
    const __m256i half = _mm256_set1_epi32(WEIGHT_HALF);
    const __m128i drop_fourth = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const int32_t *first = x->first;
    const int16_t *weights = x->spread;
    const size_t step = (size_t)groups * 16;
    int i = 0;
    row -= (ptrdiff_t)origin * 3;
    for (; i + 4 <= x->out_size; i += 4, weights += 4 * step, out += 12) {
        const __m256i p0 = pixel3(row + (ptrdiff_t)first[i] * 3, weights, groups);
        const __m256i p1 = pixel3(row + (ptrdiff_t)first[i + 1] * 3, weights + step, groups);
        const __m256i p2 = pixel3(row + (ptrdiff_t)first[i + 2] * 3, weights + 2 * step, groups);
        const __m256i p3 = pixel3(row + (ptrdiff_t)first[i + 3] * 3, weights + 3 * step, groups);
        const __m256i p01 = _mm256_srai_epi32(_mm256_add_epi32(fold(p0, p1), half), WEIGHT_BITS);
        const __m256i p23 = _mm256_srai_epi32(_mm256_add_epi32(fold(p2, p3), half), WEIGHT_BITS);
        const __m256i words = _mm256_packs_epi32(p01, p23); /* pixels 0 2 | 1 3 */
        const __m256i bytes = _mm256_packus_epi16(words, words);
        const __m128i pixels = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes),
                                                  _mm256_extracti128_si256(bytes, 1)); /* 0 1 2 3 */
        const __m128i rgb = _mm_shuffle_epi8(pixels, drop_fourth);
        const int32_t last = _mm_extract_epi32(rgb, 2);
        _mm_storel_epi64((__m128i *)out, rgb);
        memcpy(out + 8, &last, 4);
    }
    resample_span(x, row, 0, 3, out - (ptrdiff_t)i * 3, i, x->out_size);
}

/* Four weights each for four outputs that are `stride` weights apart. */
AVX2 ALWAYS_INLINE __m256i weights_of_four(const int16_t *weights, ptrdiff_t stride) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(weights_of_two(weights, stride)),
                                   weights_of_two(weights + 2 * stride, stride), 1);
}

/* One channel, eight outputs at a time. */
AVX2 ALWAYS_INLINE void resample1_avx2(const hw_axis *x, const uint8_t *row, int origin, uint8_t *out,
                                       const int groups) {
    const __m256i half = _mm256_set1_epi32(WEIGHT_HALF);
    const ptrdiff_t stride = (ptrdiff_t)groups * 4;
    const int16_t *weights = x->weights;
    int i = 0;
    for (; i + 8 <= x->out_size; i += 8, weights += 8 * stride) {
        __m256i low = _mm256_setzero_si256(), high = low; /* outputs 0 to 3 and 4 to 7, two sums for each */
        for (int g = 0; g < groups; g++) {
            const uint8_t *in = row - origin + 4 * g;
            const __m256i b0 = _mm256_cvtepu8_epi16(inputs_of_four(in, x->first + i));
            const __m256i b4 = _mm256_cvtepu8_epi16(inputs_of_four(in, x->first + i + 4));
            const __m256i w0 = weights_of_four(weights + 4 * g, stride);
            const __m256i w4 = weights_of_four(weights + 4 * stride + 4 * g, stride);
            low = _mm256_add_epi32(low, _mm256_madd_epi16(b0, w0));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(b4, w4));
        }
        const __m256i sums = _mm256_add_epi32(_mm256_hadd_epi32(low, high), half); /* 0 1 4 5 | 2 3 6 7 */
        const __m256i levels = _mm256_permute4x64_epi64(_mm256_srai_epi32(sums, WEIGHT_BITS), 0xD8);
        const __m128i words =
            _mm_packs_epi32(_mm256_castsi256_si128(levels), _mm256_extracti128_si256(levels, 1));
        _mm_storel_epi64((__m128i *)(out + i), _mm_packus_epi16(words, words));
    }
    resample_span(x, row, origin, 1, out, i, x->out_size);
}

AVX2 BY_GROUPS(rgb_avx2, resample3_avx2)
AVX2 BY_GROUPS(gray_avx2, resample1_avx2)

#endif

    /* ---- dispatch ---- */

    void hw_combine_rows(int simd, const uint8_t *const *rows, const int16_t *weights, int count,
                         uint8_t *out, size_t n) {
    while (count > 1 && weights[count - 1] == 0) count--;
    while (count > 1 && weights[0] == 0) rows++, weights++, count--;
    if (count == 1 && weights[0] == WEIGHT_ONE) {
        memcpy(out, rows[0], n);
        return;
    }
#if HW_X86
    if (simd >= HW_SSE4) {
        (simd >= HW_AVX2 ? combine_avx2 : combine_sse4)(rows, weights, count, out, n);
        return;
    }
#endif
    combine_span(rows, weights, count, out, 0, n);
}

void hw_resample_row(int simd, const hw_axis *x, const uint8_t *row, int origin, int channels, uint8_t *out) {
    if (x->identity) {
        memcpy(out, row + ((ptrdiff_t)x->begin - origin) * channels, (size_t)x->out_size * (size_t)channels);
        return;
    }
#if HW_X86
    if (simd >= HW_SSE4 && channels == 3) {
        (simd >= HW_AVX2 ? rgb_avx2 : rgb_sse4)(x, row, origin, out);
        return;
    }
    if (simd >= HW_SSE4 && channels == 1) {
        (simd >= HW_AVX2 ? gray_avx2 : gray_sse4)(x, row, origin, out);
        return;
    }
#endif
    resample_span(x, row, origin, channels, out, 0, x->out_size);
}

/* ---- whole images ---- */

int hw_resample_image(int simd, const hw_axis *x, const hw_axis *y, const uint8_t *image,
                      ptrdiff_t row_stride, int channels, uint8_t *out, ptrdiff_t out_stride,
                      hw_buffer *work) {
    const size_t pointers = (size_t)y->taps * sizeof(uint8_t *);
    const size_t used = (size_t)(x->highest - x->lowest) * (size_t)channels;
    if (hw_buffer_reserve(work, pointers + used + HW_ROW_SLACK)) return -1;
    const uint8_t **rows = (const uint8_t **)work->bytes;
    uint8_t *combined = work->bytes + pointers;
    for (int i = 0; i < y->out_size; i++) {
        for (int k = 0; k < y->taps; k++)
            rows[k] = image + (ptrdiff_t)(y->first[i] + k) * row_stride + (ptrdiff_t)x->lowest * channels;
        hw_combine_rows(simd, rows, y->weights + (size_t)i * (size_t)y->stride, y->taps, combined, used);
        hw_resample_row(simd, x, combined, x->lowest, channels, out + (ptrdiff_t)i * out_stride);
    }
    return 0;
}

/* ---- floats ---- */

static void combine_floats(const float *const *rows, const int16_t *weights, int count, float *out,
                           ptrdiff_t n) {
    const float scale = 1.0f / WEIGHT_ONE;
    memset(out, 0, (size_t)n * sizeof *out);
    for (int k = 0; k < count; k++) {
        const float weight = (float)weights[k] * scale;
        const float *row = rows[k];
        if (weights[k] == 0) continue; /* an input without weight may be nan */
        for (ptrdiff_t i = 0; i < n; i++) out[i] += row[i] * weight;
    }
}

static void resample_floats(const hw_axis *x, const float *row, int channels, float *out) {
    const float scale = 1.0f / WEIGHT_ONE;
    for (int i = 0; i < x->out_size; i++) {
        const float *in = row + (ptrdiff_t)(x->first[i] - x->lowest) * channels;
        const int16_t *weights = x->weights + (size_t)i * (size_t)x->stride;
        for (int c = 0; c < channels; c++) {
            float sum = 0.0f;
            for (int k = 0; k < x->taps; k++)
                if (weights[k] != 0) sum += in[k * channels + c] * ((float)weights[k] * scale);
            out[i * channels + c] = sum;
        }
    }
}

int hw_resample_floats(const hw_axis *x, const hw_axis *y, const float *image, ptrdiff_t row_stride,
                       int channels, float *out, ptrdiff_t out_stride, hw_buffer *work) {
    const size_t pointers = (size_t)y->taps * sizeof(float *);
    const ptrdiff_t used = (ptrdiff_t)(x->highest - x->lowest) * channels;
    if (hw_buffer_reserve(work, pointers + (size_t)used * sizeof(float))) return -1;
    const float **rows = (const float **)work->bytes;
    float *combined = (float *)(work->bytes + pointers);
    for (int i = 0; i < y->out_size; i++) {
        for (int k = 0; k < y->taps; k++)
            rows[k] = image + (ptrdiff_t)(y->first[i] + k) * row_stride + (ptrdiff_t)x->lowest * channels;
        combine_floats(rows, y->weights + (size_t)i * (size_t)y->stride, y->taps, combined, used);
        resample_floats(x, combined, channels, out + (ptrdiff_t)i * out_stride);
    }
    return 0;
}
