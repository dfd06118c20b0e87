"""The receiving end of links: what has come, what is missing, and what is acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from highway.network.protocol import link
from highway.network.protocol.link import BYE, NO_LINK, TIMING, Peer, Random, Timing, answer, trimmed
from highway.network.protocol.messages import Bye, Cursor, Data, Key, Message, Ping, Ready, Refusal, State

__all__ = ["Consumer"]

# Acknowledgements that wait for others at most: a producer may keep to a smaller window than it is told.
MOST_ACKS = 16
# So many PING may be missed by a producer whose figures are shown still.
RECENT = 5
# Lsns that one message may pass over; more is no loss but nonsense.
MOST_MISSING = 4096


@dataclass(slots=True)
class _Incoming:
    """A link, as its consumer sees it."""

    heard: float
    link: bytes = b""
    upto: int = 0
    pending: dict[int, Key] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    # Acknowledgements that no STATE has told, and since when.
    acks: int = 0
    since: float = 0.0
    reports: list[dict[str, Any]] = field(default_factory=list)
    gone: str = ""


class Consumer:
    """The receiving end of any number of links.

    Parameters
    ----------
    random : callable
        So many random bytes.
    window, window_bytes : int
        Most items and bytes that may be under way here from one producer.
    version : str
        What READY tells.
    timing : Timing

    Attributes
    ----------
    outbox : deque of (peer, Message)
        Control messages to be sent.
    arrivals : deque of Data
        Items that were not here before.
    refusals : deque of Refusal
    cursor : Cursor or None
        What READY tells; without one, nobody is asked for anything, and an empty STATE makes this end known.
    knows : callable
        Whether an item is not wanted again.
    duplicates : int
        Items that came again.
    held : dict of Key to list of (peer, link, lsn)
        Items that were received in this session and are not done, and which messages brought them.
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
        self.session = random(16)
        self.links: dict[Peer, _Incoming] = {}
        # The cursor that was last told, and when `tick` last did so.
        self._told: Cursor | None = None
        self._told_at = -1e9
        self._greeted: set[Peer] = set()
        self.held: dict[Key, list[tuple[Peer, bytes, int]]] = {}
        self._suspect: Key | None = None
        self._readied = -1e9

    def greet(self, peer: Peer, now: float) -> None:
        """Speak to a peer that has not spoken: one that this side connects to."""
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
            self.links[peer] = _Incoming(incoming.heard, reports=incoming.reports, gone=incoming.gone)

    def leave(self, reason: str) -> None:
        """Give back what was received, and ask for nothing until the next `reset`."""
        self.bye(reason)
        self._forget()
        self.cursor = None

    def ready(self) -> None:
        """Tell everybody the cursor, at once."""
        self._told = self.cursor
        for peer in self.links:
            self._ready(peer)

    def bye(self, reason: str) -> None:
        """Take leave of everybody."""
        for peer in self.links:
            self.outbox.append((peer, Bye(reason)))

    def _ready(self, peer: Peer) -> None:
        if self.cursor is not None:
            message = Ready(self.session, self.window, self.window_bytes, trimmed(self.cursor), self._version)
            self.outbox.append((peer, message))
        else:
            # Nothing is asked for, but who is known is told of the end.
            self.outbox.append((peer, State(NO_LINK, 0, (), ())))

    def receive(self, peer: Peer, message: Message, now: float) -> None:
        """Take in a message of a producer; what only a consumer would say is dropped."""
        if isinstance(message, (Data, Ping)):
            incoming = self.links.get(peer)
            if incoming is None:
                if len(self.links) >= link.MAX_PEERS:
                    return
                incoming = self.links[peer] = _Incoming(now)
            incoming.heard = now
            incoming.gone = ""
            if isinstance(message, Ping):
                incoming.reports = message.reports
            if self.cursor is None or message.session != self.session:
                # Rule 8.
                self._ready(peer)
                return
            if message.link != incoming.link:
                incoming = self.links[peer] = _Incoming(now, message.link, reports=incoming.reports)
            if isinstance(message, Data):
                self._data(peer, incoming, message, now)
            else:
                self._ping(peer, incoming, message)
        elif isinstance(message, Bye):
            if peer in self.links and message.reason != BYE:
                self.links[peer].gone = message.reason or BYE
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
        for lsn in [lsn for lsn in incoming.pending if lsn < message.low]:
            del incoming.pending[lsn]
        self._state(peer, incoming)

    def _state(self, peer: Peer, incoming: _Incoming) -> None:
        incoming.acks = 0
        message = State(
            incoming.link, incoming.upto, tuple(sorted(incoming.pending)), tuple(sorted(incoming.missing))
        )
        self.outbox.append((peer, message))

    def done(self, key: Key, now: float) -> bool:
        """Acknowledge an item; False where it is none of this session."""
        tokens = self.held.pop(key, ())
        for token in tokens:
            self._ack(token, now)
        return bool(tokens)

    def _ack(self, token: tuple[Peer, bytes, int], now: float) -> None:
        peer, link, lsn = token
        incoming = self.links.get(peer)
        if incoming is None or incoming.link != link or incoming.pending.pop(lsn, None) is None:
            return
        if not incoming.acks:
            incoming.since = now
        incoming.acks += 1
        # While there is room for some more; mostly `tick` comes first, with a message that has come.
        if incoming.acks >= max(1, min(MOST_ACKS, self.window * 3 // 4)):
            self._state(peer, incoming)

    def flush(self) -> None:
        """Tell every acknowledgement that waits, and the cursor."""
        for peer, incoming in self.links.items():
            if incoming.acks:
                self._state(peer, incoming)
        self.ready()

    def tick(self, now: float) -> None:
        """Let time pass: READY to everybody, and acknowledgements that are many, or have waited for long enough."""
        for peer, incoming in self.links.items():
            if incoming.acks and (
                incoming.acks * 2 >= min(MOST_ACKS, self.window)
                or now - incoming.since >= self._timing.ack_delay
            ):
                self._state(peer, incoming)
        if self.repeats(now):
            self._readied = self._told_at = now
            for peer in self.silent(now, 2 * self._timing.death):
                # One that comes back is made known again by its PING; who took leave is remembered for it.
                if peer not in self._greeted and not self.links[peer].gone:
                    del self.links[peer]
            self.ready()
        elif self._told is not self.cursor and (self.tells_at <= now or self._moved_far()):
            # Producers may go ahead of it by some windows only.
            self._told_at = now
            self.ready()

    @property
    def tells_at(self) -> float:
        """When `tick` would tell a cursor that has moved a little."""
        return self._told_at + self._timing.cursor_delay

    def _moved_far(self) -> bool:
        """Whether a window was delivered, or an epoch, since the cursor was told."""
        told, cursor = self._told, self.cursor
        if told is None or cursor is None:
            return True
        if told.epoch != cursor.epoch or len(told.streams) != len(cursor.streams):
            return True
        moved = 0
        for old, new in zip(told.streams, cursor.streams, strict=True):
            moved += new.base - old.base
        return moved >= self.window

    def repeats(self, now: float) -> bool:
        """Whether `tick` would say READY again."""
        return now - self._readied >= self._timing.repeat

    def anybody(self, now: float) -> bool:
        """Whether a producer is there."""
        return any(now - incoming.heard <= self._timing.death for incoming in self.links.values())

    def reports(self, now: float) -> list[tuple[float, dict[str, Any]]]:
        """What the producers that are there told with their last PING, those behind them too, and seconds since."""
        return [
            (now - incoming.heard, report)
            for incoming in self.links.values()
            if not incoming.gone and now - incoming.heard <= RECENT * self._timing.repeat
            for report in incoming.reports
        ]

    def silent(self, now: float, seconds: float) -> list[Peer]:
        """Peers that have said nothing for so long."""
        return [peer for peer, incoming in self.links.items() if now - incoming.heard > seconds]

    def due(self) -> float | None:
        """When `tick` should be called again for what waits to be told; None where nothing does."""
        due = None if self._told is self.cursor else self.tells_at
        for incoming in self.links.values():
            if incoming.acks and (due is None or incoming.since + self._timing.ack_delay < due):
                due = incoming.since + self._timing.ack_delay
        return due
