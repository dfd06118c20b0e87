/* Blends bytes in lanes of 128 bits, see lanes.h and blend.c. */

/* right + (left - right) * weight: `right` is whole, so rounding the product rounds the sum. */
TARGET static void LANES(bytes)(const uint8_t *left, const uint8_t *right, ptrdiff_t count, int weight,
                                uint8_t *out) {
    const V factor = OP(set1_epi16)((int16_t)weight), zero = OP(set1_epi8)(0);
    const ptrdiff_t step = sizeof(V);
    ptrdiff_t i = 0;
    for (; i + step <= count; i += step) {
        const V here = LOAD(left + i), there = LOAD(right + i);
        const V low = OP(unpacklo_epi8)(there, zero), high = OP(unpackhi_epi8)(there, zero);
        const V low_apart = OP(sub_epi16)(OP(unpacklo_epi8)(here, zero), low);
        const V high_apart = OP(sub_epi16)(OP(unpackhi_epi8)(here, zero), high);
        const V low_mixed = OP(add_epi16)(low, OP(mulhrs_epi16)(low_apart, factor));
        const V high_mixed = OP(add_epi16)(high, OP(mulhrs_epi16)(high_apart, factor));
        STORE(out + i, OP(packus_epi16)(low_mixed, high_mixed));
    }
    bytes_plain(left + i, right + i, count - i, weight, out + i);
}
