"""Transforms of albumentations and torchvision among our own."""

import importlib.util

import numpy as np
import pytest
from test_annotations_follow import burnt, one_each

from highway.engine import Pipeline
from highway.errors import ArgumentError, ContractError, MissingPackageError
from highway.modules import Augmentations, Noise
from highway.transforms import Albumentations, CenterCrop, FlipX, TorchVision

HAS = {name: importlib.util.find_spec(name) is not None for name in ("albumentations", "torchvision")}
needs_albumentations = pytest.mark.skipif(not HAS["albumentations"], reason="albumentations is not installed")
needs_torchvision = pytest.mark.skipif(not HAS["torchvision"], reason="torchvision is not installed")


def albumentations_chain(*, boxes=True):
    import albumentations as A

    steps = [A.HorizontalFlip(p=0.5), A.RandomCrop(64, 64), A.RandomBrightnessContrast(p=0.5)]
    return Albumentations(A.Compose(steps, bbox_params=A.BboxParams(format="pascal_voc") if boxes else None))


def torchvision_chain(*, boxes=True):
    from torchvision.transforms import v2

    steps = [v2.RandomHorizontalFlip(), v2.RandomCrop(64)]
    return TorchVision(v2.Compose([*steps, v2.SanitizeBoundingBoxes()] if boxes else steps))


MAKERS = [
    pytest.param(albumentations_chain, marks=needs_albumentations),
    pytest.param(torchvision_chain, marks=needs_torchvision),
]


@pytest.mark.parametrize("make", MAKERS)
def test_boxes_and_masks_go_with_the_images(make):
    batch = one_each(64)
    out = Augmentations([make()], seed=1).process(batch)
    assert out.images.shape == (64, 64, 64, 3)
    assert out.masks.shape == (64, 64, 64)
    checked = 0
    for i in range(64):
        for box, label in zip(out.boxes_of(i), out.rows_of("labels", i), strict=True):
            # One box a sample, and its label is its number.
            assert label == i
            if min(box[2] - box[0], box[3] - box[1]) >= 3:
                assert np.abs(box - burnt(out.masks[i])).max() <= 1.01
                checked += 1
    assert checked > 20


@pytest.mark.parametrize("make", MAKERS)
def test_samples_have_the_same_bits_in_any_batch(make):
    stage = Augmentations([FlipX(), make(), CenterCrop(40)], seed=3)
    batch = one_each(16)
    out = stage.process(batch)
    assert len({image.tobytes() for image in out.images}) > 8
    for n in range(16):
        alone = stage.process(batch.take([n]))
        assert np.array_equal(alone.images[0], out.images[n])
        assert np.array_equal(alone.boxes, out.boxes_of(n))


@pytest.mark.parametrize("make", MAKERS)
def test_any_number_of_threads_gives_the_same(make):
    def images(workers):
        stage = Augmentations([make(boxes=False)], workers=workers)
        with Pipeline([Noise(8, (70, 70), epochs=1, size=64), stage]) as pipeline:
            return [batch.images for batch in pipeline]

    assert all(map(np.array_equal, images(1), images(6)))


@needs_torchvision
def test_torch_is_left_as_it_was():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Augmentations([torchvision_chain()]).process(one_each(4))
    assert torch.equal(torch.rand(3), expected)


@needs_albumentations
def test_what_albumentations_cannot_take():
    import albumentations as A

    with pytest.raises(ArgumentError, match=r"expected albumentations\.Compose"):
        Albumentations(A.HorizontalFlip())
    with pytest.raises(ArgumentError, match="pascal_voc"):
        Augmentations([albumentations_chain(boxes=False)]).process(one_each(2))
    uneven = Albumentations(A.Compose([A.RandomScale(p=1)]))
    with pytest.raises(ContractError, match="expected the same for all samples"):
        Augmentations([uneven]).process(Noise(4, (20, 20)).load(next(Noise(4, (20, 20)).tasks())))


@pytest.mark.parametrize(
    ("wrapper", "package"), [(Albumentations, "albumentations"), (TorchVision, "torchvision")]
)
def test_a_package_that_is_missing_is_named(wrapper, package, monkeypatch):
    if HAS[package]:
        monkeypatch.setitem(__import__("sys").modules, package, None)
        monkeypatch.setitem(__import__("sys").modules, f"{package}.tv_tensors", None)
    with pytest.raises(MissingPackageError, match=f"pip install {package}"):
        wrapper(lambda image: image)
