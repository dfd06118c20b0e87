"""What a reader of pictures reads: the pictures, and what comes with each of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.errors import HighwayError
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.masks import MaskFiles, Masks

__all__ = ["Files", "SampleReader", "Samples"]


class SampleReader(Protocol):
    """Samples as far as one batch needs them. Methods take indices that `read` was given before."""

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        """Have the decoder read the headers of the pictures.

        Returns
        -------
        heads : int64 (N, 3)
            As `BatchDecoder.read` says.
        wrong : dict of int to HighwayError
            What is wrong with row k, where that is known without the decoder.
        """

    def keys(self, indices: NDArray[np.int64]) -> list[str]:
        """Key of each sample."""

    def labels(self, indices: NDArray[np.int64]) -> NDArray[Any] | None:
        """The field `labels`, an array of N rows; None where there is none, or it is of the objects."""

    def objects(self, indices: NDArray[np.int64]) -> BoxTable | None:
        """Boxes, and what comes with them; sample i of them is ``indices[i]``."""

    def picture_sizes(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Height and width, int64 (N, 2), of the upright pictures that these were made of; None where they were not."""
        return None

    @property
    def masks(self) -> Masks | None: ...


class Samples(Protocol):
    """Pictures, and what comes with them.

    Attributes
    ----------
    size : int
    noun, where : str
        What a sample is called, and where they are, for errors: ``"file"`` and ``"in '/data/'"``.
    boxed, masked : bool
        Whether they have boxes, and masks.
    min_visible : float
        Of the boxes: least part of their area, 0 to 1, that is to be seen.
    placement : bool
        Whether batches have the extras `placement` and `picture_sizes`.
    """

    size: int
    noun: str
    where: str
    boxed: bool
    masked: bool
    min_visible: float
    placement: bool

    def begin(self) -> SampleReader:
        """What the samples of a batch are read through."""

    def known_keys(self) -> Iterable[str] | None:
        """Keys of all samples; None where they are known only once they are read."""
        return None

    def describe(self, index: int) -> str:
        """What errors call a sample."""

    def name(self, index: int) -> str:
        """What the list of errors calls a sample."""


class Files(Samples, SampleReader):
    """Pictures that are files.

    Parameters
    ----------
    root : bytes
        What stands in front of every name to make it a path.
    names : sequence of bytes
        The samples: file names behind `root`; they are the keys too.
    where : str
    labels : callable, optional
        Gives the field `labels` for indices (N,), an array of N rows.
    objects : BoxTable, optional
        Boxes of every sample, and what comes with them; then `labels` are theirs.
    masks : MaskFiles, optional
    min_visible : float
    placement : bool
    """

    noun = "file"

    def __init__(
        self,
        root: bytes,
        names: Sequence[bytes],
        where: str,
        *,
        labels: Callable[[NDArray[np.int64]], NDArray[Any]] | None = None,
        objects: BoxTable | None = None,
        masks: MaskFiles | None = None,
        min_visible: float = 0.0,
        placement: bool = False,
    ) -> None:
        self.size = len(names)
        self.where = where
        self.boxed, self.masked = objects is not None, masks is not None
        self.min_visible, self.placement = min_visible, placement
        self._root, self._names = root, names
        self._labels, self._objects, self._masks = labels, objects, masks

    def begin(self) -> Files:
        return self

    def known_keys(self) -> Iterable[str]:
        return map(os.fsdecode, self._names)

    def path(self, index: int) -> bytes:
        """Of a picture."""
        return self._root + self._names[index]

    def describe(self, index: int) -> str:
        return os.fsdecode(self.path(index))

    def name(self, index: int) -> str:
        return os.fsdecode(self._names[index])

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        return decoder.read([self.path(index) for index in indices.tolist()], oriented, turn), {}

    def keys(self, indices: NDArray[np.int64]) -> list[str]:
        return [self.name(index) for index in indices.tolist()]

    def labels(self, indices: NDArray[np.int64]) -> NDArray[Any] | None:
        return None if self._labels is None else self._labels(indices)

    def objects(self, indices: NDArray[np.int64]) -> BoxTable | None:
        return None if self._objects is None else self._objects.of(indices)

    @property
    def masks(self) -> MaskFiles | None:
        return self._masks
