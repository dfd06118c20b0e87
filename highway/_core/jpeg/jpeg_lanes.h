/* Inverse DCT and colors in lanes of 128 bits, see lanes.h and jpeg_samples.c. */

/* ---- inverse DCT: a block in each lane ---- */

typedef struct {
    V low, high;
} LANES(wide);

/* a * of_a + b * of_b in 32 bits. */
TARGET static inline LANES(wide) LANES(multiply)(V a, V b, int of_a, int of_b) {
    const V pair = OP(set1_epi32)((int)((uint32_t)of_b << 16 | (uint16_t)of_a));
    return (LANES(wide)){OP(madd_epi16)(OP(unpacklo_epi16)(a, b), pair),
                         OP(madd_epi16)(OP(unpackhi_epi16)(a, b), pair)};
}

TARGET static inline LANES(wide) LANES(add)(LANES(wide) a, LANES(wide) b) {
    return (LANES(wide)){OP(add_epi32)(a.low, b.low), OP(add_epi32)(a.high, b.high)};
}

TARGET static inline LANES(wide) LANES(subtract)(LANES(wide) a, LANES(wide) b) {
    return (LANES(wide)){OP(sub_epi32)(a.low, b.low), OP(sub_epi32)(a.high, b.high)};
}

TARGET static inline V LANES(narrow)(LANES(wide) a, const int shift) {
    return OP(packs_epi32)(OP(srai_epi32)(a.low, shift), OP(srai_epi32)(a.high, shift));
}

/* A 16-bit value times 2^13, plus the rounding term. */
TARGET static inline LANES(wide) LANES(scale)(V a, const int shift) {
    const V zero = OP(set1_epi32)(0), round = OP(set1_epi32)(1 << (shift - 1));
    return (LANES(wide)){
        OP(add_epi32)(OP(srai_epi32)(OP(unpacklo_epi16)(zero, a), 16 - CONSTANT_BITS), round),
        OP(add_epi32)(OP(srai_epi32)(OP(unpackhi_epi16)(zero, a), 16 - CONSTANT_BITS), round)};
}

TARGET static inline __attribute__((always_inline)) void LANES(pass)(V x[8], const int shift) {
    const LANES(wide) even2 = LANES(multiply)(x[2], x[6], C_2_6, C_6_6);
    const LANES(wide) even3 = LANES(multiply)(x[2], x[6], C_2_2, C_2_6);
    const LANES(wide) sum = LANES(scale)(OP(add_epi16)(x[0], x[4]), shift);
    const LANES(wide) difference = LANES(scale)(OP(sub_epi16)(x[0], x[4]), shift);
    const LANES(wide) even[4] = {LANES(add)(sum, even3), LANES(add)(difference, even2),
                                 LANES(subtract)(difference, even2), LANES(subtract)(sum, even3)};
    const V z3 = OP(add_epi16)(x[7], x[3]), z4 = OP(add_epi16)(x[5], x[1]);
    const LANES(wide) from3 = LANES(multiply)(z3, z4, C_Z3, C_Z);
    const LANES(wide) from4 = LANES(multiply)(z3, z4, C_Z, C_Z4);
    const LANES(wide) odd[4] = {LANES(add)(LANES(multiply)(x[1], x[7], C_1_1, C_7_1), from4),
                                LANES(add)(LANES(multiply)(x[3], x[5], C_3_3, C_5_3), from3),
                                LANES(add)(LANES(multiply)(x[5], x[3], C_5_5, C_5_3), from4),
                                LANES(add)(LANES(multiply)(x[7], x[1], C_7_7, C_7_1), from3)};
    for (int i = 0; i < 4; i++) {
        x[i] = LANES(narrow)(LANES(add)(even[i], odd[i]), shift);
        x[7 - i] = LANES(narrow)(LANES(subtract)(even[i], odd[i]), shift);
    }
}

TARGET static inline __attribute__((always_inline)) void LANES(transpose)(V x[8]) {
    V a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = OP(unpacklo_epi16)(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = OP(unpackhi_epi16)(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        b[4 * i] = OP(unpacklo_epi32)(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = OP(unpackhi_epi32)(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = OP(unpacklo_epi32)(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = OP(unpackhi_epi32)(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        x[2 * i] = OP(unpacklo_epi64)(b[i], b[i + 4]);
        x[2 * i + 1] = OP(unpackhi_epi64)(b[i], b[i + 4]);
    }
}

/* Rows 0 and 1 of samples in rows[0], 2 and 3 in rows[1], and so on. */
TARGET static inline __attribute__((always_inline)) void
LANES(transform)(const int16_t *block, const uint16_t quant[64], V rows[4]) {
    V x[8];
    for (int i = 0; i < 8; i++)
        x[i] = OP(mullo_epi16)(LANES(load_row)(block + 8 * i), LOAD_LANES(quant + 8 * i));
    LANES(pass)(x, SHIFT_COLUMNS);
    LANES(transpose)(x);
    LANES(pass)(x, SHIFT_ROWS);
    /* Columns to bytes, and bytes to rows. */
    V q[4];
    for (int i = 0; i < 4; i++)
        q[i] = OP(add_epi8)(OP(packs_epi16)(x[i], x[i + 4]), OP(set1_epi8)((char)128));
    const V even = OP(unpacklo_epi8)(q[0], q[2]), even4 = OP(unpackhi_epi8)(q[0], q[2]);
    const V odd = OP(unpacklo_epi8)(q[1], q[3]), odd4 = OP(unpackhi_epi8)(q[1], q[3]);
    const V top = OP(unpacklo_epi8)(even, odd), bottom = OP(unpackhi_epi8)(even, odd);
    const V top4 = OP(unpacklo_epi8)(even4, odd4), bottom4 = OP(unpackhi_epi8)(even4, odd4);
    rows[0] = OP(unpacklo_epi32)(top, top4);
    rows[1] = OP(unpackhi_epi32)(top, top4);
    rows[2] = OP(unpacklo_epi32)(bottom, bottom4);
    rows[3] = OP(unpackhi_epi32)(bottom, bottom4);
}

/* ---- colors: sixteen pixels in each lane ---- */

/* Half of them: the terms added to Y. 1.402 = 1 + 0.402 and 1.772 = 2 - 0.228, to have constants of 16 bits;
 * the products are of twice the value, so that halving them again rounds. */
TARGET static inline void LANES(differences)(V blue, V red, V *to_red, V *to_green, V *to_blue) {
    const V one = OP(set1_epi16)(1), round = OP(set1_epi32)(32768);
    const V pair = OP(set1_epi32)((int)((uint32_t)(65536 - 46802) << 16 | (uint16_t)-22554));
    const V twice_blue = OP(add_epi16)(blue, blue), twice_red = OP(add_epi16)(red, red);
    const V part_red = OP(mulhi_epi16)(twice_red, OP(set1_epi16)(26345));
    const V part_blue = OP(mulhi_epi16)(twice_blue, OP(set1_epi16)(-14942));
    *to_red = OP(add_epi16)(red, OP(srai_epi16)(OP(add_epi16)(part_red, one), 1));
    *to_blue = OP(add_epi16)(twice_blue, OP(srai_epi16)(OP(add_epi16)(part_blue, one), 1));
    const V low = OP(madd_epi16)(OP(unpacklo_epi16)(blue, red), pair);
    const V high = OP(madd_epi16)(OP(unpackhi_epi16)(blue, red), pair);
    *to_green = OP(sub_epi16)(OP(packs_epi32)(OP(srai_epi32)(OP(add_epi32)(low, round), 16),
                                              OP(srai_epi32)(OP(add_epi32)(high, round), 16)),
                              red);
}

/* out[0], out[1] and out[2] of a lane are adjacent. */
TARGET static inline void LANES(colors)(V y, V cb, V cr, V out[3]) {
    const V zero = OP(set1_epi8)(0), middle = OP(set1_epi16)(128);
    V r[2], g[2], b[2];
    LANES(differences)(OP(sub_epi16)(OP(unpacklo_epi8)(cb, zero), middle),
                       OP(sub_epi16)(OP(unpacklo_epi8)(cr, zero), middle), &r[0], &g[0], &b[0]);
    LANES(differences)(OP(sub_epi16)(OP(unpackhi_epi8)(cb, zero), middle),
                       OP(sub_epi16)(OP(unpackhi_epi8)(cr, zero), middle), &r[1], &g[1], &b[1]);
    const V low = OP(unpacklo_epi8)(y, zero), high = OP(unpackhi_epi8)(y, zero);
    const V red = OP(packus_epi16)(OP(add_epi16)(low, r[0]), OP(add_epi16)(high, r[1]));
    const V green = OP(packus_epi16)(OP(add_epi16)(low, g[0]), OP(add_epi16)(high, g[1]));
    const V blue = OP(packus_epi16)(OP(add_epi16)(low, b[0]), OP(add_epi16)(high, b[1]));
    for (int i = 0; i < 3; i++)
        out[i] = OR(OR(OP(shuffle_epi8)(red, LOAD_LANES(INTERLEAVE[0][i])),
                       OP(shuffle_epi8)(green, LOAD_LANES(INTERLEAVE[1][i]))),
                    OP(shuffle_epi8)(blue, LOAD_LANES(INTERLEAVE[2][i])));
}
