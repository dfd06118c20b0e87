"""Read stores of the first Highway: msgpack-numpy values under keys of n zero bytes, or the number n as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from highway._core.records.layout import MAGIC
from highway._core.wire.msgpack_numpy import decode_msgpack_numpy
from highway.batch import Batch
from highway.errors import (
    ArgumentError,
    CorruptStoreError,
    IncompleteStoreError,
    ProtocolError,
    StoreError,
)
from highway.store.marks import Mark
from highway.store.opening import read_error
from highway.store.records import Schema

__all__ = ["FormerRecords"]

_NAMES = ("images", "labels")


class FormerRecords:
    """The records of such a store, in the order of their numbers.

    A value is a list of arrays, named `images`, `labels`, `field2` and so on, or a map from names to arrays.

    Parameters
    ----------
    db, plyvel : plyvel.DB, module
    path, owner : str

    Raises
    ------
    StoreError
        It has other keys: Highway did not write it.
    CorruptStoreError
        It is damaged, or a store of this Highway without its metadata.
    IncompleteStoreError
        It has no records.
    StorageError
        The storage failed.
    """

    def __init__(self, db: Any, plyvel: Any, path: str, owner: str) -> None:
        self._db = db
        try:
            with db.iterator(include_value=False, verify_checksums=True) as keys:
                numbers = _numbers(keys)
            if numbers is None:
                raise StoreError(
                    f"{owner}: {path!r} is a LevelDB that Highway did not write: its keys are not numbers"
                )
            if not numbers:
                raise IncompleteStoreError(
                    f"{owner}: {path!r} is incomplete: its writing was interrupted before the first sample"
                )
            self._keys = [key for _, key in sorted(numbers)]
            self._texts = [str(number) for number, _ in sorted(numbers)]
            value = db.get(self._keys[0], verify_checksums=True)
        except plyvel.Error as error:
            raise read_error(owner, path, error) from None
        if value.startswith(MAGIC):
            raise CorruptStoreError(f"{owner}: {path!r} is damaged: its metadata is gone")
        try:
            schema = Schema.of(_batch(value, self._texts[0]), owner)
        except CorruptStoreError as error:
            raise StoreError(
                f"{owner}: {path!r} is a LevelDB that Highway did not write, or its values are not supported: {error}"
            ) from None
        self.mark = Mark(len(self._keys), True, schema, None, "", (0, 1))

    def read(self, number: int) -> bytes:
        """Return a record in the format of this Highway; raises CorruptStoreError, or an error of plyvel."""
        value = self._db.get(self._keys[number], verify_checksums=True, fill_cache=False)
        if value is None:
            raise CorruptStoreError("it is gone")
        schema = self.mark.schema
        assert schema is not None
        batch = _batch(value, self._texts[number])
        if Schema.of(batch, "a store") != schema:
            raise CorruptStoreError(f"its arrays are {Schema.of(batch, 'a store')}; expected {schema}")
        return schema.records(batch, number, [0])[0]


def _numbers(keys: Iterable[bytes]) -> list[tuple[int, bytes]] | None:
    """Return number and key of each; None where keys are of another kind, or of both kinds."""
    found = []
    kinds = set()
    for key in keys:
        if not key.strip(b"\0"):
            found.append((len(key), key))
            kinds.add("zeros")
        elif key.isdigit() and len(key) < 20:
            found.append((int(key), key))
            kinds.add("text")
        else:
            return None
    return found if len(kinds) < 2 else None


def _batch(value: bytes, key: str) -> Batch:
    """Return the sample of a value as a batch of one."""
    try:
        arrays = decode_msgpack_numpy(value)
        fields = {}
        for number, (name, array) in enumerate(arrays):
            known = _NAMES[number] if number < len(_NAMES) else f"field{number}"
            fields[name or known] = array[None]
        if len(fields) < max(1, len(arrays)):
            raise CorruptStoreError("it has no arrays, or several with the same name")
        return Batch(fields, keys=[key], applied=1)
    except ProtocolError as error:
        raise CorruptStoreError(str(error)) from None
    except ArgumentError as error:
        raise CorruptStoreError(f"its arrays make no batch: {error}") from None
