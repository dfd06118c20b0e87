/* Reads files, or their beginning, into memory; status codes of files. */

#ifndef HIGHWAY_FILES_H
#define HIGHWAY_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum hw_status {
    HW_OK = 0,
    HW_NOT_JPEG,  /* a format that is not decoded here, or not a picture */
    HW_REFUSED,   /* not sound, so that it is not decoded here; a more lenient decoder may */
    HW_NO_FILE,   /* the file cannot be read; a retry does not help */
    HW_NO_HANDLE, /* the system has no file handle or memory to open it */
    HW_STORAGE,   /* the storage failed; a retry may succeed */
    HW_UNTRIED,   /* the storage failed at another file of the batch; this one was not tried */
    HW_BAD_FILE,  /* damaged, unsupported, or over a limit */
    HW_NO_MEMORY,
};

/* On anything but HW_OK, `message` says what was found and what was expected. */
enum { HW_MESSAGE_SIZE = 256 };

/* The status for an error of open, fstat or read: HW_NO_FILE, HW_NO_HANDLE or HW_STORAGE. */
int hw_file_failure(int number);

/* The bytes of a file that are read: from `start` on `size` bytes, or all if `start` is HW_WHOLE. */
enum { HW_WHOLE = -1 };

typedef struct {
    int64_t start;
    size_t size;
} hw_range;

/* Opens a regular file with a range of 1 to `max_bytes` bytes, whose size it returns; `soon` prefetches the
 * range. The caller closes `file`. */
int hw_file_open(const char *path, hw_range range, size_t max_bytes, int soon, int *file, size_t *size,
                 char *message);

/* The first `wanted` bytes of the range of an open file, into a buffer that grows; `got` is smaller if the
 * file was shortened. */
int hw_file_take(int file, hw_range range, size_t wanted, hw_buffer *buffer, size_t *got, char *message);

/* A whole range, as hw_file_open and hw_file_take. */
int hw_file_read(const char *path, hw_range range, size_t max_bytes, hw_buffer *buffer, size_t *got,
                 char *message);

#endif
