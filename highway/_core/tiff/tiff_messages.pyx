"""Messages of the libtiff that PIL is linked with: kept for the thread that decodes, instead of printed."""

cdef extern from "libtiff.h" nogil:
    int hw_tiff_listen(const char *library)
    void hw_tiff_keep()
    const char *hw_tiff_kept()


def listen(bytes library not None):
    """Whether the messages of the libtiff that a loaded library depends on can be kept from now on.

    Threads that keep nothing are not concerned: what they make libtiff say goes where it went before.

    Parameters
    ----------
    library : bytes
        Path of the library.
    """
    # The GIL is the lock.
    return hw_tiff_listen(library) == 0


def keep():
    """Keep what libtiff says in this thread from now on, up to 2 KB."""
    hw_tiff_keep()


def kept():
    """Stop keeping.

    Returns
    -------
    list of (bool, str, str)
        What was said since `keep`, in this thread: whether it is an error (or a warning), which part of libtiff
        said so, and the text.
    """
    found = []
    for line in hw_tiff_kept().decode("utf-8", "replace").split("\n"):
        part, _, text = line.partition("\t")
        if part:
            found.append((part[:1] == "E", part[1:], text))
    return found
