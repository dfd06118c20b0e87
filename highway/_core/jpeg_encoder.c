#include "jpeg_encoder.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#include <jerror.h>

typedef struct {
    struct jpeg_compress_struct cinfo; /* first, so that callbacks find the rest */
    struct jpeg_error_mgr errors;
    jmp_buf escape;
    char *message;
    unsigned char *room; /* ours, as large as a file becomes, so that libjpeg needs none of its own */
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

int hw_jpeg_encode(const uint8_t *pixels, ptrdiff_t stride, int height, int width, int channels, int quality,
                   uint8_t **file, size_t *size, char *message) {
    encoder self;
    self.cinfo.err = jpeg_std_error(&self.errors);
    self.errors.error_exit = on_error;
    self.errors.emit_message = on_message;
    self.errors.output_message = on_output;
    self.message = message;
    const size_t most = 2048 + ((size_t)height + 15) * ((size_t)width + 15) * 6;
    self.room = malloc(most);
    if (!self.room) return HW_NO_MEMORY;
    self.file = self.room;
    self.bytes = (unsigned long)most;
    if (setjmp(self.escape)) {
        const int status = self.errors.msg_code == JERR_OUT_OF_MEMORY ? HW_NO_MEMORY : HW_BAD_FILE;
        jpeg_destroy_compress(&self.cinfo);
        free(self.room);
        return status;
    }
    jpeg_create_compress(&self.cinfo);
    jpeg_mem_dest(&self.cinfo, &self.file, &self.bytes);
    self.cinfo.image_height = (JDIMENSION)height;
    self.cinfo.image_width = (JDIMENSION)width;
    self.cinfo.input_components = channels;
    self.cinfo.in_color_space = channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
    jpeg_set_defaults(&self.cinfo);
    jpeg_set_quality(&self.cinfo, quality, TRUE);
    jpeg_start_compress(&self.cinfo, TRUE);
    while (self.cinfo.next_scanline < self.cinfo.image_height) {
        JSAMPROW row = (JSAMPROW)(pixels + (ptrdiff_t)self.cinfo.next_scanline * stride);
        jpeg_write_scanlines(&self.cinfo, &row, 1);
    }
    jpeg_finish_compress(&self.cinfo);
    jpeg_destroy_compress(&self.cinfo);
    if (self.file != self.room) free(self.room);
    *file = self.file;
    *size = self.bytes;
    return HW_OK;
}
