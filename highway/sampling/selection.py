"""Selections: which samples of the data a source reads, by the arguments `subset` and `split`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core import philox
from highway.errors import ArgumentError
from highway.sampling.rng import SPLIT_POSITION

__all__ = ["NO_CLASS", "check_classes", "classes_of", "part_of", "subset_of"]

NO_CLASS = -1
"""Class of a sample without a label."""

_PARTS = ("train", "validation")


def subset_of(
    owner: str, subset: Any, size: int, keys: Iterable[str] | None, labels: NDArray[Any] | None
) -> NDArray[np.int64]:
    """Return the samples of a subset, int64 (M,), in the order of the indices, or of the data.

    Parameters
    ----------
    owner : str
        Name of the object with the argument `subset`, for errors.
    subset : array_like of int (M,), array_like of bool (N,), or callable
        A callable gets key and label of a sample, and returns whether it is chosen.
    size : int
        Number of samples in the data, N.
    keys : iterable of str, or None
        Key of each sample; a callable gets their numbers instead where they are not known.
    labels : array (N, ...) or None
        Label of each sample; a callable gets None where they are not known.

    Raises
    ------
    ArgumentError
        The subset is nothing of this kind, empty, out of range, or has a sample twice.
    """
    if callable(subset):
        names: Iterable[Any] = range(size) if keys is None else keys
        values: Iterable[Any] = repeat(None, size) if labels is None else _scalars(labels)
        pairs = zip(names, values, strict=True)
        chosen = np.array([index for index, pair in enumerate(pairs) if subset(*pair)], np.int64)
        if not len(chosen):
            raise ArgumentError(
                f"{owner}: subset returned a false value for each of the {size} samples; expected one sample or more"
            )
        return chosen
    kinds = "indices of samples, one bool for each sample, or a function of key and label"
    try:
        found = np.asarray(subset if isinstance(subset, (np.ndarray, range)) else list(subset))
    except (TypeError, ValueError):
        raise ArgumentError(f"{owner}: subset is of type {type(subset).__name__}; expected {kinds}") from None
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iub"):
        raise ArgumentError(
            f"{owner}: subset is an array of {found.dtype} and shape {found.shape}; expected {kinds}"
        )
    if found.dtype.kind == "b":
        if len(found) != size:
            raise ArgumentError(
                f"{owner}: subset has {len(found)} bools; expected {size}, one for each sample of the data"
            )
        found = np.flatnonzero(found)
    if not len(found):
        raise ArgumentError(f"{owner}: subset has no sample; expected one or more")
    wrong = np.flatnonzero((found < 0) | (found >= size))
    if len(wrong):
        raise ArgumentError(
            f"{owner}: subset[{wrong[0]}] is {found[wrong[0]]}; expected indices from 0 to {size - 1}, of the {size} "
            "samples of the data"
        )
    ordered = np.sort(found)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise ArgumentError(
            f"{owner}: subset has the index {ordered[twice[0]]} twice; expected each sample once (repeats= and "
            "weights= read samples several times)"
        )
    return found.astype(np.int64)


def classes_of(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of the class of each sample, int64 (N,): samples with equal labels are a class.

    A label that is NaN, or has a NaN, is none: `NO_CLASS`.
    """
    _, classes = np.unique(labels, axis=0, return_inverse=True)
    found = classes.reshape(-1).astype(np.int64)
    if labels.dtype.kind == "f":
        found[np.isnan(labels).reshape(len(labels), -1).any(axis=1)] = NO_CLASS
    return found


def check_classes(
    owner: str, wanted_by: str, classes: NDArray[np.int64], chosen: NDArray[np.int64] | None
) -> None:
    """Raise ArgumentError if a sample without a class is among the chosen ones, or among all."""
    without = np.flatnonzero((classes if chosen is None else classes[chosen]) == NO_CLASS)
    if len(without):
        first = without[0] if chosen is None else chosen[without[0]]
        raise ArgumentError(
            f"{owner}: {wanted_by} needs a label for each sample, and {len(without)} have none, the first of them "
            f"sample {first} (null or NaN); give subset= as the indices of the samples with labels, or label them"
        )


def part_of(
    owner: str,
    split: Any,
    chosen: NDArray[np.int64],
    seed: int,
    classes: Callable[[], NDArray[np.int64]] | None,
) -> NDArray[np.int64]:
    """Return the samples of one part of a split, int64, in the order of `chosen`.

    The samples, or those of each class, are permuted by the seed and cut into the parts, in the order of their names:
    that of the mapping does not matter.

    Parameters
    ----------
    owner : str
        Name of the object with the argument `split`, for errors.
    split : (str, float) or (str, mapping of str to float)
    chosen : int64 (M,)
        The samples that are split.
    seed : int
        0 to 2**64 - 1.
    classes : callable, optional
        Returns the number of the class of each sample of the data, int64 (N,). The parts then have the same share of
        each class.

    Raises
    ------
    ArgumentError
        The split is nothing of this kind, or leaves a part, or a class in a part, without samples.
    """
    name, fractions = _checked(owner, split)
    groups = [np.arange(len(chosen), dtype=np.int64)]
    if classes is not None:
        every = classes()
        check_classes(owner, "stratify=True", every, chosen)
        of_chosen = every[chosen]
        by_class = np.argsort(of_chosen, kind="stable")
        groups = np.split(by_class, np.flatnonzero(np.diff(of_chosen[by_class])) + 1)
    ends = np.cumsum(list(fractions.values()))
    at = list(fractions).index(name)
    found = []
    for number, group in enumerate(groups):
        count = len(group)
        # To the nearest; the last part takes the rest.
        cuts = np.floor(ends * count + 0.5).astype(np.int64)
        cuts[-1] = count
        sizes = np.diff(cuts, prepend=0)
        empty = np.flatnonzero(sizes <= 0)
        if len(empty):
            of_class = f" of the class of sample {chosen[group[0]]}" if classes is not None else ""
            raise ArgumentError(
                f"{owner}: split leaves {[*fractions][empty[0]]!r} none of the {count} samples{of_class}; expected one "
                f"or more in each part: use other fractions{', or stratify=False' if classes is not None else ''}"
            )
        places = np.arange(cuts[at] - sizes[at], cuts[at], dtype=np.int64)
        philox.permute(seed, number, SPLIT_POSITION, count, places, places)
        found.append(group[places])
    return chosen[np.sort(np.concatenate(found))]


def _checked(owner: str, split: Any) -> tuple[str, dict[str, float]]:
    """Return the name of the part, and the fraction of each part by its name."""
    if not isinstance(split, (tuple, list)) or len(split) != 2 or not isinstance(split[0], str):
        raise ArgumentError(
            f"{owner}: split is {split!r}; expected ('train', 0.9) or ('validation', 0.9), or a name and the fractions "
            "of all parts, such as ('test', {'train': 0.8, 'validation': 0.1, 'test': 0.1})"
        )
    name, given = split
    if isinstance(given, Mapping):
        fractions = dict(given)
        for part, fraction in fractions.items():
            if not isinstance(part, str) or not _is_fraction(fraction):
                raise ArgumentError(
                    f"{owner}: split has the part {part!r} with {fraction!r}; expected names with fractions between 0 "
                    "and 1"
                )
        if abs(sum(fractions.values()) - 1) > 1e-6:
            raise ArgumentError(
                f"{owner}: the fractions of split sum to {sum(fractions.values())}; expected 1: name all parts, also "
                "those that are not used"
            )
    elif not _is_fraction(given):
        raise ArgumentError(f"{owner}: split has the fraction {given!r}; expected a number between 0 and 1")
    elif given < 0.5:
        # Who writes ('validation', 0.1) next to ('train', 0.9) would train on the validation data.
        raise ArgumentError(
            f"{owner}: split is {split!r}; the fraction is that of 'train' in both readers, and expected to be 0.5 or "
            f"more: give ({name!r}, {1 - given:g}), or for a small training part ({name!r}, {{'train': {given:g}, "
            f"'validation': {1 - given:g}}})"
        )
    else:
        fractions = dict(zip(_PARTS, (given, 1 - given), strict=True))
    if name not in fractions:
        raise ArgumentError(
            f"{owner}: split has no part {name!r}; expected one of {', '.join(map(repr, fractions))}"
        )
    return name, {part: float(fraction) for part, fraction in sorted(fractions.items())}


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and bool(0 < value < 1)


def _scalars(labels: NDArray[Any]) -> Iterable[Any]:
    """Labels as Python numbers; rows of several values as arrays."""
    return labels.tolist() if labels.ndim == 1 else labels
