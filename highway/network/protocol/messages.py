"""What the two ends of a link say to each other, as plain values: no sockets, no bytes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from operator import attrgetter
from typing import Any, NamedTuple

from numpy.typing import NDArray

__all__ = [
    "Bye",
    "Cursor",
    "Data",
    "Item",
    "Key",
    "Kind",
    "Message",
    "Ping",
    "Progress",
    "Ready",
    "Refusal",
    "State",
]


_nbytes = attrgetter("nbytes")


class Key(NamedTuple):
    """Identity of an item; keys sort in the order of an ordered delivery.

    Attributes
    ----------
    epoch, seq : int
        Number of the item in its epoch of its stream, from 0. The end of an epoch is an item too, its
        last one.
    stream : int
        Which data machine it comes from: its rank.
    """

    epoch: int
    seq: int
    stream: int


class Kind(IntEnum):
    """What an item is."""

    BATCH = 0
    SKIP = 1
    """A batch that was left out."""
    ERROR = 2
    """A batch that could not be made; `meta` says why."""
    END_OF_EPOCH = 3
    END_OF_DATA = 4
    """Takes the place of the first item of an epoch that is not there."""


class Item(NamedTuple):
    """What travels under a key.

    Attributes
    ----------
    kind : Kind
    meta : list
        Whatever its maker wants to say beside the arrays: None, bool, int, float, str, bytes, lists of them.
    arrays : sequence of ndarray
        Every one a frame of its own on the wire.
    """

    kind: Kind
    meta: list[Any]
    arrays: Sequence[NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(map(_nbytes, self.arrays))


class Progress(NamedTuple):
    """What was delivered of a stream in the cursor's epoch: every item before `base`, and those in `beyond`.

    Attributes
    ----------
    base : int
    beyond : tuple of int
        Ascending, above `base`.
    """

    base: int = 0
    beyond: tuple[int, ...] = ()


class Cursor(NamedTuple):
    """What the training machine has handed out: all that is ever needed to go on.

    Attributes
    ----------
    generation : int
        Grows with every start of a training machine.
    epoch : int
        Every item of the epochs before was delivered, and none of those after.
    streams : tuple of Progress
        One a stream; empty while their number is unknown, and nothing of the epoch was delivered.
    fingerprint : str
        Of the data, its order and its batches; empty while unknown.
    """

    generation: int
    epoch: int = 0
    streams: tuple[Progress, ...] = ()
    fingerprint: str = ""


class Ready(NamedTuple):
    """Consumer to producer, every second and on demand: send me items.

    Attributes
    ----------
    session : bytes
        16 random bytes; new when the consumer forgets what it was sent.
    window, window_bytes : int
        Most items, and most bytes, that may be under way to it.
    cursor : Cursor
    version : str
        Of Highway, for the logs.
    """

    session: bytes
    window: int
    window_bytes: int
    cursor: Cursor
    version: str


class Data(NamedTuple):
    """Producer to consumer: an item.

    Attributes
    ----------
    session : bytes
        The consumer's, as its READY gave it.
    link : bytes
        16 random bytes; the producer makes them each time that it accepts a READY.
    lsn : int
        Number of the message on this link, from 1.
    key : Key
    world : int
        Number of streams.
    fingerprint : str
        Of the data the item belongs to.
    item : Item
    suspect : bool
        Machines that had it fell silent: the consumer holds one such item at a time, so that those beside it are
        not blamed.
    """

    session: bytes
    link: bytes
    lsn: int
    key: Key
    world: int
    fingerprint: str
    item: Item
    suspect: bool = False


class Ping(NamedTuple):
    """Producer to consumer, every second: what the link has carried.

    Attributes
    ----------
    session, link : bytes
        Empty while the producer knows of no READY of this consumer.
    high : int
        The last lsn that was sent.
    low : int
        The lowest lsn that is not done; `high` + 1 where all are.
    reports : list of dict
        Figures of the producer's machine and of those behind it, for the statistics.
    """

    session: bytes
    link: bytes
    high: int
    low: int
    reports: list[dict[str, Any]]


class State(NamedTuple):
    """Consumer to producer, on every PING and after acknowledging: what became of the link's messages.

    Attributes
    ----------
    link : bytes
    upto : int
        Every lsn up to this that is in neither list is done.
    pending : tuple of int
        Received, and not done.
    missing : tuple of int
        Never received.
    """

    link: bytes
    upto: int
    pending: tuple[int, ...]
    missing: tuple[int, ...]


class Bye(NamedTuple):
    """Either way: the sender goes and will not answer."""

    reason: str


class Refusal(NamedTuple):
    """Either way: what the other one asks for cannot be.

    Attributes
    ----------
    code : str
        "superseded" or "mismatch".
    text : str
    number : int
        With "superseded": the generation that took over.
    """

    code: str
    text: str
    number: int = 0


Message = Ready | Data | Ping | State | Bye | Refusal
