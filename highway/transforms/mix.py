"""Mixup and CutMix: each image with a part of the next one of its batch, and labels that say how much."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import mix
from highway.arguments import number, whole
from highway.batch import Batch, empty
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.transform import Transform, is_planar, pixels

__all__ = ["CutMix", "Mixing", "Mixup"]

_STEPS = 4096
"""Of the table by which the Beta distribution is inverted."""


class Mixed(NamedTuple):
    """How each image is mixed with the next one of the batch, the last with the first.

    Attributes
    ----------
    own : float64 (N,)
        The part that is its own.
    boxes : int64 (N, 4) or None
        x0, y0, x1, y1 of what is replaced; None where everything is mixed.
    """

    own: NDArray[np.float64]
    boxes: NDArray[np.int64] | None


class Mixing(Transform):
    """Each image is mixed with the next one of its batch, the last with the first, and so are their labels."""

    hands_over = True
    mixes = True

    def __init__(self, alpha: float, num_classes: int | None, p: float) -> None:
        name = type(self).__name__
        self.alpha = number(name, "alpha", alpha, 0.01, 1000)
        self.num_classes = None if num_classes is None else whole(name, "num_classes", num_classes, 1, 2**24)
        self.p = number(name, "p", p, 0, 1)
        self._half = _half_of_beta(self.alpha)

    def draw(self, rng: SampleRandom, batch: Batch) -> Mixed:
        """Choose the parts."""
        images = batch["images"]
        self.check(batch)
        uniform = rng.uniform()
        own = np.interp(np.minimum(uniform, 1 - uniform) * 2, *self._half)
        own = np.where(uniform < 0.5, own, 1 - own)
        own[~rng.bernoulli(self.p)] = 1.0
        return self._placed(rng, own, images)

    def check(self, batch: Batch) -> None:
        """Raise where the samples of a batch cannot be mixed.

        Raises
        ------
        ArgumentError
            There is more than images with one label each, or labels are no parts of classes and cannot be made so.
        """
        name = type(self).__name__
        images, labels = batch["images"], batch["labels"]
        if images.ndim != 4:
            raise ArgumentError(
                f"{name}: images are of shape {images.shape}; expected (N, H, W, C) or (N, C, H, W)"
            )
        for field in ("masks", "boxes", "keypoints"):
            if field in batch:
                raise ArgumentError(
                    f"{name}: the batch has {field}, of which there is no mixture; expected images with one label each"
                )
        if labels.ndim not in (1, 2) or labels.dtype.kind not in ("iu" if labels.ndim == 1 else "f"):
            raise ArgumentError(
                f"{name}: labels are {labels.dtype} of shape {labels.shape}; expected whole numbers (N,), or one-hot "
                "floats (N, classes)"
            )
        if labels.ndim == 1 and self.num_classes is None:
            raise ArgumentError(
                f"{name}: labels are numbers of classes; expected num_classes, to make parts of them, or a reader "
                "with labels='one_hot'"
            )

    def _placed(self, rng: SampleRandom, own: NDArray[np.float64], images: NDArray[Any]) -> Mixed:
        raise NotImplementedError

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape unchanged."""
        return shape

    def apply_labels(self, labels: NDArray[Any], params: Mixed) -> NDArray[Any]:
        """Parts of classes.

        Parameters
        ----------
        labels : int64 (N,) or float (N, K)
        params : Mixed

        Returns
        -------
        float32 (N, K)

        Raises
        ------
        ArgumentError
            A label is none of `num_classes`.
        """
        labels = self.parts(labels)
        own = params.own.astype(np.float32)[:, None]
        mixed: NDArray[Any] = labels * own + np.roll(labels, -1, axis=0) * (1 - own)
        return mixed.astype(np.float32, copy=False)

    def parts(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Labels of images that are not mixed: numbers of classes as one-hot float32, others as they are.

        Parameters
        ----------
        labels : int64 (N,) or float (N, K)

        Returns
        -------
        float (N, K)

        Raises
        ------
        ArgumentError
            A label is none of `num_classes`.
        """
        if labels.ndim != 1:
            return labels
        assert self.num_classes is not None
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise ArgumentError(
                f"{type(self).__name__}: labels run from {labels.min()} to {labels.max()}; expected 0 to "
                f"{self.num_classes - 1} (num_classes)"
            )
        found = np.zeros((len(labels), self.num_classes), np.float32)
        found[np.arange(len(labels)), labels] = 1
        return found

    def deterministic(self) -> None:
        """Return None: images stay as they are."""


class Mixup(Mixing):
    """The weighted mean of each image and the next one of its batch, and of their labels.

    Deterministic form: None. Runs with the same seed mix the same samples.

    Parameters
    ----------
    alpha : float
        0.01 to 1000: the part that is an image's own is drawn from Beta(alpha, alpha), for each sample.
    num_classes : int, optional
        Needed where labels are numbers: they become float32 (N, num_classes).
    p : float
        0 to 1: how likely an image is mixed at all.

    Raises
    ------
    ArgumentError
        An argument is out of range; with the first batch, if it has no labels that can be mixed.

    Notes
    -----
    As torchvision's ``v2.MixUp``, where the whole batch has one part. H. Zhang et al., "mixup: beyond empirical risk
    minimization", ICLR 2018. Batches with boxes, masks or keypoints are refused.
    ``OneOf([CutMix(...), Mixup(...)])`` is torchvision's ``RandomChoice`` of them, where each sample chooses.
    """

    def __init__(self, alpha: float = 1.0, num_classes: int | None = None, p: float = 1.0) -> None:
        super().__init__(alpha, num_classes, p)

    def _placed(self, rng: SampleRandom, own: NDArray[np.float64], images: NDArray[Any]) -> Mixed:
        return Mixed(own, None)

    def apply_images(self, images: NDArray[Any], params: Mixed) -> NDArray[Any]:
        """Mix: uint8 rounded to nearest, or float."""
        out = empty(images.shape, images.dtype)
        count = len(images)
        if images.dtype in (np.uint8, np.float32):
            length = math.prod(images.shape[1:])
            mix.blend(
                np.ascontiguousarray(images).reshape(count, length), params.own, out.reshape(count, length)
            )
            return out
        for row, own in enumerate(params.own.tolist()):
            if own == 1.0:
                out[row] = images[row]
                continue
            other = images[(row + 1) % count]
            np.multiply(images[row], images.dtype.type(own), out=out[row])
            out[row] += other * images.dtype.type(1 - own)
        return out


class CutMix(Mixing):
    """A rectangle of each image is replaced by that of the next one of its batch, and their labels by the areas.

    Deterministic form: None. Runs with the same seed mix the same samples.

    Parameters
    ----------
    alpha : float
        0.01 to 1000: the area that remains is drawn from Beta(alpha, alpha), for each sample.
    num_classes : int, optional
        Needed where labels are numbers: they become float32 (N, num_classes).
    p : float
        0 to 1: how likely an image is mixed at all.

    Raises
    ------
    ArgumentError
        An argument is out of range; with the first batch, if it has no labels that can be mixed.

    Notes
    -----
    As torchvision's ``v2.CutMix``, where the whole batch has one rectangle. S. Yun et al., "CutMix: regularization
    strategy to train strong classifiers with localizable features", ICCV 2019. Batches with boxes,
    masks or keypoints are refused.
    """

    def __init__(self, alpha: float = 1.0, num_classes: int | None = None, p: float = 1.0) -> None:
        super().__init__(alpha, num_classes, p)

    def _placed(self, rng: SampleRandom, own: NDArray[np.float64], images: NDArray[Any]) -> Mixed:
        height, width = images.shape[2:4] if is_planar(images) else images.shape[1:3]
        across, down = rng.integers(0, width), rng.integers(0, height)
        half = 0.5 * np.sqrt(1 - own)
        half_width, half_height = (half * width).astype(np.int64), (half * height).astype(np.int64)
        boxes = np.stack(
            (
                np.maximum(across - half_width, 0),
                np.maximum(down - half_height, 0),
                np.minimum(across + half_width, width),
                np.minimum(down + half_height, height),
            ),
            axis=1,
        )
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return Mixed(1 - area / (width * height), boxes)

    def apply_images(self, images: NDArray[Any], params: Mixed) -> NDArray[Any]:
        """Copy the images, and the rectangles of the next ones over them."""
        assert params.boxes is not None
        out = empty(images.shape, images.dtype)
        if not is_planar(images):
            boxes = np.ascontiguousarray(params.boxes, np.int64)
            mix.paste(pixels(np.ascontiguousarray(images), self), boxes, pixels(out, self))
            return out
        np.copyto(out, images)
        for row, (left, top, right, bottom) in enumerate(params.boxes.tolist()):
            where = (slice(None), slice(top, bottom), slice(left, right))
            out[row][where] = images[(row + 1) % len(images)][where]
        return out


def _half_of_beta(alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower half of Beta(alpha, alpha): its distribution function, 0 to 1, at places from 0 to 1/2.

    Below 1 the density has no limit at 0; over t = x**alpha it is (1 - x)**(alpha - 1) / alpha, which is smooth.
    """
    if alpha < 1:
        x = np.linspace(0.0, 0.5**alpha, _STEPS + 1) ** (1 / alpha)
        density = (1 - x) ** (alpha - 1)
    else:
        x = np.linspace(0.0, 0.5, _STEPS + 1)
        density = (4 * x * (1 - x)) ** (alpha - 1)
    reached = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return reached / reached[-1], x
