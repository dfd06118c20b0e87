"""Text of strangers, such as names of files and classes, for a line on a terminal or in a log."""

from __future__ import annotations

import os

__all__ = ["printable"]


def printable(text: str | bytes) -> str:
    """Text, or the name of a file, on one line: what is no UTF-8, and what does not print, as Python writes it."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in os.fsdecode(text))
