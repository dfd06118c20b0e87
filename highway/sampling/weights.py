"""Weights: draws of samples with replacement, each as often as its weight says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core import philox
from highway.errors import ArgumentError
from highway.sampling.digests import digest
from highway.sampling.rng import WEIGHT_POSITION
from highway.sampling.selection import check_classes

__all__ = ["AliasTable", "Weights", "alias_table", "draw"]

_BALANCED = "balanced"


class AliasTable(NamedTuple):
    """A distribution over 0 to M - 1 that is drawn from in constant time.

    A draw is a column, each equally likely, and then either this column or its alias.

    Attributes
    ----------
    kept : float64 (M,)
        Probability, 0 to 1, of a column itself.
    alias : int64 (M,)
    """

    kept: NDArray[np.float64]
    alias: NDArray[np.int64]

    def possible(self) -> NDArray[np.bool_]:
        """Return which numbers may be drawn, bool (M,)."""
        found: NDArray[np.bool_] = self.kept > 0
        found[self.alias[self.kept < 1]] = True
        return found


def alias_table(weights: NDArray[np.float64]) -> AliasTable:
    """Return the alias table of weights, float64 (M,), of a positive and finite sum.

    The columns of less than the mean weight are filled in turn from those of more (L. Hübschle-Schneider and
    P. Sanders, "Parallel weighted random sampling", ESA 2019, section 4.2); cumulative sums say which fills which.
    """
    count = len(weights)
    # By the largest first: the sum of finite numbers may be infinite.
    scaled = weights / weights.max()
    scaled *= count / scaled.sum()
    light, heavy = np.flatnonzero(scaled < 1), np.flatnonzero(scaled >= 1)
    kept, alias = np.ones(count), np.arange(count, dtype=np.int64)
    if not len(light):
        return AliasTable(kept, alias)
    # What the light columns lack, and what the heavy ones have to give, up to the end of each.
    lacks, gives = np.cumsum(1.0 - scaled[light]), np.cumsum(scaled[heavy] - 1.0)
    kept[light] = scaled[light]
    before = np.concatenate(([0.0], lacks[:-1]))
    givers = np.minimum(np.searchsorted(gives, before, "right"), len(heavy) - 1)
    alias[light] = heavy[givers]
    # A heavy column that gives more than it has is filled by the next heavy one.
    at = np.searchsorted(lacks, gives, "left")
    over = np.flatnonzero(at[:-1] < len(light))
    kept[heavy[over]] = np.clip(1.0 - (lacks[at[over]] - gives[over]), 0.0, 1.0)
    alias[heavy[over]] = heavy[over + 1]
    return AliasTable(kept, alias)


def draw(table: AliasTable, seed: int, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what is drawn at places, 0 to 2**32 - 1, of an epoch: int64 (N,), a function of its arguments alone."""
    bits = np.empty((len(places), 2), np.uint64)
    philox.draws(seed, epoch, WEIGHT_POSITION, places.astype(np.uint32), 0, bits)
    columns = np.empty(len(places), np.uint64)
    spans = np.full(len(places), len(table.alias), np.uint64)
    philox.scale(np.ascontiguousarray(bits[:, 0]), spans, columns)
    found = columns.astype(np.int64)
    unit = (bits[:, 1] >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.where(unit < table.kept[found], found, table.alias[found])


class _Epoch(NamedTuple):
    """The distribution of an epoch, and a hash of its weights."""

    epoch: int
    table: AliasTable
    digest: str


class Weights:
    """The weights of the samples of an order, in every epoch.

    Parameters
    ----------
    owner : str
        Name of the object with the argument `weights`, for errors.
    given : "balanced", array_like of float (N,), or callable
        A callable gets the epoch and returns an array.
    size : int
        Number of samples in the data, N.
    chosen : int64 (M,) or None
        Samples that may be drawn; None for all.
    classes : callable
        Returns the number of the class of each of the N samples, int64 (N,), for "balanced".

    Raises
    ------
    ArgumentError
        The weights are no such array, have another length, are negative or not finite, or sum to 0.
    """

    def __init__(
        self,
        owner: str,
        given: Any,
        size: int,
        chosen: NDArray[np.int64] | None,
        classes: Callable[[], NDArray[np.int64]],
    ) -> None:
        self._owner, self._size, self._chosen = owner, size, chosen
        self._of_epoch: Callable[[int], Any] | None = None
        self._latest: tuple[_Epoch, ...] = ()
        if isinstance(given, str):
            if given != _BALANCED:
                raise ArgumentError(
                    f"{owner}: weights is {given!r}; expected 'balanced', one number for each sample, or a function "
                    "of the epoch"
                )
            self._latest = (self._made(0, _balanced(owner, classes(), chosen)),)
        elif callable(given):
            self._of_epoch = given
            self.at(0)
        else:
            self._latest = (self._made(0, self._checked(given, "weights")),)

    @property
    def constant(self) -> bool:
        """Whether all epochs have the same weights."""
        return self._of_epoch is None

    def at(self, epoch: int) -> _Epoch:
        """Return the distribution of an epoch; the last two are kept."""
        for found in self._latest:
            if self._of_epoch is None or found.epoch == epoch:
                return found
        assert self._of_epoch is not None
        made = self._made(epoch, self._checked(self._of_epoch(epoch), f"weights({epoch})"))
        # States are of the epoch that is delivered, while workers may be in the next one.
        self._latest = (*self._latest[-1:], made)
        return made

    def _made(self, epoch: int, weights: NDArray[np.float64]) -> _Epoch:
        chosen = weights if self._chosen is None else weights[self._chosen]
        return _Epoch(epoch, alias_table(chosen), digest(np.ascontiguousarray(chosen).tobytes()))

    def _checked(self, given: Any, name: str) -> NDArray[np.float64]:
        expected = f"one number for each of the {self._size} samples of the data"
        try:
            weights = np.asarray(given)
            if weights.dtype.kind not in "biuf":
                raise ValueError
            weights = weights.astype(np.float64)
        except (ValueError, TypeError):
            raise ArgumentError(
                f"{self._owner}: {name} is of type {type(given).__name__}; expected {expected}"
            ) from None
        if weights.shape != (self._size,):
            raise ArgumentError(
                f"{self._owner}: {name} has shape {weights.shape}; expected {expected}, also for those that subset or "
                "split drop"
            )
        wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if len(wrong):
            raise ArgumentError(
                f"{self._owner}: {name}[{wrong[0]}] is {weights[wrong[0]]}; expected finite numbers of 0 or more"
            )
        if not (weights if self._chosen is None else weights[self._chosen]).any():
            raise ArgumentError(
                f"{self._owner}: {name} sums to 0"
                + ("" if self._chosen is None else f" over the {len(self._chosen)} chosen samples")
                + "; expected a positive weight for one sample or more"
            )
        return weights


def _balanced(
    owner: str, classes: NDArray[np.int64], chosen: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Return weights with the same sum for each class that the chosen samples have."""
    check_classes(owner, "weights='balanced'", classes, chosen)
    counts = np.bincount(classes if chosen is None else classes[chosen], minlength=int(classes.max()) + 1)
    # Those without a class are not among the chosen ones.
    weights: NDArray[np.float64] = 1.0 / np.maximum(counts, 1)[classes]
    return weights
