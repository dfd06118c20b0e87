/* Undoes the filters of the rows of a PNG (ISO/IEC 15948, section 9). */

#ifndef HIGHWAY_PNG_FILTERS_H
#define HIGHWAY_PNG_FILTERS_H

#include <stddef.h>
#include <stdint.h>

/* Filters have the numbers 0 to HW_PNG_LAST_FILTER; rows may be read up to HW_PNG_ROW_SLACK bytes beyond
 * their ends. */
enum { HW_PNG_LAST_FILTER = 4, HW_PNG_ROW_SLACK = 8 };

/* Undoes a filter in place; `above` is the finished row above, or zeros; `step` is the bytes of a pixel, at
 * least 1. `simd` is a variant of simd.h that this CPU can run. */
void hw_png_unfilter(int simd, int filter, uint8_t *row, const uint8_t *above, size_t n, size_t step);

#endif
