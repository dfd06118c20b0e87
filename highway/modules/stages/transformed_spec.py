"""The fields of batches after transforms, known before the first batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from highway.engine.spec import FieldSpec, Spec, array_spec
from highway.transforms.compose import Sequential, with_inner
from highway.transforms.mix import Mixing
from highway.transforms.transform import Transform
from highway.transforms.values import Values

__all__ = ["transformed"]


def transformed(
    before: Spec, steps: Sequence[Transform | None], fields: Mapping[str, str | None] | None = None
) -> Spec:
    """Return the fields of batches after these transforms.

    Parameters
    ----------
    before : dict of str to FieldSpec
    steps : sequence of Transform or None
    fields : mapping of str to {"image", "mask", None}
        Further fields that follow the images, as in `Augmentations`.
    """
    spec = dict(before)
    for step in _in_order(steps):
        if isinstance(step, Values) and not step.needs_images:
            if step.field in spec:
                spec[step.field] = spec[step.field]._replace(dtype=np.dtype(step.dtype))
            continue
        if "images" in spec:
            spec["images"] = _images(spec["images"], step)
        if "labels" in spec:
            spec["labels"] = _labels(spec["labels"], step)
    size = _size(spec.get("images"))
    if size is None or size != _size(before.get("images")):
        if "masks" in spec:
            spec["masks"] = array_spec(np.uint8, *(size or (None, None)))
        for name, kind in (fields or {}).items():
            shape = spec[name].shape if name in spec and kind is not None else None
            if shape is not None:
                spec[name] = spec[name]._replace(shape=(None,) * len(shape))
    return spec


def _in_order(steps: Sequence[Transform | None]) -> Iterator[Transform]:
    for step in steps:
        if isinstance(step, Sequential):
            yield from _in_order(step.transforms)
        elif step is not None:
            yield step


def _images(images: FieldSpec, step: Transform) -> FieldSpec:
    if images.dtype is None or images.shape is None or len(images.shape) != 4:
        return FieldSpec()
    _, *sizes = images.shape
    height, width, channels = sizes
    if height is None or width is None or channels is None:
        return FieldSpec()
    if isinstance(step, Values):
        room = step.room((0, height, width, channels))
        return array_spec(room.dtype, *room.shape[1:])
    # Planar images pass through those transforms that take any; these keep the shape, or do not know it.
    shape = step.shape_after((height, width, channels), images.dtype)
    return FieldSpec() if shape is None else array_spec(images.dtype, *shape)


def _labels(labels: FieldSpec, step: Transform) -> FieldSpec:
    for inner in with_inner([step]):
        if isinstance(inner, Mixing):
            if labels.shape is None or len(labels.shape) > 2:
                return FieldSpec()
            labels = array_spec(np.float32, inner.num_classes if len(labels.shape) == 1 else labels.shape[1])
        elif type(inner).apply_labels is not Transform.apply_labels:
            return FieldSpec()
    return labels


def _size(images: FieldSpec | None) -> tuple[int | None, ...] | None:
    """Return the height and width of images; None if unknown."""
    if images is None or images.shape is None or len(images.shape) != 4:
        return None
    _, first, second, last = images.shape
    # As `is_planar` says of arrays.
    planar = images.dtype != np.uint8 and last is not None and last > 4
    return (second, last) if planar else (first, second)
