/* CRC-32C by tables of eight bytes, or by the instruction of SSE4.2 in three lanes at once.
 *
 * The instruction has a throughput of one per clock and a latency of three: three stretches of the bytes are
 * summed in parallel, and joined by shifting a sum over as many zero bytes, a linear operation from tables.
 */

#include "crc32c.h"

#include <string.h>

#include "simd.h"

#if HW_X86
#include <immintrin.h>
#endif

enum { LANE = 2048, LINE = 64 };

static uint32_t table[8][256];
/* A byte of a checksum after LANE zero bytes. */
static uint32_t after_zeros[4][256];

void hw_crc32c_begin(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
        table[0][byte] = crc;
    }
    for (int row = 1; row < 8; row++)
        for (int byte = 0; byte < 256; byte++)
            table[row][byte] = table[row - 1][byte] >> 8 ^ table[0][table[row - 1][byte] & 255];
    uint32_t bits[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1u << bit;
        for (int i = 0; i < LANE; i++) crc = crc >> 8 ^ table[0][crc & 255];
        bits[bit] = crc;
    }
    for (int row = 0; row < 4; row++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t crc = 0;
            for (int bit = 0; bit < 8; bit++)
                if (byte >> bit & 1) crc ^= bits[8 * row + bit];
            after_zeros[row][byte] = crc;
        }
}

static uint32_t by_tables(uint32_t crc, const uint8_t *bytes, size_t size) {
    while (size >= 8) {
        uint32_t low = crc ^ ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
                              (uint32_t)bytes[3] << 24);
        crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^
              table[4][low >> 24] ^ table[3][bytes[4]] ^ table[2][bytes[5]] ^ table[1][bytes[6]] ^
              table[0][bytes[7]];
        bytes += 8;
        size -= 8;
    }
    while (size--) crc = crc >> 8 ^ table[0][(crc ^ *bytes++) & 255];
    return crc;
}

#if HW_X86
static uint32_t with_zeros(uint32_t crc) {
    return after_zeros[0][crc & 255] ^ after_zeros[1][crc >> 8 & 255] ^ after_zeros[2][crc >> 16 & 255] ^
           after_zeros[3][crc >> 24];
}

static uint64_t word(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t start, const uint8_t *bytes,
                                                                 size_t size) {
    uint64_t first = start;
    while (size >= 3 * LANE) {
        uint64_t second = 0, third = 0;
        for (size_t line = 0; line < LANE; line += LINE) {
            /* CPUs do not predict three streams that jump: prefetch the next data. No effect past the end. */
            for (size_t lane = 3; lane < 6; lane++) __builtin_prefetch(bytes + lane * LANE + line);
            for (size_t i = line; i < line + LINE; i += 8) {
                first = _mm_crc32_u64(first, word(bytes + i));
                second = _mm_crc32_u64(second, word(bytes + LANE + i));
                third = _mm_crc32_u64(third, word(bytes + 2 * LANE + i));
            }
        }
        first = with_zeros(with_zeros((uint32_t)first) ^ (uint32_t)second) ^ (uint32_t)third;
        bytes += 3 * LANE;
        size -= 3 * LANE;
    }
    while (size >= 8) {
        first = _mm_crc32_u64(first, word(bytes));
        bytes += 8;
        size -= 8;
    }
    uint32_t crc = (uint32_t)first;
    while (size--) crc = _mm_crc32_u8(crc, *bytes++);
    return crc;
}
#endif

uint32_t hw_crc32c(int simd, uint32_t crc, const uint8_t *bytes, size_t size) {
#if HW_X86
    /* SSE4 here means SSE4.1, which lacks the instruction. */
    if (simd >= HW_AVX2) return ~by_instruction(~crc, bytes, size);
#endif
    return ~by_tables(~crc, bytes, size);
}
