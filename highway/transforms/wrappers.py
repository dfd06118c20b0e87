"""Wrappers: run transforms of albumentations and torchvision, reproducible for any number of threads."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch
from highway.errors import ArgumentError, ContractError, MissingPackageError
from highway.sampling.rng import SampleRandom
from highway.transforms.along import Along, check_kinds, with_offsets
from highway.transforms.runs import Several

__all__ = ["Albumentations", "TorchVision"]


class _Sample(NamedTuple):
    """The arrays of one sample: an image (H, W, C), boxes (n, 4) with their rows, and a mask (H, W)."""

    image: NDArray[Any]
    boxes: NDArray[np.float32] | None
    rows: NDArray[np.int64]
    mask: NDArray[np.uint8] | None


class Wrapper(Several):
    """Base of the wrappers: runs a third-party transform on each sample, seeded per sample."""

    def __init__(self, transform: Any) -> None:
        if not callable(transform):
            raise ArgumentError(f"{type(self).__name__}: transform is {transform!r}; expected a callable")
        self.transform = transform

    def transformed(self, sample: _Sample, seed: int) -> _Sample:
        """Transform one sample with a 32-bit seed."""
        raise NotImplementedError

    def apply(self, batch: Batch, seed: int, first: int, may_overwrite: bool, along: Along) -> Batch:
        """Transform the samples one by one."""
        name = type(self).__name__
        images = batch["images"]
        if images.ndim != 4 or images.shape[3] > 4:
            raise ArgumentError(
                f"{name}: images are {images.dtype} of shape {images.shape}; expected (N, H, W, C) with at most "
                "4 channels: put it before Normalize"
            )
        if "boxes" in batch and "boxes" not in batch.ragged:
            raise ContractError(
                f"{name}: the boxes, of shape {batch['boxes'].shape}, have no offsets that assign them to "
                "images; put PadBoxes after the Augmentations"
            )
        if "keypoints" in batch:
            raise ArgumentError(
                f"{name}: the batch has keypoints, which are not supported here; use the transforms of Highway"
            )
        if "placement" in batch:
            raise ArgumentError(
                f"{name}: the batch has a placement, which cannot be updated here; use the transforms of Highway, or a "
                "reader without placement"
            )
        for field in along.tied(batch, images.shape[1:3]):
            raise ArgumentError(
                f"{name}: the per-pixel field {field!r}, of shape {batch[field].shape}, is not supported here; use the "
                f'transforms of Highway, or Augmentations(fields={{"{field}": None}}) to keep the field unchanged'
            )
        check_kinds(batch, images.shape)
        if not len(images):
            return batch
        seeds = SampleRandom(seed, batch.epoch, batch.indices, first).integers(0, 2**32)
        has_boxes = "boxes" in batch.ragged
        offsets = batch.offsets_of("boxes") if has_boxes else None
        ragged = None
        results = []
        for row in range(len(images)):
            rows, boxes = np.zeros(0, np.int64), None
            if offsets is not None:
                rows = np.arange(offsets[row], offsets[row + 1])
                boxes = batch["boxes"][rows]
            mask = batch["masks"][row] if "masks" in batch else None
            results.append(self.transformed(_Sample(images[row], boxes, rows, mask), int(seeds[row])))
        changed: dict[str, Any] = {"images": self._stacked([result.image for result in results])}
        if "masks" in batch:
            changed["masks"] = self._stacked([result.mask for result in results])
        if offsets is not None:
            kept = np.concatenate([result.rows for result in results])
            changed["boxes"] = np.concatenate(
                [result.boxes for result in results if result.boxes is not None]
            )
            beside = batch.ragged_with("boxes")
            for field in beside - {"boxes"}:
                changed[field] = batch[field][kept]
            ends = np.cumsum([len(result.rows) for result in results])
            ragged = with_offsets(batch, beside, np.concatenate(([0], ends)))
        return batch.replace(ragged=ragged, **changed)

    def _stacked(self, arrays: list[Any]) -> NDArray[Any]:
        shapes = sorted({(np.shape(array), str(np.asarray(array).dtype)) for array in arrays}, key=str)
        if len(shapes) > 1:
            shown = " and ".join(f"{dtype} of shape {shape}" for shape, dtype in shapes)
            raise ContractError(f"{self!r}: returned {shown}; expected the same for all samples of a batch")
        return np.stack(arrays)

    def deterministic(self) -> None:
        """Raise: a third-party transform may be random.

        Raises
        ------
        ArgumentError
            Always.
        """
        raise ArgumentError(
            f"{type(self).__name__} has no deterministic form; use a separate list of transforms for "
            "validation"
        )


class Albumentations(Wrapper):
    """Run a transform of albumentations, seeded per sample: same bits for any number of threads.

    It runs in Python, one sample at a time. Images are passed as (H, W, C), with their boxes and masks.

    Deterministic form: not available; `deterministic` raises ArgumentError.

    Parameters
    ----------
    transform : albumentations.Compose
        From albumentations or albumentationsx. Boxes need ``bbox_params=A.BboxParams("pascal_voc")``; `label_fields`
        are not needed: fields with one row per box follow the boxes.

    Raises
    ------
    MissingPackageError
        albumentations is not installed, or cannot be imported.
    ArgumentError
        The transform is not a Compose. Batches with boxes raise if the Compose has no matching `bbox_params`.
    """

    def __init__(self, transform: Any) -> None:
        try:
            import albumentations
        except ImportError as error:
            raise _missing("Albumentations", "albumentations", error) from error
        if not isinstance(transform, albumentations.Compose):
            raise ArgumentError(
                f"Albumentations: transform is {transform!r}; expected albumentations.Compose([...])"
            )
        super().__init__(transform)
        # Its random generator is not thread-safe: each thread has its own copy.
        self._local = threading.local()

    def transformed(self, sample: _Sample, seed: int) -> _Sample:
        """Transform one sample with a 32-bit seed."""
        compose = getattr(self._local, "compose", None)
        if compose is None:
            compose = self._local.compose = copy.deepcopy(self.transform)
        compose.set_random_seed(seed)
        arguments: dict[str, Any] = {"image": np.ascontiguousarray(sample.image)}
        if sample.mask is not None:
            arguments["mask"] = np.ascontiguousarray(sample.mask)
        if sample.boxes is not None:
            numbers = np.arange(len(sample.boxes), dtype=np.float32)
            # Each box carries its number, so dropped boxes are known; required labels are filled with the numbers.
            arguments["bboxes"] = np.concatenate((sample.boxes, numbers[:, None]), axis=1)
            arguments |= dict.fromkeys(self._label_fields(compose), numbers)
        found = compose(**arguments)
        boxes, rows = None, sample.rows
        if sample.boxes is not None:
            moved = np.asarray(found["bboxes"], dtype=np.float32).reshape(-1, 5)
            boxes, rows = moved[:, :4], sample.rows[moved[:, 4].astype(np.int64)]
        return _Sample(found["image"], boxes, rows, found.get("mask"))

    def _label_fields(self, compose: Any) -> Sequence[str]:
        """Return the label fields that the transform requires with boxes.

        Raises
        ------
        ArgumentError
            The transform takes no boxes, or boxes in another format than x0, y0, x1, y1 in pixels.
        """
        boxes_of = compose.processors.get("bboxes")
        params = None if boxes_of is None else boxes_of.params
        # albumentations calls it format, albumentationsx coord_format.
        layout = getattr(params, "coord_format", None) or getattr(params, "format", None)
        kind = getattr(params, "bbox_type", "hbb")
        if params is None or layout != "pascal_voc" or kind != "hbb":
            told = (
                "none" if params is None else f"{layout!r}" + (f" of type {kind!r}" if kind != "hbb" else "")
            )
            raise ArgumentError(
                f"Albumentations: the batch has boxes, but the Compose takes {told}; expected Compose([...], "
                'bbox_params=A.BboxParams("pascal_voc"))'
            )
        return params.label_fields or ()


def _missing(owner: str, package: str, error: ImportError) -> MissingPackageError:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == package:
        return MissingPackageError(f"{owner}: {package} is not installed: pip install {package}")
    # One of its dependencies is missing.
    return MissingPackageError(f"{owner}: {package} cannot be imported: {' '.join(str(error).split())}")


# torch has one random generator per process.
_torch_lock = threading.Lock()


class TorchVision(Wrapper):
    """Run a transform of torchvision (v2), seeded per sample: same bits for any number of threads.

    It runs one sample at a time across all threads, since torch has one random generator per process; its state is
    restored afterwards. Images are passed as uint8 tensors (C, H, W), boxes and masks as tv_tensors. Empty boxes are
    dropped.

    Deterministic form: not available; `deterministic` raises ArgumentError.

    Parameters
    ----------
    transform : callable
        From torchvision.transforms.v2; it must return tensors.

    Raises
    ------
    MissingPackageError
        torchvision is not installed, or cannot be imported.
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        try:
            import torchvision.tv_tensors  # noqa: F401
        except ImportError as error:
            raise _missing("TorchVision", "torchvision", error) from error
        super().__init__(transform)
        if isinstance(transform, type):
            raise ArgumentError(
                f"TorchVision: transform is the class {transform.__name__}; expected {transform.__name__}(...)"
            )

    def transformed(self, sample: _Sample, seed: int) -> _Sample:
        """Transform one sample with a 32-bit seed."""
        import torch
        from torchvision import tv_tensors

        height, width = sample.image.shape[:2]
        given: dict[str, Any] = {
            "image": tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))))
        }
        if sample.mask is not None:
            given["mask"] = tv_tensors.Mask(torch.from_numpy(np.ascontiguousarray(sample.mask)))
        if sample.boxes is not None:
            given["boxes"] = tv_tensors.BoundingBoxes(
                torch.from_numpy(sample.boxes.copy()), format="XYXY", canvas_size=(height, width)
            )
            # torchvision drops labels together with their boxes.
            given["labels"] = torch.arange(len(sample.boxes))
        with _torch_lock:
            before = torch.random.get_rng_state()
            try:
                torch.manual_seed(seed)
                found = self.transform(given)
            finally:
                torch.random.set_rng_state(before)
        if not isinstance(found.get("image"), torch.Tensor) or found["image"].ndim != 3:
            raise ContractError(
                f"{self!r}: returned {type(found.get('image')).__name__} for the image; expected a tensor (C, H, W)"
            )
        if sample.boxes is not None and found["boxes"].format != tv_tensors.BoundingBoxFormat.XYXY:
            raise ContractError(
                f"{self!r}: returned boxes of format {found['boxes'].format}; expected XYXY, as in the input"
            )
        image = found["image"].numpy()
        boxes, rows = None, sample.rows
        if sample.boxes is not None:
            boxes = found["boxes"].numpy().astype(np.float32).reshape(-1, 4)
            kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            boxes, rows = boxes[kept], sample.rows[found["labels"].numpy()[kept]]
        mask = found["mask"].numpy() if sample.mask is not None else None
        return _Sample(np.ascontiguousarray(image.transpose(1, 2, 0)), boxes, rows, mask)
