#include "sorted_table.h"

#include <string.h>

#include "crc32c.h"

enum {
    FOOTER = 48,
    HANDLES = 40, /* bytes of the footer before the magic number */
    TRAILER = 5,  /* after a block: its compression and checksum */
    TAIL = 8,     /* of a key: sequence number and deletion flag */
    NUMBER = 8,
    MOST_KEY = 64,
    IS_VALUE = 1,
};

static uint32_t word(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static uint64_t long_word(const uint8_t *bytes) {
    return (uint64_t)word(bytes) | (uint64_t)word(bytes + 4) << 32;
}

/* Reads a varint: seven bits per byte, lowest first; -1 if it does not end. */
static int number_at(const uint8_t *data, size_t end, size_t *at, uint64_t *number) {
    *number = 0;
    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        const uint8_t byte = data[(*at)++];
        *number |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return 0;
    }
    return -1;
}

/* Finds the block of the handle at `at`. */
static int block_at(const hw_table *table, const uint8_t *data, size_t end, size_t *at, hw_block *block,
                    size_t *size) {
    uint64_t offset, length;
    if (number_at(data, end, at, &offset) || number_at(data, end, at, &length)) return -1;
    const size_t room = table->size - FOOTER;
    if (length < 4 || length > room || room - length < TRAILER || offset > room - length - TRAILER) return -1;
    block->data = table->data + offset;
    if (block->data[length]) return -1; /* compressed */
    block->restarts = word(block->data + length - 4);
    if (!block->restarts || block->restarts > (length - 4) / 4) return -1;
    block->end = length - 4 - 4 * (size_t)block->restarts;
    *size = length;
    return 0;
}

typedef struct {
    size_t at; /* of the next entry */
    uint8_t key[MOST_KEY];
    size_t key_size; /* 0 before the first entry */
    const uint8_t *value;
    size_t value_size;
} entry;

/* Reads the next entry of a block; -1 also after the last entry. */
static int next(const hw_block *block, entry *entry) {
    uint64_t shared, rest, size;
    if (number_at(block->data, block->end, &entry->at, &shared) ||
        number_at(block->data, block->end, &entry->at, &rest) ||
        number_at(block->data, block->end, &entry->at, &size))
        return -1;
    const size_t left = block->end - entry->at;
    if (shared > entry->key_size || rest > MOST_KEY - shared || rest > left || size > left - rest) return -1;
    memcpy(entry->key + shared, block->data + entry->at, rest);
    entry->key_size = (size_t)(shared + rest);
    if (entry->key_size < TAIL) return -1;
    entry->value = block->data + entry->at + rest;
    entry->value_size = (size_t)size;
    entry->at += (size_t)(rest + size);
    return 0;
}

/* Moves to an entry with a complete key (a restart point). */
static int restart(const hw_block *block, uint32_t number, entry *entry) {
    entry->at = word(block->data + block->end + 4 * (size_t)number);
    entry->key_size = 0;
    return entry->at > block->end ? -1 : 0;
}

/* Compares the key of an entry, without its tail, with a number's key: below 0, 0 or above. */
static int order(const entry *entry, const uint8_t *number) {
    const size_t size = entry->key_size - TAIL;
    const int found = memcmp(entry->key, number, size < NUMBER ? size : NUMBER);
    return found ? found : size < NUMBER ? -1 : size > NUMBER;
}

/* Finds the first entry whose key is not before a number's: 1, or 0 if there is none. */
static int seek(const hw_block *block, const uint8_t *number, entry *entry) {
    uint32_t low = 0, high = block->restarts - 1;
    while (low < high) {
        const uint32_t middle = high - (high - low) / 2;
        if (restart(block, middle, entry) || next(block, entry)) return -1;
        if (order(entry, number) < 0)
            low = middle;
        else
            high = middle - 1;
    }
    if (restart(block, low, entry)) return -1;
    while (entry->at < block->end) {
        if (next(block, entry)) return -1;
        if (order(entry, number) >= 0) return 1;
    }
    return 0;
}

/* Returns the number at the beginning of a key; missing bytes are `filled`. */
static uint64_t number_in(const entry *entry, uint8_t filled) {
    uint64_t number = 0;
    for (size_t i = 0; i < NUMBER; i++)
        number = number << 8 | (i < entry->key_size - TAIL ? entry->key[i] : filled);
    return number;
}

int hw_table_open(int simd, hw_table *table, const uint8_t *data, size_t size) {
    static const uint8_t magic[] = {0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb};
    if (size < FOOTER || memcmp(data + size - sizeof magic, magic, sizeof magic)) return -1;
    table->data = data;
    table->size = size;
    const uint8_t *footer = data + size - FOOTER;
    size_t at = 0, index_size, first_size;
    uint64_t skipped;
    if (number_at(footer, HANDLES, &at, &skipped) || number_at(footer, HANDLES, &at, &skipped) ||
        block_at(table, footer, HANDLES, &at, &table->index, &index_size))
        return -1;
    const uint8_t *trailer = table->index.data + index_size;
    const uint32_t crc = hw_crc32c(simd, 0, table->index.data, index_size + 1);
    /* LevelDB masks the checksums that it stores, so that checksums over checksums stay strong. */
    if (word(trailer + 1) != (crc >> 15 | crc << 17) + 0xa282ead8u) return -1;
    entry entry;
    hw_block first;
    if (restart(&table->index, 0, &entry) || next(&table->index, &entry)) return -1;
    at = 0;
    if (block_at(table, entry.value, entry.value_size, &at, &first, &first_size)) return -1;
    if (restart(&first, 0, &entry) || next(&first, &entry)) return -1;
    table->low = number_in(&entry, 0);
    if (restart(&table->index, table->index.restarts - 1, &entry)) return -1;
    do {
        if (next(&table->index, &entry)) return -1;
    } while (entry.at < table->index.end);
    /* The last key of the index may be any key above all keys of the table. */
    hw_block last;
    size_t last_size;
    at = 0;
    if (block_at(table, entry.value, entry.value_size, &at, &last, &last_size)) return -1;
    if (restart(&last, last.restarts - 1, &entry)) return -1;
    do {
        if (next(&last, &entry)) return -1;
    } while (entry.at < last.end);
    table->high = number_in(&entry, 255);
    return 0;
}

int hw_table_find(const hw_table *table, uint64_t number, hw_value *value) {
    uint8_t key[NUMBER];
    for (int i = 0; i < NUMBER; i++) key[i] = (uint8_t)(number >> (8 * (NUMBER - 1 - i)));
    value->data = NULL;
    entry entry;
    int found = seek(&table->index, key, &entry);
    if (found < 1) return found;
    hw_block block;
    size_t at = 0, size;
    if (block_at(table, entry.value, entry.value_size, &at, &block, &size)) return -1;
    found = seek(&block, key, &entry);
    if (found < 1) return found;
    if (order(&entry, key)) return 0;
    const uint64_t tail = long_word(entry.key + NUMBER);
    if ((tail & 255) != IS_VALUE) return -1; /* deleted */
    value->data = entry.value;
    value->size = entry.value_size;
    value->sequence = tail >> 8;
    return 0;
}
