"""What is in a store, whether it is sound, and what is left of one that is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from highway._core.spans import Spans
from highway.errors import CorruptStoreError, StoreError
from highway.store.marks import MARK_KEY, Mark
from highway.store.opening import Lock, names_in, open_leveldb, plyvel_for, private_view, told
from highway.store.reading import StoreReader
from highway.store.records import Slots, key_of, number_of, schema_in
from highway.store.writing import StoreWriter

__all__ = ["Repaired", "describe", "repair", "verify"]

_OWNER = "store"


def describe(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """What a store says of itself, as (name, text); raises as `StoreReader` does, but not for an incomplete one."""
    reader = StoreReader(path, _OWNER, allow_incomplete=True)
    try:
        mark = reader.mark
        classes = mark.classes
        known = "none" if classes is None else str(classes if isinstance(classes, int) else len(classes))
        if isinstance(classes, list):
            known += f": {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"
        folder = os.fspath(path)
        nbytes = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
        facts = [
            ("format", "the first Highway's" if reader.former else "1"),
            (
                "samples",
                f"{mark.samples}{'' if mark.complete else ', incomplete: the writing was interrupted'}",
            ),
            ("size", f"{nbytes / 1e6:.1f} MB"),
            ("classes", known),
        ]
        if mark.schema is not None:
            facts += [("field", str(column)) for column in mark.schema.columns]
            facts.append(("transforms", f"{mark.schema.applied} applied"))
        if mark.fingerprint:
            facts.append(("written from", f"{mark.fingerprint}, part {mark.shard[0]} of {mark.shard[1]}"))
        return facts
    finally:
        reader.close()


def verify(path: str | os.PathLike[str], bad: Callable[[int, str], None]) -> tuple[int, int]:
    """Read every record, with the checksums of LevelDB and our own.

    Parameters
    ----------
    path : path
    bad : callable
        Called with the number of a damaged record, and what is wrong.

    Returns
    -------
    damaged, size : int
        How many records are damaged, of how many.

    Raises
    ------
    StoreError
        As `StoreReader` does: the store as a whole cannot be read, or is incomplete.
    """
    reader = StoreReader(path, _OWNER, short=True)
    damaged = 0
    try:
        with reader:
            for number in range(len(reader)):
                for error in reader.read([number], checked=True).errors.values():
                    damaged += 1
                    bad(number, str(error))
    finally:
        reader.close()
    return damaged, len(reader)


class Repaired(NamedTuple):
    """What came of repairing a store.

    Attributes
    ----------
    kept : int
        Records that are in the new store.
    gone : int or None
        Records that are not; None where nothing says how many there were.
    """

    kept: int
    gone: int | None


def repair(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> Repaired:
    """Copy all sound records of a store to a new one, which is complete; the damaged store stays as it is.

    Records are numbered anew, in their order. To the new store nothing can be appended.

    Raises
    ------
    StoreError
        There is no store, or one of another version, or nothing can be written to `target`.
    StoreLockedError
        It is being written.
    CorruptStoreError
        There is no sound record.
    """
    name = os.fspath(path)
    plyvel = plyvel_for(_OWNER)
    names_in(name, _OWNER)
    lock = Lock(name, shared=True, owner=_OWNER)
    try:
        # LevelDB repairs in a folder of its own, where it moves links away instead of files.
        view = private_view(name, _OWNER)
        try:
            try:
                db = open_leveldb(view.folder, _OWNER, shown=name)
            except CorruptStoreError:
                try:
                    plyvel.repair_db(view.folder)
                except plyvel.Error as error:
                    raise CorruptStoreError(f"{_OWNER}: {name!r} cannot be repaired: {told(error)}") from None
                db = open_leveldb(view.folder, _OWNER, shown=name)
            try:
                return _saved(db, plyvel, name, os.fspath(target))
            finally:
                db.close()
        finally:
            view.remove()
    finally:
        lock.release()


def _saved(db: Any, plyvel: Any, name: str, target: str) -> Repaired:
    mark = _mark_left(db, plyvel, name)
    written = mark.samples if mark is not None and mark.complete else None
    schema = None if mark is None else mark.schema
    writer: StoreWriter | None = None
    try:
        for number in range(_last(db, plyvel) + 1 if written is None else written):
            try:
                value = db.get(key_of(number), verify_checksums=True, fill_cache=False)
                if value is None:
                    continue
                schema = schema or schema_in(value, number)
                found = schema.check(Spans([value]), np.array([number]))
                if found.errors:
                    continue
                slots = Slots(schema, 1)
                slots.put(found.rows, found)
            except (CorruptStoreError, plyvel.Error):
                continue
            if writer is None:
                known = mark or Mark(0, False, None, None, "", (0, 1))
                writer = StoreWriter(
                    target,
                    _OWNER,
                    append=False,
                    batch_bytes=4 << 20,
                    classes=known.classes,
                    # That of no source: what is gone cannot be told from what is new.
                    fingerprint=f"{known.fingerprint} repaired",
                    shard=known.shard,
                )
            writer.add(slots.batch(epoch=0, seq=0, indices=np.array([number])))
        if writer is None:
            raise CorruptStoreError(f"{_OWNER}: {name!r} has no sound record")
        writer.finish()
        return Repaired(writer.count, None if written is None else written - writer.count)
    finally:
        if writer is not None:
            writer.close()


def _mark_left(db: Any, plyvel: Any, name: str) -> Mark | None:
    try:
        value = db.get(MARK_KEY, verify_checksums=True)
        return None if value is None else Mark.unpacked(value)
    except (CorruptStoreError, plyvel.Error):
        return None
    except StoreError as error:
        raise StoreError(f"{_OWNER}: {name!r}: {error}") from None


def _last(db: Any, plyvel: Any) -> int:
    """The highest number that a key has; -1 where there is none."""
    highest = -1
    try:
        with db.iterator(include_value=False, start=key_of(0)) as keys:
            for key in keys:
                if len(key) == 8:
                    highest = max(highest, number_of(key))
    except plyvel.Error:
        # What lies behind is lost with the index that leads there.
        pass
    return highest
