"""Values: convert pixels to normalized floats in the layout of the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import values
from highway.arguments import numbers
from highway.batch import Batch, empty, is_field_name
from highway.errors import ArgumentError, FieldError
from highway.transforms.transform import Transform, pixels
from highway.transforms.view import View

__all__ = ["Normalize", "Rescale", "ToFloat", "Values"]

Layout: TypeAlias = Literal["NCHW", "NHWC"]
FloatType: TypeAlias = Literal["float32", "float16", "bfloat16"] | np.dtype[Any] | type[np.floating[Any]]


class Values(Transform):
    """Base of the conversions to floats: ``image * scale + bias``, in the layout of the network, in one pass.

    Computed in float32, both operations rounded; float16 and bfloat16 results are rounded once more. Bits are equal on
    every CPU. Values of uint16 images are in units of 1 / 257, so that 65535 is 255: their scale is ``scale / 257``,
    computed in float64 and rounded to float32. Fields other than `images` have any number of dimensions, whole numbers
    or floats; of those that float32 cannot hold, both operations are in float64. Results beyond the range of the dtype
    are infinite.

    Deterministic form: itself.

    Parameters
    ----------
    scale, bias : float64 (C,) or (1,)
        One per channel, or one for all; for uint8 images.
    layout : {"NCHW", "NHWC"}
        Layout of the result.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the result; the bits of bfloat16 are uint16.
    field : str
        The field that is converted. Of others than `images`, the last axis are the channels, the layout stays, and
        `dtype` is not bfloat16.
    """

    hands_over = True
    takes = "bytes"
    dtypes = ("uint8", "uint16")

    def __init__(
        self,
        scale: NDArray[np.float64],
        bias: NDArray[np.float64],
        layout: Layout,
        dtype: FloatType,
        field: str = "images",
    ) -> None:
        if layout not in ("NCHW", "NHWC"):
            raise ArgumentError(f"{self._name}: layout is {layout!r}; expected 'NCHW' or 'NHWC'")
        self.layout = layout
        self.dtype = _real(self._name, dtype)
        if not is_field_name(field):
            raise ArgumentError(f"{self._name}: field is {field!r}; expected the name of a field")
        self.field = field
        if field != "images" and self.dtype == "bfloat16":
            raise ArgumentError(
                f"{self._name}: dtype is 'bfloat16' for the field {field!r}; expected 'float32' or 'float16'; "
                "only images are known to have such bits"
            )
        self._wide_scale, self._wide_bias = scale, bias
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

    @property
    def needs_images(self) -> bool:  # type: ignore[override]
        """Whether it converts the images, and not another field."""
        return self.field == "images"

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
        """Check the number of channels; return None: the result is not uint8. For another field return the shape."""
        if not self.needs_images:
            return shape
        self.factors(shape[2])
        return None

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
            way = (
                "images[..., None] adds a channel axis, as layout='NHW' of ArrayReader does"
                if images.ndim == 3 and images.dtype.kind == "u"
                else f"under another name, arrays of any numbers are converted, as in ArrayReader(x=...) and "
                f"{self._name}(..., field='x')"
            )
            raise ArgumentError(
                f"{self._name}: images are {images.dtype} of shape {images.shape}; expected uint8 (N, H, W, C), or "
                f"uint16 with at most 4 channels; {way}"
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

    def apply_field(self, batch: Batch) -> NDArray[Any]:
        """Convert the field of a batch that is not `images`.

        Returns
        -------
        float32 or float16, of the shape of the field

        Raises
        ------
        FieldError
            The batch has no such field.
        ArgumentError
            It has other numbers than whole ones and floats, or its last axis has not one value for each number here.
        """
        if self.field not in batch:
            raise FieldError(
                f"{self._name}: field is {self.field!r}; expected one of the batch, which has "
                f"{', '.join((*batch.fields, *batch.extras)) or 'none'}"
            )
        values = batch[self.field]
        if values.dtype.kind not in "biuf":
            raise ArgumentError(
                f"{self._name}: the field {self.field!r} is {values.dtype}; expected whole numbers or floats"
            )
        if len(self._scale) != 1 and (values.ndim < 2 or values.shape[-1] != len(self._scale)):
            raise ArgumentError(
                f"{self._name}: {self._told()}, for the field {self.field!r} of shape {values.shape}; expected one "
                "number, or one for each value of its last axis"
            )
        # float16, float32, and whole numbers below 2**24.
        narrow = np.result_type(values.dtype, np.float32) == np.float32
        scale, bias = self._factors_of(values.dtype)
        if narrow:
            scale, bias = scale.astype(np.float32), bias.astype(np.float32)
        made = empty(values.shape, scale.dtype)
        # As of images: without warnings.
        with np.errstate(all="ignore"):
            np.multiply(values, scale, out=made, dtype=scale.dtype)
            np.add(made, bias, out=made)
            return made.astype(self.dtype, copy=False)

    def _factors_of(self, dtype: np.dtype[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and bias for a field of this type that is not `images`."""
        return self._wide_scale, self._wide_bias

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

    With ``field="x"``, another field of the batch, with whole numbers or floats of any range, becomes
    ``(x - mean) / std``, computed as ``x * scale + bias`` with ``scale = 1 / std``. See `Values`.

    Deterministic form: itself.

    Parameters
    ----------
    mean, std : float or sequence of float
        Of images in units of 0 to 1, not of bytes: both are within 0 to 1, `std` above 0. One number or one per
        channel; by default those of ImageNet. `Rescale` takes any numbers. Of another field in its own units, one
        number or one for each value of its last axis.
    layout : {"NCHW", "NHWC"}
        Layout of the result. With "NCHW", put transforms that move pixels (flips, crops) before it.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the result; the bits of bfloat16 are uint16, and for images only.
    field : str
        The field that is converted; `layout` is for images only.

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
        field: str = "images",
    ) -> None:
        of_images = field == "images"
        means = numbers("Normalize", "mean", mean, 0 if of_images else -math.inf)
        stds = numbers("Normalize", "std", std, 0)
        for name, given, found in (("mean", mean, means), ("std", std, stds)):
            if of_images and max(found) > 1:
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
            unit = 255 if of_images else 1
            super().__init__(1 / (unit * wide_std), -wide_mean / wide_std, layout, dtype, field)
        if not (np.isfinite(self._scale).all() and np.isfinite(self._bias).all()):
            raise ArgumentError(
                f"Normalize: mean is {mean!r} and std is {std!r}; expected 1 / std and mean / std within float32"
            )

    def _told(self) -> str:
        return f"mean is {self.mean} and std is {self.std}"


class Rescale(Values):
    """Rescale images to ``image * scale + offset``, where `image` is 0 to 255; or another field, of any numbers.

    uint16 images are divided by 257 first, so that their range is 0 to 255 too: ``Rescale(257)`` keeps the numbers.

    Deterministic form: itself.

    Parameters
    ----------
    scale, offset : float or sequence of float
        One number or one per channel. ``Rescale(2 / 255, -1)`` maps to -1 to 1.
    layout : {"NCHW", "NHWC"}
        Layout of the result, for images only.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the result; the bits of bfloat16 are uint16, and for images only.
    field : str
        The field that is converted; see `Values`.

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
        field: str = "images",
    ) -> None:
        self.scale = numbers(self._name, "scale", scale)
        self.offset = numbers(self._name, "offset", offset)
        if len(self.scale) != len(self.offset) and 1 not in (len(self.scale), len(self.offset)):
            raise ArgumentError(
                f"Rescale: scale has {len(self.scale)} numbers and offset has {len(self.offset)}; expected equal "
                "lengths, or one number"
            )
        factors, offsets = np.broadcast_arrays(np.array(self.scale), np.array(self.offset))
        super().__init__(factors, offsets, layout, dtype, field)
        if not (np.isfinite(self._scale).all() and np.isfinite(self._bias).all()):
            raise ArgumentError(
                f"Rescale: scale is {scale!r} and offset is {offset!r}; expected numbers within float32"
            )

    def _told(self) -> str:
        return f"scale is {self.scale} and offset is {self.offset}"


class ToFloat(Rescale):
    """Convert images to floats from 0 to 1: ``image / 255``, and ``image / 65535`` for uint16.

    Another field that is uint8 is divided by 255 too; bools and floats of another field keep their values.

    Deterministic form: itself.

    Parameters
    ----------
    layout : {"NCHW", "NHWC"}
        Layout of the result, for images only.
    dtype : {"float32", "float16", "bfloat16"}
        Type of the result; the bits of bfloat16 are uint16, and for images only.
    field : str
        The field that is converted; see `Values`.
    """

    def __init__(self, layout: Layout = "NCHW", dtype: FloatType = "float32", field: str = "images") -> None:
        super().__init__(1 / 255, 0.0, layout, dtype, field)

    def _factors_of(self, dtype: np.dtype[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if dtype.kind in "bf":
            return np.ones(1), np.zeros(1)
        if dtype != np.uint8:
            raise ArgumentError(
                f"ToFloat: the field {self.field!r} is {dtype}; expected uint8, bool or floats; Rescale(scale, "
                f"field={self.field!r}) takes other numbers"
            )
        return super()._factors_of(dtype)

    def __repr__(self) -> str:
        field = "" if self.needs_images else f", field={self.field!r}"
        return f"ToFloat(layout={self.layout!r}, dtype={self.dtype!r}{field})"


def _real(owner: str, dtype: FloatType) -> str:
    try:
        # NumPy does not know the name bfloat16 unless ml_dtypes was imported.
        found = "bfloat16" if dtype == "bfloat16" else str(np.dtype(dtype))
    except TypeError:
        found = ""
    if found not in ("float32", "float16", "bfloat16"):
        raise ArgumentError(f"{owner}: dtype is {dtype!r}; expected 'float32', 'float16' or 'bfloat16'")
    return found
