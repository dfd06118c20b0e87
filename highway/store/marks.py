r"""Metadata of a store beside its records: its mark, and the identities of its samples.

The mark is under the key ``b"\0"``, before all numbers: ``b"HWS\x01"``, CRC-32C of the rest, and the rest as JSON.
The identities of the records of one write are under the first of their numbers followed by ``b"i"``: ``b"HWI\x01"``,
CRC-32C of the rest, then all epochs and all indices in the source data, int64, little-endian.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.records.checksum import crc32c
from highway.errors import CorruptStoreError, StoreError
from highway.store.records import Schema, key_of

__all__ = ["MARK_KEY", "VERSION", "Identities", "Mark", "Seen", "identities_key"]

VERSION = 1
MARK_KEY = b"\0"
_MAGIC = b"HWS"
_IDENTITIES = b"HWI\x01"
_PAGE = 4096


class Mark(NamedTuple):
    """Metadata of a store as a whole.

    Attributes
    ----------
    samples : int
        Number of records; valid only for a complete store.
    complete : bool
        Whether the writing was finished.
    schema : Schema or None
        None where nothing was written.
    classes : list of str, int or None
        Classes of the source.
    fingerprint : str
        Fingerprint of the source.
    shard : (int, int)
        Shard of the source: (rank, world).
    origin : str
        The repr of the source, for people.
    """

    samples: int
    complete: bool
    schema: Schema | None
    classes: list[str] | int | None
    fingerprint: str
    shard: tuple[int, int]
    origin: str = ""

    def packed(self) -> bytes:
        """The value under `MARK_KEY`."""
        described = self._asdict() | {"schema": None if self.schema is None else self.schema.packed.hex()}
        body = json.dumps(described).encode()
        return _MAGIC + bytes([VERSION]) + crc32c(body, 0).to_bytes(4, "little") + body

    @classmethod
    def unpacked(cls, value: bytes) -> Mark | None:
        """Return the mark of a packed value; None where the value is not a mark of Highway.

        Raises
        ------
        CorruptStoreError
            The value is damaged.
        StoreError
            It has another version.
        """
        if value[:3] != _MAGIC:
            return None
        if value[3:4] != bytes([VERSION]):
            raise StoreError(
                f"it has version {value[3] if len(value) > 3 else 'none'} of the store format; this Highway reads "
                f"version {VERSION}: install a newer Highway"
            )
        body = value[8:]
        if crc32c(body, 0).to_bytes(4, "little") != value[4:8]:
            raise CorruptStoreError("its metadata is damaged: the checksum is wrong")
        try:
            found: dict[str, Any] = json.loads(body)
            packed = found["schema"]
            schema = None if packed is None else Schema.unpacked(bytes.fromhex(packed))
            rank, world = found["shard"]
            return cls(
                found["samples"],
                found["complete"],
                schema,
                found["classes"],
                found["fingerprint"],
                (rank, world),
                str(found.get("origin", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStoreError(f"its metadata is damaged: {error!r}") from None


def identities_key(first: int) -> bytes:
    """Return the key of the identities of the records from number `first` on."""
    return key_of(first) + b"i"


class Identities(NamedTuple):
    """The samples that some records hold.

    Attributes
    ----------
    epochs, indices : int64 (n,)
    """

    epochs: NDArray[np.int64]
    indices: NDArray[np.int64]

    def packed(self) -> bytes:
        body = np.stack([self.epochs, self.indices]).astype("<i8").tobytes()
        return _IDENTITIES + crc32c(body, 0).to_bytes(4, "little") + body

    @classmethod
    def unpacked(cls, value: bytes) -> Identities:
        """Return the identities of a packed value; raises CorruptStoreError where it is damaged."""
        body = value[8:]
        if value[:4] != _IDENTITIES or len(body) % 16 or crc32c(body, 0).to_bytes(4, "little") != value[4:8]:
            raise CorruptStoreError("the list of which samples were written is damaged")
        epochs, indices = np.frombuffer(body, "<i8").reshape(2, -1).astype(np.int64)
        return cls(epochs, indices)


class Seen:
    """A set of samples, stored as one bit each in pages of neighboring indices."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], bytearray] = {}

    def add(self, epoch: int, index: int) -> bool:
        """Add a sample; return whether it is new."""
        page = self._pages.setdefault((epoch, index // _PAGE), bytearray(_PAGE // 8))
        byte, bit = divmod(index % _PAGE, 8)
        new = not page[byte] >> bit & 1
        page[byte] |= 1 << bit
        return new

    def has(self, epoch: int, index: int) -> bool:
        page = self._pages.get((epoch, index // _PAGE))
        byte, bit = divmod(index % _PAGE, 8)
        return page is not None and bool(page[byte] >> bit & 1)
