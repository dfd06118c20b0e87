/* Variants of the kernels by the vector instructions they use; every variant gives the same bits. */

#ifndef HIGHWAY_SIMD_H
#define HIGHWAY_SIMD_H

/* Each includes those before it. SSE4 stands for SSE4.1, AVX2 for AVX2 with F16C and BMI2. */
enum { HW_PLAIN = 0, HW_SSE4 = 1, HW_AVX2 = 2 };

#if defined(__x86_64__) && defined(__GNUC__)
#define HW_X86 1
#else
#define HW_X86 0
#endif

/* The best variant that this CPU can run. */
int hw_simd_best(void);

#endif
