"""What the two ends of a link share: its times, what a cursor counts, and how they take leave.

A link leads from a producer to a consumer (`producer.py`, `consumer.py`), and is renewed whenever one of them forgets
the other. Neither end knows of sockets or clocks: messages and the time go in, messages come out. All control messages
carry state that may be repeated, never events: any of them may be lost, or come twice.

The rules that are numbered in the comments are those of ``docs/distributed.md``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

from highway.network.protocol.messages import Bye, Cursor, Key, Message, Progress

__all__ = [
    "BYE",
    "MAX_PEERS",
    "NO_LINK",
    "TIMING",
    "CursorNews",
    "Peer",
    "Random",
    "Timing",
    "answer",
    "delivered",
    "merged",
    "trimmed",
]

MAX_PEERS = 1024
"""Most peers that one end speaks to; more are not answered."""

MOST_BEYOND = 4096
"""Most numbers of batches that a READY counts one by one."""

BYE = "bye"
"""The answer to a BYE: the other one may close its socket now, and nothing that is under way is lost."""

NO_LINK = bytes(16)
"""What a STATE is about that only says that somebody is there."""

Peer = Hashable
Random = Callable[[int], bytes]


class Timing(NamedTuple):
    """Times of the protocol, in seconds, and the number of deaths that poison an item.

    Attributes
    ----------
    repeat : float
        Between two READY, and between two PING.
    death : float
        After which a silent peer is dead.
    ack_delay : float
        Longest that an acknowledgement waits for others to join.
    cursor_delay : float
        Longest that a cursor that has moved waits to be told.
    deaths : int
        So many times the link of an item may die.
    suspect : int
        After so many deaths an item travels alone, so that those beside it are not blamed.
    """

    repeat: float = 1.0
    death: float = 10.0
    ack_delay: float = 0.01
    cursor_delay: float = 0.05
    deaths: int = 5
    suspect: int = 2


TIMING = Timing()


def delivered(cursor: Cursor, key: Key) -> bool:
    """Whether the cursor counts the item."""
    if key.epoch != cursor.epoch or not cursor.streams:
        return key.epoch < cursor.epoch
    if key.stream >= len(cursor.streams):
        return False
    progress = cursor.streams[key.stream]
    return key.seq < progress.base or key.seq in progress.beyond


def trimmed(cursor: Cursor, most: int = MOST_BEYOND) -> Cursor:
    """A cursor that fits into a message: one that counts less is true as well, and costs duplicates only."""
    if sum(len(progress.beyond) for progress in cursor.streams) <= most:
        return cursor
    share = most // len(cursor.streams)
    streams = tuple(Progress(progress.base, progress.beyond[:share]) for progress in cursor.streams)
    return cursor._replace(streams=streams)


def merged(one: Cursor, other: Cursor) -> Cursor:
    """What either of two cursors of one generation counts."""
    if one.epoch != other.epoch or not one.streams or not other.streams:
        return max(one, other, key=lambda cursor: (cursor.epoch, len(cursor.streams)))
    streams = []
    for mine, theirs in zip(one.streams, other.streams, strict=False):
        base = max(mine.base, theirs.base)
        beyond = sorted(seq for seq in {*mine.beyond, *theirs.beyond} if seq > base)
        streams.append(Progress(base, tuple(beyond)))
    return one._replace(streams=tuple(streams), fingerprint=one.fingerprint or other.fingerprint)


class CursorNews(NamedTuple):
    """What a producer learned: a cursor, and whether a new generation has begun with it."""

    cursor: Cursor
    reset: bool


def answer(outbox: deque[tuple[Peer, Message]], peer: Peer, message: Bye) -> None:
    """Answer a BYE, unless it is an answer itself."""
    if message.reason != BYE:
        outbox.append((peer, Bye(BYE)))
