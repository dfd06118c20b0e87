"""FieldSpec: dtype and shape of a field before its first batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["FieldSpec", "Spec", "array_spec"]


class FieldSpec(NamedTuple):
    """What is known about a field of the batches.

    Attributes
    ----------
    dtype : dtype or None
        None if unknown.
    shape : tuple of (int or None), or None
        None for the number of samples and for every other size that is unknown or differs; None instead of a shape if
        the number of dimensions is unknown.
    ragged : bool
        Whether samples have different numbers of rows, such as boxes.
    rows : str
        Ragged fields with the same offsets have the same one; "" where all ragged fields share theirs.
    """

    dtype: np.dtype[Any] | None = None
    shape: tuple[int | None, ...] | None = None
    ragged: bool = False
    rows: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the dtype and the number of dimensions are known."""
        return self.dtype is not None and self.shape is not None


Spec = dict[str, FieldSpec]
"""The fields of the batches, by name and in order."""


def array_spec(dtype: DTypeLike, *shape: int | None, ragged: bool = False, rows: str = "") -> FieldSpec:
    """Return the spec of a field with rows of this shape, one for each sample unless it is ragged."""
    return FieldSpec(np.dtype(dtype), (None, *shape), ragged, rows)
