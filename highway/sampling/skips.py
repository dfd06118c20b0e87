"""Skips: samples and steps that a run drops, and their form in a saved state."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from highway.errors import ArgumentError, StateMismatchError
from highway.sampling.position import Position

__all__ = ["Intervals", "Skips"]

VERSION = 1

MOST_INTERVALS = 4096
"""Most intervals of numbers that a state may hold, of samples and of steps together."""

_KEYS = {"version", "samples", "steps", "batch_size", "world"}


class Order(Protocol):
    """What skips need of a `Sampler`."""

    size: int
    data_size: int
    world: int

    @property
    def stated_batch_size(self) -> Any: ...

    def batches_in(self, epoch: int) -> int: ...


class Intervals:
    """A set of whole numbers as sorted intervals that neither overlap nor touch.

    Parameters
    ----------
    pairs : iterable of (int, int)
        First and last number of each interval, in any order; they may overlap.
    """

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        merged: list[tuple[int, int]] = []
        for first, last in sorted(pairs):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], last)
            else:
                merged.append((first, last))
        self.pairs = tuple(merged)
        table = np.array(merged, np.int64).reshape(-1, 2)
        self._firsts, self._lasts = table.T
        self.count = int((self._lasts - self._firsts + 1).sum())
        """How many numbers there are."""

    def hold(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the numbers are in the set, bool of the same shape."""
        place = np.searchsorted(self._firsts, numbers, "right") - 1
        held: NDArray[np.bool_] = (place >= 0) & (numbers <= self._lasts[place])
        return held


class Skips:
    """The samples and steps that a run drops; immutable.

    Samples are dropped from all batches that begin at a `Position` or later; a step is a batch of all ranks,
    identified by its epoch and its number in the epoch.

    Parameters
    ----------
    samples : mapping of (int, int) to iterable of (int, int)
        Intervals of the indices of samples, by epoch and position from which on they are dropped.
    steps : mapping of int to iterable of (int, int)
        Intervals of numbers of batches, by epoch.

    Raises
    ------
    ArgumentError
        There are more than 4096 intervals.
    """

    def __init__(
        self,
        samples: Mapping[tuple[int, int], Iterable[tuple[int, int]]] | None = None,
        steps: Mapping[int, Iterable[tuple[int, int]]] | None = None,
    ) -> None:
        self._samples = {place: Intervals(pairs) for place, pairs in sorted((samples or {}).items())}
        self._steps = {epoch: Intervals(pairs) for epoch, pairs in sorted((steps or {}).items())}
        count = sum(len(each.pairs) for each in (*self._samples.values(), *self._steps.values()))
        if count > MOST_INTERVALS:
            raise ArgumentError(
                f"skip: the samples and steps to skip are {count} intervals of numbers; expected at most "
                f"{MOST_INTERVALS}; use a source without these samples instead"
            )
        # From each place on, all samples of this and the earlier places.
        self._places = [*self._samples]
        self._until: list[Intervals] = []
        for each in self._samples.values():
            before = self._until[-1].pairs if self._until else ()
            self._until.append(Intervals([*before, *each.pairs]))

    def __bool__(self) -> bool:
        return bool(self._samples or self._steps)

    def has_step(self, epoch: int, seq: int) -> bool:
        """Whether a batch is dropped on all ranks."""
        steps = self._steps.get(epoch)
        return steps is not None and bool(steps.hold(np.array([seq]))[0])

    def has_steps(self, epoch: int, count: int) -> bool:
        """Whether the first `count` batches of an epoch are dropped."""
        steps = self._steps.get(epoch)
        return steps is not None and any(first <= 0 and count - 1 <= last for first, last in steps.pairs)

    def samples_at(self, place: Position) -> Intervals | None:
        """Return the samples that are dropped from a batch that begins at `place`; None if there are none."""
        number = bisect_right(self._places, tuple(place))
        return self._until[number - 1] if number else None

    def added(
        self, place: Position, samples: Iterable[int] = (), steps: Iterable[tuple[int, int]] = ()
    ) -> Skips:
        """Return these skips and more: `samples` from `place` on, and `steps`, as epoch and number.

        Raises
        ------
        ArgumentError
            There are too many.
        """
        of_samples = {key: [*each.pairs] for key, each in self._samples.items()}
        of_steps = {epoch: [*each.pairs] for epoch, each in self._steps.items()}
        more = [(index, index) for index in samples]
        if more:
            of_samples.setdefault((place.epoch, place.position), []).extend(more)
        for epoch, seq in steps:
            of_steps.setdefault(epoch, []).append((seq, seq))
        return Skips(of_samples, of_steps)

    # State

    def state(self, order: Order) -> dict[str, Any]:
        """Return the skips of a run in this order as JSON-serializable data.

        Returns
        -------
        dict
            "version"; "samples": epoch and position from which on samples are dropped, first and last index; "steps":
            epoch, first and last number; "batch_size" (of a schedule: epochs and sizes) and "world", which the numbers
            of steps depend on.
        """
        return {
            "version": VERSION,
            "samples": [[*place, *pair] for place, each in self._samples.items() for pair in each.pairs],
            "steps": [[epoch, *pair] for epoch, each in self._steps.items() for pair in each.pairs],
            "batch_size": order.stated_batch_size,
            "world": order.world,
        }

    @classmethod
    def of_state(cls, owner: str, state: object, order: Order) -> Skips:
        """Return the skips of a state, for a run in this order.

        Raises
        ------
        StateMismatchError
            The state is not valid; or it has steps, and another batch size or world.
        """
        if not isinstance(state, Mapping) or not state.keys() >= _KEYS or state["version"] != VERSION:
            raise StateMismatchError(
                f"{owner}: the skips of the state are not valid; expected version {VERSION} with "
                f"{', '.join(sorted(_KEYS - {'version'}))}"
            )
        found, mine = (state["batch_size"], state["world"]), (order.stated_batch_size, order.world)
        if state["steps"] and found != mine:
            raise StateMismatchError(
                f"{owner}: the state skips steps of batch_size={found[0]!r} and a world of {found[1]!r}; expected "
                f"batch_size={mine[0]} and a world of {mine[1]}, since other batches have other numbers"
            )
        place, last = order.size - 1, order.data_size - 1
        rows = _rows(owner, "samples", state["samples"], lambda epoch: (place, last, last))
        steps = _rows(owner, "steps", state["steps"], lambda epoch: (order.batches_in(epoch) - 1,) * 2)
        of_samples: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for epoch, position, first, end in rows:
            of_samples.setdefault((epoch, position), []).append((first, end))
        of_steps: dict[int, list[tuple[int, int]]] = {}
        for epoch, first, end in steps:
            of_steps.setdefault(epoch, []).append((first, end))
        return cls(of_samples, of_steps)


def _rows(
    owner: str, name: str, table: object, highest: Callable[[int], tuple[int, ...]]
) -> list[Sequence[int]]:
    """Return the rows of a table of a state: an epoch, then numbers from 0 to `highest` in this epoch.

    The last two are in order.
    """

    def valid(row: object) -> bool:
        if not isinstance(row, (list, tuple)) or not row or not _is_whole(row[0], 2**32):
            return False
        most = highest(row[0])
        return len(row) == 1 + len(most) and all(map(_is_whole, row[1:], most)) and bool(row[-2] <= row[-1])

    if isinstance(table, (list, tuple)) and len(table) <= MOST_INTERVALS and all(map(valid, table)):
        return list(table)
    raise StateMismatchError(
        f"{owner}: the skipped {name} of the state are not valid here; expected at most {MOST_INTERVALS} intervals of "
        f"numbers up to {highest(0)[-1]}"
    )


def _is_whole(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most
