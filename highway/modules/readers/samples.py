"""Samples of a reader of pictures: the pictures with their keys, labels, boxes and masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.arguments import number
from highway.engine.spec import Spec, array_spec
from highway.errors import ArgumentError, HighwayError, ReadError, StorageError
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.masks import MaskFiles, Masks
from highway.storage.files import LARGEST_FILE, read_once, status_of

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from highway.sampling.sampler import Task
    from highway.storage.fetching import Fetcher
    from highway.storage.ranges import Ranges

__all__ = ["OWN_FIELDS", "FileParts", "Files", "SampleReader", "Samples", "checked_min_visible", "joined"]

OWN_FIELDS = ("images", "labels", "boxes", "masks", "placement", "picture_sizes")
"""Names that no further field may have."""


def checked_min_visible(owner: str, min_visible: float, boxed: bool) -> float:
    """Return the argument `min_visible`; raises ArgumentError if it is not 0 to 1, or given without boxes."""
    found = number(owner, "min_visible", min_visible, 0.0, 1.0)
    if found and not boxed:
        raise ArgumentError(f"{owner}: min_visible is {found}, and there are no boxes")
    return found


def joined(root: bytes, name: bytes) -> bytes:
    """Return the path or URL of a file in a folder; a `name` that is a URL or an absolute path stays as it is."""
    return name if b"://" in name else os.path.join(root, name)


class SampleReader(Protocol):
    """Reads the samples of one batch. The other methods accept only indices that `read` got before."""

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        """Read the headers of the pictures with the decoder.

        Returns
        -------
        heads : int64 (N, 3)
            See `BatchDecoder.read`.
        wrong : dict of int to HighwayError
            Errors by row, of samples that fail before the decoder.
        """

    def keys(self, indices: NDArray[np.int64]) -> list[str]:
        """Key of each sample."""

    def labels(self, indices: NDArray[np.int64]) -> NDArray[Any] | None:
        """The field `labels`, an array of N rows; None without labels, or if each box has its own."""

    def objects(self, indices: NDArray[np.int64]) -> BoxTable | None:
        """Boxes with their labels and extras; sample i of the table is ``indices[i]``. None without boxes."""

    def columns(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Further fields, in order, arrays of N rows."""
        return {}

    def lists(self, indices: NDArray[np.int64]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]] | None:
        """Ragged extras and their offsets, int64 (N + 1,), of samples without boxes; None if there are none."""
        return None

    def picture_sizes(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Height and width, int64 (N, 2), of the upright pictures before they were shrunk; None if they were not."""
        return None

    @property
    def masks(self) -> Masks | None: ...


class Samples(Protocol):
    """All samples of a reader of pictures.

    Attributes
    ----------
    size : int
    noun, where : str
        Noun and place of samples in errors: ``"file"`` and ``"in '/data/'"``.
    boxed, masked : bool
        Whether the samples have boxes, and masks.
    min_visible : float
        Boxes are dropped if less than this fraction of their area, 0 to 1, is shown.
    placement : bool
        Whether batches have the extras `placement` and `picture_sizes`.
    ranges : Ranges or None
        Where the samples lie in a store, from which a `Fetcher` fetches them; None if they are read otherwise.
    in_files : bool
        Whether the pictures are files as they were made, which `Encoded` keeps.
    pairs : mapping of str to Samples
        Further pictures of the samples, by their fields.
    """

    ranges: Ranges | None = None
    in_files: bool = True
    pairs: Mapping[str, Samples] = MappingProxyType({})
    size: int
    noun: str
    where: str
    boxed: bool
    masked: bool
    min_visible: float
    placement: bool

    def begin(self) -> SampleReader:
        """Make a reader for the samples of one batch."""

    def needed(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers, int64 (M,), of the ranges that some samples need."""
        return indices

    def fetching(self, fetcher: Fetcher) -> Samples:
        """Return a copy for a run, which takes its ranges from a fetcher. Only with `ranges`."""
        raise TypeError("samples without ranges are not fetched")

    def sizes(self, indices: NDArray[np.int64], owner: str) -> NDArray[np.int64]:
        """Bytes of the pictures of some samples, int64 (N,); 0 where they are not known."""
        return np.zeros(len(indices), np.int64)

    @property
    def at_hand(self) -> bool:
        """Whether this machine has the pictures, and any of them can be read before the pipeline starts."""
        return self.ranges is None

    def starts(self, indices: NDArray[np.int64], nbytes: int) -> list[bytes | None]:
        """Return the first `nbytes` bytes of pictures, of smaller ones all; None where that is not less work, or fails.

        Only with `at_hand`.
        """
        return [None] * len(indices)

    # Calls from the engine, for samples that are not read one by one

    def for_run(self) -> Self:
        """Return the same samples with nothing read ahead."""
        return self

    def announced(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield tasks, and read ahead what they need."""
        return tasks

    def begin_task(self, task: Task) -> None:
        """Read a part of what later tasks need. Runs before a batch is read."""
        return

    def finish_task(self, task: Task) -> None:
        """Free what only this task needed."""
        return

    def open(self) -> None:
        """Count a worker."""
        return

    def close(self) -> None:
        """Uncount a worker."""
        return

    def interrupt(self) -> None:
        """Wake the workers that wait; takes no lock."""
        return

    def fetched(self) -> dict[str, int] | None:
        """Figures of the requests of the samples themselves; None if they make none."""
        return None

    # Names and types

    def known_keys(self) -> Iterable[str] | None:
        """Keys of all samples; None if they are known only after reading."""
        return None

    def known_labels(self) -> NDArray[Any] | None:
        """Labels of all samples, an array of N rows; None if they are known only after reading, or belong to boxes."""
        return None

    def unlabeled(self) -> Sequence[int]:
        """Samples without a label, by their numbers; `known_labels` has any value for them."""
        return ()

    def spec(self) -> Spec:
        """The fields `labels` and `boxes`, as far as there are any, in this order."""

    def columns_spec(self) -> Spec:
        """The fields after `masks`."""
        return {}

    def describe(self, index: int) -> str:
        """Name of a sample in errors."""

    def name(self, index: int) -> str:
        """Name of a sample in `errors` of the reader."""


class FileParts(TypedDict, total=False):
    """What files have beside their pictures: arguments of `Files`.

    Attributes
    ----------
    labels : callable, optional
        Returns the field `labels` for indices (N,), an array of N rows.
    objects : BoxTable, optional
        Boxes of every sample with their labels and extras; the field `labels` is then that of the boxes.
    masks : MaskFiles, optional
    min_visible : float
        0 by default.
    placement : bool
        False by default.
    """

    labels: Callable[[NDArray[np.int64]], NDArray[Any]] | None
    objects: BoxTable | None
    masks: MaskFiles | None
    min_visible: float
    placement: bool


class Files(Samples, SampleReader):
    """Samples that are files.

    Parameters
    ----------
    root : bytes
        Folder of the names that are relative, with a separator at its end; empty for the working directory.
    names : sequence of bytes
        File names of the samples; also their keys.
    where : str
    **parts
        See `FileParts`.
    """

    noun = "file"

    def __init__(
        self,
        root: bytes,
        names: Sequence[bytes],
        where: str,
        **parts: Unpack[FileParts],
    ) -> None:
        self.size = len(names)
        self.where = where
        self._root, self._names = root, names
        self._labels, self._objects, self._masks = (
            parts.get("labels"),
            parts.get("objects"),
            parts.get("masks"),
        )
        self.boxed, self.masked = self._objects is not None, self._masks is not None
        self.min_visible, self.placement = parts.get("min_visible", 0.0), parts.get("placement", False)

    def begin(self) -> Files:
        return self

    def known_keys(self) -> Iterable[str]:
        return map(os.fsdecode, self._names)

    def known_labels(self) -> NDArray[Any] | None:
        return self.labels(np.arange(self.size))

    def spec(self) -> Spec:
        nothing = np.zeros(0, np.int64)
        labels, objects = self.labels(nothing), self.objects(nothing)
        of_boxes = None if objects is None else objects.labels
        spec = {}
        if of_boxes is not None:
            spec["labels"] = array_spec(of_boxes.dtype, *of_boxes.shape[1:], ragged=True)
        elif labels is not None:
            spec["labels"] = array_spec(labels.dtype, *labels.shape[1:])
        if objects is not None:
            spec["boxes"] = array_spec(np.float32, 4, ragged=True)
        return spec

    def path(self, index: int) -> bytes:
        """Path of a picture."""
        return joined(self._root, self._names[index])

    def describe(self, index: int) -> str:
        return os.fsdecode(self.path(index))

    def name(self, index: int) -> str:
        return os.fsdecode(self._names[index])

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        return decoder.read([self.path(index) for index in indices.tolist()], oriented, turn), {}

    def contents(
        self, indices: NDArray[np.int64], turn: int, owner: str
    ) -> tuple[list[bytes | memoryview | None], dict[int, HighwayError]]:
        """Read whole files.

        Returns
        -------
        contents : list of bytes, memoryview or None
            None where there is an error.
        errors : dict of int to HighwayError
            ReadErrors and StorageErrors, by row.
        """
        found: list[bytes | memoryview | None] = [None] * len(indices)
        wrong: dict[int, HighwayError] = {}
        away = False
        for row, index in enumerate(indices.tolist()):
            if away:
                # Every attempt on a dead server may take a minute to fail.
                name = self.describe(index)
                wrong[row] = StorageError(f"{owner}: {name} was not tried after another one failed")
                continue
            try:
                found[row] = read_once(self.path(index), LARGEST_FILE)
            except (ReadError, StorageError) as error:
                wrong[row] = type(error)(f"{owner}: {self.describe(index)} {error}")
                away = isinstance(error, StorageError)
        return found, wrong

    def sizes(self, indices: NDArray[np.int64], owner: str) -> NDArray[np.int64]:
        """Bytes of files, int64 (N,); 0 for those that cannot be reached."""
        found = (status_of(self.path(index), owner) for index in indices.tolist())
        return np.array([0 if one is None else one.st_size for one in found], np.int64)

    def starts(self, indices: NDArray[np.int64], nbytes: int) -> list[bytes | None]:
        found: list[bytes | None] = []
        for index in indices.tolist():
            try:
                with open(self.path(index), "rb", buffering=0) as file:
                    found.append(file.read(nbytes))
            except OSError:
                found.append(None)
        return found

    def keys(self, indices: NDArray[np.int64]) -> list[str]:
        return [self.name(index) for index in indices.tolist()]

    def labels(self, indices: NDArray[np.int64]) -> NDArray[Any] | None:
        return None if self._labels is None else self._labels(indices)

    def objects(self, indices: NDArray[np.int64]) -> BoxTable | None:
        return None if self._objects is None else self._objects.of(indices)

    @property
    def masks(self) -> MaskFiles | None:
        return self._masks
