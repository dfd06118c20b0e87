"""Pipeline: modules in a row, their worker threads, and how they start, fail and stop.

Every module works in threads of its own, and a `BatchQueue` stands behind each. The source numbers its
tasks with tickets; a worker takes a batch from the queue in front, reserves the batch's ticket in the queue
behind, works, and puts the result there. So what is in the making is bounded, order is kept whichever
worker is faster, and nothing locks up.

The threads know the queues, never the Pipeline: a Pipeline that is dropped is collected, and its finalizer
ends them.

Where the user gives no number of workers, one is found while the pipeline runs: a worker that has put a
batch down looks, now and then, at the figures of all modules (`highway.tuning` decides). A worker that is not
needed is parked before it takes the next batch or task, with nothing in its hands; one that was never needed
has no thread.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence, Sized
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, cast

from highway._core.pool import BufferPool
from highway._core.queue import BatchQueue
from highway.arguments import whole
from highway.batch import Batch
from highway.errors import (
    ArgumentError,
    ContractError,
    EndOfData,
    PipelineStateError,
    QueueClosed,
    UnknownLengthError,
    WaitTimeout,
)
from highway.stats import ModuleStats, PipelineStats
from highway.tuning import ModuleReading, Reading, Tuner

__all__ = ["Module", "Pipeline", "Sink", "Source", "Stage", "usable_cores"]

# Bytes that wait in the queues of a pipeline, or are in the making, unless its user says otherwise.
DEFAULT_MAX_BYTES = 128 << 20
# Longest that stop() waits for the threads to end, in seconds; with what comes around it, stop() takes less
# than 2 s.
STOP_LIMIT = 1.5

# More is a mistake: threads of a module, batches in a queue, bytes in all queues.
MOST_WORKERS = 1024
MOST_QUEUE_SIZE = 65536
MOST_BYTES = 2**62

# Seconds between two looks at the figures, where numbers of workers are to be found.
LOOK_INTERVAL = 0.25
# Where Linux tells how long threads could have run but waited for a processor.
TELLS_DELAY = os.path.exists("/proc/self/schedstat")

_END = object()
_clock = time.perf_counter


def usable_cores() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Module:
    """What a pipeline is made of; a Source, a Stage or a Sink.

    A module is used by all of its workers at once. What belongs to one worker (a connection, a decoder) is
    made in `open`, kept in a `threading.local`, and given back in `close`. A module that is written in
    Python holds Python's lock while it works; only what releases it (NumPy, compiled code, waiting) runs
    beside the other threads.

    Parameters
    ----------
    workers : int, optional
        Number of threads, 1 to 1024. By default it is found while the pipeline runs: it begins with
        `default_workers()` and goes up to `most_workers()`. A module that cannot work in several threads at
        once needs ``workers=1``.
    queue_size : int
        Most batches that may be outstanding behind the module, finished or in the making, 1 to 65536. Two
        for each worker are always allowed.

    Raises
    ------
    ArgumentError
        A number is out of its range.

    Attributes
    ----------
    name : str
        What errors and statistics call the module: the name of its class.
    hands_over : bool
        True where the arrays that the module returns are new and not kept by it, so that the next may write
        into them.
    input_handed_over : bool
        Set by the pipeline: whether the module in front hands its arrays over.
    left_out : bool
        Known after `follow`: whether the pipeline does without the module, since the one in front does all of it.
    """

    name: str = "Module"
    hands_over: ClassVar[bool] = False
    input_handed_over: bool = False
    left_out: bool = False
    workers: int | None = None
    queue_size: int = 4

    _taken: bool = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def __init__(self, *, workers: int | None = None, queue_size: int = 4) -> None:
        self.workers = None if workers is None else whole(self.name, "workers", workers, 1, MOST_WORKERS)
        self.queue_size = whole(self.name, "queue_size", queue_size, 1, MOST_QUEUE_SIZE)

    def default_workers(self) -> int:
        """Number of threads to begin with, where the user gives none."""
        return 1

    def most_workers(self) -> int:
        """Most threads that the module is given, where the user gives no number: one a usable core."""
        return usable_cores()

    def follow(self, before: Module | None) -> None:
        """Called once, before any worker starts, with the module in front; None for a source.

        Modules are called in order, so that the one in front has been called already.
        """
        self.input_handed_over = before is not None and before.hands_over

    def open(self) -> None:
        """Called in every worker thread before its first batch."""

    def close(self) -> None:
        """Called in every worker thread after its last batch, if `open` succeeded there."""

    def interrupt(self) -> None:
        """Called once when the pipeline stops or fails, while workers may still work, from another thread.

        A module that can wait for long (for a peer, a disk) overrides it to wake its workers; what they
        raise after this is dropped. It sets an event, closes a socket, and returns: it must not wait, not
        for a lock that a worker holds while it works either, since `stop` goes on only when it has returned.
        """


class Source(Module):
    """Where batches begin: `tasks` says what there is to load, `load` does it in any worker.

    A source that knows how many batches an epoch has defines ``__len__``. Its tasks then come epoch by
    epoch, that many each. A source that leaves samples out has an attribute or a property `errors`: those
    so far, as (key, reason).

    A source whose batches differ in size, also if only the last one does, gives its batches their
    `indices`: what the `Batch` makes up assumes equal sizes, and what is drawn at random depends on them.
    """

    def default_workers(self) -> int:
        return usable_cores()

    def tasks(self) -> Iterator[Any]:
        """Iterator over the tasks, in the order of their batches; advanced by one worker at a time."""
        raise NotImplementedError(f"{self.name} must define tasks()")

    def load(self, task: Any) -> Batch | None:
        """Make the batch of a task; None leaves it out. Runs in several workers at once."""
        raise NotImplementedError(f"{self.name} must define load(task)")


class Stage(Module):
    """What happens to batches on their way."""

    def process(self, batch: Batch) -> Batch | None:
        """Make one batch of another; None leaves it out. Runs in several workers at once.

        A result without a number of its own (a new Batch) takes the identity of the batch it was made of.
        """
        raise NotImplementedError(f"{self.name} must define process(batch)")


class Sink(Module):
    """Where batches end, if not in `Pipeline.dequeue`.

    Has one worker unless the user gives a number, since several would take the batches out of their order.
    One that does not care overrides `most_workers`.
    """

    def most_workers(self) -> int:
        return 1

    def consume(self, batch: Batch) -> None:
        """Do away with a batch. Batches arrive in order, but with several workers several at once."""
        raise NotImplementedError(f"{self.name} must define consume(batch)")


class Pipeline:
    """Modules in a row, at work from the moment the pipeline is made.

    Parameters
    ----------
    modules : sequence of Module
        A Source, then Stages, and possibly a Sink at the end. A module belongs to one pipeline for its life.
    ordered : bool
        Hand batches out in the order of their tasks. If not, whatever is ready is handed out, but every
        batch of an epoch before any of the next (where the source knows its length).
    max_bytes : int, optional
        Most bytes of batches that wait in the queues or are in the making, 1 to 2**62, 128 MiB by default;
        divided evenly among the queues. One batch for every worker is always allowed, however large; but a
        module whose number of workers is found gets more of them only where there is room for their batches.

    Raises
    ------
    ArgumentError
        No modules, one in a place where it cannot be, or one that is used twice; `max_bytes` is out of its
        range.

    Notes
    -----
    What a module raises, in any of its threads, ends the pipeline, and every call of `dequeue` or `wait`
    raises that very exception from then on.

    Threads do not survive a fork: in the child a pipeline of the parent can be neither used nor stopped.
    Make pipelines after forking.

    Examples
    --------
    >>> import numpy as np
    >>> class Squares(Source):
    ...     def tasks(self):
    ...         return iter(range(3))
    ...     def load(self, task):
    ...         return Batch({"numbers": np.array([task * task])})
    >>> with Pipeline([Squares()]) as pipeline:
    ...     for (numbers,) in pipeline:
    ...         print(numbers)
    [0]
    [1]
    [4]
    """

    def __init__(
        self, modules: Sequence[Module], *, ordered: bool = True, max_bytes: int | None = None
    ) -> None:
        modules = _checked(modules)
        bound = (
            DEFAULT_MAX_BYTES
            if max_bytes is None
            else whole("Pipeline", "max_bytes", max_bytes, 1, MOST_BYTES)
        )
        source = modules[0]
        assert isinstance(source, Source)
        self._source = source
        self._length = _length_of(source)
        self._ordered = bool(ordered)
        self._has_sink = isinstance(modules[-1], Sink)
        for before, module in zip((None, *modules), modules, strict=False):
            module._taken = True
            module.follow(before)
        self._left_out = tuple(module.name for module in modules if module.left_out)
        modules = [module for module in modules if not module.left_out]
        self._stations = _stations(modules, self._ordered, bound, self._length or 0)
        self._last = self._stations[-1].output
        self._epochs_done = 0
        # The end of an epoch that turned out to have only holes left, and the number of batches until then.
        self._over: tuple[int, int] | None = None
        self._outcome = _Outcome()
        self._control = control = _Control(modules, [station.output for station in self._stations], bound)
        self._tuning = _Tuning(self._stations, control, self._outcome, bound)
        self._finalizer = weakref.finalize(self, control.shutdown)
        try:
            for station in self._stations:
                station.start(control, self._outcome, self._tuning)
        except BaseException:
            self.stop()
            raise

    def dequeue(self, block: bool = True, timeout: float | None = None) -> Batch:
        """Take the next batch. Any thread may call this, and several at once.

        Parameters
        ----------
        block : bool
            Wait until there is one.
        timeout : float, optional
            Longest wait in seconds.

        Returns
        -------
        Batch

        Raises
        ------
        EndOfData
            All batches were handed out.
        WaitTimeout
            None came in time.
        PipelineStateError
            The pipeline was stopped, ends in a sink (see `wait`), or belongs to the process this one was
            forked from.
        Exception
            Whatever a module raised.
        """
        self._refuse("dequeue()", sink=False)
        try:
            batch: Batch = self._last.get(block, timeout)[1]
            return batch
        except EndOfData:
            raise EndOfData("Pipeline.dequeue: all batches of the source were handed out") from None
        except WaitTimeout:
            raise WaitTimeout(
                f"Pipeline.dequeue: no batch arrived within {timeout or 0:g} s. {self.stats().verdict}"
            ) from None
        except QueueClosed:
            pass
        raise self._outcome.error("dequeue()")

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over all batches to the end of the data."""
        self._refuse("iteration", sink=False)
        return self._batches(None)

    def epoch(self) -> Iterator[Batch]:
        """Iterate over the batches that are left of the current epoch: the one that the next belongs to.

        Ends without waiting for the next epoch where the source knows its length; otherwise when the first
        batch of the next epoch is there, which stays where it is.

        Where the length is known, an epoch of which all batches were left out is empty, so that every epoch
        has its call. One that was begun, and of which nothing is left but what was left out, is over: the
        batches are those of the next.

        Raises
        ------
        PipelineStateError
            As `dequeue`; or the pipeline is unordered and its source does not know its length.
        """
        self._refuse("epoch()", sink=False)
        if self._length:
            taken = self._taken()
            epoch, begun = self._current_epoch(self._length)
            return self._batches((epoch + 1) * self._length, taken if begun else None)
        if self._ordered:
            return self._batches_of_one_epoch()
        raise PipelineStateError(
            f"Pipeline.epoch: {self._source.name} does not know how many batches an epoch has, so an "
            "unordered pipeline cannot tell where one ends; use ordered=True, or give the source a __len__"
        )

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the sink has consumed everything.

        Parameters
        ----------
        timeout : float, optional
            Longest wait in seconds.

        Raises
        ------
        WaitTimeout
            The pipeline still works.
        PipelineStateError
            The pipeline was stopped before its end, has no sink, or belongs to the process this one was
            forked from.
        Exception
            Whatever a module raised.
        """
        self._refuse("wait()", sink=True)
        try:
            self._last.get(timeout=timeout)
        except EndOfData:
            return
        except WaitTimeout:
            raise WaitTimeout(
                f"Pipeline.wait: the sink was not done within {timeout or 0:g} s. {self.stats().verdict}"
            ) from None
        except QueueClosed:
            pass
        if not self._outcome.failures and self._last.last_total is not None:
            return
        raise self._outcome.error("wait()")

    def stop(self) -> None:
        """Stop all threads and drop what waits in the queues; batches that were handed out stay as they are.

        Takes less than 2 s, whatever the threads do, as long as no module's `interrupt` waits: a thread
        that does not end by then is left behind, with a RuntimeWarning that names its module. May be called
        again, from any thread; called by a module, it does not wait.
        """
        if self._control.forked:
            return
        try:
            self._control.shutdown()
        finally:
            self._finalizer.detach()

    def stats(self) -> PipelineStats:
        """What every module did so far, and which of them limits; also after `stop`.

        Raises
        ------
        PipelineStateError
            The pipeline belongs to the process this one was forked from.
        """
        self._refuse("stats()", sink=self._has_sink)
        stations = self._stations
        seconds = self._control.seconds()
        modules = tuple(station.stats(self._control, seconds) for station in stations)
        tuning, settled = self._tuning.report()
        if self._has_sink:
            return PipelineStats(
                modules,
                seconds,
                modules[-1].batches,
                None,
                usable_cores(),
                tuning,
                settled,
                self._left_out,
            )
        measures = self._last.measures()
        return PipelineStats(
            modules,
            seconds,
            int(measures["batches"]),
            measures["waited_items"],
            usable_cores(),
            tuning,
            settled,
            self._left_out,
        )

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Samples that the source left out so far, as (key, reason)."""
        return list(getattr(self._source, "errors", ()))

    def __len__(self) -> int:
        """Number of batches in an epoch.

        Raises
        ------
        UnknownLengthError
            The source does not know.
        """
        if self._length is None:
            raise UnknownLengthError(
                f"Pipeline: {self._source.name} does not know how many batches an epoch has"
            )
        return self._length

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "failed" if self._outcome.failures else "stopped" if self._control.closing else "running"
        return f"<Pipeline {' -> '.join(station.name for station in self._stations)}, {state}>"

    def _refuse(self, what: str, *, sink: bool) -> None:
        if self._control.forked:
            raise PipelineStateError(
                f"Pipeline.{what}: this pipeline belongs to the process that this one was forked from, where "
                "its threads are; make a pipeline after forking"
            )
        if sink and not self._has_sink:
            raise PipelineStateError(
                f"Pipeline.{what}: this pipeline ends in no sink; take its batches with dequeue()"
            )
        if not sink and self._has_sink:
            raise PipelineStateError(
                f"Pipeline.{what}: this pipeline ends in {self._stations[-1].name}, which takes all batches; "
                "wait for its end with wait()"
            )

    def _current_epoch(self, length: int) -> tuple[int, bool]:
        """Epoch of the next batch, as far as is known, and whether some of its batches were taken.

        One that ends in holes is over when somebody has iterated to its end.
        """
        reached = self._last.reached
        if self._ordered or reached == 0:
            epoch = reached // length
        else:
            epoch = (reached - 1) // length
            epoch += self._last.next_ticket >= (epoch + 1) * length
        epoch = max(epoch, self._epochs_done)
        return epoch, reached > epoch * length

    def _taken(self) -> int:
        """Number of batches that were handed out."""
        return int(self._last.measures()["batches"])

    def _batches(self, before: int | None, taken: int | None = None) -> Iterator[Batch]:
        """Batches with tickets below `before`.

        With `taken`, those of the next epoch if none of this one came after so many were handed out: the
        rest of it were holes.
        """
        queue = self._last
        while True:
            try:
                batch = queue.get(True, None, before)[1]
            except EndOfData:
                if before is None or not self._length:
                    return
                self._epochs_done = max(self._epochs_done, before // self._length)
                if taken is None:
                    return
                # Another thread may have found the same, and have taken a batch of the next epoch since.
                if self._taken() == taken:
                    self._over = (before, taken)
                if self._over != (before, taken):
                    return
                before, taken = before + self._length, None
                continue
            except QueueClosed:
                break
            yield batch
            del batch
        raise self._outcome.error("iteration")

    def _batches_of_one_epoch(self) -> Iterator[Batch]:
        queue = self._last
        epoch = None
        while True:
            try:
                ticket, batch = queue.peek()
                if epoch is None:
                    epoch = batch.epoch
                elif batch.epoch != epoch:
                    return
                if not queue.take(ticket):
                    continue
            except EndOfData:
                return
            except QueueClosed:
                break
            yield batch
            del batch
        raise self._outcome.error("epoch()")


class _Outcome:
    """How the pipeline failed, if it did.

    Apart from `_Control`, which the finalizer holds: an exception holds frames, and through them the
    Pipeline.
    """

    __slots__ = ("failures",)

    def __init__(self) -> None:
        # Appending is atomic: the first one counts.
        self.failures: list[tuple[BaseException, TracebackType | None]] = []

    def fail(self, error: BaseException, note: str) -> None:
        try:
            if sys.version_info >= (3, 11):
                error.add_note(note)
            elif error.__cause__ is None and error.__context__ is None:
                error.__cause__ = RuntimeError(note)
        finally:
            self.failures.append((error, error.__traceback__))

    def error(self, what: str) -> BaseException:
        """What a caller who found the queues closed is to raise."""
        if not self.failures:
            return PipelineStateError(f"Pipeline.{what}: the pipeline was stopped; make a new one")
        error, traceback = self.failures[0]
        # Without what earlier raises added to it.
        return error.with_traceback(traceback)


class _Control:
    """What it takes to end the threads: held by them, by the Pipeline and by its finalizer.

    The finalizer may run wherever the garbage collector does, in the middle of any code of any thread:
    nothing here may take a lock that Python code holds.
    """

    def __init__(self, modules: Sequence[Module], queues: Sequence[BatchQueue], max_bytes: int) -> None:
        self.queues = list(queues)
        self.pool = BufferPool(max_free_bytes=max_bytes)
        self.threads: list[tuple[threading.Thread, str]] = []
        self.workers: list[_Worker] = []
        self.closing = False
        self.troubles: list[str] = []
        self.started = _clock()
        self.ended: float | None = None
        self._to_interrupt = list(modules)
        self._generation = _generation

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that made the pipeline."""
        return self._generation != _generation

    def seconds(self) -> float:
        """Time from the start to the end of the data, or to the stop, or to now."""
        return (_clock() if self.ended is None else self.ended) - self.started

    def close(self) -> None:
        """Wake every thread and let it end."""
        self.closing = True
        if self.ended is None:
            self.ended = _clock()
        for queue in self.queues:
            queue.close()
        for worker in self.workers:
            worker.wake()
        while True:
            try:
                module = self._to_interrupt.pop()
            except IndexError:
                return
            try:
                module.interrupt()
            except Exception as error:
                self.troubles.append(f"{module.name}.interrupt() raised {error!r}")

    def shutdown(self) -> None:
        """End all threads, as far as they end in time."""
        if self.forked:
            return
        self.close()
        # A module may stop its own pipeline, and the collector may run in a worker: its thread cannot wait
        # for itself.
        if any(thread is threading.current_thread() for thread, _ in self.threads):
            return
        deadline = time.monotonic() + STOP_LIMIT
        for thread, _ in self.threads:
            # One that could not be started has no end.
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        self.pool.close()
        hung = [(thread, name) for thread, name in self.threads if thread.is_alive()]
        self.threads.clear()
        for name in dict.fromkeys(name for _, name in hung):
            count = sum(each == name for _, each in hung)
            self.troubles.append(
                f"{name} did not end within {STOP_LIMIT} s of stop(): {count} of its threads were left "
                "behind, and end when what they are in returns. Give the module an interrupt() that wakes it"
            )
        while self.troubles:
            warnings.warn(f"Pipeline: {self.troubles.pop(0)}", RuntimeWarning, stacklevel=3)


class _Worker:
    """A worker: its figures, which nobody else writes, and where it is parked while it is not needed."""

    __slots__ = ("batches", "busy", "delayed", "gate", "nbytes", "number", "samples", "thread", "waited")

    def __init__(self, number: int) -> None:
        self.number = number
        # Number that the system gave its thread, once it runs.
        self.thread = 0
        self.delayed = 0.0
        self.batches = 0
        self.samples = 0
        self.nbytes = 0
        self.busy = 0.0
        self.waited = 0.0
        # Locked, and released by whoever wakes the worker. A condition has a lock that Python code holds for
        # a moment, and `_Control.close` must not take such a lock.
        self.gate = threading.Lock()
        self.gate.acquire()

    def add(self, batch: Batch, nbytes: int) -> None:
        self.batches += 1
        self.samples += batch.size
        self.nbytes += nbytes

    def delay(self) -> float:
        """Seconds that it could have run but waited for a processor."""
        # A thread that has ended has no such file any more.
        with suppress(OSError), open(f"/proc/self/task/{self.thread}/schedstat", "rb") as figures:
            self.delayed = int(figures.read().split()[1]) / 1e9
        return self.delayed

    def wake(self) -> None:
        """Let it look whether it is needed; also if it has not got as far as to wait."""
        with suppress(RuntimeError):
            self.gate.release()


class _Station:
    """A module in its place: with the queue in front, the queue behind, and the figures of its workers.

    The queue behind a sink stays empty: that it has ended says that the sink is done.
    """

    kind = ""
    input: BatchQueue | None = None

    def __init__(self, module: Module, name: str, output: BatchQueue, share: int) -> None:
        self.module = module
        self.name = name
        self.output = output
        # Bytes that the queue behind it may hold.
        self.share = share
        self.most = _most_workers_of(module)
        self.tuned = module.workers is None and self.most > 1
        # Workers with a lower number than this are at work, the others are parked.
        self.active = _workers_of(module)
        self.workers: list[_Worker] = []
        # Those that have not left; `over` says that no more may come.
        self.present: list[_Worker] = []
        self.over = False
        # Guards these four, and the time that the workers were at work until they last became more or fewer.
        self.crew = threading.Lock()
        self._worked = 0.0
        self._since = 0.0

    def start(self, control: _Control, outcome: _Outcome, tuning: _Tuning) -> None:
        """Start the workers that the module begins with."""
        self._since = control.started
        with self.crew:
            self._start(self.active, control, outcome, tuning)

    def employ(self, count: int, control: _Control, outcome: _Outcome, tuning: _Tuning) -> None:
        """Have so many workers at work from now on; fewer if the system gives no more threads."""
        with self.crew:
            if self.over or control.closing:
                return
            with suppress(RuntimeError):
                self._start(count, control, outcome, tuning)
            if count > len(self.workers):
                self.most = count = len(self.workers)
            now = _clock()
            self._worked += self.active * (now - self._since)
            self._since = now
            self.active = count
            with suppress(QueueClosed):
                self.output.resize(_capacity(self.module, count), count)
            for worker in self.workers[:count]:
                worker.wake()

    def _start(self, count: int, control: _Control, outcome: _Outcome, tuning: _Tuning) -> None:
        for number in range(len(self.workers), count):
            worker = _Worker(number)
            thread = threading.Thread(
                target=_work,
                args=(self, worker, control, outcome, tuning),
                name=f"highway {self.name} {number}",
                daemon=True,
            )
            self.workers.append(worker)
            self.present.append(worker)
            control.workers.append(worker)
            control.threads.append((thread, self.name))
            try:
                thread.start()
            except RuntimeError:
                # The system has no thread left. After Ctrl-C in here there may well be one.
                self.workers.remove(worker)
                self.present.remove(worker)
                raise

    def needs(self, worker: _Worker, control: _Control) -> bool:
        """Park the worker until it is needed; False where it is to end."""
        while worker.number >= self.active:
            if self.over or control.closing:
                return False
            worker.gate.acquire()
        return True

    def end(self) -> None:
        """The data has ended: let the parked workers go."""
        with self.crew:
            self.over = True
        for worker in self.workers:
            worker.wake()

    def leave(self, worker: _Worker) -> bool:
        """Take a worker off the list; True for the last one."""
        with self.crew:
            self.present.remove(worker)
            return not self.present

    def work(self, worker: _Worker, control: _Control, tuning: _Tuning) -> None:
        """Work until the data ends."""
        raise NotImplementedError

    def total(self) -> int:
        """One past the last ticket, once the data has ended."""
        raise NotImplementedError

    def check(self, batch: Batch, method: str) -> None:
        if not isinstance(batch, Batch):
            raise ContractError(
                f"{self.name}.{method} returned {type(batch).__name__}; it must return a Batch, "
                "or None to leave the batch out"
            )

    def busy(self) -> float:
        return sum(worker.busy for worker in self.workers)

    def waited_input(self) -> float:
        assert self.input is not None
        return self.input.measures()["waited_items"]

    def batch_bytes(self) -> int:
        """Size of its batches, on average; 0 before the first."""
        batches = sum(worker.batches for worker in self.workers)
        return sum(worker.nbytes for worker in self.workers) // max(1, batches)

    def most_bytes(self) -> int:
        """Most bytes that may be outstanding behind it, with the workers that it has."""
        capacity, nbytes = _capacity(self.module, self.active), self.batch_bytes()
        return max(min(self.share, capacity * nbytes), self.active * nbytes)

    def reading(self, room: int) -> ModuleReading:
        """The figures that say how many workers the module should have, with so many bytes for its batches."""
        nbytes = self.batch_bytes()
        return ModuleReading(
            workers=self.active,
            allowed=min(self.most, max(self.share, room) // nbytes) if nbytes else self.most,
            busy=self.busy(),
            waited_tasks=self.waited_input() if self.kind == "source" else 0.0,
        )

    def stats(self, control: _Control, seconds: float) -> ModuleStats:
        measures = self.output.measures()
        with self.crew:
            workers, worked, since = self.active, self._worked, self._since
        worked += workers * max(0.0, control.started + seconds - since)
        return ModuleStats(
            name=self.name,
            kind=self.kind,
            workers=workers,
            batches=sum(worker.batches for worker in self.workers),
            samples=sum(worker.samples for worker in self.workers),
            nbytes=sum(worker.nbytes for worker in self.workers),
            busy=self.busy(),
            waited_input=self.waited_input(),
            waited_room=measures["waited_room"],
            occupancy=measures["occupancy"],
            capacity=0 if self.kind == "sink" else _capacity(self.module, workers),
            seconds=seconds,
            tuned=self.tuned,
            worker_seconds=worked,
        )


class _SourceStation(_Station):
    kind = "source"

    def __init__(self, module: Source, name: str, output: BatchQueue, share: int, length: int) -> None:
        super().__init__(module, name, output, share)
        self.source = module
        self.length = length
        self.lock = threading.Lock()
        self.tasks: Iterator[Any] | None = None
        self.exhausted = False
        self.taken = 0

    def total(self) -> int:
        return self.taken

    def waited_input(self) -> float:
        return sum(worker.waited for worker in self.workers)

    def next_task(self) -> tuple[int, Any]:
        """The next ticket and its task; the task is `_END` where there is none."""
        with self.lock:
            if self.tasks is None:
                self.tasks = iter(self.source.tasks())
            task = _END if self.exhausted else next(self.tasks, _END)
            if task is _END:
                self.exhausted = True
                return self.taken, _END
            ticket = self.taken
            self.taken += 1
            return ticket, task

    def work(self, worker: _Worker, control: _Control, tuning: _Tuning) -> None:
        load, length = self.source.load, self.length
        reserve, put, skip = self.output.reserve, self.output.put, self.output.skip
        number = worker.number
        while number < self.active or self.needs(worker, control):
            began = _clock()
            ticket, task = self.next_task()
            worker.waited += _clock() - began
            if task is _END:
                return
            reserve(ticket)
            began = _clock()
            batch = load(task)
            ended = _clock()
            worker.busy += ended - began
            if batch is None:
                skip(ticket)
                continue
            self.check(batch, "load")
            if batch.seq is None:
                batch.seq = ticket
                if length:
                    batch.epoch, batch.seq = divmod(ticket, length)
            nbytes = batch.nbytes
            worker.add(batch, nbytes)
            put(ticket, batch, nbytes)
            # Waiting for the next one must not keep this one alive.
            del batch, task
            if ended >= tuning.due:
                tuning.look()


class _StageStation(_Station):
    kind = "stage"

    def __init__(self, module: Stage, name: str, source: BatchQueue, output: BatchQueue, share: int) -> None:
        super().__init__(module, name, output, share)
        self.input: BatchQueue = source
        self.stage = module

    def total(self) -> int:
        total = self.input.last_total
        assert total is not None
        return total

    def work(self, worker: _Worker, control: _Control, tuning: _Tuning) -> None:
        get, process = self.input.get, self.stage.process
        reserve, put, skip = self.output.reserve, self.output.put, self.output.skip
        number = worker.number
        while number < self.active or self.needs(worker, control):
            try:
                ticket, batch = get()
            except EndOfData:
                return
            reserve(ticket)
            if batch is None:
                skip(ticket)
                continue
            began = _clock()
            result = process(batch)
            ended = _clock()
            worker.busy += ended - began
            if result is None:
                skip(ticket)
                del batch
                continue
            if result is not batch:
                self.check(result, "process")
                if result.seq is None:
                    result.adopt(batch)
            nbytes = result.nbytes
            worker.add(result, nbytes)
            put(ticket, result, nbytes)
            del batch, result
            if ended >= tuning.due:
                tuning.look()


class _SinkStation(_Station):
    kind = "sink"

    def __init__(self, module: Sink, name: str, source: BatchQueue, output: BatchQueue, share: int) -> None:
        super().__init__(module, name, output, share)
        self.input: BatchQueue = source
        self.sink = module

    def total(self) -> int:
        return 0

    def work(self, worker: _Worker, control: _Control, tuning: _Tuning) -> None:
        get, consume = self.input.get, self.sink.consume
        number = worker.number
        while number < self.active or self.needs(worker, control):
            try:
                _, batch = get()
            except EndOfData:
                return
            nbytes = batch.nbytes
            began = _clock()
            consume(batch)
            ended = _clock()
            worker.busy += ended - began
            worker.add(batch, nbytes)
            del batch
            if ended >= tuning.due:
                tuning.look()


class _Tuning:
    """Looks at the figures of all modules now and then, and gives the modules the workers that are decided on.

    Has no thread of its own: a worker that has put its batch down looks, if it is time to.
    """

    def __init__(
        self, stations: Sequence[_Station], control: _Control, outcome: _Outcome, max_bytes: int
    ) -> None:
        self.stations = stations
        self.max_bytes = max_bytes
        self.control = control
        self.outcome = outcome
        self.tuner = Tuner(
            [station.name for station in stations],
            [station.most if station.tuned else None for station in stations],
            usable_cores(),
        )
        self.tunes = any(station.tuned for station in stations)
        # When to look again, by `_clock`.
        self.due = control.started if self.tunes else math.inf
        self._lock = threading.Lock()

    def look(self) -> None:
        """Look, unless another worker does so or has just done so."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            now = _clock()
            if now < self.due or self.control.ended is not None:
                return
            self.due = now + LOOK_INTERVAL
            counts = self.tuner.observe(self.reading(now))
            if counts is not None:
                self.give(counts)
        finally:
            self._lock.release()

    def give(self, counts: Sequence[int]) -> None:
        """Have so many workers at work in each module."""
        for station, count in zip(self.stations, counts, strict=True):
            if count != station.active:
                station.employ(count, self.control, self.outcome, self)

    def report(self) -> tuple[str, bool]:
        """What was tried, and whether that is all; nothing where all numbers are fixed."""
        return (self.tuner.report, self.tuner.settled) if self.tunes else ("", True)

    def reading(self, now: float) -> Reading:
        """The figures of now, by `_clock`."""
        last = self.stations[-1]
        # Nothing comes out of a sink: what goes in counts.
        sink = last.input if isinstance(last, _SinkStation) else None
        measures = (sink or last.output).measures()
        # What one module's share of the bytes has no use for may be another's.
        used = [station.most_bytes() for station in self.stations[: -1 if sink else None]]
        rooms = [self.max_bytes - sum(used) + bytes_ for bytes_ in [*used, 0]]
        return Reading(
            seconds=now - self.control.started,
            delivered=int(measures["batches"] + measures["holes"]),
            cpu=time.process_time(),
            consumer_waited=None if sink else measures["waited_items"],
            modules=tuple(map(_Station.reading, self.stations, rooms)),
            delayed=self._delay() if self.tuner.asks_for_delay and TELLS_DELAY else None,
        )

    def _delay(self) -> float:
        return sum(worker.delay() for station in self.stations for worker in station.workers)


def _work(station: _Station, worker: _Worker, control: _Control, outcome: _Outcome, tuning: _Tuning) -> None:
    """Life of a worker thread."""
    module = station.module
    opened = False
    try:
        worker.thread = threading.get_native_id()
        control.pool.use()
        module.open()
        opened = True
        station.work(worker, control, tuning)
        station.end()
    except BaseException as error:
        _report(error, station, control, outcome)
    if opened:
        try:
            module.close()
        except BaseException as error:
            if control.closing and not outcome.failures:
                control.troubles.append(f"{station.name}.close() raised {error!r}")
            _report(error, station, control, outcome)
    # Last, so that the end of the data is not announced before every worker has closed without an error.
    if station.leave(worker) and not control.closing:
        if station.output is control.queues[-1]:
            control.ended = _clock()
        with suppress(QueueClosed):
            station.output.finish(station.total())


def _report(error: BaseException, station: _Station, control: _Control, outcome: _Outcome) -> None:
    """Let the first failure end the pipeline; what comes after it, or after a stop, is a consequence."""
    if control.closing:
        return
    try:
        outcome.fail(error, f"Raised in module {station.name}, thread {threading.current_thread().name!r}.")
    finally:
        control.close()


def _stations(modules: Sequence[Module], ordered: bool, max_bytes: int, length: int) -> list[_Station]:
    names = _names(modules)
    largest = [_capacity(module, _most_workers_of(module)) for module in modules]
    sink = isinstance(modules[-1], Sink)
    # 0 would be no bound.
    share = max(1, max_bytes // (len(modules) - sink))
    stations: list[_Station] = []
    output: BatchQueue | None = None
    for place, (module, name) in enumerate(zip(modules, names, strict=True)):
        source = output
        output = BatchQueue(
            _capacity(module, _workers_of(module)),
            max_bytes=share,
            floor=_workers_of(module),
            ordered=ordered,
            group=0 if ordered else length,
            window=0 if ordered else 4 * max(largest),
            hand_out_holes=place + 1 < len(modules) and isinstance(modules[place + 1], Stage),
            largest=largest[place],
        )
        if isinstance(module, Source):
            stations.append(_SourceStation(module, name, output, share, length))
        elif isinstance(module, Stage):
            assert source is not None
            stations.append(_StageStation(module, name, source, output, share))
        else:
            assert source is not None
            assert isinstance(module, Sink)
            stations.append(_SinkStation(module, name, source, output, share))
    return stations


def _names(modules: Sequence[Module]) -> list[str]:
    """Names of the modules; those that occur more than once are numbered."""
    names = [module.name for module in modules]
    return [
        f"{name} {names[: place + 1].count(name)}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _workers_of(module: Module) -> int:
    """Number of workers that the module begins with."""
    return module.workers or module.default_workers()


def _most_workers_of(module: Module) -> int:
    return module.workers or max(module.default_workers(), module.most_workers())


def _capacity(module: Module, workers: int) -> int:
    """Batches that may be outstanding behind a module with so many workers."""
    return max(module.queue_size, 2 * workers)


def _length_of(source: Source) -> int | None:
    return len(cast(Sized, source)) if hasattr(source, "__len__") else None


def _checked(modules: Sequence[Module]) -> list[Module]:
    if not isinstance(modules, (list, tuple)) or not modules:
        raise ArgumentError(f"Pipeline: modules must be a list that begins with a Source, but is {modules!r}")
    last = len(modules) - 1
    for place, module in enumerate(modules):
        if not isinstance(module, Module):
            raise ArgumentError(f"Pipeline: modules[{place}] must be a Module, but is {_kind(module)}")
        if place == 0 and not isinstance(module, Source):
            raise ArgumentError(f"Pipeline: modules[0] must be a Source, but is {_kind(module)}")
        if place > 0 and not isinstance(module, (Stage, Sink) if place == last else Stage):
            allowed = "a Stage or a Sink" if place == last else "a Stage"
            raise ArgumentError(f"Pipeline: modules[{place}] must be {allowed}, but is {_kind(module)}")
        if module._taken or any(module is other for other in modules[:place]):
            raise ArgumentError(
                f"Pipeline: modules[{place}] ({module.name}) is used twice; a module belongs to one "
                "pipeline, make another"
            )
    return list(modules)


def _kind(thing: object) -> str:
    name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
    if isinstance(thing, type):
        return f"the class {name} itself; call it"
    for kind in (Source, Stage, Sink):
        if isinstance(thing, kind):
            return f"{name}, a {kind.__name__}"
    return name


# Number of forks between the start of Python and this process.
_generation = 0


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)
