#include "warper.h"

#include <assert.h>
#include <string.h>

#include "pixels.h"

#if HW_X86
#include <immintrin.h>
#define SSE4 __attribute__((target("sse4.1")))
#define AVX2 __attribute__((target("avx2,bmi2")))
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Positions are float64, each operation rounded. For bilinear sampling they are rounded to 1/65536 pixel;
   bytes are then weighted with whole numbers: upper and lower ones with DOWN - qy and qy, left and right ones
   with ACROSS - qx and qx. DOWN * ACROSS is close enough to 2**SHIFT to keep constant images unchanged, and
   the weights fit the instructions that multiply bytes and 16 bit numbers in pairs. */
enum { DOWN = 255, ACROSS = 16448, SHIFT = 22, FRACTION = 16 };

/* Source points of a row of the output, as functions of the column's center. */
typedef struct {
    double x_step, x_start, y_step, y_start, w_step, w_start;
    int affine; /* w is 1 */
} line;

/* A half plane in a row: visible where step * (column + .5) + start is at least 0, or above it. */
static int seen(double step, double start, int strict, ptrdiff_t column) {
    const double value = step * ((double)column + 0.5) + start;
    return strict ? value > 0 : value >= 0;
}

/* Removes invisible columns from `first` to `last`. Rounded products and sums are still monotonic, so
   visibility changes at most once. */
static void cut(double step, double start, int strict, ptrdiff_t *first, ptrdiff_t *last) {
    if (*first >= *last) return;
    const int left = seen(step, start, strict, *first), right = seen(step, start, strict, *last - 1);
    if (left == right) {
        if (!left) *last = *first;
        return;
    }
    ptrdiff_t low = *first, high = *last - 1; /* the answer at `low` is `left`, at `high` it is `right` */
    const double guess = -start / step - 0.5;
    if (guess > (double)low && guess < (double)high) {
        const ptrdiff_t near = (ptrdiff_t)guess;
        if (near > low && seen(step, start, strict, near) == left) low = near;
        if (near + 1 < high && seen(step, start, strict, near + 1) == right) high = near + 1;
    }
    while (high - low > 1) {
        const ptrdiff_t middle = low + (high - low) / 2;
        if (seen(step, start, strict, middle) == left)
            low = middle;
        else
            high = middle;
    }
    if (left)
        *last = high;
    else
        *first = high;
}

/* The source point of a column; clamped to `width` and `height` if rounding exceeds them. */
static void point(const line *row, ptrdiff_t column, double width, double height, double *x, double *y) {
    const double center = (double)column + 0.5;
    double across = row->x_step * center + row->x_start;
    double down = row->y_step * center + row->y_start;
    if (!row->affine) {
        const double part = 1 / (row->w_step * center + row->w_start);
        across *= part;
        down *= part;
    }
    *x = across < width ? across : width;
    *y = down < height ? down : height;
}

static void nearest_row(const hw_warp_source *image, const line *row, ptrdiff_t first, ptrdiff_t last,
                        uint8_t *out) {
    const ptrdiff_t size = image->channels * (image->real ? (ptrdiff_t)sizeof(float) : 1);
    const uint8_t *data = image->data;
    for (ptrdiff_t column = first; column < last; column++) {
        double x, y;
        point(row, column, (double)image->width, (double)image->height, &x, &y);
        ptrdiff_t across = (ptrdiff_t)x, down = (ptrdiff_t)y;
        across = across < image->width ? across : image->width - 1;
        down = down < image->height ? down : image->height - 1;
        memcpy(out + column * size, data + (down * image->width + across) * size, (size_t)size);
    }
}

/* The left or upper neighbor and, in 1/65536, how far the point is from its center. Points beyond the
   outermost centers are moved to those centers, which repeats the neighbors at the edge. */
static ptrdiff_t neighbor(double position, ptrdiff_t size, int32_t *fraction) {
    /* The sum has no room for bits below 1/65536: they are rounded. */
    const double magic = 6755399441055744.0 / (1 << FRACTION);
    const double sum = (position - 0.5) + magic;
    int64_t bits, origin, fixed;
    memcpy(&bits, &sum, sizeof bits);
    memcpy(&origin, &magic, sizeof origin);
    fixed = bits - origin;
    const int64_t most = (int64_t)(size - 1) << FRACTION;
    fixed = fixed < 0 ? 0 : fixed > most ? most : fixed;
    ptrdiff_t found = (ptrdiff_t)(fixed >> FRACTION);
    if (found > 0 && found == size - 1) found--;
    *fraction = (int32_t)(fixed - ((int64_t)found << FRACTION));
    return found;
}

/* `channels` is that of the image. */
ALWAYS_INLINE void bilinear_columns(const hw_warp_source *image, const line *row, ptrdiff_t first,
                                    ptrdiff_t last, void *out, ptrdiff_t channels, int real) {
    const ptrdiff_t stride = image->width * channels;
    const ptrdiff_t below = image->height > 1 ? stride : 0, beside = image->width > 1 ? channels : 0;
    for (ptrdiff_t column = first; column < last; column++) {
        double x, y;
        int32_t across, down;
        point(row, column, (double)image->width, (double)image->height, &x, &y);
        ptrdiff_t at = neighbor(x, image->width, &across) * channels;
        at += neighbor(y, image->height, &down) * stride;
        if (real) {
            const float *in = (const float *)image->data + at;
            float *pixel = (float *)out + column * channels;
            const float right = (float)across / 65536.0F, lower = (float)down / 65536.0F;
            for (ptrdiff_t c = 0; c < channels; c++) {
                const float top = in[c] + right * (in[c + beside] - in[c]);
                const float bottom = in[c + below] + right * (in[c + below + beside] - in[c + below]);
                pixel[c] = top + lower * (bottom - top);
            }
        } else {
            const uint8_t *in = (const uint8_t *)image->data + at;
            uint8_t *pixel = (uint8_t *)out + column * channels;
            const int32_t qx = (across * ACROSS + (1 << (FRACTION - 1))) >> FRACTION;
            const int32_t qy = (down * DOWN + (1 << (FRACTION - 1))) >> FRACTION;
            for (ptrdiff_t c = 0; c < channels; c++) {
                const int32_t left = (DOWN - qy) * in[c] + qy * in[c + below];
                const int32_t right = (DOWN - qy) * in[c + beside] + qy * in[c + below + beside];
                pixel[c] = (uint8_t)(((ACROSS - qx) * left + qx * right + (1 << (SHIFT - 1))) >> SHIFT);
            }
        }
    }
}

static void bilinear_row(const hw_warp_source *image, const line *row, ptrdiff_t first, ptrdiff_t last,
                         void *out) {
    const ptrdiff_t channels = image->channels;
    if (image->real && channels == 3)
        bilinear_columns(image, row, first, last, out, 3, 1);
    else if (image->real)
        bilinear_columns(image, row, first, last, out, channels, 1);
    else if (channels == 1)
        bilinear_columns(image, row, first, last, out, 1, 0);
    else if (channels == 3)
        bilinear_columns(image, row, first, last, out, 3, 0);
    else
        bilinear_columns(image, row, first, last, out, channels, 0);
}

#if HW_X86

/* Shuffle that takes bytes of up to four channels, eight from above and eight from below, to groups of four
   for each channel: above, below, right above and right below. */
SSE4 ALWAYS_INLINE __m128i by_channels(int channels) {
    int8_t order[16];
    for (int i = 0; i < 16; i++) {
        const int channel = i >> 2, place = (i & 1) * 8 + (i >> 1 & 1) * channels + channel;
        order[i] = (int8_t)(channel < channels ? place : -1);
    }
    return _mm_loadu_si128((const __m128i *)order);
}

/* Columns of bytes, two to four channels; width and height are 2 or more. */
SSE4 static void bilinear_sse4(const hw_warp_source *image, const line *row, ptrdiff_t first, ptrdiff_t last,
                               uint8_t *out) {
    const uint8_t *data = image->data;
    const ptrdiff_t channels = image->channels, stride = image->width * channels;
    const __m128i order = by_channels((int)channels);
    /* See `between_avx2`. */
    const __m128i more = _mm_set1_epi32(128 * DOWN * ACROSS + (1 << (SHIFT - 1)));
    for (ptrdiff_t column = first; column < last; column++) {
        double x, y;
        int32_t across, down;
        point(row, column, (double)image->width, (double)image->height, &x, &y);
        ptrdiff_t at = neighbor(x, image->width, &across) * channels;
        at += neighbor(y, image->height, &down) * stride;
        if (at > (image->height - 1) * stride - 8) {
            bilinear_row(image, row, column, column + 1, out);
            continue;
        }
        const int32_t qx = (across * ACROSS + (1 << (FRACTION - 1))) >> FRACTION;
        const int32_t qy = (down * DOWN + (1 << (FRACTION - 1))) >> FRACTION;
        const __m128i upper = _mm_loadl_epi64((const __m128i *)(const void *)(data + at));
        const __m128i lower = _mm_loadl_epi64((const __m128i *)(const void *)(data + at + stride));
        __m128i value = _mm_shuffle_epi8(_mm_unpacklo_epi64(upper, lower), order);
        value = _mm_xor_si128(value, _mm_set1_epi8(-128));
        value = _mm_maddubs_epi16(_mm_set1_epi16((int16_t)(DOWN - qy + qy * 256)), value);
        value = _mm_madd_epi16(value, _mm_set1_epi32(ACROSS - qx + qx * 65536));
        value = _mm_srai_epi32(_mm_add_epi32(value, more), SHIFT);
        value = _mm_packs_epi32(value, value);
        const int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(value, value));
        /* The next column overwrites the excess bytes. */
        const int whole = column + 1 < last && channels > 2;
        memcpy(out + column * channels, &bytes, whole ? sizeof bytes : (size_t)channels);
    }
}

/* Eight columns at once. Positions are those of `point` and `neighbor`, as 16.16 bits: sizes are 2 to 32767,
   and invisible pixels still get a position inside the image. */
typedef struct {
    __m256i offsets;      /* of the upper left tap, in values */
    __m256i across, down; /* how far from its center, in 1/65536 */
} taps;

/* Source points of columns 0, 1, 4, 5 and 2, 3, 6, 7 from `column` on. */
AVX2 ALWAYS_INLINE void points_avx2(const line *row, ptrdiff_t column, __m256d width, __m256d height,
                                    __m256d x[2], __m256d y[2]) {
    const __m256d first = _mm256_set1_pd((double)column + 0.5);
    const __m256d centers[2] = {_mm256_add_pd(first, _mm256_setr_pd(0, 1, 4, 5)),
                                _mm256_add_pd(first, _mm256_setr_pd(2, 3, 6, 7))};
    for (int i = 0; i < 2; i++) {
        x[i] = _mm256_add_pd(_mm256_mul_pd(_mm256_set1_pd(row->x_step), centers[i]),
                             _mm256_set1_pd(row->x_start));
        y[i] = _mm256_add_pd(_mm256_mul_pd(_mm256_set1_pd(row->y_step), centers[i]),
                             _mm256_set1_pd(row->y_start));
        if (!row->affine) {
            const __m256d w = _mm256_add_pd(_mm256_mul_pd(_mm256_set1_pd(row->w_step), centers[i]),
                                            _mm256_set1_pd(row->w_start));
            const __m256d part = _mm256_div_pd(_mm256_set1_pd(1), w);
            x[i] = _mm256_mul_pd(x[i], part);
            y[i] = _mm256_mul_pd(y[i], part);
        }
        x[i] = _mm256_min_pd(x[i], width);
        y[i] = _mm256_min_pd(y[i], height);
    }
}

AVX2 ALWAYS_INLINE __m256i neighbors_avx2(const __m256d positions[2], __m256i last, __m256i *fractions) {
    const __m256d magic = _mm256_set1_pd(6755399441055744.0 / (1 << FRACTION)), half = _mm256_set1_pd(0.5);
    const __m256d low = _mm256_add_pd(_mm256_sub_pd(positions[0], half), magic);
    const __m256d high = _mm256_add_pd(_mm256_sub_pd(positions[1], half), magic);
    /* The lower half of each number's bits, in the order of columns. */
    __m256i fixed = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high), _MM_SHUFFLE(2, 0, 2, 0)));
    fixed = _mm256_max_epi32(fixed, _mm256_setzero_si256());
    fixed = _mm256_min_epi32(fixed, _mm256_slli_epi32(last, FRACTION));
    const __m256i before = _mm256_sub_epi32(last, _mm256_set1_epi32(1));
    const __m256i found = _mm256_min_epi32(_mm256_srli_epi32(fixed, FRACTION), before);
    *fractions = _mm256_sub_epi32(fixed, _mm256_slli_epi32(found, FRACTION));
    return found;
}

AVX2 ALWAYS_INLINE taps taps_avx2(const line *row, ptrdiff_t column, const hw_warp_source *image) {
    const __m256d width = _mm256_set1_pd((double)image->width);
    const __m256d height = _mm256_set1_pd((double)image->height);
    __m256d x[2], y[2];
    taps found;
    points_avx2(row, column, width, height, x, y);
    const __m256i left = neighbors_avx2(x, _mm256_set1_epi32((int)image->width - 1), &found.across);
    const __m256i upper = neighbors_avx2(y, _mm256_set1_epi32((int)image->height - 1), &found.down);
    const __m256i rows = _mm256_mullo_epi32(upper, _mm256_set1_epi32((int)image->width));
    found.offsets = _mm256_mullo_epi32(_mm256_add_epi32(rows, left), _mm256_set1_epi32((int)image->channels));
    return found;
}

/* Pairs of int16_t, weights on the left and on the right: ACROSS - q and q * 65536. */
AVX2 ALWAYS_INLINE __m256i across_avx2(__m256i fractions) {
    __m256i q = _mm256_mullo_epi32(fractions, _mm256_set1_epi32(ACROSS));
    q = _mm256_srli_epi32(_mm256_add_epi32(q, _mm256_set1_epi32(1 << (FRACTION - 1))), FRACTION);
    return _mm256_add_epi32(_mm256_set1_epi32(ACROSS), _mm256_sub_epi32(_mm256_slli_epi32(q, 16), q));
}

/* Pairs of uint8_t, twice: weights above and below. */
AVX2 ALWAYS_INLINE __m256i down_avx2(__m256i fractions) {
    __m256i q = _mm256_sub_epi32(_mm256_slli_epi32(fractions, 8), fractions);
    q = _mm256_srli_epi32(_mm256_add_epi32(q, _mm256_set1_epi32(1 << (FRACTION - 1))), FRACTION);
    q = _mm256_add_epi32(_mm256_set1_epi32(DOWN), _mm256_sub_epi32(_mm256_slli_epi32(q, 8), q));
    return _mm256_or_si256(q, _mm256_slli_epi32(q, 16));
}

/* Interpolates bytes above, below, right above and right below, as 32 bits. */
AVX2 ALWAYS_INLINE __m256i between_avx2(__m256i bytes, __m256i down, __m256i across) {
    /* One factor must be signed: 128 is subtracted from bytes, and the sum corrected. */
    const int less = 128 * DOWN * ACROSS;
    bytes = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    const __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(down, bytes), across);
    return _mm256_srai_epi32(_mm256_add_epi32(sums, _mm256_set1_epi32(less + (1 << (SHIFT - 1)))), SHIFT);
}

/* Two pixels, of columns `i` and `i + 4`: up to four channels in each half. */
AVX2 ALWAYS_INLINE __m256i pair_avx2(const uint8_t *data, const int32_t *offsets, ptrdiff_t stride, int i,
                                     __m256i order, __m256i down, __m256i across) {
    const uint8_t *one = data + offsets[i], *other = data + offsets[i + 4];
    __m128d low = _mm_castsi128_pd(_mm_loadl_epi64((const __m128i *)(const void *)one));
    __m128d high = _mm_castsi128_pd(_mm_loadl_epi64((const __m128i *)(const void *)other));
    low = _mm_loadh_pd(low, (const double *)(const void *)(one + stride));
    high = _mm_loadh_pd(high, (const double *)(const void *)(other + stride));
    const __m256i both = _mm256_castpd_si256(_mm256_insertf128_pd(_mm256_castpd128_pd256(low), high, 1));
    return between_avx2(_mm256_shuffle_epi8(both, order), down, across);
}

/* Columns of bytes, up to four channels; for the few remaining columns; reads 8 bytes at each tap. */
AVX2 ALWAYS_INLINE void bilinear_avx2(const hw_warp_source *image, const line *row, ptrdiff_t first,
                                      ptrdiff_t last, uint8_t *out, int channels) {
    const uint8_t *data = image->data;
    const ptrdiff_t stride = image->width * channels;
    const int reach = channels == 1 ? 4 : 8;
    const __m256i limit = _mm256_set1_epi32((int)((image->height - 1) * stride - reach));
    int8_t packed[16];
    for (int i = 0; i < 16; i++)
        packed[i] = (int8_t)(i < 4 * channels ? i / channels * 4 + i % channels : -1);
    const __m256i orders = _mm256_broadcastsi128_si256(by_channels(channels));
    const __m256i packing = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)packed));
    const __m256i single =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
    for (ptrdiff_t column = first; column < last; column += 8) {
        taps at = taps_avx2(row, column, image);
        const ptrdiff_t count = last - column < 8 ? last - column : 8;
        if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(at.offsets, limit))) {
            /* At the end of the image: loads would read beyond it. */
            bilinear_row(image, row, column, column + count, out);
            continue;
        }
        at.across = across_avx2(at.across);
        at.down = down_avx2(at.down);
        uint8_t *pixels = out + column * channels;
        if (channels == 1) {
            const __m256i upper = _mm256_i32gather_epi32((const int *)(const void *)data, at.offsets, 1);
            const __m256i lower =
                _mm256_i32gather_epi32((const int *)(const void *)(data + stride), at.offsets, 1);
            const __m256i four = _mm256_blend_epi16(upper, _mm256_slli_epi32(lower, 16), 0xaa);
            const __m256i values = between_avx2(_mm256_shuffle_epi8(four, single), at.down, at.across);
            const __m128i words =
                _mm_packs_epi32(_mm256_castsi256_si128(values), _mm256_extracti128_si256(values, 1));
            const __m128i bytes = _mm_packus_epi16(words, words);
            if (count == 8) {
                _mm_storel_epi64((__m128i *)pixels, bytes);
            } else {
                uint8_t all[8];
                _mm_storel_epi64((__m128i *)all, bytes);
                memcpy(pixels, all, (size_t)count);
            }
            continue;
        }
        int32_t offsets[8];
        _mm256_storeu_si256((__m256i *)offsets, at.offsets);
        __m256i values[4];
        values[0] = pair_avx2(data, offsets, stride, 0, orders, _mm256_shuffle_epi32(at.down, 0x00),
                              _mm256_shuffle_epi32(at.across, 0x00));
        values[1] = pair_avx2(data, offsets, stride, 1, orders, _mm256_shuffle_epi32(at.down, 0x55),
                              _mm256_shuffle_epi32(at.across, 0x55));
        values[2] = pair_avx2(data, offsets, stride, 2, orders, _mm256_shuffle_epi32(at.down, 0xaa),
                              _mm256_shuffle_epi32(at.across, 0xaa));
        values[3] = pair_avx2(data, offsets, stride, 3, orders, _mm256_shuffle_epi32(at.down, 0xff),
                              _mm256_shuffle_epi32(at.across, 0xff));
        __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(values[0], values[1]),
                                            _mm256_packs_epi32(values[2], values[3]));
        bytes = _mm256_shuffle_epi8(bytes, packing);
        const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
        if ((last - column) * channels >= 4 * channels + 16) {
            /* More columns follow the eight. */
            _mm_storeu_si128((__m128i *)pixels, low);
            _mm_storeu_si128((__m128i *)(pixels + (ptrdiff_t)4 * channels), high);
        } else {
            uint8_t all[32];
            _mm_storeu_si128((__m128i *)all, low);
            _mm_storeu_si128((__m128i *)(all + (ptrdiff_t)4 * channels), high);
            memcpy(pixels, all, (size_t)(count * channels));
        }
    }
}

AVX2 static void bilinear_bytes_avx2(const hw_warp_source *image, const line *row, ptrdiff_t first,
                                     ptrdiff_t last, uint8_t *out) {
    switch (image->channels) {
    case 1: bilinear_avx2(image, row, first, last, out, 1); break;
    case 2: bilinear_avx2(image, row, first, last, out, 2); break;
    case 3: bilinear_avx2(image, row, first, last, out, 3); break;
    default: bilinear_avx2(image, row, first, last, out, 4); break;
    }
}

/* Columns of floats, three or four channels. */
AVX2 ALWAYS_INLINE void bilinear_floats_avx2(const hw_warp_source *image, const line *row, ptrdiff_t first,
                                             ptrdiff_t last, float *out, ptrdiff_t channels) {
    const ptrdiff_t stride = image->width * channels;
    const __m256i limit = _mm256_set1_epi32((int)((image->height - 1) * stride - channels - 4));
    const __m256 unit = _mm256_set1_ps(1.0F / 65536.0F);
    for (ptrdiff_t column = first; column < last; column += 8) {
        const taps at = taps_avx2(row, column, image);
        const ptrdiff_t count = last - column < 8 ? last - column : 8;
        if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(at.offsets, limit))) {
            bilinear_row(image, row, column, column + count, out);
            continue;
        }
        int32_t offsets[8];
        float across[8], down[8];
        _mm256_storeu_si256((__m256i *)offsets, at.offsets);
        _mm256_storeu_ps(across, _mm256_mul_ps(_mm256_cvtepi32_ps(at.across), unit));
        _mm256_storeu_ps(down, _mm256_mul_ps(_mm256_cvtepi32_ps(at.down), unit));
        for (ptrdiff_t i = 0; i < count; i++) {
            const float *upper = (const float *)image->data + offsets[i], *lower = upper + stride;
            const __m128 right = _mm_set1_ps(across[i]);
            const __m128 left_top = _mm_loadu_ps(upper), left_bottom = _mm_loadu_ps(lower);
            const __m128 top =
                _mm_add_ps(left_top, _mm_mul_ps(right, _mm_sub_ps(_mm_loadu_ps(upper + channels), left_top)));
            const __m128 bottom = _mm_add_ps(
                left_bottom, _mm_mul_ps(right, _mm_sub_ps(_mm_loadu_ps(lower + channels), left_bottom)));
            const __m128 value = _mm_add_ps(top, _mm_mul_ps(_mm_set1_ps(down[i]), _mm_sub_ps(bottom, top)));
            float *pixel = out + (column + i) * channels;
            if (channels == 4 || column + i + 1 < last) {
                /* The next column overwrites the fourth of three values. */
                _mm_storeu_ps(pixel, value);
            } else {
                float all[4];
                _mm_storeu_ps(all, value);
                memcpy(pixel, all, 3 * sizeof(float));
            }
        }
    }
}

AVX2 static void bilinear_reals_avx2(const hw_warp_source *image, const line *row, ptrdiff_t first,
                                     ptrdiff_t last, float *out) {
    if (image->channels == 3)
        bilinear_floats_avx2(image, row, first, last, out, 3);
    else
        bilinear_floats_avx2(image, row, first, last, out, 4);
}

AVX2 ALWAYS_INLINE void nearest_avx2(const hw_warp_source *image, const line *row, ptrdiff_t first,
                                     ptrdiff_t last, uint8_t *out, ptrdiff_t size) {
    const uint8_t *data = image->data;
    const __m256d width = _mm256_set1_pd((double)image->width);
    const __m256d height = _mm256_set1_pd((double)image->height);
    const __m256i zero = _mm256_setzero_si256();
    for (ptrdiff_t column = first; column < last; column += 8) {
        const ptrdiff_t count = last - column < 8 ? last - column : 8;
        __m256d x[2], y[2];
        int32_t at[8];
        points_avx2(row, column, width, height, x, y);
        __m256i across = _mm256_set_m128i(_mm256_cvttpd_epi32(x[1]), _mm256_cvttpd_epi32(x[0]));
        __m256i down = _mm256_set_m128i(_mm256_cvttpd_epi32(y[1]), _mm256_cvttpd_epi32(y[0]));
        across = _mm256_min_epi32(_mm256_max_epi32(across, zero), _mm256_set1_epi32((int)image->width - 1));
        down = _mm256_min_epi32(_mm256_max_epi32(down, zero), _mm256_set1_epi32((int)image->height - 1));
        down = _mm256_mullo_epi32(down, _mm256_set1_epi32((int)image->width));
        /* In the order of columns. */
        _mm256_storeu_si256(
            (__m256i *)at, _mm256_permute4x64_epi64(_mm256_add_epi32(down, across), _MM_SHUFFLE(3, 1, 2, 0)));
        uint8_t *pixels = out + column * size;
        if (count == 8)
            for (int i = 0; i < 8; i++) memcpy(pixels + i * size, data + at[i] * size, (size_t)size);
        else
            for (int i = 0; i < count; i++) memcpy(pixels + i * size, data + at[i] * size, (size_t)size);
    }
}

AVX2 static void nearest_pixels_avx2(const hw_warp_source *image, const line *row, ptrdiff_t first,
                                     ptrdiff_t last, uint8_t *out, ptrdiff_t size) {
    switch (size) {
    case 1: nearest_avx2(image, row, first, last, out, 1); break;
    case 2: nearest_avx2(image, row, first, last, out, 2); break;
    case 3: nearest_avx2(image, row, first, last, out, 3); break;
    case 4: nearest_avx2(image, row, first, last, out, 4); break;
    case 12: nearest_avx2(image, row, first, last, out, 12); break;
    default: nearest_avx2(image, row, first, last, out, size); break;
    }
}

#endif

/* Samples a row with the best variant for it. */
static void sample_row(int simd, const hw_warp_source *image, const line *row, ptrdiff_t first,
                       ptrdiff_t last, int interpolation, void *out) {
    const ptrdiff_t size = image->channels * (image->real ? (ptrdiff_t)sizeof(float) : 1);
#if HW_X86
    const int small = image->width <= 32767 && image->height <= 32767 &&
                      image->width * image->height <= INT32_MAX / (image->channels + 1);
    if (simd >= HW_AVX2 && small && interpolation == HW_NEAREST) {
        nearest_pixels_avx2(image, row, first, last, out, size);
        return;
    }
    if (simd == HW_SSE4 && interpolation == HW_BILINEAR && !image->real && image->channels >= 2 &&
        image->channels <= 4 && image->width > 1 && image->height > 1) {
        bilinear_sse4(image, row, first, last, out);
        return;
    }
    if (simd >= HW_AVX2 && small && image->channels <= 4 && image->width > 1 && image->height > 1) {
        if (!image->real) {
            bilinear_bytes_avx2(image, row, first, last, out);
            return;
        }
        if (image->channels >= 3) {
            bilinear_reals_avx2(image, row, first, last, out);
            return;
        }
    }
#endif
    if (interpolation == HW_NEAREST)
        nearest_row(image, row, first, last, out);
    else
        bilinear_row(image, row, first, last, out);
}

/* Loads a part of the next image into the cache: its pixels are read in an order that the CPU does not
   predict. Loads instead of prefetches, since consecutive loads trigger hardware prefetching. */
static void fetch(const hw_warp_source *image, ptrdiff_t size, ptrdiff_t row, ptrdiff_t rows) {
    enum { LINE = 64, MOST = 1 << 20 };
    const ptrdiff_t bytes = image->height * image->width * size;
    if (image->next == NULL || bytes > MOST) return;
    const volatile char *next = image->next;
    for (ptrdiff_t i = bytes * row / rows / LINE; i < bytes * (row + 1) / rows / LINE; i++)
        (void)next[i * LINE];
}

/* Whether the map moves the image by whole pixels, and by how many. */
static int moves(const double *m, ptrdiff_t *across, ptrdiff_t *down) {
    const double most = 1 << 30;
    if (m[0] != 1 || m[1] != 0 || m[3] != 0 || m[4] != 1 || m[6] != 0 || m[7] != 0 || m[8] != 1) return 0;
    if (!(m[2] >= -most && m[2] <= most && m[5] >= -most && m[5] <= most)) return 0;
    *across = (ptrdiff_t)m[2];
    *down = (ptrdiff_t)m[5];
    return (double)*across == m[2] && (double)*down == m[5];
}

void hw_warp_image(int simd, const hw_warp_source *image, const hw_warp *warp, void *out, ptrdiff_t height,
                   ptrdiff_t width) {
    const ptrdiff_t size = image->channels * (image->real ? (ptrdiff_t)sizeof(float) : 1);
    const double columns = (double)image->width, rows = (double)image->height;
    double m[9];
    memcpy(m, warp->matrix, sizeof m);
    const int affine = m[6] == 0 && m[7] == 0;
    if (affine && m[8] > 0 && m[8] != 1) {
        for (int i = 0; i < 8; i++) m[i] /= m[8];
        m[8] = 1;
    }
    ptrdiff_t across = 0, down = 0;
    const int moved = moves(m, &across, &down);
    if (image->height == 0 || image->width == 0 || (affine && m[8] <= 0)) {
        hw_fill(out, height * width, warp->fill, size);
        return;
    }
    /* The edges of the image as half planes; the right and lower edges do not belong to it. */
    const double edges[5][3] = {{m[0], m[1], m[2]},
                                {m[3], m[4], m[5]},
                                {columns * m[6] - m[0], columns * m[7] - m[1], columns * m[8] - m[2]},
                                {rows * m[6] - m[3], rows * m[7] - m[4], rows * m[8] - m[5]},
                                {m[6], m[7], m[8]}};
    for (ptrdiff_t v = 0; v < height; v++) {
        const double y = (double)v + 0.5;
        uint8_t *pixels = (uint8_t *)out + v * width * size;
        ptrdiff_t first = 0, last = width;
        for (int i = 0; i < 5 - affine; i++)
            cut(edges[i][0], edges[i][1] * y + edges[i][2], i >= 2, &first, &last);
        for (ptrdiff_t i = 0; i < warp->planes; i++) {
            const double *plane = warp->bounds + 3 * i;
            cut(plane[0], plane[1] * y + plane[2], 0, &first, &last);
        }
        if (first >= last) {
            hw_fill(pixels, width, warp->fill, size);
            continue;
        }
        hw_fill(pixels, first, warp->fill, size);
        hw_fill(pixels + last * size, width - last, warp->fill, size);
        if (moved) {
            const ptrdiff_t start = (v + down) * image->width + first + across;
            memcpy(pixels + first * size, (const uint8_t *)image->data + start * size,
                   (size_t)((last - first) * size));
            continue;
        }
        const line row = {m[0], m[1] * y + m[2], m[3], m[4] * y + m[5], m[6], m[7] * y + m[8], affine};
        fetch(image, size, v, height);
        sample_row(simd, image, &row, first, last, warp->interpolation, pixels);
    }
}
