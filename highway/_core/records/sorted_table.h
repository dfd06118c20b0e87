/* Finds the values of records in LevelDB tables in memory.
 *
 * Format: LevelDB's doc/table_format.md. Tables are not trusted: every offset is checked against the size of
 * the table before it is read. LevelDB itself reads tables with compressed blocks, and all others that are
 * not plain.
 */

#ifndef HIGHWAY_SORTED_TABLE_H
#define HIGHWAY_SORTED_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Entries, followed by the offsets of entries with complete keys (restart points), four bytes each, and their
 * count. */
typedef struct {
    const uint8_t *data;
    size_t end; /* of the entries */
    uint32_t restarts;
} hw_block;

typedef struct {
    const uint8_t *data;
    size_t size;
    hw_block index;
    /* Lowest and highest number of all records. */
    uint64_t low, high;
} hw_table;

typedef struct {
    const uint8_t *data; /* NULL: not found */
    size_t size;
    uint64_t sequence; /* higher is newer */
} hw_value;

/* `simd` is a variant of simd.h that this CPU can run. Functions return 0, or -1 if a table is damaged or not
 * plain: it is then unknown whether it has the record. */

/* Opens the table of `size` bytes; verifies the checksum of its index. */
int hw_table_open(int simd, hw_table *table, const uint8_t *data, size_t size);

/* Finds the newest value of a number (key: 8 bytes, big-endian). */
int hw_table_find(const hw_table *table, uint64_t number, hw_value *value);

#endif
