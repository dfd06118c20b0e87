/* Huffman decoding of sequential JPEG scans (ITU-T T.81, Annex F).
 *
 * Decodes whole rows of MCUs, and skips those that are not needed. It stops at anything that a sound file
 * does not have: the caller then uses libjpeg, which decides.
 */
#ifndef HIGHWAY_JPEG_ENTROPY_H
#define HIGHWAY_JPEG_ENTROPY_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum { HW_BLOCK = 64 };

/* Longest code that one table lookup finds; longer codes are searched. */
#define HW_HUFFMAN_LOOK 10

typedef struct {
    /* as in the file, to detect a repeated table */
    uint8_t counts[16];
    uint8_t values[256];
    int total;
    /* derived: the symbol that the next bits begin with, see jpeg_entropy.c; 0: no code, or a longer one */
    uint32_t look[1 << HW_HUFFMAN_LOOK];
    uint32_t ends[17];   /* by length: one past its last code, aligned to 16 bits */
    int32_t offsets[17]; /* by length: added to a code, the index of its value */
} hw_huffman;

/* Builds a table for DC or AC values; 0, or -1 if codes or values do not fit a sequential 8-bit picture. */
int hw_huffman_build(hw_huffman *table, const uint8_t counts[16], const uint8_t *values, int is_ac);

typedef struct {
    int across, down; /* blocks in one MCU */
    const hw_huffman *dc, *ac;
    uint32_t predicted; /* the last DC value */
} hw_scan_component;

typedef struct {
    int components;
    hw_scan_component component[3];
    int columns; /* MCUs in a row */
    int restart_interval, until_restart, next_restart;
    const uint8_t *file, *file_end; /* data after the current interval */
    hw_buffer interval;             /* the bytes of an interval, without stuffing */
    size_t room;                    /* its maximum size */
    const uint8_t *at, *end;        /* its unread part */
    uint64_t bits;                  /* its next bits, from the top */
    int count;                      /* how many of them are counted in `at` */
} hw_scan;

/* Starts a scan of so many rows of MCUs; 0, or -1 without memory. */
int hw_scan_begin(hw_scan *scan, int rows, const uint8_t *bytes, size_t size);

/* Decodes one row of MCUs; blocks of those in [first, last) go to `blocks`, by component, then row of blocks
 * in the MCU, then column, 64 values each in natural order. The caller zeroes them. `only_dc` flags each
 * block, in the same order, that has only a DC value. `simd` is a variant of simd.h that this CPU can run. 0,
 * or -1 if the data are damaged. */
int hw_scan_row(hw_scan *scan, int simd, int first, int last, int16_t *const blocks[3],
                uint8_t *const only_dc[3]);

#endif
