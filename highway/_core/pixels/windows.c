#include "windows.h"

#include <string.h>

/* Bytes rearranged before normalization: they stay in the first-level cache. */
enum { WORK_BYTES = 8192 };
/* Prefetch distance for rows that are read backwards: hardware prefetching works well only forwards. */
enum { AHEAD_BYTES = 4096, LINE_BYTES = 64 };

static ptrdiff_t clamp(ptrdiff_t value, ptrdiff_t low, ptrdiff_t high) {
    return value < low ? low : value > high ? high : value;
}

/* The part [begin, end) of a window of `length` at `start` that lies inside an image of `size`, in the
 * window's own coordinates after mirroring. */
static void inside(ptrdiff_t start, ptrdiff_t length, ptrdiff_t size, int mirrored, ptrdiff_t *begin,
                   ptrdiff_t *end) {
    const ptrdiff_t low = clamp(-start, 0, length), high = clamp(size - start, low, length);
    *begin = mirrored ? length - high : low;
    *end = mirrored ? length - low : high;
}

void hw_window_copy(int simd, const hw_pixels *image, const hw_window *window, ptrdiff_t first,
                    ptrdiff_t rows, uint8_t *out) {
    const ptrdiff_t size = image->size, width = window->width, length = width * size;
    ptrdiff_t begin, end, left, right;
    inside(window->top, window->height, image->height, window->mirror_y, &begin, &end);
    inside(window->left, width, image->width, window->mirror_x, &left, &right);
    begin = clamp(begin, first, first + rows);
    end = right > left ? clamp(end, begin, first + rows) : begin;
    hw_fill(out, (begin - first) * width, window->fill, size);
    out += (begin - first) * length;
    if (end > begin) {
        const ptrdiff_t step = window->mirror_y ? -image->row_stride : image->row_stride;
        const ptrdiff_t bytes = (right - left) * size;
        const uint8_t *in =
            image->data +
            (window->top + (window->mirror_y ? window->height - 1 - begin : begin)) * image->row_stride +
            (window->left + (window->mirror_x ? width - right : left)) * size;
        const size_t before = (size_t)(left * size), after = (size_t)(length - right * size);
        /* The borders of the first row; all rows have the same. */
        hw_fill(out, left, window->fill, size);
        hw_fill(out + right * size, width - right, window->fill, size);
        if (!window->mirror_x && step == length && bytes == length) {
            memcpy(out, in, (size_t)((end - begin) * length));
        } else {
            if (window->mirror_x)
                hw_reverse(simd, in, step, out + before, length, end - begin, right - left, size);
            for (ptrdiff_t row = 0; row < end - begin; row++) {
                uint8_t *to = out + row * length;
                if (row && before) memcpy(to, out, before);
                if (!window->mirror_x) memcpy(to + before, in + row * step, (size_t)bytes);
                if (row && after) memcpy(to + right * size, out + right * size, after);
            }
        }
        out += (end - begin) * length;
    }
    hw_fill(out, (first + rows - end) * width, window->fill, size);
}

/* Prefetches the visible part of a row of the window, if the row exists. Inlined: GCC removes calls of a
 * function that only prefetches. */
static inline __attribute__((always_inline)) void prefetch_row(const hw_pixels *image,
                                                               const hw_window *window, ptrdiff_t row) {
    const ptrdiff_t from = window->top + (window->mirror_y ? window->height - 1 - row : row);
    if (row >= window->height || from < 0 || from >= image->height) return;
    const uint8_t *in = image->data + from * image->row_stride;
    const ptrdiff_t left = clamp(window->left, 0, image->width);
    const ptrdiff_t right = clamp(window->left + window->width, left, image->width);
    for (ptrdiff_t at = left * image->size; at < right * image->size; at += LINE_BYTES)
        __builtin_prefetch(in + at);
}

size_t hw_window_work(ptrdiff_t length) {
    return length > WORK_BYTES ? (size_t)length : WORK_BYTES;
}

void hw_window_normalize(int simd, const hw_pixels *image, const hw_window *window,
                         const hw_normalization *normalization, uint8_t *work, void *out) {
    const ptrdiff_t height = window->height, width = window->width, plane = height * width;
    const ptrdiff_t size = image->size, length = width * size;
    if (window->mirror_x || window->top < 0 || window->left < 0 || height > image->height - window->top ||
        width > image->width - window->left) {
        const ptrdiff_t most = (ptrdiff_t)hw_window_work(length) / length;
        for (ptrdiff_t row = 0; row < height; row += most) {
            const ptrdiff_t rows = most < height - row ? most : height - row;
            hw_window_copy(simd, image, window, row, rows, work);
            for (ptrdiff_t at = row; at < row + rows; at++) {
                prefetch_row(image, window, at + rows);
                hw_normalize(simd, work + (at - row) * length, width, size, normalization, out, at * width,
                             plane);
            }
        }
        return;
    }
    const ptrdiff_t step = window->mirror_y ? -image->row_stride : image->row_stride;
    const uint8_t *in = image->data +
                        (window->top + (window->mirror_y ? height - 1 : 0)) * image->row_stride +
                        window->left * size;
    if (step == length) { /* without gaps: one long row */
        hw_normalize(simd, in, plane, size, normalization, out, 0, plane);
        return;
    }
    const ptrdiff_t ahead = AHEAD_BYTES / length + 1;
    for (ptrdiff_t row = 0; row < height; row++) {
        if (window->mirror_y) prefetch_row(image, window, row + ahead);
        hw_normalize(simd, in + row * step, width, size, normalization, out, row * width, plane);
    }
}
