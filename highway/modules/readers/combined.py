"""Concat and Mix: one source whose batches have the samples of several sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import tee
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch, empty
from highway.engine.spec import Spec
from highway.errors import ArgumentError, ContractError, HighwayError
from highway.modules.readers.ordered import OrderedSource, Within
from highway.sampling.digests import digest
from highway.sampling.identity import numbers_of
from highway.sampling.launchers import AUTO, WHOLE
from highway.sampling.mixture import ConcatSampler, MixSampler
from highway.sampling.sampler import Sampler, Task
from highway.sampling.schedules import BatchSize, Schedule
from highway.sampling.skips import Intervals

__all__ = ["Concat", "Mix"]


class _Combined(OrderedSource):
    """A source whose batches have the samples of several sources, which load them.

    Attributes
    ----------
    sources : list of OrderedSource
    """

    hands_over = True
    order: ConcatSampler

    def __init__(
        self,
        sources: Sequence[OrderedSource],
        make: Callable[..., ConcatSampler],
        *,
        workers: int | None,
        queue_size: int | None,
        **options: Any,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.sources = self._checked(sources)
        orders = [source.order.of_shard(WHOLE, self.name) for source in self.sources]
        self.order = make(orders, batch_size=orders[0].batch_size, owner=self.name, **options)
        shapes = {(source.image_shape, source.image_dtype) for source in self.sources}
        if len(shapes) == 1:
            self.image_shape, self.image_dtype = shapes.pop()
            self.image_shapes = self.sources[0].image_shapes
        self.classes = next(iter(self._classes()), None)

    def __repr__(self) -> str:
        return (
            f"<{self.name} of {', '.join(source.name for source in self.sources)}, {self.order.batch_size}>"
        )

    def _checked(self, given: Any) -> list[OrderedSource]:
        sources = list(given) if isinstance(given, (list, tuple)) else []
        wrong = [source for source in sources if not isinstance(source, OrderedSource)]
        if not sources or wrong:
            raise ArgumentError(
                f"{self.name}: sources is {given!r}; expected a list of one reader or more, such as ImageFileReader"
            )
        for number, source in enumerate(sources):
            if not hasattr(source, "order"):
                raise ArgumentError(
                    f"{self.name}: sources[{number}] is a {source.name} of an iterable, whose samples have no numbers; "
                    "expected a data set with __len__ and __getitem__"
                )
        first = sources[0]
        for number, source in enumerate(sources):
            where, order = f"{self.name}: sources[{number}], {source.name},", source.order
            if order.batch_size != first.order.batch_size:
                raise ArgumentError(
                    f"{where} has batch_size {order.batch_size}, and sources[0] {first.order.batch_size}; expected one "
                    "batch_size, that of the batches with samples of all"
                )
            for name, found, expected in (
                ("epochs", order.epochs, None),
                ("drop_last", order.drop_last, False),
                ("shard", order.given_shard, AUTO),
                ("workers", source.workers, None),
            ):
                if found not in (expected, WHOLE):
                    raise ArgumentError(f"{where} has {name}={found!r}; give {name} to {self.name} instead")
            self._check_alike(where, first, source)
        return sources

    def _check_alike(self, where: str, first: OrderedSource, source: OrderedSource) -> None:
        """Raise if batches of two sources have different fields or classes."""
        known, spec = first.out_spec(None), source.out_spec(None)
        if known is not None and spec is not None and (names := _unequal(known, spec)):
            raise ArgumentError(
                f"{where} has {_field(names[0], spec)}, and sources[0] {_field(names[0], known)}; expected "
                "sources with the same fields, dtypes and shapes"
            )
        shapes: list[Any] = [getattr(one, "shapes", None) for one in (first, source)]
        if all(isinstance(one, Schedule) for one in shapes) and shapes[0] != shapes[1]:
            raise ArgumentError(
                f"{where} has shape {shapes[1].plain}, and sources[0] {shapes[0].plain}; expected the same in every "
                "epoch"
            )
        classes: list[Any] = [getattr(one, "classes", None) for one in (first, source)]
        if all(isinstance(one, list) for one in classes) and classes[0] != classes[1]:
            raise ArgumentError(
                f"{where} has the classes {_shown(classes[1])}, and sources[0] {_shown(classes[0])}; expected the same "
                "in the same order: give both readers the same classes="
            )

    def _classes(self) -> Iterator[Any]:
        for source in self.sources:
            classes = getattr(source, "classes", None)
            if classes is not None:
                yield classes

    # The data

    def contents(self) -> Iterable[bytes | Iterable[bytes]]:
        yield self.name.encode()
        for source in self.sources:
            yield source.name.encode()
            yield digest(*source.contents()).encode()

    def making(self) -> Sequence[object]:
        return [source.samples_fingerprint() for source in self.sources]

    def out_spec(self, before: Spec | None) -> Spec | None:
        return next((spec for source in self.sources if (spec := source.out_spec(None)) is not None), None)

    def known_keys(self) -> list[str] | None:
        found: list[str] = []
        for source in self.sources:
            keys = source.known_keys()
            if keys is None:
                return None
            found += keys
        return found

    def known_labels(self) -> NDArray[Any] | None:
        labels = [source.known_labels() for source in self.sources]
        known = [one for one in labels if one is not None]
        return np.concatenate(known) if len(known) == len(labels) else None

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(key, reason) of every bad sample found so far, once each, source by source."""
        run: Any = self.latest
        return [error for source in run.sources for error in getattr(source, "errors", ())]

    def bad_numbers(self) -> dict[int, HighwayError]:
        firsts = self.order.firsts.tolist()
        return {
            first + number: error
            for source, first in zip(self.sources, firsts, strict=True)
            for number, error in source.bad_numbers().items()
        }

    def count_loaded(self, bad: Mapping[int, HighwayError], indices: NDArray[np.int64]) -> None:
        numbers = numbers_of(indices)
        members = self.order.members_of(numbers)
        of_bad = self.order.members_of(np.array([*bad], np.int64)).tolist() if bad else []
        for member, (source, first) in enumerate(zip(self.sources, self.order.firsts.tolist(), strict=True)):
            own = {
                number - first: error
                for (number, error), one in zip(bad.items(), of_bad, strict=True)
                if one == member
            }
            source.count_loaded(own, indices[members == member] - first)

    def count_elsewhere(self) -> None:
        for source in self.sources:
            source.count_elsewhere()

    def count_replaced(self, samples: int) -> None:
        self.sources[0].count_replaced(samples)

    @property
    def replaced(self) -> int:
        return sum(source.replaced for source in self.sources)

    @replaced.setter
    def replaced(self, count: int) -> None:
        for source in self.sources:
            source.replaced = count

    # Calls from the engine

    def default_workers(self) -> int:
        return max(source.default_workers() for source in self.sources)

    def most_workers(self) -> int:
        return max(source.most_workers() for source in self.sources)

    def copied(self) -> Any:
        copy = super().copied()
        copy.sources = [source.copied() for source in self.sources]
        return copy

    def for_run(self) -> Any:
        run: Any = super().for_run()
        self._note_run(run)
        return run

    def _note_run(self, run: _Combined) -> None:
        """Let the sources tell errors and figures of the run."""
        for source, own in zip(self.sources, run.sources, strict=True):
            source._latest = own
            if isinstance(source, _Combined) and isinstance(own, _Combined):
                source._note_run(own)

    def separate(self) -> None:
        super().separate()
        for source, order in zip(self.sources, self.order.members, strict=True):
            source._latest = None
            source.order = order
            source.separate()

    def prepare(self) -> None:
        super().prepare()
        number_of = self.number_of if self.within is None else self.within.number_of
        for number, source in enumerate(self.sources):
            source.within = Within(number_of, partial(self._skipped_of, number))
            source.prepare()

    def begin_run(self) -> None:
        for source in self.sources:
            source.begin_run()

    def forget(self, start: int) -> None:
        super().forget(start)
        for source in self.sources:
            source.forget(start)

    def open(self) -> None:
        opened = []
        try:
            for source in self.sources:
                source.open()
                opened.append(source)
        except BaseException:
            for source in reversed(opened):
                source.close()
            raise

    def close(self) -> None:
        for source in self.sources:
            source.close()

    def interrupt(self) -> None:
        for source in self.sources:
            source.interrupt()

    def _skipped_of(self, number: int, task: Task) -> Intervals | None:
        """Return the samples of a source that are skipped where a task is, by their numbers in the source."""
        skipped = self.skipped_samples(task)
        if skipped is None:
            return None
        first = int(self.order.firsts[number])
        last = first + self.order.members[number].data_size - 1
        return Intervals(
            (max(low, first) - first, min(high, last) - first)
            for low, high in skipped.pairs
            if low <= last and high >= first
        )

    def tasks(self) -> Iterator[Task]:
        return self._announced(super().tasks())

    def tasks_from(self, start: int) -> Iterator[Task]:
        return self._announced(super().tasks_from(start))

    def announced(self, tasks: Iterator[Task]) -> Iterator[Task]:
        return self._announced(tasks)

    def _announced(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """The same tasks; each source sees its parts of them, as far ahead as it wants."""
        own, *others = tee(((task, self._parts(task)) for task in tasks), 1 + len(self.sources))
        seen = [
            source.announced(map(_part_of(number), one))
            for number, (source, one) in enumerate(zip(self.sources, others, strict=True))
        ]
        for (task, _), *_ in zip(own, *seen, strict=True):
            yield task

    def _parts(self, task: Task) -> list[_Part]:
        """Return what each source loads of a task."""
        members = self.order.members_of(task.numbers)
        ends = np.cumsum(np.bincount(members, minlength=len(self.sources)))
        return [
            _Part(rows, Task(task.epoch, task.seq, task.indices[rows] - first))
            for rows, first in zip(
                np.split(np.argsort(members, kind="stable"), ends[:-1]),
                self.order.firsts.tolist(),
                strict=True,
            )
        ]

    def load(self, task: Task) -> Batch | None:
        """Load one batch; None if all of its samples are skipped."""
        batches, rows, indices = [], [], []
        for source, part, first in zip(
            self.sources, self._parts(task), self.order.firsts.tolist(), strict=True
        ):
            made = source.load(part.task)
            if made is not None:
                batches.append(made)
                rows.append(part.rows[_kept(part.task.indices, made.indices)])
                indices.append(made.indices + first)
        if not batches:
            return None
        return _joined(self.name, task, batches, np.concatenate(rows), np.concatenate(indices))


class _Part(NamedTuple):
    """The part of a task that a source loads.

    Attributes
    ----------
    rows : int64 (n,)
        Rows of the batch with these samples.
    task : Task
        Its samples have their numbers in the source.
    """

    rows: NDArray[np.int64]
    task: Task


def _part_of(number: int) -> Callable[[tuple[Task, list[_Part]]], Task]:
    """Return a function that takes the part of a source from those of a task."""
    return lambda found: found[1][number].task


class Concat(_Combined):
    """Reads several sources as one: an epoch has the samples of all of them.

    With `shuffle`, the samples of all sources are mixed at random; without, those of the first source come first, in
    its own order. With `subset`, `weights`, `repeats` and the like, a source has the same samples in an epoch as alone.

    Parameters
    ----------
    sources : sequence of reader
        With the same batch size, fields, dtypes, shapes and classes; without `epochs`, `shard`, `drop_last` and
        `workers`.
    shuffle : bool
        Permute the samples of all sources together, in a new order each epoch.
    seed : int or None
        0 to 2**64 - 1, for this permutation; None draws one. All other random numbers come from the seeds of the
        sources.
    epochs, shard, drop_last, workers, queue_size
        As those of the readers.

    Raises
    ------
    ArgumentError
        An argument is out of range, or the sources are not alike.

    Examples
    --------
    >>> from highway.engine import Pipeline
    >>> from highway.modules import Noise
    >>> three, five = (Noise(4, (2, 2), size=size, shuffle=False) for size in (3, 5))
    >>> with Pipeline([Concat([three, five], shuffle=False, epochs=1)]) as pipeline:
    ...     [batch.indices.tolist() for batch in pipeline]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """

    def __init__(
        self,
        sources: Sequence[OrderedSource],
        *,
        shuffle: bool = True,
        seed: int | None = 0,
        epochs: int | None = None,
        shard: object = AUTO,
        drop_last: bool = False,
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__(
            sources,
            ConcatSampler,
            workers=workers,
            queue_size=queue_size,
            shuffle=shuffle,
            seed=seed,
            epochs=epochs,
            shard=shard,
            drop_last=drop_last,
        )


class Mix(_Combined):
    """Reads several sources in fixed proportions: with the weights (3, 1, 1), three of five samples are from the first.

    The sources take turns, evenly spread. Each goes through its own epochs: when it has had all of its samples, it
    begins again, in its next order, also within an epoch of the mixture.

    Parameters
    ----------
    sources : sequence of reader
        With the same batch size, fields, dtypes, shapes and classes; without `epochs`, `shard`, `drop_last` and
        `workers`.
    weights : sequence of float (K,), callable, or mapping of int to sequence of float (K,), optional
        One number of 0 or more for each source; by default all alike. A function gets the epoch and returns them. A
        mapping such as ``{0: (3, 1), 10_000: (1, 1)}`` has those that hold from a number of samples on, counted from
        the start of the training on all ranks. Whole numbers and decimals hold exactly, if the smallest whole numbers
        in these proportions sum to 65536 or less; other weights are rounded to parts of 1/4096.
    stop : "first", "all" or int
        End of an epoch: "first" before the first source would begin again; "all" when each source has had all of its
        samples, the others some more than once; a number after so many samples on all ranks together, which is needed
        where `weights` is a function or a mapping. Sources with the weight 0 do not count.
    exact : "stream" or "batch"
        "stream": in any places of the order that are as many as the sum of the weights, each source has its share to
        within one sample. "batch": also each batch of each rank has the exact shares, except the last of an epoch if it
        is not full; the batch size is then a multiple of the sum of the weights. Not with a mapping as `weights`.
    epochs, shard, drop_last, workers, queue_size
        As those of the readers.

    Raises
    ------
    ArgumentError
        An argument is out of range, or the sources are not alike.

    Examples
    --------
    >>> from highway.engine import Pipeline
    >>> from highway.modules import Noise
    >>> photos, drawings = Noise(4, (2, 2), size=12), Noise(4, (2, 2), size=6, seed=1)
    >>> with Pipeline([Mix([photos, drawings], weights=(3, 1), exact="batch", epochs=1)]) as pipeline:
    ...     [(batch.indices % 2**32 >= 12).tolist() for batch in pipeline]
    [[False, False, True, False], [False, False, True, False], [False, False, True, False], [False, False, True, False]]
    """

    def __init__(
        self,
        sources: Sequence[OrderedSource],
        *,
        weights: Sequence[float]
        | Callable[[int], Sequence[float]]
        | Mapping[int, Sequence[float]]
        | None = None,
        stop: Literal["first", "all"] | int = "first",
        exact: Literal["stream", "batch"] = "stream",
        epochs: int | None = None,
        shard: object = AUTO,
        drop_last: bool = False,
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        def make(orders: Sequence[Sampler], batch_size: BatchSize, **options: Any) -> MixSampler:
            given = [1] * len(orders) if weights is None else weights
            return MixSampler(orders, given, stop, exact, batch_size, **options)

        super().__init__(
            sources,
            make,
            workers=workers,
            queue_size=queue_size,
            epochs=epochs,
            shard=shard,
            drop_last=drop_last,
        )


def _kept(asked: NDArray[np.int64], got: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of a task that a batch has: all of them, unless the source has skipped some."""
    if len(asked) == len(got):
        return np.arange(len(got))
    found = []
    row = 0
    for index in got.tolist():
        while asked[row] != index:
            row += 1
        found.append(row)
        row += 1
    return np.array(found, np.int64)


def _joined(
    owner: str, task: Task, parts: Sequence[Batch], rows: NDArray[np.int64], indices: NDArray[np.int64]
) -> Batch:
    """Join batches into one.

    `rows` and `indices` are the places in it, and there the indices, of the samples of all parts, one after the other.
    """
    first = parts[0]
    for part in parts[1:]:
        if _layout(part) != _layout(first):
            raise ContractError(
                f"{owner}: the sources made {part!r} and {first!r}; expected the same fields and extras, with the same "
                "dtypes and shapes, and as many transforms applied (name fields whose lengths differ in ragged= of a "
                "DatasetReader)"
            )
    # From the place in the batch to the place among the samples of all parts.
    turns = np.argsort(rows, kind="stable")
    ragged: dict[str, NDArray[np.int64]] = {}
    # Fields that share their offsets do so in the batch.
    shared: dict[tuple[int, ...], NDArray[np.int64]] = {}

    def joined(name: str) -> NDArray[Any]:
        arrays = [part[name] for part in parts]
        if name not in first.ragged:
            return _gathered(arrays, turns)
        offsets = [part.offsets_of(name) for part in parts]
        counts = np.concatenate([np.diff(one) for one in offsets])
        starts = np.concatenate(([0], np.cumsum(counts)))[:-1][turns]
        lengths = counts[turns]
        key = tuple(map(id, offsets))
        if key not in shared:
            shared[key] = np.concatenate(([0], np.cumsum(lengths)))
        ends = ragged[name] = shared[key]
        return _gathered(arrays, np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths))

    fields = {name: joined(name) for name in first.fields}
    extras = {name: joined(name) for name in first.extras}
    keys = [key for part in parts for key in part.keys]
    return Batch(
        fields,
        epoch=task.epoch,
        seq=task.seq,
        indices=indices[turns],
        keys=[keys[turn] for turn in turns.tolist()] if all(part.keys for part in parts) else None,
        applied=first.applied,
        extras=extras,
        ragged=ragged,
    )


def _gathered(arrays: Sequence[NDArray[Any]], turns: NDArray[np.int64]) -> NDArray[Any]:
    """Return rows of arrays, counted through all of them, in new memory."""
    shape = (len(turns), *arrays[0].shape[1:])
    out = np.empty(shape, object) if arrays[0].dtype.hasobject else empty(shape, arrays[0].dtype)
    places = np.empty(len(turns), np.int64)
    places[turns] = np.arange(len(turns))
    begin = 0
    for array in arrays:
        out[places[begin : begin + len(array)]] = array
        begin += len(array)
    return out


def _layout(batch: Batch) -> object:
    """What batches that are joined have in common."""
    arrays = [
        (name, array.dtype, array.shape[1:], name in batch.ragged, name in batch.fields)
        for name, array in (*batch.fields.items(), *batch.extras.items())
    ]
    return arrays, batch.applied


def _unequal(one: Spec, other: Spec) -> list[str]:
    """Return the names of the fields that differ for certain."""
    found = []
    for name in {**one, **other}:
        first, second = one.get(name), other.get(name)
        if first is None or second is None:
            found.append(name)
            continue
        dtypes = {first.dtype, second.dtype} - {None}
        shapes = [shape for shape in (first.shape, second.shape) if shape is not None]
        sizes = zip(*shapes, strict=True) if len({*map(len, shapes)}) == 1 else [(0, 1)] if shapes else []
        if (
            len(dtypes) > 1
            or first.ragged != second.ragged
            or any(len({*pair} - {None}) > 1 for pair in sizes)
        ):
            found.append(name)
    return found


def _field(name: str, spec: Spec) -> str:
    """Return what a spec says of a field."""
    if name not in spec:
        return f"no {name}"
    dtype, shape, ragged, _ = spec[name]
    sizes = ["?" if size is None else str(size) for size in (shape or ())[1:]]
    shown = "?" if shape is None else ", ".join(["total" if ragged else "N", *sizes])
    return f"{name} of {dtype} and shape ({shown})"


def _shown(classes: Sequence[str]) -> str:
    shown = ", ".join(map(repr, classes[:5]))
    return shown + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
