#include "decoders.h"

#include <stdio.h>
#include <stdlib.h>

#include "files.h"
#include "jpeg_decoder.h"
#include "jpeg_header.h"

/* setup.py defines these if the headers of the libraries are there. */
#ifdef HIGHWAY_HAS_PNG
#include "png_decoder.h"
#include "png_header.h"
#endif
#ifdef HIGHWAY_HAS_WEBP
#include "webp_decoder.h"
#endif

struct hw_decoders {
    hw_drawing drawing;
    hw_jpeg *jpeg;
#ifdef HIGHWAY_HAS_PNG
    hw_png *png;
#endif
#ifdef HIGHWAY_HAS_WEBP
    hw_webp *webp;
#endif
};

static int make_all(hw_decoders *decoders) {
    if (!(decoders->jpeg = hw_jpeg_new(&decoders->drawing))) return -1;
#ifdef HIGHWAY_HAS_PNG
    if (!(decoders->png = hw_png_new(&decoders->drawing))) return -1;
#endif
#ifdef HIGHWAY_HAS_WEBP
    if (!(decoders->webp = hw_webp_new(&decoders->drawing))) return -1;
#endif
    return 0;
}

hw_decoders *hw_decoders_new(void) {
    hw_decoders *decoders = calloc(1, sizeof *decoders);
    if (decoders && make_all(decoders)) {
        hw_decoders_free(decoders);
        return NULL;
    }
    return decoders;
}

void hw_decoders_free(hw_decoders *decoders) {
    if (!decoders) return;
    hw_jpeg_free(decoders->jpeg);
#ifdef HIGHWAY_HAS_PNG
    hw_png_free(decoders->png);
#endif
#ifdef HIGHWAY_HAS_WEBP
    hw_webp_free(decoders->webp);
#endif
    hw_drawing_free(&decoders->drawing);
    free(decoders);
}

int64_t hw_decoders_by_library(const hw_decoders *decoders) {
    return hw_jpeg_by_library(decoders->jpeg);
}

int hw_decoders_version(int format, char *text, size_t n) {
    switch (format) {
    case HW_JPEG: {
        const int version = hw_jpeg_library_version();
        snprintf(text, n, "%d.%d.%d", version / 1000000, version / 1000 % 1000, version % 1000);
        return 1;
    }
#ifdef HIGHWAY_HAS_PNG
    case HW_PNG: snprintf(text, n, "%s", hw_png_library_version()); return 1;
#endif
#ifdef HIGHWAY_HAS_WEBP
    case HW_WEBP: {
        const int version = hw_webp_library_version();
        snprintf(text, n, "%d.%d.%d", version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF);
        return 1;
    }
#endif
    default: return 0;
    }
}

int hw_picture_inspect(const uint8_t *bytes, size_t size, size_t file_size, int oriented, int64_t max_pixels,
                       hw_picture *picture, char *message) {
#ifdef HIGHWAY_HAS_PNG
    if (hw_png_begins(bytes, size))
        return hw_png_inspect(bytes, size, file_size, oriented, max_pixels, picture, message);
#endif
#ifdef HIGHWAY_HAS_WEBP
    if (hw_webp_begins(bytes, size))
        return hw_webp_inspect(bytes, size, file_size, oriented, max_pixels, picture, message);
#endif
    return hw_jpeg_inspect(bytes, size, file_size, oriented, max_pixels, picture, message);
}

int hw_picture_decode(hw_decoders *decoders, const uint8_t *bytes, size_t size, const hw_picture *picture,
                      const hw_views *views, char *message) {
    switch (picture->format) {
#ifdef HIGHWAY_HAS_PNG
    case HW_PNG: return hw_png_decode(decoders->png, bytes, size, picture, views, message);
#endif
#ifdef HIGHWAY_HAS_WEBP
    case HW_WEBP: return hw_webp_decode(decoders->webp, bytes, size, picture, views, message);
#endif
    default: return hw_jpeg_decode(decoders->jpeg, bytes, size, picture, views, message);
    }
}
