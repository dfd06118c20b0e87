"""Endings of the files of tables."""

from __future__ import annotations

import os

__all__ = ["ENDINGS", "is_table"]

ENDINGS = (".parquet", ".pq", ".arrow", ".feather")


def is_table(path: str) -> bool:
    """Return whether a path, pattern or URL names tables, or a local folder with tables and no folders in it."""
    if path.endswith(ENDINGS):
        return True
    try:
        with os.scandir(path) as entries:
            shown = [entry for entry in entries if not entry.name.startswith((".", "_"))]
            return any(entry.name.endswith(ENDINGS) for entry in shown) and not any(
                entry.is_dir() for entry in shown
            )
    except OSError:
        return False
