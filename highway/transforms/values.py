"""Values: convert pixels to normalized floats in the layout of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import values
from highway.arguments import numbers
from highway.batch import empty
from highway.errors import ArgumentError
from highway.transforms.transform import Transform, pixels
from highway.transforms.view import View

__all__ = ["Normalize", "Rescale", "ToFloat", "Values"]

Layout: TypeAlias = Literal["NCHW", "NHWC"]
FloatType: TypeAlias = Literal["float32", "float16", "bfloat16"] | np.dtype[Any] | type[np.floating[Any]]


class Values(Transform):
    """Base of the conversions to floats: ``image * scale + bias``, in the layout of the network, in one pass.

    Computed in float32, both operations rounded; float16 and bfloat16 results are rounded once more. Bits are equal on
    every CPU. Values of uint16 images are in units of 1 / 257, so that 65535 is 255: their scale is ``scale / 257``,
    computed in float64 and rounded to float32.

    Deterministic form: itself.

    Parameters
    ----------
    scale, bias : float64 (C,) or (1,)
        One per channel, or one for all; for uint8 images.
    layout : {"NCHW", "NHWC"}
        Layout of the result.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the result; the bits of bfloat16 are uint16.
    """

    hands_over = True
    takes = "bytes"
    dtypes = ("uint8", "uint16")

    def __init__(
        self, scale: NDArray[np.float64], bias: NDArray[np.float64], layout: Layout, dtype: FloatType
    ) -> None:
        if layout not in ("NCHW", "NHWC"):
            raise ArgumentError(f"{self._name}: layout is {layout!r}; expected 'NCHW' or 'NHWC'")
        self.layout = layout
        self.dtype = _real(self._name, dtype)
        with np.errstate(over="ignore"):
            self._scale = scale.astype(np.float32)
            self._scale16 = (scale / 257).astype(np.float32)
            self._bias = bias.astype(np.float32)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _told(self) -> str:
        """Return the parameters for an error message."""
        raise NotImplementedError

    def out_shape(self, shape: tuple[int, int, int]) -> None:
        """Check the number of channels; return None: the result is not uint8."""
        self.factors(shape[2])

    def apply_images(self, images: NDArray[Any], params: None) -> NDArray[Any]:
        """Convert the images.

        Parameters
        ----------
        images : uint8 or uint16 (N, H, W, C)
            uint16 with at most 4 channels.
        params : None

        Returns
        -------
        float32, float16 or uint16 (N, C, H, W) or (N, H, W, C)
        """
        wide = images.dtype == np.uint16
        if not (wide or images.dtype == np.uint8) or images.ndim != 4 or (wide and images.shape[3] > 4):
            raise ArgumentError(
                f"{self._name}: images are {images.dtype} of shape {images.shape}; expected uint8 (N, H, W, C), or "
                "uint16 with at most 4 channels"
            )
        scale, bias = self.factors(images.shape[3], wide)
        result = self.room(images.shape)
        if wide:
            source = np.ascontiguousarray(images)
            values.normalize16(source, scale, bias, self.layout == "NCHW", self.bits(result))
            return result
        values.normalize(pixels(images, self), scale, bias, self.layout == "NCHW", self.bits(result))
        return result

    def apply_view(self, images: NDArray[np.uint8], view: View) -> NDArray[Any]:
        """Convert what a view shows of images.

        Parameters
        ----------
        images : uint8 (N, H, W, C)
        view : View
            A view of these images.

        Returns
        -------
        float32, float16 or uint16 (N, C, h, w) or (N, h, w, C)
            Equals ``apply_images(view.copied(images))``.
        """
        scale, bias = self.factors(view.shape[3])
        result = self.room(view.shape)
        source, planar = pixels(images, self), self.layout == "NCHW"
        values.normalize_windows(
            source, view.windows(), view.fill_pixel(), scale, bias, planar, self.bits(result)
        )
        return result

    @property
    def channels(self) -> int:
        """Number of channels that images must have; 1 means any number."""
        return len(self._scale)

    def factors(self, channels: int, wide: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return scale and bias of each channel, for uint8 images or, if `wide`, for uint16."""
        scale = self._scale16 if wide else self._scale
        if len(self._scale) not in (1, channels):
            raise ArgumentError(
                f"{self._name}: {self._told()}, for images with {channels} channels; expected one number, or one per "
                "channel"
            )
        if len(scale) == channels:
            return scale, self._bias
        return np.full(channels, scale[0]), np.full(channels, self._bias[0])

    def room(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return an empty result array for images of this shape."""
        count, height, width, channels = shape
        dtype = "uint16" if self.dtype == "bfloat16" else self.dtype
        return empty((count, channels, height, width) if self.layout == "NCHW" else shape, dtype)

    def bits(self, result: NDArray[Any]) -> NDArray[Any]:
        """Return the result array as the kernels take it: float16 as uint16, bfloat16 as int16."""
        kernel_type = {"float16": np.uint16, "bfloat16": np.int16}.get(self.dtype)
        return result if kernel_type is None else result.view(kernel_type)


class Normalize(Values):
    """Normalize images to ``(image / 255 - mean) / std``, in the layout of the network, in one pass.

    uint16 images are divided by 65535 instead: both ranges become 0 to 1.

    Computed as ``x * scale + bias`` in float32, both operations rounded, with ``scale = 1 / (255 * std)`` and
    ``bias = -mean / std`` computed in float64 and rounded to float32; for uint16 images with ``scale / 257``. float16
    and bfloat16 results are rounded once more. Bits are equal on every CPU.

    Deterministic form: itself.

    Parameters
    ----------
    mean, std : float or sequence of float
        In units of 0 to 1, not of bytes: both are within 0 to 1, `std` above 0. One number or one per channel; by
        default those of ImageNet. `Rescale` takes any numbers.
    layout : {"NCHW", "NHWC"}
        Layout of the result. With "NCHW", put transforms that move pixels (flips, crops) before it.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the result; the bits of bfloat16 are uint16.

    Raises
    ------
    ArgumentError
        An argument is out of range. Images other than uint8 or uint16 (N, H, W, C), or with another number of channels,
        raise at the first batch.
    """

    def __init__(
        self,
        mean: float | Sequence[float] = (0.485, 0.456, 0.406),
        std: float | Sequence[float] = (0.229, 0.224, 0.225),
        layout: Layout = "NCHW",
        dtype: FloatType = "float32",
    ) -> None:
        means = numbers("Normalize", "mean", mean, 0)
        stds = numbers("Normalize", "std", std, 0)
        for name, given, found in (("mean", mean, means), ("std", std, stds)):
            if max(found) > 1:
                raise ArgumentError(
                    f"Normalize: {name} is {given!r}; expected 0 to 1, in units of values from 0 to 1; divide by 255"
                )
        if not all(stds):
            raise ArgumentError(f"Normalize: std is {std!r}; expected numbers above 0")
        if len(means) != len(stds) and 1 not in (len(means), len(stds)):
            raise ArgumentError(
                f"Normalize: mean has {len(means)} numbers and std has {len(stds)}; expected equal lengths, or one "
                "number"
            )
        self.mean = means
        self.std = stds
        wide_mean, wide_std = np.broadcast_arrays(np.array(means), np.array(stds))
        with np.errstate(over="ignore"):
            super().__init__(1 / (255 * wide_std), -wide_mean / wide_std, layout, dtype)
        if not (np.isfinite(self._scale).all() and np.isfinite(self._bias).all()):
            raise ArgumentError(
                f"Normalize: mean is {mean!r} and std is {std!r}; expected 1 / std and mean / std within float32"
            )

    def _told(self) -> str:
        return f"mean is {self.mean} and std is {self.std}"


class Rescale(Values):
    """Rescale images to ``image * scale + offset``, where `image` is 0 to 255.

    uint16 images are divided by 257 first, so that their range is 0 to 255 too: ``Rescale(257)`` keeps the numbers.

    Deterministic form: itself.

    Parameters
    ----------
    scale, offset : float or sequence of float
        One number or one per channel. ``Rescale(2 / 255, -1)`` maps to -1 to 1.
    layout : {"NCHW", "NHWC"}
        Layout of the result.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the result; the bits of bfloat16 are uint16.

    Raises
    ------
    ArgumentError
        An argument is out of range. Images that do not match raise when the pipeline is built or at the first batch.
    """

    def __init__(
        self,
        scale: float | Sequence[float],
        offset: float | Sequence[float] = 0.0,
        layout: Layout = "NCHW",
        dtype: FloatType = "float32",
    ) -> None:
        self.scale = numbers(self._name, "scale", scale)
        self.offset = numbers(self._name, "offset", offset)
        if len(self.scale) != len(self.offset) and 1 not in (len(self.scale), len(self.offset)):
            raise ArgumentError(
                f"Rescale: scale has {len(self.scale)} numbers and offset has {len(self.offset)}; expected equal "
                "lengths, or one number"
            )
        factors, offsets = np.broadcast_arrays(np.array(self.scale), np.array(self.offset))
        super().__init__(factors, offsets, layout, dtype)
        if not (np.isfinite(self._scale).all() and np.isfinite(self._bias).all()):
            raise ArgumentError(
                f"Rescale: scale is {scale!r} and offset is {offset!r}; expected numbers within float32"
            )

    def _told(self) -> str:
        return f"scale is {self.scale} and offset is {self.offset}"


class ToFloat(Rescale):
    """Convert images to floats from 0 to 1: ``image / 255``, and ``image / 65535`` for uint16.

    Deterministic form: itself.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
        Layout of the result.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the result; the bits of bfloat16 are uint16.
    """

    def __init__(self, layout: Layout = "NCHW", dtype: FloatType = "float32") -> None:
        super().__init__(1 / 255, 0.0, layout, dtype)

    def __repr__(self) -> str:
        return f"ToFloat(layout={self.layout!r}, dtype={self.dtype!r})"


def _real(owner: str, dtype: FloatType) -> str:
    try:
        # NumPy does not know the name bfloat16 unless ml_dtypes was imported.
        found = "bfloat16" if dtype == "bfloat16" else str(np.dtype(dtype))
    except TypeError:
        found = ""
    if found not in ("float32", "float16", "bfloat16"):
        raise ArgumentError(f"{owner}: dtype is {dtype!r}; expected 'float32', 'float16' or 'bfloat16'")
    return found
