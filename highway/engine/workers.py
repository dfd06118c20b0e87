"""The threads of a pipeline: runners of the modules, their workers, and how these start, are tuned and end.

Every module has a `BatchQueue` after it. The source numbers its tasks with tickets; a worker takes a batch from its
input queue, reserves the batch's ticket in the output queue, works, and puts the result there. This bounds the
batches in progress, keeps their order whichever worker is faster, and cannot deadlock.

The threads refer to the queues, never to the Pipeline: a dropped Pipeline is collected, and its finalizer ends them.

Where the user gives no number of workers, it is tuned while the pipeline runs: now and then, a worker that has put
a batch into its output reads the figures of all modules (`highway.engine.autotune` decides). A worker that is not
needed is parked before it takes the next batch or task and holds none; a worker that was never needed has no thread.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

from highway._core.pool import BufferPool
from highway._core.queue import BatchQueue
from highway.batch import Batch
from highway.engine.autotune import ModuleReading, Reading, Tuner
from highway.engine.module import Failure, Module, Outlet, Sink, Source, Stage, usable_cores
from highway.engine.regrouping import Place, Regrouper
from highway.engine.stats import ModuleStats
from highway.errors import (
    ArgumentError,
    ContractError,
    EmptyDatasetError,
    EmptyEpochError,
    EndOfData,
    PipelineStateError,
    QueueClosed,
    WaitTimeout,
)

__all__ = [
    "Control",
    "Outcome",
    "RegroupRunner",
    "SourceRunner",
    "Tuning",
    "clock",
    "make_runners",
    "whole_epoch_after",
]

# Longest time that stop() waits for the threads to end, in seconds; stop() as a whole takes less than 2 s.
STOP_LIMIT = 1.5
# Seconds between two readings of the figures, where numbers of workers are tuned.
LOOK_INTERVAL = 0.25
# Batches after a module without a queue_size; small ones, of which so many bytes are few, may be more.
QUEUE_SIZE = 4
AHEAD = 32
AHEAD_BYTES = 1 << 20
# Fewest places that a regrouping stage keeps before it drops those of batches that were taken.
MOST_PLACES = 1024
# Whether Linux reports how long threads were ready to run but waited for a core.
TELLS_DELAY = os.path.exists("/proc/self/schedstat")

_END = object()
clock = time.perf_counter


def whole_epoch_after(ticket: int, source: Source) -> tuple[int, int]:
    """Return the first epoch of a source that is whole from a ticket on, and the ticket after it."""
    epoch, seq = source.batch_at(ticket)
    if seq:
        epoch += 1
    return epoch, source.number_of(epoch + 1)


class Outcome:
    """The failures of a pipeline.

    Separate from `Control`, which the finalizer refers to: an exception refers to frames, and through them to the
    Pipeline.
    """

    __slots__ = ("failures",)

    def __init__(self) -> None:
        # Appending is atomic: the first failure counts.
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
        """Return the exception to raise where the queues are closed."""
        if not self.failures:
            return PipelineStateError(f"Pipeline.{what}: the pipeline was stopped; make a new one")
        error, traceback = self.failures[0]
        # Without the frames that earlier raises added.
        return error.with_traceback(traceback)


class Control:
    """Ends the threads: shared by them, the Pipeline and its finalizer.

    The garbage collector may run the finalizer in the middle of any code of any thread: nothing here may take a
    lock that Python code holds.
    """

    def __init__(self, modules: Sequence[Module], queues: Sequence[BatchQueue], max_bytes: int) -> None:
        self.queues = list(queues)
        self.pool = BufferPool(max_free_bytes=2 * max_bytes)
        self.threads: list[tuple[threading.Thread, str]] = []
        self.workers: list[WorkerThread] = []
        self.closing = False
        self.troubles: list[str] = []
        self.started = clock()
        self.ended: float | None = None
        self._to_interrupt = list(modules)
        # Whether this process was forked from the one that made the pipeline; each batch asks for it.
        self.forked = False
        _controls.add(self)

    def adopt(self) -> None:
        """Belong to this process from now on: no thread runs yet."""
        self.forked = False

    def enter(self, modules: Sequence[Module]) -> None:
        """Interrupt these modules at the end."""
        self._to_interrupt = list(modules)

    def seconds(self) -> float:
        """Return the seconds from the start to the end of the data, to the stop, or to now."""
        return (clock() if self.ended is None else self.ended) - self.started

    def close(self) -> None:
        """Wake every thread, so that it ends."""
        self.closing = True
        if self.ended is None:
            self.ended = clock()
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

    def join(self) -> None:
        """Wait at the end of the data until all threads have ended; new threads then use the modules."""
        for thread, _ in self.threads:
            if thread.ident is not None:
                thread.join()
        self.threads.clear()
        self.workers.clear()

    def resume(self) -> None:
        """Continue after the end of the data, with new threads."""
        if not self.closing:
            self.ended = None

    def end_late(self, outcome: Outcome) -> None:
        """End threads that started while `shutdown` ran; after a failure, they end without being waited for."""
        if self.closing and not outcome.failures:
            self.shutdown()

    def retire(self) -> None:
        """Join the threads at the end of the data, and free their memory."""
        self.join()
        self.pool.close()

    def shutdown(self) -> None:
        """End all threads, and warn of those that do not end in time."""
        if self.forked:
            return
        self.close()
        # A module may stop its own pipeline, and the garbage collector may run in a worker: a thread cannot join
        # itself.
        if any(thread is threading.current_thread() for thread, _ in self.threads):
            return
        deadline = time.monotonic() + STOP_LIMIT
        ending = []
        for each in [*self.threads]:
            # A thread that failed to start, or is just starting in another thread, cannot be joined: `end_late` does.
            with suppress(RuntimeError):
                each[0].join(max(0.0, deadline - time.monotonic()))
                ending.append(each)
        self.pool.close()
        hung = [(thread, name) for thread, name in ending if thread.is_alive()]
        # Not all: others may have started in the meantime, for `end_late`.
        for each in ending:
            with suppress(ValueError):
                self.threads.remove(each)
        for name in dict.fromkeys(name for _, name in hung):
            count = sum(each == name for _, each in hung)
            self.troubles.append(
                f"{name} did not end within {STOP_LIMIT} s of stop(): {count} of its threads still run, and end "
                "when their current call returns. Give the module an interrupt() that wakes it"
            )
        while self.troubles:
            warnings.warn(f"Pipeline: {self.troubles.pop(0)}", RuntimeWarning, stacklevel=4)


class WorkerThread:
    """State of one worker: its figures, which only it writes, and the gate that parks it while it is not needed."""

    __slots__ = (
        *("batches", "busy", "delayed", "gate", "nbytes", "number"),
        *("samples", "skipped_batches", "skipped_samples", "thread", "waited"),
    )

    def __init__(self, number: int) -> None:
        self.number = number
        # Id that the system gives to its thread, once it runs.
        self.thread = 0
        self.delayed = 0.0
        self.batches = 0
        self.samples = 0
        self.nbytes = 0
        self.skipped_batches = 0
        self.skipped_samples = 0
        self.busy = 0.0
        self.waited = 0.0
        # Locked; released to wake the worker. Not a condition: Python code holds its lock for a moment, and
        # `Control.close` must not take such a lock.
        self.gate = threading.Lock()

    def park(self) -> None:
        """Close the gate."""
        self.gate.acquire(blocking=False)

    def add(self, batch: Batch, nbytes: int) -> None:
        self.batches += 1
        self.samples += batch.size
        self.nbytes += nbytes

    def skip(self, samples: int) -> None:
        """Count a skipped batch and its number of samples."""
        self.skipped_batches += 1
        self.skipped_samples += samples

    def delay(self) -> float:
        """Return the seconds that it was ready to run but waited for a core."""
        # The file of a thread that has ended is gone.
        with suppress(OSError), open(f"/proc/self/task/{self.thread}/schedstat", "rb") as figures:
            self.delayed = int(figures.read().split()[1]) / 1e9
        return self.delayed

    def wake(self) -> None:
        """Unpark the worker; safe to call before it parks."""
        with suppress(RuntimeError):
            self.gate.release()


class ModuleRunner:
    """Runs a module: has its input queue, its output queue, and the figures of its workers.

    The output queue of a sink stays empty; its end signals that the sink is done.
    """

    kind = ""
    input: BatchQueue | None = None

    def __init__(self, module: Module, name: str, output: BatchQueue, share: int) -> None:
        self.module = module
        self.name = name
        self.output = output
        # Bytes that the output queue may hold.
        self.share = share
        self.most = _most_workers_of(module)
        self.tuned = module.workers is None and self.most > 1
        # Workers with lower numbers than this are active; the others are parked.
        self.active = _workers_of(module)
        self.workers: list[WorkerThread] = []
        # Workers that have not ended; `over`: no more may start.
        self.present: list[WorkerThread] = []
        self.over = False
        # Whether to drop the input instead of processing it.
        self.dropping = False
        # Guards these four, and the active time of the workers until their number last changed.
        self.workers_lock = threading.Lock()
        self._worked = 0.0
        self._since = 0.0
        self._former: list[WorkerThread] = []
        # The source, if it knows the numbers of batches in its epochs and has no last epoch.
        self.endless: Source | None = None

    def start(self, control: Control, outcome: Outcome, tuning: Tuning) -> None:
        """Start the initial workers."""
        with self.workers_lock:
            if not self._former:
                self._since = control.started
            # After `rewind`, all workers there were, with their figures.
            self._start(max(self.active, len(self._former)), control, outcome, tuning)

    def rewind(self, start: int) -> None:
        """Make ready for a start at ticket `start`, after all threads have ended; the figures go on."""
        self.output.restart(start)
        self.over = self.dropping = False
        self._former, self.workers = self.workers, []

    def employ(self, count: int, control: Control, outcome: Outcome, tuning: Tuning) -> None:
        """Set the number of active workers; fewer if the system has no threads left."""
        with self.workers_lock:
            if self.over or control.closing:
                return
            with suppress(RuntimeError):
                self._start(count, control, outcome, tuning)
            if count > len(self.workers):
                self.most = count = len(self.workers)
            now = clock()
            self._worked += self.active * (now - self._since)
            self._since = now
            self.active = count
            with suppress(QueueClosed):
                self.output.resize(_capacity(self.module, count), count)
            for worker in self.workers[:count]:
                worker.wake()

    def _start(self, count: int, control: Control, outcome: Outcome, tuning: Tuning) -> None:
        for number in range(len(self.workers), count):
            worker = self._former[number] if number < len(self._former) else WorkerThread(number)
            worker.park()
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
                # The system has no thread left. After Ctrl-C in here, the thread may exist.
                self.workers.remove(worker)
                self.present.remove(worker)
                raise

    def needs(self, worker: WorkerThread, control: Control) -> bool:
        """Park the worker until it is needed; return False if it should end."""
        while worker.number >= self.active:
            if self.over or control.closing:
                return False
            worker.gate.acquire()
        return True

    def end(self) -> None:
        """The data has ended: wake the parked workers, so that they end."""
        with self.workers_lock:
            self.over = True
        for worker in self.workers:
            worker.wake()

    def leave(self, worker: WorkerThread) -> bool:
        """Remove a worker that ends; return True for the last one."""
        with self.workers_lock:
            self.present.remove(worker)
            return not self.present

    def work(self, worker: WorkerThread, control: Control, tuning: Tuning) -> None:
        """Work until the data ends."""
        raise NotImplementedError

    def total(self) -> int:
        """Return the last ticket plus one, after the end of the data."""
        raise NotImplementedError

    def check(self, batch: Batch, method: str) -> None:
        """Raise ContractError unless the result is a valid batch: a module may have written into its fields."""
        if not isinstance(batch, Batch):
            raise ContractError(
                f"{self.name}.{method} returned {type(batch).__name__}; it must return a Batch, "
                "or None to skip the batch"
            )
        try:
            batch._check()
        except ArgumentError as error:
            raise ContractError(f"{self.name}.{method} returned an invalid batch: {error}") from error

    def check_result(self, result: Batch, size: int) -> None:
        """Check what a stage made of a batch of `size` samples; of another size, it must tell which samples it has."""
        self.check(result, "process")
        if result.size != size and result._indices is None:
            raise ContractError(
                f"{self.name}.process returned {result.size} samples for a batch of {size}, without their indices; "
                "expected as many samples, or batch.take(rows), or a batch with the indices= of its samples"
            )

    def nothing(self, epoch: int) -> EmptyDatasetError:
        """Return the error to raise where a whole epoch of endless data has no batch for this module, or of it."""
        return EmptyDatasetError(
            f"{self.name}: no batch of epoch {epoch} remains, and the source has epochs=None: all of its samples were "
            "skipped or dropped; expected one batch or more in each epoch. stats() counts what was skipped"
        )

    def busy(self) -> float:
        return sum(worker.busy for worker in self.workers)

    def waited_input(self) -> float:
        assert self.input is not None
        return self.input.measures()["waited_items"]

    def replaced(self) -> int:
        """Return the number of samples that replace bad ones."""
        return 0

    def batch_bytes(self) -> int:
        """Return the average size of its batches in bytes; 0 before the first."""
        batches = sum(worker.batches for worker in self.workers)
        return sum(worker.nbytes for worker in self.workers) // max(1, batches)

    def most_bytes(self) -> int:
        """Return the most bytes that may be outstanding after it, with its current workers."""
        capacity, nbytes = self.output.room, self.batch_bytes()
        return max(min(self.share, capacity * nbytes), self.active * nbytes)

    def reading(self, room: int) -> ModuleReading:
        """Return the figures for the tuner, with `room` bytes for the batches of the module."""
        nbytes = self.batch_bytes()
        return ModuleReading(
            workers=self.active,
            allowed=min(self.most, max(self.share, room) // nbytes) if nbytes else self.most,
            busy=self.busy(),
            waited_tasks=self.waited_input() if self.kind == "source" else 0.0,
        )

    def stats(self, control: Control, seconds: float) -> ModuleStats:
        measures = self.output.measures()
        with self.workers_lock:
            workers, worked, since = self.active, self._worked, self._since
        worked += workers * max(0.0, control.started + seconds - since)
        return ModuleStats(
            name=self.name,
            kind=self.kind,
            workers=workers,
            batches=sum(worker.batches for worker in self.workers),
            samples=sum(worker.samples for worker in self.workers),
            nbytes=sum(worker.nbytes for worker in self.workers),
            skipped_batches=sum(worker.skipped_batches for worker in self.workers),
            skipped_samples=sum(worker.skipped_samples for worker in self.workers),
            replaced_samples=self.replaced(),
            busy=self.busy(),
            waited_input=self.waited_input(),
            waited_room=measures["waited_room"],
            occupancy=measures["occupancy"],
            capacity=0 if self.kind == "sink" else self.output.room,
            seconds=seconds,
            tuned=self.tuned,
            worker_seconds=worked,
        )


class SourceRunner(ModuleRunner):
    """Runs a source and numbers its tasks."""

    kind = "source"

    def __init__(
        self,
        module: Source,
        name: str,
        output: BatchQueue,
        share: int,
        length: int | None,
        outlet: Outlet | None,
        start: int,
    ) -> None:
        super().__init__(module, name, output, share)
        self.source = module
        self.length = length or 0
        self.outlet = outlet
        self.first_tasks = module.tasks if outlet is None else partial(outlet.tasks_of, module, length)
        self.lock = threading.Lock()
        self.tasks: Iterator[Any] | None = None
        self.exhausted = False
        # Whether it sets no epochs and numbers of its batches.
        self.nameless = False
        # The next ticket.
        self.taken = start

    def rewind(self, start: int) -> None:
        super().rewind(start)
        self.tasks = None
        self.exhausted = False
        self.taken = start

    def total(self) -> int:
        return self.taken

    def waited_input(self) -> float:
        return sum(worker.waited for worker in self.workers)

    def replaced(self) -> int:
        return self.source.replaced

    def identify(self, batch: Batch, ticket: int) -> None:
        """Set the epoch and number of a batch whose source set none."""
        self.nameless = not self.length
        if self.outlet is not None:
            batch.epoch, batch.seq = self.outlet.identity(ticket)
        elif self.length:
            batch.epoch, batch.seq = self.source.batch_at(ticket)
        else:
            batch.seq = ticket

    def end_tasks(self) -> None:
        """Start no more tasks."""
        self.exhausted = True
        self.source.end_tasks()
        if self.outlet is not None:
            self.outlet.end_tasks()

    def next_task(self) -> tuple[int, Any]:
        """Return the next ticket and its task; the task is `_END` at the end of the data."""
        with self.lock:
            if self.tasks is None:
                self.tasks = iter(self.first_tasks())
            task = _END if self.exhausted else next(self.tasks, _END)
            if task is _END:
                self.exhausted = True
                return self.taken, _END
            ticket = self.taken
            self.taken += 1
            return ticket, task

    def work(self, worker: WorkerThread, control: Control, tuning: Tuning) -> None:
        load, samples_in = self.source.load, self.source.samples_in
        reserve, put, skip = self.output.reserve, self.output.put, self.output.skip
        number = worker.number
        failing = Exception if self.outlet is not None else ()
        while number < self.active or self.needs(worker, control):
            began = clock()
            ticket, task = self.next_task()
            if self.outlet is None:
                worker.waited += clock() - began
            if task is _END:
                return
            reserve(ticket)
            began = clock()
            try:
                batch = load(task)
                if batch is not None:
                    self.check(batch, "load")
                expected = samples_in(task)
            except failing as error:
                put(ticket, Failure(error, self.name), 0)
                continue
            ended = clock()
            worker.busy += ended - began
            if batch is None:
                if expected != 0:
                    worker.skip(expected or 0)
                skip(ticket)
                continue
            if expected is not None:
                worker.skipped_samples += max(0, expected - batch.size)
            if batch.seq is None:
                self.identify(batch, ticket)
            nbytes = batch.nbytes
            worker.add(batch, nbytes)
            put(ticket, batch, nbytes)
            # Do not keep this batch alive during the wait for the next one.
            del batch, task
            if ended >= tuning.due:
                tuning.look()


class StageRunner(ModuleRunner):
    kind = "stage"

    def __init__(
        self,
        module: Stage,
        name: str,
        source: BatchQueue,
        output: BatchQueue,
        share: int,
        outlet: Outlet | None,
    ) -> None:
        super().__init__(module, name, output, share)
        self.input: BatchQueue = source
        self.stage = module
        self.outlet = outlet

    def total(self) -> int:
        total = self.input.last_total
        assert total is not None
        return total

    def work(self, worker: WorkerThread, control: Control, tuning: Tuning) -> None:
        get, process = self.input.get, self.stage.process
        reserve, put, skip = self.output.reserve, self.output.put, self.output.skip
        number = worker.number
        failing = Exception if self.outlet is not None else ()
        while number < self.active or self.needs(worker, control):
            try:
                ticket, batch = get()
            except EndOfData:
                return
            reserve(ticket)
            if batch is None or self.dropping:
                skip(ticket)
                del batch
                continue
            if type(batch) is Failure:
                put(ticket, batch, 0)
                continue
            size = batch.size
            began = clock()
            try:
                result = process(batch)
                if result is not None:
                    self.check_result(result, size)
            except failing as error:
                put(ticket, Failure(error, self.name), 0)
                continue
            ended = clock()
            worker.busy += ended - began
            if result is None:
                worker.skip(size)
                skip(ticket)
                del batch
                continue
            worker.skipped_samples += max(0, size - result.size)
            if result is not batch and result.seq is None:
                result.adopt(batch)
            nbytes = result.nbytes
            worker.add(result, nbytes)
            put(ticket, result, nbytes)
            del batch, result
            if ended >= tuning.due:
                tuning.look()


class RegroupRunner(ModuleRunner):
    """Runs a stage that makes batches of other samples, with tickets of their own; it has one worker."""

    kind = "stage"

    def __init__(
        self, module: Stage, name: str, source: BatchQueue, output: BatchQueue, share: int, start: int
    ) -> None:
        super().__init__(module, name, output, share)
        self.input: BatchQueue = source
        self.stage = module
        # Several would divide the samples among them.
        self.active = self.most = 1
        self.tuned = False
        self.is_endless = False
        # The next regrouping runner, and the queue from which the user or the sink takes batches; set when all runners
        # are there.
        self.after: RegroupRunner | None = None
        self.taken: BatchQueue = output
        # Shared by all regrouping runners: held while places are dropped, and from the look at the next ticket to that
        # at its places. A signal handler may ask for the position while its thread does.
        self.places_lock = threading.RLock()
        # By the ticket of each batch that may be asked for: the place after it.
        self.places: dict[int, Place] = {}
        # So many places make it worth to look for those of batches that were taken.
        self._many = MOST_PLACES
        self.begin_at(start, Place(start))

    def begin_at(self, start: int, place: Place) -> None:
        """Begin with ticket `start` of both queues, and at a place in its batches."""
        self.made = start
        # The last epoch that gave a batch, or in which it began; and of each of the latest epochs, the ticket that was
        # next when its first batch arrived.
        self._last: int | None = None
        self._fronts: dict[int, int] = {}
        self.places[start - 1] = place._replace(ticket=start)

    def rewind(self, start: int) -> None:
        # First, and with the former places: another thread may ask for the position meanwhile.
        self.begin_at(start, Place(start))
        super().rewind(start)

    def total(self) -> int:
        return self.made

    def place_before(self, ticket: int) -> Place:
        """Return the place in the batches that arrive, after all batches below a ticket of its own."""
        return self.places[ticket - 1]

    def needed(self) -> int:
        """Return the first of its own tickets that is not taken by the user; with `places_lock` held."""
        if self.after is None:
            return self.taken.next_ticket
        return self.after.place_before(self.after.needed()).ticket

    def work(self, worker: WorkerThread, control: Control, tuning: Tuning) -> None:
        get, process = self.input.get, self.stage.process
        place = self.place_before(self.made)
        # Raises, even if no batch arrives.
        self._size_in(place.epoch)
        regrouper = Regrouper(self.name, self._size_in, self.stage.drop_last, place)
        while True:
            try:
                ticket, batch = get()
            except EndOfData:
                if not self.dropping:
                    self._put(regrouper.rest(), worker)
                return
            if batch is None or self.dropping:
                if batch is None and self.endless is not None:
                    self.notice(self.endless.batch_at(ticket)[0], self.made)
                del batch
                continue
            size = batch.size
            began = clock()
            epoch, made = batch.epoch, self.made
            result = process(batch)
            if result is not None:
                self.check_result(result, size)
                if result is not batch and result.seq is None:
                    result.adopt(batch)
            worker.busy += clock() - began
            if result is None:
                worker.skip(size)
                self._put(regrouper.reach(batch.epoch), worker)
            else:
                worker.skipped_samples += max(0, size - result.size)
                self._put(regrouper.add(ticket, result), worker)
            if self.made > made:
                self._last = epoch
            self.notice(epoch, made)
            del batch, result
            if clock() >= tuning.due:
                tuning.look()

    def _size_in(self, epoch: int) -> int:
        """Return the size of the batches to make in an epoch."""
        wanted: object = self.stage.batch_size_in(epoch)
        if isinstance(wanted, int) and wanted >= 1:
            return wanted
        raise ContractError(
            f"{self.name}.batch_size is {wanted!r}, and regroups is True; expected a whole number of samples, 1 or "
            "more, when the pipeline starts"
        )

    def notice(self, epoch: int, made: int) -> None:
        """Note that what arrives is of this epoch; raises if somebody waits, and a whole epoch gave no batch.

        `made` is the ticket that was next when it arrived.
        """
        if not self.is_endless:
            return
        if self._last is None:
            self._last = epoch
        lost = self._lost(epoch, made) if self.after is None else None
        if epoch - self._last >= 2:
            with self.places_lock:
                lost = epoch - 1 if self.needed() >= self.made else lost
        if lost is not None and self.taken.measures()["getting"]:
            raise self.nothing(lost)

    def _lost(self, epoch: int, made: int) -> int | None:
        """Return an epoch of which the stages after it have dropped all batches; each is looked at once."""
        fronts = self._fronts
        if epoch > max(fronts, default=-1):
            # It may have begun in the middle of the first one.
            fronts[epoch] = made if fronts else -1
        lost = None
        while len(fronts) > 2:
            # Batches of an epoch are made until those of the next one have begun to arrive.
            first, _, end = itertools.islice(fronts, 3)
            if self.taken.next_ticket < fronts[end]:
                break
            if self.taken.reached <= fronts.pop(first):
                lost = first
        return lost

    def _put(self, found: Iterator[tuple[Batch, Place]], worker: WorkerThread) -> None:
        while True:
            began = clock()
            batch, place = next(found, (None, None))
            worker.busy += clock() - began
            if batch is None or place is None:
                return
            self.output.reserve(self.made)
            nbytes = batch.nbytes
            worker.add(batch, nbytes)
            # Before the batch: who takes it may ask for the place at once.
            self.places[self.made] = place
            self.output.put(self.made, batch, nbytes)
            self.made += 1
            del batch
            if len(self.places) >= self._many:
                with self.places_lock:
                    needed = self.needed() - 1
                    for ticket in [ticket for ticket in self.places if ticket < needed]:
                        del self.places[ticket]
                self._many = max(MOST_PLACES, 2 * len(self.places))


class SinkRunner(ModuleRunner):
    kind = "sink"

    def __init__(
        self,
        module: Sink,
        name: str,
        source: BatchQueue,
        output: BatchQueue,
        share: int,
        follower: Source | None,
    ) -> None:
        super().__init__(module, name, output, share)
        self.input: BatchQueue = source
        self.sink = module
        self.follower = follower

    def total(self) -> int:
        return 0

    def work(self, worker: WorkerThread, control: Control, tuning: Tuning) -> None:
        get, consume, follower = self.input.get, self.sink.consume, self.follower
        number, endless, before, first, epoch = worker.number, self.endless, None, 0, 0
        while number < self.active or self.needs(worker, control):
            if endless is not None:
                first = self.input.reached
                epoch, before = whole_epoch_after(first, endless)
            try:
                ticket, batch = get(before=before)
            except EndOfData:
                total = self.input.last_total
                if endless is None or (total is not None and self.input.next_ticket >= total):
                    return
                if self.input.reached <= first:
                    raise self.nothing(epoch) from None
                # Other workers took the batches.
                continue
            if batch is not None:
                began = clock()
                consume(batch)
                ended = clock()
                worker.busy += ended - began
                worker.add(batch, batch.nbytes)
            if follower is not None:
                follower.delivered(ticket)
            del batch
            if clock() >= tuning.due:
                tuning.look()


class OutletStation(ModuleRunner):
    kind = "sink"

    def __init__(self, module: Outlet, name: str, source: BatchQueue, output: BatchQueue, share: int) -> None:
        super().__init__(module, name, output, share)
        self.input: BatchQueue = source
        self.outlet = module

    def total(self) -> int:
        return 0

    def work(self, worker: WorkerThread, control: Control, tuning: Tuning) -> None:
        get, carry = self.input.get, self.outlet.carry
        while True:
            try:
                ticket, outcome = get()
            except EndOfData:
                self.outlet.drain()
                return
            began = clock()
            carry(ticket, outcome)
            ended = clock()
            worker.busy += ended - began
            if isinstance(outcome, Batch):
                worker.add(outcome, outcome.nbytes)
            del outcome
            if ended >= tuning.due:
                tuning.look()


class Tuning:
    """Reads the figures of all modules now and then, and sets the numbers of workers that the tuner decides.

    Has no thread of its own: a worker that has put a batch into its output calls `look` when it is due.

    Attributes
    ----------
    due : float
        Time of the next reading, by `clock`.
    lock : threading.Lock
        Held by the worker that reads the figures.
    """

    def __init__(
        self, runners: Sequence[ModuleRunner], control: Control, outcome: Outcome, max_bytes: int
    ) -> None:
        self.runners = runners
        self.max_bytes = max_bytes
        self.control = control
        self.outcome = outcome
        self.tuner = Tuner(
            [runner.name for runner in runners],
            [runner.most if runner.tuned else None for runner in runners],
            usable_cores(),
        )
        self.tunes = any(runner.tuned for runner in runners)
        self.due = control.started if self.tunes else math.inf
        self.lock = threading.Lock()

    def look(self) -> None:
        """Read the figures and adjust, unless another worker does so or has just done so."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            now = clock()
            if now < self.due or self.control.ended is not None:
                return
            self.due = now + LOOK_INTERVAL
            counts = self.tuner.observe(self.reading(now))
            if counts is not None:
                self.give(counts)
        finally:
            self.lock.release()

    def give(self, counts: Sequence[int]) -> None:
        """Set the number of active workers of each module."""
        for runner, count in zip(self.runners, counts, strict=True):
            if count != runner.active:
                runner.employ(count, self.control, self.outcome, self)

    def report(self) -> tuple[str, bool]:
        """Return what was tried, and whether tuning is done; "" and True where all numbers are fixed."""
        return (self.tuner.report, self.tuner.settled) if self.tunes else ("", True)

    def reading(self, now: float) -> Reading:
        """Return the current figures; `now` is the time by `clock`."""
        last = self.runners[-1]
        # A sink has no output: its input counts.
        sink = last.input if last.kind == "sink" else None
        measures = (sink or last.output).measures()
        # Bytes that one module does not use of its share are available to another.
        used = [runner.most_bytes() for runner in self.runners[: -1 if sink else None]]
        rooms = [self.max_bytes - sum(used) + bytes_ for bytes_ in [*used, 0]]
        return Reading(
            seconds=now - self.control.started,
            delivered=int(measures["batches"] + measures["holes"]),
            cpu=time.process_time(),
            consumer_waited=None if sink else measures["waited_items"],
            modules=tuple(map(ModuleRunner.reading, self.runners, rooms)),
            delayed=self._delay() if self.tuner.asks_for_delay and TELLS_DELAY else None,
        )

    def _delay(self) -> float:
        return sum(worker.delay() for runner in self.runners for worker in runner.workers)


def _work(
    runner: ModuleRunner, worker: WorkerThread, control: Control, outcome: Outcome, tuning: Tuning
) -> None:
    """Run a worker thread from start to end."""
    module = runner.module
    opened = False
    try:
        worker.thread = threading.get_native_id()
        control.pool.use()
        module.open()
        opened = True
        runner.work(worker, control, tuning)
        runner.end()
    except BaseException as error:
        _report(error, runner, control, outcome)
    if opened:
        try:
            module.close()
        except BaseException as error:
            if control.closing and not outcome.failures:
                control.troubles.append(f"{runner.name}.close() raised {error!r}")
            _report(error, runner, control, outcome)
    # Last, so that the data ends only after every worker has closed without an error.
    if runner.leave(worker) and not control.closing:
        if runner.output is control.queues[-1]:
            control.ended = clock()
        with suppress(QueueClosed):
            runner.output.finish(runner.total())


def _report(error: BaseException, runner: ModuleRunner, control: Control, outcome: Outcome) -> None:
    """End the pipeline at the first failure; later ones, or those after a stop, are its consequences and ignored."""
    if control.closing:
        return
    error = _distinct(error, runner)
    try:
        outcome.fail(error, f"Raised in module {runner.name}, thread {threading.current_thread().name!r}.")
    finally:
        control.close()


def make_runners(
    modules: Sequence[Module],
    ordered: bool,
    max_bytes: int,
    length: int | None,
    follower: Source | None,
    start: int = 0,
) -> list[ModuleRunner]:
    """Make the runners of the modules, connected by queues; starts nothing.

    Parameters
    ----------
    modules : sequence of Module
    ordered : bool
    max_bytes : int
        For all queues together.
    length : int or None
        Batches in an epoch.
    follower : Source or None
        A source whose `delivered` to call.
    start : int
        The first ticket.
    """
    names = _names(modules)
    largest = [_capacity(module, _most_workers_of(module)) for module in modules]
    sink = isinstance(modules[-1], Sink)
    outlet = modules[-1] if isinstance(modules[-1], Outlet) else None
    # 0 would be no bound.
    share = max(1, max_bytes // (len(modules) - sink))
    runners: list[ModuleRunner] = []
    output: BatchQueue | None = None
    for place, (module, name) in enumerate(zip(modules, names, strict=True)):
        source = output
        after = modules[place + 1] if place + 1 < len(modules) else None
        output = BatchQueue(
            _capacity(module, _workers_of(module)),
            max_bytes=share,
            floor=_workers_of(module),
            ordered=ordered,
            start=start,
            group=0 if ordered else length or 0,
            window=0 if ordered else 4 * max(*largest, *map(_ahead, modules)),
            hand_out_holes=isinstance(after, (Stage, Outlet))
            or (follower is not None and not isinstance(module, Sink)),
            largest=largest[place],
            ahead=_ahead(module),
            ahead_bytes=AHEAD_BYTES,
        )
        if isinstance(module, Source):
            runners.append(SourceRunner(module, name, output, share, length, outlet, start))
            continue
        assert source is not None
        if isinstance(module, Stage) and module.regroups:
            runners.append(RegroupRunner(module, name, source, output, share, start))
        elif isinstance(module, Stage):
            runners.append(StageRunner(module, name, source, output, share, outlet))
        elif isinstance(module, Outlet):
            runners.append(OutletStation(module, name, source, output, share))
        else:
            assert isinstance(module, Sink)
            runners.append(SinkRunner(module, name, source, output, share, follower))
    origin = modules[0]
    endless = origin if isinstance(origin, Source) and origin.epochs is None and follower is None else None
    for number, runner in enumerate(runners):
        regrouped = any(isinstance(before, RegroupRunner) for before in runners[:number])
        runner.endless = endless if length and not regrouped else None
        if isinstance(runner, RegroupRunner):
            runner.is_endless = endless is not None
    # A sink puts nothing into its queue.
    taken = runners[-1].input if sink else output
    assert taken is not None
    later: RegroupRunner | None = None
    for runner in reversed(runners):
        if isinstance(runner, RegroupRunner):
            runner.after, runner.taken = later, taken
            if later is not None:
                runner.places_lock = later.places_lock
            later = runner
    return runners


def _names(modules: Sequence[Module]) -> list[str]:
    """Return the names of the modules, numbered where they occur more than once."""
    names = [module.name for module in modules]
    return [
        f"{name} {names[: place + 1].count(name)}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]


def _workers_of(module: Module) -> int:
    """Return the initial number of workers."""
    return module.workers or module.default_workers()


def _most_workers_of(module: Module) -> int:
    return module.workers or max(module.default_workers(), module.most_workers())


def _capacity(module: Module, workers: int) -> int:
    """Return the number of batches that may be outstanding after a module with `workers` workers."""
    return max(QUEUE_SIZE if module.queue_size is None else module.queue_size, 2 * workers)


def _ahead(module: Module) -> int:
    """Return the number of small batches that may be outstanding after a module; 0 where the user gives a number."""
    return AHEAD if module.queue_size is None else 0


# Those that a fork of this process copies.
_controls: weakref.WeakSet[Control] = weakref.WeakSet()


def _forked() -> None:
    for control in _controls:
        control.forked = True


os.register_at_fork(after_in_child=_forked)


def _distinct(error: BaseException, runner: ModuleRunner) -> BaseException:
    """Return the error, or a ContractError instead of one that callers would not treat as a failure."""
    if not isinstance(error, (EndOfData, EmptyEpochError, WaitTimeout, StopIteration)):
        return error
    other = ContractError(
        f"{runner.name} raised {type(error).__name__} ({error}), perhaps from a pipeline or iterator inside of it; "
        "expected another error: callers would mistake it for the end of the outer pipeline"
    )
    other.__cause__ = error
    return other
