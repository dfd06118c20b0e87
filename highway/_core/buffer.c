#include "buffer.h"

#include <stdlib.h>
#include <string.h>

/* Smaller buffers are always kept, and larger ones than MOST never. */
#define KEPT ((size_t)16 << 20)
#define MOST ((size_t)64 << 20)

int hw_buffer_reserve(hw_buffer *buffer, size_t n) {
    if (n <= buffer->capacity) return 0;
    free(buffer->bytes);
    buffer->bytes = calloc(n, 1);
    buffer->capacity = buffer->bytes ? n : 0;
    return buffer->bytes ? 0 : -1;
}

void hw_buffer_free(hw_buffer *buffer) {
    free(buffer->bytes);
    memset(buffer, 0, sizeof *buffer);
}

void hw_buffer_trim(hw_buffer *buffer, size_t n) {
    const size_t kept = buffer->capacity;
    if (kept > MOST || (kept > KEPT && n < kept / 4)) hw_buffer_free(buffer);
}
