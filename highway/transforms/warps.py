"""Warps: rotate, shear, zoom, shift or distort images, drawn per sample."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import geometry as kernels
from highway._core.pixels import warp
from highway.arguments import number, numbers, positive_range
from highway.batch import Batch, empty
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.crop import Fill, fill_pixel, plain_fill
from highway.transforms.geometry import Geometry, inside, inverse, product
from highway.transforms.transform import Transform, pixels

__all__ = [
    "INTERPOLATIONS",
    "Affine",
    "ComposedWarp",
    "Interpolation",
    "Perspective",
    "Rotate",
    "Shift",
    "Transpose",
    "Warp",
    "Zoom",
    "checked_interpolation",
]

Interpolation: TypeAlias = Literal["bilinear", "nearest"]

INTERPOLATIONS: dict[Interpolation, int] = {"bilinear": warp.BILINEAR, "nearest": warp.NEAREST}


class Warp(Transform):
    """Base of the warps: applies one matrix per sample; images keep their size.

    Your own warp overrides `matrices` and calls ``super().__init__``.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    p : float
        Probability that a sample is transformed, 0 to 1; drawn independently for each sample.
    interpolation : {"bilinear", "nearest"}
        From the four pixels around the source position, or from the nearest one. Masks always use "nearest".
    fill : float or tuple of float
        Value of pixels outside the image: one number, or one per channel; 0 to 255 for uint8 images.
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    hands_over = True
    takes = "pixels"
    dtypes = ("uint8", "float32")

    def __init__(
        self,
        p: float = 1.0,
        interpolation: Interpolation = "bilinear",
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        name = type(self).__name__
        self.p = number(name, "p", p, 0, 1)
        self.interpolation = checked_interpolation(name, interpolation)
        self.fill = plain_fill(name, fill)
        self.min_visible = number(name, "min_visible", min_visible, 0, 1)

    def matrices(self, rng: SampleRandom, height: int, width: int) -> NDArray[np.float64]:
        """Draw the matrices, as if every sample were transformed.

        Parameters
        ----------
        rng : SampleRandom
        height, width : int
            Size of the images, at least 1.

        Returns
        -------
        float64 (N, 3, 3)
            From homogeneous coordinates (x, y, 1) of the image, in pixels, to those of the output. Must not be
            singular.
        """
        raise NotImplementedError

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Draw the matrices for images of this shape, (N, H, W, C)."""
        chosen = rng.bernoulli(self.p)
        if not chosen.any() or 0 in shape:
            return _identities(shape[0])
        matrices = self.matrices(rng, shape[1], shape[2])
        matrices[~chosen] = np.eye(3)
        return matrices

    def draw(self, rng: SampleRandom, batch: Batch) -> NDArray[np.float64]:
        """Draw the matrix of each sample.

        Returns
        -------
        float64 (N, 3, 3)
            From coordinates of the image to those of the output; identity for unchanged samples.

        Raises
        ------
        ArgumentError
            The images are not uint8 or float32 (N, H, W, C), or cannot hold `fill`.
        """
        images = batch["images"]
        self._check(images)
        return self.choose(rng, images.shape)

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape unchanged."""
        fill_pixel(self, self.fill, shape[2], np.dtype(np.uint8))
        return shape

    def geometry(self, params: NDArray[np.float64], shape: tuple[int, int, int]) -> Geometry:
        """Return the matrix of each sample, from image to output coordinates."""
        return Geometry(params, shape[1], shape[2])

    def apply_images(self, images: NDArray[Any], params: NDArray[np.float64]) -> NDArray[Any]:
        """Transform the images.

        Parameters
        ----------
        images : uint8 or float32 (N, H, W, C)
        params : float64 (N, 3, 3)

        Returns
        -------
        as images, (N, H, W, C)
            `images` itself if all samples stay unchanged.
        """
        self._check(images)
        if (params == np.eye(3)).all():
            return images
        composed = ComposedWarp(*images.shape[:3])
        composed.then(*self.geometry(params, images.shape[:3])[:3])
        return composed.sampled(
            images,
            INTERPOLATIONS[self.interpolation],
            fill_pixel(self, self.fill, images.shape[3], images.dtype),
        )

    def apply_pictures(self, pictures: NDArray[Any], params: NDArray[np.float64]) -> NDArray[Any]:
        """Transform pictures, also uint16, like images."""
        if pictures.dtype == np.uint16:
            fill = fill_pixel(self, self.fill, pictures.shape[3], pictures.dtype)
            geometry = self.geometry(params, pictures.shape[:3])
            return geometry.pictures(pictures, INTERPOLATIONS[self.interpolation], fill)
        return Warp.apply_images(self, pictures, params)

    def deterministic(self) -> None:
        """Return None: images stay as they are."""

    def _check(self, images: NDArray[Any]) -> None:
        pixels(images, self)
        if images.dtype not in (np.uint8, np.float32):
            raise ArgumentError(
                f"{type(self).__name__}: images are {images.dtype}; expected uint8 or float32 (N, H, W, C); "
                'ToFloat("NHWC") makes float32'
            )
        fill_pixel(self, self.fill, images.shape[3], images.dtype)


class ComposedWarp:
    """Composes several maps into one, so that images are sampled once.

    An output pixel is sampled at the source of its center in the first image, if that point lies inside the first
    and every intermediate image: a later step does not restore what an earlier one cuts off.

    Parameters
    ----------
    count, height, width : int
        Number and size of the first images.

    Attributes
    ----------
    matrices : float64 (N, 3, 3)
        From coordinates of the first image to those of the last.
    bounds : float64 (N, K, 3)
        Half planes for the edges of the intermediate images, in coordinates of the last image: a, b and c, where
        ``a * x + b * y + c`` is at least 0.
    height, width : int
        Size of the last image.
    """

    def __init__(self, count: int, height: int, width: int) -> None:
        self.matrices = _identities(count)
        self.bounds = np.empty((count, 0, 3))
        self.height = height
        self.width = width
        self._first = True

    def then(self, matrices: NDArray[np.float64], height: int, width: int) -> None:
        """Append a step.

        Parameters
        ----------
        matrices : float64 (N, 3, 3)
            From coordinates before the step to those after it.
        height, width : int
            Size after the step.
        """
        # The edges of the first image need no half planes.
        if not self._first:
            edges = np.broadcast_to((0.0, 0.0, self.width, self.height), (len(matrices), 4))
            self.bounds = product(np.concatenate((self.bounds, inside(edges)), axis=1), inverse(matrices))
        if (matrices[:, 2, :2] != 0).any():
            # Points behind the camera are invisible; a second perspective step would make them visible again.
            self.bounds = np.concatenate((self.bounds, inverse(matrices)[:, 2:]), axis=1)
        self.matrices = matrices if self._first else product(matrices, self.matrices)
        self.height, self.width = height, width
        self._first = False

    def sampled(self, images: NDArray[Any], interpolation: int, fill: NDArray[Any]) -> NDArray[Any]:
        """Sample the last images from the first ones.

        Parameters
        ----------
        images : uint8 or float32 (N, H, W, C)
            The first ones.
        interpolation : int
            `warp.NEAREST` or `warp.BILINEAR`.
        fill : as images, (C,)
            Value outside the image.

        Returns
        -------
        as images, (N, height, width, C)
        """
        out = empty((len(images), self.height, self.width, images.shape[3]), images.dtype)
        source, needed = np.ascontiguousarray(images), self._needed()
        moves = None if needed.shape[1] else self._moves()
        if moves is not None:
            windows = np.zeros((len(images), 4), np.int64)
            windows[:, 0], windows[:, 1] = -moves[:, 1], -moves[:, 0]
            kernels.windows(source.view(np.uint8), windows, fill.view(np.uint8), out.view(np.uint8))
        else:
            warp.sample(source, inverse(self.matrices), needed, fill, interpolation, out)
        return out

    def _moves(self) -> NDArray[np.float64] | None:
        """Return the shift of each sample, right and down (N, 2), if all are whole pixels; otherwise None."""
        moves = self.matrices[:, :2, 2]
        if (self.matrices[:, :, :2] != np.eye(3)[:, :2]).any() or (self.matrices[:, 2, 2] != 1).any():
            return None
        if (moves != np.rint(moves)).any() or (np.abs(moves) > 2**31).any():
            return None
        return moves

    def _needed(self) -> NDArray[np.float64]:
        """Return the half planes that do not contain the whole output."""
        corners = np.array([[x, y, 1.0] for x in (0, self.width) for y in (0, self.height)])
        lowest = (self.bounds[:, :, None] * corners).sum(axis=3).min(axis=2)
        return np.ascontiguousarray(self.bounds[:, (lowest < 0).any(axis=0)])


class Rotate(Warp):
    """Rotate images about the center, counter-clockwise, by a random angle, drawn uniformly.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    degrees : float or (float, float)
        Range of the angles; a number d means (-d, d).
    p : float
        Probability that a sample is rotated, 0 to 1; drawn independently for each sample.
    interpolation : {"bilinear", "nearest"}
    fill : float or tuple of float
        Value of pixels outside the image: one number, or one per channel; 0 to 255 for uint8 images.
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    def __init__(
        self,
        degrees: float | tuple[float, float],
        p: float = 1.0,
        interpolation: Interpolation = "bilinear",
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(p, interpolation, fill, min_visible)
        self.degrees = degrees
        self._degrees = _range("Rotate", "degrees", degrees)

    def matrices(self, rng: SampleRandom, height: int, width: int) -> NDArray[np.float64]:
        """Draw rotations."""
        angles = rng.uniform(*self._degrees)
        zeros = np.zeros(len(angles))
        return _about_center(-angles, zeros, zeros, np.ones(len(angles)), zeros, zeros, height, width)


class Affine(Warp):
    """Shear, zoom and rotate about the center, then shift, as ``torchvision.transforms.v2.RandomAffine``.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    degrees : float or (float, float)
        Range of the angles, clockwise; a number d means (-d, d).
    translate : (float, float), optional
        Largest shifts along x and y, as fractions of width and height, 0 to 1. Drawn uniformly in whole pixels;
        torchvision halves the probability of the two extremes.
    scale : (float, float), optional
        Range of the factors, above 0.
    shear : float, (float, float) or (float, float, float, float), optional
        Ranges of the angles in degrees, -89 to 89: along x, where a number s means (-s, s), then along y. A positive
        angle along x moves pixels above the center to the right; along y it moves pixels right of it up.
    p : float
        Probability that a sample is transformed, 0 to 1; drawn independently for each sample.
    interpolation : {"bilinear", "nearest"}
    fill : float or tuple of float
        Value of pixels outside the image: one number, or one per channel; 0 to 255 for uint8 images.
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    def __init__(
        self,
        degrees: float | tuple[float, float] = 0,
        translate: tuple[float, float] | None = None,
        scale: tuple[float, float] | None = None,
        shear: float | tuple[float, ...] | None = None,
        p: float = 1.0,
        interpolation: Interpolation = "bilinear",
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(p, interpolation, fill, min_visible)
        self.degrees = degrees
        self._degrees = _range("Affine", "degrees", degrees)
        self.translate = translate
        self._translate = (0.0, 0.0) if translate is None else _parts("Affine", "translate", translate)
        self.scale = scale
        self._scale = (1.0, 1.0) if scale is None else positive_range("Affine", "scale", scale)
        self.shear = shear
        self._shear_x, self._shear_y = _shears(shear)

    def matrices(self, rng: SampleRandom, height: int, width: int) -> NDArray[np.float64]:
        """Draw shears, zooms, rotations and shifts."""
        angles = rng.uniform(*self._degrees)
        x, y = self._translate[0] * width, self._translate[1] * height
        moves_x, moves_y = _whole_moves(rng, -x, x), _whole_moves(rng, -y, y)
        scales = rng.uniform(*self._scale)
        shears_x, shears_y = rng.uniform(*self._shear_x), rng.uniform(*self._shear_y)
        return _about_center(angles, moves_x, moves_y, scales, shears_x, shears_y, height, width)


class Perspective(Warp):
    """Move each corner inwards by random whole pixels along x and y, drawn uniformly: a perspective distortion.

    Offsets are drawn for the top left, top right, bottom right and bottom left corner, along x and then along y. If
    the corners do not form a convex quadrilateral, possible with `distortion_scale` above 2/3, they move half as far.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    distortion_scale : float
        Largest offset of a corner, as a fraction of half the width and half the height, 0 to 1.
    p : float
        Probability that a sample is transformed, 0 to 1; drawn independently for each sample.
    interpolation : {"bilinear", "nearest"}
    fill : float or tuple of float
        Value of pixels outside the image: one number, or one per channel; 0 to 255 for uint8 images.
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    def __init__(
        self,
        distortion_scale: float = 0.5,
        p: float = 0.5,
        interpolation: Interpolation = "bilinear",
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(p, interpolation, fill, min_visible)
        self.distortion_scale = number("Perspective", "distortion_scale", distortion_scale, 0, 1)

    def matrices(self, rng: SampleRandom, height: int, width: int) -> NDArray[np.float64]:
        """Draw maps from the corners of the image to the moved ones."""
        room_x = int(self.distortion_scale * (width // 2)) + 1
        room_y = int(self.distortion_scale * (height // 2)) + 1
        steps = [(rng.integers(0, room_x), rng.integers(0, room_y)) for _ in range(4)]
        moved = np.array(steps, np.float64).transpose(2, 0, 1)
        # Clockwise from the top left.
        inwards = np.array([(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)])
        corners = np.array([(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)])
        moved[~_convex(corners + moved * inwards)] /= 2
        unit = np.diag((1 / width, 1 / height, 1.0))
        return product(_from_square(corners + moved * inwards), np.broadcast_to(unit, (len(moved), 3, 3)))


class Shift(Warp):
    """Shift images by random whole pixels, drawn uniformly, without interpolation.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    x, y : float or (float, float)
        Ranges of the shifts to the right and down, as fractions of width and height, -1 to 1; a number a means
        (-a, a). Both ends are included. If the range contains no whole number of pixels, the shift is the
        whole number nearest to its middle.
    p : float
        Probability that a sample is shifted, 0 to 1; drawn independently for each sample.
    fill : float or tuple of float
        Value of pixels outside the image: one number, or one per channel; 0 to 255 for uint8 images.
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    def __init__(
        self,
        x: float | tuple[float, float] = 0.1,
        y: float | tuple[float, float] = 0.1,
        p: float = 1.0,
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(p, "nearest", fill, min_visible)
        self.x = x
        self._x = _range("Shift", "x", x, 1)
        self.y = y
        self._y = _range("Shift", "y", y, 1)

    def matrices(self, rng: SampleRandom, height: int, width: int) -> NDArray[np.float64]:
        """Draw shifts."""
        matrices = _identities(len(rng))
        matrices[:, 0, 2] = _whole_moves(rng, self._x[0] * width, self._x[1] * width)
        matrices[:, 1, 2] = _whole_moves(rng, self._y[0] * height, self._y[1] * height)
        return matrices


class Zoom(Warp):
    """Enlarge or shrink images about the center by a random factor, drawn uniformly.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    scale : (float, float)
        Range of the factors, above 0; a factor above 1 enlarges.
    p : float
        Probability that a sample is zoomed, 0 to 1; drawn independently for each sample.
    interpolation : {"bilinear", "nearest"}
    fill : float or tuple of float
        Value of pixels outside the image: one number, or one per channel; 0 to 255 for uint8 images.
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.5, 1.5),
        p: float = 1.0,
        interpolation: Interpolation = "bilinear",
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(p, interpolation, fill, min_visible)
        self.scale = scale
        self._scale = positive_range("Zoom", "scale", scale)

    def matrices(self, rng: SampleRandom, height: int, width: int) -> NDArray[np.float64]:
        """Draw zooms."""
        scales = rng.uniform(*self._scale)
        zeros = np.zeros(len(scales))
        return _about_center(zeros, zeros, zeros, scales, zeros, zeros, height, width)


class Transpose(Transform):
    """Swap rows and columns of images at random.

    Images that are not square change their shape, so `p` must be 0 or 1 for them.

    Deterministic form: itself if `p` is 1, otherwise None.

    Parameters
    ----------
    p : float
        Probability that a sample is transposed, 0 to 1; must be 0 or 1 for images that are not square.

    Raises
    ------
    ArgumentError
        `p` is outside 0 to 1. Images that are not square raise at the first batch if `p` is not 0 or 1.
    """

    hands_over = True
    takes = "pixels"

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("Transpose", "p", p, 0, 1)

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape, with height and width swapped unless `p` is 0."""
        self._check(shape[0], shape[1])
        return (shape[1], shape[0], shape[2]) if self.p else shape

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Draw which samples are transposed, bool (N,), for images of this shape, (N, H, W, C)."""
        self._check(shape[1], shape[2])
        return rng.bernoulli(self.p)

    def draw(self, rng: SampleRandom, batch: Batch) -> NDArray[np.bool_]:
        """Draw which samples are transposed.

        Returns
        -------
        bool (N,)

        Raises
        ------
        ArgumentError
            The images are not (N, H, W, C), or not square while `p` is neither 0 nor 1.
        """
        images = batch["images"]
        pixels(images, self)
        return self.choose(rng, images.shape)

    def apply_images(self, images: NDArray[Any], params: NDArray[np.bool_]) -> NDArray[Any]:
        """Transpose the images whose `params` is true.

        Parameters
        ----------
        images : ndarray (N, H, W, C)
        params : bool (N,)

        Returns
        -------
        ndarray (N, H', W', C)
        """
        source = pixels(images, self)
        count, height, width, channels = images.shape
        if height != width and not params.any():
            return images
        out = empty((count, width, height, channels), images.dtype)
        flags = np.ascontiguousarray(params, dtype=np.bool_).view(np.uint8)
        kernels.transpose(source, flags, pixels(out, self))
        return out

    def geometry(self, params: NDArray[np.bool_], shape: tuple[int, int, int]) -> Geometry:
        """Return the matrix of each sample, from image to output coordinates."""
        matrices = _identities(len(params))
        matrices[params] = np.eye(3)[[1, 0, 2]]
        height, width = (shape[2], shape[1]) if params.any() else shape[1:]
        return Geometry(matrices, height, width)

    def apply_pictures(self, pictures: NDArray[Any], params: NDArray[np.bool_]) -> NDArray[Any]:
        """Transpose pictures like images."""
        return Transpose.apply_images(self, pictures, params)

    def deterministic(self) -> Transpose | None:
        """Return the transform itself if `p` is 1, otherwise None."""
        return self if self.p == 1 else None

    def _check(self, height: int, width: int) -> None:
        if height != width and self.p not in (0, 1):
            raise ArgumentError(
                f"Transpose: p is {self.p}, for images of height {height} and width {width}; expected 0 or 1 "
                "for images that are not square, since all images of a batch have the same shape"
            )


def checked_interpolation(owner: str, interpolation: Interpolation) -> Interpolation:
    """Return the argument; ArgumentError unless it is one of `INTERPOLATIONS`."""
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(f"{owner}: interpolation is {interpolation!r}; expected 'bilinear' or 'nearest'")
    return interpolation


def _identities(count: int) -> NDArray[np.float64]:
    return np.tile(np.eye(3), (count, 1, 1))


def _whole_moves(rng: SampleRandom, low: float, high: float) -> NDArray[np.float64]:
    """Draw whole numbers from `low` to `high`, uniformly; if there is none, take the nearest to their middle.

    Limits are rounded slightly outwards: 0.29 * 100 is a little below 29 and counts as 29.
    """
    least, most = math.ceil(low - 1e-6), math.floor(high + 1e-6)
    if least > most:
        least = most = round((low + high) / 2)
    return rng.integers(least, most + 1).astype(np.float64)


def _about_center(
    angles: NDArray[np.float64],
    moves_x: NDArray[np.float64],
    moves_y: NDArray[np.float64],
    scales: NDArray[np.float64],
    shears_x: NDArray[np.float64],
    shears_y: NDArray[np.float64],
    height: int,
    width: int,
) -> NDArray[np.float64]:
    """Return the matrices that shear, zoom and rotate (clockwise, in degrees), then shift: float64 (N, 3, 3)."""
    turns, slants_x, slants_y = np.deg2rad(angles), np.deg2rad(shears_x), np.deg2rad(shears_y)
    cosines, sines = np.cos(turns - slants_y) / np.cos(slants_y), np.sin(turns - slants_y) / np.cos(slants_y)
    matrices = np.zeros((len(angles), 3, 3))
    matrices[:, 0, 0] = scales * cosines
    matrices[:, 0, 1] = scales * (-cosines * np.tan(slants_x) - np.sin(turns))
    matrices[:, 1, 0] = scales * sines
    matrices[:, 1, 1] = scales * (-sines * np.tan(slants_x) + np.cos(turns))
    x, y = width / 2, height / 2
    matrices[:, 0, 2] = x + moves_x - (matrices[:, 0, 0] * x + matrices[:, 0, 1] * y)
    matrices[:, 1, 2] = y + moves_y - (matrices[:, 1, 0] * x + matrices[:, 1, 1] * y)
    matrices[:, 2, 2] = 1
    return matrices


def _convex(corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether quadrilaterals, float64 (N, 4, 2), turn to the right at every corner."""
    before = corners - np.roll(corners, 1, axis=1)
    after = np.roll(corners, -1, axis=1) - corners
    turns = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    return np.asarray((turns > 0).all(axis=1))


def _from_square(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return maps from (0, 0), (1, 0), (1, 1) and (0, 1) to the corners of convex quadrilaterals.

    Parameters
    ----------
    corners : float64 (N, 4, 2)

    Returns
    -------
    float64 (N, 3, 3)

    References
    ----------
    Heckbert, Fundamentals of Texture Mapping and Image Warping, 1989, section 2.2.3.
    """
    first, second, third, fourth = corners.transpose(1, 0, 2)
    total = first - second + third - fourth
    along, down = second - third, fourth - third
    determinants = along[:, 0] * down[:, 1] - along[:, 1] * down[:, 0]
    g = (total[:, 0] * down[:, 1] - total[:, 1] * down[:, 0]) / determinants
    h = (along[:, 0] * total[:, 1] - along[:, 1] * total[:, 0]) / determinants
    matrices = np.empty((len(corners), 3, 3))
    matrices[:, :2, 0] = second - first + g[:, None] * second
    matrices[:, :2, 1] = fourth - first + h[:, None] * fourth
    matrices[:, :2, 2] = first
    matrices[:, 2, 0] = g
    matrices[:, 2, 1] = h
    matrices[:, 2, 2] = 1
    return matrices


def _range(owner: str, name: str, value: object, most: float = math.inf) -> tuple[float, float]:
    """Return the lowest and highest value; a number means the range around 0."""
    found = numbers(owner, name, value)
    if len(found) == 1 and not isinstance(value, (tuple, list)):
        end = number(owner, name, value, 0, most)
        return -end, end
    if len(found) != 2 or not -most <= found[0] <= found[1] <= most:
        limits = "" if math.isinf(most) else f" from {-most} to {most}"
        raise ArgumentError(
            f"{owner}: {name} is {value!r}; expected a number, or two in ascending order{limits}"
        )
    return found[0], found[1]


def _parts(owner: str, name: str, value: object) -> tuple[float, float]:
    found = numbers(owner, name, value, 0)
    if len(found) != 2 or max(found) > 1:
        raise ArgumentError(f"{owner}: {name} is {value!r}; expected two numbers from 0 to 1")
    return found[0], found[1]


def _shears(value: object) -> tuple[tuple[float, float], tuple[float, float]]:
    if value is None:
        return (0.0, 0.0), (0.0, 0.0)
    if isinstance(value, (tuple, list)) and len(value) == 4:
        return _range("Affine", "shear", value[:2], 89), _range("Affine", "shear", value[2:], 89)
    return _range("Affine", "shear", value, 89), (0.0, 0.0)
