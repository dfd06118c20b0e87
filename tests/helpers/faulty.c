/* Preloaded into a process, lets calls about files fail: those named in FAULTY_CALL, for paths with
 * FAULTY_PATH in them, while the file FAULTY_SWITCH is there, with the error number that it holds. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

static int number(void) {
    int (*real)(const char *, int, ...) = REAL("open", int (*)(const char *, int, ...));
    char text[16] = "";
    const int file = real(getenv("FAULTY_SWITCH"), O_RDONLY);
    if (file < 0) return 0;
    const ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    return got > 0 ? atoi(text) : 0;
}

static int fails(const char *call, const char *path) {
    const char *failing = getenv("FAULTY_CALL"), *part = getenv("FAULTY_PATH");
    if (!failing || !part || !path || strcmp(failing, call) || !strstr(path, part)) return 0;
    const int before = errno, found = number();
    errno = found ? found : before;
    return found != 0;
}

static int fails_open_file(const char *call, int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define OPEN(name)                                                                                           \
    int name(const char *path, int flags, ...) {                                                             \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        const int mode = va_arg(rest, int);                                                                  \
        va_end(rest);                                                                                        \
        if (fails("open", path)) return -1;                                                                  \
        return REAL(#name, int (*)(const char *, int, ...))(path, flags, mode);                              \
    }
OPEN(open)
OPEN(open64)

#define PREAD(name, offset)                                                                                  \
    ssize_t name(int file, void *into, size_t size, offset from) {                                           \
        if (fails_open_file("pread", file)) return -1;                                                       \
        return REAL(#name, ssize_t (*)(int, void *, size_t, offset))(file, into, size, from);                \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

#define FSTAT(name, type)                                                                                    \
    int name(int file, type *into) {                                                                         \
        if (fails_open_file("fstat", file)) return -1;                                                       \
        return REAL(#name, int (*)(int, type *))(file, into);                                                \
    }
FSTAT(fstat, struct stat)
FSTAT(fstat64, struct stat64)

#define STAT(name, type)                                                                                     \
    int name(const char *path, type *into) {                                                                 \
        if (fails("stat", path)) return -1;                                                                  \
        return REAL(#name, int (*)(const char *, type *))(path, into);                                       \
    }
STAT(stat, struct stat)
STAT(stat64, struct stat64)

DIR *opendir(const char *path) {
    if (fails("opendir", path)) return NULL;
    return REAL("opendir", DIR * (*)(const char *))(path);
}

int flock(int file, int operation) {
    if (fails_open_file("flock", file)) return -1;
    return REAL("flock", int (*)(int, int))(file, operation);
}
