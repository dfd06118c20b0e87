"""Augmentations: a stage that applies a sequence of transforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from highway.arguments import chosen_seed, flag, whole
from highway.batch import Batch, is_field_name
from highway.engine import Module, Stage
from highway.engine.spec import Spec
from highway.errors import ArgumentError, FieldError
from highway.modules.stages.field_images import FieldImages, refuse_on_field, spec_of_field
from highway.modules.stages.transformed_spec import transformed
from highway.transforms.along import GO_ALONG, Along
from highway.transforms.compose import checked, with_inner
from highway.transforms.fit import Fit
from highway.transforms.runs import TransformChain
from highway.transforms.transform import Fusing, Transform, looks_planar
from highway.transforms.values import Values
from highway.transforms.warps import Warp

__all__ = ["Augmentations"]


class Augmentations(Stage):
    """Applies transforms to every batch, one after the other.

    Boxes, masks and keypoints follow the images. Boxes are clipped to the images; boxes of which nothing, or too little
    (`min_visible` of a transform), remains are dropped with their labels. The extra `placement`, of readers with
    ``placement=True``, is kept up to date.

    The random numbers of a transform are a function of the seed, of the samples' identity (epoch and index) and of the
    number of transforms applied to the batch before. So any number of workers gives the same bits, and so does a chain
    that is split into several Augmentations with the same seed.

    Adjacent transforms are fused where one pass over the pixels is enough: crops, pads and flips, with a `Normalize`
    after them, with the same result as one by one; a resize with the flips and crops around it; rotations and other
    warps with all of these, resampled once instead of several times; and point-wise changes of color, with the same
    result as one by one. Right after a reader of pictures, the first flips and a `Normalize` after them are fused into
    the reader; right after an `ArrayReader` or a `LevelDBSource`, crops without padding are too. If all transforms are
    fused into the reader, the pipeline skips the module.
    `Rescale` and `ToFloat` are fused like `Normalize`.

    Parameters
    ----------
    transforms : sequence of Transform
    deterministic : bool
        For validation, without randomness: every transform is replaced by its deterministic form, or skipped if it has
        none.
    mask_fill : int
        0 to 255: value of mask pixels outside of the image. 255 is "void" in PASCAL VOC.
    fields : mapping of str to {"image", "mask", None}, optional
        How further fields and extras, (N, H, W), (N, H, W, C) or (N, C, H, W) with the images' height and width, follow
        the images through transforms that move pixels. "mask": any dtype, resampled by nearest neighbor, filled with
        `mask_fill`. "image": uint8, uint16 or float32, resampled and filled as the images; other transforms do not
        change it. None: not changed. Transforms that move pixels raise if a batch has such a field that is not named
        here.
    field : str, optional
        Apply the transforms to this field of images, as of `Views`, instead of to `images`: (N, H, W, C), or
        (N, V, H, W, C) with V views of each sample, each of which draws its own random numbers. Nothing else moves with
        it, and the batch that transforms see has only these images. Transforms that mix samples, change labels, name a
        field themselves or return bfloat16 are not allowed.
    seed : int or None
        0 to 2**64 - 1. None draws a seed, if no other machine needs the same one; the attribute `seed` has it, and it
        is logged.
    workers : int, optional
        Number of threads; by default set automatically, up to one for each core that the process may use.
    queue_size : int, optional
        Most batches that may wait after this module; by default 4, or more of small ones.

    Raises
    ------
    ArgumentError
        An argument is out of range, an item of `transforms` is not a Transform or not allowed with `field`, or one that
        computes comes after a conversion to bfloat16.

    Attributes
    ----------
    transforms : tuple of Transform
        As given.
    fields : dict of str to str or None
        As given.
    fused : int
        Number of the first transforms that the reader before does while it writes the images, in a pipeline.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        *,
        deterministic: bool = False,
        mask_fill: int = 0,
        fields: Mapping[str, str | None] | None = None,
        field: str | None = None,
        seed: int | None = 0,
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.transforms = checked("Augmentations", transforms)
        self.deterministic = flag(self.name, "deterministic", deterministic)
        self.seed = chosen_seed("Augmentations", seed)
        self.seed_drawn = seed is None
        self.mask_fill = whole("Augmentations", "mask_fill", mask_fill, 0, 255)
        self.fields = _checked_fields(fields)
        self.field = _checked_field(field, self.fields)
        self._along = Along(self.mask_fill, self.fields)
        self._row = [
            transform.deterministic() if self.deterministic else transform for transform in self.transforms
        ]
        _check_bits(with_inner(self._row), "uint8")
        if self.field is not None:
            refuse_on_field(self.field, self._row)
        self._steps = TransformChain(self._row, "Augmentations")
        self.fused = 0

    def __repr__(self) -> str:
        return (
            f"Augmentations([{', '.join(map(repr, self.transforms))}], deterministic={self.deterministic}, "
            f"{f'mask_fill={self.mask_fill}, ' if self.mask_fill else ''}"
            f"{f'fields={self.fields}, ' if self.fields else ''}"
            f"{'' if self.field is None else f'field={self.field!r}, '}seed={self.seed})"
        )

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays; labels pass through: the input decides too."""
        return self.input_handed_over and self._steps.hands_over

    def for_run(self) -> Module:
        return self.copied()

    def follow(self, before: Module | None) -> None:
        """Fuse the first steps into the reader, if it can do them while it writes the images."""
        super().follow(before)
        if self.field is not None:
            self.image_shape = None if before is None else before.image_shape
            self.image_shapes = () if before is None else before.image_shapes
            self.image_dtype = "uint8" if before is None else before.image_dtype
            return
        self._refuse_numbers_of_views()
        reader: object = before
        # Only this module can move fields, with the random numbers of the images.
        if isinstance(reader, Fusing) and not self.fields:
            self.fused = reader.fuse(self._row, self.seed)
            self._steps = TransformChain(self._row, "Augmentations", self.fused)
        shape = None if before is None else before.image_shape
        self.image_dtype = "uint8" if before is None else before.image_dtype
        steps = [step for step in with_inner(self._row) if step.needs_images]
        _check_bits(steps, self.image_dtype)
        # Shapes do not depend on it; NumPy has no bfloat16.
        bits = np.dtype("uint16" if self.image_dtype == "bfloat16" else self.image_dtype)
        self.image_shape = None if shape is None else self._steps.out_shape(shape, bits)
        # Now, not when the epoch begins that has the shape.
        shapes = [self._steps.out_shape(one, bits) for one in (() if before is None else before.image_shapes)]
        self.image_shapes = tuple({one: None for one in shapes if one is not None})
        for step in steps:
            if isinstance(step, Values):
                self.image_dtype = step.dtype

    def _refuse_numbers_of_views(self) -> None:
        """Raise where a transform would take the images of a view for plain numbers."""
        for step in with_inner(self._row):
            if isinstance(step, Values) and step.field in self.view_fields:
                raise ArgumentError(
                    f"Augmentations: {step!r} takes the numbers of a field as they are, and {step.field!r} has the "
                    f"images of a view; expected the transform without field=, in Augmentations(..., "
                    f"field={step.field!r})"
                )

    @property
    def left_out(self) -> bool:  # type: ignore[override]
        """Whether all steps are fused into the reader."""
        return self.fused == len(self._row) > 0

    def out_spec(self, before: Spec | None) -> Spec | None:
        if before is None:
            return None
        if self.field is not None:
            return spec_of_field(before, self.field, self._row)
        return transformed(before, self._row, self.fields)

    def process(self, batch: Batch) -> Batch:
        """Apply the transforms; the first one draws at position `batch.applied`, and each uses `positions` positions.

        Raises
        ------
        ArgumentError
            Images are uint8 and look like (N, C, H, W).
        FieldError
            The batch has no images, or lacks `field` or one of `fields`.
        ContractError
            A transform did not return the same number of images; or masks, boxes, keypoints or fields have a wrong
            shape or dtype, or cannot follow the images.
        """
        for name in self.fields:
            if name not in batch:
                raise FieldError(
                    f"{self.name}: fields has {name!r}; expected names of fields or extras of the batch, which has "
                    f"{', '.join((*batch.fields, *batch.extras))}"
                )
        if self.field is not None:
            found = FieldImages(batch, self.field)
            made = self._applied(found.batch)
            return found.put(made)
        return self._applied(batch)

    def _applied(self, batch: Batch) -> Batch:
        images = batch.fields.get("images")
        if (
            images is not None
            and images.dtype == np.uint8
            and images.ndim == 4
            and looks_planar(images.shape[1:])
        ):
            raise ArgumentError(
                f"{self.name}: images are uint8 of shape {images.shape}, which look like (N, C, H, W); expected "
                "(N, H, W, C): images.transpose(0, 2, 3, 1)"
            )
        first = batch.applied - self._steps.positions_done
        result = self._steps.apply(batch, self.seed, first, self.input_handed_over, self._along)
        applied = first + self._steps.positions
        return result if result.applied == applied else result.replace(applied=applied)


def _check_bits(steps: Iterable[Transform], dtype: str) -> None:
    """Raise if a transform would take the bits of bfloat16, which are uint16, for numbers of 16 bits.

    Parameters
    ----------
    steps : iterable of Transform
    dtype : str
        Of the images before the first one.
    """
    before = "Augmentations that convert to bfloat16" if dtype == "bfloat16" else ""
    for step in steps:
        if before and step.needs_images and not _only_moves(step):
            raise ArgumentError(
                f"{step!r} comes after {before}; expected only flips, crops and pads with 0 after it: put it before"
            )
        if isinstance(step, Values) and step.dtype == "bfloat16":
            before = f"{step!r}, which returns the bits of bfloat16"


def _checked_field(field: object, fields: Mapping[str, str | None]) -> str | None:
    if field is None:
        return None
    if not isinstance(field, str) or not is_field_name(field) or field in ("images", *GO_ALONG):
        raise ArgumentError(
            f"Augmentations: field is {field!r}; expected the name of a field with images, other than images (leave "
            f"field= out for these), {', '.join(GO_ALONG)}"
        )
    if fields:
        raise ArgumentError(
            f"Augmentations: field is {field!r} and fields is {fields!r}; expected one of them: nothing moves with "
            "a field"
        )
    return field


def _only_moves(step: Transform) -> bool:
    """Whether a transform moves whole pixels of any dtype, with 0 around them."""
    return (
        step.takes == "pixels" and not isinstance(step, (Fit, Warp)) and not np.any(getattr(step, "fill", 0))
    )


def _checked_fields(fields: object) -> dict[str, str | None]:
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        raise ArgumentError(f"Augmentations: fields is {fields!r}; expected kinds by names of fields")
    for name, kind in fields.items():
        if not is_field_name(name) or name in ("images", *GO_ALONG):
            raise ArgumentError(
                f"Augmentations: fields has {name!r}; expected names of fields other than images, "
                f"{', '.join(GO_ALONG)}, whose kinds are fixed"
            )
        if kind not in ("image", "mask", None):
            raise ArgumentError(
                f"Augmentations: fields[{name!r}] is {kind!r}; expected 'image', 'mask' or None"
            )
    return dict(fields)
