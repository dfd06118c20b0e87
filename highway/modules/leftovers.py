"""Names of what systems and programs leave in folders of data: thumbnails, trash, snapshots, lists of their own."""

from __future__ import annotations

import re

__all__ = ["is_hidden", "is_leftover"]

# In lower case. No names that a class may have, such as "trash" or "recycled".
_NAMES = frozenset(
    (
        # Synology, QNAP, Asustor, NetApp
        *(
            b"@eadir",
            b"@tmp",
            b"@sharebin",
            b"@sharesnap",
            b"#recycle",
            b"#snapshot",
            b"@recycle",
            b"~snapshot",
        ),
        *(b"@recently-snapshot", b"@recently-snapshots", b"@snapshot", b"@__thumb", b"@transcode"),
        # Windows, FrontPage, Picasa, Android
        *(b"$recycle.bin", b"recycler", b"system volume information", b"thumbs.db", b"thumbs.db:encryptable"),
        *(b"ehthumbs.db", b"ehthumbs_vista.db", b"desktop.ini", b"iconcache.db", b"$extend", b"_vti_cnf"),
        *(b"picasa.ini", b"zbthumbnail.info", b"lost.dir"),
        # macOS, Netatalk
        *(b"__macosx", b"icon\r", b"network trash folder", b"temporary items", b"thevolumesettingsfolder"),
        *(b"thefindbycontentfolder", b"desktop db", b"desktop df"),
        # Linux, Python, synchronization
        *(b"lost+found", b"__pycache__", b"_gsdata_"),
    )
)
# Names that begin or end so, whatever the rest is: streams that were copied beside their files, chkdsk's folders.
_PATTERNS = re.compile(
    rb"syno(photo|file|video)_thumb.*|synoindex_.*|found\.[0-9]{3}"
    rb"|.*@syno(eastream|resource)|.*:(zone\.identifier|com\.(apple|dropbox)\..*)",
    re.DOTALL,
)


def is_hidden(name: bytes) -> bool:
    """Whether a name, without its folder, begins with a dot."""
    return name.startswith(b".")


def is_leftover(name: bytes) -> bool:
    """Whether a file or folder of this name, in any case and without its folder, was left behind by a system.

    Those that are hidden anyway are not asked for here.
    """
    lower = name.lower()
    # Asked for every file of a folder: most names need no pattern.
    if b":" in lower or b"@syno" in lower or lower.startswith((b"syno", b"found.")):
        return lower in _NAMES or _PATTERNS.fullmatch(lower) is not None
    return lower in _NAMES
