"""TarSink: writes batches to tar shards for TarReader and WebDataset."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import expanded, flag, whole
from highway.batch import Batch
from highway.engine import Source
from highway.errors import ArgumentError
from highway.modules.sinks.storing import StoringSink
from highway.storage.sniffing import FIRST_BYTES, sniff
from highway.store.tar_shards import ShardNames, TarShards

__all__ = ["TarSink"]

_ENDINGS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WebP": "webp",
    "BMP": "bmp",
    "GIF": "gif",
    "TIFF": "tif",
    "PGM": "pgm",
}


class TarSink(StoringSink):
    """Writes the samples of every batch to tar shards, which `TarReader` and WebDataset read.

    The images are encoded pictures, as those of `Encoded`. A sample becomes members with one name: its key, without the
    ending of a picture, with ``_`` for the dots in the file name, and with ``-2`` and so on after it where another
    sample has that name. The members are the picture (``jpg``, ``png``, ...), a label that is a whole number
    (``cls``), a mask (``mask.png``), texts (``NAME.txt``), and all other fields and extras as arrays of NumPy
    (``labels.npy``, ``boxes.npy``, ``NAME.npy``).

    A shard appears under its name when it is whole, on the disk, and then in the list of shards, ``train.json`` for
    ``train-{0000..}.tar``, a file in the format of wids. The shards are complete when the pipeline has run to its end.
    To complete an interrupted run, run a pipeline of the same modules with ``append=True``: it neither reads nor writes
    samples that the shards already have.

    Parameters
    ----------
    path : path
        Name of the shards with a range of numbers, ``train-{0000..}.tar``; with a second number, there are at most so
        many. The folder is created if needed.
    append : bool
        Complete the shards at `path`. Without it, shards that exist already raise.
    shard_bytes : int
        Largest shard in bytes, unless one sample is larger; 64 KiB to 1 TiB.
    shard_samples : int, optional
        Most samples in a shard.

    Raises
    ------
    ArgumentError
        An argument is out of range. In the Pipeline: the source has not one epoch. With a batch: its images are not
        encoded pictures, a field has no rows, or a key would lead out of a folder.
    StoreError, StoreLockedError, CorruptStoreError, IncompleteStoreError, StateMismatchError
        In the Pipeline: the shards exist, are being written, are damaged, were not finished, or have samples of other
        data.
    WriteError
        A shard cannot be written, or the range has no further number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        append: bool = False,
        shard_bytes: int = 1 << 30,
        shard_samples: int | None = None,
    ) -> None:
        super().__init__()
        self.path = expanded(self.name, "path", path)
        self._names = ShardNames(self.path, self.name)
        self.append = flag(self.name, "append", append)
        self.shard_bytes = whole(self.name, "shard_bytes", shard_bytes, 1 << 16, 1 << 40)
        self.shard_samples = (
            None if shard_samples is None else whole(self.name, "shard_samples", shard_samples, 1)
        )

    def __repr__(self) -> str:
        return f"TarSink({self.path!r}{', append=True' if self.append else ''})"

    def make_writer(self, source: Source) -> _Writer:
        if source.epochs != 1:
            raise ArgumentError(
                f"{self.name}: {source.name} has epochs={source.epochs}; expected a source with epochs=1, since shards "
                "have every sample once"
            )
        classes = getattr(source, "classes", None)
        return _Writer(
            self._names,
            self.name,
            append=self.append,
            shard_bytes=self.shard_bytes,
            shard_samples=self.shard_samples,
            classes=classes if classes is None or isinstance(classes, int) else list(classes),
            fingerprint=source.samples_fingerprint(),
            origin=repr(source),
        )


class _Writer(TarShards):
    """Makes the members of the samples of batches."""

    def add(self, batch: Batch) -> None:
        """Add the samples of a batch that are not stored yet."""
        if "images" not in batch.fields or batch["images"].dtype != object:
            found = f"images of {batch['images'].dtype}" if "images" in batch.fields else "no images"
            raise ArgumentError(
                f"{self._owner}: a batch has {found}; expected encoded pictures, such as those of "
                "Encoded(reader, 'original')"
            )
        for row, index in enumerate(batch.indices.tolist()):
            key = batch.keys[row] if batch.keys else f"{index:08}"
            self.put(index, key, dict(self._members(batch, row)))

    def _members(self, batch: Batch, row: int) -> Any:
        """Yield ending and contents of the members of a sample."""
        for name, array in (*batch.fields.items(), *batch.extras.items()):
            if array.ndim == 0:
                raise ArgumentError(
                    f"{self._owner}: {name} is one {array.dtype} for the whole batch; expected a row for each sample: "
                    "drop it in a stage before the sink"
                )
            value = batch.rows_of(name, row) if name in batch.ragged else array[row]
            if name == "images":
                yield self._ending(value, batch, row), value
            elif name == "masks" and isinstance(value, bytes):
                yield "mask.png", value
            elif name == "labels" and np.ndim(value) == 0 and array.dtype.kind in "iu":
                yield "cls", str(value).encode()
            elif isinstance(value, str):
                yield f"{name}.txt", value.encode("utf-8", "surrogateescape")
            elif isinstance(value, bytes):
                yield f"{name}.bin", value
            elif array.dtype == object:
                raise ArgumentError(
                    f"{self._owner}: {name} of sample {row} of a batch is a {type(value).__name__}; expected numbers, "
                    "str or bytes"
                )
            else:
                yield f"{name}.npy", _npy(np.asarray(value))

    def _ending(self, picture: object, batch: Batch, row: int) -> str:
        found = sniff(picture[:FIRST_BYTES]) if isinstance(picture, bytes) else None
        if found not in _ENDINGS:
            raise ArgumentError(
                f"{self._owner}: image {row} of batch {batch.seq} is {found or 'no picture of a known format'}; "
                f"expected {', '.join(_ENDINGS)}"
            )
        return _ENDINGS[found]


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
