"""Annotations: transforms boxes, masks, keypoints and additional fields together with their images."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch
from highway.errors import ContractError
from highway.transforms.geometry import Geometry, product
from highway.transforms.transform import Transform, is_planar, keeps
from highway.transforms.values import Values

__all__ = ["GO_ALONG", "Along", "check_kinds", "is_spatial", "with_offsets"]

GO_ALONG = ("boxes", "masks", "keypoints", "placement")
"""Names of the arrays that always move with the images."""

_METHODS = ("geometry", "apply_boxes", "apply_masks", "apply_keypoints")
"""A transform that overrides one of these methods moves pixels."""


@dataclass(frozen=True)
class Along:
    """Settings for the arrays that move with the images.

    Attributes
    ----------
    mask_fill : int
        Value of masks outside the image.
    kinds : mapping of str to {"image", "mask", None}
        How additional fields move with the images; None for fields that stay unchanged.
    """

    mask_fill: int = 0
    kinds: Mapping[str, str | None] = field(default_factory=dict)

    def annotated(self, batch: Batch, transform: Transform, params: Any, shape: tuple[int, ...]) -> Batch:
        """Return the batch with its annotations transformed like its images.

        Parameters
        ----------
        batch : Batch
        transform : Transform
        params : object
            Result of `Transform.draw`.
        shape : tuple of int
            Shape of the input images.

        Raises
        ------
        ContractError
            An array does not have the form that its name requires, or cannot move with the images.
        """
        further = self._further(batch)
        if (
            not further
            and not any(name in batch for name in GO_ALONG)
            and keeps(transform, Transform, "apply_labels")
        ):
            return batch
        changed: dict[str, Any] = {}
        if "boxes" in batch and "boxes" not in batch.ragged and len(shape) > 2:
            _refuse_loose_boxes(batch, transform, params, shape)
        ragged, size = None, (shape[0], shape[1], shape[2]) if len(shape) > 2 else None
        check_kinds(batch, shape)
        if "masks" in batch and size is not None:
            changed["masks"] = self._masks(batch["masks"], transform, params)
        if "keypoints" in batch and size is not None:
            owners = _owners(batch, "keypoints")
            changed["keypoints"] = transform.apply_keypoints(batch["keypoints"], owners, params, size)
        if "labels" in batch and "labels" not in batch.ragged:
            changed["labels"] = transform.apply_labels(batch["labels"], params)
        if further and size is not None:
            self._refuse_mixture(batch, transform)
            if _moves(transform):
                for name in further:
                    changed[name] = self._moved(batch, name, transform, params, size)
        changed = {name: array for name, array in changed.items() if array is not batch[name]}
        if "placement" in batch and size is not None:
            geometry = _told_geometry(transform, params, size)
            if geometry is not None:
                changed["placement"] = product(geometry.matrices, batch["placement"])
        if "boxes" in batch.ragged and size is not None:
            owners = _owners(batch, "boxes")
            boxes, kept = transform.apply_boxes(batch["boxes"], owners, params, size)
            if kept is not None and not kept.all():
                changed["boxes"] = boxes[kept]
                beside = batch.ragged_with("boxes")
                for name in beside - {"boxes"}:
                    changed[name] = changed.get(name, batch[name])[kept]
                counts = np.bincount(owners[kept], minlength=batch.size)
                ragged = with_offsets(batch, beside, np.concatenate(([0], np.cumsum(counts))))
            elif boxes is not batch["boxes"]:
                changed["boxes"] = boxes
        return batch.replace(ragged=ragged, **changed) if changed else batch

    def tied(self, batch: Batch, sides: tuple[int, ...]) -> list[str]:
        """Return the additional per-pixel fields for images of (H, W), except those that stay unchanged."""
        return [
            name
            for name in self._further(batch)
            if is_spatial(batch[name].shape[1:], sides) and self.kinds.get(name, "unknown") is not None
        ]

    def refuse_new_size(self, batch: Batch, transform: Transform, after: NDArray[Any]) -> None:
        """Raise if a transform changes the image size but does not transform the annotations.

        Raises
        ------
        ContractError
            The image size changes, and an annotation is not transformed.
        """
        before = batch["images"]
        if after.shape[1:3] == before.shape[1:3] or isinstance(transform, Values):
            return
        lost = [(name, ["geometry", f"apply_{name}"]) for name in GO_ALONG if name in batch]
        lost += [(name, ["geometry"]) for name in self.tied(batch, _sides(before))]
        for name, methods in lost:
            if name == "placement":
                methods = ["geometry"]
            if all(getattr(type(transform), one) is getattr(Transform, one) for one in methods):
                raise ContractError(
                    f"{transform!r} changed the images from shape {before.shape} to {after.shape}, but does not "
                    f"transform the {name}; override {type(transform).__name__}.{', or '.join(methods)}"
                )

    def _masks(self, masks: NDArray[Any], transform: Transform, params: Any) -> NDArray[Any]:
        made: object = transform.apply_masks(masks, params, self.mask_fill)
        if isinstance(made, np.ndarray) and made.ndim == 3 and len(made) == len(masks):
            return made
        found = _told(made) if isinstance(made, np.ndarray) else f"a {type(made).__name__}"
        raise ContractError(
            f"{transform!r}: apply_masks returned {found} for {len(masks)} masks; expected a numpy array of the same "
            "length, uint8 (N, H, W)"
        )

    def _refuse_mixture(self, batch: Batch, transform: Transform) -> None:
        if transform.mixes:
            for name in self.tied(batch, _sides(batch["images"])):
                raise ContractError(
                    f"{transform!r}: cannot mix the per-pixel field {name!r}, {_told(batch[name])}; expected images "
                    f'with one label each, or Augmentations(fields={{"{name}": None}}) to keep the field unchanged'
                )

    def _moved(
        self, batch: Batch, name: str, transform: Transform, params: Any, size: tuple[int, int, int]
    ) -> NDArray[Any]:
        """Return an additional field, moved with the images if its kind requires that."""
        array, sides = batch[name], size[1:]
        if name in self.kinds and self.kinds[name] is None:
            return array
        if name not in self.kinds:
            if is_spatial(array.shape[1:], sides):
                raise ContractError(
                    f"{transform!r} moves pixels, but the per-pixel field {name!r}, {_told(array)}, has no kind; "
                    f'expected Augmentations(fields={{"{name}": "mask"}}) (nearest pixel), "image" (resampled like '
                    "the images), or None (unchanged)"
                )
            return array
        kind = self.kinds[name]
        if name in batch.ragged or len(array) != size[0] or not is_spatial(array.shape[1:], sides):
            raise ContractError(
                f"fields has the kind {kind!r} for {name!r}, but the field is {_told(array)}, with {size[0]} images of "
                f"{sides[0]} x {sides[1]} pixels; expected (N, H, W), (N, H, W, C) or (N, C, H, W) of that size, one "
                "per sample"
            )
        last = array.shape[1:3] == sides
        pictures = array if last else array.transpose(0, 2, 3, 1)
        rest = pictures.shape[3:]
        pictures = pictures.reshape(*size, math.prod(rest))
        if kind == "mask":
            moved = transform.apply_masks(pictures, params, self._filling(name, array.dtype))
        else:
            if pictures.dtype not in (np.uint8, np.uint16, np.float32) or (
                pictures.dtype != np.uint8 and pictures.shape[3] > 4
            ):
                raise ContractError(
                    f"fields has the kind 'image' for {name!r}, but the field is {_told(array)}; expected uint8, or "
                    'uint16 or float32 with at most 4 channels; the kind "mask" takes any dtype'
                )
            moved = transform.apply_pictures(pictures, params)
        moved = moved.reshape(*moved.shape[:3], *rest)
        return moved if last else np.ascontiguousarray(moved.transpose(0, 3, 1, 2))

    def _further(self, batch: Batch) -> list[str]:
        """Return the names of arrays that may be per-pixel but have no standard name."""
        return [
            name
            for arrays in (batch.fields, batch.extras)
            for name, array in arrays.items()
            if (array.ndim > 2 or name in self.kinds) and name != "images" and name not in GO_ALONG
        ]

    def _filling(self, name: str, dtype: np.dtype[Any]) -> int:
        if dtype.kind not in "biufc" or (
            dtype.kind in "biu"
            and not 0 <= self.mask_fill <= (1 if dtype.kind == "b" else np.iinfo(dtype).max)
        ):
            raise ContractError(
                f"mask_fill is {self.mask_fill}, which the field {name!r} of {dtype} cannot hold; expected a numeric "
                "field, and a mask_fill within the range of its dtype"
            )
        return self.mask_fill


def is_spatial(shape: tuple[int, ...], sides: tuple[int, ...]) -> bool:
    """Whether an array of one sample is per-pixel for images of (H, W).

    Per-pixel shapes are (H, W), (H, W, ...) and (C, H, W).
    """
    return len(shape) > 1 and (shape[:2] == sides or (len(shape) == 3 and shape[1:] == sides))


def check_kinds(batch: Batch, shape: tuple[int, ...]) -> None:
    """Check that arrays with standard names have the required form.

    Parameters
    ----------
    batch : Batch
    shape : tuple of int
        Shape of the images.

    Raises
    ------
    ContractError
        An array has another dtype or shape.
    """
    if "boxes" in batch.ragged:
        _check_boxes(batch)
    if "masks" in batch:
        masks = batch["masks"]
        if masks.dtype != np.uint8 or masks.ndim != 3:
            raise ContractError(f"masks are {_told(masks)}; expected uint8 (N, H, W)")
        if "masks" in batch.ragged:
            raise ContractError(
                f"masks are ragged, {_told(masks)}, one per box; expected uint8 (N, H, W), one per sample: merge the "
                "masks of each sample into one, or remove them before the Augmentations"
            )
        if len(shape) == 4 and masks.shape != shape[:3]:
            raise ContractError(
                f"masks are {_told(masks)}, for images of shape {shape}; expected one mask per image, of the same "
                f"height and width: {shape[:3]}"
            )
    if "keypoints" in batch:
        points = batch["keypoints"]
        if points.dtype.kind != "f" or points.shape[-1:] != (2,):
            raise ContractError(
                f"keypoints are {_told(points)}; expected float32 (N, ..., 2): only x and y; put other values into "
                "another field"
            )
        if "keypoints" not in batch.ragged and len(points) != batch.size:
            raise ContractError(
                f"keypoints are {_told(points)}, for {batch.size} samples; expected one row per sample, or "
                "offsets and ragged"
            )
    if "placement" in batch and (
        batch["placement"].dtype != np.float64 or batch["placement"].shape != (batch.size, 3, 3)
    ):
        raise ContractError(f"placement is {_told(batch['placement'])}; expected float64 (N, 3, 3)")


def with_offsets(
    batch: Batch, names: Collection[str], offsets: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Return the offsets of all ragged arrays of a batch, where `names` get other ones."""
    return {name: offsets if name in names else batch.offsets_of(name) for name in batch.ragged}


def _check_boxes(batch: Batch) -> None:
    boxes = batch["boxes"]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iuf":
        raise ContractError(
            f"boxes are {_told(boxes)}; expected float32 (total, 4): only x0, y0, x1, y1; put other values into "
            "another field"
        )
    # Comparisons with NaN are false.
    wrong = ~(boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        offsets = batch.offsets_of("boxes")
        sample = int(np.searchsorted(offsets, row, side="right")) - 1
        box = f"box {row - offsets[sample]} of sample {sample}, {boxes[row].tolist()}"
        if np.isnan(boxes[row]).any():
            raise ContractError(f"{box}, contains NaN; expected x0, y0, x1, y1 in pixels")
        raise ContractError(
            f"{box}, has x1 < x0 or y1 < y0, like {int(wrong.sum())} of {len(boxes)} boxes; expected x0, y0, x1, y1 "
            "in pixels; for boxes of x, y, width, height, add the first two to the last two"
        )


def _sides(images: NDArray[Any]) -> tuple[int, ...]:
    return images.shape[2:4] if is_planar(images) else images.shape[1:3]


def _moves(transform: Transform) -> bool:
    return not keeps(transform, Transform, *_METHODS)


def _told(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _told_geometry(transform: Transform, params: Any, size: tuple[int, int, int]) -> Geometry | None:
    """Return the geometry of a transform; ContractError if it moves annotations but defines no geometry."""
    methods = ("apply_boxes", "apply_masks", "apply_keypoints")
    if type(transform).geometry is Transform.geometry:
        for method in methods:
            if getattr(type(transform), method) is not getattr(Transform, method):
                raise ContractError(
                    f"{transform!r} overrides {method} but not geometry, which the placement of the batch needs; "
                    f"override {type(transform).__name__}.geometry, or use a reader without placement"
                )
    return transform.geometry(params, size)


def _refuse_loose_boxes(batch: Batch, transform: Transform, params: Any, shape: tuple[int, ...]) -> None:
    """Raise if boxes without offsets, such as padded ones, would have to move with the images."""
    if transform.geometry(params, (shape[0], shape[1], shape[2])) is not None:
        raise ContractError(
            f"{transform!r} moves pixels, but the boxes, of shape {batch['boxes'].shape}, have no offsets that assign "
            "them to images; put PadBoxes after the Augmentations, or give the Batch offsets and ragged"
        )


def _owners(batch: Batch, name: str) -> NDArray[np.int64]:
    samples = np.arange(batch.size)
    return np.repeat(samples, np.diff(batch.offsets_of(name))) if name in batch.ragged else samples
