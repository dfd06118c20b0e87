#include "jpeg_sequential.h"

#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "jpeg_entropy.h"
#include "jpeg_samples.h"

/* Rows of MCUs whose samples are kept: the color of a row may need the next. */
enum { KEPT_ROWS = 2 };

/* Larger pictures go to libjpeg, which refuses them. */
enum { LONGEST_SIDE = 65500 };

/* Samples before each row, so that it has a left neighbor. */
enum { MARGIN = 32 };

typedef struct {
    int id, across, down;   /* blocks in an MCU */
    int quant, dc, ac;      /* indices of its tables */
    int width, height;      /* in samples */
    ptrdiff_t stride;       /* of its rows of samples */
    size_t samples;         /* where they begin in decoder->samples */
    size_t blocks, only_dc; /* offsets of its coefficients of one row of MCUs, and of their only-DC flags */
} component;

struct hw_sequential {
    int width, height;
    int components;
    component component[3];
    int across, down; /* blocks of luma in an MCU */
    hw_quantization quant[4];
    unsigned quants, dcs, acs; /* bit i: table i was defined */
    hw_huffman dc[4], ac[4];
    hw_scan scan;
    const uint8_t *data, *end;
    /* the window */
    int simd, channels, left, right;
    int next;        /* next row to read */
    int first, last; /* MCUs of a row that are decoded */
    int decoded;     /* rows of MCUs decoded or skipped */
    int kept_from;   /* the first of them that was decoded */
    hw_buffer samples, blocks, only_dc, upsampled;
};

hw_sequential *hw_sequential_new(void) {
    return calloc(1, sizeof(hw_sequential));
}

void hw_sequential_free(hw_sequential *decoder) {
    if (!decoder) return;
    hw_buffer_free(&decoder->scan.interval);
    hw_buffer_free(&decoder->samples);
    hw_buffer_free(&decoder->blocks);
    hw_buffer_free(&decoder->only_dc);
    hw_buffer_free(&decoder->upsampled);
    free(decoder);
}

/* ---- header (ITU-T T.81, Annex B; T.871 for JFIF; Adobe's marker as libjpeg takes it) ---- */

typedef struct {
    const uint8_t *at;
    size_t size;
} segment;

enum { NO_COLOR, JFIF_COLOR, ADOBE_RGB, ADOBE_YCC };

static int read_quantization(hw_sequential *decoder, segment s) {
    static const uint8_t natural[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                        12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                        35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                        58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};
    for (; s.size; s.at += 65, s.size -= 65) {
        if (s.size < 65 || s.at[0] > 3) return HW_SEQUENTIAL_OTHER;
        for (int i = 0; i < 64; i++) decoder->quant[s.at[0]].steps[natural[i]] = s.at[1 + i];
        hw_quantization_complete(&decoder->quant[s.at[0]]);
        decoder->quants |= 1u << s.at[0];
    }
    return HW_SEQUENTIAL_OK;
}

static int read_huffman(hw_sequential *decoder, segment s) {
    while (s.size) {
        if (s.size < 17) return HW_SEQUENTIAL_OTHER;
        const int number = s.at[0] & 15, is_ac = s.at[0] >> 4;
        size_t total = 0;
        for (int i = 0; i < 16; i++) total += s.at[1 + i];
        if (number > 3 || is_ac > 1 || s.size < 17 + total) return HW_SEQUENTIAL_OTHER;
        if (hw_huffman_build(is_ac ? &decoder->ac[number] : &decoder->dc[number], s.at + 1, s.at + 17, is_ac))
            return HW_SEQUENTIAL_OTHER;
        *(is_ac ? &decoder->acs : &decoder->dcs) |= 1u << number;
        s.at += 17 + total;
        s.size -= 17 + total;
    }
    return HW_SEQUENTIAL_OK;
}

static int read_frame(hw_sequential *decoder, segment s, int width, int height) {
    if (decoder->components || s.size < 6 || s.at[0] != 8 || (s.at[5] != 1 && s.at[5] != 3) ||
        s.size != 6 + 3 * (size_t)s.at[5])
        return HW_SEQUENTIAL_OTHER;
    decoder->height = s.at[1] << 8 | s.at[2];
    decoder->width = s.at[3] << 8 | s.at[4];
    if (decoder->height != height || decoder->width != width || height > LONGEST_SIDE || width > LONGEST_SIDE)
        return HW_SEQUENTIAL_OTHER;
    decoder->components = s.at[5];
    for (int c = 0; c < decoder->components; c++) {
        const uint8_t *entry = s.at + 6 + 3 * c;
        component *p = &decoder->component[c];
        p->id = entry[0];
        p->across = entry[1] >> 4;
        p->down = entry[1] & 15;
        p->quant = entry[2];
        if (p->quant > 3 || !p->across || !p->down || p->across > 4 || p->down > 4)
            return HW_SEQUENTIAL_OTHER;
        for (int before = 0; before < c; before++)
            if (decoder->component[before].id == p->id) return HW_SEQUENTIAL_OTHER;
    }
    if (decoder->components == 1) /* a scan of one component always has one block per MCU */
        decoder->component[0].across = decoder->component[0].down = 1;
    decoder->across = decoder->component[0].across;
    decoder->down = decoder->component[0].down;
    if (decoder->across > 2 || decoder->down > decoder->across) return HW_SEQUENTIAL_OTHER;
    for (int c = 1; c < decoder->components; c++)
        if (decoder->component[c].across != 1 || decoder->component[c].down != 1) return HW_SEQUENTIAL_OTHER;
    for (int c = 0; c < decoder->components; c++) {
        component *p = &decoder->component[c];
        p->width = (width * p->across + decoder->across - 1) / decoder->across;
        p->height = (height * p->down + decoder->down - 1) / decoder->down;
    }
    /* libjpeg repeats the colors of narrower pictures instead of interpolating them. */
    return decoder->across == 2 && decoder->component[1].width <= 2 ? HW_SEQUENTIAL_OTHER : HW_SEQUENTIAL_OK;
}

static int has_ycc(const hw_sequential *decoder, int color) {
    const component *p = decoder->component;
    if (decoder->components == 1 || color == JFIF_COLOR || color == ADOBE_YCC) return 1;
    return color != ADOBE_RGB && !(p[0].id == 'R' && p[1].id == 'G' && p[2].id == 'B');
}

static int read_scan(hw_sequential *decoder, segment s) {
    const size_t n = (size_t)decoder->components;
    if (!n || s.size != 4 + 2 * n || s.at[0] != n) return HW_SEQUENTIAL_OTHER;
    decoder->scan.components = decoder->components;
    for (size_t c = 0; c < n; c++) {
        const uint8_t *entry = s.at + 1 + 2 * c;
        component *p = &decoder->component[c];
        p->dc = entry[1] >> 4;
        p->ac = entry[1] & 15;
        if (entry[0] != p->id || p->dc > 3 || p->ac > 3 || !(decoder->dcs >> p->dc & 1) ||
            !(decoder->acs >> p->ac & 1) || !(decoder->quants >> p->quant & 1))
            return HW_SEQUENTIAL_OTHER;
        decoder->scan.component[c] =
            (hw_scan_component){p->across, p->down, &decoder->dc[p->dc], &decoder->ac[p->ac], 0};
    }
    const uint8_t *spectrum = s.at + 1 + 2 * n;
    return spectrum[0] == 0 && spectrum[1] == 63 && spectrum[2] == 0 ? HW_SEQUENTIAL_OK : HW_SEQUENTIAL_OTHER;
}

int hw_sequential_open(hw_sequential *decoder, const uint8_t *bytes, size_t size, int width, int height) {
    int color = NO_COLOR;
    decoder->components = 0;
    decoder->quants = decoder->dcs = decoder->acs = 0;
    decoder->scan.restart_interval = 0;
    size_t at = 2; /* after the start-of-image marker */
    for (;;) {
        if (at + 4 > size || bytes[at] != 0xFF) return HW_SEQUENTIAL_OTHER;
        const int marker = bytes[at + 1];
        if (marker == 0xFF) { /* fill byte */
            at++;
            continue;
        }
        const size_t length = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (length < 2 || length > size - at - 2) return HW_SEQUENTIAL_OTHER;
        const segment s = {bytes + at + 4, length - 2};
        at += 2 + length;
        int status = HW_SEQUENTIAL_OK;
        switch (marker) {
        case 0xC0:
        case 0xC1: status = read_frame(decoder, s, width, height); break;
        case 0xC4: status = read_huffman(decoder, s); break;
        case 0xDB: status = read_quantization(decoder, s); break;
        case 0xDD:
            if (s.size != 2) return HW_SEQUENTIAL_OTHER;
            decoder->scan.restart_interval = s.at[0] << 8 | s.at[1];
            break;
        case 0xDA:
            status = read_scan(decoder, s);
            if (status != HW_SEQUENTIAL_OK || !has_ycc(decoder, color)) return HW_SEQUENTIAL_OTHER;
            decoder->data = bytes + at;
            decoder->end = bytes + size;
            return HW_SEQUENTIAL_OK;
        case 0xE0:
            if (s.size >= 14 && !memcmp(s.at, "JFIF", 5)) color = JFIF_COLOR;
            break;
        case 0xEE:
            if (s.size >= 12 && !memcmp(s.at, "Adobe", 5) && color != JFIF_COLOR) {
                if (s.at[11] > 1) return HW_SEQUENTIAL_OTHER;
                color = s.at[11] ? ADOBE_YCC : ADOBE_RGB;
            }
            break;
        default:
            if ((marker < 0xE0 || marker > 0xEF) && marker != 0xFE) return HW_SEQUENTIAL_OTHER;
        }
        if (status != HW_SEQUENTIAL_OK) return status;
    }
}

/* ---- rows ---- */

static int needed_components(const hw_sequential *decoder) {
    return decoder->channels == 1 ? 1 : decoder->components;
}

/* Samples of a component's row, at the column where the decoded MCUs begin. */
static uint8_t *row_of(const hw_sequential *decoder, const component *p, int row) {
    return decoder->samples.bytes + p->samples +
           (size_t)(row % (KEPT_ROWS * 8 * p->down)) * (size_t)p->stride;
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

int hw_sequential_begin(hw_sequential *decoder, int simd, int channels, int left, int right, int top) {
    const int mcu_width = 8 * decoder->across, mcu_height = 8 * decoder->down;
    /* Interpolated colors need a neighbor at each side, and the row above. */
    const int spare = decoder->across == 2 && channels == 3 ? 2 : 0;
    const int spare_rows = decoder->down == 2 && channels == 3 ? 1 : 0;
    decoder->simd = simd;
    decoder->channels = channels;
    decoder->left = left;
    decoder->right = right;
    decoder->next = top;
    decoder->scan.columns = (decoder->width + mcu_width - 1) / mcu_width;
    decoder->first = (left > spare ? left - spare : 0) / mcu_width;
    decoder->last = smaller((right + spare + mcu_width - 1) / mcu_width, decoder->scan.columns);
    decoder->kept_from = (top > spare_rows ? top - spare_rows : 0) / mcu_height;

    size_t samples = MARGIN, blocks = 0, flags = 0;
    const size_t mcus = (size_t)(decoder->last - decoder->first);
    for (int c = 0; c < decoder->components; c++) {
        component *p = &decoder->component[c];
        const size_t n = mcus * (size_t)p->across;
        p->stride = (ptrdiff_t)((n * 8 + MARGIN + 63) & ~(size_t)63);
        p->samples = samples;
        p->blocks = blocks;
        p->only_dc = flags;
        samples += (size_t)p->stride * KEPT_ROWS * 8 * (size_t)p->down;
        blocks += n * (size_t)p->down * HW_BLOCK * sizeof(int16_t);
        flags += n * (size_t)p->down;
    }
    const size_t row = (size_t)(right - left) + 2 + HW_SAMPLES_SLACK;
    if (hw_buffer_reserve(&decoder->samples, samples + HW_SAMPLES_SLACK) ||
        hw_buffer_reserve(&decoder->blocks, blocks) || hw_buffer_reserve(&decoder->only_dc, flags) ||
        hw_buffer_reserve(&decoder->upsampled, 2 * row))
        return HW_SEQUENTIAL_NO_MEMORY;
    memset(decoder->blocks.bytes, 0, blocks); /* also after a picture that was abandoned half-way */

    if (hw_scan_begin(&decoder->scan, (decoder->height + mcu_height - 1) / mcu_height, decoder->data,
                      (size_t)(decoder->end - decoder->data)))
        return HW_SEQUENTIAL_NO_MEMORY;
    for (decoder->decoded = 0; decoder->decoded < decoder->kept_from; decoder->decoded++)
        if (hw_scan_row(&decoder->scan, simd, 0, 0, NULL, NULL)) return HW_SEQUENTIAL_OTHER;
    return HW_SEQUENTIAL_OK;
}

/* Repeats the outermost samples of the picture, so that they have neighbors. */
static void close_edges(const hw_sequential *decoder, const component *p, uint8_t *row) {
    const int begin = decoder->first * 8 * p->across;
    if (begin == 0) row[-1] = row[0];
    if (decoder->last == decoder->scan.columns) row[p->width - begin] = row[p->width - begin - 1];
}

/* Decodes the samples of the next row of MCUs. */
static int decode_mcus(hw_sequential *decoder) {
    int16_t *blocks[3];
    uint8_t *only_dc[3];
    for (int c = 0; c < decoder->components; c++) {
        blocks[c] = (int16_t *)(decoder->blocks.bytes + decoder->component[c].blocks);
        only_dc[c] = decoder->only_dc.bytes + decoder->component[c].only_dc;
    }
    if (hw_scan_row(&decoder->scan, decoder->simd, decoder->first, decoder->last, blocks, only_dc))
        return HW_SEQUENTIAL_OTHER;
    const int mcus = decoder->last - decoder->first;
    for (int c = 0; c < decoder->components; c++) {
        const component *p = &decoder->component[c];
        const int across = mcus * p->across;
        if (c >= needed_components(decoder)) {
            memset(blocks[c], 0, (size_t)(across * p->down) * HW_BLOCK * sizeof(int16_t));
            continue;
        }
        for (int y = 0; y < p->down; y++) {
            uint8_t *out = row_of(decoder, p, (decoder->decoded * p->down + y) * 8);
            if (hw_inverse_dct(decoder->simd, blocks[c] + (ptrdiff_t)y * across * HW_BLOCK,
                               only_dc[c] + y * across, across, &decoder->quant[p->quant], out, p->stride))
                return HW_SEQUENTIAL_OTHER;
            if (c && decoder->across == 2)
                for (int row = 0; row < 8; row++) close_edges(decoder, p, out + row * p->stride);
        }
    }
    decoder->decoded++;
    return HW_SEQUENTIAL_OK;
}

/* Returns a row of color as wide as the luma of columns [left, right), or its samples themselves. */
static const uint8_t *color_row(hw_sequential *decoder, const component *p, int row, uint8_t *out) {
    if (decoder->across == 1) return row_of(decoder, p, row) + decoder->left - decoder->first * 8;
    const int begin = decoder->first * 8;
    const int from = decoder->left / 2 - begin, to = (decoder->right + 1) / 2 - begin;
    if (decoder->down == 1) {
        hw_upsample_2x1(decoder->simd, row_of(decoder, p, row), from, to, out);
    } else {
        const int near = row / 2, other = near + (row & 1 ? 1 : -1);
        const int far = other < 0 ? 0 : smaller(other, p->height - 1);
        hw_upsample_2x2(decoder->simd, row_of(decoder, p, near), row_of(decoder, p, far), from, to, out);
    }
    return out + decoder->left % 2;
}

int hw_sequential_read(hw_sequential *decoder, uint8_t *row) {
    const int here = decoder->next++;
    const int colors = decoder->channels == 3 && decoder->components == 3;
    const int below = colors && decoder->down == 2 ? smaller(here + 1, decoder->height - 1) : here;
    while (decoder->decoded <= below / (8 * decoder->down)) {
        const int status = decode_mcus(decoder);
        if (status != HW_SEQUENTIAL_OK) return status;
    }
    const int n = decoder->right - decoder->left;
    const component *p = decoder->component;
    const uint8_t *luma = row_of(decoder, p, here) + decoder->left - decoder->first * 8 * decoder->across;
    if (decoder->channels == 1)
        memcpy(row, luma, (size_t)n);
    else if (decoder->components == 1)
        hw_gray_to_rgb(luma, n, row);
    else {
        uint8_t *upsampled = decoder->upsampled.bytes;
        const uint8_t *blue = color_row(decoder, &p[1], here, upsampled);
        const uint8_t *red = color_row(decoder, &p[2], here, upsampled + (size_t)n + 2 + HW_SAMPLES_SLACK);
        hw_ycc_to_rgb(decoder->simd, luma, blue, red, n, row);
    }
    return HW_SEQUENTIAL_OK;
}
