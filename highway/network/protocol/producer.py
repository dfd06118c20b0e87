"""The sending end of links: sends items to consumers, tracks which are done, and resends lost ones."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from highway.network.protocol import link
from highway.network.protocol.link import (
    MOST_CHANGES,
    TIMING,
    Change,
    CursorNews,
    Peer,
    Random,
    Timing,
    answer,
    delivered,
    interval,
    merged,
)
from highway.network.protocol.messages import (
    Bye,
    Cursor,
    Data,
    Item,
    Key,
    Kind,
    Message,
    Ping,
    Ready,
    Refusal,
    State,
)

__all__ = ["Producer"]

# Seconds for which a peer that was just heard counts as alive.
JUST_NOW = 0.05
# Longest time that a suspect waits, in PING intervals; the actual time is random.
PATIENCE = 4
# Failures of an item after which it is an error: the second machine has tried it.
FAILURES = 2
# Failures of a peer that other peers did not have, after which it gets no items for some time, and that time in
# seconds: it is doubled with each further one. After a longer time without one, it begins anew.
STRIKES = 3
BENCH, LONGEST_BENCH = 10.0, 600.0


@dataclass(slots=True)
class _Entry:
    """An item that a producer holds until it is done."""

    world: int
    fingerprint: str
    definition: str
    item: Item
    nbytes: int
    deaths: int = 0
    queued: bool = True
    # The peers that could not process it.
    failures: list[Peer] = field(default_factory=list)


@dataclass(slots=True)
class _Outgoing:
    """A link, as its producer sees it."""

    session: bytes
    link: bytes
    window: int
    window_bytes: int
    heard: float
    high: int = 0
    nbytes: int = 0
    # Key and bytes of what was sent and is not done, by lsn.
    in_flight: dict[int, tuple[Key, int]] = field(default_factory=dict)
    turn: int = 0
    # Training machine that the consumer works for, as it last said; see `Cursor.owner`.
    owner: str = ""
    # Failures that other peers did not have, the time of the last, and until when it gets no items.
    strikes: int = 0
    struck: float = 0.0
    benched_until: float = 0.0

    def room(self, nbytes: int) -> bool:
        """Whether `nbytes` more may be sent now (rule 2)."""
        if not self.in_flight:
            return True
        return len(self.in_flight) < self.window and self.nbytes + nbytes <= self.window_bytes


class Producer:
    """The sending end of any number of links: sends each item to one consumer, and resends it until it is done.

    Parameters
    ----------
    random : callable
        Returns the given number of random bytes.
    timing : Timing

    Attributes
    ----------
    outbox : deque of (peer, Message)
        Control messages to be sent.
    done : deque of Key
        Items that a consumer has acknowledged as done.
    news : deque of CursorNews
    cursor : Cursor or None
        The newest cursor from a consumer.
    admits : callable
        Returns the refusal of a cursor, or None to serve it.
    reports : callable
        Returns the statistics that PINGs carry.
    resent : int
        Number of items that were sent again.
    deaths : int
        Number of peers that died.
    most_window : int
        Most items in flight on a link, even if its consumer asks for more.
    unaware : dict of peer to None
        Peers with an older generation, or none; they get a BYE too.
    changes : deque of Change
        Consumers that joined, left or died.
    suspects : int
        Number of items that are sent alone, because machines that held them died.
    failed : int
        Number of items that were tried by another peer, because one could not process them.
    """

    def __init__(self, random: Random, timing: Timing = TIMING) -> None:
        self._random = random
        self._timing = timing
        self.outbox: deque[tuple[Peer, Message]] = deque()
        self.done: deque[Key] = deque()
        self.news: deque[CursorNews] = deque()
        self.cursor: Cursor | None = None
        self.admits: Callable[[Cursor], Refusal | None] = lambda cursor: None
        self.reports: Callable[[], list[dict[str, Any]]] = list
        self.resent = 0
        self.failed = 0
        self.deaths = 0
        self.changes: deque[Change] = deque(maxlen=MOST_CHANGES)
        self.most_window = 2**31
        self.links: dict[Peer, _Outgoing] = {}
        self._entries: dict[Key, _Entry] = {}
        # Keys in order; may contain keys that are no longer queued.
        self._queue: list[Key] = []
        self._suspects: list[Key] = []
        # Keys that a peer could not process.
        self._retries: set[Key] = set()
        self._benched: set[Peer] = set()
        # When there was no peer before.
        self._joined = 0.0
        self._quarantine: Peer = None
        self._strangers: dict[Peer, None] = {}
        self.unaware: dict[Peer, None] = {}
        self._turn = 0
        self._pinged = -1e9
        self._now = 0.0
        # Suspects wait until these times: because the consumer holds another one, and for a random time.
        self._turned_away_until = 0.0
        self._waits_until = 0.0

    def __len__(self) -> int:
        """Number of items that are not done."""
        return len(self._entries)

    @property
    def unsent(self) -> int:
        """Number of items that wait to be sent, without those that are sent alone."""
        waiting = len(self._entries)
        for out in self.links.values():
            waiting -= len(out.in_flight)
        if self._suspects:
            waiting -= sum(key in self._entries and self._entries[key].queued for key in {*self._suspects})
        return waiting

    @property
    def suspects(self) -> int:
        """Number of items that are sent alone, because machines that held them died."""
        return sum(entry.deaths >= self._timing.suspect for entry in self._entries.values())

    @property
    def has_work(self) -> bool:
        """Whether `pick` may find something."""
        return bool(self._queue or self._suspects or self._retries)

    @property
    def benched(self) -> int:
        """Number of peers that get no items now, because others could process what they could not."""
        return sum(out.benched_until > self._now for out in self.links.values())

    def greet(self, peer: Peer) -> None:
        """Send a first PING to a peer that this side connects to."""
        self._strangers[peer] = None
        self._ping(peer, self.reports())

    def offer(self, key: Key, world: int, fingerprint: str, item: Item, definition: str = "") -> bool:
        """Add an item of a job with `world` streams; False if it is held already, or the cursor counts it.

        See `Data` for `fingerprint` and `definition`.
        """
        if key in self._entries or (self.cursor is not None and delivered(self.cursor, key)):
            return False
        self._entries[key] = _Entry(world, fingerprint, definition, item, item.nbytes)
        heapq.heappush(self._queue, key)
        return True

    def holds(self, key: Key) -> bool:
        """Whether the item is held and not done."""
        return key in self._entries

    def clear(self) -> None:
        """Forget all items and all peers."""
        self._entries.clear()
        self._queue.clear()
        self._suspects.clear()
        self._retries.clear()
        self._benched.clear()
        self.links.clear()
        self._quarantine = None

    def refuse(self, refusal: Refusal) -> None:
        """Send a refusal to all consumers."""
        for peer in self.links:
            self.outbox.append((peer, refusal))

    def bye(self, reason: str) -> None:
        """Send BYE to all peers."""
        for peer in dict.fromkeys([*self.links, *self._strangers, *self.unaware]):
            self.outbox.append((peer, Bye(reason)))

    def receive(self, peer: Peer, message: Message, now: float) -> None:
        """Process a message from a consumer; messages that only a producer sends are dropped."""
        self._now = now
        if isinstance(message, Ready):
            self._ready(peer, message, now)
        elif isinstance(message, State):
            self._state(peer, message, now)
        elif isinstance(message, Bye):
            if peer in self.links:
                self.changes.append(Change(peer, "left", message.reason))
            self._forget(peer, died=False)
            self.unaware.pop(peer, None)
            answer(self.outbox, peer, message)

    def _ready(self, peer: Peer, message: Ready, now: float) -> None:
        known, cursor = self.cursor, message.cursor
        if known is not None and cursor.generation < known.generation:
            text = f"generation {cursor.generation} was superseded by {known.generation}"
            self.outbox.append((peer, Refusal("superseded", text, known.generation)))
            self._forget(peer, died=False)
            self._meet(peer)
            return
        self.unaware.pop(peer, None)
        refusal = self.admits(cursor)
        if refusal is not None:
            self.outbox.append((peer, refusal))
            return
        if known is not None and self._occupied(peer, cursor):
            # Rule 14. This peer may have worked for the training machine before, and does no longer.
            self._forget(peer, died=False)
            self._meet(peer)
            who = known.owner.partition("#")[0]
            text = f"the training machine {who} receives the batches, and is alive"
            self.outbox.append((peer, Refusal("occupied", text)))
            return
        if known is None or cursor.generation > known.generation:
            # Rule 6.
            self.clear()
            self.cursor = cursor
            self.news.append(CursorNews(cursor, True))
        else:
            together = merged(known, cursor)._replace(
                owner=known.owner or cursor.owner, nbytes=cursor.nbytes or known.nbytes
            )
            if together != known:
                self.cursor = together
                self.news.append(CursorNews(together, False))
        out = self.links.get(peer)
        if out is None or out.session != message.session:
            # Rule 1.
            if out is not None:
                self._forget(peer, died=True)
            elif len(self.links) >= link.MAX_PEERS:
                return
            else:
                self.changes.append(Change(peer, "joined"))
            if not self.links:
                self._joined = now
            out = _Outgoing(message.session, self._random(16), message.window, message.window_bytes, now)
            self.links[peer] = out
        out.window, out.window_bytes = min(message.window, self.most_window), message.window_bytes
        out.heard, out.owner = now, cursor.owner

    def _occupied(self, peer: Peer, cursor: Cursor) -> bool:
        """Whether another training machine than that of the cursor is alive: one of its consumers says so."""
        assert self.cursor is not None
        owner = self.cursor.owner
        if not owner or cursor.owner in ("", owner):
            return False
        return any(out.owner == owner for other, out in self.links.items() if other != peer)

    def _meet(self, peer: Peer) -> None:
        """Remember a peer that is not served, up to `MAX_PEERS`."""
        if len(self.unaware) < link.MAX_PEERS:
            self.unaware[peer] = None

    def _state(self, peer: Peer, message: State, now: float) -> None:
        out = self.links.get(peer)
        if out is None:
            self._meet(peer)
        if out is None or out.link != message.link or message.upto > out.high:
            return
        out.heard = now
        pending, missing, failed = set(message.pending), set(message.missing), dict(message.failed)
        # Rule 4.
        for lsn in [lsn for lsn in out.in_flight if lsn <= message.upto and lsn not in pending]:
            key, nbytes = out.in_flight.pop(lsn)
            out.nbytes -= nbytes
            if lsn in missing:
                self._requeue(key, died=False)
                entry = self._entries.get(key)
                if entry is not None and entry.deaths >= self._timing.suspect:
                    # The consumer declined it because it holds another suspect.
                    self._turned_away_until = now + self._timing.repeat
            elif lsn in failed:
                self._fail(key, peer, failed[lsn])
            else:
                self._succeed(key, peer)
                self._finish(key)

    def _finish(self, key: Key) -> None:
        if self._entries.pop(key, None) is not None:
            self.done.append(key)

    def _fail(self, key: Key, peer: Peer, meta: list[Any]) -> None:
        """Have another peer try an item, or make an error of it if another one has."""
        entry = self._entries.get(key)
        if entry is None:
            return
        # Rule 15.
        self.failed += 1
        entry.failures.append(peer)
        if len(entry.failures) >= FAILURES:
            entry.item, entry.nbytes, entry.deaths = Item(Kind.ERROR, meta, ()), 0, 0
        self._requeue(key, died=False)

    def _succeed(self, key: Key, peer: Peer) -> None:
        """Count a failure of other peers with an item that this one has processed."""
        entry = self._entries.get(key)
        if entry is None or not entry.failures or entry.item.kind is not Kind.BATCH:
            return
        # Rule 16.
        for failer in entry.failures:
            out = self.links.get(failer)
            if out is None or failer == peer:
                continue
            if self._now - out.struck > LONGEST_BENCH:
                out.strikes = 0
            out.strikes += 1
            out.struck = self._now
            if out.strikes >= STRIKES:
                seconds = min(BENCH * 2 ** (out.strikes - STRIKES), LONGEST_BENCH)
                out.benched_until = self._now + seconds
                self._benched.add(failer)
                why = f"fails at what others can do: {out.strikes} times by now; it gets no batches for {seconds:g} s"
                self.changes.append(Change(failer, "benched", why))

    def _requeue(self, key: Key, died: bool) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        if self.cursor is not None and delivered(self.cursor, key):
            self._finish(key)
            return
        self.resent += 1
        entry.queued = True
        if died and entry.item.kind is Kind.BATCH:
            entry.deaths += 1
            if entry.deaths >= self._timing.deaths:
                # Rule 7.
                entry.item = _poisoned(key, entry.deaths)
                entry.nbytes = entry.deaths = 0
        if entry.deaths >= self._timing.suspect:
            heapq.heappush(self._suspects, key)
        elif entry.failures and entry.item.kind is Kind.BATCH:
            self._retries.add(key)
        else:
            heapq.heappush(self._queue, key)

    def _forget(self, peer: Peer, died: bool) -> None:
        """Drop the link of a peer and requeue its items in flight."""
        out = self.links.pop(peer, None)
        if out is not None:
            self._benched.discard(peer)
            self.deaths += died
            if peer == self._quarantine:
                self._quarantine = None
            for key, _ in out.in_flight.values():
                self._requeue(key, died)

    def lose(self, peer: Peer) -> None:
        """Declare a peer dead before its time: its connection is gone and did not come back."""
        if peer in self.links:
            self.changes.append(Change(peer, "died"))
        self._forget(peer, died=True)

    def tick(self, now: float) -> None:
        """Advance the time: drop dead peers and send PINGs."""
        self._now = now
        for peer in [peer for peer, out in self.links.items() if now - out.heard > self._timing.death]:
            # Rule 5.
            self.lose(peer)
        if now - self._pinged >= interval(self._timing, len(self.links)):
            self._pinged = now
            reports = self.reports()
            for peer in dict.fromkeys([*self.links, *self._strangers]):
                self._ping(peer, reports)

    def _ping(self, peer: Peer, reports: list[dict[str, Any]]) -> None:
        out = self.links.get(peer)
        if out is None:
            self.outbox.append((peer, Ping(b"", b"", 0, 1, reports)))
        else:
            low = next(iter(out.in_flight), out.high + 1)
            self.outbox.append((peer, Ping(out.session, out.link, out.high, low, reports)))

    def pick(self, blocked: Collection[Peer] = (), now: float | None = None) -> tuple[Peer, Data] | None:
        """Return the next message and its peer, or None; call `commit` once it was sent.

        Parameters
        ----------
        blocked : collection of peers
            Peers to which nothing can be sent now.
        now : float, optional
            The time; by default that of the last message or `tick`.
        """
        if now is not None:
            self._now = now
        suspect = _lowest(self._suspects, self._entries) if self._suspects else None
        if suspect is not None:
            if self._quarantine is None:
                self._quarantine = min(
                    self.links, key=lambda peer: len(self.links[peer].in_flight), default=None
                )
                if self._quarantine is not None and self._entries[suspect].deaths > self._timing.suspect:
                    # Its link died although it was alone, perhaps with a suspect of another data machine: a random
                    # delay keeps the two from meeting at every new worker.
                    self._waits_until = self._now + PATIENCE * self._timing.repeat * self._random(1)[0] / 256
            if self._quarantine is not None and self._quarantine not in blocked:
                out = self.links[self._quarantine]
                # Only to a peer that was just heard: a suspect from another producer may have ended it.
                ready = self._now >= max(self._waits_until, self._turned_away_until)
                if ready and not out.in_flight and self._now - out.heard <= JUST_NOW:
                    return self._quarantine, self._data(out, suspect)
        elif self._quarantine is not None and not self.links[self._quarantine].in_flight:
            self._quarantine = None
        avoided: Collection[Peer] = self._resting() if self._benched else ()
        for key in sorted(self._retries):
            entry = self._entries.get(key)
            if entry is None or not entry.queued:
                self._retries.discard(key)
                continue
            tried = {*avoided, *entry.failures}
            if len(tried & self.links.keys()) == len(self.links):
                # There is no peer that has not failed.
                if self._now - self._joined < self._timing.gathering:
                    continue
                tried = set()
            found = self._best(key, blocked, tried)
            if found is not None:
                return found
        lowest = _lowest(self._queue, self._entries)
        return None if lowest is None else self._best(lowest, blocked, avoided)

    def _resting(self) -> Collection[Peer]:
        """Return the peers that get no items now, unless it would be all."""
        for peer in [peer for peer in self._benched if self.links[peer].benched_until <= self._now]:
            self._benched.discard(peer)
        return self._benched if len(self._benched) < len(self.links) else ()

    def _best(
        self, key: Key, blocked: Collection[Peer], avoided: Collection[Peer]
    ) -> tuple[Peer, Data] | None:
        """Return the peer with the fewest items in flight that has room for an item, and the message."""
        nbytes = self._entries[key].nbytes
        best = None
        # Rule 2.
        for peer, out in self.links.items():
            if (
                out.room(nbytes)
                and peer not in blocked
                and peer not in avoided
                and (peer != self._quarantine or self._turned_away_until <= self._now < self._waits_until)
                and (best is None or (len(out.in_flight), out.turn) < best[0])
            ):
                best = (len(out.in_flight), out.turn), peer, out
        return None if best is None else (best[1], self._data(best[2], key))

    def _data(self, out: _Outgoing, key: Key) -> Data:
        entry = self._entries[key]
        return Data(
            out.session,
            out.link,
            out.high + 1,
            key,
            entry.world,
            entry.fingerprint,
            entry.item,
            suspect=entry.deaths >= self._timing.suspect,
            definition=entry.definition,
        )

    def commit(self, peer: Peer, data: Data) -> int:
        """Count the message that `pick` returned as sent, and return its bytes."""
        out, entry = self.links[peer], self._entries[data.key]
        out.high = data.lsn
        out.in_flight[data.lsn] = data.key, entry.nbytes
        out.nbytes += entry.nbytes
        self._turn += 1
        out.turn = self._turn
        entry.queued = False
        # Usually saves a vain call of `pick`.
        self._retries.discard(data.key)
        for heap in (self._queue, self._suspects):
            if heap and heap[0] == data.key:
                heapq.heappop(heap)
        return entry.nbytes


def _lowest(heap: list[Key], entries: dict[Key, _Entry]) -> Key | None:
    """Return the lowest key of the heap that is still queued, or None."""
    while heap:
        entry = entries.get(heap[0])
        if entry is not None and entry.queued:
            return heap[0]
        heapq.heappop(heap)
    return None


def _poisoned(key: Key, deaths: int) -> Item:
    text = (
        f"batch {key.seq} of epoch {key.epoch} (stream {key.stream}) was given up: the machine that held it died "
        f"{deaths} times; check what the machines do with this batch"
    )
    return Item(Kind.ERROR, ["PoisonItemError", text, "", ""], ())
