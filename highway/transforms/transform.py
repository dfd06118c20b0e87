"""Transform: one random choice for a batch, then the same choice for its images, boxes, masks and keypoints."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from highway.arguments.signatures import explain_init
from highway.batch import Batch
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.geometry import Geometry

__all__ = ["Fusing", "Transform", "is_planar", "keeps", "looks_planar", "pixels", "way_to_pixels"]


class Transform:
    """What `Augmentations` does to a batch.

    A transform of your own overrides `apply_images`, `draw` if anything about it is random, and `geometry` if it
    moves pixels: boxes, masks and keypoints then go with them. Plain NumPy is fine. One transform object serves all
    worker threads at once, so it keeps nothing between calls.

    Attributes
    ----------
    takes : {"any", "pixels", "bytes"}
        Which images: any; uint8 or others (N, H, W, C); or uint8 alone. A pipeline looks when it is built.
    min_visible : float
        Boxes are dropped that have less than this part of their area left, 0 to 1, after this transform; those with
        nothing left in any case.
    in_place : bool
        `apply_images` takes ``out=``, which may be `images` itself.
    hands_over : bool
        What `apply_images` returns is what it was given or `out`, or else new and not kept by it, so that
        others may write into it.
    mixes : bool
        Samples get something of others of their batch.

    Examples
    --------
    >>> class Darken(Transform):
    ...     def __init__(self, most=0.5):
    ...         self.most = most
    ...
    ...     def draw(self, rng, batch):
    ...         return 1 - rng.uniform(0, self.most)
    ...
    ...     def apply_images(self, images, params):
    ...         return (images * params[:, None, None, None]).astype(images.dtype)
    ...
    ...     def deterministic(self):
    ...         return None
    >>> Darken(0.25)
    Darken(most=0.25)
    """

    in_place: ClassVar[bool] = False
    hands_over: ClassVar[bool] = False
    takes: ClassVar[str] = "any"
    mixes: ClassVar[bool] = False
    min_visible: float = 0.0

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        explain_init(cls)

    @property
    def positions(self) -> int:
        """How many positions of random numbers the transform takes; more than one where it has others inside."""
        return 1

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
        """Shape (H, W, C) of what uint8 images of this shape become; None where that is not known.

        Raises
        ------
        ArgumentError
            The transform cannot take such images. A pipeline says so when it is built.
        """
        return None

    def draw(self, rng: SampleRandom, batch: Batch) -> Any:
        """Choose what is random, for every sample of the batch.

        Parameters
        ----------
        rng : SampleRandom
            Draws of these samples, for this place in the life of the batch.
        batch : Batch
            As the transforms before have left it.

        Returns
        -------
        object
            What `apply_images` gets as `params`; None where nothing is random.
        """
        return None

    def apply_images(self, images: NDArray[Any], params: Any) -> NDArray[Any]:
        """Transform the images.

        Parameters
        ----------
        images : ndarray (N, ...)
            uint8 (N, H, W, C) unless a transform before changed that. Not to be written into.
        params : object
            What `draw` returned.

        Returns
        -------
        ndarray (N, ...)
            As many images, in the same order.
        """
        return images

    def geometry(self, params: Any, shape: tuple[int, int, int]) -> Geometry | None:
        """Where the pixels go; None where all stay.

        Parameters
        ----------
        params : object
            What `draw` returned.
        shape : (int, int, int)
            N, H and W of the images.
        """
        return None

    def apply_boxes(
        self,
        boxes: NDArray[np.float32],
        owners: NDArray[np.int64],
        params: Any,
        shape: tuple[int, int, int],
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """Transform boxes as the images: by default as `geometry` says.

        Parameters
        ----------
        boxes : float32 (M, 4)
            x0, y0, x1, y1 in pixels, of all samples.
        owners : int64 (M,)
            Number of the sample in the batch that each belongs to.
        params : object
            What `draw` returned.
        shape : (int, int, int)
            N, H and W of the images before.

        Returns
        -------
        boxes : float32 (M, 4)
        kept : bool (M,) or None
            Which remain; None for all.
        """
        geometry = self.geometry(params, shape)
        if geometry is None:
            return boxes, None
        return geometry.boxes(boxes, owners, self.min_visible)

    def apply_masks(self, masks: NDArray[Any], params: Any, fill: int) -> NDArray[Any]:
        """Transform masks as the images: by default as `geometry` says, each pixel from the nearest one.

        Parameters
        ----------
        masks : uint8 (N, H, W)
            Or a further field of the kind "mask": of any dtype, (N, H, W, C).
        params : object
            What `draw` returned.
        fill : int
            For what no part of the image covers.

        Returns
        -------
        as masks, (N, H', W') or (N, H', W', C)
        """
        count, height, width = masks.shape[:3]
        geometry = self.geometry(params, (count, height, width))
        return masks if geometry is None else geometry.masks(masks, fill)

    def apply_pictures(self, pictures: NDArray[Any], params: Any) -> NDArray[Any]:
        """Transform a further field of the kind "image": by default as `geometry` says, bilinear, 0 beyond it.

        Parameters
        ----------
        pictures : uint8 or float32 (N, H, W, C)
            As high and wide as the images.
        params : object
            What `draw` returned.

        Returns
        -------
        as pictures, (N, H', W', C)
        """
        count, height, width = pictures.shape[:3]
        geometry = self.geometry(params, (count, height, width))
        return pictures if geometry is None else geometry.pictures(pictures)

    def apply_keypoints(
        self, points: NDArray[Any], owners: NDArray[np.int64], params: Any, shape: tuple[int, int, int]
    ) -> NDArray[Any]:
        """Transform keypoints as the images: by default as `geometry` says; none is clipped or dropped.

        Parameters
        ----------
        points : float32 (M, ..., 2)
            x and y in pixels; the center of the first pixel is (0.5, 0.5).
        owners, params, shape
            As for `apply_boxes`.

        Returns
        -------
        float32 (M, ..., 2)
        """
        geometry = self.geometry(params, shape)
        return points if geometry is None else geometry.points(points, owners).astype(points.dtype)

    def apply_labels(self, labels: NDArray[Any], params: Any) -> NDArray[Any]:
        """Transform the labels, one for each sample; by default they stay. Not called for those of boxes."""
        return labels

    def deterministic(self) -> Transform | None:
        """What takes the place of this transform under ``Augmentations(..., deterministic=True)``.

        Returns
        -------
        Transform or None
            A transform without anything random, the transform itself if it is one, or None for nothing at
            all.

        Raises
        ------
        ArgumentError
            The transform draws, and does not say what takes its place: override this method.
        """
        if type(self).draw is not Transform.draw:
            raise ArgumentError(
                f"{self!r} draws random numbers and has no deterministic form; "
                f"override {type(self).__name__}.deterministic to return a transform without them, or None"
            )
        return self

    def __repr__(self) -> str:
        """How to build it again, as far as the attributes tell that have the names of parameters."""
        parts = []
        for parameter in inspect.signature(type(self)).parameters.values():
            if hasattr(self, parameter.name) and parameter.kind is not parameter.VAR_KEYWORD:
                if parameter.name == "min_visible" and not self.min_visible:
                    continue
                parts.append(f"{parameter.name}={getattr(self, parameter.name)!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


def keeps(step: Transform, family: type[Transform], *methods: str) -> bool:
    """Whether a transform has these methods of its family, and no subclass or object replaces them."""
    its = vars(step)
    return all(getattr(type(step), name) is getattr(family, name) and name not in its for name in methods)


def pixels(images: NDArray[Any], owner: Transform) -> NDArray[np.uint8]:
    """Images as bytes with packed rows, for the kernels that move whole pixels.

    Parameters
    ----------
    images : ndarray (N, H, W, C)
        Any dtype. With more than 4 channels uint8 only: a float array (N, C, H, W) would be taken for one.
    owner : Transform
        Whose error it is.

    Returns
    -------
    uint8 (N, H, W, C * itemsize)
        A view, unless the rows were not packed.

    Raises
    ------
    ArgumentError
        The array is no batch of images in this layout.
    """
    if images.ndim != 4 or images.dtype.hasobject or (images.dtype != np.uint8 and images.shape[3] > 4):
        raise ArgumentError(
            f"{type(owner).__name__}: images are {images.dtype} of shape {images.shape}; "
            f"expected uint8 (N, H, W, C), or another dtype with at most 4 channels; {way_to_pixels(images)}"
        )
    itemsize, width, channels = images.dtype.itemsize, images.shape[2], images.shape[3]
    if not (
        (channels <= 1 or images.strides[3] == itemsize)
        and (width <= 1 or images.strides[2] == channels * itemsize)
    ):
        images = np.ascontiguousarray(images)
    if images.dtype == np.uint8:
        return images
    if images.strides[3] != itemsize:
        # A single channel may have any stride; as bytes it has neighbors.
        images = np.lib.stride_tricks.as_strided(images, strides=(*images.strides[:3], itemsize))
    return images.view(np.uint8)


def looks_planar(shape: tuple[int, ...]) -> bool:
    """Whether images of this shape, three extents, are rather (C, H, W) than (H, W, C), by their many channels."""
    return shape[0] in (1, 3) and min(shape[1:]) >= 28


def way_to_pixels(images: NDArray[Any]) -> str:
    """What to do about images that are not uint8 (N, H, W, C)."""
    return "images[..., None] have a channel" if images.ndim == 3 else "put it before Normalize"


def is_planar(images: NDArray[Any]) -> bool:
    """Whether images are (N, C, H, W), as `Normalize` makes them: more than 4 of anything but bytes are no channels."""
    return images.dtype != np.uint8 and images.ndim == 4 and images.shape[3] > 4


@runtime_checkable
class Fusing(Protocol):
    """A source that can do the first of the transforms behind it itself."""

    def fuse(self, steps: Sequence[Transform | None], seed: int) -> int:
        """Take over as many of the first steps as it can; says how many."""
