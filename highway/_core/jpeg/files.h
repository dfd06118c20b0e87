/* Files into memory, whole or their beginning; and what can be wrong with them. */

#ifndef HIGHWAY_FILES_H
#define HIGHWAY_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum hw_status {
    HW_OK = 0,
    HW_NOT_JPEG,  /* some other format, or no picture at all */
    HW_NO_FILE,   /* the file could not be read, and will not be */
    HW_NO_HANDLE, /* the system has no file handle or memory to open it */
    HW_STORAGE,   /* what the file lies on does not answer as it should: it may do so again */
    HW_UNTRIED,   /* nor was the file tried, after another one of the same batch */
    HW_BAD_FILE,  /* damaged, unsupported, or over a limit */
    HW_NO_MEMORY,
};

/* On anything but HW_OK, `message` says what was found and what was expected. */
enum { HW_MESSAGE_SIZE = 256 };

/* What an error of open, fstat or read says of a file: HW_NO_FILE, HW_NO_HANDLE or HW_STORAGE. */
int hw_file_failure(int number);

/* Opens a regular file of 1 to `max_bytes` bytes; `soon` tells the system that all of it will be read before
 * long. The caller closes `file`. */
int hw_file_open(const char *path, size_t max_bytes, int soon, int *file, size_t *size, char *message);

/* The first `wanted` bytes of an open file, into a buffer that grows; `got` are fewer where it has become
 * shorter. */
int hw_file_take(int file, size_t wanted, hw_buffer *buffer, size_t *got, char *message);

/* A whole file, as hw_file_open and hw_file_take. */
int hw_file_read(const char *path, size_t max_bytes, hw_buffer *buffer, size_t *got, char *message);

#endif
