/* Reads entries of the cache on the local disk; `highway/storage/cache/entries.py` says what an entry is. */

#ifndef HIGHWAY_ENTRY_FILES_H
#define HIGHWAY_ENTRY_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

/* Results of hw_cache_entry_read beside 0 and error numbers. */
enum { HW_ENTRY_DAMAGED = -1, HW_ENTRY_NO_MEMORY = -2 };

/* Reads the contents of the entry with this key, `size` bytes, and notes the use if none was noted for a
 * minute. Returns 0, HW_ENTRY_DAMAGED if the file is no entry of this key and size with the right checksum,
 * or the number of the error of a system call. `head` is memory for what is before the contents. */
int hw_cache_entry_read(const char *path, const uint8_t *key, size_t key_size, uint8_t *contents, size_t size,
                        hw_buffer *head, int simd);

#endif
