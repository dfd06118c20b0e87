#include "simd.h"

#if HW_X86
#include <cpuid.h>
#endif

int hw_simd_best(void) {
#if HW_X86
    unsigned int a, b, c = 0, d;
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("sse4.1")) return HW_PLAIN;
    /* Older compilers cannot test for f16c by name. */
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
          __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C)))
        return HW_SSE4;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi"))
        return HW_AVX512;
    return HW_AVX2;
#else
    return HW_PLAIN;
#endif
}
