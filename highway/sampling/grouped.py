"""GroupedSampler: an order whose batches have samples of one group each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core import philox
from highway.arguments import whole
from highway.errors import ArgumentError
from highway.sampling.grouping import Grouping
from highway.sampling.identity import identities, numbers_of
from highway.sampling.numbering import Numbering
from highway.sampling.position import FRONT, GroupedPosition, Position
from highway.sampling.rng import GROUP_POSITION, STEP_POSITION
from highway.sampling.sampler import Sampler, Task
from highway.sampling.schedules import constant
from highway.sampling.skips import Skips

__all__ = ["GroupedSampler"]


class _Steps(NamedTuple):
    """The steps of an epoch from a place on; a step is the batches of all ranks with the same number.

    Attributes
    ----------
    epoch : int
    begun : tuple of int, of length G
        Places of each group before the first step.
    groups : int64 (S,)
    firsts : int64 (S,)
        First place of each step in its group.
    """

    epoch: int
    begun: tuple[int, ...]
    groups: NDArray[np.int64]
    firsts: NDArray[np.int64]


class _Rest(NamedTuple):
    """The rest of an epoch.

    Attributes
    ----------
    steps : _Steps
    number : int
        Number of its first step within the epoch.
    """

    steps: _Steps
    number: int


class GroupedSampler(Sampler):
    """Determines an order of samples in groups: a batch has samples of one group, and all ranks have the same group.

    The samples of each group are permuted, divided among the ranks and cut into batches as `Sampler` does with all
    samples: every rank has the same number of each group, so up to world - 1 samples of a group come twice in an
    epoch, or are dropped with `drop_last`. The steps of all groups are mixed: a step of a group comes at a random time
    of the part of the epoch that is proportional to the part of the group which the step has. So every part of an
    epoch has all groups in about the same proportions. This time depends only on the seed, the epoch, the group and
    the place of the step in it, so the rest of an epoch after a `Position` is the same as without the interruption.

    Without shuffling, the samples of a group come in their order, and the steps in the order of their first samples.

    Parameters
    ----------
    grouping : Grouping
    options
        See `Sampler`; `batch_size` is that of each group. A plan has neither weights nor a limit of samples.

    Raises
    ------
    ArgumentError
        As `Sampler`; or the plan has weights or `max_samples`.

    Examples
    --------
    >>> from highway.sampling.grouping import grouping
    >>> groups = grouping("example", np.array([0, 1, 0, 1, 0]), [2, 2])
    >>> [task.indices.tolist() for task in GroupedSampler(groups, shuffle=False, epochs=1)]
    [[0, 2], [1, 3], [4]]
    """

    def __init__(self, grouping: Grouping, **options: Any) -> None:
        self.grouping = grouping
        self._latest: tuple[_Steps, ...] = ()
        super().__init__(len(grouping.of_samples), max(grouping.batch_sizes), **options)

    def _number_batches(self) -> None:
        plan = self.plan
        if plan is not None and (plan.weights is not None or plan.size < plan.count * plan.repeats):
            name = "weights" if plan.weights is not None else "max_samples"
            raise ArgumentError(
                f"{self._owner}: {name} is given, and batches have samples of one group; expected no {name}: choose "
                "samples with subset or split, or repeat them with repeats"
            )
        chosen = np.arange(self.data_size) if self._chosen is None else self._chosen
        groups = self.grouping.of_samples[chosen]
        self._ranks = np.argsort(groups, kind="stable")
        """Numbers of the samples among those that are read, by group."""
        self._members = chosen[self._ranks]
        self._counts = np.bincount(groups, minlength=len(self.grouping.batch_sizes))
        self._firsts = np.cumsum(self._counts) - self._counts
        self._repeats = 1 if plan is None else plan.repeats
        self._places = self._counts * self._repeats
        self._sizes = np.array(self.grouping.batch_sizes, np.int64)
        samples, batches = self._left_of_groups((0,) * len(self._sizes))
        self.samples = int(samples.sum())
        if not batches.sum():
            raise ArgumentError(
                f"{self._owner}: drop_last leaves nothing of size {self.size}: no group has a batch for each of "
                f"{self.world} ranks; its batch sizes are {_shown(self.grouping.batch_sizes)}; use smaller batches or "
                "drop_last=False"
            )
        self.numbering = Numbering(constant(int(batches.sum())))

    def _left_of_groups(self, done: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the samples and batches of each rank and group after places of each group, int64 (G,)."""
        left = self._places - np.array(done)
        if self.drop_last:
            samples = left // self.world
            return samples, samples // self._sizes
        samples = -(-left // self.world)
        return samples, -(-samples // self._sizes)

    def never_whole(self) -> tuple[int, int]:
        """Return how many groups have samples and no batch, because of `drop_last`, and how many samples these are."""
        batches = self._left_of_groups((0,) * len(self._sizes))[1]
        dropped = (batches == 0) & (self._counts > 0)
        return int(dropped.sum()), int(self._counts[dropped].sum())

    @property
    def group_counts(self) -> NDArray[np.int64]:
        """Number of samples of each group among those that are read, int64 (G,)."""
        return self._counts

    def batch_counts(self) -> set[int]:
        """Return the numbers of samples that batches have, on each rank."""
        samples, batches = self._left_of_groups((0,) * len(self._sizes))
        last = samples - (batches - 1) * self._sizes
        full = self._sizes[batches > (0 if self.drop_last else 1)]
        return {*full.tolist(), *(() if self.drop_last else last[batches > 0].tolist())}

    @property
    def stated_batch_size(self) -> Any:
        return [*self.grouping.batch_sizes]

    def __repr__(self) -> str:
        return f"Grouped{super().__repr__()[:-1]}, {np.count_nonzero(self._counts)} groups)"

    def fingerprint(self, *parts: bytes | Iterable[bytes]) -> str:
        return super().fingerprint(
            repr(self.grouping.batch_sizes).encode(), self.grouping.hash.encode(), *parts
        )

    def planned(self, epoch: int = 0) -> dict[str, Any]:
        return {**super().planned(epoch), "groups": self.grouping.hash}

    def _of_shard(self, shard: object, owner: str) -> Sampler:
        return GroupedSampler(self.grouping, **self._options(shard, owner))

    # Places

    def state_of(self, place: Position) -> dict[str, Any]:
        return {**super().state_of(place), "done": [*_done(self, place)]}

    def place_of(self, state: Mapping[str, Any], epoch: int, position: int) -> Position | None:
        done = state.get("done")
        most = self._places.tolist()
        if (
            isinstance(done, (list, tuple))
            and len(done) == len(most)
            and all(type(one) is int and 0 <= one <= end for one, end in zip(done, most, strict=True))
            and sum(done) == position
        ):
            return GroupedPosition.of(epoch, done)
        return None

    def task_at(self, epoch: int, seq: int, begun: Position = FRONT) -> Task:
        epoch, seq = self._checked(epoch, seq)
        rest = self._rest(epoch, begun)
        if seq < rest.number:
            raise ArgumentError(
                f"Sampler: batch {seq} of epoch {epoch} had other batch sizes or another world than "
                f"{_shown(self.grouping.batch_sizes)} and {self.world}: position {begun.position} of the state lies "
                "between two batches of these sizes"
            )
        return self._task(rest, seq)

    def tasks(self, start: int = 0) -> Iterator[Task]:
        return self._tasks_from(*self.numbering.at(whole("Sampler", "start", start, 0, 2**63)), FRONT)

    def tasks_after(self, place: Position) -> Iterator[Task]:
        return self._tasks_from(*self.numbering.at(self.number_after(place)), place)

    def number_after(self, place: Position) -> int:
        return self.numbering.number_of(place.epoch + 1) - len(
            self._steps(place.epoch, _done(self, place)).groups
        )

    def place_at(self, number: int, begun: Position = FRONT) -> Position:
        epoch, seq = self.numbering.at(number)
        steps, first = self._rest(epoch, begun)
        if seq < first:
            # No batches of these sizes lead there.
            return Position(epoch, -1)
        return GroupedPosition.of(epoch, self._done_after(steps, seq - first).tolist())

    def _rest(self, epoch: int, begun: Position) -> _Rest:
        """Return the steps of an epoch in an order that starts at `begun`: all of them, where batches lead to it."""
        every = self._steps(epoch, (0,) * len(self._sizes))
        done = _done(self, begun)
        if epoch != begun.epoch or not any(done):
            return _Rest(every, 0)
        rest = self._steps(epoch, done)
        number = len(every.groups) - len(rest.groups)
        if np.array_equal(self._done_after(every, number), done):
            return _Rest(every, 0)
        return _Rest(rest, number)

    def _done_after(self, steps: _Steps, count: int) -> NDArray[np.int64]:
        """Return the places of each group that are done after some steps, int64 (G,)."""
        taken = np.bincount(steps.groups[:count], minlength=len(self._sizes))
        ends = np.array(steps.begun) + taken * self._sizes * self.world
        done: NDArray[np.int64] = np.minimum(ends, self._places)
        return done

    def _steps(self, epoch: int, begun: tuple[int, ...]) -> _Steps:
        """Return the steps of an epoch after places of each group; those of the last calls are kept."""
        latest = self._latest
        for found in latest:
            if found.epoch == epoch and found.begun == begun:
                return found
        _, batches = self._left_of_groups(begun)
        groups = np.repeat(np.arange(len(batches)), batches)
        turns = np.arange(len(groups)) - np.repeat(np.cumsum(batches) - batches, batches)
        sizes = self._sizes * self.world
        firsts = np.array(begun, np.int64)[groups] + turns * sizes[groups]
        times = self._times(epoch, batches, groups, firsts)
        # The group decides among equal times.
        order = np.lexsort((groups, times))
        made = _Steps(epoch, begun, groups[order], firsts[order])
        # Workers may be in the next epoch; and an epoch may have a rest.
        self._latest = (*latest[-3:], made)
        return made

    def _times(
        self, epoch: int, batches: NDArray[np.int64], groups: NDArray[np.int64], firsts: NDArray[np.int64]
    ) -> NDArray[Any]:
        """Return by what steps are sorted, (S,); ascending within a group."""
        if not self.shuffle:
            ranks: NDArray[np.int64] = self._ranks[self._firsts[groups] + firsts // self._repeats]
            return ranks
        bits = np.empty((len(groups), 1), np.uint64)
        ends = np.cumsum(batches).tolist()
        for group in np.flatnonzero(batches).tolist():
            rows = slice(ends[group] - int(batches[group]), ends[group])
            of_group = firsts[rows].astype(np.uint32)
            philox.draws(self.seed, epoch, STEP_POSITION + group, of_group, 0, bits[rows])
        unit = (bits[:, 0] >> np.uint64(11)).astype(np.float64) * 2.0**-53
        places = self._places[groups]
        extents = np.minimum(self._sizes[groups] * self.world, places - firsts)
        times: NDArray[np.float64] = (firsts + unit * extents) / places
        return times

    # Samples

    def _tasks_from(self, first_epoch: int, first_seq: int, begun: Position) -> Iterator[Task]:
        epochs = itertools.count(first_epoch) if self.epochs is None else range(first_epoch, self.epochs)
        for epoch in epochs:
            rest = self._rest(epoch, begun)
            for seq in range(first_seq, self.batches_in(epoch)):
                yield self._task(rest, seq)
            first_seq = 0

    def _task(self, rest: _Rest, seq: int) -> Task:
        indices = self._batch(rest, seq, np.array([self.rank]))[0]
        if self.skips is not None:
            indices = self._unskipped(self.skips, rest, seq, indices)
        return Task(rest.steps.epoch, seq, indices)

    def _unskipped(
        self, skips: Skips, rest: _Rest, seq: int, indices: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return those of the samples of a batch that are not skipped; none if a rank would have none."""
        epoch, begun = rest.steps.epoch, rest.steps.begun
        if skips.has_step(epoch, seq):
            return indices[:0]
        number = self.numbering.number_of(epoch, seq)
        skipped = skips.samples_at(self.place_at(number, GroupedPosition.of(epoch, begun)))
        if skipped is None:
            return indices
        if self.world > 1 and skipped.count >= len(indices):
            every = self._batch(rest, seq, np.arange(self.world))
            if skipped.hold(numbers_of(every)).all(axis=1).any():
                return indices[:0]
        return indices[~skipped.hold(numbers_of(indices))]

    def indices(self, epoch: int, seq: int) -> NDArray[np.int64]:
        epoch, seq = self._checked(epoch, seq)
        found: NDArray[np.int64] = self._batch(self._rest(epoch, FRONT), seq, np.array([self.rank]))[0]
        return found

    def _batch(self, rest: _Rest, seq: int, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples of a step for some ranks, int64 (R, n)."""
        steps, turn = rest.steps, seq - rest.number
        group, first = int(steps.groups[turn]), int(steps.firsts[turn])
        size, places = self.grouping.batch_sizes[group], int(self._places[group])
        if not self.drop_last:
            size = min(size, -(-(places - first) // self.world))
        found = first + ranks[:, None] + self.world * np.arange(size)
        # The last places of a group wrap around to its start.
        found %= places
        copies = None
        if self._repeats > 1:
            # The copies of a sample are neighbors.
            found, copies = np.divmod(found, self._repeats)
        if self.shuffle:
            flat = found.reshape(-1)
            philox.permute(
                self.seed, steps.epoch, GROUP_POSITION + group, int(self._counts[group]), flat, flat
            )
        samples: NDArray[np.int64] = self._members[self._firsts[group] + found]
        return samples if copies is None else identities(samples, copies)

    def group_of(self, indices: NDArray[np.int64]) -> int:
        """Return the group of the samples of a batch, by their identities; there is one sample or more."""
        return int(self.grouping.of_samples[numbers_of(indices[:1])[0]])

    def substitutes(self, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if not self.grouping.ascending:
            return self.candidates(epoch)
        group = self.group_of(indices)
        found: NDArray[np.int64] = self._members[: int(self._firsts[group] + self._counts[group])]
        return found

    def reached(self) -> int:
        return self.count


def _done(order: GroupedSampler, place: Position) -> tuple[int, ...]:
    """Return the places of each group that are done at a place."""
    return place.done if isinstance(place, GroupedPosition) else (0,) * len(order.grouping.batch_sizes)


def _shown(sizes: tuple[int, ...]) -> str:
    """Text for the batch sizes of the groups: each once, and of many the smallest and the largest."""
    found = sorted(set(sizes))
    return ", ".join(map(str, found)) if len(found) <= 4 else f"{found[0]} to {found[-1]}"
