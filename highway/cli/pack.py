"""Pack the pictures of a reader into a store."""

from __future__ import annotations

import os
from typing import NamedTuple

from highway.cli.terminal import progress
from highway.engine import Pipeline
from highway.errors import StateMismatchError, WaitTimeout
from highway.modules import Encoded, LevelDBSink
from highway.modules.readers.image_reader import ImageReader

__all__ = ["Packed", "pack"]

_SHOWN_EACH = 0.2  # seconds


class Packed(NamedTuple):
    """The result of packing.

    Attributes
    ----------
    before, after : int
        Samples in the store.
    errors : list of (str, str)
        (key, reason) of every skipped sample.
    """

    before: int
    after: int
    errors: list[tuple[str, str]]


def pack(reader: ImageReader, path: str | os.PathLike[str], encoding: str) -> Packed:
    """Write all samples of a reader that a store lacks to the store; with a progress bar on a terminal.

    Parameters
    ----------
    reader : ImageReader
        With ``epochs=1``.
    path : path
        The store; created if it is missing, otherwise appended to.
    encoding : str
        "raw" for the images that the reader returns, or an encoding of `Encoded`.

    Raises
    ------
    StateMismatchError
        The store was packed from other files, or in another way.
    HighwayError
        As raised by the reader, `Encoded` and `LevelDBSink`.
    """
    source = reader if encoding == "raw" else Encoded(reader, encoding)
    sink = LevelDBSink(path, append=True)
    try:
        pipeline = Pipeline([source, sink])
    except StateMismatchError as error:
        raise StateMismatchError(
            f"pack: {sink.path!r} was packed from other files, in another encoding, or with other options; a "
            "store holds samples of one kind: use another path"
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
