"""One worker for many ranks: reads, decodes and transforms for several training machines, in turns."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any

from highway._core.installation import version
from highway.arguments import flag, number, whole
from highway.arguments.limits import MOST_WINDOW
from highway.batch import Batch
from highway.engine import Failure, Module, Pipeline, Source, Stage
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, PeerLostError, PipelineStateError, UndeliveredError
from highway.network.batch_codec import to_batch
from highway.network.definitions import Definition, definition_of
from highway.network.exactly_once import POLL, WorkerTransport
from highway.network.protocol.messages import Data
from highway.network.remote import worker_part
from highway.network.source import endpoint_of
from highway.network.tasks import Load
from highway.network.transport import Transport, TransportSink
from highway.network.zmq.socket_thread import Signal
from highway.sampling.identity import numbers_of

__all__ = ["PoolSink", "PoolSource", "WorkerPool", "pool_modules", "worker_pool"]

# Seconds between two looks for ranks that have ended, while others have work.
REVIEW = POLL

# Figures of a report that are added up over the ranks, beside those that only grow.
LEVELS = ("rate", "wire", "queue", "suspects")

Secret = bytes | str | os.PathLike[str] | None
Remarks = list[list[Any]]

logger = logging.getLogger("highway.network")


class WorkerPool:
    """A running worker that serves many ranks; `worker_pool` makes it.

    Use it in a ``with`` block, or call `stop`.

    Attributes
    ----------
    pipeline : Pipeline
        What runs, for `Pipeline.stats` and `highway.metrics.serve`.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        sink = pipeline.modules[-1]
        assert isinstance(sink, PoolSink)
        self._sink = sink

    @property
    def ranks(self) -> tuple[tuple[str, str], ...]:
        """Addresses (tasks, batches) of the ranks that are served: those that joined, and have not ended or left."""
        return self._sink.transport.ranks

    def join(self, tasks: str, batches: str, *, secret: Secret = None, insecure: bool = False) -> None:
        """Serve one more rank from now on; it may start later.

        Parameters
        ----------
        tasks, batches : str
            See `Remote.addresses`.
        secret, insecure
            See `ZMQSink`; by default those of the pool.

        Raises
        ------
        ArgumentError
            An address is none, or this rank is served already.
        SecurityError
            Other machines can reach an address, and there is no secret.
        PipelineStateError
            The pool has ended.
        """
        self._sink.join(tasks, batches, secret, insecure)

    def leave(self, tasks: str, batches: str) -> None:
        """Take no more tasks of a rank; disconnect once it has the batches in progress. Does not wait.

        A rank that does not take them for `drain_timeout` seconds is disconnected without: another worker makes them.

        Parameters
        ----------
        tasks, batches : str
            As in `join`.

        Raises
        ------
        ArgumentError
            This rank is not served.
        """
        self._sink.transport.leave(tasks, batches)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all ranks have ended; see `Pipeline.wait`.

        Raises
        ------
        PeerLostError
            A rank was gone for `timeout` seconds of `worker_pool`; the other ranks have ended.
        """
        self.pipeline.wait(timeout)

    def drain(self, timeout: float | None = None) -> None:
        """Take no more tasks, wait until the ranks have the batches in progress, and stop; see `Pipeline.drain`."""
        self.pipeline.drain(timeout)

    def stop(self) -> None:
        """Stop at once: other workers make what is in progress; see `Pipeline.stop`."""
        self.pipeline.stop()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<WorkerPool of {len(self.ranks)} ranks, {self.pipeline!r}>"


def worker_pool(
    modules: Sequence[Module],
    ranks: Sequence[tuple[str, str]] = (),
    *,
    secret: Secret = None,
    insecure: bool = False,
    window: int = 8,
    timeout: float | None = None,
    drain_timeout: float = 30,
    lasting: bool = False,
) -> WorkerPool:
    """Return a running worker that serves many ranks, each a pipeline with ``on=Remote(...)``.

    It has one set of threads for all ranks, and takes their tasks in turns. A rank that takes no batches holds up no
    other one. A rank that was killed may come back at its addresses.

    Parameters
    ----------
    modules : sequence of Module
        Those of the pipelines of the training, the same for all ranks but for the shard: the reader, and stages. What
        runs on the training machine is dropped.
    ranks : sequence of (str, str)
        Addresses (tasks, batches) of the ranks, see `Remote.addresses`; more may `join`.
    secret, insecure, window
        See `ZMQSink`.
    timeout : float or None
        Seconds after which a rank that is gone without an end counts as lost; None waits forever for its return.
    drain_timeout : float
        Seconds to wait for a rank that takes no more batches, at the end.
    lasting : bool
        True to wait for new ranks when all have ended.

    Returns
    -------
    WorkerPool
        It ends when all ranks have ended.

    Raises
    ------
    ArgumentError
        An argument is out of range, or there are no ranks, and `lasting` is False.
    SecurityError
        Other machines can reach an address, and there is no secret.
    """
    return WorkerPool(
        Pipeline(
            pool_modules(
                modules,
                ranks,
                secret=secret,
                insecure=insecure,
                window=window,
                timeout=timeout,
                drain_timeout=drain_timeout,
                lasting=lasting,
            ),
            # So that a batch that takes long holds up no other.
            ordered=False,
        )
    )


def pool_modules(
    modules: Sequence[Module],
    ranks: Sequence[tuple[str, str]],
    *,
    workers: int | None = None,
    **options: Any,
) -> list[Module]:
    """Return the modules of `worker_pool`; `workers` is that of `Load`."""
    reader, *stages = worker_part("worker_pool", modules)
    load = Load(reader, workers=workers)
    load.for_rank = True
    return [PoolSource(), load, *stages, PoolSink(ranks, **options)]


class PoolSource(Source):
    """Receives the tasks that a `PoolSink` takes from its ranks."""

    hands_over = True
    # As that of a ZMQSource: a worker is of the same definition, whether it serves one rank or many.
    follows_delivery = True
    starts_at_once = True

    def __init__(self) -> None:
        super().__init__(workers=1)

    def __repr__(self) -> str:
        return "PoolSource()"

    def tasks(self) -> Iterator[Any]:
        # The sink chooses them.
        return iter(())

    def load(self, task: Any) -> Batch:
        batch: Batch = task.read()
        return batch


class PoolSink(TransportSink["PoolTransport"]):
    """Takes tasks of many ranks for a `PoolSource`, and sends each batch to the rank that its task came from.

    Parameters
    ----------
    ranks, secret, insecure, window, timeout, drain_timeout, lasting
        See `worker_pool`.

    Attributes
    ----------
    transport : PoolTransport
        What moves the batches of the pipeline that was made from it last.
    """

    def __init__(
        self,
        ranks: Sequence[tuple[str, str]] = (),
        *,
        secret: Secret = None,
        insecure: bool = False,
        window: int = 8,
        timeout: float | None = None,
        drain_timeout: float = 30,
        lasting: bool = False,
    ) -> None:
        super().__init__(workers=1)
        self._window = whole(self.name, "window", window, 1, MOST_WINDOW)
        self._timeout = None if timeout is None else number(self.name, "timeout", timeout, 0)
        self._drain_timeout = number(self.name, "drain_timeout", drain_timeout, 0)
        self._lasting = flag(self.name, "lasting", lasting)
        self._secret, self._insecure = secret, insecure
        self._ranks = tuple(_pair(self.name, rank) for rank in ranks)
        if not self._ranks and not self._lasting:
            raise ArgumentError(
                f"{self.name}: ranks is {ranks!r}; expected one pair (tasks, batches) of addresses or more, or "
                "lasting=True to wait for ranks that join"
            )
        for tasks, batches in self._ranks:
            self._ends(tasks, batches, None, False)
        self._transport = PoolTransport(self.name, 1, _no_stats, Definition("", ""), None, 0.0, False)

    def __repr__(self) -> str:
        return f"PoolSink({[*self._ranks]!r})"

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        source = modules[0]
        assert isinstance(source, Source)
        stages = [module for module in modules if isinstance(module, Stage)]
        self._transport = PoolTransport(
            self.name,
            sum(stage.workers or stage.most_workers() for stage in stages),
            stats,
            definition_of(source, stages),
            self._timeout,
            self._drain_timeout,
            self._lasting,
        )
        for stage in stages:
            if isinstance(stage, Load):
                self._transport.remarks = stage.remarks
        for tasks, batches in self._ranks:
            self.join(tasks, batches, None, False)

    def join(self, tasks: str, batches: str, secret: Secret, insecure: bool) -> None:
        """Serve one more rank; see `WorkerPool.join`."""
        self._transport.join((tasks, batches), *self._ends(tasks, batches, secret, insecure))

    def _ends(self, tasks: str, batches: str, secret: Secret, insecure: bool) -> tuple[Any, Any]:
        security = self._secret if secret is None else secret, insecure or self._insecure
        return (
            endpoint_of(self.name, tasks, False, self._window, *security),
            endpoint_of(self.name, batches, False, self._window, *security),
        )


def _pair(owner: str, rank: object) -> tuple[str, str]:
    if isinstance(rank, (tuple, list)) and len(rank) == 2 and all(isinstance(one, str) for one in rank):
        return rank[0], rank[1]
    raise ArgumentError(
        f"{owner}: a rank is {rank!r}; expected a pair of addresses (tasks, batches), as Remote.addresses"
    )


def _no_stats() -> PipelineStats | None:
    return None


class _Rank:
    """A rank that is served: its own transport, with its own generation and cursor.

    Parameters
    ----------
    addresses : (str, str)
        As they were given.
    transport : WorkerTransport
    """

    def __init__(self, addresses: tuple[str, str], transport: WorkerTransport) -> None:
        self.addresses = addresses
        self.transport = transport
        # When a machine of the rank was last connected.
        self.heard = time.monotonic()
        # Until when it may take what is in progress, once it leaves.
        self.leaves_by: float | None = None
        # Numbers of the bad replacements that it knows.
        self.told: set[int] = set()

    def __str__(self) -> str:
        return "rank at {}, {}".format(*self.addresses)

    def take(self) -> tuple[Data, bytes] | None:
        """Return the next task and its session, without waiting; None where there is none to begin now."""
        return None if self.leaves_by is not None else self.transport.take()

    @property
    def unfinished(self) -> int:
        """Number of batches that are sent or wait for it, and are not received."""
        with self.transport.driver.lock:
            return len(self.transport.role.producer)

    def counts(self) -> Counter[str]:
        """Return the figures of its reports that only grow, as they are now."""
        driver, role = self.transport.driver, self.transport.role
        with driver.lock:
            return Counter(
                batches=driver.sent_items,
                duplicates=role.consumer.duplicates,
                resent=role.producer.resent,
                deaths=role.producer.deaths,
            )

    def is_there(self, now: float) -> bool:
        """Whether a machine of the rank is connected; notes it."""
        role, driver = self.transport.role, self.transport.driver
        with driver.lock:
            there = bool(role.producer.links) or role.consumer.has_live_peer(now)
        if there:
            self.heard = now
        return there

    def disconnect(self, reason: str) -> None:
        """Say BYE and end its thread; does not wait."""
        self.transport.driver.stop(reason)


class _Begun:
    """A task in progress."""

    __slots__ = ("_data", "key", "rank", "samples", "session")

    def __init__(self, rank: _Rank, data: Data, session: bytes) -> None:
        self.rank = rank
        self.key = data.key
        self.session = session
        self._data: Data | None = data
        # Numbers of its samples, once it was read.
        self.samples: frozenset[int] = frozenset()

    def read(self) -> Batch:
        """Return the task as a batch, once."""
        data, self._data = self._data, None
        assert data is not None
        batch = to_batch(data.item)
        self.samples = frozenset(numbers_of(batch.indices).tolist())
        return batch


class PoolTransport(Transport):
    """Moves tasks and batches between one pipeline and many ranks; see `Transport`.

    Parameters
    ----------
    name : str
        Name of the sink.
    threads : int
        Threads of the stages.
    stats : callable
    definition : Definition
        Of the stages.
    timeout : float or None
        Seconds without any machine of a rank after which it counts as lost.
    drain_timeout : float
    lasting : bool
        Whether it waits for new ranks when all have ended.

    Attributes
    ----------
    remarks : callable
        Returns the bad samples since its last call: number, class of the error, text.
    """

    def __init__(
        self,
        name: str,
        threads: int,
        stats: Callable[[], PipelineStats | None],
        definition: Definition,
        timeout: float | None,
        drain_timeout: float,
        lasting: bool,
    ) -> None:
        super().__init__(name)
        self._threads = threads
        self._stats = stats
        self._definition = definition
        self._timeout = timeout
        self._drain_timeout = drain_timeout
        self._lasting = lasting
        self.remarks: Callable[[], Remarks] = list
        # Replaced as a whole, with the lock held; read without it.
        self._served: tuple[_Rank, ...] = ()
        self._former: tuple[_Rank, ...] = ()
        self._lock = threading.Lock()
        # One signal for the socket threads of all ranks; its lock is held by the only thread that waits for it.
        self._bell_lock = threading.RLock()
        self._bell = Signal(self._bell_lock)
        self._begun: dict[int, _Begun] = {}
        # Bad samples by their numbers, and those that were in no task when they were found.
        self._bad: dict[int, list[Any]] = {}
        self._bad_replacements: set[int] = set()
        # What was counted for ranks that have left.
        self._former_counts: Counter[str] = Counter()
        self._lost: list[BaseException] = []
        self._turn = 0
        self._reviewed = 0.0
        self._ending = self._closing = self._over = False

    # Ranks

    @property
    def ranks(self) -> tuple[tuple[str, str], ...]:
        """Addresses of the ranks that are served."""
        return tuple(rank.addresses for rank in self._served)

    def join(self, addresses: tuple[str, str], upstream: Any, downstream: Any) -> None:
        """Connect to a rank; raises PipelineStateError after the end."""
        with self._lock:
            if self._over or self._ending or self._closing:
                raise PipelineStateError(
                    f"{self.name}: a rank joins, and the pool has ended; expected a new pool, or lasting=True so that "
                    "it waits for new ranks"
                )
            if addresses in self.ranks:
                raise ArgumentError(
                    f"{self.name}: the rank {addresses!r} is served already; expected each rank once"
                )
            transport = WorkerTransport(
                self.name,
                upstream,
                downstream,
                self._threads,
                self._stats,
                None,
                self._drain_timeout,
                version(),
                self._definition,
            )
            transport.ends_with_upstream = True
            driver = transport.driver
            driver.changed = driver.room = self._bell
            self._served += (_Rank(addresses, transport),)
            transport.start()
        self._ring()

    def _ring(self) -> None:
        """Wake the thread that waits; after `interrupt`, end the ranks that have just joined."""
        if self._closing:
            for rank in self._served:
                rank.transport.interrupt()
        self._bell.notify()

    def leave(self, tasks: str, batches: str) -> None:
        """Take no more tasks of a rank; see `WorkerPool.leave`."""
        for rank in self._served:
            if rank.addresses == (tasks, batches):
                rank.leaves_by = time.monotonic() + self._drain_timeout
                self._bell.notify()
                return
        raise ArgumentError(
            f"{self.name}: the rank {(tasks, batches)!r} leaves, and is not served; expected one of {[*self.ranks]}"
        )

    def _remove(self, rank: _Rank, reason: str) -> None:
        rank.disconnect(reason)
        self._former_counts.update(rank.counts())
        with self._lock:
            self._served = tuple(one for one in self._served if one is not rank)
            # Those whose threads have not ended yet.
            self._former = tuple(one for one in (*self._former, rank) if not one.transport.driver.join(0.0))

    # The thread of the source

    def tasks_of(self, source: Source, length: int | None) -> Iterator[_Begun]:
        """Yield the tasks of all ranks, in turns."""
        ticket = 0
        while (begun := self._next()) is not None:
            self._begun[ticket] = begun
            ticket += 1
            yield begun

    def _next(self) -> _Begun | None:
        """Wait for the next task, and return it; None at the end."""
        with self._bell_lock:
            while not (self._ending or self._closing):
                # Before the look: what arrives after it rings.
                self._bell.awaited = True
                found = self._pick()
                now = time.monotonic()
                if found is None or now - self._reviewed >= REVIEW:
                    self._reviewed = now
                    self._review(now)
                if found is not None:
                    self._bell.awaited = False
                    return found
                if self._is_over():
                    return None
                self._bell.wait(POLL)
        return None

    def _pick(self) -> _Begun | None:
        """Return a task of the first rank that has one, from the one after the last that had one."""
        served = self._served
        for step in range(len(served)):
            place = (self._turn + step) % len(served)
            taken = served[place].take()
            if taken is not None:
                self._turn = place + 1
                return _Begun(served[place], *taken)
        return None

    def _is_over(self) -> bool:
        """Whether no rank is left, nor awaited; raises the error of one that was lost."""
        with self._lock:
            if self._served or self._lasting:
                return False
            self._over = True
        if self._lost:
            raise self._lost[0]
        return True

    def _review(self, now: float) -> None:
        """Remove the ranks that have ended, left or are lost."""
        for rank in self._served:
            error = rank.transport.driver.error
            if error is None and not rank.is_there(now):
                error = self._absence(rank, now)
            if error is not None:
                # The other ranks are served on; the error is raised once they have ended.
                logger.warning("%s: the %s is lost: %s", self.name, rank, error)
                self._lost.append(error)
                self._remove(rank, "stopped")
            elif rank.transport.ended:
                self._remove(rank, "end")
            elif rank.leaves_by is not None and self._may_go(rank, now):
                self._remove(rank, "stopped")

    def _absence(self, rank: _Rank, now: float) -> PeerLostError | None:
        if self._timeout is None or now - rank.heard <= self._timeout:
            return None
        return PeerLostError(
            f"{self.name}: the {rank} was not connected for {self._timeout:g} s (timeout), and has not said that it "
            f"ends{rank.transport.driver.failure}"
        )

    def _may_go(self, rank: _Rank, now: float) -> bool:
        """Whether a rank that leaves has all that was begun for it, or had the time to take it."""
        assert rank.leaves_by is not None
        begun = any(one.rank is rank for one in [*self._begun.values()])
        return now >= rank.leaves_by or not (begun or rank.unfinished)

    # The thread of the sink

    def identity(self, ticket: int) -> tuple[int, int]:
        key = self._begun[ticket].key
        return key.epoch, key.seq

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        """Send the outcome of a task to its rank. Never waits: `take` begins nothing for a rank that is slow."""
        begun = self._begun.pop(ticket)
        transport = begun.rank.transport
        self._note_bad(begun)
        if transport.driver.closing:
            return
        try:
            transport.deliver(begun.key, begun.session, outcome, partial(self._remarks_for, begun))
        except Exception:
            # An error of its sockets ends this rank alone: see `_review`.
            if transport.driver.error is None:
                raise

    def _note_bad(self, begun: _Begun) -> None:
        """Note the bad samples that were found, and which of them were in no task."""
        found = self.remarks()
        if found:
            in_tasks = begun.samples.union(*(one.samples for one in [*self._begun.values()]))
            self._bad.update((remark[0], remark) for remark in found)
            self._bad_replacements.update(remark[0] for remark in found if remark[0] not in in_tasks)

    def _remarks_for(self, begun: _Begun, again: bool) -> Remarks:
        """Return the bad samples that a rank hears of: those of its task, and bad ones that were drawn as replacements.

        For which task these were drawn nobody knows: each rank hears of them once, or after `again` twice.
        """
        rank = begun.rank
        replacements = self._bad_replacements - begun.samples - rank.told
        if not again:
            rank.told |= replacements
        return [self._bad[number] for number in (begun.samples & self._bad.keys()) | replacements]

    def drain(self) -> None:
        """Wait until all ranks have everything, or no machine of them was connected for `drain_timeout` seconds."""
        undelivered: UndeliveredError | None = None
        with self._bell_lock:
            while self._served and not self._closing:
                self._bell.awaited = True
                now = time.monotonic()
                for rank in self._served:
                    error = rank.transport.driver.error
                    if error is not None or rank.transport.ended or not rank.unfinished:
                        self._remove(rank, "stopped" if self._ending else "end")
                    elif not rank.is_there(now) and now - rank.heard > self._drain_timeout:
                        undelivered = undelivered or UndeliveredError(
                            f"{self.name}: {rank.unfinished} batches were not received at the end by the {rank}, "
                            f"which was not connected for {self._drain_timeout:g} s (drain_timeout)"
                            f"{rank.transport.driver.failure}"
                        )
                        self._remove(rank, "stopped")
                if self._served:
                    self._bell.wait(POLL)
        if undelivered is not None:
            raise undelivered

    # Ends

    def end_tasks(self) -> None:
        self._ending = True
        self._bell.notify()

    def interrupt(self) -> None:
        self._closing = True
        self._ring()

    def close(self) -> None:
        self.interrupt()
        for rank in (*self._former, *self._served):
            rank.transport.close()

    # Facts

    def links(self) -> tuple[int | None, int | None]:
        links = [rank.transport.links() for rank in self._served]
        return sum(up or 0 for up, _ in links), sum(down or 0 for _, down in links)

    def figures(self) -> list[dict[str, Any]]:
        served = self._served
        own = [rank.transport.figures()[0] for rank in served]
        if not own:
            return []
        # Those of ranks that have left still count: nothing was sent less.
        counts = sum((rank.counts() for rank in served), self._former_counts)
        return [own[0] | counts | {name: sum(report[name] for report in own) for name in LEVELS}]

    def unfinished(self) -> int:
        return len(self._begun) + sum(rank.unfinished for rank in self._served)
