"""A module with the part of albumentations that our wrapper uses, so that tests need neither it nor albumentationsx.

It keeps what both have in common: a Compose has `processors`, a generator that `set_random_seed` seeds, and takes and
returns named arrays; boxes have further columns that follow them; boxes of which nothing is left are dropped with
their rows and labels. What differs is the name of the layout of boxes: `format`, in albumentationsx `coord_format`.
"""

import types

import numpy as np


class _Params:
    def __init__(self, name, layout, label_fields, bbox_type):
        setattr(self, name, layout)
        self.label_fields = label_fields
        if name == "coord_format":
            self.bbox_type = bbox_type


class _Step:
    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, rng, image, mask, boxes):
        if rng.random() >= self.p:
            return image, mask, boxes
        return self.apply(rng, image, mask, boxes)


class HorizontalFlip(_Step):
    def apply(self, rng, image, mask, boxes):
        boxes = boxes.copy()
        boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
        return image[:, ::-1], None if mask is None else mask[:, ::-1], boxes


class RandomCrop(_Step):
    def __init__(self, height, width):
        super().__init__(p=1.0)
        self.height, self.width = height, width

    def apply(self, rng, image, mask, boxes):
        top = rng.integers(0, image.shape[0] - self.height + 1)
        left = rng.integers(0, image.shape[1] - self.width + 1)
        rows, columns = slice(top, top + self.height), slice(left, left + self.width)
        boxes = boxes.copy()
        boxes[:, :4] = np.clip(boxes[:, :4] - [left, top, left, top], 0, [self.width, self.height] * 2)
        return image[rows, columns], None if mask is None else mask[rows, columns], boxes


class RandomBrightnessContrast(_Step):
    def apply(self, rng, image, mask, boxes):
        return (image * rng.uniform(0.8, 1.0)).astype(np.uint8), mask, boxes


class RandomScale(_Step):
    def apply(self, rng, image, mask, boxes):
        return image[: rng.integers(1, image.shape[0])], mask, boxes


class Compose:
    def __init__(self, transforms, bbox_params=None):
        self.transforms = transforms
        self.processors = {}
        if bbox_params is not None:
            self.processors["bboxes"] = types.SimpleNamespace(params=bbox_params)
        self.rng = np.random.default_rng()

    def set_random_seed(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, *, image, mask=None, bboxes=None, **labels):
        if (bboxes is not None) != bool(self.processors):
            raise ValueError("bbox_params must be specified for bboxes, and bboxes given with them")
        params = self.processors["bboxes"].params if self.processors else None
        names = (params.label_fields or ()) if params else ()
        if not set(names) <= set(labels):
            raise ValueError("Your 'label_fields' are not valid")
        if set(labels) - set(names):
            raise ValueError(f"unexpected {set(labels) - set(names)}")
        boxes = np.zeros((0, 5)) if bboxes is None else np.asarray(bboxes, np.float64)
        rows = np.arange(len(boxes))
        for transform in self.transforms:
            image, mask, boxes = transform(self.rng, image, mask, boxes)
            kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            boxes, rows = boxes[kept], rows[kept]
        found = {"image": image, **{name: np.asarray(labels[name])[rows] for name in names}}
        if mask is not None:
            found["mask"] = mask
        if bboxes is not None:
            found["bboxes"] = boxes.astype(np.float32)
        return found


def module(layout_name):
    """As `import albumentations` gives it, where the layout of boxes has this name."""

    def box_params(layout, label_fields=None, bbox_type="hbb"):
        return _Params(layout_name, layout, label_fields, bbox_type)

    found = types.ModuleType("albumentations")
    for one in (Compose, HorizontalFlip, RandomCrop, RandomBrightnessContrast, RandomScale):
        setattr(found, one.__name__, one)
    found.BboxParams = box_params
    return found
