"""Mixup and CutMix: mix each image and its label with the next one of the batch."""

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
from highway.transforms.transform import Transform, check_dtype, is_planar, pixels

__all__ = ["CutMix", "Mixing", "Mixup"]

_STEPS = 4096
"""Steps of the table that inverts the Beta distribution."""


class Mixed(NamedTuple):
    """Mixing parameters; each image is mixed with the next one of the batch, the last with the first.

    Attributes
    ----------
    own : float64 (N,)
        Weight of each sample's own image, 0 to 1.
    boxes : int64 (N, 4) or None
        x0, y0, x1, y1 of the replaced rectangles; None if whole images are mixed.
    """

    own: NDArray[np.float64]
    boxes: NDArray[np.int64] | None


class Mixing(Transform):
    """Base of the mixing transforms: mixes each image and label with the next one, the last with the first."""

    hands_over = True
    mixes = True

    def __init__(self, alpha: float = 1.0, num_classes: int | None = None, p: float = 1.0) -> None:
        name = type(self).__name__
        self.alpha = number(name, "alpha", alpha, 0.01, 1000)
        self.num_classes = None if num_classes is None else whole(name, "num_classes", num_classes, 1, 2**24)
        self.p = number(name, "p", p, 0, 1)
        self._half = _half_of_beta(self.alpha)

    def draw(self, rng: SampleRandom, batch: Batch) -> Mixed:
        """Draw the weights."""
        images = batch["images"]
        self.check(batch)
        uniform = rng.uniform()
        own = np.interp(np.minimum(uniform, 1 - uniform) * 2, *self._half)
        own = np.where(uniform < 0.5, own, 1 - own)
        own[~rng.bernoulli(self.p)] = 1.0
        return self._placed(rng, own, images)

    def check(self, batch: Batch) -> None:
        """Raise if the samples of a batch cannot be mixed.

        Raises
        ------
        ArgumentError
            The batch has boxes, masks or keypoints, or its labels are not class weights and cannot be converted.
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
                    f"{name}: the batch has {field}, which cannot be mixed; expected images with one label each"
                )
        if labels.ndim not in (1, 2) or labels.dtype.kind not in ("iu" if labels.ndim == 1 else "f"):
            raise ArgumentError(
                f"{name}: labels are {labels.dtype} of shape {labels.shape}; expected integers (N,), or one-hot "
                "floats (N, classes)"
            )
        if labels.ndim == 1 and self.num_classes is None:
            raise ArgumentError(
                f"{name}: labels are class numbers; expected num_classes to convert them, or a reader with "
                "labels='one_hot'"
            )

    def _placed(self, rng: SampleRandom, own: NDArray[np.float64], images: NDArray[Any]) -> Mixed:
        raise NotImplementedError

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape unchanged."""
        return shape

    def apply_labels(self, labels: NDArray[Any], params: Mixed) -> NDArray[Any]:
        """Mix the labels.

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
            A label is outside 0 to `num_classes` - 1.
        """
        labels = self.parts(labels)
        own = params.own.astype(np.float32)[:, None]
        mixed: NDArray[Any] = labels * own + np.roll(labels, -1, axis=0) * (1 - own)
        return mixed.astype(np.float32, copy=False)

    def parts(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Convert class numbers to one-hot float32 labels; return class weights unchanged.

        Parameters
        ----------
        labels : int64 (N,) or float (N, K)

        Returns
        -------
        float (N, K)

        Raises
        ------
        ArgumentError
            A label is outside 0 to `num_classes` - 1.
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
    """Replace each image and label by its weighted mean with the next one of the batch.

    Deterministic form: None. Runs with the same seed mix the same samples.

    Parameters
    ----------
    alpha : float
        0.01 to 1000. The weight of a sample's own image is drawn from Beta(alpha, alpha), per sample.
    num_classes : int, optional
        Required if labels are class numbers; they become float32 (N, num_classes).
    p : float
        Probability that a sample is mixed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        An argument is out of range. Labels that cannot be mixed raise at the first batch.

    Notes
    -----
    Like torchvision's ``v2.MixUp``, which draws one weight for the whole batch. Batches with boxes, masks or keypoints
    raise ArgumentError. H. Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018.

    ``OneOf([CutMix(...), Mixup(...)])`` is torchvision's ``RandomChoice``, but chooses per sample.
    """

    dtypes = ("uint8", "float16", "float32", "float64")

    def _placed(self, rng: SampleRandom, own: NDArray[np.float64], images: NDArray[Any]) -> Mixed:
        return Mixed(own, None)

    def apply_images(self, images: NDArray[Any], params: Mixed) -> NDArray[Any]:
        """Mix the images, uint8 or floats; uint8 results are rounded to nearest."""
        check_dtype(self, images.dtype)
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
    """Replace a rectangle of each image by that of the next one of the batch; labels are mixed by area.

    Deterministic form: None. Runs with the same seed mix the same samples.

    Parameters
    ----------
    alpha : float
        0.01 to 1000. The fraction of the area that remains is drawn from Beta(alpha, alpha), per sample.
    num_classes : int, optional
        Required if labels are class numbers; they become float32 (N, num_classes).
    p : float
        Probability that a sample is mixed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        An argument is out of range. Labels that cannot be mixed raise at the first batch.

    Notes
    -----
    Like torchvision's ``v2.CutMix``, which draws one rectangle for the whole batch. Batches with boxes, masks or
    keypoints raise ArgumentError. S. Yun et al., "CutMix: regularization strategy to train strong classifiers with
    localizable features", ICCV 2019.
    """

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
        """Copy the images, then paste the rectangles of the next ones over them."""
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
    """Return the distribution function of the lower half of Beta(alpha, alpha), 0 to 1, at places from 0 to 1/2.

    For alpha < 1 the density diverges at 0; over t = x**alpha it is (1 - x)**(alpha - 1) / alpha, which is smooth.
    """
    if alpha < 1:
        x = np.linspace(0.0, 0.5**alpha, _STEPS + 1) ** (1 / alpha)
        density = (1 - x) ** (alpha - 1)
    else:
        x = np.linspace(0.0, 0.5, _STEPS + 1)
        density = (4 * x * (1 - x)) ** (alpha - 1)
    reached = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return reached / reached[-1], x
