#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check(int file, size_t max_bytes, size_t *size, char *message) {
    struct stat info;
    if (fstat(file, &info)) {
        snprintf(message, HW_MESSAGE_SIZE, "cannot be examined: %s", strerror(errno));
        return HW_NO_FILE;
    }
    if (!S_ISREG(info.st_mode)) {
        snprintf(message, HW_MESSAGE_SIZE, "is %s, expected a regular file",
                 S_ISDIR(info.st_mode)    ? "a directory"
                 : S_ISFIFO(info.st_mode) ? "a FIFO"
                                          : "a device or socket");
        return HW_NO_FILE;
    }
    if (info.st_size == 0) {
        snprintf(message, HW_MESSAGE_SIZE, "is empty (0 bytes)");
        return HW_BAD_FILE;
    }
    if ((uintmax_t)info.st_size > max_bytes) {
        snprintf(message, HW_MESSAGE_SIZE, "has %jd bytes, allowed are %zu", (intmax_t)info.st_size,
                 max_bytes);
        return HW_BAD_FILE;
    }
    *size = (size_t)info.st_size;
    return HW_OK;
}

int hw_file_open(const char *path, size_t max_bytes, int soon, int *file, size_t *size, char *message) {
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    *file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*file < 0) {
        const int lacking = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
        snprintf(message, HW_MESSAGE_SIZE, "cannot be opened: %s", strerror(errno));
        return lacking ? HW_NO_HANDLE : HW_NO_FILE;
    }
    const int status = check(*file, max_bytes, size, message);
    if (status != HW_OK) {
        close(*file);
        *file = -1;
        return status;
    }
#ifdef POSIX_FADV_WILLNEED
    if (soon) posix_fadvise(*file, 0, 0, POSIX_FADV_WILLNEED);
#endif
    return HW_OK;
}

int hw_file_take(int file, size_t wanted, hw_buffer *buffer, size_t *got, char *message) {
    if (hw_buffer_reserve(buffer, wanted)) {
        snprintf(message, HW_MESSAGE_SIZE, "needs %zu bytes of memory, which are not there", wanted);
        return HW_NO_MEMORY;
    }
    *got = 0;
    while (*got < wanted) {
        const ssize_t part = pread(file, buffer->bytes + *got, wanted - *got, (off_t)*got);
        if (part < 0 && errno == EINTR) continue;
        if (part < 0) {
            snprintf(message, HW_MESSAGE_SIZE, "cannot be read: %s", strerror(errno));
            return HW_NO_FILE;
        }
        if (part == 0) break;
        *got += (size_t)part;
    }
    return HW_OK;
}

int hw_file_read(const char *path, size_t max_bytes, hw_buffer *buffer, size_t *got, char *message) {
    int file;
    size_t size;
    int status = hw_file_open(path, max_bytes, 0, &file, &size, message);
    if (status != HW_OK) return status;
    status = hw_file_take(file, size, buffer, got, message);
    close(file);
    return status;
}
