"""Pipeline: connects modules, runs them, and returns their batches.

`highway.engine.module` has the base classes of modules; `highway.engine.workers` has the threads.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence, Sized
from functools import partial
from numbers import Real
from types import TracebackType
from typing import Any, cast

import numpy as np

from highway.arguments import flag, whole
from highway.arguments.signatures import explained
from highway.batch import Batch
from highway.engine.iteration import EpochIterator, superseded
from highway.engine.module import Failure, Module, Outlet, Sink, Source, Stage, usable_cores
from highway.engine.spec import Spec
from highway.engine.stats import PipelineStats
from highway.engine.workers import Control, Outcome, SourceRunner, Tuning, clock, make_runners
from highway.errors import (
    ArgumentError,
    EmptyEpochError,
    EndOfData,
    PipelineStateError,
    QueueClosed,
    UnknownLengthError,
    WaitTimeout,
)

__all__ = ["Failure", "Module", "Outlet", "Pipeline", "Sink", "Source", "Stage", "usable_cores"]

# Bytes of batches that wait in the queues of a pipeline or are in progress.
DEFAULT_MAX_BYTES = 128 << 20
# A larger value is a mistake.
MOST_BYTES = 2**62


class Pipeline:
    """Connects modules and runs them.

    ``for batch in pipeline`` is one epoch, the next one. The threads start with the first batch that is requested, in
    the process that requests it, or with `start`; a pipeline with a sink or a `ZMQSource` starts when it is made.

    Parameters
    ----------
    modules : sequence of Module
        A Source, then Stages, and optionally a Sink at the end. Modules are specifications: you may use them in any
        number of pipelines, also at once.
    ordered : bool
        Return batches in the order of their tasks. If False, return whichever batch is ready, but every
        batch of an epoch before any of the next (where the source knows its length).
    max_bytes : int, optional
        Most bytes of batches that wait in the queues or are in progress, 1 to 2**62, 128 MiB by default;
        divided evenly among the queues. One batch per worker is always allowed, however large; but a
        module whose number of workers is tuned gets more workers only if there is room for their batches.

    Raises
    ------
    ArgumentError
        There are no modules, or one is in the wrong place; `max_bytes` is out of range.

    Attributes
    ----------
    modules : tuple of Module
        The modules that this pipeline runs: its own copies where they have state (see `Module.for_run`).

    Notes
    -----
    ============================  =======================================================================
    ``for batch in pipeline``     one epoch: the first, then the next one each time
    after ``break``               the next ``for`` begins the next epoch
    after `load_state_dict`       the first ``for`` is the rest of that epoch
    after `dequeue`               the next ``for`` begins the epoch after the one of the last batch
    ``epochs=N`` of the source    there are N epochs; one more raises EndOfData
    `epoch` (n)                   epoch n from its start, whatever was iterated before
    `forever`                     batches of one epoch after the other, from the current position
    ``len(pipeline)``             number of batches of an epoch; ``len(iter(pipeline))`` of those that remain
    ============================  =======================================================================

    A source that does not know its length ends an epoch where the epoch number of its batches changes. If it sets no
    numbers, all of its batches are one epoch, and a ``for`` after a ``break`` continues with the remaining ones.

    A pipeline pickles and copies as its modules and its position.

    An exception of a module, in any of its threads, ends the pipeline, and every later call of `dequeue` or `wait`
    raises the same exception; but a ContractError instead of an EndOfData, EmptyEpochError, WaitTimeout or
    StopIteration, which callers would mistake for the end of this pipeline.

    Threads do not survive a fork: a child process can neither use nor stop a pipeline that its parent has started.
    One that was not started yet starts in each process that uses it.

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

    @explained()
    def __init__(
        self, modules: Sequence[Module], *, ordered: bool = True, max_bytes: int | None = None
    ) -> None:
        self._complete = False
        self._started = False
        self._given = tuple(_checked(modules))
        self._bound = (
            DEFAULT_MAX_BYTES
            if max_bytes is None
            else whole("Pipeline", "max_bytes", max_bytes, 1, MOST_BYTES)
        )
        self._ordered = flag("Pipeline", "ordered", ordered)
        # Held while threads start, an epoch begins or a state is loaded.
        self._turn = threading.Lock()
        self.modules = tuple(module.for_run() for module in self._given)
        source = self.modules[0]
        assert isinstance(source, Source)
        self._source = source
        self._has_sink = isinstance(self.modules[-1], Sink)
        for before, module in zip((None, *self.modules), self.modules, strict=False):
            module.follow(before)
        to_outlet = isinstance(self.modules[-1], Outlet)
        self._follower = source if source.follows_delivery and not to_outlet else None
        self._left_out = tuple(module.name for module in self.modules if module.left_out)
        self._modules = [module for module in self.modules if not module.left_out]
        # The place where a loaded state begins; None for the first batch of all.
        self._place: Any = None
        # Number of the last iteration, and the epoch of the next one where the source knows its length.
        self._iteration = 0
        self._next_epoch = 0
        # Whether batches were taken, or a state was loaded; whether the next iteration is the rest of an epoch.
        self._touched = False
        self._resumed = False
        # Epochs from this ticket on are whole, where the source knows its length.
        self._whole_from = 0
        # Epoch of the last batch that was returned; where a source follows the delivery, batches that it rejected;
        # batches that were dropped to begin an epoch.
        self._last_epoch: int | None = None
        self._rejected = 0
        self._dropped = 0
        self._set_up(0)
        self._complete = True
        if any(module.starts_at_once for module in self.modules):
            self.start()

    def _set_up(self, start: int) -> None:
        """Make runners whose first ticket is `start`, and the state of their threads; starts nothing."""
        self._length = _length_of(self._source)
        self._runners = make_runners(
            self._modules, self._ordered, self._bound, self._length, self._follower, start
        )
        self._last = self._runners[-1].output
        self._first_ticket = start
        self._rejected = self._dropped = 0
        self._outcome = Outcome()
        queues = [runner.output for runner in self._runners]
        self._control = Control(self.modules, queues, self._bound)
        self._tuning = Tuning(self._runners, self._control, self._outcome, self._bound)
        self._finalizer = weakref.finalize(self, self._control.shutdown)

    def start(self) -> None:
        """Start the threads now, instead of with the first batch that is requested; nothing if they run.

        Raises
        ------
        PipelineStateError
            The pipeline was stopped, or belongs to the parent process of a fork.
        Exception
            A module cannot start.
        """
        self._refuse_forked("start()")
        if not self._started:
            with self._turn:
                self._ensure_started()

    def _ensure_started(self) -> None:
        """Start, at `_place`, unless started already; called with `_turn` held."""
        if self._started:
            return
        if self._control.closing:
            raise self._outcome.error("start()")
        self._finalizer.detach()
        # This process runs the pipeline, whichever made it.
        self._control.adopt()
        self._finalizer = weakref.finalize(self, self._control.shutdown)
        self._started = True
        try:
            for module in self.modules:
                # A weak reference: the callable must not keep the pipeline alive.
                module.enter(self.modules, partial(_figures, weakref.ref(self)))
            begin = 0 if self._place is None else self._source.begin_at(self._place)
            self._finalizer.detach()
            self._set_up(begin)
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        for runner in self._runners:
            runner.start(self._control, self._outcome, self._tuning)

    def dequeue(self, block: bool = True, timeout: float | None = None) -> Batch:
        """Return the next batch. Thread-safe.

        Parameters
        ----------
        block : bool
            Wait for a batch.
        timeout : float, optional
            Longest wait in seconds.

        Returns
        -------
        Batch

        Raises
        ------
        EndOfData
            There are no more batches; the message says which epochs are over.
        WaitTimeout
            No batch arrived in time.
        PipelineStateError
            The pipeline was stopped, ends in a sink (see `wait`), or belongs to the parent process of a fork.
        Exception
            Whatever a module raised.
        """
        self._refuse("dequeue()", sink=False)
        if not isinstance(block, (bool, np.bool_)):
            # A number here was meant as the timeout.
            raise ArgumentError(
                f"Pipeline.dequeue: block is {block!r}; expected True or False; timeout= is for seconds"
            )
        _check_timeout("dequeue", timeout)
        try:
            return self._get(bool(block), timeout)
        except EndOfData:
            raise self._end("dequeue()") from None
        except WaitTimeout:
            raise WaitTimeout(
                f"Pipeline.dequeue: no batch arrived within {timeout or 0:g} s. {self.stats().verdict}"
            ) from None
        except QueueClosed:
            pass
        raise self._outcome.error("dequeue()")

    def __iter__(self) -> EpochIterator:
        """Iterate over the next epoch; after `load_state_dict`, over the rest of the epoch of the state.

        The epoch begins with the first batch that is requested. After a ``break`` in an earlier epoch, this drops its
        remaining batches and those made ahead.

        Raises
        ------
        EndOfData
            No epoch remains: all ``epochs`` of the source were iterated.
        EmptyEpochError
            All batches of the epoch were skipped; the next iteration begins the next epoch.
        PipelineStateError
            As `dequeue`; or another iteration has begun since this one; or the pipeline is unordered and its source
            does not know its length.
        Exception
            As `dequeue`.
        """
        return self._epoch_iterator(None, "iteration")

    def epoch(self, n: int | None = None) -> EpochIterator:
        """Iterate over epoch `n` from its start, whatever was iterated before, or over the next epoch.

        Parameters
        ----------
        n : int, optional
            0 or more; by default the next epoch, as ``iter(pipeline)``. An epoch other than the next drops the batches
            that were made ahead.

        Returns
        -------
        EpochIterator
            An iterator with a length.

        Raises
        ------
        ArgumentError
            `n` is not 0 or more.
        EndOfData
            The source has not so many epochs.
        PipelineStateError
            The source cannot go back to this epoch.
        Exception
            See ``__iter__``.
        """
        wanted = None if n is None else whole("Pipeline.epoch", "n", n, 0, 2**32 - 1)
        return self._epoch_iterator(wanted, "epoch()")

    def _epoch_iterator(self, epoch: int | None, what: str) -> EpochIterator:
        self._refuse(what, sink=False)
        if self._length is None and not self._ordered and self._source.follows_delivery:
            raise PipelineStateError(
                f"Pipeline.{what}: {self._source.name} does not know the number of batches in an epoch, so an "
                "unordered pipeline cannot tell where an epoch ends; use ordered=True, or dequeue() and forever()"
            )
        if epoch is None and self._is_over:
            raise self._end(what)
        if self._length is not None:
            self._check_epoch(self._next_epoch if epoch is None else epoch, what)
        return EpochIterator(self, epoch)

    def forever(self) -> Iterator[Batch]:
        """Iterate over the batches of one epoch after the other, from the current position, to the end of the data.

        Several threads may iterate at once: each batch goes to one of them.

        Raises
        ------
        EndOfData
            No batches remain. An iteration ends without an error only if some batch was returned since its start.
        Exception
            As `dequeue`.
        """
        self._refuse("forever()", sink=False)
        if self._is_over:
            raise self._end("forever()")
        return self._forever(self._taken())

    def _forever(self, taken: int) -> Iterator[Batch]:
        while True:
            try:
                batch = self._get()
            except EndOfData:
                if self._taken() == taken:
                    raise self._end("forever()") from None
                return
            except QueueClosed:
                break
            yield batch
            del batch
        raise self._outcome.error("forever()")

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the sink has consumed everything.

        Parameters
        ----------
        timeout : float, optional
            Longest wait in seconds.

        Raises
        ------
        WaitTimeout
            The pipeline is not done.
        PipelineStateError
            The pipeline was stopped before its end, has no sink, or belongs to the parent process of a fork.
        Exception
            Whatever a module raised.
        """
        self._refuse("wait()", sink=True)
        _check_timeout("wait", timeout)
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
        """Stop all threads and drop the batches in the queues; batches that you have stay valid.

        Takes less than 2 s, whatever the threads do, as long as no module's `interrupt` waits: a thread
        that does not end by then keeps running, and a RuntimeWarning names its module. You may call it
        again, from any thread; called by a module, it does not wait.
        """
        if not self._started:
            # No thread runs, in whichever process.
            self._control.close()
            self._finalizer.detach()
            return
        if self._control.forked:
            return
        stopped = None
        # A thread that loads a state may replace it.
        while stopped is not self._control:
            stopped, finalizer = self._control, self._finalizer
            try:
                stopped.shutdown()
            finally:
                finalizer.detach()

    def drain(self, timeout: float | None = None) -> None:
        """Start no new tasks, finish those in progress, and stop; for a pipeline that ends in a sink.

        Parameters
        ----------
        timeout : float, optional
            Longest wait in seconds.

        Raises
        ------
        WaitTimeout
            Batches are still in progress; the pipeline continues with them.
        PipelineStateError
            The pipeline does not end in a sink, or was stopped.
        Exception
            Whatever a module raised.
        """
        self._refuse("drain()", sink=True)
        _check_timeout("drain", timeout)
        first = self._runners[0]
        assert isinstance(first, SourceRunner)
        first.end_tasks()
        self.wait(timeout)
        self.stop()

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data, to continue from it in another process: small, JSON-serializable.

        The position is after the last batch that `dequeue` or iteration returned; prefetched batches do not count.
        Skipped samples count as returned. After `stop` or a failure, it is the position at that time.

        Raises
        ------
        PipelineStateError
            The source has no state; the pipeline is unordered, or ends in a sink.
        """
        self._refuse("state_dict()", sink=self._has_sink)
        if not self._source.seekable:
            return self._source.state_dict()
        self._refuse_state("state_dict()")
        if not self._ordered:
            raise PipelineStateError(
                "Pipeline.state_dict: an unordered pipeline returns whichever batch is ready, so it has no position "
                "in the order of the data; use ordered=True"
            )
        return self._source.state_at(self._last.next_ticket)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `state_dict` returned; the next iteration is the rest of its epoch.

        Drops all batches made ahead and ends iterations; statistics and `errors` start again.

        Raises
        ------
        StateMismatchError
            The state is not valid, or belongs to other data. Nothing was loaded.
        PipelineStateError
            The source has no state, or the pipeline ends in a sink; a `ZMQSource` has already delivered batches.
        Exception
            Whatever a module has raised so far.
        """
        self._refuse("load_state_dict()", sink=self._has_sink)
        if not self._source.seekable:
            self._source.load_state_dict(state)
            self._last_epoch, self._touched = None, True
            return
        self._refuse_state("load_state_dict()")
        with self._turn:
            place = self._source.find(state)
            if self._control.closing:
                raise self._outcome.error("load_state_dict()")
            self._iteration += 1
            try:
                self._begin_at(place)
            except BaseException:
                self._started = True
                self._control.shutdown()
                raise

    def _begin_at(self, place: Any) -> None:
        """Drop all batches made so far, and begin at a place that the source has found, with new statistics."""
        if self._started:
            before, outcome = self._control, self._outcome
            self._drop_batches("load_state_dict()")
            before.retire()
            self._finalizer.detach()
            self._set_up(self._source.begin_at(place))
            if before.closing:
                self._outcome = outcome
                raise outcome.error("load_state_dict()")
            self._start()
        else:
            self._place = place
            self._finalizer.detach()
            self._set_up(self._source.begin_at(place))
        self._touched = True
        self._last_epoch = None
        if self._length:
            self._next_epoch, done = divmod(self._first_ticket, self._length)
            self._resumed = bool(done) or place != self._source.front(self._next_epoch)
            self._whole_from = (self._next_epoch + self._resumed) * self._length

    def _drop_batches(self, what: str) -> None:
        """End the tasks and drop all batches that are in progress or wait; the threads end."""
        outcome = self._outcome
        first = self._runners[0]
        assert isinstance(first, SourceRunner)
        first.end_tasks()
        for runner in self._runners:
            runner.dropping = True
        try:
            while True:
                self._last.get()
                self._dropped += 1
        except EndOfData:
            pass
        except QueueClosed:
            raise outcome.error(what) from None

    def stats(self) -> PipelineStats:
        """Return the statistics of every module and the bottleneck; works after `stop` too.

        Raises
        ------
        PipelineStateError
            The pipeline belongs to the parent process of a fork.
        """
        self._refuse("stats()", sink=self._has_sink)
        runners = self._runners
        seconds = self._control.seconds()
        modules = tuple(runner.stats(self._control, seconds) for runner in runners)
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
                self._source.machines(),
            )
        measures = self._last.measures()
        return PipelineStats(
            modules,
            seconds,
            int(measures["batches"]) - self._dropped,
            measures["waited_items"],
            usable_cores(),
            tuning,
            settled,
            self._left_out,
            self._source.machines(),
        )

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Bad samples that the source has skipped or replaced: (key, reason), once each; `stats` counts every time."""
        return list(getattr(self._source, "errors", ()))

    @property
    def spec(self) -> Spec | None:
        """Names, dtypes and shapes of the fields, known before the first batch; starts nothing.

        A dict of names to `FieldSpec`, in the order of the fields, where None stands for what is not known. None if not
        even the names are known: after a `ZMQSource`, or a module of your own without `out_spec`. In a pipeline that
        ends in a sink, the fields that the sink gets.
        """
        spec: Spec | None = None
        for module in self.modules[: len(self.modules) - self._has_sink]:
            spec = module.out_spec(spec)
        return spec

    def __len__(self) -> int:
        """Number of batches in an epoch.

        Raises
        ------
        UnknownLengthError
            The source does not know it.
        """
        if self._length is None:
            raise UnknownLengthError(
                f"Pipeline: {self._source.name} does not know the number of batches in an epoch"
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
        if self._outcome.failures:
            state = "failed"
        elif self._control.closing:
            state = "stopped"
        else:
            state = "running" if self._started else "not started"
        return f"<Pipeline {' -> '.join(runner.name for runner in self._runners)}, {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        state = self.state_dict() if self._touched and not self._has_sink else None
        return _restored, (list(self._given), self._ordered, self._bound, state)

    def _refuse_forked(self, what: str) -> None:
        if self._started and self._control.forked:
            raise PipelineStateError(
                f"Pipeline.{what}: the parent process has started this pipeline, and its threads do not run here; make "
                "a pipeline in this process, or start it only here"
            )

    def _refuse(self, what: str, *, sink: bool) -> None:
        self._refuse_forked(what)
        if sink and not self._has_sink:
            raise PipelineStateError(
                f"Pipeline.{what}: this pipeline does not end in a sink; take its batches with dequeue()"
            )
        if not sink and self._has_sink:
            raise PipelineStateError(
                f"Pipeline.{what}: this pipeline ends in {self._runners[-1].name}, which consumes all batches; "
                "wait for its end with wait()"
            )

    def _refuse_state(self, what: str) -> None:
        if self._has_sink:
            raise PipelineStateError(
                f"Pipeline.{what}: this pipeline ends in {self._runners[-1].name}, which consumes all batches; only a "
                "pipeline without a sink, used with dequeue(), has a state"
            )

    def _get(self, block: bool = True, timeout: float | None = None, before: int | None = None) -> Batch:
        """Return the next batch of those with tickets below `before`."""
        if not self._started:
            self.start()
        batch: Batch | None
        if self._follower is None:
            ticket, batch = self._last.get(block, timeout, before)
            assert batch is not None
            self._note(ticket, batch)
            return batch
        deadline = None if timeout is None else clock() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - clock())
            ticket, batch = self._last.get(block, left, before)
            if self._hands_out(ticket, batch):
                return cast(Batch, batch)

    def _note(self, ticket: int, batch: Batch) -> None:
        """Note a batch that is returned to the user."""
        self._last_epoch = batch.epoch
        self._touched = True
        if self._length and ticket >= self._next_epoch * self._length:
            with self._turn:
                self._next_epoch = max(self._next_epoch, ticket // self._length + 1)
                self._resumed = False

    def _hands_out(self, ticket: int, batch: Batch | None) -> bool:
        """Return whether a taken batch is for the user; notifies a source that follows the delivery."""
        wanted = self._follower is None or self._follower.delivered(ticket)
        if batch is None:
            return False
        if wanted:
            self._note(ticket, batch)
        else:
            with self._turn:
                self._rejected += 1
        return wanted

    def _taken(self) -> int:
        """Return the number of batches that were returned to the user."""
        return int(self._last.measures()["batches"]) - self._rejected - self._dropped

    @property
    def _is_over(self) -> bool:
        """Whether the data has ended and every batch was returned, in a pipeline that was not stopped since."""
        total = self._last.last_total
        return total is not None and self._last.next_ticket >= total and not self._control.closing

    def _end(self, what: str) -> EndOfData:
        """Return the error to raise where no batches remain."""
        total, first, taken = self._last.last_total or 0, self._first_ticket, self._taken()
        skipped = sum(worker.skipped_batches for runner in self._runners for worker in runner.workers)
        begin, last = 0, self._last_epoch or 0
        if self._length:
            begin, last = first // self._length, max(first, total - 1) // self._length
        of = f"epoch {begin}" if begin == last else f"epochs {begin} to {last}"
        if taken:
            found = f"all batches were delivered, {taken} of {of}"
            found += f"; {skipped} more were skipped, see stats()" if skipped else ""
        elif skipped:
            found = f"all {skipped} batches of {of} were skipped, see errors and stats()"
        elif self._length:
            found = f"there are no batches from epoch {begin} on"
        elif self._source.follows_delivery:
            found = "no batches arrived: there are none, or the data machine skipped all, see stats() there"
        else:
            found = "there are no batches"
        return EndOfData(
            f"Pipeline.{what}: {found}. For more, use a larger epochs= of its source or epochs=None for endless data; "
            "epoch(n) begins an earlier epoch again"
        )

    # Iteration: called by EpochIterator

    def _begin_iteration(self, iteration: EpochIterator) -> None:
        """Begin the epoch of an iterator: seek where the next batch is not its first."""
        with self._turn:
            self._ensure_started()
            self._iteration += 1
            iteration.number = self._iteration
            if self._length:
                self._begin_epoch(iteration, self._length)
            else:
                iteration.begin_after = self._last_epoch

    def _begin_epoch(self, iteration: EpochIterator, length: int) -> None:
        epoch = self._next_epoch if iteration.epoch is None else iteration.epoch
        self._check_epoch(epoch, "iteration")
        resumed = iteration.epoch is None and self._resumed
        front = epoch * length
        iteration.length = self._remaining(length) if resumed else length
        queue = self._last
        if not resumed and not (queue.next_ticket >= front >= max(queue.reached, self._whole_from)):
            self._seek(epoch, front)
        iteration.epoch, iteration.end, iteration.resumed = epoch, front + length, resumed
        self._next_epoch, self._resumed = epoch + 1, False

    def _check_epoch(self, epoch: int, what: str) -> None:
        epochs = self._source.epochs
        if epochs is not None and epoch >= epochs:
            raise EndOfData(
                f"Pipeline.{what}: there is no epoch {epoch}: {self._source.name} has epochs={epochs}, counted from 0. "
                "Use a larger epochs=, or epochs=None for endless data; epoch(n) begins an earlier epoch again"
            )

    def _remaining(self, length: int) -> int:
        """Return the number of batches of a resumed epoch, from the position of its state on."""
        return (self._first_ticket // length + 1) * length - self._first_ticket

    def _seek(self, epoch: int, front: int) -> None:
        """Make the first batch of an epoch the next one; drops the batches that were made ahead."""
        source = self._source
        if not source.seekable:
            self._discard(epoch, front)
            return
        self._drop_batches("iteration")
        self._control.join()
        if self._control.closing:
            raise self._outcome.error("iteration")
        start = source.seek(source.front(epoch))
        try:
            for runner in self._runners:
                runner.rewind(start)
            self._control.resume()
            self._whole_from = start
            self._start()
        except QueueClosed:
            raise self._outcome.error("iteration") from None
        if self._control.closing:
            # stop() has ended only the threads that ran before.
            self._control.shutdown()

    def _discard(self, epoch: int, front: int) -> None:
        """Drop the batches before ticket `front`, of a source that cannot seek."""
        if self._last.reached > front:
            raise PipelineStateError(
                f"Pipeline.epoch: {self._source.name} cannot go back to epoch {epoch}; make a new pipeline"
            )
        try:
            while True:
                self._last.get(before=front)
                self._dropped += 1
        except EndOfData:
            pass
        except QueueClosed:
            raise self._outcome.error("iteration") from None

    def _check_current(self, iteration: EpochIterator) -> None:
        if iteration.number != self._iteration:
            raise superseded()

    def _next_of(self, iteration: EpochIterator) -> Batch:
        """Return the next batch of an iteration; EndOfData at the end of its epoch."""
        self._check_current(iteration)
        if self._length or not self._ordered:
            batch = self._get(before=iteration.end)
        else:
            batch = self._next_of_numbered(iteration)
        self._check_current(iteration)
        return batch

    def _next_of_numbered(self, iteration: EpochIterator) -> Batch:
        """As `_next_of`, where only the epoch numbers of the batches tell the epochs apart."""
        queue, source = self._last, self._runners[0]
        assert isinstance(source, SourceRunner)
        while True:
            ticket, batch = queue.peek()
            dropped = False
            if batch is not None and not source.nameless:
                if not iteration.yielded and self._is_before(iteration, batch.epoch):
                    dropped = True
                elif iteration.epoch is None:
                    iteration.epoch = batch.epoch
                elif batch.epoch != iteration.epoch:
                    raise EndOfData("the epoch is over")
            if not queue.take(ticket) or not self._hands_out(ticket, batch):
                continue
            if not dropped:
                return cast(Batch, batch)
            self._dropped += 1

    def _is_before(self, iteration: EpochIterator, epoch: int) -> bool:
        """Whether batches of this epoch come before the iteration; raises if its epoch cannot come any more."""
        if iteration.epoch is None:
            return epoch == iteration.begin_after
        if epoch > iteration.epoch or iteration.epoch == iteration.begin_after:
            raise PipelineStateError(
                f"Pipeline.epoch: {self._source.name} cannot go back to epoch {iteration.epoch}; the next batch is of "
                f"epoch {epoch}"
            )
        return epoch < iteration.epoch

    def _continues(self, iteration: EpochIterator) -> bool:
        """Whether an iteration that has found no batch goes on; raises otherwise."""
        length, total = self._length, self._last.last_total
        if not length or iteration.end is None or (total is not None and total <= iteration.end - length):
            raise self._end("iteration")
        assert iteration.epoch is not None
        if not iteration.resumed:
            raise EmptyEpochError(
                f"Pipeline: all {length} batches of epoch {iteration.epoch} were skipped; expected one or more. "
                "errors and stats() list what was skipped; the next iteration begins the next epoch"
            )
        # The rest of the resumed epoch was skipped.
        with self._turn:
            self._check_epoch(iteration.epoch + 1, "iteration")
            iteration.resumed = False
            iteration.epoch += 1
            iteration.end += length
            iteration.length = length
            self._next_epoch = max(self._next_epoch, iteration.epoch + 1)
        return True

    def _length_of(self, iteration: EpochIterator) -> int:
        if iteration.length is not None:
            return iteration.length
        length = len(self)
        return self._remaining(length) if iteration.epoch is None and self._resumed else length


def _restored(
    modules: list[Module], ordered: bool, max_bytes: int, state: Mapping[str, Any] | None
) -> Pipeline:
    """Make a pipeline from its pickle."""
    pipeline = Pipeline(modules, ordered=ordered, max_bytes=max_bytes)
    if state is not None:
        pipeline.load_state_dict(state)
    return pipeline


def _length_of(source: Source) -> int | None:
    return len(cast(Sized, source)) if hasattr(source, "__len__") else None


def _checked(modules: Sequence[Module]) -> list[Module]:
    if not isinstance(modules, (list, tuple)) or not modules:
        way = (
            f"; put it into a list: [{_kind(modules).partition(',')[0]}(...)]"
            if isinstance(modules, Module)
            else ""
        )
        raise ArgumentError(
            f"Pipeline: modules must be a list that begins with a Source, but is {modules!r}{way}"
        )
    last = len(modules) - 1
    for place, module in enumerate(modules):
        if not isinstance(module, Module):
            parts = module if isinstance(module, (list, tuple)) else [module]
            transforms = any(hasattr(part, "apply_images") for part in parts)
            way = "; transforms go into Augmentations([...])" if transforms else ""
            raise ArgumentError(f"Pipeline: modules[{place}] must be a Module, but is {_kind(module)}{way}")
        if place == 0 and not isinstance(module, Source):
            raise ArgumentError(
                f"Pipeline: modules[0] must be a Source, such as ImageFileReader(...), but is {_kind(module)}"
            )
        if place > 0 and not isinstance(module, (Stage, Sink) if place == last else Stage):
            allowed = "a Stage or a Sink" if place == last else "a Stage"
            way = "; a Sink is the last module" if isinstance(module, Sink) else ""
            raise ArgumentError(f"Pipeline: modules[{place}] must be {allowed}, but is {_kind(module)}{way}")
    _check_seeds(modules)
    return list(modules)


def _check_seeds(modules: Sequence[Module]) -> None:
    """Raise for a drawn seed where other ranks or machines need the same seed."""
    source, sink = modules[0], modules[-1]
    assert isinstance(source, Source)
    for module in modules:
        if not module.seed_drawn:
            continue
        if source.shard[1] > 1:
            why = f"each of the {source.shard[1]} ranks would draw another"
        elif isinstance(sink, Outlet):
            why = f"lost batches of {sink.name} may be made again, elsewhere or later, with another seed"
        else:
            continue
        raise ArgumentError(
            f"{module.name}: seed is None, and {why}; expected a number, the same for all, such as "
            "secrets.randbits(64), drawn once"
        )


def _check_timeout(method: str, timeout: object) -> None:
    # `not >= 0` instead of `< 0`: no comparison with nan is true.
    if timeout is not None and not (isinstance(timeout, Real) and float(timeout) >= 0):
        raise ArgumentError(
            f"Pipeline.{method}: timeout is {timeout!r}; expected seconds, 0 or more, or None"
        )


def _figures(reference: weakref.ref[Pipeline]) -> PipelineStats | None:
    """Return the statistics of a pipeline that is alive and complete; else None."""
    pipeline = reference()
    return pipeline.stats() if pipeline is not None and pipeline._complete else None


def _kind(thing: object) -> str:
    name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
    if isinstance(thing, type):
        return f"the class {name} itself; call it"
    for kind in (Source, Stage, Sink):
        if isinstance(thing, kind):
            return f"{name}, a {kind.__name__}"
    return name
