"""Limits of arguments, shared by the modules and the command line."""

from __future__ import annotations

import re

__all__ = ["MOST_JPEG_SIDE", "MOST_QUEUE_SIZE", "MOST_WINDOW", "MOST_WORKERS", "side_and_quality"]

# Larger values are mistakes: threads of a module, batches in a queue.
MOST_WORKERS = 1024
MOST_QUEUE_SIZE = 65536
# Batches that may be in flight to a peer.
MOST_WINDOW = 1024
# Pixels of the longer side of a JPEG in a store.
MOST_JPEG_SIDE = 8192

_JPEG = re.compile("jpeg:0*([0-9]{1,9})(?::0*([0-9]{1,9}))?", re.ASCII)
_QUALITY = 90


def side_and_quality(encoding: str) -> tuple[int, int] | None:
    """Return side and quality of the encoding "jpeg:SIDE" or "jpeg:SIDE:QUALITY"; None if invalid or out of range."""
    found = _JPEG.fullmatch(encoding)
    side, quality = (int(found[1]), int(found[2] or _QUALITY)) if found else (0, 0)
    return (side, quality) if 1 <= side <= MOST_JPEG_SIDE and 1 <= quality <= 100 else None
