/* Filters in lanes of 128 bits, see lanes.h and filters.c. */

TARGET static void LANES(sharpen)(const uint8_t *above, const uint8_t *row, const uint8_t *below,
                                  ptrdiff_t length, ptrdiff_t channels, hw_factor factor, uint16_t *sums,
                                  uint8_t *out) {
    const V scale = OP(set1_epi16)(factor.scale), part = OP(set1_epi16)(factor.factor);
    const ptrdiff_t end = length - channels, step = sizeof(V) / 2;
    if (end - channels < step) {
        sharpen_row(above, row, below, length, channels, factor, sums, out);
        return;
    }
    for (ptrdiff_t i = 0; i < length; i += step) {
        if (i > length - step) i = length - step;
        V sum = LANES(load_wide)(above + i);
        sum = OP(add_epi16)(sum, LANES(load_wide)(row + i));
        sum = OP(add_epi16)(sum, LANES(load_wide)(below + i));
        STORE(sums + i, sum);
    }
    for (ptrdiff_t i = channels; i < end; i += step) {
        /* The last vector is moved back to end with the row. */
        if (i > end - step) i = end - step;
        const V value = LANES(load_wide)(row + i);
        V sum = OP(add_epi16)(LOAD(sums + i - channels), LOAD(sums + i + channels));
        sum = OP(add_epi16)(sum, LOAD(sums + i));
        sum = OP(add_epi16)(sum, OP(add_epi16)(OP(slli_epi16)(value, 2), OP(set1_epi16)(6)));
        const V smooth = OP(mulhi_epu16)(sum, OP(set1_epi16)(5042));
        const V away = OP(mullo_epi16)(OP(sub_epi16)(value, smooth), scale);
        LANES(store_narrow)(out + i, OP(adds_epi16)(smooth, OP(mulhrs_epi16)(away, part)));
    }
    memcpy(out, row, (size_t)channels);
    memcpy(out + end, row + end, (size_t)channels);
}

TARGET static void LANES(rows)(const uint8_t *const *rows, const int16_t *weights, ptrdiff_t reach,
                               ptrdiff_t length, int16_t *out) {
    const ptrdiff_t step = sizeof(V), half = step / 2;
    ptrdiff_t i = 0;
    for (; i + step <= length; i += step) {
        V sum[2];
        for (int v = 0; v < 2; v++) {
            const V middle = LANES(load_wide)(rows[reach] + i + half * v);
            sum[v] = OP(mulhrs_epi16)(OP(slli_epi16)(middle, 6), OP(set1_epi16)(weights[0]));
        }
        for (ptrdiff_t k = 1; k <= reach; k++) {
            const V weight = OP(set1_epi16)(weights[k]);
            const uint8_t *up = rows[reach - k] + i, *down = rows[reach + k] + i;
            for (int v = 0; v < 2; v++) {
                const V both =
                    OP(add_epi16)(LANES(load_wide)(up + half * v), LANES(load_wide)(down + half * v));
                sum[v] = OP(add_epi16)(sum[v], OP(mulhrs_epi16)(OP(slli_epi16)(both, 6), weight));
            }
        }
        for (int v = 0; v < 2; v++) STORE(out + i + half * v, sum[v]);
    }
    blur_rows(rows, weights, reach, i, length, out);
}

TARGET static void LANES(columns)(const int16_t *row, const int16_t *weights, ptrdiff_t reach,
                                  ptrdiff_t length, ptrdiff_t channels, uint8_t *out) {
    const ptrdiff_t step = sizeof(V), half = step / 2;
    ptrdiff_t i = 0;
    for (; i + step <= length; i += step) {
        V sum[2];
        for (int v = 0; v < 2; v++)
            sum[v] = OP(mulhrs_epi16)(LOAD(row + i + half * v), OP(set1_epi16)(weights[0]));
        for (ptrdiff_t k = 1; k <= reach; k++) {
            const V weight = OP(set1_epi16)(weights[k]);
            const int16_t *left = row + i - k * channels, *right = row + i + k * channels;
            for (int v = 0; v < 2; v++) {
                const V both = OP(add_epi16)(LOAD(left + half * v), LOAD(right + half * v));
                sum[v] = OP(add_epi16)(sum[v], OP(mulhrs_epi16)(both, weight));
            }
        }
        for (int v = 0; v < 2; v++) sum[v] = OP(srai_epi16)(OP(add_epi16)(sum[v], OP(set1_epi16)(32)), 6);
        STORE(out + i, LANES(narrow)(sum[0], sum[1]));
    }
    blur_columns(row, weights, reach, i, length, channels, out);
}
