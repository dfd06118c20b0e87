#include "drawing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "resampler16.h"

void hw_drawing_free(hw_drawing *drawing) {
    for (int v = 0; v < drawing->capacity; v++) {
        hw_axis_free(&drawing->views[v].x);
        hw_axis_free(&drawing->views[v].y);
        hw_buffer_free(&drawing->views[v].swapped);
    }
    free(drawing->views);
    hw_buffer_free(&drawing->line);
    hw_buffer_free(&drawing->ring);
    hw_buffer_free(&drawing->combined);
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
static void draw_row(const hw_view *view, const hw_target *target, int i, const uint8_t *const *rows,
                     uint8_t *combined, uint8_t *out) {
    const hw_axis *x = &view->x, *y = &view->y;
    const size_t at = (size_t)i * (size_t)y->stride;
    if (target->wide) {
        hw_resample_rows16(target->simd, x, (const uint16_t *const *)rows, y->exact + at, y->taps,
                           target->channels, (float *)combined, (uint16_t *)out);
        return;
    }
    hw_combine_rows(target->simd, rows, y->weights + at, y->taps, combined,
                    (size_t)(x->highest - x->lowest) * (size_t)target->channels);
    hw_resample_row(target->simd, x, combined, x->lowest, target->channels, out);
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static int pixel_bytes(const hw_target *target) {
    return target->channels << target->wide;
}

/* A ring of rows: the input of one output row of any view, and the rows that the source returns at once. */
typedef struct {
    uint8_t *bytes;
    size_t stride;
    int rows, left; /* `left`: its first column */
    const uint8_t **pointers;
    uint8_t *combined;
} row_ring;

static uint8_t *ring_row(const row_ring *ring, int row) {
    return ring->bytes + (size_t)(row % ring->rows) * ring->stride;
}

/* Makes room for all views; 0, or -1 without memory. */
static int make_ring(hw_drawing *drawing, const hw_views *views, const hw_rows *source, row_ring *ring) {
    const int wide = views->targets->wide, channels = views->targets->channels;
    size_t taps = 0, used = 0, line = 0;
    for (int v = 0; v < views->count; v++) {
        hw_view *view = &drawing->views[v];
        const size_t size = (size_t)pixel_bytes(&views->targets[v]);
        taps = larger(taps, (size_t)view->y.taps);
        used = larger(used, (size_t)(view->x.highest - view->x.lowest) * (size_t)channels);
        line = larger(line, (size_t)views->targets[v].width * size);
        view->next = 0;
        if (view->window.swap && hw_buffer_reserve(&view->swapped, (size_t)view->window.width *
                                                                       (size_t)view->window.height * size))
            return -1;
    }
    const size_t pointers = taps * sizeof(uint8_t *);
    ring->stride = ((source->row_bytes << (wide && !source->wide)) + 63) & ~(size_t)63;
    ring->rows = (int)taps + HW_ROWS_AT_ONCE;
    ring->left = source->left;
    if (hw_buffer_reserve(&drawing->ring, ring->stride * (size_t)ring->rows) ||
        hw_buffer_reserve(&drawing->combined, pointers + used * (wide ? sizeof(float) : 1) + HW_ROW_SLACK) ||
        hw_buffer_reserve(&drawing->line, line))
        return -1;
    ring->bytes = drawing->ring.bytes;
    ring->pointers = (const uint8_t **)drawing->combined.bytes;
    ring->combined = drawing->combined.bytes + pointers;
    return 0;
}

/* Draws the rows of a view whose input, the rows before `end`, is in the ring. */
static void draw_ready(hw_view *view, const hw_target *target, const hw_image *image, const row_ring *ring,
                       int end, uint8_t *line) {
    const hw_stored_window *window = &view->window;
    const hw_axis *y = &view->y;
    const int size = pixel_bytes(target);
    const ptrdiff_t stride = (ptrdiff_t)window->width * size;
    const size_t offset = (size_t)(view->x.lowest - ring->left) * (size_t)size;
    for (; view->next < window->height && y->first[view->next] + y->taps <= end; view->next++) {
        const int first = y->first[view->next];
        for (int k = 0; k < y->taps; k++) ring->pointers[k] = ring_row(ring, first + k) + offset;
        const int place = window->mirror_y ? window->height - 1 - view->next : view->next;
        uint8_t *const out = window->swap ? view->swapped.bytes + place * stride : line;
        draw_row(view, target, view->next, ring->pointers, ring->combined, out);
        if (!window->swap) hw_target_put(target, image, place, out);
    }
}

static void put_swapped(const hw_view *view, const hw_target *target, const hw_image *image, uint8_t *line) {
    const int size = pixel_bytes(target);
    for (int i = 0; i < target->height; i++) {
        take_column(view->swapped.bytes, (ptrdiff_t)view->window.width * size, i, target->width, size, line);
        hw_target_put(target, image, i, line);
    }
}

int hw_draw_rows(hw_drawing *drawing, const hw_views *views, const hw_rows *source, char *message) {
    const int widened = views->targets->wide && !source->wide;
    row_ring ring;
    if (make_ring(drawing, views, source, &ring)) return hw_out_of_memory(message);
    for (int next = source->next; next < drawing->bottom;) {
        uint8_t *lines[HW_ROWS_AT_ONCE];
        const int rest = drawing->bottom - next, wanted = rest < HW_ROWS_AT_ONCE ? rest : HW_ROWS_AT_ONCE;
        for (int k = 0; k < wanted; k++) lines[k] = ring_row(&ring, next + k);
        const int got = source->read(source->decoder, views->targets, lines, wanted);
        if (got < 0) return got;
        if (got == 0) {
            snprintf(message, HW_MESSAGE_SIZE, "cannot be decoded: only %d of %d rows", next,
                     drawing->views->y.in_size);
            return HW_BAD_FILE;
        }
        for (int k = 0; widened && k < got; k++) widen(lines[k], source->row_bytes);
        next += got;
        for (int v = 0; v < views->count; v++)
            draw_ready(&drawing->views[v], &views->targets[v], &views->images[v], &ring, next,
                       drawing->line.bytes);
    }
    for (int v = 0; v < views->count; v++)
        if (drawing->views[v].window.swap)
            put_swapped(&drawing->views[v], &views->targets[v], &views->images[v], drawing->line.bytes);
    return HW_OK;
}

static int reserve_views(hw_drawing *drawing, int count) {
    if (count <= drawing->capacity) return 0;
    hw_view *grown = realloc(drawing->views, (size_t)count * sizeof *grown);
    if (!grown) return -1;
    memset(grown + drawing->capacity, 0, (size_t)(count - drawing->capacity) * sizeof *grown);
    drawing->views = grown;
    drawing->capacity = count;
    return 0;
}

int hw_drawing_build(hw_drawing *drawing, const hw_picture *picture, const hw_views *views, int width,
                     int height, double scale) {
    if (reserve_views(drawing, views->count)) return -1;
    drawing->left = width;
    drawing->top = height;
    drawing->right = drawing->bottom = 0;
    for (int v = 0; v < views->count; v++) {
        hw_view *view = &drawing->views[v];
        hw_axis *x = &view->x, *y = &view->y;
        const hw_target *target = &views->targets[v];
        const hw_stored_window window = hw_stored_window_of(picture, target);
        view->window = window;
        if (hw_axis_build(x, target->filter, width, window.x0 * scale, fmin(window.x1 * scale, width),
                          window.width, window.mirror_x, target->wide) ||
            hw_axis_build(y, target->filter, height, window.y0 * scale, fmin(window.y1 * scale, height),
                          window.height, 0, target->wide))
            return -1;
        if (x->lowest < drawing->left) drawing->left = x->lowest;
        if (x->highest > drawing->right) drawing->right = x->highest;
        if (y->lowest < drawing->top) drawing->top = y->lowest;
        if (y->highest > drawing->bottom) drawing->bottom = y->highest;
    }
    return 0;
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

int hw_draw_turned(hw_drawing *drawing, const hw_picture *picture, const hw_views *views, int wide,
                   char *message) {
    const int size = views->targets->channels << wide;
    hw_picture upright = *picture;
    upright.orientation = 1;
    if (hw_drawing_build(drawing, &upright, views, upright.width, upright.height, 1.0))
        return hw_out_of_memory(message);
    stored_rows stored = {NULL, (ptrdiff_t)upright.width * size,
                          (size_t)(drawing->right - drawing->left) * (size_t)size};
    stored.next = drawing->upright.bytes + drawing->top * stored.stride + drawing->left * size;
    const hw_rows rows = {drawing->left, drawing->top, stored.used, &stored, read_stored, wide};
    const int status = hw_draw_rows(drawing, views, &rows, message);
    hw_buffer_trim(&drawing->upright, (size_t)stored.stride * (size_t)upright.height);
    return status;
}
