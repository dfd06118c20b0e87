"""What a reader does with its images on their way into the batch: flips, and Normalize behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from highway._core import jpeg
from highway.batch import empty
from highway.randomness import SampleRandom
from highway.transforms.flip import FlipX, FlipY
from highway.transforms.transform import Transform
from highway.transforms.values import Values
from highway.transforms.view import View, is_moving, unchanged

__all__ = ["Finish", "Finishing"]


# By what a flip makes of a view: the column of `Finish.mirrored`.
_AXES: dict[object, int] = {FlipX.look: 0, FlipY.look: 1}


# What a reader does to boxes and masks itself.
_ANNOTATIONS = ("geometry", "apply_boxes", "apply_masks", "apply_keypoints", "apply_labels")


def _plain(step: FlipX | FlipY | Values) -> bool:
    """Whether it does to what belongs to the images what its family does: a subclass may swap labels, say."""
    family = next(family for family in (FlipX, FlipY, Values) if isinstance(step, family))
    mine, its = type(step), vars(step)
    if family is not Values and mine.look not in _AXES:  # type: ignore[union-attr]
        return False
    return all(getattr(mine, name) is getattr(family, name) and name not in its for name in _ANNOTATIONS)


class Finish:
    """The first transforms of the Augmentations behind a reader, done while its images are written.

    Images are then written once, as they leave the Augmentations; they have the same bits as without.

    Parameters
    ----------
    steps : sequence of Transform or None
        All transforms of the Augmentations, None for what does nothing.
    seed : int
        Of the Augmentations.

    Attributes
    ----------
    count : int
        How many of the steps are done here: flips from the first step on, and a Normalize behind them.
    """

    def __init__(self, steps: Sequence[Transform | None] = (), seed: int = 0) -> None:
        self.count = 0
        self._seed = seed
        self._flips: list[tuple[int, FlipX | FlipY]] = []
        self._normalize: Values | None = None
        for step in steps:
            if isinstance(step, (FlipX, FlipY)) and is_moving(step) and _plain(step):
                self._flips.append((self.count, step))
            elif isinstance(step, Values) and unchanged(step, Values) and _plain(step):
                self._normalize = step
                self.count += 1
                return
            elif step is not None:
                return
            self.count += 1

    def takes(self, channels: int) -> bool:
        """Whether images of so many channels can be normalized: what cannot is left to raise where it stands."""
        return self._normalize is None or self._normalize.channels in (1, channels)

    def mirrored(self, position: int, rng: SampleRandom, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Which samples are mirrored left to right, and top to bottom, bool (N, 2).

        Parameters
        ----------
        position : int
            Of the first step.
        rng : SampleRandom
            Of the samples, at any position.
        shape : (int, int, int)
            H, W and C of the images.
        """
        mirrored = np.zeros((len(rng), 2), np.bool_)
        for number, flip in self._flips:
            chosen = flip.choose(rng.at(position + number, self._seed), (len(rng), *shape))
            mirrored[:, _AXES[type(flip).look]] ^= chosen
        return mirrored

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the finished images."""
        return 1 if self._normalize is None else np.dtype(self._normalize.dtype).itemsize

    def room(self, shape: tuple[int, int, int, int]) -> NDArray[Any]:
        """For the finished images of shape (N, H, W, C)."""
        return empty(shape) if self._normalize is None else self._normalize.room(shape)

    def images(self, room: NDArray[Any]) -> jpeg.Images:
        """What the decoder takes for `room`."""
        if self._normalize is None:
            return jpeg.Images(room)
        planar = self._normalize.layout == "NCHW"
        scale, bias = self._normalize.factors(room.shape[1 if planar else 3])
        return jpeg.Images(room.view(np.uint16) if room.itemsize == 2 else room, scale, bias, planar)

    def done(self, images: NDArray[np.uint8], mirrored: NDArray[np.bool_]) -> NDArray[Any]:
        """Finished images of (N, H, W, C) that are whole; `mirrored` as `mirrored` says."""
        view = View.whole(images.shape).mirrored(mirrored[:, 0], mirrored[:, 1])
        if self._normalize is not None:
            return self._normalize.apply_view(images, view)
        return view.copied(images)


@runtime_checkable
class Finishing(Protocol):
    """A source that can do the first of the transforms behind it itself."""

    def finish_with(self, steps: Sequence[Transform | None], seed: int) -> int:
        """Take over as many of the first steps as it can; says how many."""
