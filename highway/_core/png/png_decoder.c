#include "png_decoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libdeflate.h>

#include "files.h"
#include "png_filters.h"
#include "png_header.h"

/* No byte of a zlib stream yields more bytes. */
#define MOST_EXPANSION 1032

enum { PASSES = 7, COLORS = 256 };

/* A picture, or a pass of an interlaced one: the pixels from (y, x) on, in steps. */
typedef struct {
    int y, x, down, right;
    int height, width;
    size_t row_bytes; /* without the number of the filter */
} pass;

struct hw_png {
    hw_drawing *drawing;
    struct libdeflate_decompressor *decompressor;
    hw_buffer joined; /* compressed data of several chunks */
    hw_buffer raw;    /* rows, each after the number of its filter */
    hw_buffer zeros;  /* the row above the first */
    hw_buffer line;   /* a converted row */
    /* the picture */
    hw_png_info info;
    int wide;                  /* whether its 16 bits are kept */
    uint8_t colors[COLORS][3]; /* of numbers of less than 8 bits, or of a palette */
    uint8_t grays[COLORS];     /* their luma */
    pass passes[PASSES];
    int pass_count;
    /* the next row */
    uint8_t *next;
    const uint8_t *above;
};

hw_png *hw_png_new(hw_drawing *drawing) {
    hw_png *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return NULL;
    decoder->drawing = drawing;
    decoder->decompressor = libdeflate_alloc_decompressor();
    if (!decoder->decompressor) {
        free(decoder);
        return NULL;
    }
    return decoder;
}

void hw_png_free(hw_png *decoder) {
    if (!decoder) return;
    libdeflate_free_decompressor(decoder->decompressor);
    hw_buffer_free(&decoder->joined);
    hw_buffer_free(&decoder->raw);
    hw_buffer_free(&decoder->zeros);
    hw_buffer_free(&decoder->line);
    free(decoder);
}

const char *hw_png_library_version(void) {
    return LIBDEFLATE_VERSION_STRING;
}

static int refused(char *message, const char *why) {
    snprintf(message, HW_MESSAGE_SIZE, "is damaged: %s", why);
    return HW_REFUSED;
}

/* The file may be memory that another program writes to. */
static int changed(char *message) {
    snprintf(message, HW_MESSAGE_SIZE, "was changed while it was read");
    return HW_BAD_FILE;
}

/* ---- chunks ---- */

static int is_kind(const uint8_t *kind, const char *name) {
    return !memcmp(kind, name, 4);
}

static int is_name(const uint8_t *kind) {
    for (int i = 0; i < 4; i++)
        if ((kind[i] | 0x20) < 'a' || (kind[i] | 0x20) > 'z') return 0;
    return 1;
}

static int is_sound(const uint8_t *chunk, size_t length) {
    return libdeflate_crc32(0, chunk + 4, 4 + length) == hw_png_number(chunk + 8 + length);
}

static void set_colors(hw_png *decoder, const uint8_t *palette, size_t length) {
    memset(decoder->colors, 0, sizeof decoder->colors);
    memcpy(decoder->colors, palette, length);
    hw_rgb_to_gray((const uint8_t *)decoder->colors, COLORS, decoder->grays);
}

static void set_grays(hw_png *decoder, int bits) {
    for (int i = 0; i < 1 << bits; i++) {
        decoder->grays[i] = (uint8_t)(i * 255 / ((1 << bits) - 1));
        memset(decoder->colors[i], decoder->grays[i], 3);
    }
}

/* Finds the compressed data and the palette. Chunks that do not change pixels are skipped unchecked. */
static int read_chunks(hw_png *decoder, const uint8_t *bytes, size_t size, const uint8_t **data,
                       size_t *data_size, char *message) {
    int parts = 0, has_palette = 0;
    size_t total = 0, joined = 0;
    const uint8_t *first = NULL;
    for (int copying = 0; copying < 2; copying++) {
        for (size_t at = HW_PNG_SIGNATURE;;) {
            const uint8_t *chunk = bytes + at, *kind = chunk + 4;
            if (size - at < 12) return refused(message, "a PNG that ends before its chunk IEND");
            const size_t length = hw_png_number(chunk);
            if (length > size - at - 12 || !is_name(kind))
                return refused(message, "a chunk that is cut off, or has no name");
            if (is_kind(kind, "IEND")) break;
            at += 12 + length;
            if (kind[0] & 0x20) continue; /* not needed for the pixels */
            if (is_kind(kind, "IDAT")) {
                if (copying) {
                    if (length > total - joined) return changed(message);
                    memcpy(decoder->joined.bytes + joined, chunk + 8, length);
                    joined += length;
                    continue;
                }
                if (!parts++) first = chunk + 8;
                total += length;
                continue;
            }
            if (copying) continue;
            if (!is_sound(chunk, length)) return refused(message, "a chunk does not match its checksum");
            if (is_kind(kind, "PLTE") && !parts && !has_palette && length % 3 == 0 && length <= 3 * COLORS) {
                has_palette = 1;
                if (decoder->info.color == HW_PNG_PALETTE) set_colors(decoder, chunk + 8, length);
            } else if (chunk != bytes + HW_PNG_SIGNATURE) {
                return refused(message, "an unknown chunk, or a chunk in the wrong place");
            }
        }
        if (!total || (decoder->info.color == HW_PNG_PALETTE && !has_palette))
            return refused(message, "a PNG without pixels, or without its palette");
        *data = first;
        *data_size = total;
        if (parts == 1) return HW_OK;
        if (!copying && hw_buffer_reserve(&decoder->joined, total)) return hw_out_of_memory(message);
    }
    *data = decoder->joined.bytes;
    return HW_OK;
}

/* ---- rows ---- */

/* Lists the passes; returns the bytes of all rows with the numbers of their filters. */
static size_t list_passes(hw_png *decoder) {
    static const uint8_t ADAM7[PASSES][4] = {{0, 0, 8, 8}, {0, 4, 8, 8}, {4, 0, 8, 4}, {0, 2, 4, 4},
                                             {2, 0, 4, 2}, {0, 1, 2, 2}, {1, 0, 2, 1}};
    const hw_png_info *info = &decoder->info;
    size_t bytes = 0;
    decoder->pass_count = 0;
    for (int k = 0; k < (info->interlaced ? PASSES : 1); k++) {
        pass p = {0, 0, 1, 1, info->height, info->width, 0};
        if (info->interlaced) {
            p = (pass){ADAM7[k][0], ADAM7[k][1], ADAM7[k][2], ADAM7[k][3], 0, 0, 0};
            p.height = (info->height - p.y + p.down - 1) / p.down;
            p.width = (info->width - p.x + p.right - 1) / p.right;
        }
        if (p.height <= 0 || p.width <= 0) continue;
        p.row_bytes = ((size_t)p.width * (size_t)(info->bits * info->samples) + 7) / 8;
        bytes += (p.row_bytes + 1) * (size_t)p.height;
        decoder->passes[decoder->pass_count++] = p;
    }
    return bytes;
}

static int has_known_filters(const hw_png *decoder) {
    const uint8_t *row = decoder->raw.bytes;
    for (int k = 0; k < decoder->pass_count; k++)
        for (int y = 0; y < decoder->passes[k].height; y++, row += decoder->passes[k].row_bytes + 1)
            if (*row > HW_PNG_LAST_FILTER) return 0;
    return 1;
}

static void begin_pass(hw_png *decoder) {
    decoder->above = decoder->zeros.bytes;
}

/* Undoes the filter of the next row, and returns it. */
static const uint8_t *next_row(hw_png *decoder, size_t row_bytes, int simd) {
    uint8_t *row = decoder->next + 1;
    const int pixel = decoder->info.bits * decoder->info.samples / 8;
    hw_png_unfilter(simd, row[-1], row, decoder->above, row_bytes, pixel ? (size_t)pixel : 1);
    decoder->above = row;
    decoder->next = row + row_bytes;
    return row;
}

static void convert_numbers(const hw_png *decoder, const uint8_t *row, int x, int count, int channels,
                            uint8_t *out) {
    const int bits = decoder->info.bits, mask = (1 << bits) - 1;
    for (int i = x; i < x + count; i++) {
        const size_t bit = (size_t)i * (size_t)bits;
        const int number = row[bit / 8] >> (8 - bits - (int)(bit % 8)) & mask;
        if (channels == 1)
            *out++ = decoder->grays[number];
        else
            for (int c = 0; c < 3; c++) *out++ = decoder->colors[number][c];
    }
}

static uint16_t big(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

/* Converts pixels of 16 bits to gray or RGB of 16 bits. */
static void convert_wide(const uint8_t *in, int samples, int count, int channels, uint16_t *out) {
    const int second = samples > 2 ? 2 : 0, third = 2 * second; /* offsets of green and blue */
    for (int i = 0; i < count; i++, in += 2 * samples, out += channels) {
        const uint16_t rgb[3] = {big(in), big(in + second), big(in + third)};
        if (channels == 3)
            memcpy(out, rgb, sizeof rgb);
        else if (samples > 2)
            hw_rgb_to_gray16(rgb, 1, out);
        else
            *out = rgb[0];
    }
}

/* Converts `count` pixels of a row from column `x` on to gray or RGB without alpha: of 16 bits all or the
 * upper 8, otherwise 8 bits. */
static void convert(const hw_png *decoder, const uint8_t *row, int x, int count, int channels, uint8_t *out) {
    const hw_png_info *info = &decoder->info;
    if (decoder->wide) {
        convert_wide(row + (ptrdiff_t)x * 2 * info->samples, info->samples, count, channels, (uint16_t *)out);
        return;
    }
    if (info->bits < 8 || info->color == HW_PNG_PALETTE) {
        convert_numbers(decoder, row, x, count, channels, out);
        return;
    }
    const int bytes = info->bits / 8, step = bytes * info->samples;
    const uint8_t *in = row + (ptrdiff_t)x * step;
    if (step == channels) {
        memcpy(out, in, (size_t)count * (size_t)channels);
    } else if (info->samples <= 2) {
        for (int i = 0; i < count; i++, in += step)
            for (int c = 0; c < channels; c++) *out++ = *in;
    } else if (channels == 3) {
        for (int i = 0; i < count; i++, in += step, out += 3) {
            out[0] = in[0];
            out[1] = in[bytes];
            out[2] = in[2 * bytes];
        }
    } else {
        for (int i = 0; i < count; i++, in += step) {
            const uint8_t rgb[3] = {in[0], in[bytes], in[2 * bytes]};
            hw_rgb_to_gray(rgb, 1, out++);
        }
    }
}

typedef struct {
    hw_png *decoder;
    int left, columns;
} row_reader;

static int read_rows(void *source, const hw_target *target, uint8_t **lines, int wanted) {
    const row_reader *reader = source;
    for (int k = 0; k < wanted; k++) {
        const uint8_t *row = next_row(reader->decoder, reader->decoder->passes[0].row_bytes, target->simd);
        convert(reader->decoder, row, reader->left, reader->columns, target->channels, lines[k]);
    }
    return wanted;
}

static int draw_rows(hw_png *decoder, const hw_picture *picture, const hw_views *views, char *message) {
    hw_drawing *drawing = decoder->drawing;
    const hw_target *target = views->targets;
    if (hw_drawing_build(drawing, picture, views, picture->width, picture->height, 1.0))
        return hw_out_of_memory(message);
    row_reader reader = {decoder, drawing->left, drawing->right - drawing->left};
    begin_pass(decoder);
    for (int row = 0; row < drawing->top; row++)
        next_row(decoder, decoder->passes[0].row_bytes, target->simd);
    const size_t row_bytes = (size_t)reader.columns * (size_t)(target->channels << decoder->wide);
    const hw_rows rows = {drawing->left, drawing->top, row_bytes, &reader, read_rows, decoder->wide};
    return hw_draw_rows(drawing, views, &rows, message);
}

/* An interlaced or turned picture. */
static int draw_whole(hw_png *decoder, const hw_picture *picture, const hw_views *views, char *message) {
    hw_turned turned;
    const int simd = views->targets->simd, channels = views->targets->channels;
    const int size = channels << decoder->wide;
    if (hw_turned_make(decoder->drawing, picture, size, &turned) ||
        hw_buffer_reserve(&decoder->line, (size_t)decoder->info.width * (size_t)size))
        return hw_out_of_memory(message);
    for (int k = 0; k < decoder->pass_count; k++) {
        const pass *p = &decoder->passes[k];
        begin_pass(decoder);
        for (int y = 0; y < p->height; y++) {
            const uint8_t *row = next_row(decoder, p->row_bytes, simd);
            convert(decoder, row, 0, p->width, channels, decoder->line.bytes);
            hw_turned_put(&turned, p->y + y * p->down, p->x, p->right, decoder->line.bytes, p->width, size);
        }
    }
    return hw_draw_turned(decoder->drawing, picture, views, decoder->wide, message);
}

static int decode(hw_png *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                  const hw_views *views, char *message) {
    const uint8_t *data;
    size_t data_size;
    if (size < HW_PNG_HEAD || !hw_png_read_info(bytes, &decoder->info))
        return refused(message, "a PNG without a valid header (IHDR)");
    decoder->wide = views->targets->wide && decoder->info.bits == 16;
    if (decoder->info.color == HW_PNG_GRAY && decoder->info.bits < 8) set_grays(decoder, decoder->info.bits);
    const int swapped = picture->orientation >= 5;
    if (decoder->info.height != (swapped ? picture->width : picture->height) ||
        decoder->info.width != (swapped ? picture->height : picture->width))
        return changed(message);
    int status = read_chunks(decoder, bytes, size, &data, &data_size, message);
    if (status != HW_OK) return status;
    const size_t needed = list_passes(decoder);
    const size_t pixel_bits = (size_t)(decoder->info.bits * decoder->info.samples);
    const size_t row_bytes = ((size_t)decoder->info.width * pixel_bits + 7) / 8;
    if (needed / MOST_EXPANSION > data_size) return refused(message, "too little data for its pixels");
    if (hw_buffer_reserve(&decoder->raw, needed + HW_PNG_ROW_SLACK) ||
        hw_buffer_reserve(&decoder->zeros, row_bytes + HW_PNG_ROW_SLACK))
        return hw_out_of_memory(message);
    if (libdeflate_zlib_decompress(decoder->decompressor, data, data_size, decoder->raw.bytes, needed,
                                   NULL) != LIBDEFLATE_SUCCESS)
        return refused(message, "its data do not decompress to its pixels");
    if (!has_known_filters(decoder)) return refused(message, "a row has an unknown filter");
    decoder->next = decoder->raw.bytes;
    return decoder->info.interlaced || picture->orientation != 1
               ? draw_whole(decoder, picture, views, message)
               : draw_rows(decoder, picture, views, message);
}

int hw_png_decode(hw_png *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                  const hw_views *views, char *message) {
    const int status = decode(decoder, bytes, size, picture, views, message);
    const size_t pixels = (size_t)picture->height * (size_t)picture->width;
    hw_buffer_trim(&decoder->joined, size);
    hw_buffer_trim(&decoder->raw, pixels * (size_t)(decoder->info.bits * decoder->info.samples) / 8);
    return status;
}
