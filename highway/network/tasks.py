"""Tasks and Load: the order of a reader on one machine, its reading and decoding on others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from highway._core.installation import version
from highway.batch import Batch
from highway.engine import Module, Source, Stage
from highway.engine.spec import Spec
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, StateMismatchError
from highway.network.definitions import Definition, definition_of
from highway.sampling.sampler import Task

__all__ = ["Load", "Tasks", "reader_in", "task_batch"]

# Fields of a batch that is a task.
SAMPLES, DEFINITION = "samples", "definition"
# Longest text of the error of a bad sample.
MOST_TEXT = 1000


def reader_in(owner: str, module: Any) -> Any:
    """Return a module as a reader whose tasks other machines can load; raises ArgumentError for others."""
    if not isinstance(module, Source) or not module.seekable or not hasattr(module, "plain_tasks"):
        raise ArgumentError(
            f"{owner}: {getattr(module, 'name', module)!r} cannot be read on other machines; expected a reader that "
            "numbers its samples, such as ImageFileReader, TarReader or Mix"
        )
    return module


def task_batch(task: Any, definition: Definition | None) -> Batch:
    """Return a task as a batch that travels to a `Load`: the indices of its samples."""
    # Without an axis: it belongs to no sample.
    extras = {} if definition is None else {DEFINITION: np.array(int(definition.digest, 16), np.uint64)}
    indices = task.indices.copy()
    return Batch({SAMPLES: indices}, epoch=task.epoch, seq=task.seq, indices=indices, extras=extras)


class Tasks(Source):
    """Yields the tasks of a reader as batches: the samples of each batch by number, about 500 bytes.

    A data machine ``Pipeline([Tasks(reader), ZMQSink(address)])`` keeps the order, and reads nothing. Its workers begin
    with ``ZMQSource(address)`` and ``Load(reader)``.

    Parameters
    ----------
    reader : Source
        A reader that numbers its samples.

    Raises
    ------
    ArgumentError
        It is no such reader.
    """

    seekable = True

    def __init__(self, reader: Source) -> None:
        super().__init__(workers=1)
        self.reader = reader_in("Tasks", reader)

    def __repr__(self) -> str:
        return f"Tasks({self.reader!r})"

    def for_run(self) -> Module:
        run = self.copied()
        run.reader = self.reader.for_run()
        return run

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        self.reader.settle()

    @property
    def seed_drawn(self) -> bool:  # type: ignore[override]
        drawn: bool = self.reader.seed_drawn
        return drawn

    @property
    def epochs(self) -> int | None:  # type: ignore[override]
        epochs: int | None = self.reader.epochs
        return epochs

    @property
    def shard(self) -> tuple[int, int]:
        shard: tuple[int, int] = self.reader.shard
        return shard

    @property
    def epochs_alike(self) -> bool:
        alike: bool = self.reader.epochs_alike
        return alike

    def __len__(self) -> int:
        return len(self.reader)

    def batches_in(self, epoch: int) -> int:
        count: int = self.reader.batches_in(epoch)
        return count

    def number_of(self, epoch: int, seq: int = 0) -> int:
        number: int = self.reader.number_of(epoch, seq)
        return number

    def batch_at(self, number: int) -> tuple[int, int]:
        place: tuple[int, int] = self.reader.batch_at(number)
        return place

    def skips_epoch(self, epoch: int) -> bool:
        skips: bool = self.reader.skips_epoch(epoch)
        return skips

    def fingerprint(self) -> str:
        fingerprint: str = self.reader.fingerprint()
        return fingerprint

    def samples_fingerprint(self) -> str:
        fingerprint: str = self.reader.samples_fingerprint()
        return fingerprint

    def known_keys(self) -> Any:
        return self.reader.known_keys()

    def state_at(self, ticket: int) -> dict[str, Any]:
        state: dict[str, Any] = self.reader.state_at(ticket)
        return state

    def find(self, state: Any) -> Any:
        return self.reader.find(state)

    def front(self, epoch: int) -> Any:
        return self.reader.front(epoch)

    def begin_at(self, place: Any) -> int:
        start: int = self.reader.begin_at(place)
        return start

    def seek(self, place: Any) -> int:
        start: int = self.reader.seek(place)
        return start

    def skip(self, ticket: int, samples: Any, steps: Any) -> Any:
        return self.reader.skip(ticket, samples, steps)

    def tasks(self) -> Iterator[Task]:
        tasks: Iterator[Task] = self.reader.plain_tasks()
        return tasks

    def tasks_from(self, start: int) -> Iterator[Task]:
        tasks: Iterator[Task] = self.reader.plain_tasks(start)
        return tasks

    def samples_in(self, task: Task) -> int:
        return len(task.indices)

    def load(self, task: Task) -> Batch | None:
        return task_batch(task, None) if len(task.indices) else None


class Load(Stage):
    """Loads the batches of the tasks that arrive, as the reader in a pipeline of its own would.

    Parameters
    ----------
    reader : Source
        The reader whose tasks arrive, with the same arguments: see `Tasks`.
    workers : int, optional
        Number of threads; by default as many as the reader has.

    Raises
    ------
    ArgumentError
        It is no reader that numbers its samples.
    StateMismatchError
        Raised with the first batch where the tasks are of another definition: other data, arguments, stages or another
        version of Highway.
    """

    def __init__(self, reader: Source, *, workers: int | None = None, queue_size: int | None = None) -> None:
        self.reader = reader_in("Load", reader)
        super().__init__(
            workers=reader.workers if workers is None else workers,
            queue_size=reader.queue_size if queue_size is None else queue_size,
        )
        # Whether the tasks come from the training machine itself.
        self.for_rank = False
        self.definition: Definition | None = None
        self._told: set[int] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Load({self.reader!r})"

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """See `Module`."""
        return bool(self.reader.hands_over)

    def default_workers(self) -> int:
        count: int = self.reader.default_workers()
        return count

    def most_workers(self) -> int:
        count: int = self.reader.most_workers()
        return count

    def for_run(self) -> Module:
        run = self.copied()
        run.reader = self.reader.for_run()
        run._told, run._lock = set(), threading.Lock()
        return run

    def follow(self, before: Module | None) -> None:
        super().follow(before)
        self.reader.follow(None)
        for name in ("image_shape", "image_shapes", "image_dtype", "view_fields"):
            setattr(self, name, getattr(self.reader, name))

    def fuse(self, steps: Sequence[Any], seed: int) -> int:
        """Fuse transforms into the reader, as the reader would; see `Augmentations`."""
        fuse = getattr(self.reader, "fuse", None)
        return 0 if fuse is None else fuse(steps, seed)

    def out_spec(self, before: Spec | None) -> Spec | None:
        spec: Spec | None = self.reader.out_spec(None)
        return spec

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        self.reader.enter(modules, stats)
        if self.for_rank:
            self.reader.count_elsewhere()
        stages = [module for module in modules if isinstance(module, Stage) and module is not self]
        self.definition = definition_of(self.reader, stages)

    def open(self) -> None:
        self.reader.open()

    def close(self) -> None:
        self.reader.close()

    def interrupt(self) -> None:
        self.reader.interrupt()

    def process(self, batch: Batch) -> Batch | None:
        self._check(batch)
        assert batch.seq is not None
        loaded: Batch | None = self.reader.load(Task(batch.epoch, batch.seq, batch.indices))
        return loaded

    def remarks(self, again: bool = False) -> list[list[Any]]:
        """Return [number of the sample, class of the error, text] of the bad samples that were not returned before.

        After a call with `again`, the next call returns them again.
        """
        with self._lock:
            found = {
                number: error
                for number, error in self.reader.bad_numbers().items()
                if number not in self._told
            }
            if not again:
                self._told.update(found)
        return [[number, type(error).__name__, str(error)[:MOST_TEXT]] for number, error in found.items()]

    def _check(self, batch: Batch) -> None:
        stated = batch.extras.get(DEFINITION)
        if stated is None or self.definition is None or int(stated) == int(self.definition.digest, 16):
            return
        raise StateMismatchError(
            f"{self.name}: the tasks are of another definition than this worker has, which is {self.reader!r} with "
            f"highway {version()}; expected the same data, arguments, seeds, stages and version of Highway on the "
            "training machine and on all workers"
        )
