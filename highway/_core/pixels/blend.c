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

#define LANES_FILE "blend_lanes.h"
#include "lanes.h"

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
