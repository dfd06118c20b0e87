"""Transforms of albumentations and torchvision among our own."""

import importlib.util
import sys

import albumentations_stand_in
import numpy as np
import pytest
from test_annotations_follow import burnt, one_each

from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError, ContractError, MissingPackageError
from highway.modules import Augmentations, Noise
from highway.transforms import Albumentations, CenterCrop, FlipX, TorchVision

HAS = {name: importlib.util.find_spec(name) is not None for name in ("albumentations", "torchvision")}
needs_torchvision = pytest.mark.skipif(not HAS["torchvision"], reason="torchvision is not installed")


def albumentations_chain(*, boxes=True, **params):
    import albumentations as A

    steps = [A.HorizontalFlip(p=0.5), A.RandomCrop(64, 64), A.RandomBrightnessContrast(p=0.5)]
    # The first parameter is format, in albumentationsx coord_format.
    return Albumentations(
        A.Compose(steps, bbox_params=A.BboxParams("pascal_voc", **params) if boxes else None)
    )


def torchvision_chain(*, boxes=True):
    from torchvision.transforms import v2

    steps = [v2.RandomHorizontalFlip(), v2.RandomCrop(64)]
    return TorchVision(v2.Compose([*steps, v2.SanitizeBoundingBoxes()] if boxes else steps))


@pytest.fixture(params=["albumentations", "format", "coord_format"])
def albumentations(request, monkeypatch):
    """The package, if there is one, and what stands for it and for albumentationsx."""
    if request.param == "albumentations":
        if not HAS["albumentations"]:
            pytest.skip("albumentations is not installed")
    else:
        monkeypatch.setitem(sys.modules, "albumentations", albumentations_stand_in.module(request.param))
    return importlib.import_module("albumentations")


@pytest.fixture(params=["albumentations", "format", "coord_format", "torchvision"])
def make(request, monkeypatch):
    if request.param in HAS and not HAS[request.param]:
        pytest.skip(f"{request.param} is not installed")
    if request.param not in HAS:
        monkeypatch.setitem(sys.modules, "albumentations", albumentations_stand_in.module(request.param))
    return torchvision_chain if request.param == "torchvision" else albumentations_chain


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


def several(count=24):
    """Samples with no box, one and more, each with a label, a score and flags that tell which it is."""
    rng = np.random.default_rng(3)
    counts = np.arange(count) % 4
    total = counts.sum()
    low = rng.integers(0, (108, 76), (total, 2))
    boxes = np.concatenate((low, low + rng.integers(4, 20, (total, 2))), axis=1).astype(np.float32)
    images = rng.integers(0, 256, (count, 96, 128, 3), np.uint8)
    for k, owner in enumerate(np.repeat(np.arange(count), counts)):
        # The upper left quarter of a box has its number.
        x0, y0, x1, y1 = boxes[k].astype(int)
        images[owner, y0 : (y0 + y1) // 2, x0 : (x0 + x1) // 2] = k
    return Batch(
        {"images": images, "labels": np.arange(total), "boxes": boxes},
        extras={
            "scores": np.arange(total) / 100,
            "of_boxes": np.arange(3 * total).reshape(total, 3),
            "of_samples": np.arange(count),
        },
        offsets=np.concatenate(([0], np.cumsum(counts))),
        ragged=("labels", "boxes", "scores", "of_boxes"),
        seq=0,
    )


def test_what_belongs_to_a_box_follows_it_and_is_dropped_with_it(make):
    batch = several()
    out = Augmentations([make()], seed=2).process(batch)
    assert 0 < len(out.boxes) < len(batch.boxes)
    assert out.offsets[-1] == len(out.boxes) == len(out.labels)
    assert np.array_equal(out.scores, out.labels / 100)
    assert np.array_equal(out.of_boxes, batch.of_boxes[out.labels])
    assert np.array_equal(out.of_samples, batch.of_samples)
    owners = np.repeat(np.arange(batch.size), np.diff(batch.offsets))
    assert np.array_equal(np.repeat(np.arange(out.size), np.diff(out.offsets)), owners[out.labels])
    assert (out.boxes >= 0).all() and (out.boxes <= 64).all()
    # Where nothing is cut off a box has its size.
    sizes, before = out.boxes[:, 2:] - out.boxes[:, :2], (batch.boxes[:, 2:] - batch.boxes[:, :2])[out.labels]
    inside = ((out.boxes > 0) & (out.boxes < 64)).all(axis=1)
    assert inside.sum() > 3
    assert np.allclose(sizes[inside], before[inside], atol=1e-3)


def test_labels_that_a_compose_wants_along_are_given(albumentations):
    batch = several()
    expected = Augmentations([albumentations_chain()], seed=2).process(batch)
    out = Augmentations([albumentations_chain(label_fields=["names", "more"])], seed=2).process(batch)
    for name in ("images", "boxes", "labels", "offsets"):
        assert np.array_equal(getattr(out, name), getattr(expected, name))


def test_boxes_of_other_layouts_are_refused(albumentations):
    A = albumentations
    for params, told in (
        (A.BboxParams("coco"), "the Compose takes 'coco'"),
        (None, "the Compose takes none"),
    ):
        chain = Albumentations(A.Compose([A.HorizontalFlip()], bbox_params=params))
        with pytest.raises(ArgumentError, match=rf'{told}; .*A\.BboxParams\("pascal_voc"\)'):
            Augmentations([chain]).process(one_each(2))
    if hasattr(A.BboxParams("pascal_voc"), "bbox_type"):
        turned = Albumentations(
            A.Compose([A.HorizontalFlip()], bbox_params=A.BboxParams("pascal_voc", bbox_type="obb"))
        )
        with pytest.raises(ArgumentError, match="'pascal_voc' of type 'obb'"):
            Augmentations([turned]).process(one_each(2))


def test_fields_that_would_stay_behind_are_refused(make):
    batch = one_each(3)
    batch = batch.replace(depth=np.zeros(batch.images.shape[:3], np.float32))
    with pytest.raises(ArgumentError, match=r"the per-pixel field 'depth', of shape .* is not supported"):
        Augmentations([make()], fields={"depth": "mask"}).process(batch)
    out = Augmentations([make()], fields={"depth": None}).process(batch)
    assert np.array_equal(out.depth, batch.depth)
    ragged = Batch(
        {"labels": batch.labels, "boxes": batch.boxes, "images": batch.images, "masks": batch.masks},
        offsets=batch.offsets,
        ragged=("labels", "boxes", "masks"),
        seq=0,
    )
    with pytest.raises(ContractError, match="masks are ragged"):
        Augmentations([make()]).process(ragged)


def test_samples_have_the_same_bits_in_any_batch(make):
    stage = Augmentations([FlipX(), make(), CenterCrop(40)], seed=3)
    batch = one_each(16)
    out = stage.process(batch)
    assert len({image.tobytes() for image in out.images}) > 8
    for n in range(16):
        alone = stage.process(batch.take([n]))
        assert np.array_equal(alone.images[0], out.images[n])
        assert np.array_equal(alone.boxes, out.boxes_of(n))


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


def test_what_albumentations_cannot_take(albumentations):
    A = albumentations
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
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, f"{package}.tv_tensors", None)
    with pytest.raises(MissingPackageError, match=f"pip install {package}"):
        wrapper(lambda image: image)


@pytest.mark.parametrize(
    ("wrapper", "package"), [(Albumentations, "albumentations"), (TorchVision, "torchvision")]
)
def test_what_a_package_misses_is_told(wrapper, package, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / f"{package}.py").write_text("raise ImportError('it requires OpenCV\\n\\npip install opencv')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingPackageError, match=f"{package} cannot be imported: it requires OpenCV pip install"
    ):
        wrapper(lambda image: image)
