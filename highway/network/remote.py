"""Remote: reads, decodes and transforms on workers that connect to this process, which keeps the order."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from highway._core.installation import version
from highway.arguments import number, whole
from highway.arguments.limits import MOST_WINDOW
from highway.batch import Batch
from highway.engine import Module, Pipeline, Source, Stage
from highway.engine.spec import Spec
from highway.engine.stats import MachineStats, PipelineStats
from highway.errors import PeerLostError, PipelineStateError
from highway.network.batch_codec import remote_error, to_batch, without_remarks
from highway.network.definitions import definition_of
from highway.network.exactly_once import DataTransport, TrainerTransport
from highway.network.protocol.messages import Data, Kind
from highway.network.reports import machines_of
from highway.network.sink import ZMQSink
from highway.network.source import ZMQSource, endpoint_of
from highway.network.streams import WHOLE
from highway.network.tasks import Load, Tasks, reader_in, task_batch
from highway.network.transport import Transport
from highway.network.zmq.ends import Endpoint
from highway.sampling.sampler import Task

__all__ = ["Remote", "RemoteReader", "worker_modules", "worker_pipeline"]

# Most tasks that are out or whose batch waits for its turn: at first, and once the size of the batches is known.
FIRST_OUT, MOST_OUT = 16, 256
# Most bytes of the batches of these tasks, by the average size; a few are always out.
MOST_OUT_BYTES = 256 << 20
LEAST_OUT = 4
# Threads that wait for the batches that are next.
THREADS = 4
# Longest wait before a thread looks at the clock, in seconds.
LOOK = 0.25
# Longest wait for the end of a thread, in seconds.
JOIN_LIMIT = 1.0


class Remote:
    """Where the modules of a pipeline run: on workers that connect to this process.

    ``Pipeline(modules, on=Remote("tcp://*:5555", "tcp://*:5556"))`` returns the same batches as ``Pipeline(modules)``,
    with the same bits and states. This process keeps the order: it sends tasks, about 500 bytes each, and receives
    batches. Workers (``highway work``, `worker_pipeline`) read, decode and transform. They hold nothing that must
    survive: if one dies, another makes its batches, and new ones may connect at any time.

    The reader and the stages after it run on workers; the first `Rebatch`, `Filter` or `Pack`, and what follows it, run
    here.

    Parameters
    ----------
    tasks, batches : str
        Addresses at which this process listens, for workers that fetch tasks, and that send batches. ``*`` as a port
        chooses one; see `addresses`.
    window : int
        Most batches in flight to one worker, 1 to 1024.
    timeout : float or None
        Seconds without any batch, while some are expected, after which the pipeline raises `PeerLostError`. None waits
        forever.
    secret, insecure
        See `ZMQSink`.

    Raises
    ------
    ArgumentError
        An argument is out of range.
    SecurityError
        Other machines can reach an address, and there is no secret.
    """

    def __init__(
        self,
        tasks: str = "tcp://127.0.0.1:*",
        batches: str = "tcp://127.0.0.1:*",
        *,
        window: int = 8,
        timeout: float | None = 60,
        secret: bytes | str | os.PathLike[str] | None = None,
        insecure: bool = False,
    ) -> None:
        self.window = whole("Remote", "window", window, 1, MOST_WINDOW)
        self.timeout = None if timeout is None else number("Remote", "timeout", timeout, 0)
        self._arguments = (tasks, batches)
        self._secret, self._insecure = secret, insecure
        self._ends = (
            endpoint_of("Remote", tasks, True, self.window, secret, insecure),
            endpoint_of("Remote", batches, True, self.window, secret, insecure),
        )
        self._reader: RemoteReader | None = None

    def __repr__(self) -> str:
        tasks, batches = self._arguments
        return f"Remote({tasks!r}, {batches!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        options = {
            "window": self.window,
            "timeout": self.timeout,
            "secret": self._secret,
            "insecure": self._insecure,
        }
        return _remade, (self._arguments, options)

    def distribute(self, modules: Sequence[Module]) -> Sequence[Module]:
        """Return the modules that this process runs; `Pipeline` calls it."""
        if self._reader is not None:
            raise PipelineStateError(
                "Remote: another pipeline uses it; expected Remote(...) of its own for each pipeline, or the other one "
                "stopped"
            )
        reader, *stages = worker_part("Remote", modules)
        self._reader = RemoteReader(reader, stages, self._ends, self.timeout)
        return [self._reader, *modules[1 + len(stages) :]]

    def start(self, pipeline: Pipeline) -> None:
        """Do nothing: workers are started by others."""

    def close(self) -> None:
        """Tell the workers that the training has ended; `Pipeline` calls it."""
        reader, self._reader = self._reader, None
        run = None if reader is None else reader.latest
        if run is not None:
            run.interrupt()
            run.finish()

    @property
    def addresses(self) -> tuple[str, str]:
        """Addresses for workers: of the tasks, and of the batches. Known while a pipeline runs with it."""
        run = None if self._reader is None else self._reader.latest
        if run is None or run.addresses is None:
            raise PipelineStateError(
                "Remote: addresses is asked for, and no pipeline runs with it; expected Pipeline(modules, on=...) "
                "before"
            )
        return run.addresses


def _remade(arguments: tuple[str, str], options: dict[str, Any]) -> Remote:
    return Remote(*arguments, **options)


def worker_pipeline(
    modules: Sequence[Module],
    tasks: str,
    batches: str,
    *,
    secret: bytes | str | os.PathLike[str] | None = None,
    insecure: bool = False,
    window: int = 8,
    timeout: float | None = None,
) -> Pipeline:
    """Return the running pipeline of a worker: it fetches tasks, and sends batches.

    Parameters
    ----------
    modules : sequence of Module
        Those of the pipeline of the training: the reader, and stages. What runs on the training machine is dropped.
    tasks, batches : str
        See `Remote.addresses`.
    secret, insecure, window
        See `ZMQSink`.
    timeout : float or None
        Seconds without a training machine after which the pipeline ends with `PeerLostError`; None waits forever.

    Returns
    -------
    Pipeline
        `Pipeline.wait` returns when the training has ended; `Pipeline.drain` finishes the batches in progress.
    """
    return Pipeline(
        worker_modules(
            modules, tasks, batches, secret=secret, insecure=insecure, window=window, timeout=timeout
        )
    )


def worker_modules(
    modules: Sequence[Module],
    tasks: str,
    batches: str,
    *,
    workers: int | None = None,
    drain_timeout: float = 30,
    timeout: float | None = None,
    **network: Any,
) -> list[Module]:
    """Return the modules of `worker_pipeline`; `workers` and `drain_timeout` are those of `Load` and `ZMQSink`."""
    reader, *stages = worker_part("worker_pipeline", modules)
    load = Load(reader, workers=workers)
    load.for_rank = True
    return [
        ZMQSource(tasks, timeout=timeout, **network),
        load,
        *stages,
        ZMQSink(batches, bind=False, drain_timeout=drain_timeout, **network),
    ]


def worker_part(owner: str, modules: Sequence[Module]) -> list[Any]:
    """Return the modules that run on a worker: the reader, and the stages up to one that regroups."""
    part: list[Any] = [reader_in(owner, modules[0])]
    for module in modules[1:]:
        if not isinstance(module, Stage) or module.regroups:
            break
        part.append(module)
    return part


class _Waiting:
    """A task that is out, and what comes back."""

    __slots__ = ("arrived", "batch", "data", "dropped")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.data: Data | None = None
        self.dropped = False
        self.arrived = threading.Lock()
        self.arrived.acquire()

    def wake(self) -> None:
        """End the wait for it; again does nothing."""
        with suppress(RuntimeError):
            self.arrived.release()


class _Sent(NamedTuple):
    """A task of the reader, and what comes back for it; None if it has no samples."""

    task: Task
    waiting: _Waiting | None


class _Out(Source):
    """The tasks that are out, as a source for a `DataTransport`: it numbers them from 0, without epochs."""

    def __init__(self, definition: str) -> None:
        super().__init__(workers=1)
        self._definition = definition
        self._changed = threading.Condition()
        self._waiting: dict[int, _Waiting] = {}
        self._next = 0
        self._ended = False
        self._nbytes = 0.0
        self.heard = time.monotonic()

    def fingerprint(self) -> str:
        return self._definition

    def add(self, batch: Batch) -> _Waiting:
        """Send a task."""
        waiting = _Waiting(batch)
        with self._changed:
            if not self._waiting:
                self.heard = time.monotonic()
            self._waiting[self._next] = waiting
            self._next += 1
            self._changed.notify_all()
        if self._ended:
            # Perhaps after `end` has woken the others.
            waiting.wake()
        return waiting

    def drop(self) -> None:
        """Send no more of the tasks that are out, and wait for none of them."""
        with self._changed:
            for waiting in self._waiting.values():
                waiting.dropped = True
                waiting.wake()
            self._waiting.clear()
            self._changed.notify_all()

    @property
    def most(self) -> int:
        """Most tasks that should be out."""
        if not self._nbytes:
            return FIRST_OUT
        return min(MOST_OUT, max(LEAST_OUT, int(MOST_OUT_BYTES / self._nbytes)))

    def arrive(self, data: Data) -> None:
        """Take what came back for a task."""
        nbytes = data.item.nbytes
        with self._changed:
            self.heard = time.monotonic()
            waiting = self._waiting.pop(data.key.seq, None)
            if nbytes:
                self._nbytes += (nbytes - self._nbytes) * (0.1 if self._nbytes else 1.0)
            self._changed.notify_all()
        if waiting is not None:
            waiting.data = data
            waiting.wake()

    def end(self) -> None:
        """Wake everyone. Waits for no lock: the garbage collector may call it anywhere."""
        self._ended = True
        if self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()
        for waiting in [*self._waiting.values()]:
            waiting.wake()

    def tasks_from(self, start: int) -> Iterator[Batch | None]:
        at = start
        while True:
            with self._changed:
                while at >= self._next and not self._ended:
                    self._changed.wait(LOOK)
                if self._ended:
                    return
                # One that was dropped is skipped, also where workers that had it are gone.
                waiting = self._waiting.get(at)
                batch = None if waiting is None else waiting.batch
            yield batch
            at += 1


class RemoteReader(Tasks):
    """A reader whose batches workers make: it has the order, the state and the bad samples of the reader.

    Parameters
    ----------
    reader : Source
    stages : sequence of Stage
        What workers do after it.
    ends : (Endpoint, Endpoint)
        For tasks and for batches.
    timeout : float or None
    """

    hands_over = True
    starts_at_once = True

    def __init__(
        self,
        reader: Any,
        stages: Sequence[Stage],
        ends: tuple[Endpoint, Endpoint],
        timeout: float | None,
    ) -> None:
        super().__init__(reader)
        self.name = reader.name
        self.workers = THREADS
        self.queue_size = reader.queue_size
        self._stages = tuple(stages)
        # Of a mixture, its sources have the policy.
        policies = [getattr(one, "on_error", None) for one in (reader, *getattr(reader, "sources", ()))]
        self._replaces = "replace" in policies
        self._ends = ends
        self._timeout = timeout
        self.latest: RemoteReader | None = None
        self.addresses: tuple[str, str] | None = None
        self._out: _Out | None = None
        self._sending: DataTransport | None = None
        self._receiving: TrainerTransport | None = None
        self._failure: deque[BaseException] = deque(maxlen=1)
        self._spec: Spec | None = None
        self._threads: list[threading.Thread] = []

    def for_run(self) -> Module:
        run = self.copied()
        run.reader = self.reader.for_run()
        self.latest = run
        run.latest, run._failure, run._threads = None, deque(maxlen=1), []
        return run

    def follow(self, before: Module | None) -> None:
        # Copies tell what the batches will be; nobody runs them.
        last: Module = self.reader.copied()
        last.follow(None)
        spec = last.out_spec(None)
        for stage in self._stages:
            one = stage.for_run()
            one.follow(last)
            last, spec = one, one.out_spec(spec)
        for name in ("image_shape", "image_shapes", "image_dtype", "view_fields"):
            setattr(self, name, getattr(last, name))
        self._spec = spec

    def out_spec(self, before: Spec | None) -> Spec | None:
        return self._spec

    @property
    def transport(self) -> Transport:
        """What receives the batches of the pipeline that was made from it last."""
        return (self.latest or self)._receiving or Transport(self.name)

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(key, reason) of every bad sample found so far."""
        found: list[tuple[str, str]] = getattr(self.reader, "errors", [])
        return found

    @property
    def replaced(self) -> int:  # type: ignore[override]
        count: int = self.reader.replaced
        return count

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        super().enter(modules, stats)
        definition = definition_of(self.reader, self._stages)
        self._definition = definition
        out = self._out = _Out(f"{self.reader.fingerprint()}/{definition.digest}")
        tasks, batches = self._ends
        self._sending = DataTransport(self.name, out, definition, WHOLE, None, tasks, stats, 0.0)
        # The clock runs only while a batch is expected: see `load`.
        self._receiving = TrainerTransport(self.name, batches, False, None, 1, stats, version())
        # `load` waits for what came of each task, also where all samples were skipped.
        self._receiving.role.delivery.releases_skipped = True
        # A worker that was there for another training is not served before it knows this one: it would have tasks begun
        # by the cursor of the other.
        self._sending.role.producer.cursor = self._receiving.role.delivery.cursor
        self._sending.start()
        self._receiving.start()
        upstream = self._receiving.bound_address(upstream=True)
        downstream = self._sending.bound_address(upstream=False)
        assert upstream is not None and downstream is not None
        self.addresses = downstream, upstream
        for work, name in ((_send, "tasks"), (_receive, "batches")):
            arguments = (self._sending, out) if work is _send else (self._receiving, out)
            thread = threading.Thread(
                target=_guarded,
                args=(work, arguments, self._failure, out),
                name=f"highway {name}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def tasks(self) -> Iterator[_Sent]:  # type: ignore[override]
        return self._ahead(super().tasks())

    def tasks_from(self, start: int) -> Iterator[_Sent]:  # type: ignore[override]
        return self._ahead(super().tasks_from(start))

    def _ahead(self, tasks: Iterator[Task]) -> Iterator[_Sent]:
        """Yield the tasks, after those that follow them were sent."""
        out = self._out
        assert out is not None
        sent: deque[_Sent] = deque()
        for task in tasks:
            # One whose samples are all skipped has nothing to load.
            waiting = out.add(task_batch(task, self._definition)) if len(task.indices) else None
            sent.append(_Sent(task, waiting))
            while len(sent) >= out.most:
                yield sent.popleft()
        yield from sent

    def samples_in(self, task: Any) -> int:
        return len(task.task.indices)

    def load(self, task: Any) -> Batch | None:
        """Wait for the batch of a task, which a worker makes."""
        waiting: _Waiting | None = task.waiting
        if self._replaces and self.reader.skipped_samples(task.task) is not None:
            raise PipelineStateError(
                f"{self.name}: samples are skipped (Pipeline.skip) with on_error='replace' and on=, and workers do not "
                "know what to leave out when they replace bad samples; expected on_error='skip' or 'raise'"
            )
        if waiting is None:
            self.reader.count_loaded({}, task.task.indices)
            return None
        began = time.monotonic()
        while not waiting.arrived.acquire(timeout=LOOK):
            self._check_time(began)
        if waiting.data is not None and not waiting.dropped:
            return self._made(task.task, waiting.data)
        if self._failure:
            raise self._failure[0]
        # Dropped, or the pipeline was stopped.
        return None

    def _check_time(self, began: float) -> None:
        assert self._out is not None
        if self._timeout is None or time.monotonic() - max(began, self._out.heard) <= self._timeout:
            return
        receiving, sending = self._receiving, self._sending
        assert receiving is not None and sending is not None and self.addresses is not None
        raise PeerLostError(
            f"{self.name}: no batch arrived for {self._timeout:g} s (timeout) from any worker, which fetch tasks at "
            f"{self.addresses[0]} and send batches to {self.addresses[1]}; start workers: highway work --from "
            f"{self.addresses[0]} --to {self.addresses[1]} --pipeline FILE.py:NAME"
            f"{sending.driver.failure or receiving.driver.failure}"
        )

    def _made(self, task: Any, data: Data) -> Batch | None:
        item, bad = without_remarks(data.item)
        if item.kind is Kind.ERROR:
            if bad:
                # The policy for bad samples comes first.
                self.reader.count_loaded(bad, task.indices[:0])
            raise remote_error(item)
        batch = to_batch(item) if item.kind is Kind.BATCH else None
        indices = task.indices[:0] if batch is None else batch.indices
        self.reader.count_loaded(bad, indices)
        if batch is not None and len(indices) == len(task.indices):
            replaced = int(np.count_nonzero(indices != task.indices))
            if replaced:
                self.reader.count_replaced(replaced)
        return batch

    def finish(self) -> None:
        """Close the sockets and wait for the threads, after `interrupt`."""
        for transport in (self._sending, self._receiving):
            if transport is not None:
                transport.close()
        for thread in self._threads:
            thread.join(JOIN_LIMIT)

    def machines(self) -> tuple[MachineStats, ...]:
        return () if self._receiving is None else machines_of(self._receiving.reports())

    def abandon(self) -> None:
        if self._out is not None:
            self._out.drop()

    def interrupt(self) -> None:
        if self._out is not None:
            self._out.end()
        for transport in (self._sending, self._receiving):
            if transport is not None:
                transport.driver.stop("end")


def _guarded(
    work: Callable[[Any, _Out], None], arguments: tuple[Any, _Out], failure: deque[BaseException], out: _Out
) -> None:
    """Run a thread of its own; what it raises, those who wait for batches raise."""
    try:
        work(*arguments)
    except BaseException as error:
        # Every error of the thread goes to the pipeline.
        failure.append(error)
        out.end()


def _send(transport: DataTransport, out: _Out) -> None:
    """Send the tasks that are out to workers."""
    for ticket, batch in enumerate(transport.tasks_of(out, None)):
        transport.carry(ticket, batch)


def _receive(transport: TrainerTransport, out: _Out) -> None:
    """Take the batches that arrive."""
    for ticket, data in enumerate(transport.tasks()):
        transport.delivered(ticket)
        out.arrive(data)
