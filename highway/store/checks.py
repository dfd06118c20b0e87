"""Describe, verify and repair a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from highway._core.records.spans import Spans
from highway.arguments import expanded
from highway.errors import CorruptStoreError, StoreError
from highway.storage.printing import printable
from highway.store.marks import MARK_KEY, Mark
from highway.store.opening import (
    Lock,
    error_text,
    names_in,
    open_leveldb,
    plyvel_for,
    private_view,
    read_error,
    storage_failed,
)
from highway.store.reading import StoreReader
from highway.store.records import BatchBuffers, key_of, number_of, schema_in
from highway.store.writing import StoreWriter

__all__ = ["Repaired", "Verified", "describe", "repair", "verify"]

Progress = Callable[[int], AbstractContextManager[Callable[[int], object]]]
"""Takes a number of records, and returns a context manager of a function to report finished ones."""

_OWNER = "store"
# Most shown characters of a text from a store.
_LONGEST = 1000


def describe(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Describe a store as (name, text) pairs; raises like `StoreReader`, but accepts an incomplete store."""
    reader = StoreReader(path, _OWNER, allow_incomplete=True)
    try:
        mark = reader.mark
        classes = mark.classes
        known = "none" if classes is None else str(classes if isinstance(classes, int) else len(classes))
        if isinstance(classes, list):
            shown = [printable(name[:_LONGEST]) for name in classes[:10]]
            known += f": {', '.join(shown)}{', ...' if len(classes) > 10 else ''}"
        folder = reader.path
        nbytes = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
        facts = [
            ("format", "the first Highway's" if reader.former else "1"),
            (
                "samples",
                f"{mark.samples}{'' if mark.complete else ', incomplete: the writing was interrupted'}",
            ),
            ("size", f"{nbytes / 1e6:.1f} MB"),
            ("read", "in place" if reader.slow is None else f"by LevelDB, slower: {reader.slow}"),
            ("classes", known),
        ]
        if mark.schema is not None:
            facts += [("field", str(column)) for column in mark.schema.columns]
            facts.append(("transforms", f"{mark.schema.applied} applied, including the fit of a reader"))
        if mark.origin:
            facts.append(("written from", printable(mark.origin[:_LONGEST])))
        if mark.fingerprint:
            facts.append(("fingerprint", mark.fingerprint))
        return facts
    finally:
        reader.close()


class Verified(NamedTuple):
    """The result of reading every record.

    Attributes
    ----------
    damaged, size : int
        Number of damaged records, and of all records.
    complete : bool
        Whether the writing was finished.
    """

    damaged: int
    size: int
    complete: bool


def verify(
    path: str | os.PathLike[str], bad: Callable[[int, int, str], None], progress: Progress
) -> Verified:
    """Read every record, with the checksums of LevelDB and our own.

    Parameters
    ----------
    path : path
    bad : callable
        Called for each run of damaged records, with the first number, the last number, and the reason.
    progress : callable
        Like `highway.cli.terminal.progress`.

    Raises
    ------
    StoreError
        The store as a whole cannot be read; see `StoreReader`.
    """
    reader = StoreReader(path, _OWNER, short=True, allow_incomplete=True)
    try:
        with reader, progress(len(reader)) as advance:
            damaged, begin, reason = 0, 0, None
            for number in range(len(reader)):
                found = reader.damage(number)
                if found != reason:
                    if reason is not None:
                        bad(begin, number - 1, reason)
                    begin, reason = number, found
                damaged += found is not None
                advance(1)
            if reason is not None:
                bad(begin, len(reader) - 1, reason)
        return Verified(damaged, len(reader), reader.mark.complete)
    finally:
        reader.close()


class Repaired(NamedTuple):
    """The result of repairing a store.

    Attributes
    ----------
    kept : int
        Number of records in the new store.
    gone : int or None
        Number of lost records; None where the original number is unknown.
    complete : bool
        Whether the writing of the damaged store was finished.
    """

    kept: int
    gone: int | None
    complete: bool


def repair(path: str | os.PathLike[str], target: str | os.PathLike[str], progress: Progress) -> Repaired:
    """Copy all sound records of a store to a new, complete store; the damaged store is not changed.

    Records are renumbered in their order. Nothing can be appended to the new store.

    Parameters
    ----------
    path, target : path
        The damaged store, and the new one, which must not exist yet.
    progress : callable
        Like `highway.cli.terminal.progress`.

    Raises
    ------
    StoreError
        `path` has no store, or one of another version; or `target` exists or cannot be written to.
    StoreLockedError
        The store is being written.
    CorruptStoreError
        There is no sound record.
    StorageError
        The storage failed: records that cannot be read now may be sound.
    """
    name, target = expanded(_OWNER, "path", path), expanded(_OWNER, "target", target)
    plyvel = plyvel_for(_OWNER)
    names_in(name, _OWNER)
    if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise StoreError(
            f"{_OWNER}: {target!r} exists; the records go into a new store: remove it, or use another path"
        )
    lock = Lock(name, shared=True, owner=_OWNER)
    try:
        # LevelDB repairs a private folder: it moves links away there, not the files of the store.
        view = private_view(name, _OWNER)
        try:
            try:
                db = open_leveldb(view.folder, _OWNER, shown=name)
            except CorruptStoreError:
                try:
                    plyvel.repair_db(view.folder)
                except plyvel.Error as error:
                    raise CorruptStoreError(
                        f"{_OWNER}: {name!r} cannot be repaired: {error_text(error)}"
                    ) from None
                db = open_leveldb(view.folder, _OWNER, shown=name)
            try:
                return _saved(db, plyvel, name, target, progress)
            finally:
                db.close()
        finally:
            view.remove()
    finally:
        lock.release()


def _saved(db: Any, plyvel: Any, name: str, target: str, progress: Progress) -> Repaired:
    mark = _mark_left(db, plyvel, name)
    complete = mark is not None and mark.complete
    known = mark or Mark(0, False, None, None, "", (0, 1))
    count = known.samples if complete else _last(db, plyvel, name) + 1
    schema = known.schema
    writer: StoreWriter | None = None
    try:
        with progress(count) as advance:
            for number in range(count):
                advance(1)
                try:
                    # A checksum of LevelDB covers many records; each record also has its own.
                    value = db.get(key_of(number), fill_cache=False)
                    if value is None:
                        continue
                    schema = schema or schema_in(value, number)
                    found = schema.check(Spans([value]), np.array([number]))
                except (CorruptStoreError, plyvel.Error) as error:
                    _refuse_outage(error, name)
                    continue
                if found.errors:
                    continue
                buffers = BatchBuffers(schema, 1)
                buffers.put(found.rows, found)
                if writer is None:
                    writer = StoreWriter(
                        target,
                        _OWNER,
                        append=False,
                        batch_bytes=4 << 20,
                        classes=known.classes,
                        # Matches no source, since lost and new samples could not be told apart.
                        fingerprint=f"{known.fingerprint} repaired",
                        shard=known.shard,
                        origin=f"{known.origin or 'unknown'}, repaired",
                    )
                writer.add(buffers.batch(epoch=0, seq=0, indices=np.array([number])))
        if writer is None:
            raise CorruptStoreError(f"{_OWNER}: {name!r} has no sound record")
        writer.finish()
        return Repaired(writer.count, None if mark is None else count - writer.count, complete)
    finally:
        if writer is not None:
            writer.close()


def _refuse_outage(error: Exception, name: str) -> None:
    """Raise StorageError where the storage failed: a record that cannot be read now may be sound."""
    if storage_failed(error):
        raise read_error(_OWNER, name, error) from None


def _mark_left(db: Any, plyvel: Any, name: str) -> Mark | None:
    try:
        value = db.get(MARK_KEY, verify_checksums=True)
        return None if value is None else Mark.unpacked(value)
    except (CorruptStoreError, plyvel.Error) as error:
        _refuse_outage(error, name)
        return None
    except StoreError as error:
        raise StoreError(f"{_OWNER}: {name!r}: {error}") from None


def _last(db: Any, plyvel: Any, name: str) -> int:
    """Return the highest number of a key; -1 where there is none."""
    highest = -1
    try:
        with db.iterator(include_value=False, start=key_of(0)) as keys:
            for key in keys:
                if len(key) == 8:
                    highest = max(highest, number_of(key))
    except plyvel.Error as error:
        # The keys after it are lost with their index, except in an outage.
        _refuse_outage(error, name)
    return highest
