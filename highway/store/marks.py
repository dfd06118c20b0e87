r"""What a store holds beside its records: what is known of it, and which samples they are.

Under the key ``b"\0"``, before all numbers: ``b"HWS\x01"``, CRC-32C of the rest, and the rest as JSON.
Under a number and ``b"i"``, for the records from that number on that were written at once: ``b"HWI\x01"``, CRC-32C of
the rest, and of each its epoch and its index in the data it came from, int64, little-endian.
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
    """What is known of a store as a whole.

    Attributes
    ----------
    samples : int
        Number of records; right where it is complete.
    complete : bool
        The writing has come to its end.
    schema : Schema or None
        None where nothing was written.
    classes : list of str, int or None
        As the source has them.
    fingerprint : str
        Of the source.
    shard : (int, int)
        Of the source: (rank, world).
    origin : str
        The source as it shows itself, to be read by people.
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
        """The one that was packed; None where the value is somebody else's.

        Raises
        ------
        CorruptStoreError
            It is damaged.
        StoreError
            It is of another version.
        """
        if value[:3] != _MAGIC:
            return None
        if value[3:4] != bytes([VERSION]):
            raise StoreError(
                f"it has version {value[3] if len(value) > 3 else 'none'} of the format of stores; this Highway knows "
                f"version {VERSION}, install a newer one"
            )
        body = value[8:]
        if crc32c(body, 0).to_bytes(4, "little") != value[4:8]:
            raise CorruptStoreError("what it says of itself is damaged: the checksum is wrong")
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
            raise CorruptStoreError(f"what it says of itself is damaged: {error!r}") from None


def identities_key(first: int) -> bytes:
    """Key of the identities of the records from number `first` on."""
    return key_of(first) + b"i"


class Identities(NamedTuple):
    """Which samples some records are.

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
        """Those that were packed; raises CorruptStoreError where they are damaged."""
        body = value[8:]
        if value[:4] != _IDENTITIES or len(body) % 16 or crc32c(body, 0).to_bytes(4, "little") != value[4:8]:
            raise CorruptStoreError("the list of which samples were written is damaged")
        epochs, indices = np.frombuffer(body, "<i8").reshape(2, -1).astype(np.int64)
        return cls(epochs, indices)


class Seen:
    """A set of samples, a bit for each: pages of neighboring indices."""

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], bytearray] = {}

    def add(self, epoch: int, index: int) -> bool:
        """Whether it is new."""
        page = self._pages.setdefault((epoch, index // _PAGE), bytearray(_PAGE // 8))
        byte, bit = divmod(index % _PAGE, 8)
        new = not page[byte] >> bit & 1
        page[byte] |= 1 << bit
        return new

    def has(self, epoch: int, index: int) -> bool:
        page = self._pages.get((epoch, index // _PAGE))
        byte, bit = divmod(index % _PAGE, 8)
        return page is not None and bool(page[byte] >> bit & 1)
