#include "jpeg_decoder.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "jpeg_header.h"
#include "jpeg_samples.h"
#include "jpeg_sequential.h"
#include "resampler.h"

/* A picture with more scans takes far more time than its size suggests; encoders write about ten. */
#define MAX_SCANS 100

/* libjpeg holds the coefficients of progressive pictures in memory: two bytes per sample. */
#define MAX_LIBJPEG_MEMORY (1024L * 1024 * 1024)

/* Columns around a window whose upsampled color libjpeg makes from neighbors that the window does not have.
 */
#define CROP_MARGIN 2

struct hw_jpeg {
    struct jpeg_decompress_struct cinfo; /* first, so that callbacks can reach the rest */
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    char *message;
    int failure;              /* status to return if libjpeg fails */
    unsigned components_seen; /* bit c: a scan of component c has begun */
    hw_sequential *sequential;
    int64_t by_library; /* pictures that libjpeg decoded */
    hw_drawing *drawing;
};

/* ---- callbacks of libjpeg ---- */

static void on_error(j_common_ptr cinfo) {
    hw_jpeg *decoder = (hw_jpeg *)cinfo;
    char text[JMSG_LENGTH_MAX];
    (*cinfo->err->format_message)(cinfo, text);
    snprintf(decoder->message, HW_MESSAGE_SIZE, "cannot be decoded: %.*s", HW_MESSAGE_SIZE - 32, text);
    if (cinfo->err->msg_code == JERR_OUT_OF_MEMORY) decoder->failure = HW_NO_MEMORY;
    longjmp(decoder->escape, 1);
}

static void on_message(j_common_ptr cinfo, int level) {
    if (level >= 0) return;
    switch (cinfo->err->msg_code) { /* warnings that do not affect pixels */
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_NOT_SEQUENTIAL:
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_TOO_MUCH_DATA: cinfo->err->num_warnings++; return;
    default: on_error(cinfo);
    }
}

static void on_output(j_common_ptr cinfo) {}

static void on_progress(j_common_ptr cinfo) {
    hw_jpeg *decoder = (hw_jpeg *)cinfo;
    for (int i = 0; i < decoder->cinfo.comps_in_scan; i++)
        decoder->components_seen |= 1u << decoder->cinfo.cur_comp_info[i]->component_index;
    if (decoder->cinfo.input_scan_number > MAX_SCANS) {
        snprintf(decoder->message, HW_MESSAGE_SIZE, "cannot be decoded: more than %d scans", MAX_SCANS);
        longjmp(decoder->escape, 1);
    }
}

/* ---- construction ---- */

hw_jpeg *hw_jpeg_new(hw_drawing *drawing) {
    hw_jpeg *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return NULL;
    decoder->sequential = hw_sequential_new();
    if (!decoder->sequential) {
        free(decoder);
        return NULL;
    }
    decoder->drawing = drawing;
    decoder->cinfo.err = jpeg_std_error(&decoder->errors);
    decoder->errors.error_exit = on_error;
    decoder->errors.emit_message = on_message;
    decoder->errors.output_message = on_output;
    decoder->progress.progress_monitor = on_progress;
    return decoder;
}

void hw_jpeg_free(hw_jpeg *decoder) {
    if (!decoder) return;
    hw_sequential_free(decoder->sequential);
    free(decoder);
}

int64_t hw_jpeg_by_library(const hw_jpeg *decoder) {
    return decoder->by_library;
}

int hw_jpeg_library_version(void) {
    return LIBJPEG_TURBO_VERSION_NUMBER;
}

/* ---- pixels ---- */

/* (a * b) / 255, rounded, for bytes. */
static inline unsigned multiply255(unsigned a, unsigned b) {
    const unsigned t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* CMYK, inverted as Adobe stores it, to RGB in place: Pillow's convert("RGB") of the same file. */
static void cmyk_to_rgb(uint8_t *row, size_t width) {
    for (size_t i = 0; i < width; i++) {
        const uint8_t *in = row + 4 * i;
        const unsigned black = in[3];
        const unsigned r = black - multiply255(255u - in[0], black);
        const unsigned g = black - multiply255(255u - in[1], black);
        const unsigned b = black - multiply255(255u - in[2], black);
        row[3 * i] = (uint8_t)r;
        row[3 * i + 1] = (uint8_t)g;
        row[3 * i + 2] = (uint8_t)b;
    }
}

/* Smallest of 8, 4, 2, 1 eighths (those whose inverse transform is vectorized) that leaves the windows at
 * least twice as large as the output. With a scale that just covers the output, the filter could not smooth,
 * and the image would differ from one filtered at full size by up to 12 levels on average; here it is at most
 * about 3. Filters that do not smooth decode exactly. Of several views, the one that needs most decides. */
static int choose_eighths(const hw_picture *picture, const hw_views *views) {
    int most = 1;
    for (int v = 0; v < views->count && most < 8; v++) {
        const hw_target *target = &views->targets[v];
        const hw_stored_window w = hw_stored_window_of(picture, target);
        int eighths = 8;
        if (target->exact || target->filter == HW_NEAREST || target->filter == HW_BOX) return eighths;
        while (eighths > most && (w.x1 - w.x0) * (eighths / 2) >= 2 * 8.0 * w.width &&
               (w.y1 - w.y0) * (eighths / 2) >= 2 * 8.0 * w.height)
            eighths /= 2;
        most = eighths;
    }
    return most;
}

/* Whether a picture of several scans is complete: it has every component, and in progressive pictures every
 * coefficient that was begun is fully refined. */
static int is_complete(const hw_jpeg *decoder) {
    const struct jpeg_decompress_struct *cinfo = &decoder->cinfo;
    for (int c = 0; c < cinfo->num_components; c++) {
        if (!(decoder->components_seen & 1u << c)) return 0;
        if (!cinfo->progressive_mode) continue;
        if (cinfo->coef_bits[c][0] != 0) return 0;
        for (int k = 1; k < DCTSIZE2; k++)
            if (cinfo->coef_bits[c][k] > 0) return 0;
    }
    return 1;
}

/* ---- our own decoder ---- */

static int read_sequential(void *sequential, const hw_target *target, uint8_t **lines, int wanted) {
    for (int k = 0; k < wanted; k++)
        if (hw_sequential_read(sequential, lines[k]) != HW_SEQUENTIAL_OK) return -1;
    return wanted;
}

/* Returns a hw_status, or -1 if libjpeg must decode the picture. */
static int decode_sequential(hw_jpeg *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                             const hw_views *views) {
    const int swapped = picture->orientation >= 5;
    const int width = swapped ? picture->height : picture->width;
    const int height = swapped ? picture->width : picture->height;
    if (hw_sequential_open(decoder->sequential, bytes, size, width, height) != HW_SEQUENTIAL_OK) return -1;
    hw_drawing *drawing = decoder->drawing;
    const hw_target *target = views->targets;
    if (hw_drawing_build(drawing, picture, views, width, height, 1.0))
        return hw_out_of_memory(decoder->message);
    const int status = hw_sequential_begin(decoder->sequential, target->simd, target->channels, drawing->left,
                                           drawing->right, drawing->top);
    if (status != HW_SEQUENTIAL_OK)
        return status == HW_SEQUENTIAL_NO_MEMORY ? hw_out_of_memory(decoder->message) : -1;
    const size_t row_bytes = (size_t)(drawing->right - drawing->left) * (size_t)target->channels;
    const hw_rows rows = {drawing->left,       drawing->top,    row_bytes + HW_SAMPLES_SLACK,
                          decoder->sequential, read_sequential, 0};
    return hw_draw_rows(drawing, views, &rows, decoder->message);
}

/* ---- libjpeg ---- */

static int read_library(void *library, const hw_target *target, uint8_t **lines, int wanted) {
    struct jpeg_decompress_struct *cinfo = library;
    const int got = (int)jpeg_read_scanlines(cinfo, lines, (JDIMENSION)wanted);
    if (cinfo->out_color_space == JCS_CMYK)
        for (int k = 0; k < got; k++) {
            cmyk_to_rgb(lines[k], cinfo->output_width);
            if (target->channels == 1) hw_rgb_to_gray(lines[k], cinfo->output_width, lines[k]);
        }
    return got > 0 ? got : 0;
}

/* The part after setjmp: libjpeg jumps to decoder->escape on failure. */
static int decode_library(hw_jpeg *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                          const hw_views *views, int eighths) {
    struct jpeg_decompress_struct *cinfo = &decoder->cinfo;
    hw_drawing *drawing = decoder->drawing;

    /* Created for every picture: libjpeg keeps tables between pictures, and a damaged file without tables
     * would be decoded with those of the previous picture. */
    jpeg_create_decompress(cinfo);
    cinfo->progress = &decoder->progress;
    cinfo->mem->max_memory_to_use = MAX_LIBJPEG_MEMORY;
    jpeg_mem_src(cinfo, bytes, (unsigned long)size);
    jpeg_read_header(cinfo, TRUE);
    const int swapped = picture->orientation >= 5;
    if ((int)cinfo->image_width != (swapped ? picture->height : picture->width) ||
        (int)cinfo->image_height != (swapped ? picture->width : picture->height)) {
        snprintf(decoder->message, HW_MESSAGE_SIZE, "is damaged: it contains headers of different sizes");
        return HW_BAD_FILE;
    }

    const int four = cinfo->jpeg_color_space == JCS_CMYK || cinfo->jpeg_color_space == JCS_YCCK;
    cinfo->out_color_space = four ? JCS_CMYK : views->targets->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->scale_num = (unsigned)eighths;
    cinfo->scale_denom = 8;
    jpeg_start_decompress(cinfo); /* reads all scans of a multi-scan picture */
    if (jpeg_has_multiple_scans(cinfo) && !is_complete(decoder)) {
        snprintf(decoder->message, HW_MESSAGE_SIZE,
                 "is truncated: some of its scans are missing after the %d that are there",
                 cinfo->input_scan_number);
        return HW_BAD_FILE;
    }

    const int width = (int)cinfo->output_width, height = (int)cinfo->output_height;
    if (hw_drawing_build(drawing, picture, views, width, height, eighths / 8.0))
        return hw_out_of_memory(decoder->message);

    /* Columns: libjpeg widens the window to whole blocks. */
    JDIMENSION left = 0, columns = (JDIMENSION)width;
    if (drawing->left - CROP_MARGIN > 0 || drawing->right + CROP_MARGIN < width) {
        const int from = drawing->left > CROP_MARGIN ? drawing->left - CROP_MARGIN : 0;
        const int to = drawing->right + CROP_MARGIN < width ? drawing->right + CROP_MARGIN : width;
        left = (JDIMENSION)from;
        columns = (JDIMENSION)(to - from);
        jpeg_crop_scanline(cinfo, &left, &columns);
    }
    int next = 0;
    if (drawing->top > 0) {
        next = (int)jpeg_skip_scanlines(cinfo, (JDIMENSION)drawing->top);
        if (next != drawing->top) {
            snprintf(decoder->message, HW_MESSAGE_SIZE, "cannot be decoded: row %d of %d was not reached",
                     drawing->top, height);
            return HW_BAD_FILE;
        }
    }
    const size_t row_bytes = (size_t)columns * (size_t)cinfo->output_components;
    const hw_rows rows = {(int)left, next, row_bytes + HW_SAMPLES_SLACK, cinfo, read_library, 0};
    return hw_draw_rows(drawing, views, &rows, decoder->message);
}

static int decode_library_guarded(hw_jpeg *decoder, const uint8_t *bytes, size_t size,
                                  const hw_picture *picture, const hw_views *views, int eighths) {
    int status;
    decoder->by_library++;
    decoder->failure = HW_BAD_FILE;
    decoder->components_seen = 0;
    if (setjmp(decoder->escape))
        status = decoder->failure;
    else
        status = decode_library(decoder, bytes, size, picture, views, eighths);
    /* Also if only a part was needed: rows after the window are not decoded. */
    jpeg_destroy_decompress(&decoder->cinfo);
    return status;
}

int hw_jpeg_decode(hw_jpeg *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                   const hw_views *views, char *message) {
    if (!hw_jpeg_has_end(bytes, picture->scan, size)) {
        snprintf(message, HW_MESSAGE_SIZE, "is truncated: no end-of-image marker within its %zu bytes", size);
        return HW_BAD_FILE;
    }
    const int eighths = choose_eighths(picture, views);
    decoder->message = message;
    int status = eighths == 8 ? decode_sequential(decoder, bytes, size, picture, views) : -1;
    if (status < 0) status = decode_library_guarded(decoder, bytes, size, picture, views, eighths);
    decoder->message = NULL;
    return status;
}
