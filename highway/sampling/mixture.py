"""Orders over the samples of several sources: one after or among the other, or in fixed proportions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag, whole
from highway.errors import ArgumentError
from highway.sampling.digests import digest
from highway.sampling.grouped import GroupedSampler
from highway.sampling.identity import identities, numbers_of
from highway.sampling.position import Position
from highway.sampling.proportions import Pattern, pattern_of
from highway.sampling.sampler import Sampler
from highway.sampling.schedules import BatchSize
from highway.sampling.turns import Sections, Turns

__all__ = ["ConcatSampler", "MixSampler"]


class ConcatSampler(Sampler):
    """Determines the order of the samples of several sources, each once in an epoch.

    The samples of the sources follow each other in the order that each source has in this epoch. With `shuffle` they
    are then permuted together.

    Parameters
    ----------
    members : sequence of Sampler
        Orders of the sources, each of a world of 1.
    batch_size, options
        See `Sampler`. Their sizes together are at most 2**32.
    """

    def __init__(self, members: Sequence[Sampler], batch_size: BatchSize, **options: Any) -> None:
        self.members = tuple(members)
        for number, member in enumerate(members):
            if isinstance(member, GroupedSampler):
                owner = options.get("owner", "ConcatSampler")
                raise ArgumentError(
                    f"{owner}: sources[{number}] has batches of one group each (Buckets or tokens), which cannot be "
                    "mixed with those of others; expected sources of one shape, or one source of all samples"
                )
        # Once the number of places is known: `_take_size`.
        drop_last = options.pop("drop_last", False)
        super().__init__(sum(member.data_size for member in members), batch_size, **options)
        self.drop_last = flag(self._owner, "drop_last", drop_last)
        self.seed_drawn = self.seed_drawn or any(member.seed_drawn for member in members)
        # The first number in this order of the samples of each source, and the first place.
        self.firsts = np.cumsum([0, *(member.data_size for member in members)])[:-1]
        self._ends = np.cumsum([member.size for member in members])
        self._take_size(self._places())

    def _places(self) -> int:
        """Return the number of places of an epoch."""
        return whole(self._owner, "number of samples of an epoch", int(self._ends[-1]), 1, 2**32)

    def _take_size(self, size: int) -> None:
        """Set the number of places of an epoch."""
        self.size = self.count = size
        self._number_batches()

    def parts(self) -> tuple[bytes, ...]:
        # Without batches: the members have none of their own.
        return tuple(
            digest(
                repr(
                    (member.data_size, member.shuffle, member.seed, member.window, member.planned())
                ).encode(),
                *member.parts(),
            ).encode()
            for member in self.members
        )

    def fingerprint(self, *parts: Any) -> str:
        return super().fingerprint(repr(self.planned()).encode(), *self.parts(), *parts)

    def _of_shard(self, shard: object, owner: str) -> Sampler:
        return ConcatSampler(self.members, self.batch_size, **self._options(shard, owner))

    @property
    def copies(self) -> int:
        return max(member.copies for member in self.members)

    def members_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the source that each sample is from, by its number in this order: int64 (N,)."""
        return np.searchsorted(self.firsts, numbers, "right") - 1

    def _at(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        places = places % self.size
        if self.shuffle:
            places = self._shuffled(epoch, places)
        members = np.searchsorted(self._ends, places, "right")
        found = np.empty(len(places), np.int64)
        for member in np.unique(members).tolist():
            rows = np.flatnonzero(members == member)
            order = self.members[member]
            inside = places[rows] - (self._ends[member] - order.size)
            found[rows] = order.samples_at(epoch, inside) + self.firsts[member]
        return found


class MixSampler(ConcatSampler):
    """Determines the order of the samples of several sources in fixed proportions.

    The n-th place that a source has in the training is the n-th place of its own order: it goes through its own epochs,
    whatever those of the mixture are. The number of a copy says in which of them, counted from the start of the epoch
    of the mixture.

    Parameters
    ----------
    members : sequence of Sampler
        Orders of the sources, each of a world of 1.
    weights : sequence of float (K,), callable, or mapping of int to sequence of float (K,)
        A callable gets the epoch and returns them; a mapping has them from a number of samples on.
    stop : "first", "all" or int
        Where an epoch ends: when the first source has no sample left, when each source has had all of its samples, or
        after so many samples.
    exact : "batch" or "stream"
        Where the proportions hold: in each batch of each rank, or in the places of all ranks.
    batch_size, options
        See `Sampler`.
    """

    def __init__(
        self,
        members: Sequence[Sampler],
        weights: Any,
        stop: Any,
        exact: str,
        batch_size: BatchSize,
        **options: Any,
    ) -> None:
        self._given = weights, stop, exact
        super().__init__(members, batch_size, **{**options, "shuffle": False})
        # Places that each source has had before an epoch; of all epochs so far that were asked for.
        self._had: list[NDArray[np.int64]] = [np.zeros(len(members), np.int64)]

    def _pattern(self, name: str, weights: Any, sizes: Iterable[int]) -> Pattern:
        """Return the turns of the sources by their weights, in batches of these sizes."""
        pattern = pattern_of(self._owner, name, weights, len(self.members), self.exact == "stream")
        for size in sizes:
            if self.exact == "batch" and size % pattern.length:
                near = max(1, round(size / pattern.length)) * pattern.length
                raise ArgumentError(
                    f"{self._owner}: {name} sums to {pattern.length} in lowest terms, which does not divide "
                    f"batch_size {size}; with exact='batch' use a multiple, such as {near}, or exact='stream'"
                )
        return pattern

    def pattern(self, epoch: int) -> Pattern | Sections:
        """Return the turns of the sources in an epoch."""
        if self._turns is not None:
            return self._turns.of(epoch, self.size)
        return self._whole_pattern(epoch)

    def _whole_pattern(self, epoch: int) -> Pattern:
        """Return the turns in an epoch, where the weights do not change within it."""
        if self._weights is None:
            assert self._constant is not None
            return self._constant
        return self._pattern(f"weights({epoch})", self._weights(epoch), [self.batch_size_in(epoch)])

    def _places(self) -> int:
        weights, stop, self.exact = self._given
        if self.exact not in ("batch", "stream"):
            raise ArgumentError(f"{self._owner}: exact is {self.exact!r}; expected 'batch' or 'stream'")
        self._weights: Callable[[int], Any] | None = weights if callable(weights) else None
        self._turns: Turns | None = None
        self._constant: Pattern | None = None
        if isinstance(weights, Mapping):
            self._turns = Turns(self._owner, weights, len(self.members))
            if self.exact == "batch":
                raise ArgumentError(
                    f"{self._owner}: weights changes after numbers of samples, and exact is 'batch'; expected "
                    "exact='stream', or a function of the epoch"
                )
        elif self._weights is None:
            self._constant = self._pattern("weights", weights, self.batch_sizes.stages)
        if not isinstance(stop, str):
            size = whole(self._owner, "stop", stop, 1, 2**31)
            length = 1 if self._turns is not None else self._whole_pattern(0).length
            if self.exact == "batch" and size % length:
                raise ArgumentError(
                    f"{self._owner}: stop is {size} samples; with exact='batch' expected a multiple of {length}, the "
                    f"sum of the weights, such as {max(1, round(size / length)) * length}"
                )
            return size
        if stop not in ("first", "all"):
            raise ArgumentError(
                f"{self._owner}: stop is {stop!r}; expected 'first', 'all', or the number of samples of an epoch"
            )
        if self._constant is None:
            raise ArgumentError(
                f"{self._owner}: stop is {stop!r}, and weights is not the same for all epochs; expected the number of "
                "samples of an epoch, since all epochs have as many batches"
            )
        pattern, sizes = self._constant, [member.size for member in self.members]
        parts: list[int] = pattern.parts.tolist()
        used = [member for member, part in enumerate(parts) if part]
        if self.exact == "batch":
            if stop == "all":
                return pattern.length * max(-(-sizes[member] // parts[member]) for member in used)
            repetitions = min(sizes[member] // parts[member] for member in used)
            if not repetitions:
                raise ArgumentError(
                    f"{self._owner}: stop is 'first', and a source has fewer samples than its weight of {parts}; "
                    "expected larger sources, stop='all' or exact='stream'"
                )
            return pattern.length * repetitions
        if stop == "first":
            return min(pattern.place_of(member, sizes[member]) for member in used)
        size = max(pattern.place_of(member, sizes[member] - 1) + 1 for member in used)
        return whole(self._owner, "number of samples of an epoch", size, 1, 2**31)

    def planned(self, epoch: int = 0) -> dict[str, Any]:
        weights = self._whole_pattern(epoch).parts.tolist() if self._turns is None else self._turns.state
        return {"stop": self.size, "exact": self.exact, "weights": weights}

    def _of_shard(self, shard: object, owner: str) -> Sampler:
        return MixSampler(self.members, *self._given, self.batch_size, **self._options(shard, owner))

    @property
    def copies(self) -> int:
        return max((self.size // member.size + 2) * member.copies for member in self.members)

    def before(self, epoch: int) -> NDArray[np.int64]:
        """Return how many places each source has had before an epoch, int64 (K,)."""
        if self._constant is not None:
            return epoch * self._constant.counts(self.size)
        had = self._had
        if epoch >= len(had):
            # A list of its own: another thread may do the same.
            had = [*had]
            for last in range(len(had) - 1, epoch):
                had.append(had[last] + self.pattern(last).counts(self.size))
            self._had = had
        return had[epoch]

    def _first_of_ranks(self, epoch: int, seq: int, place: Position) -> NDArray[np.int64]:
        found = (self._indices(epoch, seq, seq + 1, place.position, rank) for rank in range(self.world))
        return np.array([indices[0] for indices in found], np.int64)

    def _indices(
        self, epoch: int, first: int, last: int, position: int = 0, rank: int | None = None
    ) -> NDArray[np.int64]:
        if self.exact == "stream":
            return super()._indices(epoch, first, last, position, rank)
        # Each step takes the next samples of each source and divides them among the ranks, so that all have the same.
        rank = self.rank if rank is None else rank
        size = self.batch_size_in(epoch)
        numbered = self.batches_in(epoch) - self._left(epoch, position)[1]
        step = size * self.world
        full = numbered + (self.size - position) // step
        found = []
        if first < min(last, full):
            pattern = self._whole_pattern(epoch)
            rows = np.arange((min(last, full) - first) * size)
            steps, rows = np.divmod(rows, size)
            repetitions, inside = np.divmod(rows, pattern.length)
            members = pattern.members[inside]
            parts = pattern.parts[members]
            begin = (position + (steps + first - numbered) * step) // pattern.length * parts
            turns = begin + (repetitions * parts + pattern.ordinals[inside]) * self.world + rank
            found.append(self._of_members(epoch, members, turns))
        if max(first, full) < last:
            # The last batch is not full: its samples are divided place by place.
            found.append(super()._indices(epoch, max(first, full), last, position, rank))
        return np.concatenate(found)

    def _at(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._of_members(epoch, *self.pattern(epoch).at(places % self.size))

    def _of_members(
        self, epoch: int, members: NDArray[np.int64], turns: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the samples that sources have in their turns, counted from the start of an epoch."""
        found = np.empty(len(members), np.int64)
        before = self.before(epoch)
        for member in np.unique(members).tolist():
            rows = np.flatnonzero(members == member)
            order = self.members[member]
            epochs, places = np.divmod(turns[rows] + before[member], order.size)
            begun = int(before[member]) // order.size
            for own in np.unique(epochs).tolist():
                some = np.flatnonzero(epochs == own)
                samples = order.samples_at(own, places[some])
                numbers = numbers_of(samples)
                copies = (samples - numbers >> 32) + (own - begun) * order.copies
                found[rows[some]] = identities(numbers + self.firsts[member], copies)
        return found
