/* Variants of the kernels by the vector instructions they use; every variant gives the same bits. */

#ifndef HIGHWAY_SIMD_H
#define HIGHWAY_SIMD_H

/* Each includes those before it, and runs their code if it has none of its own. SSE4 stands for SSE4.1, AVX2
 * for AVX2 with F16C and BMI2, AVX512 for AVX-512 with BW, VL and VBMI. */
enum { HW_PLAIN = 0, HW_SSE4 = 1, HW_AVX2 = 2, HW_AVX512 = 3 };

#if defined(__x86_64__) && defined(__GNUC__)
#define HW_X86 1
#else
#define HW_X86 0
#endif

/* The best variant that this CPU can run. */
int hw_simd_best(void);

#endif
