#include "noise.h"

#include <math.h>
#include <string.h>

#if HW_X86
#include <immintrin.h>
#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2,f16c")))
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    /* Blocks of Philox computed together; each gives four words, and a word gives two numbers. */
    BLOCKS = 32,
    NUMBERS = 8 * BLOCKS,
};

typedef void words_kernel(const hw_stream *, uint32_t, uint32_t[4][BLOCKS]);

/* Philox4x32-10 of counters (index, epoch, position, first), (..., first + 1) and so on; words[i] are the
 * words i of all blocks. */
static void words_plain(const hw_stream *stream, uint32_t first, uint32_t words[4][BLOCKS]) {
    uint32_t key0 = (uint32_t)stream->seed, key1 = (uint32_t)(stream->seed >> 32);
    for (uint32_t block = 0; block < BLOCKS; block++) {
        words[0][block] = stream->index;
        words[1][block] = stream->epoch;
        words[2][block] = stream->position;
        words[3][block] = first + block;
    }
    for (int round = 0; round < 10; round++) {
        for (int block = 0; block < BLOCKS; block++) {
            uint64_t product0 = (uint64_t)words[0][block] * 0xD2511F53u;
            uint64_t product1 = (uint64_t)words[2][block] * 0xCD9E8D57u;
            words[0][block] = (uint32_t)(product1 >> 32) ^ words[1][block] ^ key0;
            words[1][block] = (uint32_t)product1;
            words[2][block] = (uint32_t)(product0 >> 32) ^ words[3][block] ^ key1;
            words[3][block] = (uint32_t)product0;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

#if HW_X86

/* Eight blocks at once: words are the lower halves of 64 bits, for multiplication; the upper halves are
 * undefined. */
AVX2 static void words_avx2(const hw_stream *stream, uint32_t first, uint32_t words[4][BLOCKS]) {
    const __m256i factor0 = _mm256_set1_epi64x(0xD2511F53), factor1 = _mm256_set1_epi64x(0xCD9E8D57);
    for (int block = 0; block < BLOCKS; block += 8) {
        uint32_t key0 = (uint32_t)stream->seed, key1 = (uint32_t)(stream->seed >> 32);
        /* Even and odd blocks. */
        __m256i state[4][2];
        for (int half = 0; half < 2; half++) {
            state[0][half] = _mm256_set1_epi64x(stream->index);
            state[1][half] = _mm256_set1_epi64x(stream->epoch);
            state[2][half] = _mm256_set1_epi64x(stream->position);
            state[3][half] =
                _mm256_add_epi32(_mm256_set1_epi64x((uint32_t)(first + (uint32_t)(block + half))),
                                 _mm256_set_epi64x(6, 4, 2, 0));
        }
        for (int round = 0; round < 10; round++) {
            const __m256i keys0 = _mm256_set1_epi64x(key0), keys1 = _mm256_set1_epi64x(key1);
            for (int half = 0; half < 2; half++) {
                const __m256i product0 = _mm256_mul_epu32(state[0][half], factor0);
                const __m256i product1 = _mm256_mul_epu32(state[2][half], factor1);
                state[0][half] = _mm256_xor_si256(_mm256_srli_epi64(product1, 32),
                                                  _mm256_xor_si256(state[1][half], keys0));
                state[1][half] = product1;
                state[2][half] = _mm256_xor_si256(_mm256_srli_epi64(product0, 32),
                                                  _mm256_xor_si256(state[3][half], keys1));
                state[3][half] = product0;
            }
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        for (int word = 0; word < 4; word++)
            _mm256_storeu_si256(
                (__m256i *)(words[word] + block),
                _mm256_blend_epi32(state[word][0], _mm256_slli_epi64(state[word][1], 32), 0xAA));
    }
}

#endif

ALWAYS_INLINE float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

ALWAYS_INLINE uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* Two independent standard normal numbers from 32 random bits, in exactly rounded operations only.
 *
 * Source: G. Box, M. Muller, "A note on the generation of random normal deviates", Annals of Mathematical
 * Statistics 29 (1958), 610-611. The radius is sqrt(-2 log u), u the middle of one of 2**20 equal parts of 0
 * to 1; the angle is the middle of one of 4096 parts of the circle: 512 in an eighth of it, mapped to the
 * others by two signs and an exchange.
 */
ALWAYS_INLINE void normal_pair(uint32_t word, float *first, float *second) {
    /* u * 2**20 = mantissa * 2**exponent, mantissa from sqrt(1/2) to sqrt(2). */
    uint32_t shifted = bits_of((float)(int32_t)(word >> 12) + 0.5f) - 0x3F3504F3u;
    float exponent = (float)((int32_t)shifted >> 23);
    float x = float_of((shifted & 0x7FFFFFu) + 0x3F3504F3u) - 1.0f;
    float square = x * x;
    /* log(1 + x): the polynomial of Cephes (logf). */
    float tail = 7.0376836292e-2f * x - 1.1514610310e-1f;
    tail = tail * x + 1.1676998740e-1f;
    tail = tail * x - 1.2420140846e-1f;
    tail = tail * x + 1.4249322787e-1f;
    tail = tail * x - 1.6668057665e-1f;
    tail = tail * x + 2.0000714765e-1f;
    tail = tail * x - 2.4999993993e-1f;
    tail = tail * x + 3.3333331174e-1f;
    float logarithm = (exponent - 20.0f) * 0.69314718f + (x - 0.5f * square + tail * x * square);
    float radius = sqrtf(-2.0f * logarithm);
    /* Taylor polynomials up to a quarter of pi: to 4e-7. */
    float angle = ((float)(int32_t)(word & 511) + 0.5f) * (float)(0.78539816339744830962 / 512);
    float turn = angle * angle;
    float sine = ((-1.9841270e-4f * turn + 8.3333333e-3f) * turn - 1.6666667e-1f) * turn * angle + angle;
    float cosine =
        ((2.4801587e-5f * turn - 1.3888889e-3f) * turn + 4.1666667e-2f) * turn * turn - 0.5f * turn + 1.0f;
    int exchange = (word & 512) != 0;
    float x_part = radius * (exchange ? sine : cosine), y_part = radius * (exchange ? cosine : sine);
    *first = float_of(bits_of(x_part) ^ (word << 21 & 0x80000000u));
    *second = float_of(bits_of(y_part) ^ (word << 20 & 0x80000000u));
}

/* Numbers NUMBERS * group and on: of each word the first of all blocks, then the second. Block 0 of the
 * stream is reserved for draws. */
ALWAYS_INLINE void normals(words_kernel *make_words, const hw_stream *stream, ptrdiff_t group,
                           float numbers[NUMBERS]) {
    uint32_t words[4][BLOCKS];
    make_words(stream, (uint32_t)(group * BLOCKS + 1), words);
    for (int word = 0; word < 4; word++) {
        float *first = numbers + 2 * word * BLOCKS, *second = first + BLOCKS;
        for (int block = 0; block < BLOCKS; block++) {
            float x, y;
            normal_pair(words[word][block], &x, &y);
            first[block] = x;
            second[block] = y;
        }
    }
}

ALWAYS_INLINE void add_to_bytes(const uint8_t *in, const float *numbers, ptrdiff_t count, float offset,
                                float scale, uint8_t *out) {
#pragma GCC ivdep
    for (ptrdiff_t i = 0; i < count; i++) {
        float value = (float)in[i] + (numbers[i] * scale + offset);
        value = value > 0.0f ? value : 0.0f;
        value = value < 255.0f ? value : 255.0f;
        out[i] = (uint8_t)(int)(value + 0.5f);
    }
}

ALWAYS_INLINE void add_to_reals(const float *in, const float *numbers, ptrdiff_t count, float offset,
                                float scale, float low, float high, float *out) {
#pragma GCC ivdep
    for (ptrdiff_t i = 0; i < count; i++) {
        float value = in[i] + (numbers[i] * scale + offset);
        value = value < low ? low : value;
        out[i] = value > high ? high : value;
    }
}

ALWAYS_INLINE void noise_bytes(words_kernel *make_words, const hw_stream *stream, const uint8_t *in,
                               ptrdiff_t count, float offset, float scale, uint8_t *out) {
    float numbers[NUMBERS];
    ptrdiff_t group = 0, whole = count / NUMBERS;
    for (; group < whole; group++) {
        normals(make_words, stream, group, numbers);
        add_to_bytes(in + group * NUMBERS, numbers, NUMBERS, offset, scale, out + group * NUMBERS);
    }
    if (count == whole * NUMBERS) return;
    normals(make_words, stream, group, numbers);
    add_to_bytes(in + group * NUMBERS, numbers, count - whole * NUMBERS, offset, scale,
                 out + group * NUMBERS);
}

ALWAYS_INLINE void noise_reals(words_kernel *make_words, const hw_stream *stream, const float *in,
                               ptrdiff_t count, float offset, float scale, float low, float high,
                               float *out) {
    float numbers[NUMBERS];
    for (ptrdiff_t done = 0; done < count; done += NUMBERS) {
        ptrdiff_t some = count - done < NUMBERS ? count - done : NUMBERS;
        normals(make_words, stream, done / NUMBERS, numbers);
        add_to_reals(in + done, numbers, some, offset, scale, low, high, out + done);
    }
}

#if HW_X86

SSE4 static void noise_bytes_sse4(const hw_stream *stream, const uint8_t *in, ptrdiff_t count, float offset,
                                  float scale, uint8_t *out) {
    noise_bytes(words_plain, stream, in, count, offset, scale, out);
}

AVX2 static void noise_bytes_avx2(const hw_stream *stream, const uint8_t *in, ptrdiff_t count, float offset,
                                  float scale, uint8_t *out) {
    noise_bytes(words_avx2, stream, in, count, offset, scale, out);
}

SSE4 static void noise_reals_sse4(const hw_stream *stream, const float *in, ptrdiff_t count, float offset,
                                  float scale, float low, float high, float *out) {
    noise_reals(words_plain, stream, in, count, offset, scale, low, high, out);
}

AVX2 static void noise_reals_avx2(const hw_stream *stream, const float *in, ptrdiff_t count, float offset,
                                  float scale, float low, float high, float *out) {
    noise_reals(words_avx2, stream, in, count, offset, scale, low, high, out);
}

#endif

void hw_noise_bytes(int simd, const hw_stream *stream, const uint8_t *in, ptrdiff_t count, float offset,
                    float scale, uint8_t *out) {
#if HW_X86
    if (simd >= HW_AVX2) {
        noise_bytes_avx2(stream, in, count, offset, scale, out);
        return;
    }
    if (simd >= HW_SSE4) {
        noise_bytes_sse4(stream, in, count, offset, scale, out);
        return;
    }
#endif
    noise_bytes(words_plain, stream, in, count, offset, scale, out);
}

void hw_noise_reals(int simd, const hw_stream *stream, const float *in, ptrdiff_t count, float offset,
                    float scale, float low, float high, float *out) {
#if HW_X86
    if (simd >= HW_AVX2) {
        noise_reals_avx2(stream, in, count, offset, scale, low, high, out);
        return;
    }
    if (simd >= HW_SSE4) {
        noise_reals_sse4(stream, in, count, offset, scale, low, high, out);
        return;
    }
#endif
    noise_reals(words_plain, stream, in, count, offset, scale, low, high, out);
}
