"""Transform: draws random parameters once, then applies them to images, boxes, masks and keypoints."""

from __future__ import annotations

import copyreg
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from highway.arguments.signatures import bound, explain_init, given, has_own_state, remade, same
from highway.batch import Batch
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.geometry import Geometry

__all__ = [
    "Fusing",
    "Transform",
    "check_dtype",
    "is_planar",
    "keeps",
    "looks_planar",
    "pixels",
    "way_to_pixels",
]


class Transform:
    """Base of the transforms that `Augmentations` applies to a batch.

    Your own transform overrides `apply_images`; also `draw` if it is random, and `geometry` if it moves pixels, so that
    boxes, masks and keypoints move with the images. Plain NumPy is fine. All worker threads share one transform
    object, so keep no state between calls. A transform pickles and copies as its class and arguments, and equals one
    of the same class with equal arguments.

    Attributes
    ----------
    takes : {"any", "pixels", "bytes"}
        Accepted images: any; (N, H, W, C) of any dtype; or uint8 only, and the other `dtypes`. Checked when the
        pipeline is built.
    dtypes : tuple of str
        Dtypes of the images that it takes. Empty: those of `takes`.
    min_visible : float
        Drop boxes with less than this fraction of their area visible after the transform, 0 to 1. Boxes without a
        visible area are always dropped.
    in_place : bool
        Whether `apply_images` takes ``out=``, which may be `images` itself.
    hands_over : bool
        Whether later transforms may write into the result of `apply_images`: it is the input, `out`, or a new
        array to which the transform keeps no reference.
    mixes : bool
        Whether the transform mixes samples of a batch.
    needs_images : bool
        Whether the batch must have images.

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
    dtypes: ClassVar[tuple[str, ...]] = ()
    mixes: ClassVar[bool] = False
    needs_images: ClassVar[bool] = True
    min_visible: float = 0.0

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        explain_init(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        # Its class and arguments, not what it has computed from them.
        if has_own_state(type(self)):
            return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]
        return remade, (type(self), *given(self))

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and same(bound(self), bound(other)))

    def __hash__(self) -> int:
        return hash(type(self))

    @property
    def positions(self) -> int:
        """Number of random positions that the transform uses; more than one if it contains other transforms."""
        return 1

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
        """Return the output shape (H, W, C) for uint8 images of this shape; None if unknown.

        Raises
        ------
        ArgumentError
            The transform does not accept such images. Raised when the pipeline is built.
        """
        return None

    def shape_after(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> tuple[int, int, int] | None:
        """Return `out_shape` for images of this shape and dtype, uint8 or uint16.

        Raises
        ------
        ArgumentError
            The transform does not accept such images. Raised when the pipeline is built.
        """
        return self.out_shape(shape)

    def draw(self, rng: SampleRandom, batch: Batch) -> Any:
        """Draw the random parameters of every sample of the batch.

        Parameters
        ----------
        rng : SampleRandom
            Random numbers of these samples, for this position in the pipeline.
        batch : Batch
            The batch after the earlier transforms.

        Returns
        -------
        object
            The `params` of `apply_images`; None if nothing is random.
        """
        return None

    def apply_images(self, images: NDArray[Any], params: Any) -> NDArray[Any]:
        """Transform the images.

        Parameters
        ----------
        images : ndarray (N, ...)
            uint8 (N, H, W, C) unless the reader or an earlier transform changes that. Do not write into it.
        params : object
            Result of `draw`.

        Returns
        -------
        ndarray (N, ...)
            The same number of images, in the same order.
        """
        return images

    def geometry(self, params: Any, shape: tuple[int, int, int]) -> Geometry | None:
        """Return where the pixels move; None if all stay in place.

        Parameters
        ----------
        params : object
            Result of `draw`.
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
        """Transform boxes like the images, by default with `geometry`.

        Parameters
        ----------
        boxes : float32 (M, 4)
            x0, y0, x1, y1 in pixels; the boxes of all samples.
        owners : int64 (M,)
            Index in the batch of the sample of each box.
        params : object
            Result of `draw`.
        shape : (int, int, int)
            N, H and W of the input images.

        Returns
        -------
        boxes : float32 (M, 4)
        kept : bool (M,) or None
            Which boxes are kept; None for all.
        """
        geometry = self.geometry(params, shape)
        if geometry is None:
            return boxes, None
        return geometry.boxes(boxes, owners, self.min_visible)

    def apply_masks(self, masks: NDArray[Any], params: Any, fill: int) -> NDArray[Any]:
        """Transform masks like the images, by default with `geometry` and nearest-neighbor sampling.

        Parameters
        ----------
        masks : uint8 (N, H, W)
            Or an additional field of the kind "mask": any dtype, (N, H, W, C).
        params : object
            Result of `draw`.
        fill : int
            Value outside the image.

        Returns
        -------
        as masks, (N, H', W') or (N, H', W', C)
        """
        count, height, width = masks.shape[:3]
        geometry = self.geometry(params, (count, height, width))
        return masks if geometry is None else geometry.masks(masks, fill)

    def apply_pictures(self, pictures: NDArray[Any], params: Any) -> NDArray[Any]:
        """Transform an additional field of the kind "image", by default with `geometry`, bilinear, 0 outside.

        Parameters
        ----------
        pictures : uint8, uint16 or float32 (N, H, W, C)
            The same height and width as the images.
        params : object
            Result of `draw`.

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
        """Transform keypoints like the images, by default with `geometry`; keypoints are never clipped or dropped.

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
        """Transform the labels, one per sample; by default unchanged. Not called for labels of boxes."""
        return labels

    def deterministic(self) -> Transform | None:
        """Return the replacement of this transform under ``Augmentations(..., deterministic=True)``.

        Returns
        -------
        Transform or None
            A transform without random parameters, which may be the transform itself; None to skip the transform.

        Raises
        ------
        ArgumentError
            The transform overrides `draw` but not this method.
        """
        if type(self).draw is not Transform.draw:
            raise ArgumentError(
                f"{self!r} draws random numbers and has no deterministic form; "
                f"override {type(self).__name__}.deterministic to return a transform that draws none, or None"
            )
        return self

    def __repr__(self) -> str:
        """Return the constructor call, with those parameters that are also attributes."""
        parts = []
        for parameter in inspect.signature(type(self)).parameters.values():
            if hasattr(self, parameter.name) and parameter.kind is not parameter.VAR_KEYWORD:
                value = getattr(self, parameter.name)
                # Rarely given.
                if parameter.name in ("min_visible", "field") and value == parameter.default:
                    continue
                parts.append(f"{parameter.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


def keeps(step: Transform, family: type[Transform], *methods: str) -> bool:
    """Whether a transform uses these methods of its family: no subclass and no instance overrides them."""
    its = vars(step)
    return all(getattr(type(step), name) is getattr(family, name) and name not in its for name in methods)


def pixels(images: NDArray[Any], owner: Transform) -> NDArray[np.uint8]:
    """View images as bytes with packed rows, for kernels that move whole pixels.

    Parameters
    ----------
    images : ndarray (N, H, W, C)
        Any dtype with at most 4 channels; only uint8 with more, since a float array may be (N, C, H, W).
    owner : Transform
        Transform that error messages name.

    Returns
    -------
    uint8 (N, H, W, C * itemsize)
        A view, or a copy if the rows are not packed.

    Raises
    ------
    ArgumentError
        The array is not a batch of images in this layout.
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
        # A single channel may have any stride, but its bytes are adjacent.
        images = np.lib.stride_tricks.as_strided(images, strides=(*images.strides[:3], itemsize))
    return images.view(np.uint8)


def check_dtype(step: Transform, dtype: np.dtype[Any]) -> None:
    """Raise ArgumentError unless a transform takes images of this dtype."""
    accepted = step.dtypes or (("uint8",) if step.takes == "bytes" else ())
    if accepted and dtype.name not in accepted:
        ways = ['read the pictures with dtype="uint8"']
        if "float32" in accepted:
            ways.insert(0, 'put it after ToFloat("NHWC")')
        raise ArgumentError(
            f"{type(step).__name__}: images are {dtype}; expected {' or '.join(accepted)} (N, H, W, C): "
            f"{', '.join(ways)}, or leave {type(step).__name__} out"
        )


def looks_planar(shape: tuple[int, ...]) -> bool:
    """Whether images of this shape, three sizes, are probably (C, H, W) instead of (H, W, C)."""
    return shape[0] in (1, 3) and min(shape[1:]) >= 28


def way_to_pixels(images: NDArray[Any]) -> str:
    """Return the advice for images that are not uint8 (N, H, W, C)."""
    if images.ndim == 3:
        return "images[..., None] adds a channel axis, as layout='NHW' of ArrayReader does"
    if images.dtype == np.uint16 and not is_planar(images):
        return 'read the pictures with dtype="uint8"'
    return "put it before Normalize"


def is_planar(images: NDArray[Any]) -> bool:
    """Whether images are (N, C, H, W), as from `Normalize`: not uint8, and a last axis of more than 4."""
    return images.dtype != np.uint8 and images.ndim == 4 and images.shape[3] > 4


@runtime_checkable
class Fusing(Protocol):
    """A source that can fuse the first transforms after it."""

    def fuse(self, steps: Sequence[Transform | None], seed: int) -> int:
        """Fuse as many of the first steps as possible into the source; return how many."""
