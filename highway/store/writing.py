"""Write a store: batches of records, each batch atomically."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from highway.arguments import expanded
from highway.batch import Batch
from highway.errors import CorruptStoreError, IncompleteStoreError, StateMismatchError, StoreError
from highway.store.marks import MARK_KEY, Identities, Mark, Seen, identities_key
from highway.store.opening import LOCK_NAME, Lock, error_text, open_leveldb, plyvel_for, read_error
from highway.store.records import Schema, key_of, number_of

__all__ = ["StoreWriter"]


class StoreWriter:
    """Writes a store, exclusively and from one thread.

    Parameters
    ----------
    path : path
        Folder; created if it is missing. Its parent must exist.
    owner : str
        Name of the writing module, for errors.
    append : bool
        True to append to an existing store.
    batch_bytes : int
        Records are written once they have this many bytes together.
    classes : list of str, int or None
        Classes of the source.
    fingerprint : str
        Fingerprint of the source. An existing store must have the same.
    shard : (int, int)
        Shard of the source.
    origin : str
        The repr of the source.

    Raises
    ------
    StoreError
        The path cannot be written to or has other contents, or it has a store and `append` is False.
    StateMismatchError
        The store has other data.
    StoreLockedError
        The store is being read or written.
    CorruptStoreError
        The store is damaged.
    StorageError
        The storage failed.
    MissingPackageError
        plyvel is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        owner: str,
        *,
        append: bool,
        batch_bytes: int,
        classes: list[str] | int | None = None,
        fingerprint: str = "",
        shard: tuple[int, int] = (0, 1),
        origin: str = "",
    ) -> None:
        self.path = expanded(owner, "path", path)
        self._owner = owner
        self._plyvel = plyvel_for(owner)
        self._batch_bytes = batch_bytes
        self._db: Any = None
        self._seen = Seen()
        self._waiting: list[tuple[bytes, bytes]] = []
        self._waiting_bytes = 0
        self._identities: list[tuple[int, int]] = []
        self._failed = False
        _make_folder(self.path, owner)
        # Before the lock, so that no lock file is created in another folder; and again with the lock.
        _refuse_others(self.path, owner)
        self._lock = Lock(self.path, shared=False, owner=owner)
        try:
            _refuse_others(self.path, owner)
            self._db = open_leveldb(self.path, owner, create=True)
            before = self._before()
            self.count = 0 if before is None else self._stored()
            """Number of records, including those that wait to be written."""
            self.before = self.count
            """Number of records before this writer."""
            self._mark = Mark(self.count, False, None, classes, fingerprint, shard, origin)
            if before is not None and (self.count or before.complete):
                self._go_on(before, append)
            # An incomplete store without records gets a new mark, since its source may differ now.
            self._begun = before is not None and not before.complete and self.count > 0
        except BaseException:
            self._end()
            raise

    # The existing store

    def _stored(self) -> int:
        """Return the number of existing records, and note their identities."""
        try:
            with self._db.iterator(reverse=True, include_value=False, start=key_of(0)) as keys:
                last = next(keys, None)
            count = 0 if last is None else number_of(last) + 1
            number = 0
            while number < count:
                value = self._db.get(identities_key(number), verify_checksums=True)
                if value is None:
                    raise CorruptStoreError("the list of which samples were written has a gap")
                found = Identities.unpacked(value)
                if not len(found.indices):
                    raise CorruptStoreError("the list of which samples were written is damaged")
                for epoch, index in zip(found.epochs.tolist(), found.indices.tolist(), strict=True):
                    self._seen.add(epoch, index)
                number += len(found.indices)
            if number > count:
                raise CorruptStoreError(f"it has {count} records, but {number} were written")
            return count
        except CorruptStoreError as error:
            raise CorruptStoreError(f"{self._owner}: {self.path!r} is damaged: {error}") from None
        except self._plyvel.Error as error:
            raise read_error(self._owner, self.path, error) from None

    def _before(self) -> Mark | None:
        """Return the mark of the store; None where it is new."""
        try:
            value = self._db.get(MARK_KEY, verify_checksums=True)
            mark = None if value is None else Mark.unpacked(value)
            if mark is None:
                with self._db.iterator(include_value=False) as keys:
                    if next(keys, None) is not None:
                        raise StoreError("is a LevelDB that this Highway did not write; use another path")
            return mark
        except self._plyvel.Error as error:
            raise read_error(self._owner, self.path, error) from None
        except StoreError as error:
            raise type(error)(f"{self._owner}: {self.path!r}: {error}") from None

    def _go_on(self, before: Mark, append: bool) -> None:
        if not append:
            if before.complete:
                raise StoreError(
                    f"{self._owner}: {self.path!r} is a store of {self.count} samples and is not overwritten; use "
                    "another path, or append=True to add missing samples"
                )
            raise IncompleteStoreError(
                f"{self._owner}: {self.path!r} is incomplete: its writing was interrupted after {self.count} samples; "
                "append=True resumes"
            )
        if before.complete and before.samples != self.count:
            raise CorruptStoreError(
                f"{self._owner}: {self.path!r} has {self.count} records, but {before.samples} were written"
            )
        for name in ("fingerprint", "classes"):
            was, now = getattr(before, name), getattr(self._mark, name)
            if was != now:
                raise StateMismatchError(
                    f"{self._owner}: {self.path!r} was begun with other data: its {name} is {was!r}, not {now!r}; "
                    "append=True needs the same reader with the same arguments"
                )
        self._mark = self._mark._replace(schema=before.schema, origin=before.origin)

    # Writing

    def has(self, epoch: int, index: int) -> bool:
        """Whether a sample is stored, or waits to be written."""
        return self._seen.has(epoch, index)

    def add(self, batch: Batch) -> None:
        """Add the samples of a batch that are not stored yet; they may wait for others before they are written.

        Raises
        ------
        StoreError
            The fields of the batch differ from the previous batches, or it cannot be written.
        """
        schema = Schema.of(batch, self._owner)
        if self._mark.schema is None:
            self._mark = self._mark._replace(schema=schema)
        elif self._mark.schema != schema:
            raise StoreError(
                f"{self._owner}: a batch has {schema} (after {schema.applied} transforms), but the previous ones have "
                f"{self._mark.schema} (after {self._mark.schema.applied}); expected the same in every batch"
            )
        epoch = batch.epoch
        rows = [row for row, index in enumerate(batch.indices.tolist()) if self._seen.add(epoch, index)]
        records = schema.records(batch, self.count, rows)
        for row, record in zip(rows, records, strict=True):
            self._waiting.append((key_of(self.count), record))
            self._waiting_bytes += len(record)
            self._identities.append((epoch, int(batch.indices[row])))
            self.count += 1
            if self._waiting_bytes >= self._batch_bytes:
                self.flush()

    def flush(self) -> None:
        """Write all waiting records to the disk."""
        if not self._waiting:
            return
        if not self._begun:
            self._put_mark(self._mark._replace(samples=0, complete=False))
            self._begun = True
        epochs, indices = np.array(self._identities, np.int64).T
        first = self.count - len(self._waiting)
        batch = self._db.write_batch(sync=True)
        for key, record in self._waiting:
            batch.put(key, record)
        batch.put(identities_key(first), Identities(epochs, indices).packed())
        self._write(batch.write)
        self._waiting.clear()
        self._identities.clear()
        self._waiting_bytes = 0

    def finish(self) -> None:
        """Write the remaining records and mark the store as complete."""
        self.flush()
        # Records go to tables before the mark: a table with both would be searched for every key.
        self._to_tables()
        self._put_mark(self._mark._replace(samples=self.count, complete=True))

    def _put_mark(self, mark: Mark) -> None:
        self._write(lambda: self._db.put(MARK_KEY, mark.packed(), sync=True))
        self._to_tables()

    def _to_tables(self) -> None:
        self._write(lambda: self._db.compact_range(start=MARK_KEY, stop=MARK_KEY))

    def _write(self, what: Any) -> None:
        try:
            what()
        except self._plyvel.Error as error:
            self._failed = True
            raise StoreError(
                f"{self._owner}: {self.path!r} cannot be written to: {error_text(error)}; the records written before "
                "are kept, and append=True resumes"
            ) from None

    def close(self) -> None:
        """Write the added records to the disk and close; the store may be incomplete."""
        if self._db is None:
            return
        try:
            if self._waiting and not self._failed:
                self.flush()
        finally:
            self._end()

    def _end(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self._lock.release()


def _make_folder(path: str, owner: str) -> None:
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise StoreError(f"{owner}: {path!r} is a file; a store is a folder, use another path") from None
    except OSError as error:
        raise StoreError(f"{owner}: {path!r} cannot be made: {error.strerror}") from None


def _refuse_others(path: str, owner: str) -> None:
    """Raise StoreError where a folder has other contents than a store."""
    try:
        names = set(os.listdir(path)) - {LOCK_NAME}
    except OSError as error:
        raise StoreError(f"{owner}: {path!r} cannot be read: {error.strerror}") from None
    if names and "CURRENT" not in names and not all(name in ("LOCK", "LOG", "LOG.old") for name in names):
        if any(name.startswith("MANIFEST-") for name in names):
            # Either killed while it was created, which LevelDB repairs by itself, or damaged.
            if not any(name.endswith((".ldb", ".sst", ".log")) for name in names):
                return
            raise CorruptStoreError(f"{owner}: {path!r} is damaged: its file CURRENT is gone")
        raise StoreError(f"{owner}: {path!r} is a folder with other contents; use another path")
