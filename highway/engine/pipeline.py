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
from highway.engine.module import Failure, Module, Outlet, Sink, Source, Stage, usable_cores
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
    """Connects modules and runs them; starts when it is made.

    Parameters
    ----------
    modules : sequence of Module
        A Source, then Stages, and optionally a Sink at the end. A module belongs to one pipeline only.
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
        There are no modules, or one is in the wrong place or used twice; `max_bytes` is out of range.

    Notes
    -----
    If the constructor raises, the modules are unchanged and you can use them again.

    An exception of a module, in any of its threads, ends the pipeline, and every later call of `dequeue` or `wait`
    raises the same exception; but a ContractError instead of an EndOfData, EmptyEpochError, WaitTimeout or
    StopIteration, which callers would mistake for the end of this pipeline.

    Threads do not survive a fork: a child process can neither use nor stop a pipeline of its parent.
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

    @explained()
    def __init__(
        self, modules: Sequence[Module], *, ordered: bool = True, max_bytes: int | None = None
    ) -> None:
        self._complete = False
        modules = _checked(modules)
        before = [dict(vars(module)) for module in modules]
        try:
            self._construct(modules, ordered, max_bytes)
        except BaseException:
            try:
                if hasattr(self, "_finalizer"):
                    self.stop()
            finally:
                # You may try again with the same modules.
                for module, attributes in zip(modules, before, strict=True):
                    vars(module).clear()
                    vars(module).update(attributes)
            raise

    def _construct(self, modules: list[Module], ordered: bool, max_bytes: int | None) -> None:
        bound = (
            DEFAULT_MAX_BYTES
            if max_bytes is None
            else whole("Pipeline", "max_bytes", max_bytes, 1, MOST_BYTES)
        )
        self._bound = bound
        source = modules[0]
        assert isinstance(source, Source)
        self._source = source
        self._length = _length_of(source)
        self._ordered = flag("Pipeline", "ordered", ordered)
        self._has_sink = isinstance(modules[-1], Sink)
        for module in modules:
            module._taken = True
        for before, module in zip((None, *modules), modules, strict=False):
            module.follow(before)
        self._follower = source if source.follows_delivery and not isinstance(modules[-1], Outlet) else None
        self._left_out = tuple(module.name for module in modules if module.left_out)
        entered = tuple(modules)
        self._modules = [module for module in modules if not module.left_out]
        # Held while a state is loaded; whether a batch was requested.
        self._loading = threading.Lock()
        self._begun = False
        self._set_up(0)
        self._complete = True
        for module in entered:
            # A weak reference: the callable must not keep the pipeline alive.
            module.enter(entered, partial(_figures, weakref.ref(self)))
        self._start()

    def _set_up(self, start: int) -> None:
        """Make runners whose first ticket is `start`, and the state of their threads; starts nothing."""
        self._runners = make_runners(
            self._modules, self._ordered, self._bound, self._length, self._follower, start
        )
        self._last = self._runners[-1].output
        self._first_ticket = start
        self._epochs_done = 0
        # Epoch of the last batch that was returned; number of batches that the source dropped at the end.
        self._last_epoch: int | None = None
        self._rejected = 0
        # End of an epoch whose remaining batches were all skipped, and the number of batches returned until then.
        self._over: tuple[int, int] | None = None
        self._outcome = Outcome()
        queues = [runner.output for runner in self._runners]
        self._control = Control(self._modules, queues, self._bound)
        self._tuning = Tuning(self._runners, self._control, self._outcome, self._bound)
        self._finalizer = weakref.finalize(self, self._control.shutdown)

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

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over all remaining batches.

        Raises
        ------
        EndOfData
            No batches remain: all were returned before, or skipped. An iteration ends without an error only if some
            batch was returned since its start, by it or to another thread.
        Exception
            As `dequeue`.
        """
        self._refuse("iteration", sink=False)
        if self._is_over:
            raise self._end("iteration")
        return self._batches(None, False, self._taken())

    def epoch(self) -> Iterator[Batch]:
        """Iterate over the remaining batches of the current epoch, the epoch of the next batch.

        Ends without waiting for the next epoch if the source knows its length; otherwise when the first
        batch of the next epoch is ready, which stays in the queue.

        If all remaining batches of an epoch that has started were skipped, iterates over the next epoch.

        Raises
        ------
        EndOfData
            No epochs remain: all batches were returned before.
        EmptyEpochError
            All batches of the epoch were skipped, where its length is known; the next call begins the next epoch.
        PipelineStateError
            As for `dequeue`; or the pipeline is unordered and its source does not know its length.
        """
        self._refuse("epoch()", sink=False)
        self._begin()
        if self._length:
            taken = self._taken()
            over, total = self._is_over, self._last.last_total
            epoch, begun = self._current_epoch(self._length)
            if over and (begun or epoch * self._length >= (total or 0)):
                raise self._end("epoch()")
            return self._batches((epoch + 1) * self._length, begun, taken)
        if self._ordered:
            if self._is_over:
                raise self._end("epoch()")
            return self._batches_of_one_epoch(self._taken())
        raise PipelineStateError(
            f"Pipeline.epoch: {self._source.name} does not know the number of batches in an epoch, so an "
            "unordered pipeline cannot tell where an epoch ends; use ordered=True, or define __len__ in the source"
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
        """Continue from a position that `state_dict` returned.

        Call it before the first `dequeue`. It waits for the batches in progress and drops all prefetched ones;
        statistics and `errors` start again.

        Raises
        ------
        StateMismatchError
            The state is not valid, or belongs to other data. Nothing was loaded.
        PipelineStateError
            The source has no state, batches were already requested, or the pipeline ends in a sink.
        Exception
            Whatever a module has raised so far.
        """
        self._refuse("load_state_dict()", sink=self._has_sink)
        if not self._source.seekable:
            self._source.load_state_dict(state)
            return
        self._refuse_state("load_state_dict()")
        with self._loading:
            if self._begun:
                raise PipelineStateError(
                    "Pipeline.load_state_dict: batches were already requested; load a state before the first dequeue()"
                )
            place = self._source.find(state)
            try:
                self._begin_at(place)
            except BaseException:
                self.stop()
                raise

    def _begin_at(self, place: Any) -> None:
        """Drop all batches made so far, and start at a place that the source has found."""
        before, outcome = self._control, self._outcome
        first = self._runners[0]
        assert isinstance(first, SourceRunner)
        first.end_tasks()
        for runner in self._runners:
            runner.dropping = True
        try:
            while True:
                self._last.get()
        except EndOfData:
            pass
        except QueueClosed:
            raise outcome.error("load_state_dict()") from None
        before.retire()
        self._finalizer.detach()
        self._set_up(self._source.begin_at(place))
        if before.closing:
            self._outcome = outcome
            raise outcome.error("load_state_dict()")
        self._start()

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
            int(measures["batches"]),
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
        state = "failed" if self._outcome.failures else "stopped" if self._control.closing else "running"
        return f"<Pipeline {' -> '.join(runner.name for runner in self._runners)}, {state}>"

    def _refuse(self, what: str, *, sink: bool) -> None:
        if self._control.forked:
            raise PipelineStateError(
                f"Pipeline.{what}: this pipeline and its threads belong to the parent process; make a pipeline after "
                "forking"
            )
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

    def _begin(self) -> None:
        """Note that batches are requested: from now on no state can be loaded."""
        with self._loading:
            self._begun = True

    def _current_epoch(self, length: int) -> tuple[int, bool]:
        """Return the epoch of the next batch, as far as known, and whether some of its batches were taken.

        An epoch that ends in skipped batches is over once an iteration has reached its end.
        """
        reached = self._last.reached
        if self._ordered or reached == 0:
            epoch = reached // length
        else:
            epoch = (reached - 1) // length
            epoch += self._last.next_ticket >= (epoch + 1) * length
        epoch = max(epoch, self._epochs_done)
        return epoch, reached > epoch * length

    def _get(self, block: bool = True, timeout: float | None = None, before: int | None = None) -> Batch:
        """Return the next batch of those with tickets below `before`."""
        if not self._begun:
            self._begin()
        batch: Batch | None
        if self._follower is None:
            batch = self._last.get(block, timeout, before)[1]
            assert batch is not None
            self._last_epoch = batch.epoch
            return batch
        deadline = None if timeout is None else clock() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - clock())
            ticket, batch = self._last.get(block, left, before)
            if self._hands_out(ticket, batch):
                return cast(Batch, batch)

    def _hands_out(self, ticket: int, batch: Batch | None) -> bool:
        """Return whether a taken batch is for the user; notifies a source that follows the delivery."""
        wanted = self._follower is None or self._follower.delivered(ticket)
        if batch is None:
            return False
        if wanted:
            self._last_epoch = batch.epoch
        else:
            with self._loading:
                self._rejected += 1
        return wanted

    def _taken(self) -> int:
        """Return the number of batches that were returned to the user."""
        return int(self._last.measures()["batches"]) - self._rejected

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
            f"Pipeline.{what}: {found}. For more, make a new pipeline, with a larger epochs= of its source or "
            "epochs=None for endless data; load_state_dict() starts it elsewhere"
        )

    def _batches(self, before: int | None, begun: bool, taken: int) -> Iterator[Batch]:
        """Iterate over batches with tickets below `before`; raises if there are none.

        If the epoch that ends there had started, and no batch of it follows the `taken` ones that were returned (the
        rest was skipped), iterates over the next epoch.
        """
        while True:
            try:
                batch = self._get(before=before)
            except EndOfData:
                untouched = self._taken() == taken
                total = self._last.last_total
                if before is None or not self._length:
                    if self._length and total is not None:
                        self._epochs_done = max(self._epochs_done, -(-total // self._length))
                    if untouched:
                        raise self._end("iteration") from None
                    return
                self._epochs_done = max(self._epochs_done, before // self._length)
                if not begun:
                    if not untouched:
                        return
                    if total is not None and before - self._length >= total:
                        raise self._end("epoch()") from None
                    raise self._empty(before // self._length - 1) from None
                # Another thread may have reached the same end, and have taken a batch of the next epoch since.
                if untouched:
                    self._over = (before, taken)
                if self._over != (before, taken):
                    return
                before, begun = before + self._length, False
                continue
            except QueueClosed:
                break
            yield batch
            del batch
        raise self._outcome.error("iteration")

    def _empty(self, epoch: int) -> EmptyEpochError:
        return EmptyEpochError(
            f"Pipeline.epoch(): all {self._length} batches of epoch {epoch} were skipped; expected one or more. "
            "errors and stats() list what was skipped; the next epoch() starts the next epoch"
        )

    def _batches_of_one_epoch(self, taken: int) -> Iterator[Batch]:
        self._begin()
        queue = self._last
        epoch = None
        while True:
            try:
                ticket, batch = queue.peek()
                if batch is not None:
                    if epoch is None:
                        epoch = batch.epoch
                    elif batch.epoch != epoch:
                        return
                if not queue.take(ticket) or not self._hands_out(ticket, batch):
                    continue
            except EndOfData:
                if self._taken() == taken:
                    raise self._end("epoch()") from None
                return
            except QueueClosed:
                break
            yield cast(Batch, batch)
            del batch
        raise self._outcome.error("epoch()")


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
        if module._taken or any(module is other for other in modules[:place]):
            raise ArgumentError(
                f"Pipeline: modules[{place}] ({module.name}) is used twice; a module belongs to one "
                "pipeline, make another one"
            )
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
