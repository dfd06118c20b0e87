#include "jpeg_encoder.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#include <jerror.h>

typedef struct {
    struct jpeg_compress_struct cinfo; /* first, so that callbacks can reach the rest */
    struct jpeg_error_mgr errors;
    jmp_buf escape;
    char *message;
    unsigned char *room; /* large enough for the file, so that libjpeg allocates none */
    unsigned char *file;
    unsigned long bytes;
} encoder;

static void on_error(j_common_ptr cinfo) {
    encoder *self = (encoder *)cinfo;
    char text[JMSG_LENGTH_MAX];
    (*cinfo->err->format_message)(cinfo, text);
    snprintf(self->message, HW_MESSAGE_SIZE, "cannot be encoded: %.*s", HW_MESSAGE_SIZE - 32, text);
    longjmp(self->escape, 1);
}

static void on_message(j_common_ptr cinfo, int level) {}

static void on_output(j_common_ptr cinfo) {}

/* The part after setjmp: libjpeg jumps to self->escape on failure. */
static void encode(encoder *self, const uint8_t *pixels, ptrdiff_t stride, int height, int width,
                   int channels, int quality) {
    struct jpeg_compress_struct *cinfo = &self->cinfo;
    jpeg_create_compress(cinfo);
    jpeg_mem_dest(cinfo, &self->file, &self->bytes);
    cinfo->image_height = (JDIMENSION)height;
    cinfo->image_width = (JDIMENSION)width;
    cinfo->input_components = channels;
    cinfo->in_color_space = channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
    jpeg_set_defaults(cinfo);
    jpeg_set_quality(cinfo, quality, TRUE);
    jpeg_start_compress(cinfo, TRUE);
    while (cinfo->next_scanline < cinfo->image_height) {
        JSAMPROW row = (JSAMPROW)(pixels + (ptrdiff_t)cinfo->next_scanline * stride);
        jpeg_write_scanlines(cinfo, &row, 1);
    }
    jpeg_finish_compress(cinfo);
}

static int encode_guarded(encoder *self, const uint8_t *pixels, ptrdiff_t stride, int height, int width,
                          int channels, int quality) {
    int status;
    if (setjmp(self->escape)) {
        status = self->errors.msg_code == JERR_OUT_OF_MEMORY ? HW_NO_MEMORY : HW_BAD_FILE;
    } else {
        encode(self, pixels, stride, height, width, channels, quality);
        status = HW_OK;
    }
    jpeg_destroy_compress(&self->cinfo);
    return status;
}

int hw_jpeg_encode(const uint8_t *pixels, ptrdiff_t stride, int height, int width, int channels, int quality,
                   uint8_t **file, size_t *size, char *message) {
    const size_t most = 2048 + ((size_t)height + 15) * ((size_t)width + 15) * 6;
    /* Not automatic: automatic variables that change after setjmp are undefined after longjmp (C11
     * 7.13.2.1). */
    encoder *self = calloc(1, sizeof *self);
    if (!self) return HW_NO_MEMORY;
    self->room = malloc(most);
    if (!self->room) {
        free(self);
        return HW_NO_MEMORY;
    }
    self->cinfo.err = jpeg_std_error(&self->errors);
    self->errors.error_exit = on_error;
    self->errors.emit_message = on_message;
    self->errors.output_message = on_output;
    self->message = message;
    self->file = self->room;
    self->bytes = (unsigned long)most;
    const int status = encode_guarded(self, pixels, stride, height, width, channels, quality);
    if (status != HW_OK || self->file != self->room) free(self->room);
    if (status == HW_OK) {
        *file = self->file;
        *size = self->bytes;
    }
    free(self);
    return status;
}
