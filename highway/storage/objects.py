"""Object: an object of a store; many of them in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNKNOWN", "JoinedObjects", "LazySequence", "Object", "ObjectTable"]

Item = TypeVar("Item")

UNKNOWN = -1
"""Size of an object before anybody has asked for it."""


class Object(NamedTuple):
    """An object of a store, or a local file.

    Attributes
    ----------
    name : str
        Its name in the store, or its path.
    size : int
        In bytes; `UNKNOWN` if it is not known yet.
    etag : str
        Identifies its contents; empty where the store has none.
    """

    name: str
    size: int = UNKNOWN
    etag: str = ""


class LazySequence(Sequence[Item]):
    """A sequence whose items are made when they are asked for; a subclass defines `at` and the length."""

    def at(self, number: int) -> Item:
        """Return one item; `number` is 0 or more, and less than the length."""
        raise NotImplementedError

    @overload
    def __getitem__(self, number: int) -> Item: ...
    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...
    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        if isinstance(number, slice):
            return [self.at(one) for one in range(*number.indices(len(self)))]
        return self.at(range(len(self))[number])


class ObjectTable(LazySequence[Object]):
    """Objects of a store in little memory.

    Parameters
    ----------
    folder : str
        Before every name; empty, or ends with a slash.
    names : sequence of bytes
        Names in the folder; kept, not copied.
    sizes : int64 (N,)
    etags : sequence of str
        Empty if there are none.
    """

    def __init__(
        self, folder: str, names: Sequence[bytes], sizes: NDArray[np.int64], etags: Sequence[str] = ()
    ) -> None:
        assert len(names) == len(sizes) and len(etags) in (0, len(names))
        self.folder, self.names, self.sizes = folder, names, sizes
        # Of fixed width, since those of one store have the same length, or nearly.
        self._etags = np.array([etag.encode() for etag in etags], np.bytes_) if any(etags) else None

    def __len__(self) -> int:
        return len(self.names)

    def at(self, number: int) -> Object:
        etag = "" if self._etags is None else self._etags[number].decode()
        name = self.names[number].decode("utf-8", "surrogateescape")
        return Object(self.folder + name, int(self.sizes[number]), etag)


class JoinedObjects(LazySequence[Object]):
    """Two sequences as one."""

    def __init__(self, first: Sequence[Object], second: Sequence[Object]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def at(self, number: int) -> Object:
        first = len(self._first)
        return self._first[number] if number < first else self._second[number - first]
