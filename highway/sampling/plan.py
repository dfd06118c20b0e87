"""Plan: which samples of the data an epoch has, and how often."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag, whole
from highway.errors import ArgumentError
from highway.sampling.digests import digest
from highway.sampling.identity import MOST_COPIES
from highway.sampling.selection import NO_CLASS, classes_of, part_of, subset_of
from highway.sampling.weights import Weights

__all__ = ["Data", "Plan"]


class Data:
    """What a plan may need to know of the data: nothing is asked for before it is needed.

    Parameters
    ----------
    owner : str
        Name of the source, for errors.
    size : int
        Number of samples.
    source : object
        Has `known_keys`, `known_labels` and `unlabeled`, as `OrderedSource`.
    """

    def __init__(self, owner: str, size: int, source: Any) -> None:
        self.owner, self.size, self._source = owner, size, source
        self._classes: NDArray[np.int64] | None = None

    def chosen(self, subset: Any) -> NDArray[np.int64]:
        """Return the samples of `subset`, see `subset_of`."""
        keys = self._source.known_keys() if callable(subset) else None
        labels = self._source.known_labels() if callable(subset) else None
        return subset_of(self.owner, subset, self.size, keys, labels)

    def classes(self, wanted_by: str) -> NDArray[np.int64]:
        """Return the number of the class of each sample, int64 (N,), or `NO_CLASS`; `wanted_by` is the argument that
        needs it.

        Raises
        ------
        ArgumentError
            The labels are not known before the samples are read, or are those of boxes.
        """
        if self._classes is None:
            labels = self._source.known_labels()
            if labels is None:
                way = (
                    "subset= as the indices of a part"
                    if "stratify" in wanted_by
                    else "weights= as an array (1 / numpy.bincount(labels)[labels] makes labels equally likely)"
                )
                raise ArgumentError(
                    f"{self.owner}: {wanted_by} needs one label for each sample, which this reader does not have "
                    "before it reads them (class folders, lists and tables have them, and an ArrayReader with an array "
                    f"'labels'); give {way}"
                )
            self._classes = classes_of(labels)
            self._classes[list(self._source.unlabeled())] = NO_CLASS
        return self._classes


class Plan:
    """Which samples of the data an epoch has, and how often: subset, split, weights, repeats and most samples.

    Attributes
    ----------
    chosen : int64 (M,) or None
        The samples that are read; None for all.
    count : int
        Number of them, M.
    size : int
        Samples in an epoch, with all copies.
    repeats : int
        Copies of each sample in an epoch; with weights 1.
    weights : Weights or None
        Each place of an epoch has a sample that is drawn by them; None for each sample as often as any other.
    """

    def __init__(
        self,
        data: Data,
        *,
        subset: Any = None,
        split: Any = None,
        stratify: bool = False,
        split_seed: int = 0,
        weights: Any = None,
        repeats: int = 1,
        max_samples: int | None = None,
        shuffle: bool = True,
    ) -> None:
        owner = data.owner
        stratify = flag(owner, "stratify", stratify)
        split_seed = whole(owner, "split_seed", split_seed, 0, 2**64 - 1)
        repeats = whole(owner, "repeats", repeats, 1, MOST_COPIES)
        most = None if max_samples is None else whole(owner, "max_samples", max_samples, 1, 2**32)
        self.chosen = None if subset is None else data.chosen(subset)
        self._named: dict[str, Any] = {}
        """Arguments in a state, in the order in which they are compared."""
        if self.chosen is not None:
            self._named["subset"] = digest(self.chosen.astype("<i8").tobytes())
        if split is not None:
            every = np.arange(data.size, dtype=np.int64) if self.chosen is None else self.chosen
            classes = (lambda: data.classes("stratify=True")) if stratify else None
            self.chosen = part_of(owner, split, every, split_seed, classes)
            self._named["split"] = digest(self.chosen.astype("<i8").tobytes())
        elif stratify:
            raise ArgumentError(
                f"{owner}: stratify is True without split; expected stratify=False, or a split such as ('train', 0.9)"
            )
        self.count = data.size if self.chosen is None else len(self.chosen)
        places = self.count * repeats
        self.size = places if most is None else min(places, most)
        if self.size > (MOST_COPIES if weights is not None else 2**32):
            raise ArgumentError(
                f"{owner}: repeats is {repeats}, of {self.count} samples; expected at most "
                f"{2**31 if weights is not None else 2**32} samples in an epoch"
            )
        self.weights = None
        self.repeats = repeats
        if weights is not None:
            if not shuffle:
                raise ArgumentError(
                    f"{owner}: weights is given with shuffle=False; expected shuffle=True, as samples that are drawn "
                    "have no order"
                )
            self.weights = Weights(
                owner, weights, data.size, self.chosen, lambda: data.classes("weights='balanced'")
            )
            self.repeats = 1
        if repeats > 1:
            self._named["repeats"] = repeats
        if self.size < places:
            self._named["max_samples"] = self.size

    @property
    def is_default(self) -> bool:
        """Whether each sample of the data comes once in an epoch."""
        return not self._named and self.weights is None

    def state(self, epoch: int) -> dict[str, Any]:
        """Return what a state of an epoch says of this plan, as JSON-serializable data; nothing by default."""
        if self.weights is None:
            return self._named
        return {**self._named, "weights": self.weights.at(epoch).digest}

    def __repr__(self) -> str:
        return f"<Plan of {self.size} from {self.count} samples: {', '.join(self.state(0)) or 'all'}>"
