"""Pack the pictures of a reader into a store or tar shards."""

from __future__ import annotations

import os
from typing import NamedTuple

from highway.cli.terminal import progress
from highway.engine import Pipeline
from highway.errors import ArgumentError, StateMismatchError, WaitTimeout
from highway.modules import Encoded, LevelDBSink, TarSink
from highway.modules.readers.image_reader import ImageReader

__all__ = ["Packed", "is_tar", "pack"]

_SHOWN_EACH = 0.2  # seconds


class Packed(NamedTuple):
    """The result of packing.

    Attributes
    ----------
    before, after : int
        Samples in the store or the shards.
    errors : list of (str, str)
        (key, reason) of every skipped sample.
    """

    before: int
    after: int
    errors: list[tuple[str, str]]


def is_tar(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names tar shards rather than a store."""
    return os.fspath(path).endswith(".tar")


def pack(
    reader: ImageReader, path: str | os.PathLike[str], encoding: str, shard_bytes: int | None = None
) -> Packed:
    """Write all samples of a reader that are not stored yet; with a progress bar on a terminal.

    Parameters
    ----------
    reader : ImageReader
        With ``epochs=1``.
    path : path
        The store, or the name of tar shards (see `TarSink`); created if missing, otherwise appended to.
    encoding : str
        "raw" for the images that the reader returns, not in tar shards, or an encoding of `Encoded`.
    shard_bytes : int, optional
        Largest tar shard in bytes.

    Raises
    ------
    ArgumentError
        Tar shards of raw images, or `shard_bytes` for a store.
    StateMismatchError
        The store or the shards were packed from other files, or in another way.
    HighwayError
        As raised by the reader, `Encoded`, `LevelDBSink` and `TarSink`.
    """
    sink: LevelDBSink | TarSink
    if os.fspath(path).endswith((".tgz", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2")):
        raise ArgumentError(
            f"pack: {os.fspath(path)!r} names a compressed tar, which has no random access; expected "
            "NAME-{0000..}.tar, or the folder of a store"
        )
    if is_tar(path):
        if encoding == "raw":
            raise ArgumentError(
                f"pack: {os.fspath(path)!r} in the encoding raw; expected original or jpeg:SIDE, since tars have "
                "pictures as files"
            )
        sink = TarSink(path, append=True, **({} if shard_bytes is None else {"shard_bytes": shard_bytes}))
    elif shard_bytes is not None:
        raise ArgumentError(f"pack: {os.fspath(path)!r} is no name of tar shards; expected no size of shards")
    else:
        sink = LevelDBSink(path, append=True)
    source = reader if encoding == "raw" else Encoded(reader, encoding)
    try:
        pipeline = Pipeline([source, sink])
    except StateMismatchError as error:
        raise StateMismatchError(
            f"pack: {sink.path!r} was packed from other files, in another encoding, or with other options; it holds "
            "samples of one kind: use another path"
        ) from error
    with pipeline:
        before = shown = sink.begun_with
        with progress(reader.size, before) as advance:
            while True:
                try:
                    pipeline.wait(_SHOWN_EACH)
                    break
                except WaitTimeout:
                    shown, last = sink.stored, shown
                    advance(shown - last)
        return Packed(before, sink.stored, pipeline.errors)
