"""Regrouping: batches of other sizes, made of the samples of the batches that arrive, and the position after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch, empty, ragged_groups
from highway.errors import ContractError, StateMismatchError

__all__ = ["Place", "Regrouper", "joined", "part", "places_in"]


class Place(NamedTuple):
    """A position in the samples that arrive: where the next batch begins.

    Attributes
    ----------
    ticket : int
        Of the batch that arrives.
    skipped : int
        Samples of it, and of those after it, that come before.
    epoch, seq : int
        Number that the next batch gets if it is of this epoch; in another epoch, it is 0.
    """

    ticket: int
    skipped: int = 0
    epoch: int = 0
    seq: int = 0


def places_in(state: object, count: int) -> list[Place]:
    """Return the places of so many stages in a state; their tickets are not known yet.

    Raises
    ------
    StateMismatchError
        They are not valid, or of another number of stages.
    """
    if not isinstance(state, (list, tuple)) or len(state) != count:
        found = len(state) if isinstance(state, (list, tuple)) else repr(state)
        raise StateMismatchError(
            f"Pipeline.load_state_dict: the state is of {found} stages that regroup samples; expected {count}, as this "
            "pipeline has"
        )
    for numbers in state:
        if (
            not isinstance(numbers, (list, tuple))
            or len(numbers) != 3
            or not all(type(number) is int and 0 <= number < 2**63 for number in numbers)
        ):
            raise StateMismatchError(
                f"Pipeline.load_state_dict: the state has {numbers!r} for a stage that regroups samples; expected "
                "samples that were used, epoch and number of the next batch"
            )
    return [Place(0, *numbers) for numbers in state]


class Regrouper:
    """Makes batches of other sizes, with the samples in their order; the last one of an epoch may be smaller.

    Parameters
    ----------
    owner : str
        Name of the module in errors.
    size_in : callable
        Returns the size of the batches of an epoch.
    drop_last : bool
        Drop a smaller last batch.
    place : Place
        Where the first batch begins.
    """

    def __init__(self, owner: str, size_in: Callable[[int], int], drop_last: bool, place: Place) -> None:
        self._owner = owner
        self._size_in = size_in
        self._drop_last = drop_last
        self._place = place
        # Batches that have arrived, with their tickets; the first `_used` samples of the first one are used.
        self._waiting: list[tuple[int, Batch]] = []
        self._used = 0
        self._count = 0
        self._skip = place.skipped

    def add(self, ticket: int, batch: Batch) -> Iterator[tuple[Batch, Place]]:
        """Yield the batches that are complete with this one, each with the place after it."""
        yield from self.reach(batch.epoch)
        if self._skip and batch.epoch != self._place.epoch:
            # The epoch of the state has fewer samples now, or its rest was a smaller last batch.
            self._skip = 0
        skipped = min(self._skip, batch.size)
        self._skip -= skipped
        if skipped == batch.size:
            return
        if not self._waiting:
            self._used = skipped
        self._waiting.append((ticket, batch))
        self._count += batch.size - skipped
        size = self._size_in(batch.epoch)
        while self._count >= size:
            yield self._made(size)

    def reach(self, epoch: int) -> Iterator[tuple[Batch, Place]]:
        """Yield the remaining samples of the epoch before, where a batch of another one arrives."""
        if self._waiting and self._waiting[0][1].epoch != epoch:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[Batch, Place]]:
        """Yield the remaining samples of an epoch at its end; nothing if they are dropped."""
        if self._count and not self._drop_last:
            yield self._made(self._count)
        self._waiting.clear()
        self._count = self._used = 0

    def _made(self, size: int) -> tuple[Batch, Place]:
        parts = []
        missing = size
        while missing:
            ticket, batch = self._waiting[0]
            taken = min(missing, batch.size - self._used)
            parts.append(part(batch, self._used, self._used + taken))
            missing -= taken
            self._used += taken
            if self._used == batch.size:
                del self._waiting[0]
                ticket, self._used = ticket + 1, 0
        self._count -= size
        made = joined(self._owner, parts)
        epoch = made.epoch
        made.seq = self._place.seq if epoch == self._place.epoch else 0
        self._place = Place(ticket, self._used, epoch, made.seq + 1)
        return made, self._place


def part(batch: Batch, begin: int, end: int) -> Batch:
    """Return the samples from `begin` to `end` (exclusive) of a batch, as views of its arrays."""
    if (begin, end) == (0, batch.size):
        return batch.replace(indices=batch.indices, keys=batch.keys)
    _refuse_whole(batch)
    groups = {name: number for number, group in enumerate(ragged_groups(batch)) for name in group}
    ends = [batch.offsets_of(group[0])[begin : end + 1] for group in ragged_groups(batch)]
    offsets = [found - found[0] for found in ends]

    def divided(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {
            name: array[ends[groups[name]][0] : ends[groups[name]][-1]]
            if name in groups
            else array[begin:end]
            for name, array in arrays.items()
        }

    return Batch(
        divided(batch.fields),
        epoch=batch.epoch,
        seq=batch.seq,
        indices=batch.indices[begin:end],
        keys=batch.keys[begin:end] if batch.keys else None,
        applied=batch.applied,
        extras=divided(batch.extras),
        ragged={name: offsets[number] for name, number in groups.items()},
    )


def joined(owner: str, batches: Sequence[Batch]) -> Batch:
    """Return one batch with the samples of several ones, in their order, with the identity of the first.

    Raises
    ------
    ContractError
        Their fields differ in names, dtypes or shapes, or one has no dimensions.
    """
    first = batches[0]
    if len(batches) == 1:
        return first
    for batch in batches:
        _refuse_whole(batch)
    kinds = [_kinds(batch) for batch in batches]
    for batch, found in zip(batches, kinds, strict=True):
        if found != kinds[0]:
            shown = next(name for name in {**kinds[0], **found} if kinds[0].get(name) != found.get(name))
            raise ContractError(
                f"{owner}: batches {first.seq} and {batch.seq} of epoch {batch.epoch} have different fields: {shown} "
                f"is {_told(kinds[0].get(shown))} and {_told(found.get(shown))}; expected the same names, dtypes and "
                "shapes, to make one batch of their samples"
            )
    ragged: dict[str, NDArray[np.int64]] = {}
    for group in ragged_groups(first):
        counts = np.concatenate([np.diff(batch.offsets_of(group[0])) for batch in batches])
        ragged |= dict.fromkeys(group, np.concatenate(([0], np.cumsum(counts))))
    return Batch(
        {name: _concatenated([batch[name] for batch in batches]) for name in first.fields},
        epoch=first.epoch,
        indices=np.concatenate([batch.indices for batch in batches]),
        keys=[key for batch in batches for key in batch.keys]
        if all(batch.keys for batch in batches)
        else None,
        applied=first.applied,
        extras={name: _concatenated([batch[name] for batch in batches]) for name in first.extras},
        ragged=ragged,
    )


def _refuse_whole(batch: Batch) -> None:
    """Raise for a field that belongs to the whole batch, which cannot be divided or joined."""
    for name in (*batch.fields, *batch.extras):
        if not batch[name].ndim:
            raise ContractError(
                f"Batch: field {name!r} has no dimensions, so it belongs to the whole batch; expected one row per "
                "sample, to make batches of other samples"
            )


def _concatenated(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if arrays[0].dtype.kind in "OUS":
        # Texts differ in width.
        return np.concatenate(arrays)
    rows = sum(map(len, arrays))
    return np.concatenate(arrays, out=empty((rows, *arrays[0].shape[1:]), arrays[0].dtype))


def _kinds(batch: Batch) -> dict[str, tuple[Any, ...]]:
    groups = {name: tuple(group) for group in ragged_groups(batch) for name in group}
    return {
        name: (
            _width_free(array.dtype),
            array.shape[1:],
            name in batch.extras,
            groups.get(name),
        )
        for name, array in (*batch.fields.items(), *batch.extras.items())
    } | {"applied": (batch.applied,)}


def _width_free(dtype: np.dtype[Any]) -> object:
    """Return the dtype, of texts without their width."""
    return dtype.kind if dtype.kind in "US" else dtype


def _told(kind: tuple[Any, ...] | None) -> str:
    if kind is None:
        return "missing"
    if len(kind) == 1:
        return str(kind[0])
    dtype, shape, extra, group = kind
    rows = f"ragged with {', '.join(group)}, rows" if group else "samples"
    return f"{'an extra ' if extra else ''}{dtype}, {rows} of shape {shape}"
