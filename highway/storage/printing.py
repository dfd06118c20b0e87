"""Makes untrusted text, such as names of files and classes, safe for one line of a terminal or log."""

from __future__ import annotations

import os

__all__ = ["printable"]


def printable(text: str | bytes) -> str:
    """Return text or a file name on one line; bytes that are not UTF-8 and unprintable characters are escaped."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in os.fsdecode(text))
