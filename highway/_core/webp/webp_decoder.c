#include "webp_decoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "files.h"
#include "orientation.h"

enum { RIFF_HEAD = 12, HEADER_BYTES = 30 };

/* Pixels around a window whose upsampled color libwebp makes from neighbors that the window does not have. */
enum { CROP_MARGIN = 2 };

/* The decoded part of a picture. */
typedef struct {
    int left, top, right, bottom;
} part;

struct hw_webp {
    hw_drawing *drawing;
    hw_buffer pixels; /* RGB */
    hw_buffer line;   /* a converted row */
};

hw_webp *hw_webp_new(hw_drawing *drawing) {
    hw_webp *decoder = calloc(1, sizeof *decoder);
    if (decoder) decoder->drawing = drawing;
    return decoder;
}

void hw_webp_free(hw_webp *decoder) {
    if (!decoder) return;
    hw_buffer_free(&decoder->pixels);
    hw_buffer_free(&decoder->line);
    free(decoder);
}

int hw_webp_library_version(void) {
    return WebPGetDecoderVersion();
}

static int refused(char *message, const char *why) {
    snprintf(message, HW_MESSAGE_SIZE, "is damaged: %s", why);
    return HW_REFUSED;
}

/* ---- header ---- */

static uint32_t little(const uint8_t *p, int n) {
    uint32_t value = 0;
    while (n--) value = value << 8 | p[n];
    return value;
}

static int is_kind(const uint8_t *kind, const char *name) {
    return !memcmp(kind, name, 4);
}

int hw_webp_begins(const uint8_t *bytes, size_t size) {
    return size >= RIFF_HEAD && is_kind(bytes, "RIFF") && is_kind(bytes + 8, "WEBP");
}

/* Reads the size of the canvas out of the first HEADER_BYTES bytes; 0 if they are not valid. */
static int read_size(const uint8_t *bytes, hw_picture *picture) {
    static const uint8_t START_CODE[3] = {0x9D, 0x01, 0x2A};
    const uint8_t *kind = bytes + RIFF_HEAD, *data = bytes + 20;
    if (is_kind(kind, "VP8X")) {
        picture->height = (int)little(data + 7, 3) + 1;
        picture->width = (int)little(data + 4, 3) + 1;
    } else if (is_kind(kind, "VP8 ") && !memcmp(data + 3, START_CODE, sizeof START_CODE)) {
        picture->height = (int)little(data + 8, 2) & 0x3FFF;
        picture->width = (int)little(data + 6, 2) & 0x3FFF;
    } else if (is_kind(kind, "VP8L") && data[0] == 0x2F) {
        const uint32_t packed = little(data + 1, 4);
        picture->height = (int)(packed >> 14 & 0x3FFF) + 1;
        picture->width = (int)(packed & 0x3FFF) + 1;
    } else {
        return 0;
    }
    return picture->height > 0 && picture->width > 0;
}

/* The data of the first chunk of this name, as far as it is there; 0 if there is none. */
static int find_chunk(const uint8_t *bytes, size_t size, const char *name, hw_part *found) {
    for (size_t at = RIFF_HEAD; at + 8 <= size;) {
        const size_t length = little(bytes + at + 4, 4), rest = size - at - 8;
        if (is_kind(bytes + at, name)) {
            *found = (hw_part){bytes + at + 8, length < rest ? length : rest};
            return 1;
        }
        if (length > rest) break;
        at += 8 + length + (length & 1);
    }
    return 0;
}

int hw_webp_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                    hw_picture *picture, char *message) {
    if (size < HEADER_BYTES && size < file_size) return HW_MORE;
    *picture = (hw_picture){0, 0, 1, HW_WEBP, 0};
    if (size < HEADER_BYTES || !read_size(bytes, picture))
        return refused(message, "a WebP without a valid header (VP8, VP8L or VP8X)");
    if ((int64_t)picture->height * picture->width > max_pixels) {
        snprintf(message, HW_MESSAGE_SIZE, "has %d x %d pixels, allowed are %lld in total (max_pixels)",
                 picture->height, picture->width, (long long)max_pixels);
        return HW_BAD_FILE;
    }
    if (!oriented) return HW_OK;
    if (size < file_size) return HW_MORE;
    hw_metadata metadata;
    metadata.exif_parts = find_chunk(bytes, size, "EXIF", &metadata.exif[0]);
    if (!find_chunk(bytes, size, "XMP ", &metadata.xmp)) metadata.xmp = (hw_part){NULL, 0};
    picture->orientation = hw_orientation(&metadata);
    if (picture->orientation >= 5) {
        const int height = picture->height;
        picture->height = picture->width;
        picture->width = height;
    }
    return HW_OK;
}

/* ---- pixels ---- */

/* Decodes a frame. One that covers the canvas is decoded only in the rows and columns of `wanted`; of any
 * other, `wanted` becomes the whole canvas, which is black around it. */
static int decode_frame(hw_webp *decoder, const WebPIterator *frame, int height, int width, part *wanted,
                        char *message) {
    WebPDecoderConfig config;
    const int covers = frame->width == width && frame->height == height;
    if (!covers) *wanted = (part){0, 0, width, height};
    const size_t row = (size_t)(wanted->right - wanted->left) * 3;
    const size_t size = row * (size_t)(wanted->bottom - wanted->top);
    if (hw_buffer_reserve(&decoder->pixels, size)) return hw_out_of_memory(message);
    if (!covers) memset(decoder->pixels.bytes, 0, size);
    VP8StatusCode status = VP8_STATUS_INVALID_PARAM;
    if (WebPInitDecoderConfig(&config)) {
        const size_t begin = (size_t)frame->y_offset * row + (size_t)frame->x_offset * 3;
        config.options.use_cropping = covers;
        config.options.crop_left = wanted->left;
        config.options.crop_top = wanted->top;
        config.options.crop_width = wanted->right - wanted->left;
        config.options.crop_height = wanted->bottom - wanted->top;
        config.output.colorspace = MODE_RGB;
        config.output.is_external_memory = 1;
        config.output.u.RGBA.rgba = decoder->pixels.bytes + begin;
        config.output.u.RGBA.stride = (int)row;
        config.output.u.RGBA.size = size - begin;
        status = WebPDecode(frame->fragment.bytes, frame->fragment.size, &config);
        WebPFreeDecBuffer(&config.output);
    }
    if (status == VP8_STATUS_OUT_OF_MEMORY) return hw_out_of_memory(message);
    return status == VP8_STATUS_OK ? HW_OK : refused(message, "libwebp does not decode its first frame");
}

typedef struct {
    const uint8_t *next; /* the first used column of the next row */
    size_t stride;
    int columns;
} rgb_reader;

static void convert(const uint8_t *rgb, int count, int channels, uint8_t *out) {
    if (channels == 1)
        hw_rgb_to_gray(rgb, (size_t)count, out);
    else
        memcpy(out, rgb, (size_t)count * 3);
}

static int read_rows(void *source, const hw_target *target, uint8_t **lines, int wanted) {
    rgb_reader *reader = source;
    for (int k = 0; k < wanted; k++, reader->next += reader->stride)
        convert(reader->next, reader->columns, target->channels, lines[k]);
    return wanted;
}

/* Decodes the first frame of the canvas of a file; see `decode_frame`. */
static int decode_first(hw_webp *decoder, const uint8_t *bytes, size_t size, int height, int width,
                        part *wanted, char *message) {
    const WebPData data = {bytes, size};
    WebPDemuxer *demuxer = WebPDemux(&data);
    if (!demuxer) return refused(message, "a WebP that is cut off, or whose chunks are not valid");
    int status;
    WebPIterator frame;
    if (WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT) != (uint32_t)height ||
        WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH) != (uint32_t)width) {
        status = refused(message, "it contains headers of different sizes");
    } else if (!WebPDemuxGetFrame(demuxer, 1, &frame)) {
        status = refused(message, "a WebP without a frame");
    } else {
        status = decode_frame(decoder, &frame, height, width, wanted, message);
        WebPDemuxReleaseIterator(&frame);
    }
    WebPDemuxDelete(demuxer);
    return status;
}

/* The columns or rows to decode for those from `lowest` to before `highest`: the first is even, as colors may
 * be shared by two of them. */
static void widen(int lowest, int highest, int end, int *from, int *to) {
    *from = lowest > CROP_MARGIN ? (lowest - CROP_MARGIN) & ~1 : 0;
    *to = highest + CROP_MARGIN < end ? highest + CROP_MARGIN : end;
}

static int draw_rows(hw_webp *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                     const hw_views *views, char *message) {
    hw_drawing *drawing = decoder->drawing;
    const int height = picture->height, width = picture->width;
    if (hw_drawing_build(drawing, picture, views, width, height, 1.0)) return hw_out_of_memory(message);
    part found;
    widen(drawing->left, drawing->right, width, &found.left, &found.right);
    widen(drawing->top, drawing->bottom, height, &found.top, &found.bottom);
    const int status = decode_first(decoder, bytes, size, height, width, &found, message);
    if (status != HW_OK) return status;
    rgb_reader reader = {NULL, (size_t)(found.right - found.left) * 3, drawing->right - drawing->left};
    reader.next = decoder->pixels.bytes + (size_t)(drawing->top - found.top) * reader.stride +
                  (size_t)(drawing->left - found.left) * 3;
    const hw_rows rows = {
        drawing->left, drawing->top, (size_t)reader.columns * (size_t)views->targets->channels,
        &reader,       read_rows,    0};
    return hw_draw_rows(drawing, views, &rows, message);
}

static int draw_turned(hw_webp *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                       const hw_views *views, char *message) {
    hw_turned turned;
    const int channels = views->targets->channels, swapped = picture->orientation >= 5;
    const int height = swapped ? picture->width : picture->height;
    const int width = swapped ? picture->height : picture->width;
    part whole = {0, 0, width, height};
    const int status = decode_first(decoder, bytes, size, height, width, &whole, message);
    if (status != HW_OK) return status;
    if (hw_turned_make(decoder->drawing, picture, channels, &turned) ||
        hw_buffer_reserve(&decoder->line, (size_t)width * (size_t)channels))
        return hw_out_of_memory(message);
    for (int y = 0; y < height; y++) {
        convert(decoder->pixels.bytes + (size_t)y * (size_t)width * 3, width, channels, decoder->line.bytes);
        hw_turned_put(&turned, y, 0, 1, decoder->line.bytes, width, channels);
    }
    return hw_draw_turned(decoder->drawing, picture, views, 0, message);
}

int hw_webp_decode(hw_webp *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                   const hw_views *views, char *message) {
    const int status = picture->orientation == 1 ? draw_rows(decoder, bytes, size, picture, views, message)
                                                 : draw_turned(decoder, bytes, size, picture, views, message);
    hw_buffer_trim(&decoder->pixels, (size_t)picture->height * (size_t)picture->width * 3);
    return status;
}
