"""Augmentations: transforms in a row, as a stage of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag, whole
from highway.batch import Batch
from highway.engine import Module, Stage
from highway.errors import ArgumentError, ContractError
from highway.modules.finish import Finishing
from highway.randomness import SampleRandom
from highway.transforms.transform import Transform
from highway.transforms.values import Normalize
from highway.transforms.view import Moving, View, is_moving, unchanged

__all__ = ["Augmentations"]

# Steps with their numbers: one of any kind, or several that are one view and touch the pixels once.
Run = list[tuple[int, Transform]]


class Augmentations(Stage):
    """Applies transforms to the images of every batch, one after the other.

    What a transform draws is a function of the seed, of the samples' identity (epoch and index) and of the
    number of transforms that the batch has been through before. So any number of workers gives the same
    bits, and so does a chain that is spread over several Augmentations with the same seed.

    Crops, pads and flips that follow each other, and a `Normalize` right behind them, read and write the
    pixels once, with the same result as one by one. Right behind an `ImageFileReader`, the first flips and the
    `Normalize` behind them are done by its workers, while they write the images; where nothing is left
    then, the pipeline does without the module.

    Parameters
    ----------
    transforms : sequence of Transform
    deterministic : bool
        Nothing random, for validation: every transform is replaced by its deterministic form, or left out.
    seed : int
        0 to 2**64 - 1.
    workers : int, optional
        Threads; by default as many as help, up to one for each core that the process may use.
    queue_size : int
        Most batches that may be outstanding behind this module.

    Raises
    ------
    ArgumentError
        An argument is out of range, or something in `transforms` is no Transform.

    Attributes
    ----------
    transforms : tuple of Transform
        As they were given.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        *,
        deterministic: bool = False,
        seed: int = 0,
        workers: int | None = None,
        queue_size: int = 4,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.transforms = _checked(transforms)
        self.deterministic = flag(self.name, "deterministic", deterministic)
        self.seed = whole("Augmentations", "seed", seed, 0, 2**64 - 1)
        self._steps = [
            transform.deterministic() if self.deterministic else transform for transform in self.transforms
        ]
        self._runs = _runs(self._steps)
        # How many of the steps the module in front has done already.
        self._done_before = 0

    def __repr__(self) -> str:
        return (
            f"Augmentations([{', '.join(map(repr, self.transforms))}], deterministic={self.deterministic}, "
            f"seed={self.seed})"
        )

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays; labels pass through: the input decides too."""
        return self.input_handed_over and all(step is None or step.hands_over for step in self._steps)

    def follow(self, before: Module | None) -> None:
        """Leave the first steps to a reader that can do them while it writes the images."""
        super().follow(before)
        reader: object = before
        if isinstance(reader, Finishing):
            count = reader.finish_with(self._steps, self.seed)
            self._done_before = count
            self._runs = _runs([None] * count + self._steps[count:])

    @property
    def left_out(self) -> bool:  # type: ignore[override]
        """Whether the reader in front does all of the steps."""
        return self._done_before == len(self._steps) > 0

    def process(self, batch: Batch) -> Batch:
        """Apply the transforms; position `batch.applied` + k of the random numbers is for transform k.

        Raises
        ------
        FieldError
            The batch has no images.
        ContractError
            A transform returned something else than as many images.
        """
        first = batch.applied - self._done_before
        current = batch
        # Whether the images may be written into.
        ours = self.input_handed_over
        for run in self._runs:
            images = current["images"]
            if len(run) > 1 and images.dtype == np.uint8 and images.ndim == 4:
                current = current.replace(images=self._apply_run(run, first, current, images))
                ours = all(step.hands_over for _, step in run)
                continue
            for number, step in run:
                images = current["images"]
                with self._naming(number):
                    result = self._apply(step, first + number, current, images, ours)
                self._check(number, result, len(images))
                # A step that returns its input may have kept it.
                ours = step.hands_over and (ours or result is not images)
                if result is not images:
                    current = current.replace(images=result)
        applied = first + len(self._steps)
        return current if current.applied == applied else current.replace(applied=applied)

    def _apply_run(self, run: Run, first: int, batch: Batch, images: NDArray[np.uint8]) -> NDArray[Any]:
        """A run of several steps, in one pass unless a border comes around what was cut out before."""
        view = View.whole(images.shape)
        for number, step in run:
            with self._naming(number):
                if isinstance(step, Normalize):
                    return step.apply_view(images, view)
                assert isinstance(step, Moving), step
                params = step.choose(self._random(batch, first + number), view.shape)
                seen = step.look(view, params)
                if seen is None:
                    images = view.copied(images, step)
                    view = View.whole(images.shape)
                    seen = step.look(view, params)
                    assert seen is not None, "a whole image has all windows"
                view = seen
        return view.copied(images, step)

    def _random(self, batch: Batch, position: int) -> SampleRandom:
        return SampleRandom(self.seed, batch.epoch, batch.indices, position)

    @contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        """Errors tell in which transform they were raised."""
        try:
            yield
        except Exception as error:
            if hasattr(error, "add_note"):
                error.add_note(f"In {self._place(number)}.")
            raise

    def _apply(
        self, step: Transform, position: int, batch: Batch, images: NDArray[Any], ours: bool
    ) -> NDArray[Any]:
        params = None
        if type(step).draw is not Transform.draw:
            params = step.draw(self._random(batch, position), batch)
        if step.in_place and ours:
            return step.apply_images(images, params, out=images)  # type: ignore[call-arg]
        return step.apply_images(images, params)

    def _check(self, number: int, result: object, count: int) -> None:
        if isinstance(result, np.ndarray) and result.ndim and len(result) == count:
            return
        found = "None" if result is None else f"a {type(result).__name__}"
        if isinstance(result, np.ndarray):
            found = f"an array of shape {result.shape}"
        raise ContractError(
            f"Augmentations: {self._place(number)}, returned {found} for {count} images; "
            f"expected a numpy array of as many, from apply_images or the function of a Lambda"
        )

    def _place(self, number: int) -> str:
        return f"transform {number + 1} of {len(self._steps)}, {self._steps[number]!r}"


def _runs(steps: Sequence[Transform | None]) -> list[Run]:
    """The steps in order, those that take one pass together."""
    runs: list[Run] = []
    moving: Run = []
    for number, step in enumerate(steps):
        if step is None:
            continue
        if is_moving(step):
            moving.append((number, step))
        elif isinstance(step, Normalize) and unchanged(step, Normalize):
            runs.append([*moving, (number, step)])
            moving = []
        else:
            runs += [*_moves(moving), [(number, step)]]
            moving = []
    return runs + _moves(moving)


def _moves(moving: Run) -> list[Run]:
    """Moving steps with nothing behind them: what can be done in place needs no pass to copy."""
    if all(step.in_place for _, step in moving):
        return [[one] for one in moving]
    return [moving]


def _checked(transforms: object) -> tuple[Transform, ...]:
    if not isinstance(transforms, Sequence) or isinstance(transforms, str):
        raise ArgumentError(
            f"Augmentations: transforms is {transforms!r}; expected a list of transforms, as in [FlipX()]"
        )
    for number, transform in enumerate(transforms):
        if isinstance(transform, type) and issubclass(transform, Transform):
            raise ArgumentError(
                f"Augmentations: transforms[{number}] is the class {transform.__name__}; "
                f"expected {transform.__name__}()"
            )
        if not isinstance(transform, Transform):
            hint = "; put a function into Lambda(...)" if callable(transform) else ""
            raise ArgumentError(
                f"Augmentations: transforms[{number}] is {transform!r}; "
                f"expected a Transform, such as FlipX(){hint}"
            )
    return tuple(transforms)
