#include "libtiff.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef void (*handler)(const char *part, const char *format, va_list arguments);
typedef handler (*setter)(handler);

static handler errors_before, warnings_before;

static __thread int keeping;
static __thread size_t used;
static __thread char kept[2048];

static void keep(char kind, const char *part, const char *format, va_list arguments) {
    size_t room = sizeof kept - used;
    int length = snprintf(kept + used, room, "%c%s\t", kind, part ? part : "libtiff");
    if (length < 0 || (size_t)length + 2 >= room) goto full;
    size_t end = used + (size_t)length;
    room = sizeof kept - end;
    length = vsnprintf(kept + end, room, format, arguments);
    /* A text that is too long is cut. */
    if (length < 0) goto full;
    size_t text = (size_t)length < room - 2 ? (size_t)length : room - 2;
    for (size_t i = end; i < end + text; i++)
        if (kept[i] == '\n') kept[i] = ' ';
    used = end + text;
    kept[used++] = '\n';
full:
    kept[used] = '\0';
}

static void on_error(const char *part, const char *format, va_list arguments) {
    if (keeping)
        keep('E', part, format, arguments);
    else if (errors_before)
        errors_before(part, format, arguments);
}

static void on_warning(const char *part, const char *format, va_list arguments) {
    if (keeping)
        keep('W', part, format, arguments);
    else if (warnings_before)
        warnings_before(part, format, arguments);
}

int hw_tiff_listen(const char *library) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    if (handle == NULL) return -1;
    /* Searched in the library and its dependencies. */
    setter set_errors = (setter)dlsym(handle, "TIFFSetErrorHandler");
    setter set_warnings = (setter)dlsym(handle, "TIFFSetWarningHandler");
    if (set_errors == NULL || set_warnings == NULL) {
        dlclose(handle);
        return -1;
    }
    handler found = set_errors(on_error);
    if (found != on_error) errors_before = found;
    found = set_warnings(on_warning);
    if (found != on_warning) warnings_before = found;
    /* The handle stays open: the handlers must outlive every call. */
    return 0;
}

void hw_tiff_keep(void) {
    keeping = 1;
    used = 0;
    kept[0] = '\0';
}

const char *hw_tiff_kept(void) {
    keeping = 0;
    return kept;
}
