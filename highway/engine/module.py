"""Base classes of the modules of a pipeline: sources, stages and sinks."""

from __future__ import annotations

import copyreg
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from highway.arguments import whole
from highway.arguments.limits import MOST_QUEUE_SIZE, MOST_WORKERS
from highway.arguments.signatures import bound, explain_init, has_own_state, remade, same
from highway.batch import Batch
from highway.engine.cores import usable_cores
from highway.engine.spec import Spec
from highway.engine.stats import MachineStats, PipelineStats
from highway.errors import PipelineStateError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Failure", "Module", "Outlet", "Sink", "Source", "Stage", "usable_cores"]


class Module:
    """Base class of sources, stages and sinks.

    A module is a specification: you may give it to any number of pipelines. It pickles and copies as its class and
    arguments, and equals a module of the same class with equal arguments. Before a pipeline runs it, `for_run` returns
    the object that it runs.

    All workers of a module use it at once. Make what belongs to one worker (a connection, a decoder) in `open`,
    keep it in a `threading.local`, and release it in `close`. A module written in Python holds the GIL while it
    works; only code that releases it (NumPy, compiled code, waiting) runs in parallel.

    Parameters
    ----------
    workers : int, optional
        Number of threads, 1 to 1024. By default it is tuned while the pipeline runs: it starts at
        `default_workers()` and grows up to `most_workers()`. A module that is not thread-safe needs ``workers=1``.
    queue_size : int, optional
        Most batches that may be outstanding after the module, finished or in progress, 1 to 65536. By default 4, and
        up to 32 small batches that have 1 MiB together. Two for each worker are always allowed.

    Raises
    ------
    ArgumentError
        A number is out of its range.

    Attributes
    ----------
    name : str
        Name of the module in errors and statistics: that of its class.
    hands_over : bool
        Whether the module returns new arrays and does not keep them, so that the next module may write into them.
    input_handed_over : bool
        Set by the pipeline: `hands_over` of the module before.
    starts_at_once : bool
        Whether its pipeline starts when it is made, not with the first batch that is requested.
    seed_drawn : bool
        Whether its seed was drawn, since the user gave None: no other module or process has the same seed.
    image_shape : (int, int, int) or None
        Known after `follow`: shape (H, W, C) of the images of `image_dtype` that it returns, where all have the same
        shape.
    image_shapes : tuple of (int, int, int)
        Known after `follow`: all shapes of these images, where they are known and differ.
    view_fields : tuple of str
        Known after `follow`: fields that have the images of views.
    image_dtype : str
        Dtype of these images, "uint8" or "uint16"; after a conversion to floats that of its result.
    left_out : bool
        Known after `follow`: whether the module is fused into the one before, so that the pipeline does not run it.
    """

    name: str = "Module"
    hands_over: ClassVar[bool] = False
    input_handed_over: bool = False
    left_out: bool = False
    starts_at_once: ClassVar[bool] = False
    seed_drawn: bool = False
    image_shape: tuple[int, int, int] | None = None
    image_shapes: tuple[tuple[int, int, int], ...] = ()
    view_fields: tuple[str, ...] = ()
    image_dtype: str = "uint8"
    workers: int | None = None
    queue_size: int | None = None

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__
        explain_init(cls)

    def __init__(self, *, workers: int | None = None, queue_size: int | None = None) -> None:
        self.workers = None if workers is None else whole(self.name, "workers", workers, 1, MOST_WORKERS)
        self.queue_size = (
            None if queue_size is None else whole(self.name, "queue_size", queue_size, 1, MOST_QUEUE_SIZE)
        )

    def default_workers(self) -> int:
        """Number of threads at the start, where the user gives no number."""
        return 1

    def most_workers(self) -> int:
        """Largest number of threads, where the user gives no number: one per usable core."""
        return usable_cores()

    def for_run(self) -> Module:
        """Return the module that one pipeline runs; called when the pipeline is made.

        By default the module itself: several pipelines then share it, as they share a function. A module that keeps
        anything about a run returns `copied`.
        """
        return self

    def copied(self) -> Self:
        """Return a shallow copy: what it changes in its own attributes does not change this module."""
        copy = object.__new__(type(self))
        vars(copy).update(vars(self))
        return copy

    def _specification(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of an equal module: by position, and by name."""
        arguments, keywords = bound(self)
        # A class of the user may draw its seed without such an argument: a copy then draws another.
        if self.seed_drawn and "seed" in keywords:
            keywords["seed"] = getattr(self, "seed", None)
        return arguments, keywords

    def __reduce__(self) -> tuple[Any, ...]:
        if has_own_state(type(self)):
            return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]
        return remade, (type(self), *self._specification())

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return type(self) is type(other) and same(self._specification(), other._specification())

    def __hash__(self) -> int:
        return hash(type(self))

    def follow(self, before: Module | None) -> None:
        """Connect to the module before, or None for a source. Runs once for a pipeline, when it is made.

        Runs in the order of the modules: `follow` of the module before has run.
        """
        handed_over = before is not None and before.hands_over
        # Where several pipelines share the module, only what holds in all of them.
        self.input_handed_over = handed_over and vars(self).get("input_handed_over", True)
        if before is not None:
            self.view_fields = before.view_fields

    def out_spec(self, before: Spec | None) -> Spec | None:
        """Return the fields of the batches that the module makes; see `Pipeline.spec`.

        Parameters
        ----------
        before : dict of str to FieldSpec, or None
            Fields of the batches that it gets; None if unknown, and for a source.

        Returns
        -------
        dict of str to FieldSpec, or None
            None if unknown, as by default.
        """
        return None

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        """Start what the module needs in its pipeline. Runs once, after `follow` and before any worker starts.

        `interrupt` ends what starts here; it runs even if another module raises.

        Parameters
        ----------
        modules : sequence of Module
            All modules that the user gave.
        stats : callable
            Returns the statistics of the pipeline, or None once it is gone. Do not call it in `enter`.
        """

    def open(self) -> None:
        """Prepare a worker thread. Runs in each before its first batch.

        Runs again in new threads after a state was loaded, and where an epoch begins that is not the next in line.
        """

    def close(self) -> None:
        """Clean up a worker thread. Runs in each one after its last batch, if its `open` succeeded."""

    def interrupt(self) -> None:
        """Wake the workers. Runs once when the pipeline stops or fails, in another thread; workers may still work.

        Override it in a module that can wait for long (for a peer, a disk); what its workers raise after this is
        dropped. Set a flag, close a socket or release a `threading.Lock` that they wait for, and return: do not
        wait, since `stop` continues only after the return. If a pipeline is dropped without `stop`, the garbage
        collector calls this in any thread, in the middle of any code: it would deadlock even on a lock that is held
        only for a moment, such as that of a `threading.Event`.
        """


explain_init(Module)


class Source(Module):
    """Makes batches: `tasks` yields what to load, and `load` makes the batch of a task, in any worker.

    A source that knows the number of batches in an epoch defines ``__len__``. Its tasks then come epoch by
    epoch, that many each; where epochs differ in this, it overrides `epochs_alike`, `batches_in`, `number_of` and
    `batch_at` too. A source that skips samples has an attribute or a property `errors`: the samples skipped so far, as
    (key, reason).

    A source whose batches differ in size, even if only the last one does, sets the `indices` of its batches:
    the default of `Batch` assumes equal sizes, and random draws depend on the indices.

    Where batches go to other machines, a source with the same arguments must yield the same tasks: lost batches are
    made again.

    Attributes
    ----------
    follows_delivery : bool
        Whether the pipeline calls `delivered`; the source then keeps its own state: `state_dict`, `load_state_dict`.
    seekable : bool
        Whether it can start anywhere in the data: it has `state_at`, `find`, `front`, `begin_at` and `seek`.
    epochs : int or None
        Number of epochs, where it is known; None if there is no end.
    shard : (int, int)
        (rank, world): the part of the data that it reads, and the number of parts.
    replaced : int
        Bad samples that it has replaced so far; for the statistics.
    """

    follows_delivery: ClassVar[bool] = False
    seekable: ClassVar[bool] = False
    epochs: int | None = None
    replaced: int = 0

    @property
    def shard(self) -> tuple[int, int]:
        return 0, 1

    @property
    def epochs_alike(self) -> bool:
        """Whether all epochs have the same number of batches, of a source that knows it."""
        return True

    def batches_in(self, epoch: int) -> int:
        """Return the number of batches in an epoch, of a source that knows it."""
        return len(cast(Sized, self))

    def number_of(self, epoch: int, seq: int = 0) -> int:
        """Return the number of batch `seq` of an epoch, counted from the start of the first epoch."""
        return epoch * len(cast(Sized, self)) + seq

    def batch_at(self, number: int) -> tuple[int, int]:
        """Return the epoch of a batch and its number in the epoch, by its number from the start of the first epoch."""
        return divmod(number, len(cast(Sized, self)))

    def skips_epoch(self, epoch: int) -> bool:
        """Return whether `Pipeline.skip` was called with all batches of an epoch."""
        return False

    def default_workers(self) -> int:
        return usable_cores()

    def known_keys(self) -> Iterable[str] | None:
        """The keys of all samples of all shards; None if they are known only after reading."""
        return None

    def tasks_from(self, start: int) -> Iterator[Any]:
        """Iterate over the tasks from number `start` on, counted from 0.

        By default this makes and drops all tasks before it; override it where seeking is faster.
        """
        return itertools.islice(self.tasks(), start, None)

    def fingerprint(self) -> str:
        """Identify the data, its order and its batches; the same for all ranks.

        A saved state fits only data with the same fingerprint. By default it is made of the name and the length.
        """
        return f"{self.name}/{len(self) if isinstance(self, Sized) else 0}"

    def samples_fingerprint(self) -> str:
        """Identify the samples, independent of their batches.

        A source continues an unfinished store only if it has the same one. By default it is `fingerprint`.
        """
        return self.fingerprint()

    def end_tasks(self) -> None:
        """End `tasks`, if it waits: no more tasks are needed. Runs in another thread; must not wait."""

    def abandon(self) -> None:
        """Note that the batches of all tasks so far are dropped: `load` may return None instead, if it waits.

        Runs in another thread, before `seek` or `begin_at`; must not wait.
        """

    def state_dict(self) -> dict[str, Any]:
        """What was delivered, as JSON-serializable data."""
        raise PipelineStateError(f"{self.name} has no state to save")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the batches that `state` counts. Call it before anything is delivered."""
        raise PipelineStateError(f"{self.name} has no state to load")

    def state_at(self, ticket: int) -> dict[str, Any]:
        """The state after all tasks below `ticket` were delivered, as JSON-serializable data."""
        raise NotImplementedError(f"{self.name} must define state_at(ticket)")

    def find(self, state: Mapping[str, Any]) -> Any:
        """Return the place of a state, for `begin_at`. Changes nothing.

        Raises
        ------
        StateMismatchError
            The state is not valid, or belongs to other data.
        """
        raise NotImplementedError(f"{self.name} must define find(state)")

    def begin_at(self, place: Any) -> int:
        """Make the next call of `tasks` start at a place, and forget what was loaded so far.

        Runs while the source has no workers.

        Returns
        -------
        int
            Ticket of the first task. Where the source knows its length, epoch n ends before ticket
            ``number_of(n + 1)``, even if `place` is in the middle of an epoch.
        """
        raise NotImplementedError(f"{self.name} must define begin_at(place)")

    def front(self, epoch: int) -> Any:
        """Return the place of the first batch of an epoch, for `begin_at` and `seek`. Changes nothing."""
        raise NotImplementedError(f"{self.name} must define front(epoch)")

    def seek(self, place: Any) -> int:
        """As `begin_at`, but keep the counts of what was loaded so far."""
        raise NotImplementedError(f"{self.name} must define seek(place)")

    def skip(self, ticket: int, samples: Iterable[int | str], steps: Iterable[int | tuple[int, int]]) -> Any:
        """Skip samples and steps (see `Pipeline.skip`) in the tasks from `ticket` on.

        Returns
        -------
        place
            The place of the task with this ticket, for `seek`.
        """
        raise PipelineStateError(
            f"{self.name} cannot skip samples or steps; a reader in the same pipeline can, such as ImageFileReader"
        )

    def machines(self) -> tuple[MachineStats, ...]:
        """The other machines upstream that have reported figures."""
        return ()

    def delivered(self, ticket: int) -> bool:
        """Note a task as done: its batch was returned to the user, consumed by a sink, or skipped.

        Parameters
        ----------
        ticket : int
            Number of the task, counted from the first one that `tasks` yielded.

        Returns
        -------
        bool
            False to drop the batch.
        """
        return True

    def tasks(self) -> Iterator[Any]:
        """Iterate over the tasks, in the order of their batches; one worker at a time advances it."""
        raise NotImplementedError(f"{self.name} must define tasks()")

    def samples_in(self, task: Any) -> int | None:
        """Number of samples in the batch of a task if none is skipped; None if unknown.

        Samples that `load` does not return count as skipped in the statistics. 0 is a task without a batch.
        """
        return None

    def load(self, task: Any) -> Batch | None:
        """Return the batch of a task, or None to skip it. Runs in several workers at once."""
        raise NotImplementedError(f"{self.name} must define load(task)")


class Stage(Module):
    """Transforms batches between a source and the end of the pipeline.

    Attributes
    ----------
    regroups : bool
        Whether the pipeline makes batches of `batch_size` samples of those that `process` returns, and drops a smaller
        last one of an epoch with `drop_last`, as `Rebatch` does. Such a stage has one worker.
    batch_size : int or None
        With `regroups`: known when the pipeline starts.
    drop_last : bool
        With `regroups`.
    """

    regroups: bool = False
    batch_size: int | None = None
    drop_last: bool = False

    def batch_size_in(self, epoch: int) -> int | None:
        """Return the size of the batches that the pipeline makes in an epoch, with `regroups`."""
        return self.batch_size

    def process(self, batch: Batch) -> Batch | None:
        """Return the transformed batch, or None to skip it. Runs in several workers at once.

        A result without a `seq` (a new Batch) takes the identity of `batch`. A result with another number of samples
        needs the `indices` of its samples, which `Batch.take` sets.
        """
        raise NotImplementedError(f"{self.name} must define process(batch)")


class Sink(Module):
    """Consumes batches at the end of a pipeline, instead of `Pipeline.dequeue`.

    A pipeline with a sink starts when it is made. A sink has one worker unless the user gives a number, since several
    would not keep the order of the batches.
    Override `most_workers` if the order does not matter.
    """

    starts_at_once = True

    def most_workers(self) -> int:
        return 1

    def consume(self, batch: Batch) -> None:
        """Consume one batch. Batches arrive in order; several workers consume several at once."""
        raise NotImplementedError(f"{self.name} must define consume(batch)")


class Failure(NamedTuple):
    """Takes the place of a batch for which a module raised, in a pipeline with an `Outlet`.

    Attributes
    ----------
    error : Exception
    module : str
        Name of the module that raised it.
    """

    error: Exception
    module: str


class Outlet(Sink):
    """A sink that sends batches to another process: it chooses the tasks and receives every outcome.

    An exception of a module does not end the pipeline; a `Failure` takes the place of the batch.
    """

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        """Iterate over tasks of the source, in the order in which to make them; one worker at a time advances it.

        Task n of them has ticket n. It may wait until `interrupt` is called.

        Parameters
        ----------
        source : Source
        length : int or None
            Tasks in an epoch; None if the source does not know.
        """
        raise NotImplementedError(f"{self.name} must define tasks_of(source, length)")

    def identity(self, ticket: int) -> tuple[int, int]:
        """Return epoch and number in the epoch of a batch whose source set none."""
        raise NotImplementedError(f"{self.name} must define identity(ticket)")

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        """Take the outcome of a task: a batch, a failure, or None if it was skipped."""
        raise NotImplementedError(f"{self.name} must define carry(ticket, outcome)")

    def end_tasks(self) -> None:
        """End `tasks_of`, if it waits: no more tasks are needed. Runs in another thread; must not wait."""

    def drain(self) -> None:
        """Wait, after the last task, until everything sent has arrived."""
