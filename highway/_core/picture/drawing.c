#include "drawing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "files.h"
#include "resampler16.h"

void hw_drawing_free(hw_drawing *drawing) {
    hw_axis_free(&drawing->x);
    hw_axis_free(&drawing->y);
    hw_buffer_free(&drawing->line);
    hw_buffer_free(&drawing->ring);
    hw_buffer_free(&drawing->combined);
    hw_buffer_free(&drawing->swapped);
    hw_buffer_free(&drawing->upright);
}

int hw_out_of_memory(char *message) {
    snprintf(message, HW_MESSAGE_SIZE, "cannot be decoded: no memory left");
    return HW_NO_MEMORY;
}

void hw_rgb_to_gray(const uint8_t *in, size_t width, uint8_t *out) {
    for (size_t i = 0; i < width; i++, in += 3)
        out[i] = (uint8_t)((in[0] * 19595u + in[1] * 38470u + in[2] * 7471u + 0x8000u) >> 16);
}

void hw_rgb_to_gray16(const uint16_t *in, size_t width, uint16_t *out) {
    for (size_t i = 0; i < width; i++, in += 3)
        out[i] = (uint16_t)((in[0] * 19595u + in[1] * 38470u + in[2] * 7471u + 0x8000u) >> 16);
}

/* Widens `n` bytes at the beginning of a row in place. */
static void widen(uint8_t *row, size_t n) {
    uint16_t *out = (uint16_t *)row;
    while (n--) out[n] = (uint16_t)(row[n] * 257);
}

/* Column `x` of an image of pixels of `size` bytes as a row. */
static void take_column(const uint8_t *in, ptrdiff_t stride, int x, int height, int size, uint8_t *out) {
    in += (ptrdiff_t)x * size;
    for (int y = 0; y < height; y++)
        for (int c = 0; c < size; c++) *out++ = in[y * stride + c];
}

void hw_target_put(const hw_target *target, const hw_image *image, int y, const uint8_t *row) {
    const ptrdiff_t at = (ptrdiff_t)(target->top + y) * image->width + target->left;
    if (image->normalization)
        hw_normalize(target->simd, row, target->width, image->channels, image->normalization, image->data, at,
                     (ptrdiff_t)image->height * image->width);
    else
        memcpy((uint8_t *)image->data + at * (image->channels << target->wide), row,
               (size_t)target->width * (size_t)(image->channels << target->wide));
}

/* EXIF orientation as: mirror the stored rows, mirror the stored columns, then swap the axes. */
static const struct {
    int mirror_x, mirror_y, swap;
} ORIENTATIONS[9] = {{0, 0, 0}, {0, 0, 0}, {1, 0, 0}, {1, 1, 0}, {0, 1, 0},
                     {0, 0, 1}, {0, 1, 1}, {1, 1, 1}, {1, 0, 1}};

hw_stored_window hw_stored_window_of(const hw_picture *picture, const hw_target *target) {
    const int orientation = picture->orientation;
    hw_stored_window w = {target->x0,
                          target->y0,
                          target->x1,
                          target->y1,
                          target->height,
                          target->width,
                          ORIENTATIONS[orientation].mirror_x,
                          ORIENTATIONS[orientation].mirror_y,
                          ORIENTATIONS[orientation].swap};
    double stored_height = picture->height, stored_width = picture->width;
    if (w.swap) {
        w = (hw_stored_window){w.y0, w.x0, w.y1, w.x1, w.width, w.height, w.mirror_x, w.mirror_y, 1};
        stored_height = picture->width;
        stored_width = picture->height;
    }
    if (w.mirror_x) {
        const double x0 = w.x0;
        w.x0 = stored_width - w.x1;
        w.x1 = stored_width - x0;
    }
    if (w.mirror_y) {
        const double y0 = w.y0;
        w.y0 = stored_height - w.y1;
        w.y1 = stored_height - y0;
    }
    w.mirror_x ^= w.swap ? target->mirror_y : target->mirror_x;
    w.mirror_y ^= w.swap ? target->mirror_x : target->mirror_y;
    return w;
}

/* Row `i` of the output: combines `rows`, which begin at the first used column, and resamples the result. */
static void draw_row(const hw_drawing *drawing, const hw_target *target, int i, const uint8_t *const *rows,
                     uint8_t *combined, size_t used, uint8_t *out) {
    const hw_axis *x = &drawing->x, *y = &drawing->y;
    const size_t at = (size_t)i * (size_t)y->stride;
    if (target->wide) {
        hw_resample_rows16(target->simd, x, (const uint16_t *const *)rows, y->exact + at, y->taps,
                           target->channels, (float *)combined, (uint16_t *)out);
        return;
    }
    hw_combine_rows(target->simd, rows, y->weights + at, y->taps, combined, used);
    hw_resample_row(target->simd, x, combined, x->lowest, target->channels, out);
}

int hw_draw_rows(hw_drawing *drawing, const hw_stored_window *window, const hw_target *target,
                 const hw_image *image, const hw_rows *source, char *message) {
    const hw_axis *x = &drawing->x, *y = &drawing->y;
    const int widened = target->wide && !source->wide, size = target->channels << target->wide;
    /* A ring that holds the input of one output row and the rows that the source returns at once. */
    const size_t row_stride = ((source->row_bytes << widened) + 63) & ~(size_t)63;
    const int ring_rows = y->taps + HW_ROWS_AT_ONCE;
    const size_t pointers = (size_t)y->taps * sizeof(uint8_t *);
    const size_t used = (size_t)(x->highest - x->lowest) * (size_t)target->channels;
    const size_t line = (size_t)target->width * (size_t)size;
    const ptrdiff_t upright_stride = (ptrdiff_t)window->width * size;
    if (hw_buffer_reserve(&drawing->ring, row_stride * (size_t)ring_rows) ||
        hw_buffer_reserve(&drawing->combined,
                          pointers + used * (target->wide ? sizeof(float) : 1) + HW_ROW_SLACK) ||
        hw_buffer_reserve(&drawing->line, line) ||
        (window->swap &&
         hw_buffer_reserve(&drawing->swapped, (size_t)upright_stride * (size_t)window->height)))
        return hw_out_of_memory(message);
    const uint8_t **rows = (const uint8_t **)drawing->combined.bytes;
    uint8_t *combined = drawing->combined.bytes + pointers;
    uint8_t *const ring = drawing->ring.bytes;
    const size_t column_offset = (size_t)(x->lowest - source->left) * (size_t)size;
    int next = source->next;
    for (int i = 0; i < window->height; i++) {
        const int first = y->first[i];
        while (next < first + y->taps) {
            uint8_t *lines[HW_ROWS_AT_ONCE];
            const int wanted = y->highest - next < HW_ROWS_AT_ONCE ? y->highest - next : HW_ROWS_AT_ONCE;
            for (int k = 0; k < wanted; k++) lines[k] = ring + (size_t)((next + k) % ring_rows) * row_stride;
            const int got = source->read(source->decoder, target, lines, wanted);
            if (got < 0) return got;
            if (got == 0) {
                snprintf(message, HW_MESSAGE_SIZE, "cannot be decoded: only %d of %d rows", next, y->in_size);
                return HW_BAD_FILE;
            }
            for (int k = 0; widened && k < got; k++) widen(lines[k], source->row_bytes);
            next += got;
        }
        for (int k = 0; k < y->taps; k++)
            rows[k] = ring + (size_t)((first + k) % ring_rows) * row_stride + column_offset;
        const int place = window->mirror_y ? window->height - 1 - i : i;
        uint8_t *const out =
            window->swap ? drawing->swapped.bytes + place * upright_stride : drawing->line.bytes;
        draw_row(drawing, target, i, rows, combined, used, out);
        if (!window->swap) hw_target_put(target, image, place, out);
    }
    for (int i = 0; window->swap && i < target->height; i++) {
        take_column(drawing->swapped.bytes, upright_stride, i, target->width, size, drawing->line.bytes);
        hw_target_put(target, image, i, drawing->line.bytes);
    }
    return HW_OK;
}

int hw_drawing_build(hw_drawing *drawing, const hw_stored_window *window, const hw_target *target, int width,
                     int height, double scale) {
    return hw_axis_build(&drawing->x, target->filter, width, window->x0 * scale,
                         fmin(window->x1 * scale, width), window->width, window->mirror_x, target->wide) ||
           hw_axis_build(&drawing->y, target->filter, height, window->y0 * scale,
                         fmin(window->y1 * scale, height), window->height, 0, target->wide);
}

/* ---- whole pictures ---- */

int hw_turned_make(hw_drawing *drawing, const hw_picture *picture, int size, hw_turned *turned) {
    const int orientation = picture->orientation;
    const ptrdiff_t row = (ptrdiff_t)picture->width * size;
    const size_t bytes = (size_t)row * (size_t)picture->height;
    if (hw_buffer_reserve(&drawing->upright, bytes)) return -1;
    memset(drawing->upright.bytes, 0, bytes);
    /* Steps and mirrors of the upright picture; the table mirrors before it swaps. */
    const int swap = ORIENTATIONS[orientation].swap;
    const int mirror_x = swap ? ORIENTATIONS[orientation].mirror_y : ORIENTATIONS[orientation].mirror_x;
    const int mirror_y = swap ? ORIENTATIONS[orientation].mirror_x : ORIENTATIONS[orientation].mirror_y;
    const ptrdiff_t right = mirror_x ? -size : size, down = mirror_y ? -row : row;
    turned->origin =
        drawing->upright.bytes + (mirror_x ? row - size : 0) + (mirror_y ? row * (picture->height - 1) : 0);
    turned->right = swap ? down : right;
    turned->down = swap ? right : down;
    return 0;
}

void hw_turned_put(const hw_turned *turned, int y, int x, int step, const uint8_t *row, int count, int size) {
    uint8_t *out = turned->origin + y * turned->down + x * turned->right;
    const ptrdiff_t next = step * turned->right;
    if (next == size) {
        memcpy(out, row, (size_t)count * (size_t)size);
        return;
    }
    for (int i = 0; i < count; i++, out += next)
        for (int c = 0; c < size; c++) out[c] = *row++;
}

typedef struct {
    const uint8_t *next; /* the first used column of the next row */
    ptrdiff_t stride;
    size_t used;
} stored_rows;

static int read_stored(void *decoder, const hw_target *target, uint8_t **lines, int wanted) {
    stored_rows *rows = decoder;
    for (int k = 0; k < wanted; k++, rows->next += rows->stride) memcpy(lines[k], rows->next, rows->used);
    return wanted;
}

int hw_draw_turned(hw_drawing *drawing, const hw_picture *picture, const hw_target *target,
                   const hw_image *image, int wide, char *message) {
    const int size = target->channels << wide;
    hw_picture upright = *picture;
    upright.orientation = 1;
    const hw_stored_window window = hw_stored_window_of(&upright, target);
    if (hw_drawing_build(drawing, &window, target, upright.width, upright.height, 1.0))
        return hw_out_of_memory(message);
    const hw_axis *x = &drawing->x, *y = &drawing->y;
    stored_rows stored = {NULL, (ptrdiff_t)upright.width * size,
                          (size_t)(x->highest - x->lowest) * (size_t)size};
    stored.next = drawing->upright.bytes + y->lowest * stored.stride + x->lowest * size;
    const hw_rows rows = {x->lowest, y->lowest, stored.used, &stored, read_stored, wide};
    const int status = hw_draw_rows(drawing, &window, target, image, &rows, message);
    hw_buffer_trim(&drawing->upright, (size_t)stored.stride * (size_t)upright.height);
    return status;
}
