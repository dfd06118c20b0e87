"""FieldImages: one field of a batch as the images that transforms act on, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from highway.batch import Batch
from highway.engine.spec import Spec
from highway.errors import ArgumentError, ContractError, FieldError
from highway.modules.stages.transformed_spec import transformed
from highway.sampling.identity import COPY_BITS, identities, numbers_of
from highway.transforms.compose import with_inner
from highway.transforms.transform import Transform
from highway.transforms.values import Values

__all__ = ["FieldImages", "refuse_on_field", "spec_of_field"]


class FieldImages:
    """The images of one field of a batch, as a batch of their own.

    Parameters
    ----------
    batch : Batch
    field : str
        (N, H, W, C), or (N, V, H, W, C) with V views of each sample. View number v of a sample draws as copy number
        ``c * V + v`` of the sample, which is copy c.

    Raises
    ------
    FieldError
        The batch has no such field.
    ContractError
        The field is ragged or has another number of dimensions.

    Attributes
    ----------
    batch : Batch
        N * V images as `images`.
    """

    def __init__(self, batch: Batch, field: str) -> None:
        self._whole, self._field = batch, field
        if field not in batch.fields:
            raise FieldError(
                f"Augmentations: field is {field!r}; expected a field of the batch, which has {', '.join(batch.fields)}"
            )
        images = batch.fields[field]
        if field in batch.ragged or images.ndim not in (4, 5):
            raise ContractError(
                f"Augmentations: field {field!r} is {images.dtype} of shape {images.shape}; expected images (N, H, W, "
                "C) or views (N, V, H, W, C)"
            )
        self._views = images.shape[:2] if images.ndim == 5 else None
        indices = batch.indices
        keys: Sequence[str] = batch.keys
        if self._views is not None:
            count = self._views[1]
            indices = np.repeat(indices, count)
            copies = (indices >> COPY_BITS) * count + np.tile(np.arange(count), len(images))
            indices = identities(numbers_of(indices), copies)
            keys = [key for key in keys for _ in range(count)]
            images = images.reshape(-1, *images.shape[2:])
        self.batch = Batch(
            {"images": images},
            epoch=batch.epoch,
            seq=batch.seq,
            indices=indices,
            keys=keys,
            applied=batch.applied,
        )

    def put(self, made: Batch) -> Batch:
        """Return the whole batch with the transformed images of `batch`."""
        images = made["images"]
        if self._views is not None:
            images = images.reshape(*self._views, *images.shape[1:])
        changes: dict[str, Any] = {self._field: images}
        return self._whole.replace(applied=made.applied, **changes)


def refuse_on_field(field: str, steps: Sequence[Transform | None]) -> None:
    """Raise ArgumentError for transforms that change or name other fields, or return the bits of bfloat16."""
    for step in with_inner(steps):
        if step.mixes or type(step).apply_labels is not Transform.apply_labels:
            why = "mixes samples" if step.mixes else "changes labels"
            raise ArgumentError(
                f"Augmentations: field is {field!r}, and {step!r} {why}; expected transforms of images alone: apply it "
                "to images"
            )
        if isinstance(step, Values) and not step.needs_images:
            raise ArgumentError(
                f"Augmentations: field is {field!r}, and {step!r} names a field too; expected one without field=, "
                f"which then acts on {field!r}"
            )
        if isinstance(step, Values) and step.dtype == "bfloat16":
            raise ArgumentError(
                f"Augmentations: field is {field!r}, and {step!r} returns the bits of bfloat16; expected 'float32' or "
                "'float16'; only images are known to have such bits"
            )


def spec_of_field(before: Spec, field: str, steps: Sequence[Transform | None]) -> Spec:
    """Return the fields of batches after transforms of one field.

    Raises
    ------
    FieldError
        There is no such field.
    """
    if field not in before:
        raise FieldError(
            f"Augmentations: field is {field!r}; expected a field of the batches, which have {', '.join(before)}"
        )
    found = before[field]
    shape = found.shape
    views = () if shape is None or len(shape) != 5 else shape[1:2]
    inner = found if not views or shape is None else found._replace(shape=(None, *shape[2:]))
    made = transformed({"images": inner}, steps)["images"]
    if views and made.shape is not None:
        made = made._replace(shape=(None, *views, *made.shape[1:]))
    return {**before, field: made}
