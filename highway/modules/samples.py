"""What a reader of pictures reads: the files, and what comes with each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.modules.masks import Masks
from highway.modules.objects import Objects

__all__ = ["Samples"]


class Samples(NamedTuple):
    """Pictures, and what comes with them.

    Attributes
    ----------
    root : bytes
        What stands in front of every name to make it a path.
    names : sequence of bytes
        The samples: file names behind `root`; they are the keys too.
    where : str
        Where the files are, for errors: ``"in '/data/'"``.
    labels : callable, optional
        Gives the field `labels` for indices (N,), an array of N rows.
    objects : Objects, optional
        Boxes of every sample, and what comes with them; then `labels` are theirs.
    masks : Masks, optional
    placement : bool
        Whether batches have the extras `placement` and `picture_sizes`.
    """

    root: bytes
    names: Sequence[bytes]
    where: str
    labels: Callable[[NDArray[np.int64]], NDArray[Any]] | None = None
    objects: Objects | None = None
    masks: Masks | None = None
    placement: bool = False
