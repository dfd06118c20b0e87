#include "resampler16.h"

#include <string.h>

/* Sums of so many columns stay in registers or the first-level cache. */
enum { COLUMNS = 32 };

static inline __attribute__((always_inline)) void combine_columns(const uint16_t *const *rows,
                                                                  const double *weights, int count,
                                                                  float *out, size_t at, size_t n) {
    double sums[COLUMNS] = {0.0};
    for (int k = 0; k < count; k++) {
        const double weight = weights[k];
        const uint16_t *row = rows[k] + at;
        if (weight == 0.0) continue;
        for (size_t i = 0; i < n; i++) sums[i] += (double)row[i] * weight;
    }
    for (size_t i = 0; i < n; i++) out[at + i] = (float)sums[i];
}

static inline __attribute__((always_inline)) void combine(const uint16_t *const *rows, const double *weights,
                                                          int count, float *out, size_t n) {
    size_t at = 0;
    for (; at + COLUMNS <= n; at += COLUMNS) combine_columns(rows, weights, count, out, at, COLUMNS);
    combine_columns(rows, weights, count, out, at, n - at);
}

#if HW_X86
__attribute__((target("avx2"))) static void combine_avx2(const uint16_t *const *rows, const double *weights,
                                                         int count, float *out, size_t n) {
    combine(rows, weights, count, out, n);
}
#endif

static void combine_rows(int simd, const uint16_t *const *rows, const double *weights, int count, float *out,
                         size_t n) {
#if HW_X86
    if (simd >= HW_AVX2) {
        combine_avx2(rows, weights, count, out, n);
        return;
    }
#endif
    combine(rows, weights, count, out, n);
}

static inline uint16_t to_number(double sum) {
    return sum <= 0.0 ? 0 : sum >= 65535.0 ? 65535 : (uint16_t)(sum + 0.5);
}

static inline __attribute__((always_inline)) void resample(const hw_axis *x, const float *row,
                                                           const int channels, uint16_t *out) {
    for (int i = 0; i < x->out_size; i++) {
        const float *in = row + (ptrdiff_t)(x->first[i] - x->lowest) * channels;
        const double *weights = x->exact + (size_t)i * (size_t)x->stride;
        for (int c = 0; c < channels; c++) {
            double sum = 0.0;
            for (int k = 0; k < x->taps; k++) sum += (double)in[k * channels + c] * weights[k];
            *out++ = to_number(sum);
        }
    }
}

void hw_resample_rows16(int simd, const hw_axis *x, const uint16_t *const *rows, const double *weights,
                        int count, int channels, float *combined, uint16_t *out) {
    while (count > 1 && weights[count - 1] == 0.0) count--;
    while (count > 1 && weights[0] == 0.0) rows++, weights++, count--;
    if (x->identity && count == 1) {
        memcpy(out, rows[0] + ((ptrdiff_t)x->begin - x->lowest) * channels,
               (size_t)x->out_size * (size_t)channels * sizeof *out);
        return;
    }
    combine_rows(simd, rows, weights, count, combined, (size_t)(x->highest - x->lowest) * (size_t)channels);
    if (channels == 3) /* with constants, the compiler unrolls the usual cases */
        resample(x, combined, 3, out);
    else if (channels == 1)
        resample(x, combined, 1, out);
    else
        resample(x, combined, channels, out);
}

int hw_resample_image16(int simd, const hw_axis *x, const hw_axis *y, const uint16_t *image,
                        ptrdiff_t row_stride, int channels, uint16_t *out, ptrdiff_t out_stride,
                        hw_buffer *work) {
    const size_t pointers = (size_t)y->taps * sizeof(uint16_t *);
    const size_t used = (size_t)(x->highest - x->lowest) * (size_t)channels;
    if (hw_buffer_reserve(work, pointers + used * sizeof(float))) return -1;
    const uint16_t **rows = (const uint16_t **)work->bytes;
    for (int i = 0; i < y->out_size; i++) {
        for (int k = 0; k < y->taps; k++)
            rows[k] = image + (ptrdiff_t)(y->first[i] + k) * row_stride + (ptrdiff_t)x->lowest * channels;
        hw_resample_rows16(simd, x, rows, y->exact + (size_t)i * (size_t)y->stride, y->taps, channels,
                           (float *)(work->bytes + pointers), out + (ptrdiff_t)i * out_stride);
    }
    return 0;
}
