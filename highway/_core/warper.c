#include "warper.h"

#include <assert.h>
#include <string.h>

#include "pixels.h"

/* Positions are float64, each operation rounded. For bilinear sampling they are rounded to 1/65536 pixel;
   bytes are then weighted with whole numbers: upper and lower ones with DOWN - qy and qy, what is left and
   right with ACROSS - qx and qx. DOWN * ACROSS is as near to 2**SHIFT as makes every constant image come out
   unchanged, and the weights fit the instructions that multiply bytes and 16 bit numbers in pairs. */
enum { DOWN = 255, ACROSS = 16448, SHIFT = 22, FRACTION = 16 };

/* Of a row of the output: where its pixels come from, as functions of the column's centre. */
typedef struct {
    double x_step, x_start, y_step, y_start, w_step, w_start;
    int affine; /* w is 1 */
} line;

/* A half plane in a row: visible where step * (column + .5) + start is at least 0, or above it. */
static int seen(double step, double start, int strict, ptrdiff_t column) {
    const double value = step * ((double)column + 0.5) + start;
    return strict ? value > 0 : value >= 0;
}

/* Cut off from columns `first` to `last` what is not visible. Rounded products and sums still ascend or
   descend all along, so there is one place at most where the answer changes. */
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

/* The source point of a column; `width` and `height` also for what rounding put beyond them. */
static void point(const line *row, ptrdiff_t column, double width, double height, double *x, double *y) {
    const double centre = (double)column + 0.5;
    double across = row->x_step * centre + row->x_start;
    double down = row->y_step * centre + row->y_start;
    if (!row->affine) {
        const double w = row->w_step * centre + row->w_start;
        across /= w;
        down /= w;
    }
    *x = across < width ? across : width;
    *y = down < height ? down : height;
}

static void nearest_row(const hw_image *image, const line *row, ptrdiff_t first, ptrdiff_t last,
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

/* The left or upper neighbour and, in 1/65536, how far the point is from its centre. What is nearer to the
   edge than its pixels' centres is taken at their centres, which is to have the neighbours at the edge twice.
 */
static ptrdiff_t neighbour(double position, ptrdiff_t size, int32_t *fraction) {
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

static void bilinear_row(const hw_image *image, const line *row, ptrdiff_t first, ptrdiff_t last, void *out) {
    const ptrdiff_t channels = image->channels, stride = image->width * channels;
    const ptrdiff_t below = image->height > 1 ? stride : 0, beside = image->width > 1 ? channels : 0;
    for (ptrdiff_t column = first; column < last; column++) {
        double x, y;
        int32_t across, down;
        point(row, column, (double)image->width, (double)image->height, &x, &y);
        ptrdiff_t at = neighbour(x, image->width, &across) * channels;
        at += neighbour(y, image->height, &down) * stride;
        if (image->real) {
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

/* Whether the map moves the image by whole pixels, and by how many. */
static int moves(const double *m, ptrdiff_t *across, ptrdiff_t *down) {
    const double most = 1 << 30;
    if (m[0] != 1 || m[1] != 0 || m[3] != 0 || m[4] != 1 || m[6] != 0 || m[7] != 0 || m[8] != 1) return 0;
    if (!(m[2] >= -most && m[2] <= most && m[5] >= -most && m[5] <= most)) return 0;
    *across = (ptrdiff_t)m[2];
    *down = (ptrdiff_t)m[5];
    return (double)*across == m[2] && (double)*down == m[5];
}

void hw_warp_image(int simd, const hw_image *image, const hw_warp *warp, void *out, ptrdiff_t height,
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
    /* The edges of the image as half planes; those on the right and below do not belong to it. */
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
        if (warp->interpolation == HW_NEAREST)
            nearest_row(image, &row, first, last, pixels);
        else
            bilinear_row(image, &row, first, last, pixels);
    }
}
