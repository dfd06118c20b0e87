/* Includes the file LANES_FILE twice: for vectors with one lane of 128 bits, and with two. So vector code is
 * written once for SSE4 and AVX2; it uses these macros:
 *
 * LANES(name)      a function or a type for this number of lanes: name_sse4 or name_avx2
 * TARGET           attribute of its functions: SSE4 or AVX2, which the including file defines
 * V                a vector of integers
 * OP(name), OR     an intrinsic of the vector, without its prefix; the bitwise or
 * LOAD, STORE      a vector at any address
 * LOAD_LANES       16 bytes, repeated in each lane
 */

#define LANES(name) name##_sse4
#define TARGET SSE4
#define V __m128i
#define OP(name) _mm_##name
#define OR _mm_or_si128
#define LOAD(at) _mm_loadu_si128((const __m128i *)(at))
#define STORE(at, values) _mm_storeu_si128((__m128i *)(at), values)
#define LOAD_LANES(at) LOAD(at)
#include LANES_FILE
#undef LANES
#undef TARGET
#undef V
#undef OP
#undef OR
#undef LOAD
#undef STORE
#undef LOAD_LANES

#define LANES(name) name##_avx2
#define TARGET AVX2
#define V __m256i
#define OP(name) _mm256_##name
#define OR _mm256_or_si256
#define LOAD(at) _mm256_loadu_si256((const __m256i *)(at))
#define STORE(at, values) _mm256_storeu_si256((__m256i *)(at), values)
#define LOAD_LANES(at) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(at)))
#include LANES_FILE
#undef LANES
#undef TARGET
#undef V
#undef OP
#undef OR
#undef LOAD
#undef STORE
#undef LOAD_LANES
#undef LANES_FILE
