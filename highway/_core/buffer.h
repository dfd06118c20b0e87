/* Reusable memory of one worker. */

#ifndef HIGHWAY_BUFFER_H
#define HIGHWAY_BUFFER_H

#include <stddef.h>
#include <stdint.h>

/* Starts zeroed. */
typedef struct {
    uint8_t *bytes;
    size_t capacity;
} hw_buffer;

/* Grows the buffer to at least `n` bytes. Growing zeroes it and discards its contents. Returns 0, or -1
 * without memory. */
int hw_buffer_reserve(hw_buffer *buffer, size_t n);
void hw_buffer_free(hw_buffer *buffer);

/* Frees the memory of a buffer that has more than 64 MiB, or is large and far larger than the `n` bytes that
 * were needed: a worker does not keep the memory of its largest picture. */
void hw_buffer_trim(hw_buffer *buffer, size_t n);

#endif
