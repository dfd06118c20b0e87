"""Runs: fuse neighboring transforms into single passes over the pixels, and apply them to whole batches.

Transforms that move whole pixels (flips, crops, pads) become one `View`, together with a `Normalize` after them. A fit
is fused with the flips and crops around it. Warps, with the flips, crops and pads around them, become one sampling.
Neighboring point-wise color transforms become one program. Fusion depends only on the transforms, never on their random
parameters, so results do not depend on them either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch
from highway.errors import ArgumentError, ContractError, FieldError
from highway.sampling.rng import SampleRandom
from highway.transforms import color
from highway.transforms.along import Along
from highway.transforms.crop import fill_pixel
from highway.transforms.fit import Fit
from highway.transforms.placement import Placement
from highway.transforms.transform import Transform, check_dtype
from highway.transforms.values import Values
from highway.transforms.view import Moving, View, is_moving, unchanged
from highway.transforms.warps import INTERPOLATIONS, ComposedWarp, Warp

__all__ = ["Step", "TransformChain"]


@dataclass(frozen=True)
class Step:
    """A transform with its place in a chain.

    Attributes
    ----------
    number : int
        Index in the chain.
    position : int
        Random position, counted from the start of the chain.
    transform : Transform
    """

    number: int
    position: int
    transform: Transform


Draws = Callable[[int], SampleRandom]
Naming = Callable[[int], Any]


class TransformChain:
    """Applies transforms in order to whole batches.

    Parameters
    ----------
    transforms : sequence of Transform or None
        None for a step without a transform.
    owner : str
        Name of the owner in error messages.
    done : int
        Number of first transforms that are already done.
    """

    def __init__(self, transforms: Sequence[Transform | None], owner: str, done: int = 0) -> None:
        self.transforms = tuple(transforms)
        self._owner = owner
        steps: list[Step] = []
        position = 0
        self.positions_done = 0
        for number, transform in enumerate(self.transforms):
            if number >= done and transform is not None:
                steps.append(Step(number, position, transform))
            position += 1 if transform is None else transform.positions
            if number < done:
                self.positions_done = position
        self.positions = position
        self.groups = list(_groups(steps))

    @property
    def hands_over(self) -> bool:
        """Whether later code may write into the result, if it may write into the input."""
        return all(step is None or step.hands_over for step in self.transforms)

    def out_shape(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> tuple[int, int, int] | None:
        """Return the output shape for images of shape (H, W, C), or None; see `Transform.shape_after`."""
        found: tuple[int, int, int] | None = shape
        for number, transform in enumerate(self.transforms):
            if found is None:
                return None
            if transform is not None:
                with self._naming(number):
                    check_dtype(transform, dtype)
                    if isinstance(transform, Values) and transform.needs_images:
                        transform.out_shape(found)
                        self._check_behind(transform, self.transforms[number + 1 :])
                    found = transform.shape_after(found, dtype)
        return found

    def _check_behind(self, values: Values, rest: Sequence[Transform | None]) -> None:
        """Raise if a later transform cannot take the result of `values`."""
        for transform in rest:
            if transform is None or not transform.needs_images:
                continue
            if transform.takes == "bytes" or (transform.takes == "pixels" and values.layout == "NCHW"):
                raise ArgumentError(
                    f"{transform!r} comes after {values!r}, which returns {values.dtype} in the layout "
                    f"{values.layout}; expected uint8 (N, H, W, C): put it before {type(values).__name__}"
                )

    def apply(self, batch: Batch, seed: int, first: int, may_overwrite: bool, along: Along) -> Batch:
        """Apply all transforms to a batch.

        Parameters
        ----------
        batch : Batch
        seed, first : int
            Seed of the random numbers, and random position of the first transform.
        may_overwrite : bool
            Whether the arrays of the batch may be written into.
        along : Along
            How annotations move with the images.

        Returns
        -------
        Batch
            With ``applied`` unchanged.

        Raises
        ------
        FieldError
            The batch has no images, and a transform needs them; or it has not the field of a transform.
        ContractError
            A transform does not return the same number of images.
        """
        # Created on first use; no transform changes the samples of a batch.
        of_samples: SampleRandom | None = None

        def draws(position: int) -> SampleRandom:
            nonlocal of_samples
            if of_samples is None:
                of_samples = SampleRandom(seed, batch.epoch, batch.indices, first + position)
                return of_samples
            return of_samples.at(first + position)

        images = self._images(batch)
        for group in self.groups:
            if len(group.steps) > 1 and images is not None and group.fits(images):
                drawn, result = group.together(images, draws, self._naming, may_overwrite)
                for step, params, shape in drawn:
                    batch = along.annotated(batch, step.transform, params, shape)
                may_overwrite = all(step.transform.hands_over for step in group.steps)
                if result is not images:
                    batch = batch.replace(images=result)
                images = result
                continue
            for step in group.steps:
                with self._naming(step.number):
                    batch, may_overwrite = self._alone(step, batch, seed, first, draws, may_overwrite, along)
                images = self._images(batch)
        return batch

    @staticmethod
    def _images(batch: Batch) -> NDArray[Any] | None:
        found = batch.fields.get("images")
        return batch.extras.get("images") if found is None else found

    def _alone(
        self, step: Step, batch: Batch, seed: int, first: int, draws: Draws, may_overwrite: bool, along: Along
    ) -> tuple[Batch, bool]:
        transform = step.transform
        if "images" not in batch:
            if transform.needs_images:
                raise self._lacking(step, batch)
        elif batch["images"].dtype == np.uint16:
            check_dtype(transform, batch["images"].dtype)
        if isinstance(transform, Several):
            result = transform.apply(batch, seed, first + step.position, may_overwrite, along)
            # If no branch was chosen, the images are the input, and `may_overwrite` stays as it was.
            changed = self._images(result) is not self._images(batch)
            return result, transform.hands_over and (may_overwrite or changed)
        if isinstance(transform, Values) and not transform.needs_images:
            changes: dict[str, Any] = {transform.field: transform.apply_field(batch)}
            return batch.replace(**changes), may_overwrite
        images = batch["images"]
        params = None
        if type(transform).draw is not Transform.draw:
            params = transform.draw(draws(step.position), batch)
        if may_overwrite and transform.in_place and _takes_out(type(transform).apply_images):
            made = transform.apply_images(images, params, out=images)  # type: ignore[call-arg]
        else:
            made = transform.apply_images(images, params)
        self._check(step.number, made, len(images))
        along.refuse_new_size(batch, transform, made)
        # A step that returns its input may keep a reference to it.
        may_overwrite = transform.hands_over and (may_overwrite or made is not images)
        batch = along.annotated(batch, transform, params, images.shape)
        return batch if made is images else batch.replace(images=made), may_overwrite

    @contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        """Add the transform to errors raised inside."""
        try:
            yield
        except Exception as error:
            if hasattr(error, "add_note"):
                error.add_note(f"In {self._described(number)}.")
            raise

    def _check(self, number: int, result: object, count: int) -> None:
        if isinstance(result, np.ndarray) and result.ndim and len(result) == count:
            return
        found = "None" if result is None else f"a {type(result).__name__}"
        if isinstance(result, np.ndarray):
            found = f"an array of shape {result.shape}"
        raise ContractError(
            f"{self._owner}: {self._described(number)}, returned {found} for {count} images; "
            f"expected a numpy array of the same length from apply_images, or from the function of a Lambda"
        )

    def _lacking(self, step: Step, batch: Batch) -> FieldError:
        return FieldError(
            f"{self._owner}: {self._described(step.number)}, needs the field 'images'; the batch has "
            f"{', '.join((*batch.fields, *batch.extras)) or 'none'}; name the array of images so in the reader, as in "
            "ArrayReader(images=...), or the field of images here: Augmentations(..., field='x'); for fields of other "
            "numbers: field='x' of Normalize, Rescale and ToFloat"
        )

    def _described(self, number: int) -> str:
        return f"transform {number + 1} of {len(self.transforms)}, {self.transforms[number]!r}"


class Several(Transform):
    """Base of transforms that apply inner transforms to whole batches."""

    def apply(self, batch: Batch, seed: int, first: int, may_overwrite: bool, along: Along) -> Batch:
        """As `TransformChain.apply`; `first` is the position of this transform."""
        raise NotImplementedError


@lru_cache(maxsize=256)
def _takes_out(apply_images: Callable[..., Any]) -> bool:
    """Whether a method has the parameter ``out``; an override may lack it."""
    return "out" in inspect.signature(apply_images).parameters


# Fusion of steps

# Each step with its parameters and the shape of its input images.
Drawn = list[tuple[Step, Any, tuple[int, ...]]]


class _FusedGroup:
    """Steps fused into one pass over the pixels; a single step runs alone."""

    def __init__(self, first: Step) -> None:
        self.steps = [first]

    def takes(self, step: Step) -> bool:
        """Whether the step can join the group."""
        return False

    def fits(self, images: NDArray[Any]) -> bool:
        """Whether the group can run fused on these images; depends only on shape and dtype."""
        return images.dtype == np.uint8 and images.ndim == 4

    def together(
        self, images: NDArray[np.uint8], draws: Draws, naming: Naming, may_overwrite: bool
    ) -> tuple[Drawn, NDArray[Any]]:
        """Apply all steps in one pass."""
        raise NotImplementedError


class _FusedViews(_FusedGroup):
    """Flips, crops and pads, and optionally a `Normalize` as the last step."""

    def takes(self, step: Step) -> bool:
        last = self.steps[-1].transform
        return not isinstance(last, Values) and (is_moving(step.transform) or _is_values(step.transform))

    def together(
        self, images: NDArray[np.uint8], draws: Draws, naming: Naming, may_overwrite: bool
    ) -> tuple[Drawn, NDArray[Any]]:
        view = View.whole(images.shape)
        drawn: Drawn = []
        for step in self.steps:
            transform = step.transform
            with naming(step.number):
                if isinstance(transform, Values):
                    drawn.append((step, None, view.shape))
                    return drawn, transform.apply_view(images, view)
                assert isinstance(transform, Moving), transform
                params = transform.choose(draws(step.position), view.shape)
                drawn.append((step, params, view.shape))
                seen = transform.look(view, params)
                if seen is None:
                    # The step adds a border around an earlier crop.
                    images = view.copied(images, transform)
                    view = View.whole(images.shape)
                    seen = transform.look(view, params)
                    assert seen is not None, "a whole image has all windows"
                view = seen
        return drawn, view.copied(images, self.steps[0].transform)


class _FusedFit(_FusedGroup):
    """One fit, and the flips and crops around it."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps

    def takes(self, step: Step) -> bool:
        fit = next(one.transform for one in self.steps if isinstance(one.transform, Fit))
        return fit.covers and _stays_inside(step.transform)

    def fits(self, images: NDArray[Any]) -> bool:
        """Accept uint8, or channels-last uint16 or float32, if no window reaches beyond the images."""
        return _is_sampled(images, np.uint16, np.float32) and _all_inside(
            self.steps, images.shape, images.dtype
        )

    def together(
        self, images: NDArray[Any], draws: Draws, naming: Naming, may_overwrite: bool
    ) -> tuple[Drawn, NDArray[Any]]:
        view = View.whole(images.shape)
        drawn: Drawn = []
        placement: Placement | None = None
        for step in self.steps:
            transform = step.transform
            with naming(step.number):
                if isinstance(transform, Fit):
                    fit = transform
                    count, height, width, channels = view.shape
                    size = fit.output_size(height, width)
                    rng = draws(step.position)
                    placement = fit.choose(rng, np.full(count, height), np.full(count, width), size)
                    drawn.append((step, placement, view.shape))
                    fit.refuse(placement, np.full(count, height), np.full(count, width), size)
                    placement = view.placed(placement, size)
                    # From here on the view is of the output of the fit.
                    view = View.whole((count, *size, channels))
                    continue
                assert isinstance(transform, Moving), transform
                params = transform.choose(draws(step.position), view.shape)
                drawn.append((step, params, view.shape))
                if hasattr(transform, "fill"):
                    fill_pixel(transform, transform.fill, view.shape[3], images.dtype)
                seen = transform.moved(view, params)
                assert seen is not None, "nothing reaches out"
                view = seen
        assert placement is not None
        return drawn, fit.resampled(images, view.cut(placement), view.shape[1:3])


class _FusedWarps(_FusedGroup):
    """Warps, and the flips, crops and pads around them: sampled once."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps

    @property
    def _warp(self) -> Warp:
        return next(step.transform for step in self.steps if isinstance(step.transform, Warp))

    def takes(self, step: Step) -> bool:
        return _goes_with(self._warp, step.transform)

    def fits(self, images: NDArray[Any]) -> bool:
        """Accept uint8 or channels-last float32, if no window with another fill reaches beyond the images."""
        others = [step for step in self.steps if getattr(step.transform, "fill", None) != self._warp.fill]
        return _is_sampled(images, np.float32) and (
            not any(_may_reach_out(step.transform) for step in others)
            or _all_inside(self.steps, images.shape, images.dtype)
        )

    def together(
        self, images: NDArray[Any], draws: Draws, naming: Naming, may_overwrite: bool
    ) -> tuple[Drawn, NDArray[Any]]:
        shape = images.shape
        composed = ComposedWarp(len(images), *shape[1:3])
        drawn: Drawn = []
        for step in self.steps:
            transform = step.transform
            with naming(step.number):
                assert isinstance(transform, (Moving, Warp)), transform
                if hasattr(transform, "fill"):
                    fill_pixel(transform, transform.fill, shape[3], images.dtype)
                params = transform.choose(draws(step.position), shape)
                geometry = transform.geometry(params, shape[:3])
            drawn.append((step, params, shape))
            composed.then(geometry.matrices, geometry.height, geometry.width)
            shape = (shape[0], geometry.height, geometry.width, shape[3])
        warp = self._warp
        fill = fill_pixel(warp, warp.fill, images.shape[3], images.dtype)
        return drawn, composed.sampled(images, INTERPOLATIONS[warp.interpolation], fill)


class _FusedColors(_FusedGroup):
    """Point-wise color transforms: one program."""

    def takes(self, step: Step) -> bool:
        return _is_pointwise(step.transform)

    def together(
        self, images: NDArray[np.uint8], draws: Draws, naming: Naming, may_overwrite: bool
    ) -> tuple[Drawn, NDArray[Any]]:
        drawn: Drawn = []
        for step in self.steps:
            with naming(step.number):
                assert isinstance(step.transform, color.Pointwise), step
                step.transform.out_shape(images.shape[1:])
                params = step.transform.program(draws(step.position), len(images), images.shape[3])
                drawn.append((step, params, images.shape))
        programs = [params for _, params, _ in drawn]
        return drawn, color.run(images, programs, images if may_overwrite else None)


def _is_values(transform: Transform) -> bool:
    return isinstance(transform, Values) and transform.needs_images and unchanged(transform, Values)


def _is_fit(transform: Transform) -> bool:
    return isinstance(transform, Fit) and unchanged(transform, Fit)


def _is_warp(transform: Transform) -> bool:
    return isinstance(transform, Warp) and unchanged(transform, Warp)


def _is_pointwise(transform: Transform) -> bool:
    return isinstance(transform, color.Pointwise) and unchanged(transform, color.Pointwise)


def _is_sampled(images: NDArray[Any], *others: type) -> bool:
    """Whether images are uint8, or of another dtype with a last axis of at most 4: otherwise they are planar."""
    return images.ndim == 4 and (
        images.dtype == np.uint8 or (images.dtype in others and images.shape[3] <= 4)
    )


def _may_reach_out(transform: Transform) -> bool:
    """Whether a transform may reach beyond the images, depending on their size."""
    return type(transform).reaches_out is not Moving.reaches_out if isinstance(transform, Moving) else False


def _all_inside(steps: Sequence[Step], shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether no window reaches beyond images of shape (N, H, W, C)."""
    if not any(_may_reach_out(step.transform) for step in steps):
        return True
    sides: tuple[int, int, int] | None = (shape[1], shape[2], shape[3])
    for step in steps:
        if sides is None:
            return False
        if isinstance(step.transform, Moving) and step.transform.reaches_out(*sides[:2]):
            return False
        try:
            sides = step.transform.shape_after(sides, dtype)
        except ArgumentError:
            # Applying the step raises the error.
            return False
    return True


def _stays_inside(transform: Transform) -> bool:
    return is_moving(transform) and isinstance(transform, Moving) and transform.stays_inside


def _goes_with(warp: Warp, transform: Transform) -> bool:
    """Whether both can be one sampling: outside the image both show the same fill."""
    if _is_warp(transform):
        assert isinstance(transform, Warp)
        return (transform.interpolation, transform.fill) == (warp.interpolation, warp.fill)
    if not is_moving(transform):
        return False
    return _stays_inside(transform) or getattr(transform, "fill", None) == warp.fill


def _groups(steps: Sequence[Step]) -> Iterator[_FusedGroup]:
    """Yield the steps in order, grouped into passes."""
    group: _FusedGroup | None = None
    for step in steps:
        if group is not None:
            joined = _with_step(group, step)
            if joined is not None:
                group = joined
                continue
            yield from _finished(group)
        group = _group_from(step)
    if group is not None:
        yield from _finished(group)


def _group_from(step: Step) -> _FusedGroup:
    transform = step.transform
    if is_moving(transform) or _is_values(transform):
        return _FusedViews(step)
    if _is_fit(transform):
        return _FusedFit([step])
    if _is_warp(transform):
        return _FusedWarps([step])
    if _is_pointwise(transform):
        return _FusedColors(step)
    return _FusedGroup(step)


def _with_step(group: _FusedGroup, step: Step) -> _FusedGroup | None:
    """Return the group with one more step; None if they cannot be fused."""
    if group.takes(step):
        group.steps.append(step)
        return group
    transform = step.transform
    if type(group) is _FusedViews:
        before = [one.transform for one in group.steps]
        if _is_fit(transform) and all(_stays_inside(one) for one in before):
            return _FusedFit([*group.steps, step])
        if _is_warp(transform):
            assert isinstance(transform, Warp)
            if all(_goes_with(transform, one) for one in before):
                return _FusedWarps([*group.steps, step])
    return None


def _finished(group: _FusedGroup) -> Iterator[_FusedGroup]:
    """Yield the group; steps that all work in place run one by one, without a copy."""
    if type(group) is _FusedViews and all(step.transform.in_place for step in group.steps):
        for step in group.steps:
            yield _FusedGroup(step)
    else:
        yield group
