/* CRC-32C (Castagnoli), as iSCSI (RFC 3720) and LevelDB have it, without LevelDB's mask. */

#ifndef HIGHWAY_CRC32C_H
#define HIGHWAY_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Makes the tables; call it once, before the others. */
void hw_crc32c_begin(void);

/* The checksum of bytes that follow those whose checksum is `crc` (0 for none). */
uint32_t hw_crc32c(int simd, uint32_t crc, const uint8_t *bytes, size_t size);

#endif
