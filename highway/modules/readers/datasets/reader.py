"""DatasetReader: reads the samples of a data set in Python."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag, number, whole
from highway.arguments.options import completed, takes
from highway.batch import Batch
from highway.engine import Module, usable_cores
from highway.errors import (
    ArgumentError,
    EmptyDatasetError,
    HighwayError,
    ProcessLostError,
    SampleError,
    SampleTimeoutError,
    UnknownLengthError,
)
from highway.modules.readers.bad_samples import BadSamples
from highway.modules.readers.datasets.collation import Collator, Names, Schema
from highway.modules.readers.datasets.items import Items, only_iterates
from highway.modules.readers.datasets.iteration import IterableSource
from highway.modules.readers.datasets.making import Answer, Failed, Maker, Request, batch_of
from highway.modules.readers.options import OnError, SourceOptions
from highway.modules.readers.ordered import OrderedSource
from highway.sampling.identity import numbers_of
from highway.sampling.lengths import TokenBatches
from highway.sampling.sampler import Task
from highway.sampling.schedules import BatchSize

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from highway.modules.readers.datasets.processes import Processes

__all__ = ["DatasetReader"]

_MOST_PROCESSES = 1024
_MOST_REFERENCES = 16
"""Samples that are tried as the reference, if the first ones are bad and the policy is to raise."""

_OF_NUMBERED = (
    ("seed", 0),
    ("subset", None),
    ("split", None),
    ("stratify", False),
    ("split_seed", 0),
    ("weights", None),
    ("repeats", 1),
    ("max_samples", None),
)
"""Options that order or choose samples by their numbers, which those of an iterable do not have, and their defaults."""


@takes(SourceOptions)
class DatasetReader(OrderedSource):
    """Reads a data set in Python and yields batches of its samples, from threads or worker processes.

    A sample is a tuple, a named tuple, a mapping, or one value; its values are numbers, texts (str), bytes, lists of
    numbers, arrays, or anything that NumPy converts, such as tensors of torch on the CPU and pictures of PIL. Each
    value becomes a field:

    - numbers (N,): Python's ints as int64, its floats and lists of floats as float32, arrays with their own dtype
    - arrays of one shape (N, ...)
    - arrays whose lengths along the first axis differ: ragged, see `Batch`
    - texts and bytes: ragged uint8, see `Batch.text_of`

    The first sample of those that `subset` and `split` choose determines fields, dtypes and shapes; a sample that
    differs is a bad one.

    Parameters
    ----------
    dataset : object
        With ``__len__`` and ``__getitem__`` (index from 0), such as a list or a Dataset of torch; a function of the
        index, with `length`; or an iterable, which is read in its own order, and can neither be shuffled nor resumed:
        it takes no options that need samples by their index.
    batch_size : int or Schedule
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`; no schedule for an iterable.
    batch_by : TokenBatches, optional
        Instead of `batch_size`: batches of samples of about the same length, of so many samples as their lengths allow,
        see `highway.sampling.tokens`. A bad sample is replaced by one of the same group of lengths, or a shorter one.
    collate : callable, optional
        Makes the arrays of a batch from a list of samples: returns a mapping by name, a tuple, or an array, each with a
        row for each sample.
    names : sequence of str or mapping, optional
        Names of the values of a tuple, in order, or keys of a mapping to read; or a mapping from positions or keys to
        names, which reads only these. By default the keys of a mapping and the fields of a named tuple. Other tuples of
        one or two values, and single values, are ``images`` (if uint8 with three axes, otherwise ``inputs``) and
        ``labels``; larger ones need names.
    ragged : collection of str, optional
        Fields that are ragged in every batch; all others need equal lengths. By default fields of one or two axes are
        ragged in the batches where lengths differ.
    keys : sequence of str, optional
        Key of every sample.
    length : int, optional
        Number of samples of a function.
    batched : bool, optional
        Read all samples of a batch with one call of ``dataset.__getitems__(indices)``. By default only where
        `dataset` is a `datasets.Dataset` of Hugging Face, whose batches are then taken as Arrow tables.
    processes : int
        Number of worker processes; 0 for threads. Processes are for data sets that hold the GIL: they need a data set
        that can be pickled, and each has its own copy of it.
    start_method : {"spawn", "forkserver", "fork"}
        How processes start, as in `multiprocessing`. "fork" starts at once and pickles nothing, but copies a process
        whose other threads may hold locks.
    timeout : float, optional
        Most seconds for a sample in a worker process; None for no limit.
    on_error : {"raise", "skip", "replace"}
        Policy for a bad sample: one that raises, has other fields than the first one, takes longer than `timeout`, or
        whose worker process ends. See `PictureOptions`. If the machine has no memory or file handles left, the reader
        raises under any policy.
    max_errors : int or float, optional
        With "skip" and "replace": how many bad samples are allowed, as a count or (a float up to 1) as a fraction of
        the data.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size
        See `SourceOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range, `dataset` is no data set, or it cannot be pickled (when the pipeline starts).
    EmptyDatasetError
        There are no samples.

    Notes
    -----
    In worker processes the generators of Python's `random`, NumPy (`numpy.random.seed`) and torch are seeded before
    each sample, from the seed, the epoch and the index. So random augmentations in the data set are the same for any
    number of processes, after resuming, and in a replay. Threads share these generators, which are then left alone:
    draw from a generator of your own, or from a transform of Highway.

    The fingerprint, which ties a saved state to its data, covers the type and length of the data set, and the keys.

    Examples
    --------
    >>> import numpy as np
    >>> from highway.engine import Pipeline
    >>> rows = [(np.full(2, index, np.float32), index % 2) for index in range(5)]
    >>> with Pipeline([DatasetReader(rows, 3, shuffle=False, epochs=1)]) as pipeline:
    ...     [(batch.inputs.shape, batch.labels.tolist()) for batch in pipeline]
    [((3, 2), [0, 1, 0]), ((2, 2), [1, 0])]
    """

    hands_over = True
    _processes: Processes | None = None

    def __init__(
        self,
        dataset: Any,
        batch_size: BatchSize | None = None,
        *,
        batch_by: TokenBatches | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        names: Names = None,
        ragged: Iterable[str] | None = None,
        keys: Sequence[str] | None = None,
        length: int | None = None,
        batched: bool | None = None,
        processes: int = 0,
        start_method: Literal["spawn", "forkserver", "fork"] = "spawn",
        timeout: float | None = None,
        on_error: OnError = "raise",
        max_errors: int | float | None = None,
        **options: Unpack[SourceOptions],
    ) -> None:
        options = completed(SourceOptions, options)
        super().__init__(workers=options["workers"], queue_size=options["queue_size"])
        self.dataset = dataset
        self._check_batches(batch_size, batch_by)
        self._collator = Collator(self.name, names, ragged, collate)
        self.processes = whole(self.name, "processes", processes, 0, _MOST_PROCESSES)
        self.start_method = start_method
        if start_method not in ("spawn", "forkserver", "fork"):
            raise self._refused("start_method", start_method, "'spawn', 'forkserver' or 'fork'")
        self.timeout = None if timeout is None else number(self.name, "timeout", timeout, 1e-3, 1e9)
        if timeout is not None and not processes:
            raise self._refused("timeout", timeout, "None with processes=0, since a thread cannot be ended")
        batched = None if batched is None else flag(self.name, "batched", batched)
        self._stream: Callable[[], IterableSource] | None = None
        if length is None and only_iterates(dataset):
            if batch_by is not None:
                raise self._refused(
                    "batch_by", batch_by, "None with an iterable, whose samples have no numbers"
                )
            self._check_iterable(keys, batched, on_error, max_errors, options)
            self._stream = self._stream_of(whole(self.name, "batch_size", batch_size, 1, 2**32), options)
            return
        self._items = Items(self.name, dataset, length, batched)
        if not self._items.size:
            raise EmptyDatasetError(f"{self.name}: dataset has no samples; expected one or more")
        self._keys = self._checked_keys(keys)
        self._batch_by = batch_by
        if batch_by is not None:
            grouping = batch_by.grouping(self.name, self._items.size)
            self.order = self._grouped(grouping, options)
        else:
            assert batch_size is not None
            self.order = self._ordered(self._items.size, batch_size, options)
        self._bad_samples: BadSamples = BadSamples(
            self.name, self.order, on_error, max_errors, "sample", "of the dataset"
        )
        self.on_error = on_error
        self._schema: Schema | None = None
        self._learning = threading.Lock()

    def __repr__(self) -> str:
        if self._stream is not None:
            return repr(self._stream())
        where = f", processes={self.processes}" if self.processes else ""
        kind = type(self.dataset).__name__
        batches = self.order.batch_size if self._batch_by is None else self._batch_by
        return f"<DatasetReader of a {kind} of {self._items.size}, {batches}{where}{self._drawn()}>"

    @property
    def size(self) -> int:
        """Number of samples."""
        return self._items.size

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(key, reason) of every bad sample found so far, once each; the index stands for a missing key."""
        return [(self._key(index), str(error)) for index, error in self._bad_by_index().items()]

    @property
    def epochs(self) -> int | None:  # type: ignore[override]
        return super().epochs if self._stream is None else self._stream().epochs

    @property
    def shard(self) -> tuple[int, int]:
        return super().shard if self._stream is None else self._stream().shard

    @property
    def seed_drawn(self) -> bool:  # type: ignore[override]
        return self._stream is None and super().seed_drawn

    def known_keys(self) -> Sequence[str] | None:
        return self._keys

    def contents(self) -> tuple[bytes, list[bytes]]:
        kind = type(self.dataset)
        described = f"{kind.__module__}.{kind.__qualname__}"
        return b"DatasetReader", [described.encode(), *(key.encode() for key in self._keys or ())]

    # The run

    def default_workers(self) -> int:
        return self.processes or usable_cores()

    def most_workers(self) -> int:
        return self.default_workers()

    def for_run(self) -> Module:
        return super().for_run() if self._stream is None else self._stream()

    def separate(self) -> None:
        super().separate()
        self._processes = None
        self._learning = threading.Lock()

    def begin_run(self) -> None:
        self._maker = Maker(self._items, self._collator, self.seed if self.processes else None)
        if self.processes:
            # Late: multiprocessing takes time to import.
            from highway.modules.readers.datasets.processes import Processes

            self._processes = Processes(
                self.name, self._maker, self.processes, self.start_method, self.timeout
            )
            self._processes.start()

    def interrupt(self) -> None:
        if self._processes is not None:
            self._processes.interrupt()

    def load(self, task: Task) -> Batch | None:
        """Read one batch; None if all of its samples were skipped."""
        indices = task.indices.copy()
        if not len(indices):
            self._bad_samples.count(indices)
            return None
        schema = self._reference()
        answer = self._make(Request(task.epoch, indices, schema))
        if answer.failures and self.on_error == "replace":
            answer = self._replaced(task, indices, answer, schema)
        while answer.failures:
            self._note(answer.failures, indices)
            indices = np.delete(indices, list(answer.failures))
            if answer.arrays or not len(indices):
                break
            # A process was lost, and all of the batch with it.
            answer = self._make(Request(task.epoch, indices, schema))
        self._bad_samples.count(indices)
        if not len(indices):
            return None
        keys = self._keys
        return batch_of(
            answer.arrays,
            answer.offsets,
            epoch=task.epoch,
            seq=task.seq,
            indices=indices,
            keys=None if keys is None else [keys[number] for number in numbers_of(indices).tolist()],
        )

    def _make(self, request: Request) -> Answer:
        return self._maker.make(request) if self._processes is None else self._processes.make(request)

    def _reference(self) -> Schema | None:
        """Return what all samples have in common, from the first one that is good; None where the user collates."""
        if self._schema is None and self._collator.collate is None:
            with self._learning:
                if self._schema is None:
                    self._schema = self._learned()
        return self._schema

    def _learned(self) -> Schema:
        # Those of a subset or a split only: others may be bad, or different.
        chosen = self.order.candidates(0)
        size = self.order.count if chosen is None else len(chosen)
        first: HighwayError | None = None
        for turn in range(min(size, _MOST_REFERENCES) if self.on_error == "raise" else size):
            index = turn if chosen is None else int(chosen[turn])
            indices = np.array([index], np.int64)
            answer = self._make(Request(0, indices, None))
            if answer.schema is not None and not answer.failures:
                return answer.schema
            first = first or self._error(index, answer.failures[0])
        assert first is not None
        if self.on_error == "raise":
            raise first
        self._bad_samples.refuse_all(first)
        raise first

    # Bad samples

    def _replaced(
        self, task: Task, indices: NDArray[np.int64], answer: Answer, schema: Schema | None
    ) -> Answer:
        """Make the batch again, with other samples in place of the bad ones, whose indices it writes to `indices`."""
        skipped = self.skipped_samples(task)
        tries = {}
        while answer.failures:
            rows = list(answer.failures)
            self._note(answer.failures, indices)
            self.count_replaced(sum(row not in tries for row in rows))
            for row in rows:
                if row not in tries:
                    tries[row] = self._bad_samples.replacements(task.epoch, indices[row : row + 1], skipped)
            while rows:
                for row in rows:
                    tried = next(tries[row], None)
                    if tried is None:
                        self._bad_samples.refuse_all(
                            self._error(int(numbers_of(indices)[row]), answer.failures[row])
                        )
                    else:
                        indices[row] = tried[0]
                trial = self._make(Request(task.epoch, indices[rows], schema))
                if not trial.failures:
                    break
                self._note(trial.failures, indices[rows])
                # Where a process was lost, the others are untried; they are all tried in the end.
                rows = [rows[place] for place in trial.failures]
            answer = self._make(Request(task.epoch, indices, schema))
        return answer

    def _note(self, failures: dict[int, Failed], indices: NDArray[np.int64]) -> None:
        """Record the bad rows of `indices`; raises if the policy or `max_errors` does not allow them."""
        numbers = numbers_of(indices).tolist()
        self._bad_samples.note(
            {numbers[row]: self._error(numbers[row], failures[row]) for row in sorted(failures)}
        )

    def _error(self, index: int, failed: Failed) -> SampleError:
        key = "" if self._keys is None else f" ({self._keys[index]!r})"
        cause = failed.cause
        lost = isinstance(cause, (ProcessLostError, SampleTimeoutError))
        kind: type[SampleError] = type(cause) if lost else SampleError  # type: ignore[assignment]
        error = kind(f"{self.name}: sample {index}{key} of the dataset {failed.text}")
        if not lost and cause is not None:
            # Recorded errors are kept: their frames would keep the samples of the batch.
            error.__cause__ = cause if self.on_error == "raise" else cause.with_traceback(None)
        return error

    def _key(self, index: int) -> str:
        return str(index) if self._keys is None else self._keys[index]

    # Iterables

    def __len__(self) -> int:
        if self._stream is not None:
            raise UnknownLengthError(f"{self.name}: the length of an iterable is not known before its end")
        return super().__len__()

    def _stream_of(self, batch_size: int, options: SourceOptions) -> Callable[[], IterableSource]:
        epochs, drop_last = options["epochs"], flag(self.name, "drop_last", options["drop_last"])
        epochs = None if epochs is None else whole(self.name, "epochs", epochs, 0, 2**32)

        def made() -> IterableSource:
            return IterableSource(
                self.dataset,
                batch_size,
                epochs,
                options["shard"],
                drop_last,
                self._collator,
                self.workers,
                self.queue_size,
            )

        return made

    def _check_iterable(
        self, keys: object, batched: object, on_error: str, max_errors: object, options: SourceOptions
    ) -> None:
        """Raise ArgumentError for arguments that need samples by index."""
        kind = f"with an iterable, as a {type(self.dataset).__name__} is: it has no __getitem__ and __len__"
        if options["shuffle"] is not False:
            raise self._refused(
                "shuffle", options["shuffle"], f"False {kind}, so its samples come in its own order"
            )
        for name, value, only in (
            ("keys", keys, None),
            ("batched", batched, None),
            ("processes", self.processes, 0),
            ("on_error", on_error, "raise"),
            ("max_errors", max_errors, None),
            *((name, options[name], only) for name, only in _OF_NUMBERED),  # type: ignore[literal-required]
        ):
            # An array has no truth value.
            if value is not only and (not np.isscalar(value) or value != only):
                raise self._refused(name, value, f"{only!r} {kind}")
        if iter(self.dataset) is self.dataset and options["epochs"] != 1:
            raise self._refused(
                "epochs",
                options["epochs"],
                "1 with an iterator, which gives its samples once; or an iterable",
            )

    # Arguments

    def _check_batches(self, batch_size: object, batch_by: object) -> None:
        """Raise ArgumentError unless one of the two is given."""
        if batch_by is not None and not isinstance(batch_by, TokenBatches):
            raise self._refused("batch_by", batch_by, "what highway.sampling.tokens(limit, lengths) returns")
        if (batch_size is None) == (batch_by is None):
            given = "missing" if batch_size is None else f"{batch_size!r}, and batch_by is given too"
            raise ArgumentError(f"{self.name}: batch_size is {given}; expected either batch_size or batch_by")

    def _refused(self, name: str, value: object, allowed: str) -> ArgumentError:
        return ArgumentError(f"{self.name}: {name} is {value!r}; expected {allowed}")

    def _checked_keys(self, keys: Any) -> list[str] | None:
        if keys is None:
            return None
        found = [] if isinstance(keys, (str, bytes)) else list(keys)
        if len(found) != self._items.size or not all(isinstance(key, str) for key in found):
            raise ArgumentError(
                f"{self.name}: keys is a {type(keys).__name__} with {len(found)} names; expected {self._items.size}, "
                "one for each sample"
            )
        return found
