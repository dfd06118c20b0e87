/* Kernels of color programs in lanes of 128 bits, see lanes.h and color_kernels.c. */

/* ---- pixels into planes, and back ---- */

/* Mask of bytes whose position has this remainder modulo three. */
TARGET ALWAYS_INLINE V LANES(each_third)(int remainder, int period) {
    int8_t mask[sizeof(V)];
    for (int i = 0; i < (int)sizeof(V); i++) mask[i] = (int8_t)(i % period % 3 == remainder ? -1 : 0);
    return LOAD(mask);
}

/* Cycles through `parts` from byte to byte, beginning with part `first`. */
TARGET ALWAYS_INLINE V LANES(in_turns)(const V parts[3], int first, int step, V second, V third) {
    const V two = OP(blendv_epi8)(parts[first % 3], parts[(first + step) % 3], second);
    return OP(blendv_epi8)(two, parts[(first + 2 * step) % 3], third);
}

/* 16 interleaved pixels in each lane. */
TARGET ALWAYS_INLINE void LANES(load_pixels)(const uint8_t *in, V thirds[3]) {
    for (int part = 0; part < 3; part++) thirds[part] = LANES(load_apart)(in + 16 * part);
}

/* The 16 bytes of a channel have 16 different positions in the thirds: blends collect them, one shuffle
 * orders them. */
TARGET static void LANES(split)(const uint8_t *in, ptrdiff_t count, uint8_t *red, uint8_t *green,
                                uint8_t *blue) {
    uint8_t *planes[3] = {red, green, blue};
    const V second = LANES(each_third)(1, 16), third = LANES(each_third)(2, 16);
    const ptrdiff_t step = sizeof(V);
    V order[3];
    ptrdiff_t i = 0;
    for (int channel = 0; channel < 3; channel++) {
        int8_t mask[16];
        for (int pixel = 0; pixel < 16; pixel++) mask[pixel] = (int8_t)((3 * pixel + channel) % 16);
        order[channel] = LOAD_LANES(mask);
    }
    for (; i + step <= count; i += step) {
        V thirds[3];
        LANES(load_pixels)(in + 3 * i, thirds);
        for (int channel = 0; channel < 3; channel++) {
            const V mixed = LANES(in_turns)(thirds, channel, 2, second, third);
            STORE(planes[channel] + i, OP(shuffle_epi8)(mixed, order[channel]));
        }
    }
    split_plain(in + 3 * i, count - i, red + i, green + i, blue + i);
}

TARGET static void LANES(join)(const uint8_t *red, const uint8_t *green, const uint8_t *blue, ptrdiff_t count,
                               uint8_t *out) {
    const uint8_t *planes[3] = {red, green, blue};
    const V second = LANES(each_third)(1, 16), third = LANES(each_third)(2, 16);
    const ptrdiff_t step = sizeof(V);
    V order[3];
    ptrdiff_t i = 0;
    for (int channel = 0; channel < 3; channel++) {
        int8_t mask[16];
        for (int pixel = 0; pixel < 16; pixel++) mask[(3 * pixel + channel) % 16] = (int8_t)pixel;
        order[channel] = LOAD_LANES(mask);
    }
    for (; i + step <= count; i += step) {
        V mixed[3];
        for (int channel = 0; channel < 3; channel++)
            mixed[channel] = OP(shuffle_epi8)(LOAD(planes[channel] + i), order[channel]);
        for (int part = 0; part < 3; part++)
            LANES(store_apart)(out + 3 * i + 16 * part, LANES(in_turns)(mixed, part, 1, second, third));
    }
    join_plain(red + i, green + i, blue + i, count - i, out + 3 * i);
}

/* ---- statistics ---- */

TARGET static void LANES(sums)(const uint8_t *in, ptrdiff_t count, uint64_t sum[3]) {
    const int size = sizeof(V);
    const V zero = OP(set1_epi8)(0);
    const V second = LANES(each_third)(1, size), third = LANES(each_third)(2, size);
    V sums[3] = {zero, zero, zero};
    ptrdiff_t i = 0;
    for (; i + 3 * size <= count; i += 3 * size) {
        V thirds[3];
        for (int part = 0; part < 3; part++) thirds[part] = LOAD(in + i + size * part);
        for (int part = 0; part < 3; part++) {
            const V mixed = LANES(in_turns)(thirds, size * part, 3 - size % 3, second, third);
            sums[part] = OP(add_epi64)(sums[part], OP(sad_epu8)(mixed, zero));
        }
    }
    for (int part = 0; part < 3; part++) {
        uint64_t words[sizeof(V) / 8];
        STORE(words, sums[part]);
        for (size_t word = 0; word < sizeof(V) / 8; word++) sum[part] += words[word];
    }
    sums_plain(in + i, count - i, sum);
}

TARGET static void LANES(extremes)(const uint8_t *in, ptrdiff_t count, uint8_t *low, uint8_t *high) {
    enum { SIZE = sizeof(V), VECTORS = HW_PERIOD / SIZE };
    if (count < HW_PERIOD) {
        extremes_plain(in, count, low, high);
        return;
    }
    V least[VECTORS], most[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        least[v] = LOAD(low + SIZE * v);
        most[v] = LOAD(high + SIZE * v);
    }
    for (ptrdiff_t i = 0; i < count; i += HW_PERIOD) {
        /* Counts some twice, at equivalent positions: pixels have three bytes, and on a plane all positions
         * are equal. */
        const uint8_t *place = in + (i + HW_PERIOD <= count ? i : count - HW_PERIOD);
        for (int v = 0; v < VECTORS; v++) {
            const V values = LOAD(place + SIZE * v);
            least[v] = OP(min_epu8)(least[v], values);
            most[v] = OP(max_epu8)(most[v], values);
        }
    }
    for (int v = 0; v < VECTORS; v++) {
        STORE(low + SIZE * v, least[v]);
        STORE(high + SIZE * v, most[v]);
    }
}

/* ---- gray and saturation; planes have room for whole groups of pixels ---- */

TARGET ALWAYS_INLINE V LANES(two_bytes)(int first, int second) {
    return OP(set1_epi16)((short)((first & 255) | second * 256));
}

/* In 16 bits: the carry from the lower to the upper sums drops only bits that the shift drops. */
TARGET ALWAYS_INLINE V LANES(gray_wide)(V red_green, V blue_zero) {
    const V upper = OP(add_epi16)(OP(maddubs_epi16)(red_green, LANES(two_bytes)(UPPER(RED), UPPER(GREEN))),
                                  OP(maddubs_epi16)(blue_zero, LANES(two_bytes)(UPPER(BLUE), 0)));
    const V lower = OP(add_epi16)(OP(maddubs_epi16)(red_green, LANES(two_bytes)(LOWER(RED), LOWER(GREEN))),
                                  OP(maddubs_epi16)(blue_zero, LANES(two_bytes)(LOWER(BLUE), 0)));
    /* In 1 / 128, halves up. */
    return OP(mulhrs_epi16)(OP(add_epi16)(upper, OP(srai_epi16)(lower, 8)), OP(set1_epi16)(256));
}

TARGET ALWAYS_INLINE void LANES(gray_of)(V red, V green, V blue, V gray[2]) {
    const V zero = OP(set1_epi8)(0);
    gray[0] = LANES(gray_wide)(OP(unpacklo_epi8)(red, green), OP(unpacklo_epi8)(blue, zero));
    gray[1] = LANES(gray_wide)(OP(unpackhi_epi8)(red, green), OP(unpackhi_epi8)(blue, zero));
}

TARGET static void LANES(gray)(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                               ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += sizeof(V)) {
        V gray[2];
        LANES(gray_of)(LOAD(red + i), LOAD(green + i), LOAD(blue + i), gray);
        const V found = OP(packus_epi16)(gray[0], gray[1]);
        STORE(red + i, found);
        STORE(green + i, found);
        STORE(blue + i, found);
    }
}

/* Moves away from gray, or towards it: `words` are the gray of lower and upper bytes. */
TARGET ALWAYS_INLINE V LANES(away)(V values, V gray, const V words[2], V scale, V part) {
    const V low = OP(maddubs_epi16)(OP(unpacklo_epi8)(values, gray), scale);
    const V high = OP(maddubs_epi16)(OP(unpackhi_epi8)(values, gray), scale);
    return OP(packus_epi16)(OP(adds_epi16)(words[0], OP(mulhrs_epi16)(low, part)),
                            OP(adds_epi16)(words[1], OP(mulhrs_epi16)(high, part)));
}

TARGET static void LANES(saturate)(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                                   ptrdiff_t count, hw_factor factor) {
    if (factor.scale > 127) {
        /* Not a signed byte. */
        saturate_plain(red, green, blue, count, factor);
        return;
    }
    const V scale = LANES(two_bytes)(factor.scale, -factor.scale), part = OP(set1_epi16)(factor.factor);
    for (ptrdiff_t i = 0; i < count; i += sizeof(V)) {
        uint8_t *places[3] = {red + i, green + i, blue + i};
        V values[3], gray[2];
        for (int channel = 0; channel < 3; channel++) values[channel] = LOAD(places[channel]);
        LANES(gray_of)(values[0], values[1], values[2], gray);
        const V base = OP(packus_epi16)(gray[0], gray[1]);
        for (int channel = 0; channel < 3; channel++)
            STORE(places[channel], LANES(away)(values[channel], base, gray, scale, part));
    }
}

/* ---- lines ---- */

/* A line for vectors: the offset excludes the half; multiplying by `unit` shifts and rounds. */
typedef struct {
    V factor, offset, unit;
} LANES(vector_line);

TARGET ALWAYS_INLINE LANES(vector_line) LANES(vector_line_of)(hw_line line) {
    return (LANES(vector_line)){OP(set1_epi16)(line.factor),
                                OP(set1_epi16)((int16_t)(line.offset - (1 << (line.shift - 1)))),
                                OP(set1_epi16)((int16_t)(1 << (15 - line.shift)))};
}

TARGET ALWAYS_INLINE V LANES(wide_on_line)(V values, LANES(vector_line) line, int multiple) {
    const V product = OP(mulhrs_epi16)(OP(slli_epi16)(values, 7), line.factor);
    return OP(mulhrs_epi16)(multiple ? product : OP(add_epi16)(product, line.offset), line.unit);
}

TARGET ALWAYS_INLINE V LANES(on_line)(V values, LANES(vector_line) line, int multiple) {
    const V zero = OP(set1_epi8)(0);
    return OP(packus_epi16)(LANES(wide_on_line)(OP(unpacklo_epi8)(values, zero), line, multiple),
                            LANES(wide_on_line)(OP(unpackhi_epi8)(values, zero), line, multiple));
}

TARGET static void LANES(line)(const uint8_t *in, uint8_t *out, ptrdiff_t count, hw_line line) {
    const LANES(vector_line) vectors = LANES(vector_line_of)(line);
    const ptrdiff_t step = sizeof(V);
    ptrdiff_t i = 0;
    for (; i + step <= count; i += step) STORE(out + i, LANES(on_line)(LOAD(in + i), vectors, 0));
    line_plain(in + i, out + i, count - i, line);
}

/* ---- interleaved pixels ---- */

/* Gray three times, in the order of the pixels' bytes. */
TARGET ALWAYS_INLINE void LANES(gray_pixels_of)(const V thirds[3], V gray[3]) {
    V found[2];
    for (int half = 0; half < 2; half++) {
        V pairs[2];
        for (int pair = 0; pair < 2; pair++)
            pairs[pair] = OR(OP(shuffle_epi8)(thirds[half], LOAD_LANES(pair_masks[pair][half][0])),
                             OP(shuffle_epi8)(thirds[half + 1], LOAD_LANES(pair_masks[pair][half][1])));
        found[half] = LANES(gray_wide)(pairs[0], pairs[1]);
    }
    const V once = OP(packus_epi16)(found[0], found[1]);
    for (int part = 0; part < 3; part++) gray[part] = OP(shuffle_epi8)(once, LOAD_LANES(thrice_masks[part]));
}

TARGET static void LANES(gray_pixels)(const uint8_t *in, uint8_t *out, ptrdiff_t pixels) {
    const ptrdiff_t step = sizeof(V);
    ptrdiff_t i = 0;
    for (; i + step <= pixels; i += step) {
        V thirds[3], gray[3];
        LANES(load_pixels)(in + 3 * i, thirds);
        LANES(gray_pixels_of)(thirds, gray);
        for (int part = 0; part < 3; part++) LANES(store_apart)(out + 3 * i + 16 * part, gray[part]);
    }
    gray_pixels_plain(in + 3 * i, out + 3 * i, pixels - i);
}

/* `first`, if there is one, is applied on the way; whether it is a multiple. */
TARGET ALWAYS_INLINE ptrdiff_t LANES(saturate_groups)(const uint8_t *in, uint8_t *out, ptrdiff_t pixels,
                                                      hw_factor factor, const hw_line *first, int multiple) {
    const ptrdiff_t step = sizeof(V);
    const V zero = OP(set1_epi8)(0);
    const V scale = LANES(two_bytes)(factor.scale, -factor.scale), part = OP(set1_epi16)(factor.factor);
    const LANES(vector_line) vectors =
        first ? LANES(vector_line_of)(*first) : (LANES(vector_line)){zero, zero, zero};
    ptrdiff_t i = 0;
    for (; i + step <= pixels; i += step) {
        V thirds[3], gray[3];
        LANES(load_pixels)(in + 3 * i, thirds);
        for (int third = 0; third < 3 && first; third++)
            thirds[third] = LANES(on_line)(thirds[third], vectors, multiple);
        LANES(gray_pixels_of)(thirds, gray);
        for (int third = 0; third < 3; third++) {
            const V words[2] = {OP(unpacklo_epi8)(gray[third], zero), OP(unpackhi_epi8)(gray[third], zero)};
            LANES(store_apart)(out + 3 * i + 16 * third,
                               LANES(away)(thirds[third], gray[third], words, scale, part));
        }
    }
    return i;
}

TARGET static void LANES(saturate_pixels)(const uint8_t *in, uint8_t *out, ptrdiff_t pixels, hw_factor factor,
                                          const hw_line *first) {
    ptrdiff_t i = 0;
    /* Larger scales are not signed bytes. The differences are constants, so that each variant is compiled
     * separately. */
    if (factor.scale <= 127) {
        if (!first)
            i = LANES(saturate_groups)(in, out, pixels, factor, NULL, 0);
        else if (is_multiple(*first))
            i = LANES(saturate_groups)(in, out, pixels, factor, first, 1);
        else
            i = LANES(saturate_groups)(in, out, pixels, factor, first, 0);
    }
    saturate_pixels_plain(in + 3 * i, out + 3 * i, pixels - i, factor, first);
}

/* ---- stretching ---- */

TARGET static void LANES(stretch)(const uint8_t *in, uint8_t *out, ptrdiff_t count, const hw_spread *by) {
    enum { SIZE = sizeof(V), VECTORS = HW_PERIOD / SIZE };
    const V zero = OP(set1_epi8)(0), half = OP(set1_epi16)(128);
    V low[VECTORS], whole[VECTORS][2], part[VECTORS][2];
    ptrdiff_t first = 0;
    for (int v = 0; v < VECTORS; v++) {
        const V wholes = LOAD(by->whole + SIZE * v);
        const V upper = LOAD(by->upper + SIZE * v), lower = LOAD(by->lower + SIZE * v);
        low[v] = LOAD(by->low + SIZE * v);
        whole[v][0] = OP(unpacklo_epi8)(wholes, zero);
        whole[v][1] = OP(unpackhi_epi8)(wholes, zero);
        part[v][0] = OP(unpacklo_epi8)(lower, upper);
        part[v][1] = OP(unpackhi_epi8)(lower, upper);
    }
    for (; first + HW_PERIOD <= count; first += HW_PERIOD) {
        for (int v = 0; v < VECTORS; v++) {
            const V above = OP(subs_epu8)(LOAD(in + first + SIZE * v), low[v]);
            const V left = OP(unpacklo_epi8)(zero, above), right = OP(unpackhi_epi8)(zero, above);
            const V left_sum =
                OP(add_epi16)(OP(mulhi_epu16)(left, part[v][0]), OP(mullo_epi16)(left, whole[v][0]));
            const V right_sum =
                OP(add_epi16)(OP(mulhi_epu16)(right, part[v][1]), OP(mullo_epi16)(right, whole[v][1]));
            STORE(out + first + SIZE * v,
                  OP(packus_epi16)(OP(srli_epi16)(OP(add_epi16)(left_sum, half), 8),
                                   OP(srli_epi16)(OP(add_epi16)(right_sum, half), 8)));
        }
    }
    stretch_plain(in + first, out + first, count - first, by);
}

/* ---- hues ---- */

/* `range` times the part of a channel, by the distance of the hues from `middle`. */
TARGET ALWAYS_INLINE V LANES(near)(V range, V hue, int middle) {
    const V away = OP(abs_epi16)(OP(sub_epi16)(hue, OP(set1_epi16)((short)middle)));
    const V part = OP(subs_epu16)(OP(set1_epi16)(2 * HW_SEXTANT), away);
    return OP(mulhrs_epi16)(range, OP(min_epi16)(part, OP(set1_epi16)(HW_SEXTANT)));
}

TARGET ALWAYS_INLINE V LANES(far)(V range, V hue, int middle) {
    const V away = OP(abs_epi16)(OP(sub_epi16)(hue, OP(set1_epi16)((short)middle)));
    const V part = OP(subs_epu16)(away, OP(set1_epi16)(HW_SEXTANT));
    return OP(mulhrs_epi16)(range, OP(min_epi16)(part, OP(set1_epi16)(HW_SEXTANT)));
}

/* Rounds to the nearest: as divisors are below 2 * HW_SEXTANT, there are no ties. */
TARGET ALWAYS_INLINE V LANES(quotient)(V above, V below) {
    return OP(cvtps_epi32)(OP(div_ps)(OP(cvtepi32_ps)(above), OP(cvtepi32_ps)(below)));
}

TARGET static void LANES(turn)(uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue,
                               ptrdiff_t count, uint16_t turn) {
    /* Sides are -1 to 1 here, and 0 to 2 in `turn`. */
    const int more = turn < HW_SEXTANT ? turn + HW_CIRCLE : turn;
    const V zero = OP(set1_epi8)(0), eight = OP(set1_epi16)(8);
    /* As starts are multiples of 256, only the upper bytes of their sums with `more` differ. */
    const V rest = OP(set1_epi8)((char)(more & 255));
    const V starts[3] = {OP(set1_epi8)((char)(more >> 8)),
                         OP(set1_epi8)((char)((more + 2 * HW_SEXTANT) >> 8)),
                         OP(set1_epi8)((char)((more + 4 * HW_SEXTANT) >> 8))};
    for (ptrdiff_t i = 0; i < count; i += sizeof(V)) {
        const V r = LOAD(red + i), g = LOAD(green + i), b = LOAD(blue + i);
        const V high = OP(max_epu8)(OP(max_epu8)(r, g), b), low = OP(min_epu8)(OP(min_epu8)(r, g), b);
        const V range = OP(sub_epi8)(high, low);
        const V is_red = OP(cmpeq_epi8)(r, high), is_green = OP(cmpeq_epi8)(g, high);
        const V next = OP(blendv_epi8)(OP(blendv_epi8)(r, b, is_green), g, is_red);
        const V last = OP(blendv_epi8)(OP(blendv_epi8)(g, r, is_green), b, is_red);
        const V start = OP(blendv_epi8)(OP(blendv_epi8)(starts[2], starts[1], is_green), starts[0], is_red);
        V reds[2], greens[2], blues[2];
        for (int half = 0; half < 2; half++) {
            const V pair = half ? OP(unpackhi_epi8)(next, last) : OP(unpacklo_epi8)(next, last);
            const V side = OP(maddubs_epi16)(pair, LANES(two_bytes)(8, -8));
            const V wide = half ? OP(unpackhi_epi8)(range, zero) : OP(unpacklo_epi8)(range, zero);
            const V eightfold = OP(slli_epi16)(wide, 3);
            /* 2**19 sides over 2**7 ranges: the part of a sextant. */
            const V divisor = OP(slli_epi16)(OP(max_epi16)(eightfold, eight), 4);
            const V part = OP(packs_epi32)(
                LANES(quotient)(OP(unpacklo_epi16)(zero, side), OP(unpacklo_epi16)(divisor, zero)),
                LANES(quotient)(OP(unpackhi_epi16)(zero, side), OP(unpackhi_epi16)(divisor, zero)));
            V hue = half ? OP(unpackhi_epi8)(rest, start) : OP(unpacklo_epi8)(rest, start);
            hue = OP(add_epi16)(hue, part);
            /* Below a circle, the difference is larger as an unsigned number. */
            hue = OP(min_epu16)(hue, OP(sub_epi16)(hue, OP(set1_epi16)(HW_CIRCLE)));
            reds[half] = LANES(far)(eightfold, hue, 3 * HW_SEXTANT);
            greens[half] = LANES(near)(eightfold, hue, 2 * HW_SEXTANT);
            blues[half] = LANES(near)(eightfold, hue, 4 * HW_SEXTANT);
        }
        STORE(red + i, OP(add_epi8)(low, OP(packus_epi16)(reds[0], reds[1])));
        STORE(green + i, OP(add_epi8)(low, OP(packus_epi16)(greens[0], greens[1])));
        STORE(blue + i, OP(add_epi8)(low, OP(packus_epi16)(blues[0], blues[1])));
    }
}
