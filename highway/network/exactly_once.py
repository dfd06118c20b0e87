"""Exactly-once delivery: connects the threads of a pipeline to the protocol role of their machine.

There is one class for each kind of machine: data machine, worker, training machine. Each runs a `SocketThread` for the
sockets; the threads of the pipeline call the methods here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from highway._core.installation import version
from highway.batch import Batch
from highway.engine import Failure, Source
from highway.engine.stats import PipelineStats
from highway.errors import (
    ContractError,
    MessageTooLargeError,
    PeerLostError,
    PipelineStateError,
    StateMismatchError,
    UndeliveredError,
)
from highway.network.batch_codec import bad_samples_in, bad_samples_item, item_of, new_name, with_remarks
from highway.network.definitions import Definition
from highway.network.protocol.delivery import Delivery
from highway.network.protocol.link import TIMING
from highway.network.protocol.messages import Cursor, Data, Hello, Item, Key, Kind
from highway.network.protocol.producer import Producer
from highway.network.protocol.roles import DataMachine, Trainer, Worker
from highway.network.protocol.wire import check
from highway.network.reports import Meter, fitting, known, relayed
from highway.network.saved_state import cursor_of, state_of
from highway.network.streams import Stream, stream_fingerprint
from highway.network.transport import Transport
from highway.network.zmq.ends import Endpoint
from highway.network.zmq.socket_thread import SocketThread

__all__ = ["DataTransport", "TrainerTransport", "WorkerTransport", "new_generation"]

# Most batches that wait for a link; more wait in the queues of the pipeline, which count their bytes.
AHEAD = 4
# Most bytes in flight on a link; a single batch may exceed it.
WINDOW_BYTES = 256 << 20
# Longest wait of an engine thread before it checks the clock, in seconds.
POLL = 0.25
# Seconds between two looks for the number of batches, which the data machines state every second, and longest wait.
LOOK = 0.02
LOOKING = 3.0
# Seconds to wait for the acknowledgement of the end of the data, after every batch was delivered.
LAST_ACKS = 5.0
# Longest wait for the end of the socket thread, in seconds.
JOIN_LIMIT = 1.0

Stats = Callable[[], PipelineStats | None]
Remarks = Callable[[bool], list[list[Any]]]

# Most bad samples that an error tells of, which goes upstream in a header.
MOST_REMARKS = 4
# Most failures in the local log; further ones are only sent to the training machine.
MOST_LOGGED = 20

logger = logging.getLogger("highway.network")

_END = object()


def new_generation() -> int:
    """Return a generation higher than all previous ones, provided that the clock is right."""
    return time.time_ns() // 1000


class _Machine(Transport):
    """What the three machines share: the socket thread, and how to end it."""

    driver: SocketThread
    _meter: Meter

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ending = False
        self._machine = new_name()

    def _hello(self, role: str, modules: str = "") -> Hello:
        return Hello(self._machine, role, version(), modules)

    def links(self) -> tuple[int | None, int | None]:
        consumer, producer = self.driver.consumer, self.driver.producer
        with self.driver.lock:
            return (
                None if consumer is None else consumer.present(),
                None if producer is None else len(producer.links),
            )

    def figures(self) -> list[dict[str, Any]]:
        driver = self.driver
        own = self._meter.report(driver.producer, driver.consumer)
        with driver.lock:
            upstream = [] if driver.consumer is None else relayed(driver.consumer)
        downstream = map(known, driver.acquaintances.reports(time.monotonic()))
        return fitting([own, *upstream, *downstream])

    def start(self) -> None:
        self.driver.start()

    @property
    def over(self) -> bool:
        """Whether to stop waiting; raises the error that ended the socket thread."""
        if self.driver.error is not None:
            raise self.driver.error
        return self.driver.closing or self.ending

    def bound_address(self, upstream: bool) -> str | None:
        return self.driver.bound_addresses.get(upstream)

    def end_tasks(self) -> None:
        self.ending = True

    def interrupt(self) -> None:
        self.driver.stop()

    def close(self) -> None:
        self.driver.stop()
        self.driver.join(JOIN_LIMIT)


class _Producing(_Machine):
    """A machine that sends: keeps the key of each ticket, waits for room, and waits for the end."""

    _producer: Producer
    # What happens to a batch that cannot be made, for the log.
    _then = "the error goes to the training machine"

    def __init__(self, name: str, drain_timeout: float) -> None:
        super().__init__(name)
        self._keys: dict[int, Key] = {}
        self._drain_timeout = drain_timeout
        self._failures = 0
        # Returns the bad samples that no item has told of; after a call with True, the next one returns them again.
        self.remarks: Remarks = lambda again: []

    def identity(self, ticket: int) -> tuple[int, int]:
        key = self._keys[ticket]
        return key.epoch, key.seq

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        """Pass the outcome of a task to the producer, once it has room."""
        key = self._keys.pop(ticket)
        if isinstance(outcome, Failure):
            self._log(key, outcome)
        item = self._checked(outcome, self.remarks)
        driver, producer = self.driver, self._producer
        with driver.lock:
            # During shutdown no new task begins, and `drain` waits instead.
            while producer.unsent >= AHEAD and not (driver.closing or self.ending or self._needless()):
                driver.room.wait(POLL)
            self._made(key, item)
        driver.push()

    def _log(self, key: Key, failure: Failure) -> None:
        """Log a failure here too; its item goes to the training machine, once another worker has failed."""
        self._failures += 1
        if self._failures <= MOST_LOGGED:
            logger.warning(
                "%s: stream %d, epoch %d, batch %d could not be made; %s",
                failure.module,
                key.stream,
                key.epoch,
                key.seq,
                self._then,
                exc_info=failure.error,
            )

    def _checked(self, outcome: Batch | Failure | None, remarks: Remarks) -> Item:
        """Return the item of an outcome; raises before sending where it does not fit into a message."""
        item = item_of(outcome)
        # An error that another worker does not get is not told.
        failed = item.kind is Kind.ERROR
        told = remarks(failed)
        if failed:
            # The next item tells of all of them.
            told = told[:MOST_REMARKS]
        if told:
            item = with_remarks(item, told)
        check(item)
        return item

    def _made(self, key: Key, item: Item) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        """Wait until everything is acknowledged, or `drain_timeout` passes without a connected receiver."""
        driver, producer = self.driver, self._producer
        with driver.lock:
            until = time.monotonic() + self._drain_timeout
            while not (driver.closing or self._all_done()):
                if producer.links:
                    until = time.monotonic() + self._drain_timeout
                elif time.monotonic() >= until:
                    raise UndeliveredError(
                        f"{self.name}: {len(producer)} batches were not received at the end, and no receiver was "
                        f"connected for {self._drain_timeout:g} s (drain_timeout){driver.failure}"
                    )
                driver.room.wait(POLL)
        if driver.error is not None:
            raise driver.error
        driver.stop("stopped" if self.ending else "end")

    def _all_done(self) -> bool:
        return not len(self._producer)

    def _needless(self) -> bool:
        """Whether nobody needs anything from here any more."""
        return False

    def unfinished(self) -> int:
        with self.driver.lock:
            return len(self._producer) + len(self._keys)


class DataTransport(_Producing):
    """The sending side of a data machine: its source makes the batches that the training machine lacks.

    Parameters
    ----------
    name : str
        Name of the sink.
    source : Source
    definition : Definition
        Of the batches that are sent.
    stream : Stream
    length : int or None
        Batches in an epoch.
    downstream : Endpoint
    stats : callable
    drain_timeout : float
    """

    def __init__(
        self,
        name: str,
        source: Source,
        definition: Definition,
        stream: Stream,
        length: int | None,
        downstream: Endpoint,
        stats: Stats,
        drain_timeout: float,
    ) -> None:
        super().__init__(name, drain_timeout)
        number, world = stream
        self._finished: float | None = None
        self._source = source
        # Number of bad samples that the ends of epochs have listed.
        self._listed = 0
        numbering = source if length else None
        self.role = DataMachine(
            os.urandom,
            number,
            world,
            numbering,
            stream_fingerprint(source, stream),
            TIMING,
            definition.digest,
        )
        self.role.end_of = self._end_of
        self._producer = self.role.producer
        self._producer.most_window = 2 * downstream.window + 16
        hello = self._hello("data", definition.text)
        self.driver = SocketThread(
            name, self.role, producer=self._producer, downstream=downstream, hello=hello
        )
        alike = length is not None and source.epochs_alike
        facts = {"length": length if alike else 0, "stream": number, "world": world}
        self._meter = meter = Meter("data", stats, self.driver, self._machine, facts)
        self._producer.reports = lambda: [meter.report(self._producer, None)]
        self.driver.status = self.figures

    def _end_of(self, kind: Kind) -> Item:
        """Return the end of an epoch, or of the data: it lists the bad samples since the last one."""
        errors = getattr(self._source, "errors", ())[self._listed :]
        item, count = bad_samples_item(kind, errors)
        self._listed += count
        return item

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        """Yield the tasks of the batches that the training machine lacks, in order, once it has connected."""
        tasks: Iterator[Any] | None = None
        at = ticket = 0
        while (wanted := self._wanted()) is not None:
            key, position = wanted
            if tasks is None or not at <= position <= at + AHEAD:
                tasks, at = source.tasks_from(position), position
            fresh = at == position
            task: Any = _END
            while at <= position:
                task = next(tasks, _END)
                at += 1
            if task is _END:
                # A source yields nothing from any position after its end, so the end may be before this one.
                behind = fresh and position > 0 and next(source.tasks_from(position - 1), _END) is _END
                with self.driver.lock:
                    self.role.give_up(key)
                    if behind:
                        self.role.end_before(position)
                    else:
                        self.role.end(position)
                self.driver.wake()
                tasks = None
                continue
            self._keys[ticket] = key
            ticket += 1
            yield task

    def _wanted(self) -> tuple[Key, int] | None:
        """Return key and position of the next batch; None at the end."""
        role, driver = self.role, self.driver
        last_served = time.monotonic()
        with driver.lock:
            while not self.over:
                before = len(role.producer)
                wanted = role.next()
                if len(role.producer) != before:
                    driver.wake()
                if wanted is not None:
                    return wanted.key, wanted.position
                if role.finished:
                    return None
                if role.producer.links or len(role.producer) or not role.feed.all_requested:
                    last_served = time.monotonic()
                elif time.monotonic() - last_served > self._drain_timeout:
                    # Everything was received, and the receiver disconnected without a BYE.
                    return None
                driver.changed.wait(POLL)
        return None

    def _made(self, key: Key, item: Item) -> None:
        self.role.made(key, item)

    def _all_done(self) -> bool:
        if not len(self.role.producer):
            return True
        if not self.role.finished:
            return False
        # Only the end of the data remains, which no cursor counts; a worker may die while it holds it.
        self._finished = self._finished or time.monotonic()
        return time.monotonic() - self._finished > LAST_ACKS


class WorkerTransport(_Producing):
    """Both sides of a worker: batches from upstream pass through its stages and go downstream.

    Parameters
    ----------
    name : str
        Name of the sink.
    upstream, downstream : Endpoint
    threads : int
        Threads of the stages in between.
    stats : callable
    timeout : float or None
        Most seconds without a connected upstream machine.
    drain_timeout : float
    version : str
    definition : Definition
        Of the stages.
    """

    _then = "another worker tries it, if there is one; after a second failure the error goes to the training machine"

    def __init__(
        self,
        name: str,
        upstream: Endpoint,
        downstream: Endpoint,
        threads: int,
        stats: Stats,
        timeout: float | None,
        drain_timeout: float,
        version: str,
        definition: Definition,
    ) -> None:
        super().__init__(name, drain_timeout)
        self._timeout = timeout
        # The session in which each item arrived, and that of the item whose outcome is carried now.
        self._sessions: dict[int, bytes] = {}
        self._session = b""
        self.role = Worker(
            os.urandom, 2 * downstream.window + threads, WINDOW_BYTES, version, TIMING, definition.digest
        )
        self._producer = self.role.producer
        self._producer.most_window = 2 * downstream.window + 16
        self.driver = SocketThread(
            name,
            self.role,
            consumer=self.role.consumer,
            producer=self._producer,
            upstream=upstream,
            downstream=downstream,
            hello=self._hello("worker", definition.text),
        )
        self._meter = meter = Meter("worker", stats, self.driver, self._machine)
        self.driver.status = self.figures
        consumer = self.role.consumer
        # Whether the training machine has ended where the machine upstream has: it is the same one.
        self.ends_with_upstream = False
        self._producer.reports = lambda: [
            meter.report(self._producer, consumer),
            *relayed(consumer),
        ]

    def tasks(self) -> Iterator[Data]:
        """Yield the items from upstream."""
        role, driver = self.role, self.driver
        ticket = 0
        heard = time.monotonic()
        while True:
            with driver.lock:
                while not role.inbox or self._needless():
                    if self.over or self._is_over():
                        return
                    now = time.monotonic()
                    # The data machines of a chain are awaited while there is a training machine.
                    idle = role.consumer.cursor is None and not self.ends_with_upstream
                    if idle or role.consumer.has_live_peer(now):
                        heard = now
                    elif self._timeout is not None and now - heard > self._timeout:
                        machine = "training machine" if self.ends_with_upstream else "data machine"
                        raise PeerLostError(
                            f"ZMQSource: no {machine} was connected for {self._timeout:g} s (timeout), at "
                            f"{driver.upstream_addresses}{driver.failure}"
                        )
                    driver.changed.wait(POLL)
                data, session = role.inbox.popleft(), role.consumer.session
            self._keys[ticket] = data.key
            self._sessions[ticket] = session
            ticket += 1
            yield data

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        self._session = self._sessions.pop(ticket)
        super().carry(ticket, outcome)

    def close_source(self) -> None:
        """Do nothing: the sink still sends."""

    def _is_over(self) -> bool:
        """Whether all data machines have ended, and no item of theirs is held here that anybody needs."""
        consumer = self.role.consumer
        return (
            bool(consumer.links)
            and (self.ends_with_upstream or not consumer.held)
            and all(link.leave_reason == "end" for link in consumer.links.values())
        )

    def _needless(self) -> bool:
        return self.ends_with_upstream and self._is_over()

    def drain(self) -> None:
        with self.driver.lock:
            needless = self._needless()
        if needless:
            self.driver.stop("end")
        super().drain()

    def take(self) -> tuple[Data, bytes] | None:
        """Return the next item, and the session that it is of, without waiting.

        None while there is none, or too many batches wait to be sent.
        """
        role, driver = self.role, self.driver
        with driver.lock:
            if driver.closing or not role.inbox or self._producer.unsent >= AHEAD or self._needless():
                return None
            return role.inbox.popleft(), role.consumer.session

    def deliver(self, key: Key, session: bytes, outcome: Batch | Failure | None, remarks: Remarks) -> None:
        """Pass the outcome of an item of `take` to the producer, without waiting; nothing if the session is over."""
        if isinstance(outcome, Failure):
            self._log(key, outcome)
        item = self._checked(outcome, remarks)
        self._session = session
        with self.driver.lock:
            self._made(key, item)
        self.driver.push()

    @property
    def ended(self) -> bool:
        """Whether the machines upstream have ended, and nothing that is here is needed."""
        with self.driver.lock:
            return self._is_over()

    def _checked(self, outcome: Batch | Failure | None, remarks: Remarks) -> Item:
        try:
            return super()._checked(outcome, remarks)
        except (ContractError, MessageTooLargeError) as error:
            # Another worker would get the same error, so the training machine gets it.
            return super()._checked(Failure(error, self.name), remarks)

    def _made(self, key: Key, item: Item) -> None:
        # The next training machine numbers its items from 0 too: what another one asked for is not its.
        if self._session != self.role.consumer.session:
            return
        if item.kind is Kind.ERROR:
            self.role.failed(key, item, time.monotonic())
        else:
            self.role.made(key, item, time.monotonic())


class TrainerTransport(_Machine):
    """The receiving side of a training machine.

    Parameters
    ----------
    name : str
        Name of the source.
    upstream : Endpoint
    ordered : bool
    timeout : float or None
        Most seconds without progress.
    streams : int or None
        Expected number of data machines, where it is known.
    stats : callable
    version : str

    Attributes
    ----------
    begun : bool
        Whether any batch was returned to the user.
    """

    def __init__(
        self,
        name: str,
        upstream: Endpoint,
        ordered: bool,
        timeout: float | None,
        streams: int | None,
        stats: Stats,
        version: str,
    ) -> None:
        super().__init__(name)
        self._ordered = ordered
        self._streams = streams
        self._timeout = timeout
        self._keys: dict[int, tuple[Delivery, Key]] = {}
        self.begun = False
        self._progress = time.monotonic()
        self.role = Trainer(
            os.urandom,
            Cursor(new_generation(), owner=f"{self._machine}#{os.urandom(4).hex()}"),
            ordered,
            upstream.window,
            WINDOW_BYTES,
            version,
            TIMING,
            streams,
        )
        self.driver = SocketThread(
            self.name,
            self.role,
            consumer=self.role.consumer,
            upstream=upstream,
            hello=self._hello("trainer"),
        )
        self.role.describe = self.driver.acquaintances.introduce
        self._meter = Meter("trainer", stats, self.driver, self._machine)
        self.driver.status = self.figures
        # The epoch that the loaded state is in, and the batches of it that the state counts.
        self._resumed = 0, 0
        # Whether the log named the occupant.
        self._named_occupant = False

    def tasks(self) -> Iterator[Data]:
        """Yield the items that are released for delivery."""
        role, driver = self.role, self.driver
        ticket = 0
        received = -1
        while True:
            with driver.lock:
                while not role.delivery.released:
                    if role.failure is not None:
                        raise role.failure
                    if role.occupant and not self._named_occupant:
                        self._named_occupant = True
                        logger.warning(
                            "%s: %s; waits %g s for its end", self.name, role.occupant, role.patience
                        )
                    if self.over or role.delivery.finished:
                        if role.delivery.finished:
                            driver.stop("end")
                        return
                    now = time.monotonic()
                    if role.received != received or role.delivery.outstanding:
                        received, self._progress = role.received, now
                    elif self._timeout is not None and now - self._progress > self._timeout:
                        raise PeerLostError(
                            f"ZMQSource: nothing arrived for {self._timeout:g} s (timeout), at "
                            f"{driver.upstream_addresses}; missing: {role.delivery.missing()}{driver.failure}"
                        )
                    driver.changed.wait(POLL)
                data = role.delivery.released.popleft()
            self._keys[ticket] = role.delivery, data.key
            ticket += 1
            yield data

    def delivered(self, ticket: int) -> bool:
        """Count a batch as delivered; False for one that was counted before, or is from before a loaded state."""
        driver = self.driver
        with driver.lock:
            delivery, key = self._keys.pop(ticket)
            # Also where the same batch comes again: its position may differ.
            if delivery is not self.role.delivery:
                return False
            counted = self.role.deliver(key, time.monotonic())
            self.begun = self.begun or counted
            if self.role.offers:
                driver.changed.notify()
            speaks = bool(self.role.consumer.outbox) or driver.oversleeps
        if speaks:
            driver.wake()
        return counted

    def state_dict(self) -> dict[str, Any]:
        with self.driver.lock:
            return state_of(self.role.delivery.cursor)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        cursor = cursor_of(state)
        if self._streams is not None and cursor.streams and len(cursor.streams) != self._streams:
            raise StateMismatchError(
                f"{self.name}: the state has {len(cursor.streams)} data machines; expected {self._streams} (streams)"
            )
        if self.begun:
            raise PipelineStateError(
                f"{self.name}: batches were returned already; load a state before the first dequeue()"
            )
        if self.driver.closing:
            raise PipelineStateError(
                f"{self.name}: the data has ended, or the pipeline was stopped; load a state into a new pipeline"
            )
        with self.driver.lock:
            generation = max(cursor.generation, self.role.delivery.generation, new_generation()) + 1
            owner = self.role.delivery.owner
            self.role.begin(cursor._replace(generation=generation, owner=owner), self._ordered)
            self._resumed = cursor.epoch, sum(base + len(beyond) for base, beyond in cursor.streams)
            self._progress = time.monotonic()
            self.driver.changed.notify()
        self.driver.wake()

    def length(self, rest_of: int | None) -> int | None:
        until = time.monotonic() + LOOKING
        while not self.driver.closing:
            reports = [report for _, report in self.reports()]
            lengths: dict[int, int] = {
                report["stream"]: report["length"]
                for report in map(known, reports)
                if {"stream", "length", "world"} <= report.keys() and report.get("role") == "data"
            }
            world: int = max((report.get("world", 0) for report in map(known, reports)), default=0)
            if lengths and not all(lengths.values()):
                return None
            if world and len(lengths) == world:
                epoch, counted = self._resumed
                # Before its first batch, whoever iterates does not know the epoch.
                is_rest = rest_of is not None and (rest_of == epoch or not self.begun)
                return max(0, sum(lengths.values()) - (counted if is_rest else 0))
            if time.monotonic() > until:
                return None
            time.sleep(LOOK)
        return None

    def bad_samples(self) -> list[tuple[str, str]]:
        with self.driver.lock:
            remarks = list(self.role.delivery.remarks)
        # A data machine that was started again may list some once more.
        return list(dict.fromkeys(bad_samples_in(remarks)))

    def reports(self) -> list[tuple[float, dict[str, Any]]]:
        with self.driver.lock:
            return self.role.consumer.reports(time.monotonic())
