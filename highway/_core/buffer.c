#include "buffer.h"

#include <stdlib.h>
#include <string.h>

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
