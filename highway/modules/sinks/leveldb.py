"""LevelDBSink: writes batches to a store."""

from __future__ import annotations

import os

from highway.arguments import expanded, flag, whole
from highway.engine import Source
from highway.errors import ArgumentError
from highway.modules.sinks.storing import StoringSink
from highway.store.writing import StoreWriter

__all__ = ["LevelDBSink"]


class LevelDBSink(StoringSink):
    """Writes the samples of every batch to a store, with all fields unchanged, for a `LevelDBSource`.

    Samples are numbered as they arrive. They are written in atomic batches of some MiB: each one is on the disk whole
    or not at all, even after a crash. The store is complete when the pipeline has run to its end. To complete an
    interrupted one, run a pipeline of the same modules with ``append=True``: it neither reads nor writes samples that
    the store already has, by epoch and index. So a sample that comes twice in an epoch is stored once.

    Parameters
    ----------
    path : path
        Folder of the store; created if needed.
    append : bool
        Complete the store at `path`. Without it, a path that already has a store raises.
    batch_bytes : int
        Bytes that are written at once, 1 to 1 GiB.

    Raises
    ------
    ArgumentError
        An argument is out of range. In the Pipeline: the source has no end.
    MissingPackageError
        plyvel is not installed.
    StoreError, StoreLockedError, CorruptStoreError, IncompleteStoreError, StateMismatchError
        In the Pipeline, which opens the store: the path has something else, cannot be written to, is open elsewhere, is
        damaged, was not finished, or has samples of other data. With a batch: it cannot be written, or differs from
        earlier batches in fields, dtypes or shapes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        append: bool = False,
        batch_bytes: int = 4 << 20,
    ) -> None:
        super().__init__()
        self.path = expanded(self.name, "path", path)
        self.append = flag(self.name, "append", append)
        self.batch_bytes = whole(self.name, "batch_bytes", batch_bytes, 1, 1 << 30)

    def __repr__(self) -> str:
        return f"LevelDBSink({self.path!r}{', append=True' if self.append else ''})"

    def make_writer(self, source: Source) -> StoreWriter:
        if source.seekable and source.epochs is None:
            raise ArgumentError(
                f"{self.name}: {source.name} has no end, and would fill the disk; expected one with epochs=1"
            )
        classes = getattr(source, "classes", None)
        return StoreWriter(
            self.path,
            self.name,
            append=self.append,
            batch_bytes=self.batch_bytes,
            classes=classes if classes is None or isinstance(classes, int) else list(classes),
            origin=repr(source),
            fingerprint=source.samples_fingerprint(),
            shard=source.shard,
        )
