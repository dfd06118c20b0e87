/* Tables of LevelDB that lie in memory: where in them the value of a record is.
 *
 * Their format is that of LevelDB's doc/table_format.md. Nothing that a table says is believed: every place
 * is compared with the size of the table before it is read. Tables with packed blocks, and whatever else is
 * not plain, are for LevelDB itself. */

#ifndef HIGHWAY_SORTED_TABLE_H
#define HIGHWAY_SORTED_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Entries, and behind them the places of some that have whole keys, four bytes each, up to the number of
 * these. */
typedef struct {
    const uint8_t *data;
    size_t end; /* of the entries */
    uint32_t restarts;
} hw_block;

typedef struct {
    const uint8_t *data;
    size_t size;
    hw_block index;
    /* No record has a lower number, or a higher one. */
    uint64_t low, high;
} hw_table;

typedef struct {
    const uint8_t *data; /* NULL: not found */
    size_t size;
    uint64_t sequence; /* the highest is the newest */
} hw_value;

/* `simd` is a variant of simd.h that this CPU can run. Functions give 0, or -1 where a table is damaged or is
 * not plain: whether it has the record is not known then. */

/* The table that is all of `size` bytes; its index is compared with its checksum. */
int hw_table_open(int simd, hw_table *table, const uint8_t *data, size_t size);

/* The newest value under a number, 8 bytes, big-endian. */
int hw_table_find(const hw_table *table, uint64_t number, hw_value *value);

#endif
