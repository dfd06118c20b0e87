"""LevelDBSink and LevelDBSource: batches into a store, sample by sample, and out of it in any order."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag, number, whole
from highway.batch import Batch
from highway.engine import Failure, Module, Outlet, Source
from highway.errors import (
    ArgumentError,
    CorruptStoreError,
    EmptyDatasetError,
    PipelineStateError,
    TooManyErrors,
)
from highway.order import Order, Task
from highway.randomness import REPLACEMENT_POSITION, SampleRandom
from highway.stats import PipelineStats
from highway.store.reading import StoreReader
from highway.store.records import Slots
from highway.store.writing import StoreWriter

__all__ = ["LevelDBSink", "LevelDBSource"]

_RANDOM_REPLACEMENTS = 8
"""Replacements that are drawn for a bad record before those behind it are tried in turn."""


class LevelDBSink(Outlet):
    """Writes the samples of every batch to a store, all of their fields as they are, for a `LevelDBSource`.

    Samples are numbered as they arrive. They are written some MiB at once, and such a piece is on the disk or not there
    at all, whatever happens. The store is complete when the pipeline has come to its end. Where it did not, a pipeline
    of the same modules with ``append=True`` goes on: what is there, by epoch and index, is not read again, and is not
    written again either. So a sample that comes twice in an epoch is stored once.

    Parameters
    ----------
    path : path
        Folder of the store; made if need be.
    append : bool
        Go on with what is there. Without it, a path where a store is is refused.
    batch_bytes : int
        How much is written at once, 1 to 1 GiB.

    Raises
    ------
    ArgumentError
        An argument is out of range.
    MissingPackageError
        plyvel is not installed.
    StoreError, StoreLockedError, CorruptStoreError, IncompleteStoreError, StateMismatchError
        By the Pipeline, which opens the store: something else is at the path, it cannot be written to, somebody has it
        open, it is damaged, it was not finished, or its data are others. With a batch: it cannot be written, or differs
        from those before it in fields, dtypes or shapes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        append: bool = False,
        batch_bytes: int = 4 << 20,
    ) -> None:
        super().__init__(workers=1)
        self.path = os.fspath(path)
        self.append = flag(self.name, "append", append)
        self.batch_bytes = whole(self.name, "batch_bytes", batch_bytes, 1, 1 << 30)
        self._writer: StoreWriter | None = None
        self._source: Source | None = None
        self._length: int | None = None
        self._exhausted = False
        # Numbers of the tasks that are under way, by ticket.
        self._numbers: dict[int, int] = {}
        self._guard = threading.Lock()
        self._at_work = self._interrupted = False

    def __repr__(self) -> str:
        return f"LevelDBSink({self.path!r}{', append=True' if self.append else ''})"

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        source = modules[0]
        assert isinstance(source, Source)
        self._source = source
        classes = getattr(source, "classes", None)
        self._writer = StoreWriter(
            self.path,
            self.name,
            append=self.append,
            batch_bytes=self.batch_bytes,
            classes=classes if classes is None or isinstance(classes, int) else list(classes),
            fingerprint=source.fingerprint(),
            shard=source.shard,
        )

    @property
    def _open_writer(self) -> StoreWriter:
        assert self._writer is not None
        return self._writer

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        self._length = length
        ticket = 0
        for place, task in enumerate(source.tasks()):
            if isinstance(task, Task) and self._there(task):
                continue
            self._numbers[ticket] = place
            ticket += 1
            yield task
        self._exhausted = True

    def _there(self, task: Task) -> bool:
        writer = self._open_writer
        return all(writer.has(task.epoch, index) for index in task.indices.tolist())

    def identity(self, ticket: int) -> tuple[int, int]:
        place = self._numbers[ticket]
        return divmod(place, self._length) if self._length else (0, place)

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        del self._numbers[ticket]
        if isinstance(outcome, Failure):
            if sys.version_info >= (3, 11):
                outcome.error.add_note(f"In module {outcome.module}, in front of this one:")
            raise outcome.error
        source = self._source
        assert source is not None
        if source.follows_delivery and not source.delivered(ticket):
            return
        if outcome is not None:
            self._open_writer.add(outcome)

    def drain(self) -> None:
        # Where `Pipeline.drain` ended the tasks, what is there is not all.
        if self._exhausted:
            self._open_writer.finish()

    def open(self) -> None:
        with self._guard:
            if self._interrupted:
                raise PipelineStateError(f"{self.name}: the pipeline was stopped")
            self._at_work = True

    def interrupt(self) -> None:
        with self._guard:
            self._interrupted = True
            if self._at_work or self._writer is None:
                return
        self._writer.close()

    def close(self) -> None:
        self._open_writer.close()


class LevelDBSource(Source):
    """Reads the samples of a store that `LevelDBSink` wrote, or the first Highway, in any order.

    A batch has the fields, extras, keys and boxes that it would have straight from the reader; its `indices` are the
    numbers of the samples in the store, and transforms draw as they would behind that reader. Every record is compared
    with its checksum. Any number of sources, in any number of processes, may read a store; nobody can write to it
    meanwhile. Reading needs no right to write there.

    Parameters
    ----------
    path : path
        Folder of the store.
    batch_size : int
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`.
    shuffle : bool
        A new order each epoch, or the order of the store.
    seed : int
        0 to 2**64 - 1; of the order and the replacements.
    epochs : int, optional
        None for no end.
    shard : (int, int)
        (rank, world): this source's part of the data, as in `Order`.
    drop_last : bool
        Leave out what does not fill a batch.
    on_error : {"raise", "skip", "replace"}
        What to do about a record that is damaged: end, leave it out, or take another at random.
    max_errors : int or float, optional
        With "skip" and "replace": most damaged records, as a number or as a part (0.0 to 1.0) of the store.
    workers : int, optional
        Threads; by default as many as help, up to one for each core that the process may use.
    queue_size : int
        Most batches that may be outstanding behind this module.
    fields : sequence of str, optional
        Fields and extras to hand out; all by default.
    allow_incomplete : bool
        Read what there is of a store whose writing was interrupted.

    Raises
    ------
    ArgumentError
        An argument is out of range, or the store has no such field.
    StoreError, StoreLockedError, CorruptStoreError, IncompleteStoreError
        There is no store, it is being written, is damaged, or was not finished.
    EmptyDatasetError
        It has no samples. With a batch: no record could be read.
    CorruptStoreError, TooManyErrors
        With a batch.
    MissingPackageError
        plyvel is not installed.

    Attributes
    ----------
    classes : list of str, int or None
        As the reader had them that the store was written from.
    """

    hands_over = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        epochs: int | None = None,
        shard: tuple[int, int] = (0, 1),
        drop_last: bool = False,
        on_error: str = "raise",
        max_errors: int | float | None = None,
        workers: int | None = None,
        queue_size: int = 4,
        fields: Sequence[str] | None = None,
        allow_incomplete: bool = False,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        if on_error not in ("raise", "skip", "replace"):
            raise ArgumentError(
                f"{self.name}: on_error is {on_error!r}; expected 'raise' or 'skip' or 'replace'"
            )
        self.on_error = on_error
        self.max_errors = max_errors
        allow_incomplete = flag(self.name, "allow_incomplete", allow_incomplete)
        self._store = StoreReader(path, self.name, allow_incomplete=allow_incomplete)
        try:
            if not len(self._store):
                raise EmptyDatasetError(f"{self.name}: {self._store.path!r} has no samples")
            self._fields = self._chosen(fields)
            self._most_errors = self._checked_errors(max_errors, len(self._store))
            self.order = Order(
                len(self._store),
                batch_size,
                shuffle=shuffle,
                seed=seed,
                epochs=epochs,
                shard=shard,
                drop_last=drop_last,
                owner=self.name,
            )
        except BaseException:
            self._store.close()
            raise
        self.path = self._store.path
        self.classes = self._store.mark.classes
        self.image_shape = self._shape_of_images()
        self._lock = threading.Lock()
        self._at_work = 0
        # All bad records so far; those of them that were not read since; what came of the batches so far.
        self._bad: dict[int, CorruptStoreError] = {}
        self._lost: set[int] = set()
        self._batches_done = 0
        self._any_good = False

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.order)

    def __repr__(self) -> str:
        return f"LevelDBSource({self.path!r}, {self.order.batch_size})"

    @property
    def shard(self) -> tuple[int, int]:
        return self.order.rank, self.order.world

    @property
    def size(self) -> int:
        """Number of samples in the store."""
        return self.order.size

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(number, reason) of every record that was found damaged so far, once each."""
        with self._lock:
            return [(str(index), str(error)) for index, error in self._bad.items()]

    def fingerprint(self) -> str:
        mark = self._store.mark
        names = sorted(self._fields) if self._fields is not None else []
        return self.order.fingerprint(
            b"LevelDBSource",
            mark.fingerprint.encode(),
            self._store.schema.packed,
            repr((mark.classes, names)).encode("utf-8", "backslashreplace"),
        )

    def tasks(self) -> Iterator[Task]:
        """One task for each batch, in order."""
        return self.order.tasks()

    def tasks_from(self, start: int) -> Iterator[Task]:
        return self.order.tasks(start)

    def open(self) -> None:
        with self._lock:
            self._at_work += 1

    def close(self) -> None:
        with self._lock:
            self._at_work -= 1
            last = not self._at_work
        if last:
            self._store.close()

    def interrupt(self) -> None:
        self._store.close()

    def load(self, task: Task) -> Batch | None:
        """One batch; None when every sample of it was left out."""
        indices = task.indices.copy()
        with self._store:
            slots, failures = self._read(indices)
            if failures:
                self._record(failures)
                if self.on_error == "replace":
                    self._replace(slots, failures, task.epoch, indices)
                else:
                    indices = np.delete(indices, list(failures))
                    slots, failures = self._read(indices)
                    if failures:
                        raise next(iter(failures.values()))
        self._count(indices)
        if not len(indices):
            return None
        return slots.batch(epoch=task.epoch, seq=task.seq, indices=indices)

    def _read(self, indices: NDArray[np.int64]) -> tuple[Slots, dict[int, CorruptStoreError]]:
        """Those records, and what was wrong with the one in slot k, under k."""
        store = self._store
        slots = Slots(store.schema, len(indices), self._fields)
        failures = {}
        for slot, index in enumerate(indices.tolist()):
            try:
                slots.put(slot, store.read(index))
            except CorruptStoreError as error:
                failures[slot] = error
                with self._lock:
                    self._bad.setdefault(index, error)
                    self._lost.add(index)
        return slots, failures

    def _replace(
        self, slots: Slots, failures: dict[int, CorruptStoreError], epoch: int, indices: NDArray[np.int64]
    ) -> None:
        """Put other records into those slots, and their numbers into `indices`."""
        open_slots = np.array(list(failures))
        draws = SampleRandom(self.order.seed, epoch, indices[open_slots], REPLACEMENT_POSITION)
        last = indices[open_slots]
        rows = np.arange(len(open_slots))
        for attempt in range(_RANDOM_REPLACEMENTS + self.size):
            last = draws.integers(0, self.size) if attempt < _RANDOM_REPLACEMENTS else (last + 1) % self.size
            left = []
            for row in rows.tolist():
                slot, index = int(open_slots[row]), int(last[row])
                try:
                    slots.put(slot, self._store.read(index))
                    indices[slot] = index
                except CorruptStoreError as error:
                    left.append(row)
                    failures[slot] = error
                    with self._lock:
                        self._bad.setdefault(index, error)
                        self._lost.add(index)
            if not left:
                return
            self._record(failures)
            rows = np.array(left)
        self._refuse_all(next(iter(failures.values())))

    def _record(self, failures: dict[int, CorruptStoreError]) -> None:
        """Raise where the policy, or the number of bad records, allows no more."""
        error = next(iter(failures.values()))
        if self.on_error == "raise":
            raise error
        with self._lock:
            count, all_lost = len(self._bad), len(self._lost) >= self.size
        if count > self._most_errors:
            raise TooManyErrors(
                f"{self.name}: {count} of {self.size} records are damaged, max_errors={self.max_errors} allows fewer; "
                f"one of them: {error} (all of them: source.errors)"
            )
        if all_lost:
            self._refuse_all(error)

    def _count(self, indices: NDArray[np.int64]) -> None:
        """Note a batch of these samples; raises when it was the last of all and there was no sample in any."""
        with self._lock:
            self._lost.difference_update(indices.tolist() if self._lost else ())
            self._batches_done += 1
            self._any_good = self._any_good or len(indices) > 0
            over = self.order.epochs is not None and self._batches_done == self.order.epochs * len(self.order)
            error = next(reversed(self._bad.values())) if over and not self._any_good else None
        if error is not None:
            self._refuse_all(error)

    def _refuse_all(self, error: CorruptStoreError) -> None:
        raise EmptyDatasetError(
            f"{self.name}: none of the records that were tried could be read; one of them: {error}"
        ) from error

    def _chosen(self, fields: Sequence[str] | None) -> frozenset[str] | None:
        if fields is None:
            return None
        known = [column.name for column in self._store.schema.columns]
        if isinstance(fields, str) or not fields or not {*fields} <= {*known}:
            raise ArgumentError(
                f"{self.name}: fields is {fields!r}; expected some of {', '.join(map(repr, known))}"
            )
        return frozenset(fields)

    def _shape_of_images(self) -> tuple[int, int, int] | None:
        if self._fields is not None and "images" not in self._fields:
            return None
        for column in self._store.schema.columns:
            if column.name == "images" and column.dtype == np.uint8 and len(column.shape) == 3:
                height, width, channels = column.shape
                return height, width, channels
        return None

    def _checked_errors(self, value: object, size: int) -> float:
        """How many bad records are still allowed."""
        if value is None:
            return float("inf")
        if self.on_error == "raise":
            raise ArgumentError(
                f"{self.name}: max_errors is {value!r}; expected None with on_error='raise', which ends at the first "
                "error"
            )
        if isinstance(value, (float, np.floating)):
            return number(self.name, "max_errors", value, 0.0, 1.0) * size
        return float(whole(self.name, "max_errors", value, 0))
