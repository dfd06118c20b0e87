/* CRC-32C (Castagnoli), as in iSCSI (RFC 3720) and LevelDB, without LevelDB's mask. */

#ifndef HIGHWAY_CRC32C_H
#define HIGHWAY_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Builds the tables; call it once, before the other functions. */
void hw_crc32c_begin(void);

/* Returns the checksum of bytes that follow bytes with checksum `crc` (0 for none). */
uint32_t hw_crc32c(int simd, uint32_t crc, const uint8_t *bytes, size_t size);

#endif
