/* JPEG files to resampled pixels. Sound sequential pictures are decoded by jpeg_sequential.h, all others, and
 * those at a reduced scale, by libjpeg-turbo, with its setjmp on this side of the door.
 *
 * One hw_jpeg belongs to one thread. hw_jpeg_inspect looks at a file in memory without decoding;
 * hw_jpeg_decode decodes a window of it, at a reduced scale where the target is much smaller, and resamples
 * row by row into the output, so that neither the photograph nor the window exists whole in memory.
 */
#ifndef HIGHWAY_JPEG_DECODER_H
#define HIGHWAY_JPEG_DECODER_H

#include <stddef.h>
#include <stdint.h>

typedef struct hw_jpeg hw_jpeg;

enum hw_status {
    HW_OK = 0,
    HW_NOT_JPEG,  /* some other format, or no picture at all */
    HW_NO_FILE,   /* the file could not be read */
    HW_NO_HANDLE, /* the system has no file handle or memory to open it */
    HW_BAD_FILE,  /* damaged, unsupported, or over a limit */
    HW_NO_MEMORY,
};

enum { HW_MESSAGE_SIZE = 256 };

/* What a header says. Height and width are those of the upright picture when the orientation is applied. */
typedef struct {
    int height, width;
    int orientation; /* EXIF 1..8 */
} hw_picture;

typedef struct {
    double x0, y0, x1, y1; /* window in pixels of the upright picture */
    int height, width;     /* of the output */
    int channels;          /* 1 (grey) or 3 (RGB) */
    int filter;            /* enum hw_filter */
    int exact;             /* never decode at a reduced scale */
    int simd;              /* variant of simd.h */
    uint8_t *out;          /* height rows of width * channels bytes */
    ptrdiff_t out_stride;
} hw_target;

hw_jpeg *hw_jpeg_new(void);
void hw_jpeg_free(hw_jpeg *decoder);

/* Reads the header of `size` bytes; `oriented` says whether EXIF orientation counts. On anything but HW_OK
 * `message` (HW_MESSAGE_SIZE bytes) says what was found and what was expected. */
int hw_jpeg_inspect(const uint8_t *bytes, size_t size, int oriented, int64_t max_pixels, hw_picture *picture,
                    char *message);

/* Decodes. Every pixel of the target is written on HW_OK, none is promised otherwise. */
int hw_jpeg_decode(hw_jpeg *decoder, const uint8_t *bytes, size_t size, const hw_picture *picture,
                   const hw_target *target, char *message);

/* How many pictures libjpeg was asked to decode so far. */
int64_t hw_jpeg_by_library(const hw_jpeg *decoder);

/* Files one behind the other in a block of memory that grows, and keeps its size when it is used again. */
typedef struct {
    uint8_t *bytes;
    size_t capacity, used;
} hw_arena;

/* Forgets the files, and gives memory back if it was far more than they needed. */
void hw_arena_clear(hw_arena *arena);

/* Appends a whole regular file; it stands at arena->bytes + *offset then. */
int hw_read_file(const char *path, size_t max_bytes, hw_arena *arena, size_t *offset, size_t *size,
                 char *message);

/* Version of libjpeg-turbo that this was compiled with, as a number (2001005 is 2.1.5). */
int hw_jpeg_library_version(void);

#endif
