"""What the two ends of a link share: its times, what a cursor counts, and how they say goodbye.

A link leads from a producer to a consumer (`producer.py`, `consumer.py`), and is renewed whenever one of them forgets
the other. Neither end uses sockets or clocks: messages and the time go in, messages come out. Control messages carry
state, never events, so any of them may be repeated, lost or duplicated.

The numbered rules in the comments are those of ``docs/distributed.md``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

from highway.network.protocol.messages import Bye, Cursor, Key, Message, Progress

__all__ = [
    "BYE",
    "MAX_PEERS",
    "MOST_CHANGES",
    "NO_LINK",
    "TIMING",
    "Change",
    "CursorNews",
    "Peer",
    "Random",
    "Timing",
    "answer",
    "delivered",
    "interval",
    "merged",
    "trimmed",
]

MAX_PEERS = 1024
"""Most peers of one end; further ones are ignored."""

FEW_PEERS, MOST_REPEATS = 16, 4
"""Most peers of an end to which READY and PING are repeated in time, and the longest interval with more peers."""

MOST_CHANGES = 256
"""Most changes among peers that wait to be logged; older ones are dropped."""

MOST_BEYOND = 4096
"""Most numbers in the `beyond` lists of a READY."""

BYE = "bye"
"""Reason in the answer to a BYE: the peer may close its socket now without losing messages in flight."""

NO_LINK = bytes(16)
"""Link of a STATE that only announces its sender."""

Peer = Hashable
Random = Callable[[int], bytes]


class Timing(NamedTuple):
    """Times of the protocol, in seconds, and the number of deaths that poison an item.

    Attributes
    ----------
    repeat : float
        Interval between two READY, and between two PING.
    death : float
        Silence after which a peer counts as dead.
    ack_delay : float
        Longest time that an acknowledgement waits for others, to be sent together.
    cursor_delay : float
        Longest time until a changed cursor is sent.
    deaths : int
        Number of deaths of its link after which an item is poisoned.
    suspect : int
        Number of deaths after which an item is sent alone, so that other items are not blamed.
    gathering : float
        Time after the first peer joined in which an item that it could not process waits for another peer.
    """

    repeat: float = 1.0
    death: float = 10.0
    ack_delay: float = 0.01
    cursor_delay: float = 0.05
    deaths: int = 5
    suspect: int = 2
    gathering: float = 5.0


TIMING = Timing()


def interval(timing: Timing, peers: int) -> float:
    """Return the seconds between two READY, or two PING, of an end with so many peers."""
    return timing.repeat * min(max(1.0, peers / FEW_PEERS), MOST_REPEATS)


def delivered(cursor: Cursor, key: Key) -> bool:
    """Whether the cursor counts the item."""
    if key.epoch != cursor.epoch or not cursor.streams:
        return key.epoch < cursor.epoch
    if key.stream >= len(cursor.streams):
        return False
    progress = cursor.streams[key.stream]
    return key.seq < progress.base or key.seq in progress.beyond


def trimmed(cursor: Cursor, most: int = MOST_BEYOND) -> Cursor:
    """Return a cursor that fits into a message; one that counts fewer items is valid, but causes duplicates."""
    if sum(len(progress.beyond) for progress in cursor.streams) <= most:
        return cursor
    share = most // len(cursor.streams)
    streams = tuple(Progress(progress.base, progress.beyond[:share]) for progress in cursor.streams)
    return cursor._replace(streams=streams)


def merged(one: Cursor, other: Cursor) -> Cursor:
    """Return the union of two cursors of one generation."""
    if one.epoch != other.epoch or not one.streams or not other.streams:
        return max(one, other, key=lambda cursor: (cursor.epoch, len(cursor.streams)))
    streams = []
    for mine, theirs in zip(one.streams, other.streams, strict=False):
        base = max(mine.base, theirs.base)
        beyond = sorted(seq for seq in {*mine.beyond, *theirs.beyond} if seq > base)
        streams.append(Progress(base, tuple(beyond)))
    return one._replace(streams=tuple(streams), fingerprint=one.fingerprint or other.fingerprint)


class CursorNews(NamedTuple):
    """News for the owner of a producer: a cursor, and whether a new generation begins with it."""

    cursor: Cursor
    reset: bool


class Change(NamedTuple):
    """A change among the peers of an end, for the logs.

    Attributes
    ----------
    peer : Peer
    what : str
        "joined", "left", "died" or "benched".
    why : str
        Reason that a peer gave, or why it was benched.
    """

    peer: Peer
    what: str
    why: str = ""


def answer(outbox: deque[tuple[Peer, Message]], peer: Peer, message: Bye) -> None:
    """Answer a BYE, unless it is an answer itself."""
    if message.reason != BYE:
        outbox.append((peer, Bye(BYE)))
