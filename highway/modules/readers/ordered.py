"""OrderedSource: a source whose samples a Sampler orders; it can resume at any position."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments import whole
from highway.engine import Module, Source
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, HighwayError, StateMismatchError
from highway.modules.readers.bad_samples import BadSamples
from highway.modules.readers.options import SourceOptions
from highway.sampling.digests import digest
from highway.sampling.grouped import GroupedSampler
from highway.sampling.grouping import Grouping
from highway.sampling.identity import numbers_of
from highway.sampling.plan import Data, Plan
from highway.sampling.sampler import FRONT, Position, Sampler, Task
from highway.sampling.schedules import BatchSize
from highway.sampling.skips import Intervals, Skips

__all__ = ["OrderedSource", "Within"]

VERSION = 1


class Within(NamedTuple):
    """What a mixture says to one of its sources.

    Attributes
    ----------
    number_of : callable
        Returns the number in the mixture of a batch, by its epoch and its number in the epoch.
    skipped : callable
        Returns the samples of the source that are skipped where a task is, or None.
    """

    number_of: Callable[[int, int], int]
    skipped: Callable[[Task], Intervals | None]


class OrderedSource(Source):
    """A source whose samples a `Sampler` orders and batches; base of the readers.

    A small state describes the position of a pipeline in the data. Another pipeline can resume from it, also with
    another batch size, number of threads, or `shard` of another world.

    A subclass sets `order` in `__init__`, defines `contents` and `load`, and extends `separate`, `prepare`, `begin_run`
    and `forget` for what belongs to a run. A task whose samples are all skipped has no indices; its `load` returns
    None. `load` reads the samples with the numbers ``task.numbers``, and returns a batch with ``task.indices``, which
    also say which copy of a sample it is: random draws depend on them.

    Attributes
    ----------
    order : Sampler
    latest : OrderedSource
        What the pipeline runs that was made from it last; itself before.
    """

    seekable = True

    order: Sampler
    within: Within | None = None
    """What a mixture says to a source that loads a part of its batches; None in a pipeline of its own."""
    _latest: OrderedSource | None = None
    _begun = FRONT
    # Of a source that may skip or replace bad samples.
    _bad_samples: BadSamples | None = None
    # Rarely acquired: only when bad samples are replaced.
    _counting: ClassVar[threading.Lock] = threading.Lock()

    def _grouped(self, grouping: Grouping, options: SourceOptions) -> Sampler:
        """Return the sampler whose batches have samples of one group each; see `_ordered`."""
        order = GroupedSampler(grouping, **self._order_options(len(grouping.of_samples), options))
        groups, samples = order.never_whole()
        if groups:
            warnings.warn(
                f"{self.name}: drop_last drops all {samples} samples of {groups} groups in every epoch, since these "
                "groups are smaller than a batch on each rank; use smaller batches, fewer groups or drop_last=False",
                stacklevel=4,
            )
        return order

    def _ordered(self, size: int, batch_size: BatchSize, options: SourceOptions) -> Sampler:
        """Return the sampler of `size` samples with these options; `known_keys` and `known_labels` work already."""
        return Sampler(size, batch_size, **self._order_options(size, options))

    def _order_options(self, size: int, options: SourceOptions) -> dict[str, Any]:
        """Return the options of a sampler among those of a source."""
        return {
            "shuffle": options["shuffle"],
            "seed": options["seed"],
            "epochs": options["epochs"],
            "shard": options["shard"],
            "drop_last": options["drop_last"],
            "plan": self._plan(size, options),
            "owner": self.name,
        }

    def _plan(self, size: int, options: SourceOptions) -> Plan:
        """Return which of `size` samples an epoch has."""
        return Plan(
            Data(self.name, size, self),
            subset=options["subset"],
            split=options["split"],
            stratify=options["stratify"],
            split_seed=options["split_seed"],
            weights=options["weights"],
            repeats=options["repeats"],
            max_samples=options["max_samples"],
            shuffle=options["shuffle"],
        )

    def known_labels(self) -> NDArray[Any] | None:
        """Label of each sample, an array of N rows; None if they are known only after reading, or belong to boxes."""
        return None

    def unlabeled(self) -> Sequence[int]:
        """Samples without a label, by their numbers; `known_labels` has any value for them."""
        return ()

    def contents(self) -> Iterable[bytes | Iterable[bytes]]:
        """Parts that identify the data, for `digest`; without its order and batches."""
        raise NotImplementedError(f"{self.name} must define contents()")

    def for_run(self) -> Module:
        self._latest = run = self.copied()
        run._latest = None
        run.separate()
        return run

    @property
    def latest(self) -> OrderedSource:
        return self if self._latest is None else self._latest

    def separate(self) -> None:
        """Replace what the copy for a run must not share with its specification."""
        if self._bad_samples is not None:
            self._bad_samples = self._bad_samples.another(self.order)

    def prepare(self) -> None:
        """Prepare for new workers. Runs while there are none."""

    def forget(self, start: int) -> None:
        """Reset the counts of loaded samples, to begin at batch number `start`. Runs while there are no workers."""
        if self._bad_samples is not None:
            self._bad_samples.forget(start)

    def reorder(self, order: Sampler) -> None:
        """Take an order with another rank and world. Runs before there are workers."""
        self.order = order
        if self._bad_samples is not None:
            self._bad_samples = self._bad_samples.another(order)

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        self.settle()
        self.begin_run()

    def begin_run(self) -> None:
        """Start what a run needs: once, before any worker starts, also of a source of a mixture.

        `interrupt` ends what starts here.
        """

    def _bad_by_index(self) -> dict[int, HighwayError]:
        """Return the errors of all bad samples so far, by index."""
        found = self.latest._bad_samples
        return {} if found is None else found.errors()

    # For a run whose samples are read on other machines

    def settle(self) -> None:
        """Take the order of this rank, and begin where the run begins; `enter` does, before it starts what reads."""
        # The launcher may have begun since the source was made, or this is another process.
        order = self.order.current()
        if order is not self.order:
            self.reorder(order)
        self.begin_at(self._begun)

    def plain_tasks(self, start: int | None = None) -> Iterator[Task]:
        """One task for each batch, in order, from number `start` on; nothing is read ahead."""
        return self.order.tasks_after(self._begun) if start is None else self.order.tasks(start)

    def bad_numbers(self) -> dict[int, HighwayError]:
        """Errors of the bad samples so far, by their numbers in the data."""
        return self._bad_by_index()

    def count_loaded(self, bad: Mapping[int, HighwayError], indices: NDArray[np.int64]) -> None:
        """Count a batch of these samples, and the bad ones found meanwhile; raises as `load` does."""
        if self._bad_samples is not None:
            if bad:
                self._bad_samples.note(bad)
            self._bad_samples.count(indices)

    def count_elsewhere(self) -> None:
        """Leave the limits of bad samples to whoever calls `count_loaded` for the batches that are loaded here."""
        if self._bad_samples is not None:
            self._bad_samples.count_elsewhere()

    def count_replaced(self, samples: int) -> None:
        """Add to the number of replaced samples."""
        with self._counting:
            self.replaced += samples

    def samples_in(self, task: Task) -> int:
        return len(task.indices)

    def __len__(self) -> int:
        """Number of batches in the first epoch, and in all, unless `batch_size` is a schedule: see `batches_in`."""
        return len(self.order)

    @property
    def epochs_alike(self) -> bool:
        return self.order.numbering.constant

    def batches_in(self, epoch: int) -> int:
        return self.order.batches_in(epoch)

    def number_of(self, epoch: int, seq: int = 0) -> int:
        return self.order.numbering.number_of(epoch, seq)

    def batch_at(self, number: int) -> tuple[int, int]:
        return self.order.numbering.at(number)

    @property
    def epochs(self) -> int | None:  # type: ignore[override]
        return self.order.epochs

    @property
    def shard(self) -> tuple[int, int]:
        return self.order.rank, self.order.world

    @property
    def seed(self) -> int:
        """Seed of the order and of all other random numbers of the source: as given, or drawn for None."""
        return self.order.seed

    @property
    def seed_drawn(self) -> bool:  # type: ignore[override]
        return self.order.seed_drawn

    def _drawn(self) -> str:
        """Text for the repr: the seed, if the user did not give it."""
        return f", seed={self.seed}" if self.seed_drawn else ""

    def fingerprint(self) -> str:
        return self.order.fingerprint(*self.contents())

    def making(self) -> Sequence[object]:
        """Values that determine, besides the data, how a sample is made; their repr identifies them."""
        return ()

    def samples_fingerprint(self) -> str:
        order = self.order
        made = (order.data_size, order.shuffle, order.seed, *self.making())
        planned = order.planned()
        if planned:
            made = (*made, planned)
        return digest(repr(made).encode("utf-8", "surrogateescape"), *self.contents())

    def tasks(self) -> Iterator[Task]:
        """One task for each batch, in order."""
        return self.order.tasks_after(self._begun)

    def tasks_from(self, start: int) -> Iterator[Task]:
        return self.order.tasks(start)

    def announced(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """Return the same tasks, in an iterator that may read samples ahead; `load` gets each of them."""
        return tasks

    # State

    @cached_property
    def _digest(self) -> str:
        # Cached: a million names take most of a second.
        return digest(*self.contents(), *self.order.parts())

    def state_at(self, ticket: int) -> dict[str, Any]:
        """State to resume from after all batches before number `ticket` were delivered.

        Returns
        -------
        dict
            "version", "kind" (name of the source), "size" (number of samples), "shuffle", "seed", "fingerprint" (of the
            list of samples), "epoch", and "position": number of places of that epoch's order that all ranks together
            have delivered. With a `WindowedSampler` also "window"; with a `Plan` also hashes of what "subset", "split"
            and "weights" choose, "repeats" and "max_samples", as far as they are given. With a `GroupedSampler` also
            "groups", a hash of them, and "done": places of each group that are done. Where something is skipped also
            "skips", see `Skips.state`.
        """
        place = self.order.place_at(ticket, self._begun)
        state = {**self._identity(), **self._planned(place.epoch), **self.order.state_of(place)}
        skips = self.order.skips
        return state if skips is None else {**state, "skips": skips.state(self.order)}

    def _identity(self) -> dict[str, Any]:
        order = self.order
        identity = {
            "version": VERSION,
            "kind": self.name,
            "size": order.data_size,
            "shuffle": order.shuffle,
            "seed": order.seed,
            "fingerprint": self._digest,
        }
        return identity if order.window is None else {**identity, "window": order.window}

    def _planned(self, epoch: int) -> dict[str, Any]:
        """What a state of an epoch says of the samples that an epoch has."""
        epochs = self.order.epochs
        # After the last epoch, the weights are those of the last one.
        return self.order.planned(epoch if epochs is None else max(0, min(epoch, epochs - 1)))

    def find(self, state: Mapping[str, Any]) -> Position:
        """Position of a state, which also has its skips.

        Raises
        ------
        StateMismatchError
            It is not a state, or a state of other samples or another order; or it skips steps of other batches.
        """
        if not isinstance(state, Mapping):
            raise self._mismatch(f"is of type {type(state).__name__}", "the result of state_dict()")
        mine = self._identity()
        for name in (*mine, "epoch", "position"):
            if name not in state:
                raise self._mismatch(f"has no {name!r}", "the result of state_dict()")
        # First: other windows have another fingerprint.
        window = state.get("window")
        if window != self.order.window:
            raise self._mismatch(
                f"has window {_shown(window)}", f"{self.order.window}; the order of the samples is another"
            )
        for name, expected in mine.items():
            found = state[name]
            if type(found) is not type(expected) or found != expected:
                raise self._mismatch(f"has {name} {_shown(found)}", repr(expected) + _HINTS.get(name, ""))
        last = 2**32 - 1 if self.order.epochs is None else self.order.epochs
        epoch = self._whole(state, "epoch", last)
        planned = self._planned(epoch)
        for name in _PLANNED:
            if state.get(name) != planned.get(name):
                raise self._mismatch(
                    f"has {name} {_shown(state.get(name))}",
                    f"{planned.get(name)!r}; give the arguments of the run that saved it, which say what samples an "
                    "epoch has" + (", and in what groups" if name == "groups" else ""),
                )
        # After the last epoch only position 0 is valid.
        position = self._whole(state, "position", 0 if epoch == self.order.epochs else self.order.size - 1)
        found = _Found(epoch, position)
        place = self.order.place_of(state, epoch, position)
        if place is None:
            raise self._mismatch(
                f"has done {_shown(state.get('done'))}",
                f"the number of places of each group that are done, {position} in all",
            )
        found.place = place
        found.skips = Skips.of_state(self.name, state["skips"], self.order) if "skips" in state else Skips()
        return found

    def front(self, epoch: int) -> Position:
        return Position(epoch, 0)

    def begin_at(self, place: Position) -> int:
        if isinstance(place, _Found):
            self.order = self.order.skipping(place.skips)
        start = self.seek(place)
        self.replaced = 0
        self.forget(start)
        return start

    def seek(self, place: Position) -> int:
        # Without the skips of a state, to which others may be added.
        self._begun = place.place if isinstance(place, _Found) else place
        self.prepare()
        start = self.order.number_after(self._begun)
        if self._bad_samples is not None:
            self._bad_samples.seek(start)
        return start

    def take_shard(self, shard: tuple[int, int]) -> None:
        """Read the part of another (rank, world). Runs while there are no workers.

        Raises
        ------
        ArgumentError
            `shard` is not (rank, world).
        """
        skips = self.order.skips
        self.order = self.order.of_shard(shard, self.name)
        if skips is not None:
            self.order = self.order.skipping(skips)

    def task_at(self, epoch: int, seq: int) -> Task:
        """Return the task of batch `seq` of an epoch; see `Sampler.task_at`."""
        return self.order.task_at(epoch, seq, self._begun)

    # Skips

    def skip(
        self, ticket: int, samples: Iterable[int | str], steps: Iterable[int | tuple[int, int]]
    ) -> Position:
        place = self.order.place_at(ticket, self._begun)
        seqs = list(self._steps(ticket, steps))
        indices = self._samples(samples)
        self.order = self.order.skipping((self.order.skips or Skips()).added(place, indices, seqs))
        return place

    def skips_epoch(self, epoch: int) -> bool:
        skips = self.order.skips
        return skips is not None and skips.has_steps(epoch, self.batches_in(epoch))

    def _steps(self, ticket: int, steps: Iterable[int | tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield steps as (epoch, number), those after the batches that were delivered."""
        last_epoch = 2**32 - 1 if self.epochs is None else self.epochs - 1
        current, following = self.batch_at(ticket)
        for step in steps:
            pair: object = step
            epoch, seq = pair if isinstance(pair, (tuple, list)) and len(pair) == 2 else (current, pair)
            epoch = whole("Pipeline.skip", "epoch of a step", epoch, 0, last_epoch)
            seq = whole("Pipeline.skip", "step", seq, 0, self.batches_in(epoch) - 1)
            if (epoch, seq) < (current, following):
                raise ArgumentError(
                    f"Pipeline.skip: step {seq} of epoch {epoch} was delivered already; expected step "
                    f"{following} of epoch {current}, which is the next one, or later ones"
                )
            yield epoch, seq

    def _samples(self, samples: Iterable[int | str]) -> list[int]:
        """Return the indices of samples; raises for those that are not there."""
        given = list(samples)
        keys = {sample for sample in given if isinstance(sample, str)}
        # The copies of a sample are skipped together.
        found = [
            whole("Pipeline.skip", "sample", _number_of(sample), 0, self.order.data_size - 1)
            for sample in given
            if not isinstance(sample, str)
        ]
        if keys:
            known = self.known_keys()
            if known is None:
                raise ArgumentError(
                    f"Pipeline.skip: sample is {min(keys)!r}; expected indices of samples, since {self.name} knows "
                    "their keys only after reading"
                )
            missing = set(keys)
            for index, key in enumerate(known):
                if key in keys:
                    found.append(index)
                    missing.discard(key)
            if missing:
                raise ArgumentError(
                    f"Pipeline.skip: {self.name} has no sample with the key {min(missing)!r}; expected keys as in "
                    "batch.keys, or indices"
                )
        return found

    def ticket_of(self, task: Task) -> int:
        """Return the number of a task, counted from the start of the first epoch, of this source or of its mixture."""
        number_of = self.number_of if self.within is None else self.within.number_of
        return number_of(task.epoch, task.seq)

    def skipped_samples(self, task: Task) -> Intervals | None:
        """Return the samples that are skipped where a task is; None if there are none."""
        if self.within is not None:
            return self.within.skipped(task)
        skips = self.order.skips
        if skips is None:
            return None
        return skips.samples_at(self.order.place_at(self.number_of(task.epoch, task.seq), self._begun))

    def _whole(self, state: Mapping[str, Any], name: str, highest: int) -> int:
        value = state[name]
        if type(value) is int and 0 <= value <= highest:
            return value
        raise self._mismatch(f"has {name} {_shown(value)}", f"a whole number from 0 to {highest}")

    def _mismatch(self, found: str, expected: str) -> StateMismatchError:
        return StateMismatchError(f"{self.name}: the state {found}; expected {expected}")


class _Found(Position):
    """The position of a state, and what the state skips; equal to the position alone."""

    place: Position
    skips: Skips


_HINTS = {
    "version": "; it was made by another version of Highway",
    "kind": "; it is from another kind of source",
    "size": ", the number of samples here",
    "fingerprint": "; the samples are not the same, or in another order",
}


_PLANNED = ("subset", "split", "repeats", "max_samples", "weights", "stop", "exact", "groups")
"""Entries of a state that a source with these arguments has."""


def _number_of(index: Any) -> Any:
    """Number of a sample in the data, from its index in a batch; anything else as it is."""
    if isinstance(index, (int, np.integer)) and not isinstance(index, bool) and 0 <= index < 2**63:
        return int(numbers_of(np.array(index, np.int64)))
    return index


def _shown(value: object) -> str:
    """Repr of any value, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
