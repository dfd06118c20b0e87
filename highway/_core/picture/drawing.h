/* Draws windows of pictures into images: resamples decoded rows, one after the other, so that the whole
 * window need not be in memory. Several views of a picture are drawn from the same rows.
 *
 * Samples are bytes, or 16-bit numbers in the order of this CPU where something is `wide`. Rows of bytes for
 * a wide target are widened before they are resampled: a byte becomes byte * 257, so that 255 becomes 65535.
 */

#ifndef HIGHWAY_DRAWING_H
#define HIGHWAY_DRAWING_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "header.h"
#include "pixels.h"
#include "resampler.h"

/* Most rows that are requested at once. */
enum { HW_ROWS_AT_ONCE = 16 };

/* An image of a batch, or a buffer for a picture whose batch does not exist yet. */
typedef struct {
    void *data;
    int height, width, channels;           /* 1 (gray) or 3 (RGB) */
    const hw_normalization *normalization; /* conversion of bytes; NULL: interleaved samples */
} hw_image;

typedef struct {
    double x0, y0, x1, y1;  /* window in pixels of the upright picture */
    int left, top;          /* position in the image */
    int height, width;      /* size in the image */
    int mirror_x, mirror_y; /* whether to mirror it */
    int channels;           /* of the image */
    int filter;             /* enum hw_filter */
    int exact;              /* never decode at a reduced scale */
    int simd;               /* variant of simd.h */
    int wide;               /* whether the image has 16-bit numbers; then it has no normalization */
} hw_target;

/* The views that are drawn of a picture. Their windows, sizes and filters may differ; `channels`, `exact`,
 * `simd` and `wide` are those of the first. */
typedef struct {
    const hw_target *targets;
    const hw_image *images; /* of each target */
    int count;              /* at least 1 */
} hw_views;

/* A window of the stored picture, and how it becomes the target. */
typedef struct {
    double x0, y0, x1, y1; /* in stored pixels */
    int height, width;     /* of the output before the axes are swapped */
    int mirror_x, mirror_y, swap;
} hw_stored_window;

/* Memory of one view. Starts zeroed. */
typedef struct {
    hw_axis x, y;
    hw_stored_window window;
    int next;          /* row of the output to draw */
    hw_buffer swapped; /* the target before its axes are swapped */
} hw_view;

/* Memory of one worker. Starts zeroed. */
typedef struct {
    hw_view *views;
    int capacity;
    int left, right, top, bottom; /* columns and rows of the decoded picture that the views use together */
    hw_buffer line;               /* one row of a target */
    hw_buffer ring;               /* decoded rows, reused in turn */
    hw_buffer combined;           /* one row after the vertical pass */
    hw_buffer upright;            /* a whole picture that was turned while it was decoded */
} hw_drawing;

/* Source of decoded rows: the columns from `left` on, from row `next` on. */
typedef struct {
    int left, next;
    size_t row_bytes; /* that reading a row may write */
    void *decoder;
    /* Writes up to `wanted` rows; returns their number, 0 at the end of the picture, -1 if it is damaged. */
    int (*read)(void *decoder, const hw_target *target, uint8_t **lines, int wanted);
    int wide; /* whether it writes 16-bit numbers */
} hw_rows;

void hw_drawing_free(hw_drawing *drawing);

/* The window of the stored picture. */
hw_stored_window hw_stored_window_of(const hw_picture *picture, const hw_target *target);

/* Builds the axes of all views for a stored picture that was decoded at `scale` to this size; 0, or -1
 * without memory. */
int hw_drawing_build(hw_drawing *drawing, const hw_picture *picture, const hw_views *views, int width,
                     int height, double scale);

/* Resamples rows into the targets; the axes are built. Returns a hw_status, or -1 if the source finds the
 * picture damaged. */
int hw_draw_rows(hw_drawing *drawing, const hw_views *views, const hw_rows *rows, char *message);

/* Writes row `y` of the target, width * channels samples, to the image. */
void hw_target_put(const hw_target *target, const hw_image *image, int y, const uint8_t *row);

/* Writes the message, and returns HW_NO_MEMORY. */
int hw_out_of_memory(char *message);

/* ITU-R 601 luma of packed RGB, as Pillow's convert("L"); `out` may be `in`. */
void hw_rgb_to_gray(const uint8_t *in, size_t width, uint8_t *out);

/* The same for packed 16-bit RGB. */
void hw_rgb_to_gray16(const uint16_t *in, size_t width, uint16_t *out);

/* A whole picture, turned upright by its orientation: stored pixel (y, x) is at origin + y * down + x *
 * right. */
typedef struct {
    uint8_t *origin;
    ptrdiff_t down, right; /* in bytes */
} hw_turned;

/* Makes room, set to zero, for a picture of pixels of `size` bytes in `drawing->upright`; 0, or -1 without
 * memory. */
int hw_turned_make(hw_drawing *drawing, const hw_picture *picture, int size, hw_turned *turned);

/* Writes pixels of `size` bytes of a stored row: number k of them at column `x` + k * `step`. */
void hw_turned_put(const hw_turned *turned, int y, int x, int step, const uint8_t *row, int count, int size);

/* Resamples the picture in `drawing->upright`, `wide` or not, into the targets. Returns a hw_status. */
int hw_draw_turned(hw_drawing *drawing, const hw_picture *picture, const hw_views *views, int wide,
                   char *message);

#endif
