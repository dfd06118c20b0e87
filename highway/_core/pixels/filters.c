#include "filters.h"

#include <math.h>
#include <string.h>

#include "fixed.h"

#if HW_X86
#include <immintrin.h>
#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2,f16c")))
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Between rows in a workspace, so that vectors may write beyond the end. */
enum { ROOM = 64 };

/* Maps row or column `place` into `size`, mirrored at the borders without repeating the border. */
static ptrdiff_t reflected(ptrdiff_t place, ptrdiff_t size) {
    ptrdiff_t period = 2 * (size - 1);
    if (size == 1) return 0;
    place %= period;
    if (place < 0) place += period;
    return place < size ? place : period - place;
}

size_t hw_filter_work(ptrdiff_t length, ptrdiff_t channels, ptrdiff_t columns) {
    return (size_t)(length + columns * channels + ROOM) * sizeof(int16_t);
}

void hw_copy_rows(const hw_pixels *image, uint8_t *out) {
    ptrdiff_t length = image->width * image->size;
    for (ptrdiff_t row = 0; row < image->height; row++)
        memcpy(out + row * length, image->data + row * image->row_stride, (size_t)length);
}

/* Sharpen */

/* Sums of three rows, then the middle of three columns: 1 1 1, 1 5 1, 1 1 1 in thirteenths. */
ALWAYS_INLINE void sharpen_row(const uint8_t *restrict above, const uint8_t *restrict row,
                               const uint8_t *restrict below, ptrdiff_t length, ptrdiff_t channels,
                               hw_factor factor, uint16_t *restrict sums, uint8_t *restrict out) {
    for (ptrdiff_t i = 0; i < length; i++) sums[i] = (uint16_t)(above[i] + row[i] + below[i]);
    for (ptrdiff_t i = channels; i < length - channels; i++) {
        uint16_t sum = (uint16_t)(sums[i - channels] + sums[i] + sums[i + channels] + 4 * row[i] + 6);
        /* Exact for all sums of 13 bytes. */
        uint8_t smooth = (uint8_t)((uint32_t)sum * 5042 >> 16);
        out[i] = hw_blend(smooth, row[i], factor.scale, factor.factor);
    }
    memcpy(out, row, (size_t)channels);
    memcpy(out + length - channels, row + length - channels, (size_t)channels);
}

static void sharpen_plain(const uint8_t *above, const uint8_t *row, const uint8_t *below, ptrdiff_t length,
                          ptrdiff_t channels, hw_factor factor, uint16_t *sums, uint8_t *out) {
    sharpen_row(above, row, below, length, channels, factor, sums, out);
}

/* Blur */

void hw_gaussian(double sigma, ptrdiff_t length, int16_t *weights) {
    ptrdiff_t reach = length / 2;
    double sum = 1.0;
    int32_t rest = 32768;
    for (ptrdiff_t i = 1; i <= reach; i++) sum += 2.0 * exp(-0.5 * (double)(i * i) / (sigma * sigma));
    for (ptrdiff_t i = 1; i <= reach; i++) {
        weights[i] = (int16_t)(32768.0 * exp(-0.5 * (double)(i * i) / (sigma * sigma)) / sum + 0.5);
        rest -= 2 * weights[i];
    }
    /* 1 does not fit 16 bits; after rounding, the nearest value below gives the same. */
    weights[0] = (int16_t)(rest > 32767 ? 32767 : rest);
}

/* Sums of bytes of several rows in 1 / 64, rounded product by product. */
ALWAYS_INLINE void blur_rows(const uint8_t *const *rows, const int16_t *weights, ptrdiff_t reach,
                             ptrdiff_t first, ptrdiff_t length, int16_t *out) {
    for (ptrdiff_t i = first; i < length; i++) {
        int16_t sum = hw_mulhrs((int16_t)(rows[reach][i] * 64), weights[0]);
        for (ptrdiff_t k = 1; k <= reach; k++)
            sum = (int16_t)(sum +
                            hw_mulhrs((int16_t)((rows[reach - k][i] + rows[reach + k][i]) * 64), weights[k]));
        out[i] = sum;
    }
}

/* The same for neighbors in a row, and back to bytes. */
ALWAYS_INLINE void blur_columns(const int16_t *row, const int16_t *weights, ptrdiff_t reach, ptrdiff_t first,
                                ptrdiff_t length, ptrdiff_t channels, uint8_t *out) {
    for (ptrdiff_t i = first; i < length; i++) {
        int16_t sum = hw_mulhrs(row[i], weights[0]);
        for (ptrdiff_t k = 1; k <= reach; k++)
            sum = (int16_t)(sum +
                            hw_mulhrs((int16_t)(row[i - k * channels] + row[i + k * channels]), weights[k]));
        int value = (sum + 32) >> 6;
        out[i] = (uint8_t)(value > 255 ? 255 : value);
    }
}

static void rows_plain(const uint8_t *const *rows, const int16_t *weights, ptrdiff_t reach, ptrdiff_t length,
                       int16_t *out) {
    blur_rows(rows, weights, reach, 0, length, out);
}

static void columns_plain(const int16_t *row, const int16_t *weights, ptrdiff_t reach, ptrdiff_t length,
                          ptrdiff_t channels, uint8_t *out) {
    blur_columns(row, weights, reach, 0, length, channels, out);
}

#if HW_X86

/* Bytes as 16 bits, and back. */
SSE4 ALWAYS_INLINE __m128i load_wide_sse4(const uint8_t *at) {
    return _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)at));
}

SSE4 ALWAYS_INLINE __m128i narrow_sse4(__m128i low, __m128i high) {
    return _mm_packus_epi16(low, high);
}

AVX2 ALWAYS_INLINE __m256i load_wide_avx2(const uint8_t *at) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)at));
}

AVX2 ALWAYS_INLINE __m256i narrow_avx2(__m256i low, __m256i high) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0xD8);
}

SSE4 ALWAYS_INLINE void store_narrow_sse4(uint8_t *at, __m128i values) {
    _mm_storel_epi64((__m128i *)at, _mm_packus_epi16(values, values));
}

AVX2 ALWAYS_INLINE void store_narrow_avx2(uint8_t *at, __m256i values) {
    _mm_storeu_si128((__m128i *)at, _mm256_castsi256_si128(narrow_avx2(values, values)));
}

#define LANES_FILE "filters_lanes.h"
#include "lanes.h"

#endif

typedef void sharpen_kernel(const uint8_t *, const uint8_t *, const uint8_t *, ptrdiff_t, ptrdiff_t,
                            hw_factor, uint16_t *, uint8_t *);

void hw_sharpen(int simd, const hw_pixels *image, float factor, void *work, uint8_t *out) {
    sharpen_kernel *run = sharpen_plain;
    ptrdiff_t length = image->width * image->size;
    hw_factor fixed = hw_factor_of(factor);
    if (image->height <= 2 || image->width <= 2) {
        hw_copy_rows(image, out);
        return;
    }
#if HW_X86
    if (simd >= HW_AVX2)
        run = sharpen_avx2;
    else if (simd >= HW_SSE4)
        run = sharpen_sse4;
#endif
    memcpy(out, image->data, (size_t)length);
    for (ptrdiff_t y = 1; y < image->height - 1; y++) {
        const uint8_t *row = image->data + y * image->row_stride;
        run(row - image->row_stride, row, row + image->row_stride, length, image->size, fixed, work,
            out + y * length);
    }
    ptrdiff_t last = image->height - 1;
    memcpy(out + last * length, image->data + last * image->row_stride, (size_t)length);
}

void hw_blur(int simd, const hw_pixels *image, const int16_t *weights_y, ptrdiff_t reach_y,
             const int16_t *weights_x, ptrdiff_t reach_x, void *work, uint8_t *out) {
    void (*blur_down)(const uint8_t *const *, const int16_t *, ptrdiff_t, ptrdiff_t, int16_t *) = rows_plain;
    void (*blur_across)(const int16_t *, const int16_t *, ptrdiff_t, ptrdiff_t, ptrdiff_t, uint8_t *) =
        columns_plain;
    const uint8_t *rows[2 * HW_MOST_REACH + 1];
    ptrdiff_t channels = image->size, length = image->width * channels;
    int16_t *row = (int16_t *)work + reach_x * channels;
#if HW_X86
    if (simd >= HW_AVX2) {
        blur_down = rows_avx2;
        blur_across = columns_avx2;
    } else if (simd >= HW_SSE4) {
        blur_down = rows_sse4;
        blur_across = columns_sse4;
    }
#endif
    for (ptrdiff_t y = 0; y < image->height; y++) {
        for (ptrdiff_t k = -reach_y; k <= reach_y; k++)
            rows[reach_y + k] = image->data + reflected(y + k, image->height) * image->row_stride;
        blur_down(rows, weights_y, reach_y, length, row);
        for (ptrdiff_t k = 1; k <= reach_x; k++) {
            memcpy(row - k * channels, row + reflected(-k, image->width) * channels,
                   (size_t)channels * sizeof(int16_t));
            memcpy(row + length + (k - 1) * channels,
                   row + reflected(image->width - 1 + k, image->width) * channels,
                   (size_t)channels * sizeof(int16_t));
        }
        blur_across(row, weights_x, reach_x, length, channels, out + y * length);
    }
}
