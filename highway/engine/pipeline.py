"""Pipeline: connects modules, runs them, and returns their batches.

`highway.engine.module` has the base classes of modules, `highway.engine.run` has their queues and threads, and
`highway.engine.epochs` takes the batches.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from types import TracebackType
from typing import Any

import numpy as np

from highway.arguments import flag, whole
from highway.arguments.signatures import explained
from highway.batch import Batch
from highway.engine.composition import check_regrouping, checked
from highway.engine.epochs import Epochs
from highway.engine.iteration import EpochIterator
from highway.engine.module import Failure, Module, Outlet, Sink, Source, Stage, usable_cores
from highway.engine.place import Place
from highway.engine.run import Run
from highway.engine.spec import Spec
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, EndOfData, PipelineStateError, QueueClosed, WaitTimeout

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
        batch of an epoch before any of the next (where the source knows its length); all epochs then have the same
        number of batches.
    max_bytes : int, optional
        Most bytes of batches that wait in the queues or are in progress, 1 to 2**62, 128 MiB by default;
        divided evenly among the queues. One batch per worker is always allowed, however large; but a
        module whose number of workers is tuned gets more workers only if there is room for their batches.
    on : Place, optional
        Where the modules run, such as `highway.network.Remote`: on other processes or machines, with the same batches
        as here. By default all run in this process.

    Raises
    ------
    ArgumentError
        There are no modules, or one is in the wrong place; `max_bytes` is out of range; `ordered` is False, and
        epochs have different numbers of batches.

    Attributes
    ----------
    given : tuple of Module
        The modules as they were given, from which another pipeline can be made.
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
    ``len(pipeline)``             number of batches of an epoch; ``len(iter(pipeline))`` of those that remain;
                                  `batches_in` (n) of epoch n, where `batch_size` is a schedule
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
        self,
        modules: Sequence[Module],
        *,
        ordered: bool = True,
        max_bytes: int | None = None,
        on: Place | None = None,
    ) -> None:
        self.given = tuple(checked(modules))
        self.on = on
        if on is not None and not isinstance(on, Place):
            raise ArgumentError(
                f"Pipeline: on is {on!r}; expected highway.network.Remote(...), highway.ray.Workers(...) or None"
            )
        bound = (
            DEFAULT_MAX_BYTES
            if max_bytes is None
            else whole("Pipeline", "max_bytes", max_bytes, 1, MOST_BYTES)
        )
        ordered = flag("Pipeline", "ordered", ordered)
        check_regrouping(self.given, ordered)
        here: Sequence[Module] = self.given
        if on is not None:
            here = checked(list(on.distribute(here)))
            # Also where what follows fails.
            self._close_place = weakref.finalize(self, on.close)
        self.modules = tuple(module.for_run() for module in here)
        source = self.modules[0]
        assert isinstance(source, Source)
        if not (ordered or source.epochs_alike):
            raise ArgumentError(
                f"Pipeline: ordered is False, and the epochs of {source.name} have different numbers of batches, so "
                "that batches of several epochs would mix; expected ordered=True, or one batch_size"
            )
        self._has_sink = isinstance(self.modules[-1], Sink)
        self._run = Run(self.modules, ordered, bound)
        self._epochs = Epochs(self._run)
        # The state of the last `commit`.
        self._committed: dict[str, Any] | None = None
        if any(module.starts_at_once for module in self.modules):
            self.start()
        if on is not None:
            try:
                on.start(self)
            except BaseException:
                self.stop()
                raise

    # Start and stop

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
        self._run.start()

    @property
    def started(self) -> bool:
        """Whether the threads were started, also if they have ended since."""
        return self._run.started

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
            self._run.queue.get(timeout=timeout)
        except EndOfData:
            return
        except WaitTimeout:
            raise WaitTimeout(
                f"Pipeline.wait: the sink was not done within {timeout or 0:g} s. {self.stats().advice}"
            ) from None
        except QueueClosed:
            pass
        if not self._run.outcome.failures and self._run.queue.last_total is not None:
            return
        raise self._run.outcome.error("wait()")

    def stop(self) -> None:
        """Stop all threads and drop the batches in the queues; batches that you have stay valid.

        Takes less than 2 s, whatever the threads do, as long as no module's `interrupt` waits: a thread
        that does not end by then keeps running, and a RuntimeWarning names its module. You may call it
        again, from any thread; called by a module, it does not wait.
        """
        self._run.stop()
        if self.on is not None:
            self._close_place()

    def fail(self, error: BaseException) -> None:
        """End the pipeline with an exception, which all waiting and later calls raise; nothing if it has ended.

        For what runs the pipeline's modules elsewhere (``on=``), when it cannot go on. Call it from any thread.

        Parameters
        ----------
        error : BaseException
        """
        self._run.fail(error)

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
        self._run.end_tasks()
        self.wait(timeout)
        self.stop()

    # Batches

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
        EmptyEpochError
            The data are endless, and all batches of an epoch were skipped; the next call goes on with the next epoch.
        EmptyDatasetError
            The data are endless, a stage regroups, and no sample of a whole epoch is left.
        WaitTimeout
            No batch arrived in time.
        PipelineStateError
            The pipeline was stopped, ends in a sink (see `wait`), or belongs to the parent process of a fork.
        Exception
            Whatever a module raised.
        """
        if self._has_sink or self._run.control.forked:
            self._refuse("dequeue()", sink=False)
        if block is not True or timeout is not None:
            block = _checked_wait(block, timeout)
        try:
            return self._epochs.take(block, timeout)
        except EndOfData:
            raise self._epochs.ended("dequeue()") from None
        except WaitTimeout:
            raise WaitTimeout(
                f"Pipeline.dequeue: no batch arrived within {timeout or 0:g} s. {self.stats().advice}"
            ) from None
        except QueueClosed:
            pass
        raise self._run.outcome.error("dequeue()")

    def ready(self) -> bool:
        """Return whether `dequeue` would return or raise without waiting; starts nothing and takes nothing.

        Raises
        ------
        PipelineStateError
            The pipeline ends in a sink, or belongs to the parent process of a fork.
        """
        self._refuse("ready()", sink=False)
        return self._epochs.is_ready()

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
        self._refuse("iteration", sink=False)
        return self._epochs.iterator(None, "iteration")

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
        self._refuse("epoch()", sink=False)
        return self._epochs.iterator(wanted, "epoch()")

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
        return self._epochs.forever()

    @property
    def resumed_epoch(self) -> int | None:
        """The epoch whose rest the next iteration yields, after `load_state_dict`; None if it begins an epoch."""
        return self._epochs.resumed

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data, to continue from it in another process: small, JSON-serializable.

        The position is after the last batch that `dequeue` or iteration returned; prefetched batches do not count.
        Skipped samples count as returned. After `stop` or a failure, it is the position at that time.

        Once `commit` was called, it is the position of the last call instead.

        Raises
        ------
        PipelineStateError
            The source has no state; the pipeline is unordered, or ends in a sink.
        """
        return self._position("state_dict") if self._committed is None else copy.deepcopy(self._committed)

    def commit(self) -> None:
        """Count the batches that were returned so far as consumed; `state_dict` then returns this position.

        For steps that may fail on some ranks: call it on each rank once a step has succeeded on all of them. From the
        first call on, batches that were returned and not committed are not in the state: they come again after it is
        loaded, on any number of ranks.

        Raises
        ------
        PipelineStateError
            See `state_dict`.
        """
        self._committed = self._position("commit")

    def _position(self, what: str) -> dict[str, Any]:
        self._refuse(f"{what}()", sink=self._has_sink)
        source = self._run.source
        if not source.seekable:
            return source.state_dict()
        self._refuse_state(f"{what}()")
        if not self._run.ordered:
            raise PipelineStateError(
                f"Pipeline.{what}: an unordered pipeline returns whichever batch is ready, so it has no position "
                "in the order of the data; use ordered=True"
            )
        return self._run.position()

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
        run = self._run
        run.refuse_own_thread("load_state_dict()")
        if not run.source.seekable:
            run.source.load_state_dict(state)
            self._epochs.forget()
            self._recommit()
            return
        self._refuse_state("load_state_dict()")
        with run.turn:
            place, regrouped = run.find(state)
            if run.control.closing:
                raise run.outcome.error("load_state_dict()")
            self._epochs.restart(place, regrouped)
        self._recommit()

    def _recommit(self) -> None:
        """Count a position that was loaded as committed, if `commit` is in use."""
        if self._committed is not None:
            self._committed = self._position("load_state_dict")

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
        run = self._run
        run.refuse_own_thread("skip()")
        self._refuse_state("skip()")
        if not run.ordered:
            raise PipelineStateError(
                "Pipeline.skip: an unordered pipeline has no position in the order of the data; use ordered=True"
            )
        if run.regroups:
            raise PipelineStateError(
                "Pipeline.skip: a stage makes batches of other samples than the reader does, so that steps and samples "
                "cannot be skipped in the reader; expected no Rebatch and no Filter that refills"
            )
        for name, given in (("samples", samples), ("steps", steps)):
            if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
                raise ArgumentError(
                    f"Pipeline.skip: {name} is {given!r}; expected a list, such as [{given!r}]"
                )
        with run.turn:
            if run.control.closing:
                raise run.outcome.error("skip()")
            # Steps have numbers only where rank and world are known.
            run.ensure_started()
            place = run.source.skip(run.queue.next_ticket, samples, steps)
            self._epochs.touched = True
            run.move(place, "skip()")
            if self._committed is not None:
                # Where it stands does not change; what is skipped from there on does.
                now = self._position("skip")
                self._committed.update({name: now[name] for name in ("skips",) if name in now})

    # Facts

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
        now = self._run.stats()
        if since is None:
            return now
        given: object = since
        if not isinstance(given, PipelineStats) or given.origin[:1] != now.origin[:1]:
            found = "of another pipeline" if isinstance(given, PipelineStats) else repr(given)
            raise ArgumentError(
                f"Pipeline.stats: since is {found}; expected what stats() of this pipeline has returned"
            )
        return now.since(since)

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Bad samples that the source has skipped or replaced: (key, reason), once each; `stats` counts every time."""
        return list(getattr(self._run.source, "errors", ()))

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
        """Number of batches in an epoch: of the one that is iterated over, or else of the next one.

        Epochs differ only where `batch_size` is a schedule. Where `dequeue` takes the batches, it is the epoch of the
        one that it returns next; after the last epoch, that epoch.

        Raises
        ------
        UnknownLengthError
            The source does not know it.
        """
        return self._epochs.length()

    def batches_in(self, epoch: int) -> int:
        """Return the number of batches in an epoch.

        Parameters
        ----------
        epoch : int
            0 to 2**32 - 1, also one that the source does not reach.

        Raises
        ------
        ArgumentError
            `epoch` is out of range.
        UnknownLengthError
            The source does not know it.
        """
        return self._run.batches_in(whole("Pipeline.batches_in", "epoch", epoch, 0, 2**32 - 1))

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        names = " -> ".join(runner.name for runner in self._run.runners)
        return f"<Pipeline {names}, {self._run.state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        run = self._run
        state = self.state_dict() if self._epochs.touched and not self._has_sink else None
        return _restored, (list(self.given), run.ordered, run.max_bytes, self.on, state)

    # Refusals

    def _refuse_forked(self, what: str) -> None:
        if self._run.started and self._run.control.forked:
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
                f"Pipeline.{what}: this pipeline ends in {self._run.runners[-1].name}, which consumes all batches; "
                "wait for its end with wait()"
            )

    def _refuse_state(self, what: str) -> None:
        if self._has_sink:
            raise PipelineStateError(
                f"Pipeline.{what}: this pipeline ends in {self._run.runners[-1].name}, which consumes all batches; "
                "only a pipeline without a sink, used with dequeue(), has a state"
            )


def _restored(
    modules: list[Module],
    ordered: bool,
    max_bytes: int,
    on: Place | None,
    state: Mapping[str, Any] | None,
) -> Pipeline:
    """Make a pipeline from its pickle."""
    pipeline = Pipeline(modules, ordered=ordered, max_bytes=max_bytes, on=on)
    if state is not None:
        pipeline.load_state_dict(state)
    return pipeline


def _checked_wait(block: object, timeout: object) -> bool:
    """Check the arguments of `Pipeline.dequeue`, and return `block`."""
    if not isinstance(block, (bool, np.bool_)):
        # A number here was meant as the timeout.
        raise ArgumentError(
            f"Pipeline.dequeue: block is {block!r}; expected True or False; timeout= is for seconds"
        )
    _check_timeout("dequeue", timeout)
    return bool(block)


def _check_timeout(method: str, timeout: object) -> None:
    # `not >= 0` instead of `< 0`: no comparison with nan is true.
    if timeout is not None and not (isinstance(timeout, (float, int, Real)) and float(timeout) >= 0):
        raise ArgumentError(
            f"Pipeline.{method}: timeout is {timeout!r}; expected seconds, 0 or more, or None"
        )
