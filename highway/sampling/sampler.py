"""The order of the samples of a data set: epochs, shuffling, shards, batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core import philox
from highway.arguments import chosen_seed, flag, whole
from highway.errors import ArgumentError
from highway.sampling.digests import digest
from highway.sampling.identity import identities, numbers_of
from highway.sampling.launchers import AUTO, WHOLE, shard_of
from highway.sampling.numbering import Numbering
from highway.sampling.plan import Plan
from highway.sampling.position import FRONT, Position
from highway.sampling.rng import ORDER_POSITION
from highway.sampling.schedules import BatchSize, Schedule, scheduled
from highway.sampling.skips import Skips
from highway.sampling.weights import draw

__all__ = ["FRONT", "Position", "Sampler", "Task", "digest"]

# Number of samples whose places are computed at once.
BLOCK = 1024


class Task(NamedTuple):
    """One batch to make.

    Attributes
    ----------
    epoch : int
    seq : int
        Number of the batch within its epoch, on this rank.
    indices : int64 (n,)
        The samples of the batch, without skipped ones; none where the batch is skipped. Each is its number in the data
        plus 2**32 times the number of its copy in the epoch; the batch has the same.
    """

    epoch: int
    seq: int
    indices: NDArray[np.int64]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers of the samples in the data, without those of their copies: what to read, int64 (n,)."""
        return numbers_of(self.indices)


class Sampler:
    """Determines the order of the samples.

    An epoch is a permutation of all samples, computed on demand by a keyed permutation (a Feistel
    network over Philox): any place of any epoch is computed directly, nothing is stored, and it is the same on
    every machine. Rank r of `world` takes the places r, r + world, r + 2 * world, ... and cuts them into batches.

    Every rank has the same number of samples and of batches. If `world` does not divide `size`, the last
    places wrap around to the start of the epoch's permutation, so at most world - 1 samples come twice in an
    epoch (with fewer samples than ranks, some come more often). With `drop_last` up to world - 1 samples
    are dropped instead, and so is, on every rank, an incomplete last batch.

    The rest of an epoch from a `Position` on is divided in the same way: rank r takes the places position + r,
    position + r + world, ..., and every rank has the same number. Its batches have the last numbers of the epoch. So
    with an unchanged batch size and world, the batches are the same as without the interruption.

    Skipped samples and steps (see `skipping`) change neither the places of other samples nor the numbers of batches. A
    batch that would be empty on one rank is skipped on all: every rank still has the same number of batches.

    With a `Plan` an epoch has other places: some of the samples, copies of them, or samples drawn by their weights.

    A subclass that cuts epochs into other batches overrides `_number_batches`, `_left`, `place_at`, `task_at` and
    `_tasks`.

    Parameters
    ----------
    size : int
        Number of samples in the data, 1 to 2**32.
    batch_size : int or Schedule
        Samples per batch, 1 or more; the last batch of an epoch may have fewer. A schedule says it for each epoch.
    shuffle : bool
        False: every epoch is 0, 1, 2, ...
    seed : int or None
        0 to 2**64 - 1, the same for all ranks. None draws one, if the world is 1.
    epochs : int, optional
        Number of epochs, 0 to 2**32; None for endless.
    shard : (int, int), "auto", process group, or (mesh, axis)
        (rank, world), 0 <= rank < world, or where to find them: see `shard_of`.
    drop_last : bool
    plan : Plan, optional
        By default an epoch has each sample once.
    owner : str
        Name of the object with these arguments, for the errors.

    Attributes
    ----------
    size : int
        Places of an epoch, on all ranks together.
    data_size : int
        Number of samples in the data.
    count : int
        Number of them that are read.
    batch_size : int or Schedule
        A schedule where it changes.
    batch_sizes : Schedule of int
        The same, as a schedule in any case.
    numbering : Numbering
        Which batch of which epoch has a number that is counted from the start of the first epoch.

    Raises
    ------
    ArgumentError
        An argument is out of range, or `drop_last` leaves no batch.

    Examples
    --------
    >>> order = Sampler(5, 2, shuffle=False, epochs=1)
    >>> [task.indices.tolist() for task in order]
    [[0, 1], [2, 3], [4]]
    """

    skips: Skips | None = None
    """What is skipped; None for nothing."""
    window: int | None = None
    """Number of shards whose samples are mixed (`WindowedSampler`); None for all."""

    def __init__(
        self,
        size: int,
        batch_size: BatchSize,
        *,
        shuffle: bool = True,
        seed: int | None = 0,
        epochs: int | None = None,
        shard: Any = (0, 1),
        drop_last: bool = False,
        plan: Plan | None = None,
        owner: str = "Sampler",
    ) -> None:
        self.size = self.data_size = self.count = whole(owner, "size", size, 1, 2**32)
        self.plan = None if plan is None or plan.is_default else plan
        self._chosen = None
        if self.plan is not None:
            self.size, self.count, self._chosen = self.plan.size, self.plan.count, self.plan.chosen
        self.batch_sizes = scheduled(batch_size, lambda size: whole(owner, "batch_size", size, 1, 2**32))
        self.batch_size: BatchSize = self.batch_sizes.plain
        self.shuffle = flag(owner, "shuffle", shuffle)
        self.epochs = None if epochs is None else whole(owner, "epochs", epochs, 0, 2**32)
        self._owner, self._shard = owner, shard
        try:
            self.rank, self.world = shard_of(owner, shard)
        except ArgumentError:
            # The launcher may not have said everything yet: `current` asks again.
            if not isinstance(shard, str) or shard != AUTO:
                raise
            self.rank, self.world = WHOLE
        self.seed = chosen_seed(owner, seed, self.world)
        self.seed_drawn = seed is None
        self.drop_last = flag(owner, "drop_last", drop_last)
        self._number_batches()

    def _number_batches(self) -> None:
        """Count the samples and batches of the epochs; raises if `drop_last` leaves none in one of them."""
        self.samples = self._left(0, 0)[0]
        """Samples of one epoch on each rank, before an incomplete last batch is dropped."""
        self.numbering = Numbering(self._epoch_lengths())

    def _epoch_lengths(self) -> Schedule[int]:
        """Return the number of batches of each epoch."""
        for epoch, size in self.batch_sizes.values.items():
            if not self._left(epoch, 0)[1]:
                of = f" in epoch {epoch}" if epoch or not self.batch_sizes.constant else ""
                raise ArgumentError(
                    f"{self._owner}: drop_last leaves nothing of size {self.size}{of}: a rank of {self.world} has "
                    f"{self.samples} samples, batch_size is {size}; use a smaller batch_size or drop_last=False"
                )
        return self.batch_sizes.by_epoch(lambda epoch: self._left(epoch, 0)[1])

    def batch_counts(self) -> set[int]:
        """Return the numbers of samples that batches have, on each rank."""
        found = set()
        for size in self.batch_sizes.stages:
            last = 0 if self.drop_last else self.samples % size
            found |= {size for size in (min(size, self.samples), last) if size}
        return found

    @property
    def given_shard(self) -> Any:
        """The argument `shard`."""
        return self._shard

    def current(self) -> Sampler:
        """Return the sampler for this process as its launcher says now: itself, or one with another rank and world.

        Raises
        ------
        ArgumentError
            As the constructor.
        """
        shard = shard_of(self._owner, self._shard)
        if shard == (self.rank, self.world):
            return self
        if self.seed_drawn and shard.world > 1:
            # Raises: each rank would have drawn another.
            chosen_seed(self._owner, None, shard.world)
        other = self.of_shard(self._shard, self._owner)
        other.skips = self.skips
        return other

    def __len__(self) -> int:
        """Batches in the first epoch, on each rank; in all of them, unless the batch size changes."""
        return self.batches_in(0)

    def batches_in(self, epoch: int) -> int:
        """Return the number of batches in an epoch, on each rank."""
        return self.numbering.batches_in(epoch)

    def batch_size_in(self, epoch: int) -> int:
        """Return the number of samples in each batch of an epoch, except perhaps the last."""
        return self.batch_sizes.at(epoch)

    def __iter__(self) -> Iterator[Task]:
        return self.tasks()

    def __repr__(self) -> str:
        return (
            f"Sampler({self.size}, {self.batch_size}, shuffle={self.shuffle}, seed={self.seed}, "
            f"epochs={self.epochs}, shard=({self.rank}, {self.world}), drop_last={self.drop_last})"
        )

    def fingerprint(self, *parts: bytes | Iterable[bytes]) -> str:
        """Return a hash of this order and of the data that `parts` identify, 32 hex digits.

        It is the same for all ranks of any world, and for any number of epochs.
        """
        order = self.data_size, self.batch_size, self.shuffle, self.seed, self.drop_last
        planned = [repr(self.planned()).encode()] if self.plan is not None else []
        return digest(repr(order).encode(), *planned, *parts)

    def planned(self, epoch: int = 0) -> dict[str, Any]:
        """What a state of an epoch says of the plan; nothing where each sample comes once."""
        return {} if self.plan is None else self.plan.state(epoch)

    @property
    def stated_batch_size(self) -> Any:
        """What a state says of the batch size, on which the numbers of steps depend, as JSON-serializable data."""
        size = self.batch_size
        return [[*pair] for pair in size.values.items()] if isinstance(size, Schedule) else size

    def state_of(self, place: Position) -> dict[str, Any]:
        """Return what a state says of a place, as JSON-serializable data."""
        return {"epoch": place.epoch, "position": place.position}

    def place_of(self, state: Mapping[str, Any], epoch: int, position: int) -> Position | None:
        """Return the place of a state with this epoch and position; None if the rest of what it says is not valid."""
        return Position(epoch, position)

    def parts(self) -> tuple[bytes, ...]:
        """What else a state of this order depends on, for `digest`: sizes of shards."""
        return ()

    def skipping(self, skips: Skips) -> Sampler:
        """Return the same order that skips these samples and steps, and no others."""
        other = copy(self)
        other.skips = skips or None
        return other

    def of_shard(self, shard: object, owner: str = "Sampler") -> Sampler:
        """Return the same order for another (rank, world), without skips; `owner` as in `Sampler`.

        Raises
        ------
        ArgumentError
            See `Sampler`.
        """
        other = self._of_shard(shard, owner)
        other.seed_drawn = self.seed_drawn
        return other

    def _of_shard(self, shard: object, owner: str) -> Sampler:
        return Sampler(self.data_size, self.batch_size, **self._options(shard, owner))

    def _options(self, shard: object, owner: str) -> dict[str, Any]:
        """Return the keyword arguments of a sampler for another shard."""
        return {
            "shuffle": self.shuffle,
            "seed": self.seed,
            "epochs": self.epochs,
            "shard": shard,
            "drop_last": self.drop_last,
            "plan": self.plan,
            "owner": owner,
        }

    def task_at(self, epoch: int, seq: int, begun: Position = FRONT) -> Task:
        """Return the task of batch `seq` of an epoch, in an order that starts at `begun`.

        Batches before `begun` are those of the same batch size and world that lead to it.

        Raises
        ------
        ArgumentError
            There is no such epoch or batch; or no batches of this size lead from the start of the epoch to `begun`.
        """
        epoch, seq = self._checked(epoch, seq)
        place = self.place_at(self.numbering.number_of(epoch, seq), begun)
        if place.position < 0:
            size = self.batch_size_in(epoch)
            raise ArgumentError(
                f"Sampler: batch {seq} of epoch {epoch} had another batch_size or world than {size} and "
                f"{self.world}: position {begun.position} of the state lies between two batches of this size"
            )
        return next(self._tasks(epoch, seq, place.position))

    def tasks(self, start: int = 0) -> Iterator[Task]:
        """Iterate over the batches from number `start` on, counted from the start of the first epoch.

        Raises
        ------
        ArgumentError
            `start` is negative.
        """
        first_epoch, first_seq = self.numbering.at(whole("Sampler", "start", start, 0, 2**63))
        return self._tasks(first_epoch, first_seq, 0)

    def tasks_after(self, place: Position) -> Iterator[Task]:
        """Iterate over the batches after `place`; the first has number `number_after(place)`."""
        first_epoch, first_seq = self.numbering.at(self.number_after(place))
        return self._tasks(first_epoch, first_seq, place.position if first_epoch == place.epoch else 0)

    def number_after(self, place: Position) -> int:
        """Return the number of the first batch after `place`, counted from the start of the first epoch."""
        return self.numbering.number_of(place.epoch + 1) - self._left(place.epoch, place.position)[1]

    def place_at(self, number: int, begun: Position = FRONT) -> Position:
        """Return the position after all batches below `number`, in an order that starts at `begun`."""
        epoch, seq = self.numbering.at(number)
        position = 0
        if epoch == begun.epoch:
            position = begun.position
            seq -= self.batches_in(epoch) - self._left(epoch, position)[1]
        return Position(epoch, position + seq * self.batch_size_in(epoch) * self.world)

    def _left(self, epoch: int, position: int) -> tuple[int, int]:
        """Return the samples and batches of each rank from a position of an epoch on."""
        left, world, size = self.size - position, self.world, self.batch_size_in(epoch)
        if self.drop_last:
            return left // world, left // world // size
        samples = -(-left // world)
        return samples, -(-samples // size)

    def _tasks(self, first_epoch: int, first_seq: int, position: int) -> Iterator[Task]:
        epochs = itertools.count(first_epoch) if self.epochs is None else range(first_epoch, self.epochs)
        for epoch in epochs:
            size, batches = self.batch_size_in(epoch), self.batches_in(epoch)
            # Computes the places of several batches at once: for few places, the call is the main cost.
            block = max(1, BLOCK // size)
            for first in range(first_seq, batches, block):
                last = min(first + block, batches)
                indices = self._indices(epoch, first, last, position)
                for seq in range(first, last):
                    begin = (seq - first) * size
                    taken = indices[begin : begin + size]
                    if self.skips is not None:
                        taken = self._kept(self.skips, epoch, seq, position, taken)
                    yield Task(epoch, seq, taken)
            first_seq = position = 0

    def _kept(
        self, skips: Skips, epoch: int, seq: int, position: int, indices: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return those of the samples of a batch that are not skipped."""
        if skips.has_step(epoch, seq):
            return indices[:0]
        place = self.place_at(self.numbering.number_of(epoch, seq), Position(epoch, position))
        skipped = skips.samples_at(place)
        if skipped is None:
            return indices
        # Batches of other ranks can be empty only where so many samples are skipped.
        if self.world > 1 and skipped.count >= len(indices):
            first = self._first_of_ranks(epoch, seq, place)
            for rank in np.flatnonzero(skipped.hold(numbers_of(first))).tolist():
                if skipped.hold(numbers_of(self._indices(epoch, seq, seq + 1, position, rank))).all():
                    return indices[:0]
        return indices[~skipped.hold(numbers_of(indices))]

    def _first_of_ranks(self, epoch: int, seq: int, place: Position) -> NDArray[np.int64]:
        """Return the first sample of each rank in the batches at a place."""
        return self._at(epoch, np.arange(place.position, place.position + self.world, dtype=np.int64))

    def indices(self, epoch: int, seq: int) -> NDArray[np.int64]:
        """Return the samples of batch `seq` of an epoch, on this rank; also those that are skipped.

        Parameters
        ----------
        epoch : int
            0 to 2**32 - 1.
        seq : int
            0 to batches_in(epoch) - 1.

        Returns
        -------
        int64 (n,)
            n is `batch_size`, or fewer in the last batch.

        Raises
        ------
        ArgumentError
            There is no such epoch or batch.
        """
        epoch, seq = self._checked(epoch, seq)
        return self._indices(epoch, seq, seq + 1)

    def _checked(self, epoch: int, seq: int) -> tuple[int, int]:
        last_epoch = 2**32 - 1 if self.epochs is None else self.epochs - 1
        epoch = whole("Sampler", "epoch", epoch, 0, last_epoch)
        return epoch, whole("Sampler", "seq", seq, 0, self.batches_in(epoch) - 1)

    def _indices(
        self, epoch: int, first: int, last: int, position: int = 0, rank: int | None = None
    ) -> NDArray[np.int64]:
        """Return the samples of batches `first` to `last` (exclusive) of the rest of an epoch from a position on."""
        samples, batches = self._left(epoch, position)
        numbered, size = self.batches_in(epoch) - batches, self.batch_size_in(epoch)
        begin, end = (first - numbered) * size, (last - numbered) * size
        places = np.arange(begin, min(end, samples), dtype=np.int64)
        if self.world > 1 or position:
            places *= self.world
            places += (self.rank if rank is None else rank) + position
        return self._at(epoch, places)

    def _at(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples at places of an epoch; may write over the places."""
        if self.world > 1:
            places %= self.size
        plan = self.plan
        if plan is None:
            return self._shuffled(epoch, places) if self.shuffle else places
        copies = None
        if plan.weights is not None:
            found = draw(plan.weights.at(epoch).table, self.seed, epoch, places)
            copies = places
        else:
            if plan.repeats > 1:
                # The copies of a sample are neighbors.
                places, copies = np.divmod(places, plan.repeats)
            found = self._shuffled(epoch, places) if self.shuffle else places
        if self._chosen is not None:
            found = self._chosen[found]
        return found if copies is None else identities(found, copies)

    def _shuffled(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the elements at places of the permutation of 0 to `count` - 1 of an epoch, written over the places."""
        philox.permute(self.seed, epoch, ORDER_POSITION, self.count, places, places)
        return places

    @property
    def copies(self) -> int:
        """How many numbers of copies an epoch has."""
        if self.plan is None:
            return 1
        return self.size if self.plan.weights is not None else self.plan.repeats

    def samples_at(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples at places of an epoch, of all ranks: int64 (N,), from 0 to `size` - 1."""
        return self._at(epoch, places.copy())

    def candidates(self, epoch: int) -> NDArray[np.int64] | None:
        """Return the samples that an epoch may have, by their numbers in the data, int64 (N,); None for all."""
        if self.plan is None or self.plan.weights is None:
            return self._chosen
        drawn = np.flatnonzero(self.plan.weights.at(epoch).table.possible())
        return drawn if self._chosen is None else self._chosen[drawn]

    def substitutes(self, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the samples that may be read instead of those of a batch, as `candidates`."""
        return self.candidates(epoch)

    def reached(self) -> int:
        """Return how many different samples this rank reads in all epochs together, or more."""
        if self.plan is not None and self.plan.weights is not None and self.plan.weights.constant:
            return int(np.count_nonzero(self.plan.weights.at(0).table.possible()))
        if self.shuffle:
            return self.count
        samples = self.samples
        if self.drop_last:
            # The longest part of an epoch that is read; without shuffling, it has those of the others.
            samples = max(size * self.batches_in(epoch) for epoch, size in self.batch_sizes.values.items())
        samples = min(samples, self.size)
        if self.plan is None or self.plan.repeats == 1:
            return samples
        places = (np.arange(samples) * self.world + self.rank) % self.size
        return len(np.unique(places // self.plan.repeats))
