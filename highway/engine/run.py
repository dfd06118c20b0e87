"""Run: the queues and threads of a pipeline, and the place in the data where they work."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

from highway._core.queue import BatchQueue
from highway.engine.composition import check_seeds
from highway.engine.module import Module, Outlet, Sink, Source, Stage, usable_cores
from highway.engine.regrouping import Place, places_in
from highway.engine.stats import PipelineStats
from highway.engine.waits import Waits, WaitStats
from highway.engine.workers import Control, Outcome, RegroupRunner, SourceRunner, Tuning, make_runners
from highway.errors import EndOfData, PipelineStateError, QueueClosed, StateMismatchError, UnknownLengthError

__all__ = ["Run"]

# Numbers that tell the runs of this process apart.
_numbers = count()


class Run:
    """Runs modules: starts their threads, drops what these have made, and continues at another place of the data.

    Dropping it ends the threads, which refer to the queues, never to the run.

    Parameters
    ----------
    modules : sequence of Module
        A Source, then Stages, and optionally a Sink; of this run alone.
    ordered, max_bytes
        See `Pipeline`.

    Attributes
    ----------
    source : Source
    ends_in_sink : bool
    follower : Source or None
        The source, if its `delivered` is called for every ticket that is taken.
    turn : threading.Lock
        Held while threads start, an epoch begins or a state is loaded.
    started : bool
        Whether threads were started.
    moves : int
        Changes when the batches made so far are dropped, and when others follow.
    moving : bool
        Whether the batches made so far are being dropped: what a thread takes now is not for the user.
    dropped : int
        Batches that were dropped to go on elsewhere.
    length : int or None
        Batches in the first epoch, if the source knows it and no stage makes batches of other samples; what others
        have, and which tickets, says the source.
    endless : bool
        Whether `length` is known, and there is no last epoch; `take` then notices an epoch without batches.
    regroups : bool
        Whether a stage makes batches of other samples; their tickets are then not those of the source.
    runners : list of ModuleRunner
        Those of the modules that run, in their order.
    queue : BatchQueue
        The queue after the last module, from which batches are taken.
    first_ticket : int
        Of the first batch after the start, or after the state that was loaded last.
    control, outcome, tuning, waits
        Threads and memory, failures, numbers of workers, waits of the consumers.
    """

    def __init__(self, modules: Sequence[Module], ordered: bool, max_bytes: int) -> None:
        self.modules = tuple(modules)
        self.ordered = ordered
        self.max_bytes = max_bytes
        self._number = next(_numbers)
        source = self.modules[0]
        assert isinstance(source, Source)
        self.source = source
        self.ends_in_sink = isinstance(self.modules[-1], Sink)
        to_outlet = isinstance(self.modules[-1], Outlet)
        self.follower = source if source.follows_delivery and not to_outlet else None
        for before, module in zip((None, *self.modules), self.modules, strict=False):
            module.follow(before)
        self._left_out = tuple(module.name for module in self.modules if module.left_out)
        self.regroups = any(isinstance(module, Stage) and module.regroups for module in self.modules)
        # Where the regrouping stages begin, after a state was loaded.
        self._regrouped: Sequence[Place] = ()
        self.turn = threading.Lock()
        self.started = self._entered = False
        # The place where a loaded state begins; None for the first batch of all.
        self._place: Any = None
        self.moves = 0
        self.moving = False
        self._set_up(0)

    def _set_up(self, start: int) -> None:
        """Make runners whose first ticket is `start`, and the state of their threads; starts nothing."""
        length = self._length()
        self.length = None if self.regroups else length
        self.endless = bool(self.length) and self.source.epochs is None and self.follower is None
        modules = [module for module in self.modules if not module.left_out]
        self.runners = make_runners(modules, self.ordered, self.max_bytes, length, self.follower, start)
        regroupers = [runner for runner in self.runners if isinstance(runner, RegroupRunner)]
        for runner, place in zip(regroupers, self._regrouped, strict=False):
            runner.begin_at(start, place)
        self._regroupers = regroupers
        self.queue = self.runners[-1].output
        self.first_ticket = start
        self.dropped = 0
        self.waits = Waits()
        self.outcome = Outcome()
        queues = [runner.output for runner in self.runners]
        self.control = Control(self.modules if self._entered else (), queues, self.max_bytes)
        self.tuning = Tuning(self.runners, self.control, self.outcome, self.max_bytes)
        self._finalizer = weakref.finalize(self, self.control.shutdown)

    # Start and stop

    def start(self) -> None:
        """Start the threads, unless they run."""
        if self.started and self.control.closing:
            raise self.outcome.error("start()")
        if not self.started:
            with self.turn:
                self.ensure_started()

    def ensure_started(self) -> None:
        """Start, where a state that was loaded begins, unless started already; called with `turn` held."""
        if self.started:
            return
        before = self.control
        if before.closing:
            raise self.outcome.error("start()")
        # This process runs the pipeline, whichever made it; only modules that were entered are interrupted.
        before.adopt()
        before.enter(self.modules)
        self._entered = True
        try:
            for module in self.modules:
                # A weak reference: the callable must not keep the run alive.
                module.enter(self.modules, partial(_figures, weakref.ref(self)))
            # Which ranks there are may be known only now.
            check_seeds(self.modules)
            begin = 0 if self._place is None else self.source.begin_at(self._place)
            self._finalizer.detach()
            self._set_up(begin)
            # Only now: from here on, other threads use the queues without `turn`.
            self.started = True
            if before.closing:
                raise self.outcome.error("start()")
            self._start_threads()
            # stop() may have ended only the threads that ran before.
            self.control.end_late(self.outcome)
        except BaseException:
            self.started = True
            self.stop()
            raise

    def _start_threads(self) -> None:
        for runner in self.runners:
            runner.start(self.control, self.outcome, self.tuning)

    def stop(self) -> None:
        """Stop all threads and drop the batches in the queues; see `Pipeline.stop`."""
        if not self.started:
            # No thread runs, in whichever process.
            self.control.adopt()
        elif self.control.forked:
            return
        stopped = None
        # A thread that starts the pipeline or loads a state may replace it.
        while stopped is not self.control:
            stopped, finalizer = self.control, self._finalizer
            try:
                stopped.shutdown()
            finally:
                finalizer.detach()

    def fail(self, error: BaseException) -> None:
        """End all threads with an exception of none of them; nothing if they have ended."""
        if self.control.closing:
            return
        thread = threading.current_thread().name
        try:
            self.outcome.fail(error, f"Raised outside of the modules, thread {thread!r}.")
        finally:
            self.control.close()

    def end_tasks(self) -> None:
        """Start no new tasks; those in progress are finished."""
        first = self.runners[0]
        assert isinstance(first, SourceRunner)
        first.end_tasks()

    # Going on at another place

    def position(self) -> dict[str, Any]:
        """Return the state after all batches that were taken from the last queue."""
        if not self.regroups:
            return self.source.state_at(self.queue.next_ticket)
        places: list[Place] = []
        # Once: another thread that loads a state replaces them.
        regroupers = self._regroupers
        with regroupers[0].places_lock:
            ticket = regroupers[0].taken.next_ticket
            for runner in reversed(regroupers):
                places.insert(0, runner.place_before(ticket))
                ticket = places[0].ticket
        return {
            "regrouped": [[place.skipped, place.epoch, place.seq] for place in places],
            "shard": list(self.source.shard),
            "batches": self._length(self.source.batch_at(ticket)[0] if self._length() else 0),
            "source": self.source.state_at(ticket),
        }

    def _length(self, epoch: int = 0) -> int | None:
        """Return the number of batches in an epoch of the source, if it knows it."""
        return self.source.batches_in(epoch) if hasattr(self.source, "__len__") else None

    def find(self, state: Mapping[str, Any]) -> tuple[Any, list[Place]]:
        """Return the place of a state in the source, and those in the regrouping stages; changes nothing.

        Raises
        ------
        StateMismatchError
            The state is not valid, or belongs to other data, stages or ranks.
        """
        given: object = state
        if not self.regroups or not isinstance(given, Mapping) or "regrouped" not in given:
            # A state from before there was such a stage begins with a whole batch.
            return self.source.find(state), []
        places = places_in(state["regrouped"], len(self._regroupers))
        place = self.source.find(state.get("source", {}))
        shard = state.get("shard")
        # Of the epoch of the place: a reader may have other batches in others.
        mine = [*self.source.shard, self._length(getattr(place, "epoch", 0))]
        theirs = [*(shard if isinstance(shard, (list, tuple)) else ()), state.get("batches")]
        alone = mine[1] == 1 and theirs[1:2] == [1]
        if mine != theirs and not alone:
            raise StateMismatchError(
                f"Pipeline.load_state_dict: the state is of rank and world {theirs[:-1]} with {theirs[-1]} batches of "
                f"the reader in an epoch, this pipeline has {mine[:-1]} and {mine[-1]}; expected the same, since each "
                "rank has other samples left of its batches"
            )
        return place, places

    def begin_at(self, place: Any, regrouped: Sequence[Place] = ()) -> None:
        """Drop all batches made so far, and begin at a place that the source has found, with new statistics.

        `regrouped` are the places in the regrouping stages.

        Called with `turn` held. After an exception, all threads have ended.
        """
        self._regrouped = regrouped
        try:
            if self.started:
                self._begin_again_at(place)
            else:
                self._place = place
                self._finalizer.detach()
                self._set_up(self.source.begin_at(place))
                self.moves += 1
        except BaseException:
            self.started = True
            self.control.shutdown()
            raise

    def _begin_again_at(self, place: Any) -> None:
        before, outcome = self.control, self.outcome
        self._drop_batches("load_state_dict()")
        before.retire()
        self._finalizer.detach()
        # Before there is the other queue: what is taken from that is taken after so many moves.
        self.moves += 1
        self._set_up(self.source.begin_at(place))
        self.moving = False
        if before.closing:
            self.outcome = outcome
            raise outcome.error("load_state_dict()")
        self._start_threads()

    def move(self, place: Any, what: str) -> None:
        """Drop the batches made ahead, and go on at a place of the source; called with `turn` held."""
        try:
            self._drop_batches(what)
            self.control.join()
            with suppress(QueueClosed):
                start = self.source.seek(place)
                for runner in self.runners:
                    runner.rewind(start)
                self.control.resume()
                self.moves += 1
                self.moving = False
                self._start_threads()
            # stop() may have ended only the threads that ran before.
            self.control.end_late(self.outcome)
            if self.control.closing:
                raise self.outcome.error(what)
        except BaseException:
            # Half of the threads have ended: nothing would produce the remaining batches. After a failure of a module,
            # all of them end, and nobody waits for those that hang.
            if not self.outcome.failures:
                self.control.shutdown()
            raise

    def _drop_batches(self, what: str) -> None:
        """End the tasks and drop all batches that are in progress or wait; the threads end."""
        self.moves += 1
        self.moving = True
        self.end_tasks()
        for runner in self.runners:
            runner.dropping = True
        self.source.abandon()
        if not self.drop():
            raise self.outcome.error(what)

    def drop(self, before: int | None = None) -> bool:
        """Take and drop all batches with tickets below `before`; return False if the run is stopped or fails."""
        # Nothing is raised here: `raise ... from None` would clear the cause of a module's exception.
        with suppress(QueueClosed):
            try:
                while True:
                    self.queue.get(before=before)
                    self.dropped += 1
            except EndOfData:
                return True
        return False

    def has_moved(self, moves: int, queue: BatchQueue) -> bool:
        """Whether an epoch was begun or a state loaded since there were so many moves and this queue.

        Waits if it is under way.
        """
        with self.turn:
            return self.moves != moves or self.queue is not queue

    # Facts

    def batches_in(self, epoch: int, rest_of: int | None = None) -> int:
        """Return the number of batches in an epoch; raises UnknownLengthError if the source does not know it.

        `rest_of` matters where other machines know it: see `Source.told_length`.
        """
        if self.regroups:
            names = ", ".join(runner.name for runner in self._regroupers)
            raise UnknownLengthError(
                f"Pipeline: the number of batches in an epoch is known only at its end, since {names} makes batches of "
                "other samples than arrive"
            )
        if self.length is None:
            told = self.source.told_length(rest_of)
            if told is not None:
                return told
            raise UnknownLengthError(
                f"Pipeline: {self.source.name} does not know the number of batches in an epoch"
            )
        return self.source.batches_in(epoch)

    def refuse_own_thread(self, what: str) -> None:
        """Raise in a thread of this run, which would wait for itself."""
        thread = threading.current_thread()
        if any(thread is worker for worker, _ in self.control.threads):
            raise PipelineStateError(
                f"Pipeline.{what}: called in a thread of this pipeline, for which it would wait; call it where the "
                "batches are taken"
            )

    def stats(self) -> PipelineStats:
        """Return the statistics since the start, or since the state that was loaded last."""
        seconds = self.control.seconds()
        modules = tuple(runner.stats(self.control, seconds) for runner in self.runners)
        tuning, settled = self.tuning.report()
        delivered, waited, waits = modules[-1].batches, None, None
        epochs: tuple[WaitStats, ...] = ()
        if not self.ends_in_sink:
            measures = self.queue.measures()
            delivered, waited = int(measures["batches"]) - self.dropped, measures["waited_items"]
            waits, epochs = self.waits.stats()
        return PipelineStats(
            modules,
            seconds,
            delivered,
            waited,
            usable_cores(),
            tuning,
            settled,
            self._left_out,
            self.source.machines(),
            waits,
            epochs,
            (self._number, self.control.started),
        )

    @property
    def state(self) -> str:
        """How far the run is, in words."""
        if self.outcome.failures:
            return "failed"
        if self.control.closing:
            return "stopped"
        return "running" if self.started else "not started"


def _figures(reference: weakref.ref[Run]) -> PipelineStats | None:
    """Return the statistics of a run that is alive; else None."""
    run = reference()
    return None if run is None else run.stats()
