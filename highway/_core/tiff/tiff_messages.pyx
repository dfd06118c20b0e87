"""Messages of the libtiff that PIL is linked with: collected for the thread that decodes, instead of
printed."""

cdef extern from "libtiff.h" nogil:
    int hw_tiff_listen(const char *library)
    void hw_tiff_keep()
    const char *hw_tiff_kept()


def listen(bytes library not None):
    """Install the collection of messages of the libtiff that a loaded library depends on; return whether it
    works.

    Threads that do not call `keep` are not affected: their messages go where they went before.

    Parameters
    ----------
    library : bytes
        Path of the library.
    """
    # The GIL is the lock.
    return hw_tiff_listen(library) == 0


def keep():
    """Collect the messages of this thread from now on, up to 2 KB."""
    hw_tiff_keep()


def kept():
    """Stop collecting, and return the messages.

    Returns
    -------
    list of (bool, str, str)
        Messages of this thread since `keep`: whether it is an error (otherwise a warning), the part of
        libtiff, and the text.
    """
    found = []
    for line in hw_tiff_kept().decode("utf-8", "replace").split("\n"):
        part, _, text = line.partition("\t")
        if part:
            found.append((part[:1] == "E", part[1:], text))
    return found
