#include "entry_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"

/* Before the key: a mark, the checksum of all that follows it, and the length of the key. */
#define MARK "HWENTRY\x01"
enum { MARK_BYTES = 8, CHECKED_FROM = MARK_BYTES + 4, KEY_FROM = CHECKED_FROM + 4 };

/* A use that is noted costs a write to the file system: at most one in so many seconds and entry. */
enum { NOTED_SECONDS = 60 };

/* In the folder of somebody else there may be links to other files, and pipes. */
#define HOW (O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)

static uint32_t little_endian(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Reads the beginning of a file into two parts of memory; `got` is smaller if the file is. Returns 0 or
 * errno. */
static int read_parts(int file, struct iovec *parts, size_t *got) {
    *got = 0;
    for (int part = 0; part < 2;) {
        const ssize_t more = preadv(file, parts + part, 2 - part, (off_t)*got);
        if (more < 0 && errno == EINTR) continue;
        if (more < 0) return errno;
        if (more == 0) return 0;
        *got += (size_t)more;
        for (size_t rest = (size_t)more; part < 2; part++) {
            struct iovec *now = &parts[part];
            if (rest < now->iov_len) {
                now->iov_base = (uint8_t *)now->iov_base + rest;
                now->iov_len -= rest;
                break;
            }
            rest -= now->iov_len;
        }
    }
    return 0;
}

static int is_sound(const uint8_t *head, const uint8_t *key, size_t key_size, const uint8_t *contents,
                    size_t size, int simd) {
    if (memcmp(head, MARK, MARK_BYTES) || little_endian(head + CHECKED_FROM) != key_size ||
        memcmp(head + KEY_FROM, key, key_size))
        return 0;
    uint32_t checksum = hw_crc32c(simd, 0, head + CHECKED_FROM, KEY_FROM - CHECKED_FROM + key_size);
    if (size) checksum = hw_crc32c(simd, checksum, contents, size);
    return checksum == little_endian(head + MARK_BYTES);
}

static int note_use(int file, const struct stat *info) {
    const time_t now = time(NULL), used = info->st_mtime;
    if (now - used <= NOTED_SECONDS && used - now <= NOTED_SECONDS) return 0;
    return futimens(file, NULL) ? errno : 0;
}

int hw_cache_entry_read(const char *path, const uint8_t *key, size_t key_size, uint8_t *contents, size_t size,
                        hw_buffer *head, int simd) {
    const size_t before = KEY_FROM + key_size;
    if (hw_buffer_reserve(head, before)) return HW_ENTRY_NO_MEMORY;
    const int file = open(path, HOW);
    if (file < 0) return errno;
    struct stat info;
    size_t got = 0;
    int status = fstat(file, &info) ? errno : 0;
    if (!status) {
        struct iovec parts[2] = {{head->bytes, before}, {contents, size}};
        status = read_parts(file, parts, &got);
    }
    if (!status) status = note_use(file, &info);
    close(file);
    if (status) return status;
    const int whole = got == before + size && (uintmax_t)info.st_size == got;
    return whole && is_sound(head->bytes, key, key_size, contents, size, simd) ? 0 : HW_ENTRY_DAMAGED;
}
