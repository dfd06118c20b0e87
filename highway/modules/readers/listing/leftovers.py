"""Names of what systems and programs leave in folders of data: thumbnails, trash, snapshots, lists of their own."""

from __future__ import annotations

import re

__all__ = ["is_hidden", "is_leftover", "is_skipped"]

# In lower case. No names that a class may have, such as "trash" or "recycled".
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
# Names that begin or end so, whatever the rest is: streams that were copied beside their files, chkdsk's folders.
_PATTERNS = re.compile(
    rb"syno(photo|file|video)_thumb.*|synoindex_.*|found\.[0-9]{3}"
    rb"|.*@syno(eastream|resource)|.*:(zone\.identifier|com\.(apple|dropbox)\..*)",
    re.DOTALL,
)


def is_hidden(name: bytes) -> bool:
    """Whether a name, without its folder, begins with a dot."""
    return name.startswith(b".")


def is_skipped(name: bytes) -> bool:
    """Whether readers skip a file or folder for its name, without its folder: it is hidden, or a system left it."""
    return is_hidden(name) or is_leftover(name)


def is_leftover(name: bytes) -> bool:
    """Whether a file or folder of this name, in any case and without its folder, was left behind by a system.

    Those that are hidden anyway are not asked for here.
    """
    lower = name.lower()
    # Asked for every file of a folder: most names need no pattern.
    if b":" in lower or b"@syno" in lower or lower.startswith((b"syno", b"found.")):
        return lower in _NAMES or _PATTERNS.fullmatch(lower) is not None
    return lower in _NAMES
