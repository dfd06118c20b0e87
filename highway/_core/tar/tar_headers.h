/* Reads the headers of a tar file one after the other: ustar, GNU and pax. */

#ifndef HIGHWAY_TAR_HEADERS_H
#define HIGHWAY_TAR_HEADERS_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum hw_tar_status {
    HW_TAR_MEMBER = 0, /* a regular file */
    HW_TAR_END,
    HW_TAR_REFUSED,    /* a member that is no regular file: its type says what it is */
    HW_TAR_CUT_HEADER, /* the file ends inside of a header */
    HW_TAR_CUT_MEMBER, /* the file ends inside of a member */
    HW_TAR_CUT_AFTER,  /* the file ends after an extended header, without its member */
    HW_TAR_CHECKSUM,   /* a header is damaged, or is no header */
    HW_TAR_NUMBER,     /* a number in a header is not valid */
    HW_TAR_EXTENDED,   /* an extended header is not valid */
    HW_TAR_TRAILING,   /* there is something after the end */
    HW_TAR_READ,       /* reading failed */
    HW_TAR_NO_MEMORY,
};

/* Copies up to `size` bytes from `offset` on to `into`; returns how many, fewer only at the end of the file,
 * or a negative number on failure. */
typedef int64_t (*hw_tar_read)(void *source, int64_t offset, uint8_t *into, size_t size);

typedef struct {
    hw_tar_read read;
    void *source;
    int64_t size; /* of the tar file */
    int64_t at;   /* offset of the next header */
    /* What extended headers say of the next member. */
    hw_buffer name;
    size_t name_size;
    int64_t pax_size; /* -1: nothing */
    int extended, named, sparse;
    hw_buffer extension;
} hw_tar;

/* A member; `name` is valid until the next call. */
typedef struct {
    int64_t header, start, size;
    const uint8_t *name;
    size_t name_size;
    char type;
    uint8_t block[512];
    uint8_t joined[256];
} hw_tar_member;

void hw_tar_begin(hw_tar *tar, hw_tar_read read, void *source, int64_t size, int64_t at);
void hw_tar_free(hw_tar *tar);

/* Finds the next member that is not a folder. With any status but HW_TAR_END, `header` is the offset of what
 * it is about; a refused or cut member has its name. */
int hw_tar_next(hw_tar *tar, hw_tar_member *member);

/* hw_tar_read of a file, with an int * to its descriptor as the source. */
int64_t hw_tar_read_file(void *source, int64_t offset, uint8_t *into, size_t size);

#endif
