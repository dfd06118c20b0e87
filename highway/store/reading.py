"""A store that is read: any record at once, by its number."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from highway.errors import CorruptStoreError, IncompleteStoreError, StoreError
from highway.store.former import FormerRecords
from highway.store.marks import MARK_KEY, Mark
from highway.store.opening import Lock, View, names_in, open_leveldb, plyvel_for, private_view, told
from highway.store.records import Record, Schema, key_of, number_of, schema_in

__all__ = ["StoreReader"]


class StoreReader:
    """A store, as it is when it is opened, for any number of threads.

    Parameters
    ----------
    path : path
    owner : str
        Who reads, for the errors.
    allow_incomplete : bool
        Read what there is of one whose writing has not come to its end.
    short : bool
        Open one that lacks its last records as well.

    Raises
    ------
    StoreError
        There is no store, or one of another version.
    StoreLockedError
        It is being written.
    CorruptStoreError
        It is damaged.
    IncompleteStoreError
        Its writing has not come to its end.
    MissingPackageError
        plyvel is not installed.

    Attributes
    ----------
    path : str
    mark : Mark
        What is known of it; its `samples` are right.
    former : bool
        Whether it has the layout that the first Highway wrote.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        owner: str,
        *,
        allow_incomplete: bool = False,
        short: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self._owner = owner
        self._short = short
        self._plyvel = plyvel_for(owner)
        self._users = 0
        self._closed = False
        self._guard = threading.Lock()
        self._db: Any = None
        self._view: View | None = None
        # Before the lock, which is a file that nobody wants in some other folder.
        names_in(self.path, owner)
        self._lock = Lock(self.path, shared=True, owner=owner)
        try:
            self._view = private_view(self.path, owner)
            self._db = open_leveldb(self._view.folder, owner, shown=self.path)
            self._former: FormerRecords | None = None
            self.mark = self._opened(allow_incomplete)
        except BaseException:
            self._end()
            raise
        self.former = self._former is not None

    def __len__(self) -> int:
        return self.mark.samples

    @property
    def schema(self) -> Schema:
        """That of its records; there are some."""
        assert self.mark.schema is not None
        return self.mark.schema

    def _opened(self, allow_incomplete: bool) -> Mark:
        value = self._value(MARK_KEY, checked=True)
        try:
            mark = None if value is None else Mark.unpacked(value)
        except StoreError as error:
            raise type(error)(f"{self._owner}: {self.path!r}: {error}") from None
        if mark is None:
            self._former = FormerRecords(self._db, self._plyvel, self.path, self._owner)
            return self._former.mark
        found = mark.samples if self._short and mark.complete else self._count()
        if not mark.complete:
            if not allow_incomplete:
                raise IncompleteStoreError(
                    f"{self._owner}: {self.path!r} is incomplete: its writing was interrupted after {found} samples; "
                    "LevelDBSink(..., append=True) goes on, allow_incomplete=True reads what there is"
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
                f"{self._owner}: {self.path!r} has {found} records, and {mark.samples} were written (highway store "
                "verify tells which are gone)"
            )
        return mark

    def _count(self) -> int:
        """One past the last number."""
        with self._db.iterator(reverse=True, include_value=False, start=key_of(0)) as keys:
            try:
                for key in keys:
                    return number_of(key) + 1
            except self._plyvel.Error as error:
                raise CorruptStoreError(f"{self._owner}: {self.path!r} is damaged: {told(error)}") from None
        return 0

    def _value(self, key: bytes, *, checked: bool = False) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key, verify_checksums=checked, fill_cache=False)
            return value
        except self._plyvel.Error as error:
            raise CorruptStoreError(f"{self._owner}: {self.path!r} is damaged: {told(error)}") from None

    def __enter__(self) -> StoreReader:
        """Keep it open for as long as this thread reads."""
        with self._guard:
            if self._closed:
                raise StoreError(f"{self._owner}: {self.path!r} was closed")
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._users -= 1
            last = self._closed and not self._users
        if last:
            self._end()

    def read(self, numbers: Sequence[int], *, checked: bool = False) -> list[Record | CorruptStoreError]:
        """Records, as they were written; only inside of ``with reader``.

        Parameters
        ----------
        numbers : sequence of int
        checked : bool
            Look at the checksums of LevelDB too: those of the records cover all that is in them.

        Returns
        -------
        list of Record or CorruptStoreError
            The error where a record is gone, or damaged.
        """
        found: dict[int, Record | CorruptStoreError | str] = {}
        values = {}
        for number in numbers:
            try:
                if self._former is not None:
                    found[number] = self._former.read(number)
                    continue
                value: bytes | None = self._db.get(key_of(number), verify_checksums=checked, fill_cache=False)
                if value is None:
                    found[number] = "it is gone"
                else:
                    values[number] = value
            except (self._plyvel.Error, CorruptStoreError) as error:
                found[number] = told(error)
        if values:
            found.update(zip(values, self.schema.read_all([*values.values()], [*values]), strict=True))
        return [self._told(number, found[number]) for number in numbers]

    def _told(self, number: int, found: Record | CorruptStoreError | str) -> Record | CorruptStoreError:
        if isinstance(found, Record):
            return found
        return CorruptStoreError(f"{self._owner}: record {number} of {self.path!r} is damaged: {found}")

    def close(self) -> None:
        """End; threads that read are let finish what they are in."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            last = not self._users
        if last:
            self._end()

    def _end(self) -> None:
        if self._db is not None:
            self._db.close()
        if self._view is not None:
            self._view.remove()
        self._lock.release()
