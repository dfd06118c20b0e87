"""Composition: transforms that apply other transforms, chosen per sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from highway.arguments import number, numbers, whole
from highway.batch import Batch, empty, ragged_groups
from highway.errors import ArgumentError, ContractError
from highway.sampling.rng import SampleRandom
from highway.transforms.along import Along
from highway.transforms.mix import Mixing
from highway.transforms.runs import Several, TransformChain
from highway.transforms.transform import Transform
from highway.transforms.values import Values

__all__ = ["OneOf", "RandomApply", "Sequential", "SomeOf", "checked", "with_inner"]


# A transform overrides at least one of these.
_WORK = ("apply_images", "apply_boxes", "apply_masks", "apply_keypoints", "apply_labels")


class _Composed(Several):
    """Base of compositions: branches, each a sequence of transforms that some samples go through.

    A branch that mixes runs on the whole batch and keeps only its own samples: each sample is mixed with the next
    one of the batch, whichever branch that one goes through.
    """

    # Whether each sample goes through at most one branch, and whether all samples go through all branches.
    _at_most_one: ClassVar[bool] = True
    _all_through: ClassVar[bool] = False

    def __init__(self, branches: Sequence[Sequence[Transform]], always: bool = False) -> None:
        if not always:
            _refuse_numbers(type(self).__name__, branches)
        self._mixing: list[Mixing] = []
        if not self._all_through:
            self._mixing = list(itertools.chain.from_iterable(map(_mixing, branches)))
            _check_classes(type(self).__name__, self._mixing)
        self._mixes = [bool(_mixing(branch)) for branch in branches]
        self._branches = [TransformChain(branch, type(self).__name__) for branch in branches]
        self._firsts = np.cumsum([1, *(branch.positions for branch in self._branches)]).tolist()

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether all inner transforms have `hands_over`."""
        return all(branch.hands_over for branch in self._branches)

    @property
    def positions(self) -> int:
        """Number of random positions: its own and those of all inner transforms."""
        return int(self._firsts[-1])

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
        """Return the output shape for uint8 images of this shape, the same for every branch.

        Raises
        ------
        ArgumentError
            The branches return different shapes, or one does not take such images.
        """
        return self.shape_after(shape, np.dtype(np.uint8))

    def shape_after(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> tuple[int, int, int] | None:
        """Return `out_shape` for images of this shape and dtype."""
        found = {self._passed(shape), *(branch.out_shape(shape, dtype) for branch in self._branches)}
        found.discard(None)
        if len(found) > 1:
            shapes = " and ".join(str(one) for one in sorted(one for one in found if one is not None))
            raise ArgumentError(
                f"{self!r}: images of {shape} become {shapes}, depending on the chosen branch; expected one shape, "
                "since a batch needs equal shapes"
            )
        return found.pop() if found else None

    def _passed(self, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
        """Return the shape of images that no branch takes; None if there are no such images."""
        return shape

    def choose(self, rng: SampleRandom) -> NDArray[np.bool_]:
        """Choose which samples go through which branch, in order, bool (N, branches)."""
        raise NotImplementedError

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        """Whether an inner transform mixes samples."""
        return any(self._mixes)

    @property
    def needs_images(self) -> bool:  # type: ignore[override]
        """Whether an inner transform needs images."""
        return any(step.needs_images for branch in self._branches for step in branch.transforms if step)

    def apply(self, batch: Batch, seed: int, first: int, may_overwrite: bool, along: Along) -> Batch:
        """Apply its branches to each sample, one branch after the other."""
        if self._mixing:
            batch = self._with_parts(batch)
        chosen = self.choose(SampleRandom(seed, batch.epoch, batch.indices, first))
        if self._at_most_one or (not self.mixes and (chosen.sum(axis=1) <= 1).all()):
            return self._split(batch, chosen, seed, first, may_overwrite, along)
        for k in range(len(self._branches)):
            only = np.zeros_like(chosen)
            only[:, k] = chosen[:, k]
            before = batch
            batch = self._split(batch, only, seed, first, may_overwrite, along)
            changed = batch.fields.get("images") is not before.fields.get("images")
            may_overwrite = self.hands_over and (may_overwrite or changed)
        return batch

    def _split(
        self,
        batch: Batch,
        chosen: NDArray[np.bool_],
        seed: int,
        first: int,
        may_overwrite: bool,
        along: Along,
    ) -> Batch:
        """Apply to each sample its one chosen branch, if any."""
        parts = []
        rest = ~chosen.any(axis=1)
        for branch, position, mixes, taken in zip(
            self._branches, self._firsts, self._mixes, chosen.T, strict=False
        ):
            if taken.all():
                return branch.apply(batch, seed, first + position, may_overwrite, along)
            if taken.any():
                rows = np.flatnonzero(taken)
                if mixes:
                    part = branch.apply(batch, seed, first + position, False, along).take(rows)
                else:
                    part = branch.apply(batch.take(rows), seed, first + position, True, along)
                parts.append((rows, part))
        if not parts:
            return batch
        if rest.any():
            rows = np.flatnonzero(rest)
            parts.append((rows, batch.take(rows)))
        return self._joined(batch, parts)

    def _with_parts(self, batch: Batch) -> Batch:
        """Convert the labels of all samples to class weights, float32 (N, classes), whichever branch they take."""
        for transform in self._mixing:
            transform.check(batch)
        # All mixing transforms give the same result.
        labels = self._mixing[0].parts(batch["labels"]).astype(np.float32, copy=False)
        return batch.replace(labels=labels)

    def _joined(self, batch: Batch, parts: list[tuple[NDArray[np.intp], Batch]]) -> Batch:
        """Join the parts of a batch, given with their rows, into one batch."""
        order = np.concatenate([rows for rows, _ in parts])
        ragged: dict[str, Any] = {}
        for group in ragged_groups(batch):
            counts = np.empty(batch.size, np.int64)
            for rows, part in parts:
                counts[rows] = np.diff(part.offsets_of(group[0]))
            ragged |= dict.fromkeys(group, np.concatenate(([0], np.cumsum(counts))))
        changed: dict[str, Any] = {}
        for name in (*batch.fields, *batch.extras):
            if name in batch.ragged:
                rows_of = [part.rows_of(name, k) for _, part in parts for k in range(part.size)]
                changed[name] = np.concatenate([rows_of[k] for k in np.argsort(order)])
                continue
            arrays = [part[name] for _, part in parts]
            found = {(array.shape[1:], array.dtype) for array in arrays}
            if len(found) > 1:
                shown = " and ".join(f"{dtype} of shape {shape}" for shape, dtype in sorted(found, key=str))
                raise ContractError(
                    f"{self!r}: {name} are {shown}, depending on the chosen branch; expected the same dtype and shape "
                    "for all samples of a batch"
                )
            whole_array = empty((batch.size, *arrays[0].shape[1:]), arrays[0].dtype)
            for (rows, _), array in zip(parts, arrays, strict=True):
                whole_array[rows] = array
            changed[name] = whole_array
        return batch.replace(ragged=ragged or None, **changed)


class Sequential(_Composed):
    """Apply several transforms in order, as one transform.

    Deterministic form: a `Sequential` of the deterministic forms, without those that are None.

    Parameters
    ----------
    transforms : sequence of Transform
    """

    _all_through = True

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = checked("Sequential", transforms)
        super().__init__([self.transforms], always=True)

    def _passed(self, shape: tuple[int, int, int]) -> None:
        """Return None: all samples go through."""

    def choose(self, rng: SampleRandom) -> NDArray[np.bool_]:
        """Choose all samples."""
        return np.ones((len(rng), 1), np.bool_)

    def deterministic(self) -> Sequential | None:
        """Return a `Sequential` of the deterministic forms; None if there are none."""
        return _left(self.transforms)


class RandomApply(_Composed):
    """Apply all transforms in order with probability `p`, otherwise none; drawn per sample.

    Deterministic form: None; if `p` is 1, as for `Sequential`.

    Parameters
    ----------
    transforms : sequence of Transform
        They must keep the image size, unless `p` is 0 or 1.
    p : float
        Probability that a sample is transformed, 0 to 1; drawn independently for each sample.
    """

    def __init__(self, transforms: Sequence[Transform], p: float = 0.5) -> None:
        self.transforms = checked("RandomApply", transforms)
        self.p = number("RandomApply", "p", p, 0, 1)
        super().__init__([self.transforms], always=self.p in (0, 1))

    def _passed(self, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
        return None if self.p == 1 else shape

    def choose(self, rng: SampleRandom) -> NDArray[np.bool_]:
        """Draw for each sample whether it is transformed."""
        return rng.bernoulli(self.p)[:, None]

    def deterministic(self) -> Sequential | None:
        """Return the deterministic forms if `p` is 1, otherwise None."""
        return _left(self.transforms) if self.p == 1 else None


class OneOf(_Composed):
    """Apply one of several transforms, drawn per sample.

    `Mixup` and `CutMix` may be among them: a sample is mixed with the next one of its batch, whichever transform that
    one gets, and the labels of all samples become float32 (N, classes), one-hot for samples that are not mixed. The
    same holds for `RandomApply` and `SomeOf`.

    Deterministic form: None if that of every transform is None; otherwise `deterministic` raises ArgumentError.

    Parameters
    ----------
    transforms : sequence of Transform
        To apply several in order, put them into a `Sequential`.
    weights : sequence of float, optional
        Relative probabilities, one per transform; by default all are equally likely.
    """

    def __init__(self, transforms: Sequence[Transform], weights: Sequence[float] | None = None) -> None:
        self.transforms = _some("OneOf", transforms)
        self.weights = None if weights is None else numbers("OneOf", "weights", weights, 0)
        if self.weights is not None and (len(self.weights) != len(self.transforms) or not sum(self.weights)):
            raise ArgumentError(
                f"OneOf: weights is {weights!r} for {len(self.transforms)} transforms; expected one number per "
                "transform, all 0 or more and at least one above 0"
            )
        chances = np.ones(len(self.transforms)) if self.weights is None else np.array(self.weights)
        self._limits = np.cumsum(chances / chances.sum())
        super().__init__([[transform] for transform in self.transforms])

    def _passed(self, shape: tuple[int, int, int]) -> None:
        """Return None: every sample goes through a branch."""

    def choose(self, rng: SampleRandom) -> NDArray[np.bool_]:
        """Draw one transform for each sample."""
        found = np.searchsorted(self._limits[:-1], rng.uniform(), side="right")
        chosen: NDArray[np.bool_] = found[:, None] == np.arange(len(self.transforms))
        return chosen

    def deterministic(self) -> None:
        """Return None.

        Raises
        ------
        ArgumentError
            One of the transforms has a deterministic form other than None: which one applies is random.
        """
        _nothing("OneOf", self.transforms)


class SomeOf(_Composed):
    """Apply a random subset of several transforms, drawn per sample, in the order of the list.

    Deterministic form: None if that of every transform is None; otherwise `deterministic` raises ArgumentError.

    Parameters
    ----------
    transforms : sequence of Transform
        They must keep the image size.
    n : int or (int, int)
        Number of transforms to apply. With a pair, it is drawn from the first to the second, both included, uniformly.
    """

    _at_most_one = False

    def __init__(self, transforms: Sequence[Transform], n: int | tuple[int, int] = 2) -> None:
        self.transforms = _some("SomeOf", transforms)
        self.n = n
        low, high = n if isinstance(n, (tuple, list)) and len(n) == 2 else (n, n)
        self._most = whole("SomeOf", "n", high, 0, len(self.transforms))
        self._least = whole("SomeOf", "n", low, 0, self._most)
        super().__init__([[transform] for transform in self.transforms])

    def choose(self, rng: SampleRandom) -> NDArray[np.bool_]:
        """Draw a subset of the transforms for each sample."""
        count = rng.integers(self._least, self._most + 1)
        ranks = np.argsort(np.argsort(rng.uniform(size=len(self.transforms)), axis=1), axis=1)
        chosen: NDArray[np.bool_] = ranks < count[:, None]
        return chosen

    def deterministic(self) -> None:
        """Return None; see `OneOf.deterministic`."""
        _nothing("SomeOf", self.transforms)


def _refuse_numbers(owner: str, branches: Sequence[Sequence[Transform]]) -> None:
    """Raise ArgumentError if a transform would convert only some of the images to floats."""
    for transform in itertools.chain.from_iterable(branches):
        if isinstance(transform, Values):
            raise ArgumentError(
                f"{owner}: {transform!r} changes the dtype of {transform.field}, but {owner} applies it to only some "
                f"samples; put it outside of {owner}"
            )
        if isinstance(transform, _Composed):
            _refuse_numbers(owner, [branch.transforms for branch in transform._branches])  # type: ignore[misc]


def with_inner(transforms: Sequence[Transform | None]) -> Iterator[Transform]:
    """Iterate over the transforms, with those inside of compositions instead of the compositions."""
    for transform in transforms:
        if isinstance(transform, _Composed):
            for branch in transform._branches:
                yield from with_inner(branch.transforms)
        elif transform is not None:
            yield transform


def _mixing(transforms: Sequence[Transform | None]) -> list[Mixing]:
    """Return the transforms that mix samples, including nested ones."""
    return [transform for transform in with_inner(transforms) if isinstance(transform, Mixing)]


def _check_classes(owner: str, mixing: Sequence[Mixing]) -> None:
    """Raise ArgumentError if the transforms return labels of different lengths."""
    counts = {transform.num_classes for transform in mixing} - {None}
    if len(counts) > 1:
        raise ArgumentError(
            f"{owner}: num_classes of {' and '.join(map(repr, mixing))} differ; expected equal values, since "
            "all labels of a batch have the same length"
        )


def _left(transforms: Sequence[Transform]) -> Sequential | None:
    left = [form for form in (transform.deterministic() for transform in transforms) if form is not None]
    return Sequential(left) if left else None


def _nothing(owner: str, transforms: Sequence[Transform]) -> None:
    for transform in transforms:
        if transform.deterministic() is not None:
            raise ArgumentError(
                f"{owner} has no deterministic form, since {transform!r}, which it chooses at random, has one; "
                "use a separate list of transforms for validation"
            )


def _some(owner: str, transforms: object) -> tuple[Transform, ...]:
    found = checked(owner, transforms)
    if not found:
        raise ArgumentError(f"{owner}: transforms is empty; expected one or more to choose from")
    return found


def checked(owner: str, transforms: object) -> tuple[Transform, ...]:
    """Check a list of transforms and return it as a tuple; the ArgumentError names `owner`."""
    if not isinstance(transforms, Sequence) or isinstance(transforms, str):
        raise ArgumentError(
            f"{owner}: transforms is {transforms!r}; expected a list of transforms, as in [FlipX()]"
        )
    for place, transform in enumerate(transforms):
        if isinstance(transform, type) and issubclass(transform, Transform):
            raise ArgumentError(
                f"{owner}: transforms[{place}] is the class {transform.__name__}; "
                f"expected {transform.__name__}()"
            )
        if (
            isinstance(transform, Transform)
            and not isinstance(transform, Several)
            and all(getattr(type(transform), name) is getattr(Transform, name) for name in _WORK)
        ):
            raise ArgumentError(
                f"{owner}: transforms[{place}], {transform!r}, overrides no method that does work; "
                "expected a method apply_images(self, images, params)"
            )
        if not isinstance(transform, Transform):
            hint = "; put a function into Lambda(...)" if callable(transform) else ""
            raise ArgumentError(
                f"{owner}: transforms[{place}] is {transform!r}; expected a Transform, such as FlipX(){hint}"
            )
    return tuple(transforms)
