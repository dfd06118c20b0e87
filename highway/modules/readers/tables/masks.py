"""Masks in a column of a table."""

from __future__ import annotations

from highway.errors import DecodeError, ReadError
from highway.modules.readers.masks import Masks
from highway.modules.readers.tables.rows import Rows

__all__ = ["RowMasks"]


class RowMasks(Masks):
    """Masks that are files in a column, or whose paths are.

    Parameters
    ----------
    rows : Rows
        Rows whose pictures are the masks.
    fill, max_pixels, owner, oriented
        See `Masks`.
    """

    def __init__(self, rows: Rows, fill: int, max_pixels: int, owner: str, oriented: bool) -> None:
        super().__init__(fill, max_pixels, owner, oriented)
        self._rows = rows

    def contents(self, index: int) -> bytes:
        try:
            return self._rows.contents_of(index)
        except DecodeError as error:
            raise ReadError(str(error)) from None

    def describe(self, index: int) -> str:
        return self._rows.describe(index)
