#include "png_filters.h"

#include <string.h>

#include "simd.h"

enum { SUB = 1, UP, AVERAGE, PAETH };

static void undo_up(uint8_t *row, const uint8_t *above, size_t n) {
    for (size_t i = 0; i < n; i++) row[i] = (uint8_t)(row[i] + above[i]);
}

static int distance(int a, int b) {
    return a < b ? b - a : a - b;
}

/* The one of left, above and above left that is nearest to left + above - corner. */
static int paeth(int left, int above, int corner) {
    const int guess = left + above - corner;
    const int to_left = distance(guess, left), to_above = distance(guess, above);
    const int to_corner = distance(guess, corner);
    if (to_left <= to_above && to_left <= to_corner) return left;
    return to_above <= to_corner ? above : corner;
}

static void undo_plain(int filter, uint8_t *row, const uint8_t *above, size_t n, size_t step) {
    /* Left of the first pixel are zeros. */
    const size_t first = n < step ? n : step;
    if (filter == AVERAGE)
        for (size_t i = 0; i < first; i++) row[i] = (uint8_t)(row[i] + above[i] / 2);
    if (filter == PAETH)
        for (size_t i = 0; i < first; i++) row[i] = (uint8_t)(row[i] + above[i]);
    switch (filter) {
    case SUB:
        for (size_t i = step; i < n; i++) row[i] = (uint8_t)(row[i] + row[i - step]);
        break;
    case AVERAGE:
        for (size_t i = step; i < n; i++) row[i] = (uint8_t)(row[i] + (row[i - step] + above[i]) / 2);
        break;
    case PAETH:
        for (size_t i = step; i < n; i++)
            row[i] = (uint8_t)(row[i] + paeth(row[i - step], above[i], above[i - step]));
        break;
    }
}

#if HW_X86
#include <immintrin.h>

#define SSE4 __attribute__((target("sse4.1")))
/* So that `step` is a constant in the loops. */
#define INLINED __attribute__((always_inline)) static inline

/* Up to 8 bytes of a pixel; those beyond `step` belong to the next one, and are not stored. */
INLINED SSE4 __m128i load(const uint8_t *at, size_t step) {
    if (step > 4) return _mm_loadl_epi64((const __m128i *)at);
    int bytes;
    memcpy(&bytes, at, 4);
    return _mm_cvtsi32_si128(bytes);
}

INLINED SSE4 void store(uint8_t *at, __m128i pixel, size_t step) {
    const long long bytes = _mm_cvtsi128_si64(pixel);
    memcpy(at, &bytes, step);
}

INLINED SSE4 void sub_sse4(uint8_t *row, size_t n, size_t step) {
    __m128i left = _mm_setzero_si128();
    for (size_t i = 0; i < n; i += step) {
        left = _mm_add_epi8(left, load(row + i, step));
        store(row + i, left, step);
    }
}

INLINED SSE4 void average_sse4(uint8_t *row, const uint8_t *above, size_t n, size_t step) {
    const __m128i ones = _mm_set1_epi8(1);
    __m128i left = _mm_setzero_si128();
    for (size_t i = 0; i < n; i += step) {
        const __m128i up = load(above + i, step);
        /* The instruction rounds up. */
        const __m128i odd = _mm_and_si128(_mm_xor_si128(left, up), ones);
        const __m128i mean = _mm_sub_epi8(_mm_avg_epu8(left, up), odd);
        left = _mm_add_epi8(mean, load(row + i, step));
        store(row + i, left, step);
    }
}

INLINED SSE4 void paeth_sse4(uint8_t *row, const uint8_t *above, size_t n, size_t step) {
    const __m128i low = _mm_set1_epi16(0xFF);
    __m128i left = _mm_setzero_si128(), corner = left;
    for (size_t i = 0; i < n; i += step) {
        const __m128i up = _mm_cvtepu8_epi16(load(above + i, step));
        /* The distances of left + up - corner, without the sum. */
        const __m128i by_up = _mm_sub_epi16(up, corner), by_left = _mm_sub_epi16(left, corner);
        const __m128i to_left = _mm_abs_epi16(by_up), to_up = _mm_abs_epi16(by_left);
        const __m128i to_corner = _mm_abs_epi16(_mm_add_epi16(by_up, by_left));
        const __m128i least = _mm_min_epi16(to_corner, _mm_min_epi16(to_left, to_up));
        const __m128i second = _mm_blendv_epi8(corner, up, _mm_cmpeq_epi16(least, to_up));
        const __m128i nearest = _mm_blendv_epi8(second, left, _mm_cmpeq_epi16(least, to_left));
        const __m128i value = _mm_add_epi16(nearest, _mm_cvtepu8_epi16(load(row + i, step)));
        left = _mm_and_si128(value, low);
        corner = up;
        store(row + i, _mm_packus_epi16(left, left), step);
    }
}

INLINED SSE4 void undo_sse4(int filter, uint8_t *row, const uint8_t *above, size_t n, size_t step) {
    if (filter == SUB) sub_sse4(row, n, step);
    if (filter == AVERAGE) average_sse4(row, above, n, step);
    if (filter == PAETH) paeth_sse4(row, above, n, step);
}

/* A pixel has 1, 2, 3, 4, 6 or 8 bytes. */
SSE4 static void undo_pixels_sse4(int filter, uint8_t *row, const uint8_t *above, size_t n, size_t step) {
    switch (step) {
    case 1: undo_sse4(filter, row, above, n, 1); break;
    case 2: undo_sse4(filter, row, above, n, 2); break;
    case 3: undo_sse4(filter, row, above, n, 3); break;
    case 4: undo_sse4(filter, row, above, n, 4); break;
    case 6: undo_sse4(filter, row, above, n, 6); break;
    case 8: undo_sse4(filter, row, above, n, 8); break;
    }
}
#endif

void hw_png_unfilter(int simd, int filter, uint8_t *row, const uint8_t *above, size_t n, size_t step) {
    if (filter == UP) {
        undo_up(row, above, n);
        return;
    }
#if HW_X86
    if (simd >= HW_SSE4) {
        undo_pixels_sse4(filter, row, above, n, step);
        return;
    }
#endif
    undo_plain(filter, row, above, n, step);
}
