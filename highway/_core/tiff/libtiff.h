/* What the libtiff that PIL is linked with says: kept for the thread that asks, instead of printed. */

#ifndef HIGHWAY_LIBTIFF_H
#define HIGHWAY_LIBTIFF_H

#include <stddef.h>

/* Put our handlers before those of the libtiff that this library, which is loaded, depends on. 0, or -1 when
 * it has none that can be found. Threads that keep nothing reach the handlers from before. Once, and under a
 * lock. */
int hw_tiff_listen(const char *library);

/* Keep what libtiff says in this thread from now on. */
void hw_tiff_keep(void);

/* Stop, and return what was said: lines of "E" for an error or "W" for a warning, the name of the part, a
 * tab, and the text. It stays until the thread keeps again. */
const char *hw_tiff_kept(void);

#endif
