/* Huffman decoding of sequential JPEG scans (ITU-T T.81, Annex F).
 *
 * Works on whole rows of MCUs, and only passes over those that nobody needs. It stops at whatever a sound
 * file does not have: the caller then asks libjpeg, which knows what to make of it.
 */
#ifndef HIGHWAY_JPEG_ENTROPY_H
#define HIGHWAY_JPEG_ENTROPY_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

enum { HW_BLOCK = 64 };

/* Longest code that is found by one look into the table; the others are searched for. */
#define HW_HUFFMAN_LOOK 10

typedef struct {
    /* as in the file, for a table that is the same again */
    uint8_t counts[16];
    uint8_t values[256];
    int total;
    /* made of it: what the next bits begin with, see jpeg_entropy.c; 0 where that is no code or a longer one
     */
    uint32_t look[1 << HW_HUFFMAN_LOOK];
    uint32_t ends[17];   /* of each length, what follows its last code, aligned to 16 bits */
    int32_t offsets[17]; /* of each length, what makes a code the number of its value */
} hw_huffman;

/* Builds a table for DC or AC values; 0, or -1 where codes or values are not those of a sequential 8-bit
 * picture. */
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
    const uint8_t *file, *file_end; /* what follows the current interval */
    hw_buffer interval;             /* the bytes of an interval, without those that were stuffed in */
    size_t room;                    /* how many there can be */
    const uint8_t *at, *end;        /* what was not read of it yet */
    uint64_t bits;                  /* its next bits, from the top */
    int count;                      /* how many of them are accounted for in `at` */
} hw_scan;

/* Goes to the beginning of a scan of so many rows of MCUs; 0, or -1 when there is no memory. */
int hw_scan_begin(hw_scan *scan, int rows, const uint8_t *bytes, size_t size);

/* Decodes one row of MCUs; blocks of those in [first, last) go to `blocks`, by component, then row of blocks
 * in the MCU, then column, 64 values each in natural order. They come zeroed. `only_dc` says of each block,
 * in the same order, that it has no other value. `simd` is a variant of simd.h that this CPU can run. 0, or
 * -1 where the data are not sound. */
int hw_scan_row(hw_scan *scan, int simd, int first, int last, int16_t *const blocks[3],
                uint8_t *const only_dc[3]);

#endif
