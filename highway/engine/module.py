"""What a pipeline is made of: sources, stages and sinks, and what the pipeline asks of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, ClassVar, NamedTuple

from highway.arguments import whole
from highway.arguments.limits import MOST_QUEUE_SIZE, MOST_WORKERS
from highway.arguments.signatures import explain_init, explained
from highway.batch import Batch
from highway.engine.cores import usable_cores
from highway.engine.stats import MachineStats, PipelineStats
from highway.errors import PipelineStateError

__all__ = ["Failure", "Module", "Outlet", "Sink", "Source", "Stage", "usable_cores"]


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
    seed_drawn : bool
        Whether its seed was drawn, since the user gave None: nobody else has the same.
    image_shape : (int, int, int) or None
        Known after `follow`: shape (H, W, C) of the uint8 images that it hands out, where all have the same.
    left_out : bool
        Known after `follow`: whether the pipeline does without the module, since the one in front does all of it.
    """

    name: str = "Module"
    hands_over: ClassVar[bool] = False
    input_handed_over: bool = False
    left_out: bool = False
    seed_drawn: bool = False
    image_shape: tuple[int, int, int] | None = None
    workers: int | None = None
    queue_size: int = 4

    _taken: bool = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__
        explain_init(cls)

    @explained()
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

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        """Called once, after `follow` and before any worker starts.

        What is begun here ends with `interrupt`, which is called even if another module raises. The attributes of
        the module are then those that it had before `follow`.

        Parameters
        ----------
        modules : sequence of Module
            All that the user gave.
        stats : callable
            Gives the statistics of the pipeline while there is one. Not to be called by `enter`.
        """

    def open(self) -> None:
        """Called in every worker thread before its first batch; in new threads again where a state is loaded."""

    def close(self) -> None:
        """Called in every worker thread after its last batch, if `open` succeeded there."""

    def interrupt(self) -> None:
        """Called once when the pipeline stops or fails, while workers may still work, from another thread.

        A module that can wait for long (for a peer, a disk) overrides it to wake its workers; what they
        raise after this is dropped. It sets a flag, closes a socket, releases a `threading.Lock` that they
        wait for, and returns: it must not wait, since `stop` goes on only when it has returned. Where a
        pipeline is dropped the garbage collector calls it, in any thread, in the middle of anything: also for
        a lock that is held for a moment only, as that of a `threading.Event`, it would wait for ever.
        """


class Source(Module):
    """Where batches begin: `tasks` says what there is to load, `load` does it in any worker.

    A source that knows how many batches an epoch has defines ``__len__``. Its tasks then come epoch by
    epoch, that many each. A source that leaves samples out has an attribute or a property `errors`: those
    so far, as (key, reason).

    A source whose batches differ in size, also if only the last one does, gives its batches their
    `indices`: what the `Batch` makes up assumes equal sizes, and what is drawn at random depends on them.

    A source that is given the same arguments again must give the same tasks again, where batches are sent to
    other machines: what is lost there is made anew.

    Attributes
    ----------
    follows_delivery : bool
        Whether `delivered` is to be called; its state is then the source's own: `state_dict`, `load_state_dict`.
    seekable : bool
        Whether it can begin at a place that it is told: it has `state_at`, `find` and `begin_at`.
    shard : (int, int)
        (rank, world): which part of the data it reads, of how many.
    replaced : int
        Samples so far that it put into the places of bad ones; for the statistics.
    """

    follows_delivery: ClassVar[bool] = False
    seekable: ClassVar[bool] = False
    replaced: int = 0

    @property
    def shard(self) -> tuple[int, int]:
        return 0, 1

    def default_workers(self) -> int:
        return usable_cores()

    def known_keys(self) -> Iterable[str] | None:
        """The keys of all samples, of all shards; None where they are known only once samples are read."""
        return None

    def tasks_from(self, start: int) -> Iterator[Any]:
        """Iterator over the tasks from number `start` on, counted from 0.

        Here all tasks before it are made and dropped; a source that finds the place faster overrides it.
        """
        return itertools.islice(self.tasks(), start, None)

    def fingerprint(self) -> str:
        """What tells the data, its order and its batches from others, the rank left out.

        Sources that must not be confused give different ones: a saved state is refused by data with another. Here
        it is the name and the length.
        """
        return f"{self.name}/{len(self) if isinstance(self, Sized) else 0}"

    def samples_fingerprint(self) -> str:
        """What tells the samples from others, in whatever batches they come.

        A store is gone on with from a source that has the same. Here it is `fingerprint`.
        """
        return self.fingerprint()

    def end_tasks(self) -> None:
        """Let `tasks` end, if it waits: no more are wanted. From another thread; must not wait."""

    def state_dict(self) -> dict[str, Any]:
        """What was delivered, as JSON can hold it."""
        raise PipelineStateError(f"{self.name} has no state to be saved")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after what `state` counts; before anything was delivered."""
        raise PipelineStateError(f"{self.name} has no state to be loaded")

    def state_at(self, ticket: int) -> dict[str, Any]:
        """Where to go on when all tasks below `ticket` were handed out, as JSON can hold it."""
        raise NotImplementedError(f"{self.name} must define state_at(ticket)")

    def find(self, state: Mapping[str, Any]) -> Any:
        """The place that a state tells of, for `begin_at`. Changes nothing.

        Raises
        ------
        StateMismatchError
            The state is none, or of other data.
        """
        raise NotImplementedError(f"{self.name} must define find(state)")

    def begin_at(self, place: Any) -> int:
        """Have `tasks` begin there the next time it is called, and forget what was loaded so far.

        Called while the source has no workers.

        Returns
        -------
        int
            Ticket of the first task. Where the source knows its length, epoch n ends before ticket
            ``(n + 1) * length``, also if it is not begun at its front.
        """
        raise NotImplementedError(f"{self.name} must define begin_at(place)")

    def machines(self) -> tuple[MachineStats, ...]:
        """The other machines that the batches come from, as far as they have told of themselves."""
        return ()

    def delivered(self, ticket: int) -> bool:
        """Told of every task whose batch was handed out, was consumed by a sink, or was left out on the way.

        Parameters
        ----------
        ticket : int
            Number of the task, counted from the first that `tasks` gave.

        Returns
        -------
        bool
            False to have the batch dropped.
        """
        return True

    def tasks(self) -> Iterator[Any]:
        """Iterator over the tasks, in the order of their batches; advanced by one worker at a time."""
        raise NotImplementedError(f"{self.name} must define tasks()")

    def samples_in(self, task: Any) -> int | None:
        """How many samples the batch of a task has if none is skipped; None where nobody knows.

        What `load` returns less of counts as skipped in the statistics. 0 is a task that stands for no batch.
        """
        return None

    def load(self, task: Any) -> Batch | None:
        """Make the batch of a task; None skips it. Runs in several workers at once."""
        raise NotImplementedError(f"{self.name} must define load(task)")


class Stage(Module):
    """What happens to batches on their way."""

    def process(self, batch: Batch) -> Batch | None:
        """Make one batch of another; None skips it. Runs in several workers at once.

        A result without a number of its own (a new Batch) takes the identity of the batch it was made of. One with
        another number of samples has the `indices` of those, as `Batch.take` gives it.
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


class Failure(NamedTuple):
    """What becomes of a batch in a pipeline with an `Outlet` where a module raised an exception.

    Attributes
    ----------
    error : Exception
    module : str
        Which module raised it.
    """

    error: Exception
    module: str


class Outlet(Sink):
    """A sink through which batches leave the process: it says what the source makes, and learns of everything.

    What a module raises does not end the pipeline, but takes the place of the batch.
    """

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        """Tasks of the source, in the order in which they are wanted; advanced by one worker at a time.

        Task n of them has ticket n. May wait, until `interrupt` is called.

        Parameters
        ----------
        source : Source
        length : int or None
            Tasks in an epoch, where the source knows.
        """
        raise NotImplementedError(f"{self.name} must define tasks_of(source, length)")

    def identity(self, ticket: int) -> tuple[int, int]:
        """Epoch and number in it of a batch whose source gave it none."""
        raise NotImplementedError(f"{self.name} must define identity(ticket)")

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        """Take what became of a task: a batch, a failure, or None for one that was left out."""
        raise NotImplementedError(f"{self.name} must define carry(ticket, outcome)")

    def end_tasks(self) -> None:
        """Let `tasks_of` end, if it waits: no more are wanted. From another thread; must not wait."""

    def drain(self) -> None:
        """Wait, after the last task, until everything is where it was sent."""
