/* Memory of one worker that is used again and again. */

#ifndef HIGHWAY_BUFFER_H
#define HIGHWAY_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/* Starts zeroed. */
typedef struct {
    uint8_t *bytes;
    size_t capacity;
} hw_buffer;

/* Makes it at least so large; it is zeroed when it grows, and what was in it is gone then. 0, or -1 when
 * there is no memory. */
int hw_buffer_reserve(hw_buffer *buffer, size_t n);
void hw_buffer_free(hw_buffer *buffer);

/* Gives memory back where there is much, and far more than the `n` bytes that were needed. */
void hw_buffer_trim(hw_buffer *buffer, size_t n);

#endif
