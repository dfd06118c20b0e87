"""The messages between the two ends of a link, as plain values: no sockets, no bytes."""

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
    "Hello",
    "Item",
    "Key",
    "Kind",
    "Message",
    "Ping",
    "Progress",
    "Query",
    "Ready",
    "Refusal",
    "Report",
    "State",
]


_nbytes = attrgetter("nbytes")


class Key(NamedTuple):
    """Identity of an item; keys sort in the order of an ordered delivery.

    Attributes
    ----------
    epoch, seq : int
        Number of the item within its epoch and stream, from 0. The end of an epoch is its last item.
    stream : int
        Rank of the data machine that made it.
    """

    epoch: int
    seq: int
    stream: int


class Kind(IntEnum):
    """What an item is."""

    BATCH = 0
    SKIP = 1
    """A skipped batch."""
    ERROR = 2
    """A batch that could not be made; `meta` says why."""
    END_OF_EPOCH = 3
    END_OF_DATA = 4
    """Sent in place of the first item of an epoch that does not exist."""


class Item(NamedTuple):
    """The content that is sent under a key.

    Attributes
    ----------
    kind : Kind
    meta : list
        Additional values: None, bool, int, float, str, bytes, and lists of them.
    arrays : sequence of ndarray
        Each is a separate frame on the wire.
    """

    kind: Kind
    meta: list[Any]
    arrays: Sequence[NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(map(_nbytes, self.arrays))


class Progress(NamedTuple):
    """The delivered items of a stream in the cursor's epoch: every item before `base`, and those in `beyond`.

    Attributes
    ----------
    base : int
    beyond : tuple of int
        Ascending, above `base`.
    """

    base: int = 0
    beyond: tuple[int, ...] = ()


class Cursor(NamedTuple):
    """What the training machine has delivered: the complete state needed to resume.

    Attributes
    ----------
    generation : int
        Increases with every start of a training machine.
    epoch : int
        Every item of the epochs before it was delivered, and no item of the epochs after it.
    streams : tuple of Progress
        One per stream; empty while the number of streams is unknown and no item of the epoch was delivered.
    fingerprint : str
        Fingerprint of the data, its order and its batches; empty while unknown.
    owner : str
        The training machine: host and process, ``#``, and random digits. Empty where nobody knows, or where the sender
        is a worker whose training machine is gone.
    nbytes : int
        Bytes of a batch as the training machine receives it, on average and about; 0 while unknown.
    """

    generation: int
    epoch: int = 0
    streams: tuple[Progress, ...] = ()
    fingerprint: str = ""
    owner: str = ""
    nbytes: int = 0


class Ready(NamedTuple):
    """Consumer to producer, every second and on demand: requests items.

    Attributes
    ----------
    session : bytes
        16 random bytes; new when the consumer forgets what it received.
    window, window_bytes : int
        Most items, and most bytes, in flight to the consumer.
    cursor : Cursor
    version : str
        Version of Highway, for the logs.
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
        Session of the consumer, from its READY.
    link : bytes
        16 random bytes; new each time that the producer starts the link.
    lsn : int
        Number of the message on this link, from 1.
    key : Key
    world : int
        Number of streams.
    fingerprint : str
        Fingerprint of the data that the item belongs to.
    item : Item
    suspect : bool
        Machines that held it died. A consumer holds one such item at a time, so that other items are not blamed.
    definition : str
        How it was made: a digest for each machine that made it or passed it on, with ``/`` between them.
    """

    session: bytes
    link: bytes
    lsn: int
    key: Key
    world: int
    fingerprint: str
    item: Item
    suspect: bool = False
    definition: str = ""


class Ping(NamedTuple):
    """Producer to consumer, every second: which messages the link has carried.

    Attributes
    ----------
    session, link : bytes
        Empty while the producer has accepted no READY of this consumer.
    high : int
        The last lsn that was sent.
    low : int
        The lowest lsn that is not done; `high` + 1 where all are done.
    reports : list of dict
        Statistics of the producer's machine and of the machines upstream of it.
    """

    session: bytes
    link: bytes
    high: int
    low: int
    reports: list[dict[str, Any]]


class State(NamedTuple):
    """Consumer to producer, on every PING and as acknowledgement: the state of the link's messages.

    Attributes
    ----------
    link : bytes
    upto : int
        Every lsn up to this one that is in neither list is done.
    pending : tuple of int
        Received but not done.
    missing : tuple of int
        Never received.
    failed : tuple of (int, list)
        Could not be processed by this machine: another one should try. With each, the `meta` of an ERROR item.
    """

    link: bytes
    upto: int
    pending: tuple[int, ...]
    missing: tuple[int, ...]
    failed: tuple[tuple[int, list[Any]], ...] = ()


class Bye(NamedTuple):
    """Either direction: the sender leaves and will not answer."""

    reason: str


class Refusal(NamedTuple):
    """Either direction: the request of the other end is refused.

    Attributes
    ----------
    code : str
        "superseded", "mismatch", or "occupied": another training machine is alive.
    text : str
    number : int
        With "superseded": the generation that took over.
    """

    code: str
    text: str
    number: int = 0


class Hello(NamedTuple):
    """Either direction, before the first message of a connection: who the sender is, for the logs.

    Attributes
    ----------
    name : str
        Host and process.
    role : str
        "data", "worker" or "trainer".
    version : str
        Version of Highway.
    modules : str
        What the machine does to make a batch; empty for a training machine.
    """

    name: str
    role: str
    version: str
    modules: str = ""


class Query(NamedTuple):
    """Either direction: asks for a `Report`. Whoever asks becomes no peer: nothing is sent to him besides."""


class Report(NamedTuple):
    """Answer to a `Query`.

    Attributes
    ----------
    reports : list of dict
        Statistics of the sender's machine, and of those that it knows of.
    """

    reports: list[dict[str, Any]]


Message = Ready | Data | Ping | State | Bye | Refusal | Hello | Query | Report
