"""A store shared by the workers of a source: closed when the last worker ends, and reopened for the next run."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable

from highway.errors import CorruptStoreError
from highway.store.reading import StoreReader

__all__ = ["SharedStore"]

logger = logging.getLogger("highway.store")


class SharedStore:
    """The `StoreReader` of a source.

    Parameters
    ----------
    path : path
    owner : str
    allow_incomplete : bool
        See `StoreReader`.

    Attributes
    ----------
    path : str
    reader : StoreReader
    """

    def __init__(self, path: str | os.PathLike[str], owner: str, allow_incomplete: bool) -> None:
        self._owner, self._allow_incomplete = owner, allow_incomplete
        self.reader = StoreReader(path, owner, allow_incomplete=allow_incomplete)
        self.path = self.reader.path
        if self.reader.slow is not None and not self.reader.former:
            logger.warning(
                "%s: %r is read by LevelDB, several times slower than in place: %s",
                owner,
                self.path,
                self.reader.slow,
            )
        self._lock = threading.Lock()
        self._at_work = 0
        self._given = False

    def for_run(self) -> SharedStore:
        """Return the store for one pipeline: itself the first time, then another opening of the same store."""
        if not self._given:
            self._given = True
            return self
        another = SharedStore(self.path, self._owner, self._allow_incomplete)
        another._given = True
        self._check_same(another.reader)
        return another

    def contents(self) -> Iterable[bytes]:
        """Yield what identifies its samples, for a fingerprint."""
        mark = self.reader.mark
        yield mark.fingerprint.encode()
        yield self.reader.schema.packed
        yield repr(mark.classes).encode("utf-8", "backslashreplace")

    def open(self) -> None:
        """Register a worker."""
        with self._lock:
            self._at_work += 1

    def close(self) -> None:
        """Unregister a worker; the last one closes the reader."""
        with self._lock:
            self._at_work -= 1
            last = not self._at_work
        if last:
            self.reader.close()

    def interrupt(self) -> None:
        """Close the reader so that the workers end; does not wait for them."""
        self.reader.close()

    def reopen(self) -> None:
        """Open the reader again, where the last worker or `interrupt` has closed it.

        Raises
        ------
        CorruptStoreError
            The path now has another store.
        """
        if not self.reader.closed:
            return
        reader = StoreReader(self.path, self._owner, allow_incomplete=self._allow_incomplete)
        self._check_same(reader)
        self.reader = reader

    def _check_same(self, reader: StoreReader) -> None:
        if (reader.mark, len(reader)) != (self.reader.mark, len(self.reader)):
            reader.close()
            raise CorruptStoreError(
                f"{self._owner}: {self.path!r} was rewritten in the meantime; make a new source"
            )
