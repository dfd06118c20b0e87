"""Pipeline: connects modules, runs them, and returns their batches.

`highway.engine.module` has the base classes of modules; `highway.engine.workers` has the threads.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from functools import partial
from itertools import count
from numbers import Real
from types import TracebackType
from typing import Any, cast

import numpy as np

from highway.arguments import flag, whole
from highway.arguments.signatures import explained
from highway.batch import Batch
from highway.engine.composition import check_seeds, checked
from highway.engine.iteration import EpochIterator, superseded
from highway.engine.module import Failure, Module, Outlet, Sink, Source, Stage, usable_cores
from highway.engine.spec import Spec
from highway.engine.stats import PipelineStats
from highway.engine.waits import Waits, WaitStats
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
# Numbers that tell the pipelines of this process apart.
_numbers = count()


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
        self._started = self._entered = False
        self._number = next(_numbers)
        self._given = tuple(checked(modules))
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
        # Changes when the batches made so far are dropped, and when others follow.
        self._moves = 0
        # Whether the batches made so far are being dropped: what a thread takes now is not for the user.
        self._moving = False
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
        self._length = _known_length(self._source)
        self._runners = make_runners(
            self._modules, self._ordered, self._bound, self._length, self._follower, start
        )
        self._last = self._runners[-1].output
        self._first_ticket = start
        self._rejected = self._dropped = 0
        self._waits = Waits()
        self._outcome = Outcome()
        queues = [runner.output for runner in self._runners]
        self._control = Control(self.modules if self._entered else (), queues, self._bound)
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
        if self._started and self._control.closing:
            raise self._outcome.error("start()")
        if not self._started:
            with self._turn:
                self._ensure_started()

    def _ensure_started(self) -> None:
        """Start, at `_place`, unless started already; called with `_turn` held."""
        if self._started:
            return
        before = self._control
        if before.closing:
            raise self._outcome.error("start()")
        # This process runs the pipeline, whichever made it; only modules that were entered are interrupted.
        before.adopt()
        before.enter(self.modules)
        self._entered = True
        try:
            for module in self.modules:
                # A weak reference: the callable must not keep the pipeline alive.
                module.enter(self.modules, partial(_figures, weakref.ref(self)))
            # Which ranks there are may be known only now.
            check_seeds(self.modules)
            begin = 0 if self._place is None else self._source.begin_at(self._place)
            self._finalizer.detach()
            self._set_up(begin)
            # Only now: from here on, other threads use the queues without `_turn`.
            self._started = True
            if before.closing:
                raise self._outcome.error("start()")
            self._start()
            # stop() may have ended only the threads that ran before.
            self._control.end_late(self._outcome)
        except BaseException:
            self._started = True
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
            return self._measured(self._get, bool(block), timeout)
        except EndOfData:
            raise self._end("dequeue()") from None
        except WaitTimeout:
            raise WaitTimeout(
                f"Pipeline.dequeue: no batch arrived within {timeout or 0:g} s. {self.stats().advice}"
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
            raise self._no_epochs(what)
        if self._control.closing:
            raise self._outcome.error(what)
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
                batch = self._measured(self._get)
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
                f"Pipeline.wait: the sink was not done within {timeout or 0:g} s. {self.stats().advice}"
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
            self._control.adopt()
        elif self._control.forked:
            return
        stopped = None
        # A thread that starts the pipeline or loads a state may replace it.
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
        self._refuse_own_thread("load_state_dict()")
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

    def skip(self, *, samples: Iterable[int | str] = (), steps: Iterable[int | tuple[int, int]] = ()) -> None:
        """Skip samples and steps from the next batch on, also in resumed runs: `state_dict` contains them.

        A skipped sample is dropped from its batch, which gets smaller; a skipped step is a batch that is not delivered.
        Lengths, numbers of batches (``batch.seq``) and the order of the other samples stay the same. Call it on all
        ranks after the same step and with the same arguments: all ranks then have equally many batches, since a
        batch that would be empty on one of them is skipped on all.

        Drops the batches made ahead; the current iteration continues. Do not take batches in another thread meanwhile.

        Parameters
        ----------
        samples : iterable of int or str
            Indices, as in ``batch.indices``, or keys, as in ``batch.keys``; in all epochs.
        steps : iterable of int or (int, int)
            Numbers of batches, as ``batch.seq``, or pairs of epoch and number. A number alone is one of the epoch that
            the next batch belongs to.

        Raises
        ------
        ArgumentError
            There is no such sample or step, or the step was delivered already; or they are more than 4096 intervals of
            numbers.
        PipelineStateError
            The source is not a reader; the pipeline ends in a sink, or is unordered.
        Exception
            Whatever a module has raised so far.
        """
        self._refuse("skip()", sink=self._has_sink)
        self._refuse_own_thread("skip()")
        self._refuse_state("skip()")
        if not self._ordered:
            raise PipelineStateError(
                "Pipeline.skip: an unordered pipeline has no position in the order of the data; use ordered=True"
            )
        for name, given in (("samples", samples), ("steps", steps)):
            if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
                raise ArgumentError(
                    f"Pipeline.skip: {name} is {given!r}; expected a list, such as [{given!r}]"
                )
        with self._turn:
            if self._control.closing:
                raise self._outcome.error("skip()")
            # Steps have numbers only where rank and world are known.
            self._ensure_started()
            place = self._source.skip(self._last.next_ticket, samples, steps)
            self._touched = True
            self._move(place, "skip()")

    def _begin_at(self, place: Any) -> None:
        """Drop all batches made so far, and begin at a place that the source has found, with new statistics."""
        if self._started:
            before, outcome = self._control, self._outcome
            self._drop_batches("load_state_dict()")
            before.retire()
            self._finalizer.detach()
            self._set_up(self._source.begin_at(place))
            self._moving = False
            if before.closing:
                self._outcome = outcome
                raise outcome.error("load_state_dict()")
            self._start()
        else:
            self._place = place
            self._finalizer.detach()
            self._set_up(self._source.begin_at(place))
        self._moves += 1
        self._touched = True
        self._last_epoch = None
        if self._length:
            self._next_epoch, done = divmod(self._first_ticket, self._length)
            self._resumed = bool(done) or place != self._source.front(self._next_epoch)
            self._whole_from = (self._next_epoch + self._resumed) * self._length

    def _drop_batches(self, what: str) -> None:
        """End the tasks and drop all batches that are in progress or wait; the threads end."""
        self._moves += 1
        self._moving = True
        first = self._runners[0]
        assert isinstance(first, SourceRunner)
        first.end_tasks()
        for runner in self._runners:
            runner.dropping = True
        if not self._drops():
            raise self._outcome.error(what)

    def _drops(self, before: int | None = None) -> bool:
        """Take all batches with tickets below `before`; return False if the pipeline is stopped or fails."""
        # Nothing is raised here: `raise ... from None` would clear the cause of a module's exception.
        with suppress(QueueClosed):
            try:
                while True:
                    self._last.get(before=before)
                    self._dropped += 1
            except EndOfData:
                return True
        return False

    def stats(self, *, since: PipelineStats | None = None) -> PipelineStats:
        """Return the statistics of every module, the exposed wait and the bottleneck; works after `stop` too.

        Parameters
        ----------
        since : PipelineStats, optional
            Earlier statistics of this pipeline: only what happened since then counts, as in
            ``stats = pipeline.stats(since=stats)`` after each epoch. By default everything since the start, or since
            `load_state_dict`.

        Raises
        ------
        ArgumentError
            `since` is not of this pipeline.
        PipelineStateError
            The pipeline belongs to the parent process of a fork.
        """
        self._refuse("stats()", sink=self._has_sink)
        now = self._stats_now()
        if since is None:
            return now
        given: object = since
        if not isinstance(given, PipelineStats) or given.origin[:1] != now.origin[:1]:
            found = "of another pipeline" if isinstance(given, PipelineStats) else repr(given)
            raise ArgumentError(
                f"Pipeline.stats: since is {found}; expected what stats() of this pipeline has returned"
            )
        return now.since(since)

    def _stats_now(self) -> PipelineStats:
        seconds = self._control.seconds()
        modules = tuple(runner.stats(self._control, seconds) for runner in self._runners)
        tuning, settled = self._tuning.report()
        delivered, waited, waits = modules[-1].batches, None, None
        epochs: tuple[WaitStats, ...] = ()
        if not self._has_sink:
            measures = self._last.measures()
            delivered, waited = int(measures["batches"]) - self._dropped, measures["waited_items"]
            waits, epochs = self._waits.stats()
        return PipelineStats(
            modules,
            seconds,
            delivered,
            waited,
            usable_cores(),
            tuning,
            settled,
            self._left_out,
            self._source.machines(),
            waits,
            epochs,
            (self._number, self._control.started),
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

    def _get(
        self,
        block: bool = True,
        timeout: float | None = None,
        before: int | None = None,
        reader: int | None = None,
    ) -> Batch:
        """Return the next batch of those with tickets below `before`, while `reader` is the current iteration."""
        if not self._started:
            self.start()
        deadline = None if timeout is None else clock() + timeout
        left = timeout
        while True:
            moves, queue = self._moves, self._last
            try:
                ticket, batch = queue.get(block, left, before, reader)
            except EndOfData:
                if reader is not None or not self._has_moved(moves):
                    raise
                # Another thread has dropped the batches, to go on elsewhere.
                ticket, batch = -1, None
            if self._moving or queue is not self._last:
                with self._turn:
                    self._dropped += queue is self._last and batch is not None
            elif self._follower is None and batch is not None:
                self._note(ticket, batch, moves)
                return cast(Batch, batch)
            elif ticket >= 0 and self._hands_out(ticket, batch):
                return cast(Batch, batch)
            left = None if deadline is None else max(0.0, deadline - clock())

    def _has_moved(self, moves: int) -> bool:
        """Whether an epoch was begun or a state loaded since there were so many moves; waits if it is under way."""
        with self._turn:
            return self._moves != moves

    def _note(self, ticket: int, batch: Batch, moves: int) -> None:
        """Note a batch that is returned to the user, taken after so many moves."""
        self._last_epoch = batch.epoch
        self._touched = True
        if self._length and ticket >= self._next_epoch * self._length:
            with self._turn:
                if self._moves == moves:
                    self._next_epoch = max(self._next_epoch, ticket // self._length + 1)
                    self._resumed = False

    def _hands_out(self, ticket: int, batch: Batch | None) -> bool:
        """Return whether a taken batch is for the user; notifies a source that follows the delivery."""
        wanted = self._follower is None or self._follower.delivered(ticket)
        if batch is None:
            return False
        if wanted:
            self._note(ticket, batch, self._moves)
        else:
            with self._turn:
                self._rejected += 1
        return wanted

    def _taken(self) -> int:
        """Return the number of batches that were returned to the user."""
        return int(self._last.measures()["batches"]) - self._rejected - self._dropped

    def _measured(self, take: Callable[..., Batch], *arguments: object) -> Batch:
        """Return the batch that `take` waits for, and count the wait."""
        asked = clock()
        try:
            batch = take(*arguments)
        except BaseException:
            self._waits.blocked(clock() - asked)
            raise
        self._waits.took(batch, asked, clock())
        return batch

    @property
    def _is_over(self) -> bool:
        """Whether the data has ended and every batch was returned, in a pipeline that was not stopped since."""
        total = self._last.last_total
        return total is not None and self._last.next_ticket >= total and not self._control.closing

    def _end(self, what: str) -> EndOfData:
        """Return the error to raise where no batches remain."""
        total, first, taken = self._last.last_total, self._first_ticket, self._taken()
        if total is None:
            total = (self._source.epochs or 0) * (self._length or 0)
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
        asked = clock()
        self._begin(iteration)
        self._waits.blocked(clock() - asked)

    def _refuse_own_thread(self, what: str) -> None:
        thread = threading.current_thread()
        if any(thread is worker for worker, _ in self._control.threads):
            raise PipelineStateError(
                f"Pipeline.{what}: called in a thread of this pipeline, for which it would wait; call it where the "
                "batches are taken"
            )

    def _begin(self, iteration: EpochIterator) -> None:
        self._refuse_own_thread("iteration")
        with self._turn:
            self._ensure_started()
            self._iteration += 1
            self._last.admit(self._iteration)
            if self._length:
                self._begin_epoch(iteration, self._length)
            else:
                iteration.begin_after = self._last_epoch
            # Last: other threads that share the iterator then take batches.
            iteration.number = self._iteration

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
            if epoch == self._next_epoch and self._last.next_ticket >= epochs * (self._length or 1) > 0:
                # All were delivered, whether or not the source has said so already.
                raise self._end(what)
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
        self._move(source.front(epoch), "iteration")
        self._whole_from = front

    def _move(self, place: Any, what: str) -> None:
        """Drop the batches made ahead, and go on at a place of the source."""
        try:
            self._drop_batches(what)
            self._control.join()
            with suppress(QueueClosed):
                start = self._source.seek(place)
                for runner in self._runners:
                    runner.rewind(start)
                self._control.resume()
                self._moves += 1
                self._moving = False
                self._start()
            # stop() may have ended only the threads that ran before.
            self._control.end_late(self._outcome)
            if self._control.closing:
                raise self._outcome.error(what)
        except BaseException:
            # Half of the threads have ended: nothing would produce the remaining batches. After a failure of a module,
            # all of them end, and nobody waits for those that hang.
            if not self._outcome.failures:
                self._control.shutdown()
            raise

    def _discard(self, epoch: int, front: int) -> None:
        """Drop the batches before ticket `front`, of a source that cannot seek."""
        if self._last.reached > front:
            raise PipelineStateError(
                f"Pipeline.epoch: {self._source.name} cannot go back to epoch {epoch}; make a new pipeline"
            )
        if not self._drops(front):
            raise self._outcome.error("iteration")

    def _check_current(self, iteration: EpochIterator) -> None:
        if iteration.number != self._iteration:
            raise superseded() from None

    def _next_of(self, iteration: EpochIterator) -> Batch:
        return self._measured(self._take_next, iteration)

    def _take_next(self, iteration: EpochIterator) -> Batch:
        batch = None
        try:
            if self._length is None and self._ordered:
                batch = self._next_numbered(iteration)
            else:
                if self._length is None and not iteration.yielded:
                    self._refuse_numbered(iteration)
                batch = self._get(before=iteration.end, reader=iteration.number)
        except EndOfData:
            self._check_current(iteration)
            raise
        except QueueClosed:
            pass
        self._check_current(iteration)
        if batch is None:
            raise self._outcome.error("iteration")
        return batch

    def _refuse_numbered(self, iteration: EpochIterator) -> None:
        """Raise where unordered batches of several epochs would come as one; takes none."""
        self._last.peek(reader=iteration.number)
        source = self._runners[0]
        assert isinstance(source, SourceRunner)
        if not source.nameless:
            raise self._no_epochs("iteration")
        self._check_only_epoch(iteration)
        iteration.yielded = True

    def _check_only_epoch(self, iteration: EpochIterator) -> None:
        """Raise if a source without epoch numbers cannot begin the epoch."""
        if iteration.epoch is not None and (iteration.epoch > 0 or iteration.begin_after is not None):
            raise PipelineStateError(
                f"Pipeline.epoch: {self._source.name} cannot go to epoch {iteration.epoch}: it sets no epoch numbers, "
                "so all of its batches are epoch 0, which begins once; make a new pipeline"
            )

    def _no_epochs(self, what: str) -> PipelineStateError:
        return PipelineStateError(
            f"Pipeline.{what}: {self._source.name} does not know the number of batches in an epoch, so an "
            "unordered pipeline cannot tell where an epoch ends; use ordered=True, or dequeue() and forever()"
        )

    def _next_numbered(self, iteration: EpochIterator) -> Batch:
        """As `_next_of`, where only the epoch numbers of the batches tell the epochs apart."""
        queue, source = self._last, self._runners[0]
        assert isinstance(source, SourceRunner)
        while True:
            ticket, batch = queue.peek(reader=iteration.number)
            dropped = False
            if batch is not None and source.nameless:
                if not iteration.yielded:
                    self._check_only_epoch(iteration)
            elif batch is not None:
                if not iteration.yielded and self._is_before(iteration, batch.epoch):
                    dropped = True
                elif iteration.epoch is None:
                    iteration.epoch = batch.epoch
                elif batch.epoch != iteration.epoch:
                    raise EndOfData("the epoch is over")
            if not dropped and batch is not None:
                # Before it is taken: another thread may see the end first, and the epoch is not empty.
                iteration.seen = True
            if not queue.take(ticket, iteration.number) or not self._hands_out(ticket, batch):
                continue
            if not dropped:
                return cast(Batch, batch)
            self._dropped += 1

    def _is_before(self, iteration: EpochIterator, epoch: int) -> bool:
        """Whether batches of this epoch come before the iteration; raises if its epoch cannot come any more."""
        if iteration.wanted is None:
            return epoch == iteration.begin_after
        if epoch > iteration.wanted or iteration.wanted == iteration.begin_after:
            raise PipelineStateError(
                f"Pipeline.epoch: {self._source.name} cannot go back to epoch {iteration.wanted}; the next batch is of "
                f"epoch {epoch}"
            )
        return epoch < iteration.wanted

    def _continue_empty(self, iteration: EpochIterator) -> bool:
        if iteration.end is not None and self._last.reached > iteration.end - (iteration.length or 0):
            # Other threads took the batches, with dequeue().
            return False
        if iteration.seen and not self._rejected:
            # Another thread that shares the iterator has just taken the first batch, which it has not noted yet.
            return False
        length, total = self._length, self._last.last_total
        if not length or iteration.end is None or (total is not None and total <= iteration.end - length):
            raise self._end("iteration")
        assert iteration.epoch is not None
        if not iteration.resumed:
            raise EmptyEpochError(
                f"Pipeline: all {length} batches of epoch {iteration.epoch} were skipped; expected one or more. "
                "errors and stats() list what was skipped; the next iteration begins the next epoch"
            )
        if self._source.epochs is not None and iteration.epoch + 1 >= self._source.epochs:
            raise self._end("iteration")
        iteration.resumed = False
        iteration.epoch += 1
        iteration.end += length
        iteration.length = length
        with self._turn:
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


def _known_length(source: Source) -> int | None:
    return len(cast(Sized, source)) if hasattr(source, "__len__") else None


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
