#include "blend.h"

#include <string.h>

#if HW_X86
#include <immintrin.h>
#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2")))
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

static void bytes_plain(const uint8_t *restrict left, const uint8_t *restrict right, ptrdiff_t count,
                        int weight, uint8_t *restrict out) {
    for (ptrdiff_t i = 0; i < count; i++)
        out[i] = (uint8_t)((left[i] * weight + right[i] * (32768 - weight) + 16384) >> 15);
}

ALWAYS_INLINE void reals(const float *restrict left, const float *restrict right, ptrdiff_t count,
                         float left_weight, float right_weight, float *restrict out) {
    for (ptrdiff_t i = 0; i < count; i++) out[i] = left[i] * left_weight + right[i] * right_weight;
}

#if HW_X86

/* right + (left - right) * weight: `right` is whole, so rounding the product rounds the sum. */

SSE4 static void bytes_sse4(const uint8_t *left, const uint8_t *right, ptrdiff_t count, int weight,
                            uint8_t *out) {
    const __m128i factor = _mm_set1_epi16((int16_t)weight), zero = _mm_setzero_si128();
    ptrdiff_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m128i here = _mm_loadu_si128((const __m128i *)(left + i));
        const __m128i there = _mm_loadu_si128((const __m128i *)(right + i));
        const __m128i low = _mm_unpacklo_epi8(there, zero), high = _mm_unpackhi_epi8(there, zero);
        const __m128i low_apart = _mm_sub_epi16(_mm_unpacklo_epi8(here, zero), low);
        const __m128i high_apart = _mm_sub_epi16(_mm_unpackhi_epi8(here, zero), high);
        const __m128i low_mixed = _mm_add_epi16(low, _mm_mulhrs_epi16(low_apart, factor));
        const __m128i high_mixed = _mm_add_epi16(high, _mm_mulhrs_epi16(high_apart, factor));
        _mm_storeu_si128((__m128i *)(out + i), _mm_packus_epi16(low_mixed, high_mixed));
    }
    bytes_plain(left + i, right + i, count - i, weight, out + i);
}

AVX2 static void bytes_avx2(const uint8_t *left, const uint8_t *right, ptrdiff_t count, int weight,
                            uint8_t *out) {
    const __m256i factor = _mm256_set1_epi16((int16_t)weight), zero = _mm256_setzero_si256();
    ptrdiff_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m256i here = _mm256_loadu_si256((const __m256i *)(left + i));
        const __m256i there = _mm256_loadu_si256((const __m256i *)(right + i));
        const __m256i low = _mm256_unpacklo_epi8(there, zero), high = _mm256_unpackhi_epi8(there, zero);
        const __m256i low_apart = _mm256_sub_epi16(_mm256_unpacklo_epi8(here, zero), low);
        const __m256i high_apart = _mm256_sub_epi16(_mm256_unpackhi_epi8(here, zero), high);
        const __m256i low_mixed = _mm256_add_epi16(low, _mm256_mulhrs_epi16(low_apart, factor));
        const __m256i high_mixed = _mm256_add_epi16(high, _mm256_mulhrs_epi16(high_apart, factor));
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_packus_epi16(low_mixed, high_mixed));
    }
    bytes_plain(left + i, right + i, count - i, weight, out + i);
}

AVX2 static void reals_avx2(const float *left, const float *right, ptrdiff_t count, float left_weight,
                            float right_weight, float *out) {
    reals(left, right, count, left_weight, right_weight, out);
}

#endif

void hw_blend_bytes(int simd, const uint8_t *left, const uint8_t *right, ptrdiff_t count, int weight,
                    uint8_t *out) {
    /* These two weights are exact, and the vector code has no factor 32768. */
    if (weight == 32768 || weight == 0) {
        memcpy(out, weight ? left : right, (size_t)count);
        return;
    }
#if HW_X86
    if (simd >= HW_AVX2) {
        bytes_avx2(left, right, count, weight, out);
        return;
    }
    if (simd >= HW_SSE4) {
        bytes_sse4(left, right, count, weight, out);
        return;
    }
#endif
    bytes_plain(left, right, count, weight, out);
}

void hw_blend_reals(int simd, const float *left, const float *right, ptrdiff_t count, float left_weight,
                    float right_weight, float *out) {
#if HW_X86
    if (simd >= HW_AVX2) {
        reals_avx2(left, right, count, left_weight, right_weight, out);
        return;
    }
#endif
    reals(left, right, count, left_weight, right_weight, out);
}
