"""Proportions: which member of a mixture each place has, such that every stretch of places has each in its proportion.

The members take turns in a pattern, such as A A B C A for the weights (3, 1, 1), which repeats: any places as long as
the pattern have the exact proportions. From one repetition to the next the pattern sometimes begins one place later. So
ranks, which take every n-th place, meet all parts of the pattern, also where n and its length have a common divisor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.errors import ArgumentError

__all__ = ["MOST_PATTERN", "Pattern", "pattern_of"]

MOST_PATTERN = 2**16
"""Most places in a pattern."""

_PARTS = 2**12
# The golden ratio, in units of 2**-32: the pattern begins one place later 618 times in 1000 repetitions.
_TURN = 2654435769


class Pattern:
    """The turns of the members of a mixture.

    Parameters
    ----------
    parts : sequence of int (K,)
        How many of the places in each repetition a member has, 0 or more.
    turning : bool
        False: each repetition begins with the first place of the pattern.

    Attributes
    ----------
    length : int
        Places in a repetition.
    """

    def __init__(self, parts: Sequence[int], turning: bool) -> None:
        self.parts = np.array(parts, np.int64)
        self.length = int(self.parts.sum())
        members = np.repeat(np.arange(len(parts)), self.parts)
        ordinals = np.arange(self.length) - np.repeat(np.cumsum(self.parts) - self.parts, self.parts)
        # Evenly spread: the n-th of m comes at (n + 1/2) / m of the pattern.
        turns = np.argsort((2 * ordinals + 1) / self.parts[members], kind="stable")
        self.members: NDArray[np.int64] = members[turns]
        """Member of each place of the pattern, int64 (length,)."""
        self.ordinals: NDArray[np.int64] = ordinals[turns]
        """How many places of the pattern before this one have the same member, int64 (length,)."""
        self._turning = turning
        # The places of the first member, those of the second plus the length, and so on; where those of each begin.
        self._places = np.sort(self.members * self.length + np.arange(self.length))
        self._starts = np.cumsum(self.parts) - self.parts

    def _first(self, repetitions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of the pattern with which repetitions begin, int64 (N,)."""
        if not self._turning:
            return np.zeros_like(repetitions)
        turned = (repetitions.astype(np.uint64) * np.uint64(_TURN)) >> np.uint64(32)
        return (turned % np.uint64(self.length)).astype(np.int64)

    def _before(self, members: NDArray[np.int64], places: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Return how many places of the pattern before these, 0 to `length`, members have, int64 (N,)."""
        return np.searchsorted(self._places, members * self.length + places) - self._starts[members]

    def at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the member of each place, and how many places before it have the same member: int64 (N,) both."""
        repetitions, inside = np.divmod(places, self.length)
        first = self._first(repetitions)
        at = (first + inside) % self.length
        members = self.members[at]
        parts = self.parts[members]
        ordinals = self.ordinals[at] - self._before(members, first)
        # The pattern has ended within the repetition, and begun again.
        ordinals += np.where(at < first, parts, 0)
        return members, repetitions * parts + ordinals

    def counts(self, places: int) -> NDArray[np.int64]:
        """Return how many of the first places each member has, int64 (K,)."""
        repetitions, rest = divmod(places, self.length)
        first = int(self._first(np.array([repetitions]))[0])
        end, members = first + rest, np.arange(len(self.parts))
        inside = self._before(members, min(end, self.length)) - self._before(members, first)
        if end > self.length:
            inside += self._before(members, end - self.length)
        return inside + repetitions * self.parts

    def place_of(self, member: int, ordinal: int) -> int:
        """Return the place at which a member has had `ordinal` places before."""
        repetitions = ordinal // int(self.parts[member])
        places = np.arange(repetitions * self.length, (repetitions + 1) * self.length)
        members, ordinals = self.at(places)
        return int(places[(members == member) & (ordinals == ordinal)][0])


def pattern_of(owner: str, name: str, weights: Any, members: int, turning: bool) -> Pattern:
    """Return the pattern of weights, one for each of the members.

    Whole numbers and decimals are kept exactly, if the pattern has at most 65536 places; otherwise the weights are
    rounded to parts of 1/4096.

    Raises
    ------
    ArgumentError
        `weights`, which errors call `name`, is nothing of this kind, has another length, a negative or infinite number,
        or the sum 0.
    """
    try:
        if isinstance(weights, (Mapping, Set)):
            raise TypeError
        given = [float(weight) for weight in weights]
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{owner}: {name} is {weights!r}; expected one number for each of the {members} sources"
        ) from None
    if len(given) != members:
        raise ArgumentError(
            f"{owner}: {name} has {len(given)} numbers; expected one for each of the {members} sources"
        )
    for number, weight in enumerate(given):
        if not 0 <= weight < float("inf"):
            raise ArgumentError(
                f"{owner}: {name}[{number}] is {weight}; expected finite numbers of 0 or more"
            )
    if not any(given):
        raise ArgumentError(f"{owner}: {name} sums to 0; expected a positive weight for one source or more")
    return _pattern(tuple(given), turning)


@lru_cache(maxsize=16)
def _pattern(weights: tuple[float, ...], turning: bool) -> Pattern:
    # As the user wrote them: 0.7 is 7/10.
    exact = [Fraction(repr(weight)) for weight in weights]
    whole = lcm(*(weight.denominator for weight in exact))
    parts = [int(weight * whole) for weight in exact]
    divisor = gcd(*parts)
    parts = [part // divisor for part in parts]
    return Pattern(parts if sum(parts) <= MOST_PATTERN else _rounded(parts), turning)


def _rounded(parts: Sequence[int]) -> list[int]:
    """Return parts of 4096 in these proportions; what is more than 0 stays so."""
    total = sum(parts)
    found = [max(part * _PARTS // total, int(part > 0)) for part in parts]
    # To the largest remainders; what the smallest got from the largest.
    order = sorted(range(len(parts)), key=lambda member: -(parts[member] * _PARTS % total))
    for member in order[: max(0, _PARTS - sum(found))]:
        found[member] += 1
    found[found.index(max(found))] -= sum(found) - _PARTS
    divisor = gcd(*found)
    return [part // divisor for part in found]
