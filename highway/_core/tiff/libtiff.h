/* Collects the messages of the libtiff that PIL is linked with, per thread, instead of printing them. */

#ifndef HIGHWAY_LIBTIFF_H
#define HIGHWAY_LIBTIFF_H

#include <stddef.h>

/* Installs our message handlers in the libtiff that this loaded library depends on. 0, or -1 if no libtiff is
 * found. Threads that do not collect use the previous handlers. Call it once, under a lock. */
int hw_tiff_listen(const char *library);

/* Starts collecting the messages of this thread. */
void hw_tiff_keep(void);

/* Stops, and returns the messages: lines of "E" for an error or "W" for a warning, the name of the part, a
 * tab, and the text. Valid until the thread collects again. */
const char *hw_tiff_kept(void);

#endif
