#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Maximum number of immediate retries of calls that a signal interrupts. */
enum { INTERRUPTED = 100 };

int hw_file_failure(int number) {
    switch (number) {
    case EMFILE:
    case ENFILE:
    case ENOMEM: return HW_NO_HANDLE;
    /* Errors of the disk or the file server. */
    case EIO:
    case ESTALE:
    case EBUSY:
    case EAGAIN:
    case EINTR:
#ifdef __linux__
    case EREMOTEIO:
    case EKEYEXPIRED:
#endif
    /* Errors of the network path to it. */
    case ETIMEDOUT:
    case ETIME:
    case ENETDOWN:
    case ENETUNREACH:
    case ENETRESET:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN:
    case ESHUTDOWN:
    case ENOLINK:
#ifdef __linux__
    case ECOMM:
    case ENONET:
#endif
    case EPROTO:
    case EPIPE:
    case ENOBUFS: return HW_STORAGE;
    default: return HW_NO_FILE;
    }
}

/* Writes what failed and why to `message`; `number` is errno. */
static int failed(int number, const char *what, char *message) {
    snprintf(message, HW_MESSAGE_SIZE, "cannot be %s: %s", what, strerror(number));
    return hw_file_failure(number);
}

static int check(int file, hw_range range, size_t max_bytes, size_t *size, char *message) {
    struct stat info;
    if (fstat(file, &info)) return failed(errno, "examined", message);
    if (!S_ISREG(info.st_mode)) {
        snprintf(message, HW_MESSAGE_SIZE, "is %s, expected a regular file",
                 S_ISDIR(info.st_mode)    ? "a directory"
                 : S_ISFIFO(info.st_mode) ? "a FIFO"
                                          : "a device or socket");
        return HW_NO_FILE;
    }
    const int whole = range.start == HW_WHOLE;
    const uintmax_t there = (uintmax_t)info.st_size, wanted = whole ? there : range.size;
    if (wanted == 0) {
        snprintf(message, HW_MESSAGE_SIZE, "is empty (0 bytes)");
        return HW_BAD_FILE;
    }
    if (wanted > max_bytes) {
        snprintf(message, HW_MESSAGE_SIZE, "has %ju bytes, allowed are %zu", wanted, max_bytes);
        return HW_BAD_FILE;
    }
    if (!whole && ((uintmax_t)range.start > there || wanted > there - (uintmax_t)range.start)) {
        snprintf(message, HW_MESSAGE_SIZE,
                 "is cut off: its file has %ju bytes, expected %ju bytes from %jd on", there, wanted,
                 (intmax_t)range.start);
        return HW_BAD_FILE;
    }
    *size = (size_t)wanted;
    return HW_OK;
}

int hw_file_open(const char *path, hw_range range, size_t max_bytes, int soon, int *file, size_t *size,
                 char *message) {
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    for (int tries = 0; tries < INTERRUPTED; tries++) {
        *file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (*file >= 0 || errno != EINTR) break;
    }
    if (*file < 0) return failed(errno, "opened", message);
    const int status = check(*file, range, max_bytes, size, message);
    if (status != HW_OK) {
        close(*file);
        *file = -1;
        return status;
    }
#ifdef POSIX_FADV_WILLNEED
    if (soon) {
        const int whole = range.start == HW_WHOLE;
        posix_fadvise(*file, whole ? 0 : range.start, whole ? 0 : (off_t)*size, POSIX_FADV_WILLNEED);
    }
#endif
    return HW_OK;
}

int hw_file_take(int file, hw_range range, size_t wanted, hw_buffer *buffer, size_t *got, char *message) {
    const int64_t first = range.start == HW_WHOLE ? 0 : range.start;
    if (hw_buffer_reserve(buffer, wanted)) {
        snprintf(message, HW_MESSAGE_SIZE, "needs %zu bytes of memory, more than the system has", wanted);
        return HW_NO_MEMORY;
    }
    *got = 0;
    for (int interrupted = 0; *got < wanted;) {
        const ssize_t part = pread(file, buffer->bytes + *got, wanted - *got, (off_t)(first + (int64_t)*got));
        if (part < 0 && errno == EINTR && ++interrupted < INTERRUPTED) continue;
        if (part < 0) return failed(errno, "read", message);
        if (part == 0) break;
        *got += (size_t)part;
    }
    return HW_OK;
}

int hw_file_read(const char *path, hw_range range, size_t max_bytes, hw_buffer *buffer, size_t *got,
                 char *message) {
    int file;
    size_t size;
    int status = hw_file_open(path, range, max_bytes, 0, &file, &size, message);
    if (status != HW_OK) return status;
    status = hw_file_take(file, range, size, buffer, got, message);
    close(file);
    return status;
}
