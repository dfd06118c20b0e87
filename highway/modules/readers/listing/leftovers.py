"""Names of files and folders that systems and programs create in folders of data: thumbnails, trash, snapshots."""

from __future__ import annotations

import re

__all__ = ["is_hidden", "is_leftover", "is_skipped"]

# In lower case. Names that a class may have, such as "trash" or "recycled", are not in the list.
_NAMES = frozenset(
    (
        # Synology, QNAP, Asustor, NetApp
        b"@eadir @tmp @sharebin @sharesnap #recycle #snapshot @recycle ~snapshot @recently-snapshot "
        b"@recently-snapshots @snapshot @__thumb @transcode "
        # Windows, FrontPage, Picasa, Android
        b"$recycle.bin recycler thumbs.db thumbs.db:encryptable ehthumbs.db ehthumbs_vista.db desktop.ini "
        b"iconcache.db $extend _vti_cnf picasa.ini zbthumbnail.info lost.dir "
        # macOS, Netatalk
        b"__macosx thevolumesettingsfolder thefindbycontentfolder "
        # Linux, Python, synchronization
        b"lost+found __pycache__ _gsdata_"
    ).split(b" ")
) | {
    b"system volume information",
    b"icon\r",
    b"network trash folder",
    b"temporary items",
    b"desktop db",
    b"desktop df",
}
# Patterns of names: streams that were copied as files, chkdsk's folders.
_PATTERNS = re.compile(
    rb"syno(photo|file|video)_thumb.*|synoindex_.*|found\.[0-9]{3}"
    rb"|.*@syno(eastream|resource)|.*:(zone\.identifier|com\.(apple|dropbox)\..*)",
    re.DOTALL,
)


def is_hidden(name: bytes) -> bool:
    """Whether a name, without its folder, begins with a dot."""
    return name.startswith(b".")


def is_skipped(name: bytes) -> bool:
    """Whether readers skip a file or folder for its base name: it is hidden, or a system created it."""
    return is_hidden(name) or is_leftover(name)


def is_leftover(name: bytes) -> bool:
    """Whether a system created a file or folder with this base name, in upper or lower case.

    Hidden names are not in the list.
    """
    lower = name.lower()
    # Runs for every file of a folder: most names need no pattern.
    if b":" in lower or b"@syno" in lower or lower.startswith((b"syno", b"found.")):
        return lower in _NAMES or _PATTERNS.fullmatch(lower) is not None
    return lower in _NAMES
