"""Turns: which member of a mixture each place of an epoch has, where the weights change within the training."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import whole
from highway.errors import ArgumentError
from highway.sampling.proportions import Pattern, pattern_of

__all__ = ["Sections", "Turns"]


class Sections:
    """Patterns that follow each other in one epoch; as a `Pattern`, it knows the member of each place.

    Parameters
    ----------
    starts : sequence of int (S,)
        First place of each pattern, ascending from 0.
    patterns : sequence of Pattern (S,)
    """

    def __init__(self, starts: Sequence[int], patterns: Sequence[Pattern]) -> None:
        self._starts = np.array(starts, np.int64)
        self._patterns = patterns
        lengths = np.diff(self._starts).tolist()
        counts = [pattern.counts(length) for pattern, length in zip(patterns[:-1], lengths, strict=True)]
        # How many places each member has before each pattern.
        self._had = np.cumsum([np.zeros(len(patterns[0].parts), np.int64), *counts], axis=0)

    def at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the member of each place, and how many places before it have the same member: int64 (N,) both."""
        members, ordinals = np.empty_like(places), np.empty_like(places)
        numbers = np.searchsorted(self._starts, places, "right") - 1
        for number in np.unique(numbers).tolist():
            rows = np.flatnonzero(numbers == number)
            found, had = self._patterns[number].at(places[rows] - self._starts[number])
            members[rows], ordinals[rows] = found, had + self._had[number][found]
        return members, ordinals

    def counts(self, places: int) -> NDArray[np.int64]:
        """Return how many of the first places each member has, int64 (K,)."""
        number = int(np.searchsorted(self._starts, places, "right")) - 1
        counts: NDArray[np.int64] = self._had[number] + self._patterns[number].counts(
            places - int(self._starts[number])
        )
        return counts


class Turns:
    """Weights that change after numbers of samples.

    Parameters
    ----------
    owner : str
        Name of the mixture, for errors.
    weights : mapping of int to sequence of float (K,)
        The weights from a number of samples on, counted from the start of the training on all ranks; the first is 0.
    members : int
        Number of sources, K.

    Raises
    ------
    ArgumentError
        A number is not whole or there is none for 0; or as `pattern_of`.

    Attributes
    ----------
    state : list of (int, list of int)
        Where each pattern starts, and its parts.
    """

    def __init__(self, owner: str, weights: Mapping[int, Any], members: int) -> None:
        self._starts = sorted(
            whole(owner, "a number of samples in weights", start, 0, 2**62) for start in weights
        )
        if not self._starts or self._starts[0]:
            raise ArgumentError(
                f"{owner}: weights is {weights!r}, without weights for the first sample; expected them for 0, as in "
                "{0: (3, 1), 10_000: (1, 1)}"
            )
        self._patterns = [
            pattern_of(owner, f"weights[{start}]", weights[start], members, turning=True)
            for start in self._starts
        ]
        self.state = [
            [start, pattern.parts.tolist()]
            for start, pattern in zip(self._starts, self._patterns, strict=True)
        ]

    def of(self, epoch: int, size: int) -> Pattern | Sections:
        """Return the turns in an epoch, all of which have `size` places."""
        front = epoch * size
        first = bisect_right(self._starts, front) - 1
        last = bisect_right(self._starts, front + size - 1) - 1
        if first == last:
            return self._patterns[first]
        starts = [max(0, start - front) for start in self._starts[first : last + 1]]
        return Sections(starts, self._patterns[first : last + 1])
