"""Read a store: random access to records by number."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.records.spans import Spans
from highway._core.records.tables import Tables
from highway.arguments import expanded
from highway.errors import CorruptStoreError, IncompleteStoreError, StorageError, StoreError
from highway.storage.outages import Outages, may_pass
from highway.store.former import FormerRecords
from highway.store.marks import MARK_KEY, Mark
from highway.store.opening import (
    MOST_TABLES,
    Lock,
    StoreView,
    error_text,
    names_in,
    open_leveldb,
    plyvel_for,
    private_view,
    read_error,
    storage_failed,
)
from highway.store.records import Records, Schema, key_of, number_of, schema_in

__all__ = ["StoreReader"]


class StoreReader:
    """Reads a store, as it was when opened, from any number of threads.

    Parameters
    ----------
    path : path
    owner : str
        Name of the reading module, for errors.
    allow_incomplete : bool
        True to open an incomplete store, and read the records that were written.
    short : bool
        True to open a store whose last records are missing.

    Raises
    ------
    StoreError
        There is no store, or one of another version.
    StoreLockedError
        The store is being written.
    CorruptStoreError
        The store is damaged.
    IncompleteStoreError
        The writing of the store was not finished.
    StorageError
        The storage failed for longer than the waiting time.
    MissingPackageError
        plyvel is not installed.

    Attributes
    ----------
    path : str
    mark : Mark
        Metadata of the store, with the actual number of `samples`.
    former : bool
        Whether the store has the layout of the first Highway.
    slow : str or None
        Why records are read by LevelDB, several times slower, instead of in place; None where they are read in place.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        owner: str,
        *,
        allow_incomplete: bool = False,
        short: bool = False,
    ) -> None:
        self.path = expanded(owner, "path", path)
        self._owner = owner
        self._short = short
        self._plyvel = plyvel_for(owner)
        # One entry for each reading thread. A finalizer may close the reader at any point of any thread, so there is no
        # lock: the thread that finds it closed and unused, and gets the gate, ends it.
        self._users: list[None] = []
        self._closed = False
        self._gate = threading.Lock()
        self._outages = Outages(owner)
        self._db: Any = None
        self._view: StoreView | None = None
        self._former: FormerRecords | None = None
        self._tables: Tables | None = None
        self.slow: str | None = "the first Highway wrote it"
        self.mark = self._outages.patiently(partial(self._open, allow_incomplete))
        self.former = self._former is not None

    def __len__(self) -> int:
        return self.mark.samples

    @property
    def schema(self) -> Schema:
        """The schema of the records; the store must not be empty."""
        assert self.mark.schema is not None
        return self.mark.schema

    def _open(self, allow_incomplete: bool) -> Mark:
        # Before the lock, so that no lock file is created in a folder that is not a store.
        names_in(self.path, self._owner)
        self._lock = Lock(self.path, shared=True, owner=self._owner)
        try:
            self._view = private_view(self.path, self._owner)
            self._db = open_leveldb(self._view.folder, self._owner, shown=self.path)
            return self._opened(allow_incomplete)
        except BaseException:
            self._end()
            raise

    def _opened(self, allow_incomplete: bool) -> Mark:
        value = self._value(MARK_KEY, checked=True)
        try:
            mark = None if value is None else Mark.unpacked(value)
        except StoreError as error:
            raise type(error)(f"{self._owner}: {self.path!r}: {error}") from None
        if mark is None:
            self._former = FormerRecords(self._db, self._plyvel, self.path, self._owner)
            return self._former.mark
        assert self._view is not None
        try:
            self._tables, self.slow = _mapped(self._view.folder), None
        except OSError as error:
            if may_pass(error.errno):
                raise StorageError(f"{self._owner}: {self.path!r} cannot be read: {error.strerror}") from None
            self.slow = error.strerror or str(error)
        except ValueError as error:
            self.slow = str(error)
        found = mark.samples if self._short and mark.complete else self._count()
        if not mark.complete:
            if not allow_incomplete:
                raise IncompleteStoreError(
                    f"{self._owner}: {self.path!r} is incomplete: its writing was interrupted after {found} samples; "
                    "LevelDBSink(..., append=True) resumes, allow_incomplete=True reads the written samples"
                )
            schema = mark.schema
            if found and schema is None:
                first = self._value(key_of(0))
                if first is None:
                    raise CorruptStoreError(f"{self._owner}: {self.path!r}: record 0 is gone")
                schema = schema_in(first, 0)
            return mark._replace(samples=found, schema=schema)
        if found != mark.samples:
            raise CorruptStoreError(
                f"{self._owner}: {self.path!r} has {found} records, but {mark.samples} were written (highway store "
                "verify lists the missing ones)"
            )
        return mark

    def _count(self) -> int:
        """Return the last number plus 1."""
        with self._db.iterator(reverse=True, include_value=False, start=key_of(0)) as keys:
            try:
                for key in keys:
                    return number_of(key) + 1
            except self._plyvel.Error as error:
                raise read_error(self._owner, self.path, error, self._text_of(error)) from None
        return 0

    def _value(self, key: bytes, *, checked: bool = False) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key, verify_checksums=checked, fill_cache=False)
            return value
        except self._plyvel.Error as error:
            raise read_error(self._owner, self.path, error, self._text_of(error)) from None

    def __enter__(self) -> StoreReader:
        """Keep the reader open while this thread reads."""
        # In this order, either `close` sees this user, or this thread sees that it was closed.
        self._users.append(None)
        if self._closed:
            self.__exit__()
            raise StoreError(f"{self._owner}: {self.path!r} was closed")
        return self

    def __exit__(self, *_: object) -> None:
        self._users.pop()
        self._end_if_unused()

    def _text_of(self, error: Exception) -> str:
        """Return the error text of LevelDB, with the path of the store instead of its view."""
        assert self._view is not None
        return error_text(error).replace(self._view.folder, self.path)

    def read(self, numbers: Sequence[int] | NDArray[np.int64]) -> Records:
        """Return records by number; call it within ``with reader``. The records stay valid afterwards.

        Records are views of the mapped tables, not copies. Records that are not found there are read by LevelDB.

        Parameters
        ----------
        numbers : int64 (N,)

        Raises
        ------
        StorageError
            The storage failed for longer than the waiting time.
        PipelineStateError
            The reader was closed while it waited.
        """
        wanted = np.asarray(numbers, np.int64)
        found = self._read(wanted, checked=False)
        for row, reason in found.errors.items():
            found.errors[row] = CorruptStoreError(
                f"{self._owner}: record {wanted[row]} of {self.path!r} is damaged: {reason}"
            )
        return found

    def damage(self, number: int) -> str | None:
        """Check a record with all checksums, including those of LevelDB; call it within ``with reader``.

        Returns
        -------
        str or None
            What is wrong with the record; None where it is sound.
        """
        errors = self._read(np.array([number]), checked=True).errors
        if not errors:
            return None
        sound = not self._read(np.array([number]), checked=False).errors
        return f"{errors[0]}{', of what LevelDB keeps beside it; itself it is sound' if sound else ''}"

    def _read(self, wanted: NDArray[np.int64], *, checked: bool) -> Records:
        spans = Spans([None] * len(wanted)) if self._tables is None or checked else self._tables.find(wanted)
        errors: dict[int, CorruptStoreError] = {}
        for row in spans.missing():
            number = int(wanted[row])
            try:
                value = self._outages.patiently(partial(self._record, number, checked))
                if value is not None:
                    spans.put(row, value)
            except (self._plyvel.Error, CorruptStoreError) as error:
                errors[row] = CorruptStoreError(self._text_of(error))
        found = self.schema.check(spans, wanted)
        # An error of LevelDB says more than "it is gone".
        found.errors |= errors
        return found

    def _record(self, number: int, checked: bool) -> bytes | None:
        """Read a record by LevelDB; raises StorageError for a temporary failure."""
        try:
            if self._former is not None:
                return self._former.read(number)
            value: bytes | None = self._db.get(key_of(number), verify_checksums=checked, fill_cache=False)
            return value
        except self._plyvel.Error as error:
            if not storage_failed(error):
                raise
            raise StorageError(
                f"{self._owner}: record {number} of {self.path!r} cannot be read: {self._text_of(error)}"
            ) from None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def holds_store(self) -> bool:
        """Whether the store is open: from the first use to the end of the last one after `close`."""
        return self._db is not None and not self._db.closed

    def close(self) -> None:
        """Close the reader without a lock; threads finish their current read, but no longer wait for storage."""
        self._closed = True
        self._outages.interrupt()
        self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self._closed and not self._users and self._gate.acquire(blocking=False):
            self._end()

    def _end(self) -> None:
        if self._db is not None:
            self._db.close()
        if self._view is not None:
            self._view.remove()
        # Records that were read keep their tables alive.
        self._tables = None
        self._lock.release()


def _mapped(folder: str) -> Tables:
    """Map the tables of a LevelDB; raises OSError or ValueError where one is damaged or unusual, or for too many."""
    names = [name for name in os.listdir(folder) if name.endswith((".ldb", ".sst"))]
    if len(names) > MOST_TABLES:
        raise ValueError(f"it has {len(names)} tables, more than {MOST_TABLES}")
    return Tables([os.fsencode(os.path.join(folder, name)) for name in names])
