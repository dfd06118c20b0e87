"""The receiving end of links: receives items, detects missing ones, and acknowledges."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from highway.network.protocol import link
from highway.network.protocol.link import (
    BYE,
    MOST_CHANGES,
    NO_LINK,
    TIMING,
    Change,
    Peer,
    Random,
    Timing,
    answer,
    interval,
    trimmed,
)
from highway.network.protocol.messages import Bye, Cursor, Data, Key, Message, Ping, Ready, Refusal, State

__all__ = ["Consumer"]

# Most acknowledgements that wait to be sent together: a producer may use a smaller window than READY requests.
MOST_ACKS = 16
# PINGs that a producer may miss before its statistics are no longer shown.
RECENT = 5
# Bytes of the failures in a STATE, one of which always fits; the others are in the next ones.
FAILED_BYTES = 16_000
# Most lsns that one message may skip; a larger gap is not a loss but an invalid message.
MOST_MISSING = 4096


@dataclass(slots=True)
class _Incoming:
    """A link, as its consumer sees it."""

    heard: float
    link: bytes = b""
    upto: int = 0
    pending: dict[int, Key] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    # The `meta` of an error for each item that this machine could not process.
    failed: dict[int, list[Any]] = field(default_factory=dict)
    # Number of acknowledgements that are not sent yet, and the time of the first.
    acks: int = 0
    since: float = 0.0
    reports: list[dict[str, Any]] = field(default_factory=list)
    leave_reason: str = ""
    # Whether it said anything since it was last counted among the peers.
    present: bool = False


class Consumer:
    """The receiving end of any number of links.

    Parameters
    ----------
    random : callable
        Returns the given number of random bytes.
    window, window_bytes : int
        Most items and bytes in flight from one producer.
    version : str
        Sent with READY.
    timing : Timing

    Attributes
    ----------
    outbox : deque of (peer, Message)
        Control messages to be sent.
    arrivals : deque of Data
        New items.
    refusals : deque of Refusal
    cursor : Cursor or None
        Sent with READY. Without a cursor, no item is requested, and an empty STATE announces this end.
    knows : callable
        Whether an item is a duplicate.
    duplicates : int
        Number of items that arrived again.
    changes : deque of Change
        Producers that joined, left or died; one may be reported several times.
    held : dict of Key to list of (peer, link, lsn)
        Items that were received in this session and are not done, with the messages that carried them.
    """

    def __init__(
        self,
        random: Random,
        window: int,
        window_bytes: int,
        version: str = "",
        timing: Timing = TIMING,
    ) -> None:
        self._random = random
        self._timing = timing
        self.window = window
        self.window_bytes = window_bytes
        self._version = version
        self.outbox: deque[tuple[Peer, Message]] = deque()
        self.arrivals: deque[Data] = deque()
        self.refusals: deque[Refusal] = deque()
        self.cursor: Cursor | None = None
        self.knows: Callable[[Key], bool] = frozenset[Key]().__contains__
        self.duplicates = 0
        self.changes: deque[Change] = deque(maxlen=MOST_CHANGES)
        self.session = random(16)
        self.links: dict[Peer, _Incoming] = {}
        # The cursor that was last sent, and when `tick` last sent one.
        self._sent_cursor: Cursor | None = None
        self._cursor_sent_at = -1e9
        self._greeted: set[Peer] = set()
        self.held: dict[Key, list[tuple[Peer, bytes, int]]] = {}
        self._suspect: Key | None = None
        self._readied = -1e9

    def greet(self, peer: Peer, now: float) -> None:
        """Send a first READY to a peer that this side connects to."""
        self._greeted.add(peer)
        self.links.setdefault(peer, _Incoming(now))
        self._ready(peer)

    def reset(self, cursor: Cursor) -> None:
        """Forget what was received, and begin a new session."""
        self._forget()
        self.cursor = cursor
        self.ready()

    def _forget(self) -> None:
        self.session = self._random(16)
        self.held.clear()
        self.arrivals.clear()
        for peer, incoming in self.links.items():
            self.links[peer] = _Incoming(
                incoming.heard,
                reports=incoming.reports,
                leave_reason=incoming.leave_reason,
                present=incoming.present,
            )

    def leave(self, reason: str) -> None:
        """Say BYE, forget what was received, and request nothing until the next `reset`."""
        self.bye(reason)
        self._forget()
        self.cursor = None

    def ready(self) -> None:
        """Send the cursor to all peers now."""
        self._sent_cursor = self.cursor
        for peer in self.links:
            self._ready(peer)

    def bye(self, reason: str) -> None:
        """Send BYE to all peers."""
        for peer in self.links:
            self.outbox.append((peer, Bye(reason)))

    def _ready(self, peer: Peer) -> None:
        if self.cursor is not None:
            message = Ready(self.session, self.window, self.window_bytes, trimmed(self.cursor), self._version)
            self.outbox.append((peer, message))
        else:
            # Requests nothing, but a known consumer gets the BYE.
            self.outbox.append((peer, State(NO_LINK, 0, (), ())))

    def receive(self, peer: Peer, message: Message, now: float) -> None:
        """Process a message from a producer; messages that only a consumer sends are dropped."""
        if isinstance(message, (Data, Ping)):
            incoming = self.links.get(peer)
            if incoming is None:
                if len(self.links) >= link.MAX_PEERS:
                    return
                incoming = self.links[peer] = _Incoming(now)
            incoming.heard = now
            incoming.leave_reason = ""
            if not incoming.present:
                incoming.present = True
                self.changes.append(Change(peer, "joined"))
            if isinstance(message, Ping):
                incoming.reports = message.reports
            if self.cursor is None or message.session != self.session:
                # Rule 8.
                self._ready(peer)
                return
            if message.link != incoming.link:
                incoming = self.links[peer] = _Incoming(
                    now, message.link, reports=incoming.reports, present=True
                )
            if isinstance(message, Data):
                self._data(peer, incoming, message, now)
            else:
                self._ping(peer, incoming, message)
        elif isinstance(message, Bye):
            if peer in self.links and message.reason != BYE:
                self.links[peer].leave_reason = message.reason or BYE
                if self.links[peer].present:
                    self.links[peer].present = False
                    self.changes.append(Change(peer, "left", message.reason))
            answer(self.outbox, peer, message)
        elif isinstance(message, Refusal):
            self.refusals.append(message)

    def _data(self, peer: Peer, incoming: _Incoming, message: Data, now: float) -> None:
        lsn, key = message.lsn, message.key
        if lsn <= incoming.upto or lsn - incoming.upto > MOST_MISSING:
            return
        # Rule 9.
        if lsn > incoming.upto + 1:
            incoming.missing.update(range(incoming.upto + 1, lsn))
        incoming.upto = lsn
        if message.suspect and self._suspect != key:
            if self._suspect in self.held:
                incoming.missing.add(lsn)
                self._state(peer, incoming)
                return
            self._suspect = key
        incoming.pending[lsn] = key
        token = (peer, incoming.link, lsn)
        if key in self.held:
            self.duplicates += 1
            self.held[key].append(token)
        elif self.knows(key):
            self.duplicates += 1
            self._ack(token, now)
        else:
            self.held[key] = [token]
            self.arrivals.append(message)

    def _ping(self, peer: Peer, incoming: _Incoming, message: Ping) -> None:
        if message.high - max(incoming.upto, message.low - 1) > MOST_MISSING:
            return
        incoming.missing.update(range(max(incoming.upto + 1, message.low), message.high + 1))
        incoming.upto = max(incoming.upto, message.high)
        incoming.missing = {lsn for lsn in incoming.missing if lsn >= message.low}
        for lsn in [lsn for lsn in incoming.failed if lsn < message.low]:
            del incoming.failed[lsn]
        for lsn in [lsn for lsn in incoming.pending if lsn < message.low]:
            del incoming.pending[lsn]
        self._state(peer, incoming)

    def _state(self, peer: Peer, incoming: _Incoming) -> None:
        incoming.acks = 0
        pending = [*incoming.pending]
        told: dict[int, list[Any]] = {}
        if incoming.failed:
            room = FAILED_BYTES
            for lsn, meta in incoming.failed.items():
                room -= _nbytes(meta)
                if not told or room > 0:
                    told[lsn] = meta
                else:
                    pending.append(lsn)
            # The others have their turn next; these again, since a STATE may be lost.
            for lsn in told:
                incoming.failed[lsn] = incoming.failed.pop(lsn)
        message = State(
            incoming.link,
            incoming.upto,
            tuple(sorted(pending)),
            tuple(sorted(incoming.missing)),
            tuple(sorted(told.items())),
        )
        self.outbox.append((peer, message))

    def done(self, key: Key, now: float) -> bool:
        """Acknowledge an item; False where it is not of this session."""
        tokens = self.held.pop(key, ())
        for token in tokens:
            self._ack(token, now)
        return bool(tokens)

    def fail(self, key: Key, meta: list[Any], now: float) -> None:
        """Give an item back that cannot be processed here; `meta` is that of an ERROR item."""
        for token in self.held.pop(key, ()):
            self._ack(token, now, meta)

    def _ack(self, token: tuple[Peer, bytes, int], now: float, failure: list[Any] | None = None) -> None:
        peer, link, lsn = token
        incoming = self.links.get(peer)
        if incoming is None or incoming.link != link or incoming.pending.pop(lsn, None) is None:
            return
        if failure is not None:
            incoming.failed[lsn] = failure
        if not incoming.acks:
            incoming.since = now
        incoming.acks += 1
        # Before the window is used up; usually `tick` sends it first, with the next received message.
        if incoming.acks >= max(1, min(MOST_ACKS, self.window * 3 // 4)):
            self._state(peer, incoming)

    def flush(self) -> None:
        """Send all waiting acknowledgements, and the cursor."""
        for peer, incoming in self.links.items():
            if incoming.acks:
                self._state(peer, incoming)
        self.ready()

    def tick(self, now: float) -> None:
        """Advance the time: send READY to all peers, and acknowledgements that are many or have waited long enough."""
        for peer, incoming in self.links.items():
            if incoming.acks and (
                incoming.acks * 2 >= min(MOST_ACKS, self.window)
                or now - incoming.since >= self._timing.ack_delay
            ):
                self._state(peer, incoming)
        if self.repeats(now):
            self._readied = self._cursor_sent_at = now
            for peer in self.silent(now, self._timing.death):
                self.lose(peer)
            for peer in self.silent(now, 2 * self._timing.death):
                # A peer that comes back announces itself by its PING; one that said BYE stays remembered.
                if peer not in self._greeted and not self.links[peer].leave_reason:
                    del self.links[peer]
            self.ready()
        elif self._sent_cursor is not self.cursor and (self.next_cursor_at <= now or self._moved_far()):
            # Producers may be ahead of the cursor by a few windows only.
            self._cursor_sent_at = now
            self.ready()

    @property
    def next_cursor_at(self) -> float:
        """Time at which `tick` sends a cursor that has moved a little."""
        return self._cursor_sent_at + self._timing.cursor_delay

    def _moved_far(self) -> bool:
        """Whether a window or an epoch was delivered since the cursor was sent."""
        sent, cursor = self._sent_cursor, self.cursor
        if sent is None or cursor is None:
            return True
        if sent.epoch != cursor.epoch or len(sent.streams) != len(cursor.streams):
            return True
        moved = 0
        for old, new in zip(sent.streams, cursor.streams, strict=True):
            moved += new.base - old.base
        return moved >= self.window

    def repeats(self, now: float) -> bool:
        """Whether `tick` sends READY again."""
        return now - self._readied >= interval(self._timing, len(self.links))

    def has_live_peer(self, now: float) -> bool:
        """Whether a producer is alive."""
        return any(now - incoming.heard <= self._timing.death for incoming in self.links.values())

    def lose(self, peer: Peer) -> None:
        """Count a peer as dead whose connection is gone and did not come back."""
        incoming = self.links.get(peer)
        if incoming is not None and incoming.present:
            incoming.present = False
            self.changes.append(Change(peer, "died"))

    def present(self) -> int:
        """Return the number of producers that were heard, and neither left nor died."""
        return sum(incoming.present for incoming in self.links.values())

    def reports(self, now: float) -> list[tuple[float, dict[str, Any]]]:
        """Return (age in seconds, report) from the last PING of each live producer, and for the machines upstream."""
        return [
            (now - incoming.heard, report)
            for incoming in self.links.values()
            if not incoming.leave_reason and now - incoming.heard <= RECENT * self._timing.repeat
            for report in incoming.reports
        ]

    def silent(self, now: float, seconds: float) -> list[Peer]:
        """Return the peers that were silent for more than `seconds`."""
        return [peer for peer, incoming in self.links.items() if now - incoming.heard > seconds]

    def due(self) -> float | None:
        """Return when to call `tick` for what waits to be sent; None where nothing waits."""
        due = None if self._sent_cursor is self.cursor else self.next_cursor_at
        for incoming in self.links.values():
            if incoming.acks and (due is None or incoming.since + self._timing.ack_delay < due):
                due = incoming.since + self._timing.ack_delay
        return due


def _nbytes(value: Any) -> int:
    """Return the bytes of the texts in a value, about."""
    if isinstance(value, (list, tuple)):
        return sum(map(_nbytes, value))
    return len(value.encode("utf-8", "backslashreplace")) if isinstance(value, str) else 0
