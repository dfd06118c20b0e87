"""The three roles of a chain: the data machine makes batches, workers process them, the training machine delivers them.

Each role connects the ends of its links with its own state. None has sockets, threads or a clock: the owner passes in
messages, the time and finished batches, and sends the messages in the outboxes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from highway.errors import HighwayError, StateMismatchError, SupersededError
from highway.network.protocol.consumer import Consumer
from highway.network.protocol.delivery import Delivery, Feed, Numbering, Wanted
from highway.network.protocol.link import TIMING, Peer, Random, Timing
from highway.network.protocol.messages import Cursor, Data, Item, Key, Kind, Message, Refusal
from highway.network.protocol.producer import Producer

__all__ = ["DataMachine", "Trainer", "Worker"]

# Most bytes of batches between all data machines and the training machine, by the average size of a batch there.
HORIZON_BYTES = 512 << 20
# Most items in flight before that size is known.
FIRST_HORIZON = 16
# Generations are microseconds since 1970, or slightly more; far larger values are invalid.
MOST_GENERATION = 2**61


class DataMachine:
    """Makes the batches that the training machine lacks, and keeps each until it was delivered.

    Parameters
    ----------
    random : callable
        Returns the given number of random bytes.
    stream, world : int
        Rank of this data machine, and number of data machines.
    numbering : Numbering, optional
        Batches of the epochs; without it, all batches count as one epoch.
    fingerprint : str
        Fingerprint of the data.
    timing : Timing
    definition : str
        Digest of how it makes batches.

    Attributes
    ----------
    producer : Producer
    feed : Feed
    end_of : callable
        Returns the item for the end of an epoch, or of the data, by its kind; called once everything before it was
        made.
    """

    def __init__(
        self,
        random: Random,
        stream: int,
        world: int,
        numbering: Numbering | None,
        fingerprint: str,
        timing: Timing = TIMING,
        definition: str = "",
    ) -> None:
        self.producer = Producer(random, timing)
        self.producer.admits = self._refusal_of
        self.feed = Feed(stream, numbering)
        self._world = world
        self._fingerprint = fingerprint
        self._definition = definition
        # Average size of a batch.
        self._nbytes = 0.0
        # The source has fewer batches than this; known once a batch after its end was requested.
        self._fewer_than: int | None = None
        self.end_of: Callable[[Kind], Item] = lambda kind: Item(kind, [], ())
        # Batches that are being made, and ends that wait for them: they list the bad samples among them.
        self._making: set[Key] = set()
        self._ends: deque[Wanted] = deque()

    @property
    def called(self) -> bool:
        """Whether a training machine has requested batches."""
        return self.producer.cursor is not None

    @property
    def finished(self) -> bool:
        """Whether the training machine has delivered everything."""
        return self.feed.finished and not self._counts_more(self.producer.cursor)

    @property
    def horizon(self) -> int:
        """Most items in flight, counted from the first one that is not delivered (rule 3)."""
        links, cursor = self.producer.links, self.producer.cursor
        most = FIRST_HORIZON
        for link in links.values():
            most += 2 * link.window
        # Workers may make them larger, or make them of tasks.
        known = 0 if cursor is None else cursor.nbytes
        nbytes = max(self._nbytes, known)
        by_bytes = int(HORIZON_BYTES / (nbytes * self._world)) if nbytes else most
        if not known:
            by_bytes = min(by_bytes, FIRST_HORIZON)
        return min(most, max(2 + 2 * len(links), by_bytes))

    def _refusal_of(self, cursor: Cursor) -> Refusal | None:
        if cursor.fingerprint and cursor.fingerprint != self._fingerprint:
            return Refusal(
                "mismatch",
                f"the state is of other data (fingerprint {cursor.fingerprint}) than stream {self.feed.stream} has "
                f"(fingerprint {self._fingerprint}); the samples, their order, the seed and the batch size must be "
                "those that the state was saved with",
            )
        if cursor.streams and len(cursor.streams) != self._world:
            return Refusal(
                "mismatch",
                f"the state has {len(cursor.streams)} data machines, this one is {self.feed.stream} of "
                f"{self._world}; each needs the stream=(i, n) that it had when the state was saved",
            )
        if self._counts_more(cursor):
            return Refusal(
                "mismatch",
                f"the state counts {self.feed.counted(cursor)} batches of stream {self.feed.stream}, which has fewer; "
                "the data machine needs the epochs= that it had when the state was saved, or more",
            )
        return None

    def end(self, total: int) -> None:
        """Note that the source ends after `total` batches."""
        self.feed.end(total)
        self._refuse_more()

    def end_before(self, position: int) -> None:
        """Note that the source ends somewhere before a batch."""
        self._fewer_than = position
        self._refuse_more()

    def _refuse_more(self) -> None:
        """Refuse the cursor that was admitted, if it counts a batch after the end: the state is from more epochs."""
        cursor = self.producer.cursor
        if cursor is None or not self._counts_more(cursor):
            return
        self.feed.halt()
        refusal = self._refusal_of(cursor)
        assert refusal is not None
        self.producer.refuse(refusal)

    def _counts_more(self, cursor: Cursor | None) -> bool:
        """Whether a cursor counts a batch after the end of the source."""
        if cursor is None:
            return False
        total, counted = self.feed.total, self.feed.counted(cursor)
        return (total is not None and counted > total) or (
            self._fewer_than is not None and counted >= self._fewer_than
        )

    def receive(self, upstream: bool, peer: Peer, message: Message, now: float) -> None:
        """Process a message from a consumer."""
        self.producer.receive(peer, message, now)
        self.producer.done.clear()
        news = self.producer.news
        while news:
            cursor, reset = news.popleft()
            if reset:
                self._making.clear()
                self._ends.clear()
                self.feed.seek(cursor)
            else:
                self.feed.update(cursor)

    def tick(self, now: float) -> None:
        """Advance the time."""
        self.producer.tick(now)

    def settle(self) -> None:
        """Do nothing: every message is up to date."""

    def due(self) -> None:
        """Nothing is due before the next beat."""

    @property
    def offers(self) -> bool:
        """Whether there may be work for waiting threads."""
        return True

    def next(self) -> Wanted | None:
        """Return the next batch to make; None while there is none. Ends of epochs and of the data are sent here."""
        while self.called:
            wanted = self.feed.next(self.horizon)
            if wanted is not None and wanted.kind is Kind.BATCH:
                self._making.add(wanted.key)
                return wanted
            if wanted is None:
                return None
            self._ends.append(wanted)
            self._send_ends()
        return None

    def give_up(self, key: Key) -> None:
        """Note that a batch that `next` requested will not be made: the data ended before it."""
        self._making.discard(key)
        self._send_ends()

    def _send_ends(self) -> None:
        while self._ends and not any(key < self._ends[0].key for key in self._making):
            wanted = self._ends.popleft()
            self.producer.offer(wanted.key, self._world, self._fingerprint, self.end_of(wanted.kind))

    def made(self, key: Key, item: Item) -> None:
        """Add a batch that `next` requested."""
        nbytes = item.nbytes
        if nbytes:
            self._nbytes += (nbytes - self._nbytes) * (0.1 if self._nbytes else 1.0)
        self.producer.offer(key, self._world, self._fingerprint, item, self._definition)
        self._making.discard(key)
        self._send_ends()


class Worker:
    """Receives batches from upstream, has them processed, and sends them downstream.

    It holds no state that must survive: it acknowledges an item upstream only when it is acknowledged downstream.

    Parameters
    ----------
    random : callable
        Returns the given number of random bytes.
    window, window_bytes : int
        Most items and bytes in flight from one producer.
    version : str
    timing : Timing
    definition : str
        Digest of what it does with batches.

    Attributes
    ----------
    consumer : Consumer
        The upstream end, to the data machines.
    producer : Producer
        The downstream end, to the training machine.
    inbox : deque of Data
        Batches to process.
    """

    def __init__(
        self,
        random: Random,
        window: int,
        window_bytes: int,
        version: str = "",
        timing: Timing = TIMING,
        definition: str = "",
    ) -> None:
        self.consumer = Consumer(random, window, window_bytes, version, timing)
        self._definition = definition
        self.producer = Producer(random, timing)
        self.inbox: deque[Data] = deque()
        self._origins: dict[Key, tuple[int, str, str]] = {}
        self._death = timing.death
        # When a downstream peer was last connected.
        self._served = 0.0

    def receive(self, upstream: bool, peer: Peer, message: Message, now: float) -> None:
        """Process a message from a producer (upstream, `upstream`) or from a consumer (downstream)."""
        if upstream:
            self._receive_from_upstream(peer, message, now)
        else:
            self._receive_from_downstream(peer, message, now)

    def _receive_from_upstream(self, peer: Peer, message: Message, now: float) -> None:
        self.consumer.receive(peer, message, now)
        while self.consumer.arrivals:
            data = self.consumer.arrivals.popleft()
            self._origins[data.key] = data.world, data.fingerprint, data.definition
            if data.item.kind is Kind.BATCH:
                self.inbox.append(data)
            else:
                self.made(data.key, data.item, now)
        while self.consumer.refusals:
            self.producer.refuse(self.consumer.refusals.popleft())

    def _receive_from_downstream(self, peer: Peer, message: Message, now: float) -> None:
        self.producer.receive(peer, message, now)
        news = self.producer.news
        while news:
            cursor, reset = news.popleft()
            if reset:
                # Rule 6.
                self._forget()
                self.consumer.reset(cursor)
            elif self.consumer.cursor is not None:
                self.consumer.cursor = cursor
        self._vouch()
        if self.consumer.cursor is None and self.producer.links and self.producer.cursor is not None:
            # A consumer is back.
            self.consumer.reset(self.producer.cursor)
        self._pass_on(now)

    def _vouch(self) -> None:
        """Name the training machine to the data machines only while one is connected here (rule 14)."""
        cursor, known = self.consumer.cursor, self.producer.cursor
        if cursor is None or known is None:
            return
        owner = known.owner if self.producer.links else ""
        if cursor.owner != owner:
            self.consumer.cursor = cursor._replace(owner=owner)

    def _pass_on(self, now: float) -> None:
        # Rule 10.
        while self.producer.done:
            key = self.producer.done.popleft()
            self._origins.pop(key, None)
            self.consumer.done(key, now)

    def _forget(self) -> None:
        self.inbox.clear()
        self._origins.clear()
        self.producer.done.clear()

    def tick(self, now: float) -> None:
        """Advance the time."""
        self.producer.tick(now)
        self._vouch()
        self._pass_on(now)
        if self.producer.links:
            self._served = now
        elif self.consumer.cursor is not None and now - self._served > self._death:
            # Rule 13. The items here cannot move on, but another worker may deliver them.
            self.producer.clear()
            self._forget()
            self.consumer.leave("no consumer downstream")
        self.consumer.tick(now)

    def settle(self) -> None:
        """Do nothing: every message is up to date."""

    def due(self) -> float | None:
        """Return the latest time for the next `tick`; None where nothing is due."""
        return self.consumer.due()

    @property
    def offers(self) -> bool:
        """Whether there may be work for waiting threads."""
        return bool(self.inbox) or any(link.leave_reason for link in self.consumer.links.values())

    def failed(self, key: Key, item: Item, now: float) -> None:
        """Give a batch of the inbox back, of which `item` is the error: another worker tries it."""
        self._origins.pop(key, None)
        self.consumer.fail(key, item.meta, now)

    def made(self, key: Key, item: Item, now: float) -> None:
        """Add the outcome of a batch of the inbox; it is dropped where it is no longer held."""
        if key not in self.consumer.held:
            return
        world, fingerprint, definition = self._origins[key]
        definition = f"{definition}/{self._definition}"
        if not self.producer.offer(key, world, fingerprint, item, definition) and not self.producer.holds(
            key
        ):
            # The training machine has it.
            self._origins.pop(key, None)
            self.consumer.done(key, now)


class Trainer:
    """Receives every item once, drops duplicates, and counts the delivered items.

    Parameters
    ----------
    random : callable
        Returns the given number of random bytes.
    cursor : Cursor
        Starting point.
    ordered : bool
    window, window_bytes : int
        Most items and bytes in flight from one producer.
    version : str
    timing : Timing
    streams : int, optional
        Expected number of data machines; not checked by default.

    Attributes
    ----------
    consumer : Consumer
    delivery : Delivery
    failure : HighwayError or None
        The error that ended the delivery.
    received : int
        Number of new items.
    occupant : str
        Which other training machine is alive, where this one was refused for it.
    describe : callable
        Returns a text about a peer, for errors: who it is, and how it makes batches.
    """

    def __init__(
        self,
        random: Random,
        cursor: Cursor,
        ordered: bool,
        window: int,
        window_bytes: int,
        version: str = "",
        timing: Timing = TIMING,
        streams: int | None = None,
    ) -> None:
        self.consumer = Consumer(random, window, window_bytes, version, timing)
        self.failure: HighwayError | None = None
        self.received = 0
        self._streams = streams
        self._timing = timing
        self.occupant = ""
        self.describe: Callable[[Peer], str] = str
        self.begin(cursor, ordered)

    def begin(self, cursor: Cursor, ordered: bool) -> None:
        """Start, or restart, from a cursor."""
        self.delivery = Delivery(cursor, ordered, self._streams)
        self.consumer.knows = self.delivery.knows
        self.consumer.reset(cursor)
        # How the batches are made that arrive, and who sent the first one.
        self._definition: tuple[str, Peer] | None = None
        # Whether an item has arrived since: then this training machine once was the newest.
        self._accepted = False
        # When another training machine first was in the way.
        self._occupied_at: float | None = None
        # What the consumer's cursor counts: items delivered since the start, and the epoch.
        self._counted, self._epoch = 0, cursor.epoch

    def receive(self, upstream: bool, peer: Peer, message: Message, now: float) -> None:
        """Process a message from a producer."""
        self.consumer.receive(peer, message, now)
        while self.consumer.arrivals and self.failure is None:
            data = self.consumer.arrivals.popleft()
            self._accepted, self.occupant = True, ""
            self.received += 1
            try:
                self._check_definition(peer, data)
                if not self.delivery.arrive(data):
                    self.consumer.done(data.key, now)
            except StateMismatchError as error:
                self.failure = error
        while self.consumer.refusals:
            self._refused(self.consumer.refusals.popleft(), now)

    def _check_definition(self, peer: Peer, data: Data) -> None:
        """Raise StateMismatchError where a batch was made in another way than the batches before it."""
        if data.item.kind is not Kind.BATCH:
            return
        if self._definition is None:
            self._definition = data.definition, peer
        definition, other = self._definition
        if data.definition == definition:
            return
        ways = zip(definition.split("/"), data.definition.split("/"), strict=False)
        differ = [one != another for one, another in ways]
        # The first machines are the data machines; the last ones are the peers of this one.
        whose = "" if differ[-1:] == [True] else "the data machines behind "
        raise StateMismatchError(
            f"ZMQSource: batch {data.key.seq} of epoch {data.key.epoch}, stream {data.key.stream}, was made in another "
            f"way than the batches before it: {whose}{self.describe(peer)} and {self.describe(other)} differ; expected "
            "the same modules, arguments, data and version of Highway on all machines of a kind"
        )

    def _refused(self, refusal: Refusal, now: float) -> None:
        if refusal.code == "occupied" and not self._accepted:
            self._wait_for(refusal.text, now)
        elif refusal.code == "mismatch":
            self.failure = StateMismatchError(f"ZMQSource: {refusal.text}")
        elif refusal.code == "superseded" and self.delivery.generation < refusal.number < MOST_GENERATION:
            if self._accepted:
                self.failure = SupersededError(
                    "ZMQSource: this training machine was silent for too long, and another one has taken its place: "
                    f"{refusal.text}. Two training machines cannot share one data machine; end one of them"
                )
            else:
                # The clock was set back, or the clock of this machine is slow.
                self.delivery.generation = refusal.number + 1
                self.consumer.reset(self.delivery.cursor)

    def _wait_for(self, text: str, now: float) -> None:
        """Wait for the end of another training machine: it may have died, unnoticed for the death time (rule 14)."""
        self.occupant = text
        if self._occupied_at is None:
            self._occupied_at = now
        elif now - self._occupied_at > self.patience:
            self.failure = SupersededError(
                f"ZMQSource: refused: {text}. Two training machines cannot share one data machine: end that one, and "
                "start this one again (with its state to continue where it was), or use a data machine of your own"
            )

    @property
    def patience(self) -> float:
        """Seconds to wait for the end of another training machine; after its death nobody vouches for it so long."""
        return self._timing.death + 4 * self._timing.repeat

    @property
    def _cursor_is_old(self) -> bool:
        """Whether an item was delivered that the consumer's cursor does not count, or the size of items is another."""
        cursor = self.consumer.cursor
        if cursor is not None and cursor.nbytes != self.delivery.nbytes:
            return True
        return self.delivery.delivered != self._counted or self.delivery.epoch != self._epoch

    def settle(self) -> None:
        """Update the cursor of the next READY to all delivered items."""
        if self._cursor_is_old:
            self._counted, self._epoch = self.delivery.delivered, self.delivery.epoch
            self.consumer.cursor = self.delivery.cursor

    def deliver(self, key: Key, now: float) -> bool:
        """Count an item as delivered and acknowledge it; False for one that was counted before."""
        # Rule 11.
        if not self.delivery.deliver(key):
            return False
        self.consumer.done(key, now)
        if self.delivery.epoch != self._epoch:
            self.settle()
            self.consumer.ready()
        return True

    def tick(self, now: float) -> None:
        """Advance the time."""
        if (
            self.delivery.delivered - self._counted >= self.consumer.window
            or self.delivery.epoch != self._epoch
            or self.consumer.next_cursor_at <= now
            or self.consumer.repeats(now)
        ):
            self.settle()
        self.consumer.tick(now)

    def due(self) -> float | None:
        """Return the latest time for the next `tick`; None where nothing is due."""
        due = self.consumer.due()
        if self._cursor_is_old:
            due = self.consumer.next_cursor_at if due is None else min(due, self.consumer.next_cursor_at)
        return due

    @property
    def offers(self) -> bool:
        """Whether there may be work for waiting threads."""
        return bool(self.delivery.released) or self.delivery.finished or self.failure is not None
