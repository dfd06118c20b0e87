/* Combines rows in lanes of 128 bits, see lanes.h and resampler.c. */

TARGET ALWAYS_INLINE void LANES(combine_block)(const uint8_t *const *rows, const int16_t *weights, int count,
                                               uint8_t *out, size_t at) {
    const V zero = OP(set1_epi8)(0);
    V sum0 = OP(set1_epi32)(WEIGHT_HALF), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (int k = 0; k < count; k += 2) {
        const V a = LOAD(rows[k] + at), b = k + 1 < count ? LOAD(rows[k + 1] + at) : zero;
        int32_t both; /* this weight and the next, which multiplies zeros if there is no such row */
        memcpy(&both, weights + k, sizeof both);
        const V w = OP(set1_epi32)(both);
        const V low = OP(unpacklo_epi8)(a, b), high = OP(unpackhi_epi8)(a, b);
        sum0 = OP(add_epi32)(sum0, OP(madd_epi16)(OP(unpacklo_epi8)(low, zero), w));
        sum1 = OP(add_epi32)(sum1, OP(madd_epi16)(OP(unpackhi_epi8)(low, zero), w));
        sum2 = OP(add_epi32)(sum2, OP(madd_epi16)(OP(unpacklo_epi8)(high, zero), w));
        sum3 = OP(add_epi32)(sum3, OP(madd_epi16)(OP(unpackhi_epi8)(high, zero), w));
    }
    const V low = OP(packs_epi32)(OP(srai_epi32)(sum0, WEIGHT_BITS), OP(srai_epi32)(sum1, WEIGHT_BITS));
    const V high = OP(packs_epi32)(OP(srai_epi32)(sum2, WEIGHT_BITS), OP(srai_epi32)(sum3, WEIGHT_BITS));
    STORE(out + at, OP(packus_epi16)(low, high));
}
