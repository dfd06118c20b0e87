"""Tensors: makes tensors of the arrays of a batch, in the form that the training loop receives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch
from highway.errors import ArgumentError
from highway.transforms.values import Values

__all__ = ["Rows", "Tensors", "rows_of"]


class Tensors:
    """Makes tensors of batches, in the form that the loop receives."""

    def __init__(
        self,
        torch: Any,
        values: Values | None,
        *,
        on_device: bool,
        bfloat16: bool | None,
        channels_last: bool,
        as_dict: bool,
        tv: Any,
    ) -> None:
        self._torch, self._from_numpy = torch, torch.from_numpy
        self._layout = None if values is None else values.layout
        self._numbers = _Numbers(torch, values, channels_last) if on_device and values is not None else None
        written = values is not None and values.dtype == "bfloat16" and not on_device
        self._bfloat16 = written if bfloat16 is None else bfloat16
        self._channels_last = channels_last
        self._as_dict = as_dict
        self._tv = tv
        self._is_plain = not (on_device or self._bfloat16 or channels_last or as_dict or tv)

    def made(self, batch: Batch) -> Any:
        """Return what the loop receives, of a batch on the CPU; the tensors share its memory."""
        if self._is_plain and not batch.ragged:
            # The usual case, with few calls: where megabytes move, the caches are cold and each costs microseconds.
            from_numpy, arrays = self._from_numpy, batch.fields.values()
            try:
                tensors = [from_numpy(array) for array in arrays if array.flags.carray]
            except (TypeError, ValueError):
                tensors = []
            if len(tensors) == len(arrays):
                return tuple(tensors)
        return self.finish(self.of(batch), rows_of(batch))

    def of(self, batch: Batch) -> dict[str, Any]:
        """Return tensors that share the memory of a batch, and lists instead of arrays of objects."""
        arrays = batch.fields
        if self._as_dict or batch.ragged:
            arrays = {**arrays, **batch.extras}
        return {name: self._tensor(name, array) for name, array in arrays.items()}

    def _tensor(self, name: str, array: NDArray[Any]) -> Any:
        if not (array.flags.carray and array.dtype.isnative) and not _is_taken(array):
            array = np.array(array, array.dtype.newbyteorder("="), order="C")
        if self._bfloat16 and name == "images" and array.dtype == np.uint16:
            return self._torch.from_numpy(array.view(np.int16)).view(self._torch.bfloat16)
        try:
            return self._torch.from_numpy(array)
        except TypeError:
            if array.dtype.kind in "OSU":
                return array.tolist()
            raise ArgumentError(
                f"Loader: field {name!r} is {array.dtype}, and torch has no such type; expected numbers: drop "
                "or convert it in a stage"
            ) from None

    def finish(self, tensors: dict[str, Any], rows: Rows | None) -> Any:
        """Return what the loop receives; changes the dict `tensors`."""
        images = tensors.get("images")
        if images is not None and images.ndim == 4:
            tensors["images"] = images = self._images(images)
        if rows is not None:
            return self._detection(tensors, rows)
        if self._tv is not None and "masks" in tensors:
            tensors["masks"] = self._tv.Mask(tensors["masks"])
        return tensors if self._as_dict else tuple(tensors.values())

    def _images(self, images: Any) -> Any:
        planar = images.dtype != self._torch.uint8 and (
            images.shape[3] > 4 if self._layout is None else self._layout == "NCHW"
        )
        if self._numbers is not None:
            images, planar = self._numbers.of(images)
        if self._channels_last or self._tv is not None:
            if not planar:
                images = images.permute(0, 3, 1, 2)
            elif self._channels_last and not images.is_contiguous(memory_format=self._torch.channels_last):
                raise ArgumentError(
                    f"Loader: channels_last is True, and images are (N, C, H, W), {tuple(images.shape)}; expected "
                    '(N, H, W, C): use layout="NHWC" where they are normalized'
                )
        return images if self._tv is None else self._tv.Image(images)

    def _detection(self, tensors: dict[str, Any], rows: Rows) -> Any:
        """Return images and a list of targets."""
        images = tensors.pop("images", None)
        columns = {name: rows.split(name, values) for name, values in tensors.items()}
        targets = [{name: column[i] for name, column in columns.items()} for i in range(rows.count)]
        if self._tv is not None:
            for target in targets:
                if "boxes" in target:
                    target["boxes"] = self._tv.BoundingBoxes(
                        target["boxes"], format="XYXY", canvas_size=tuple(images.shape[-2:])
                    )
                if "masks" in target:
                    target["masks"] = self._tv.Mask(target["masks"])
        if self._as_dict:
            return {"targets": targets} if images is None else {"images": images, "targets": targets}
        return (targets,) if images is None else (images, targets)


def _is_taken(array: NDArray[Any]) -> bool:
    """Whether torch takes the array without a copy."""
    return array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0


class Rows:
    """Which rows of the ragged arrays of a batch, such as boxes, belong to which sample."""

    def __init__(self, batch: Batch) -> None:
        self.count = batch.size
        self._offsets = {name: batch.offsets_of(name).tolist() for name in batch.ragged}

    def split(self, name: str, values: Any) -> Sequence[Any]:
        """Return the rows of each sample: views of a tensor, or parts of a list."""
        offsets = self._offsets.get(name)
        if offsets is not None:
            return [values[start:end] for start, end in pairwise(offsets)]
        if isinstance(values, list):
            return values
        return [values] * self.count if values.ndim == 0 else list(values.unbind())


def rows_of(batch: Batch) -> Rows | None:
    """Return which rows belong to which sample, if that differs between the samples."""
    return Rows(batch) if batch.ragged else None


class _Numbers:
    """Computes on the device what a Normalize writes on the CPU."""

    def __init__(self, torch: Any, values: Values, channels_last: bool) -> None:
        self._torch = torch
        self._values = values
        self._planar = values.layout == "NCHW" and not channels_last
        self._dtype = getattr(torch, values.dtype)
        self._factors: dict[tuple[int, Any], tuple[Any, Any]] = {}

    def of(self, images: Any) -> tuple[Any, bool]:
        """Return the numbers of uint8 images (N, H, W, C), and whether they are (N, C, H, W)."""
        torch = self._torch
        if images.dtype != torch.uint8:
            raise ArgumentError(
                f"Loader: normalize is 'device', and images are {images.dtype} of shape {tuple(images.shape)}; "
                "expected bytes (N, H, W, C)"
            )
        scale, bias = self._factors_for(images)
        if self._planar:
            images = images.permute(0, 3, 1, 2)
            scale, bias = scale[:, None, None], bias[:, None, None]
        numbers = images.to(torch.float32, memory_format=torch.contiguous_format)
        return numbers.mul_(scale).add_(bias).to(self._dtype), self._planar

    def _factors_for(self, images: Any) -> tuple[Any, Any]:
        """Return scale and bias of each channel, on the device of the images."""
        key = images.shape[3], images.device
        found = self._factors.get(key)
        if found is None:
            scale, bias = self._values.factors(images.shape[3])
            found = tuple(self._torch.tensor(one, device=images.device) for one in (scale, bias))
            self._factors[key] = found
        return found
