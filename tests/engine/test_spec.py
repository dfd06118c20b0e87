"""`Pipeline.spec`: what is known of the fields before the first batch is what the batches have."""

import numpy as np
import pytest
from pictures import class_folders
from voc_folders import annotation, thing, voc_folder

from highway.batch import Batch
from highway.engine import FieldSpec, Pipeline, Sink, Source, Stage
from highway.modules import (
    ArrayReader,
    Augmentations,
    Encoded,
    ImageFileReader,
    ImageSaver,
    ListReader,
    Noise,
    PadBoxes,
    VOCReader,
)
from highway.transforms import (
    CenterCrop,
    CutMix,
    FlipX,
    Mixup,
    Normalize,
    OneOf,
    Pad,
    RandomApply,
    RandomErasing,
    RandomResizedCrop,
    Rotate,
    Sequential,
    ToFloat,
    Transform,
)


def check(modules):
    """Compare the spec of a pipeline with two of its batches, the last one smaller; returns the spec."""
    with Pipeline(modules) as pipeline:
        spec = pipeline.spec
        assert "not started" in repr(pipeline)
        for batch in pipeline:
            assert list(spec) == list(batch.fields)
            for name, array in batch.fields.items():
                field = spec[name]
                assert field.is_known, name
                assert (field.dtype, len(field.shape)) == (array.dtype, array.ndim), name
                assert field.shape[0] is None
                assert field.shape[1:] == array.shape[1:], name
                assert field.ragged == (name in batch.ragged), name
        assert pipeline.spec == spec
        return spec


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    class_folders(folder, classes=3, each=2)
    return folder


def test_noise():
    spec = check([Noise(4, (8, 6, 2), size=6)])
    assert spec == {
        "images": FieldSpec(np.dtype(np.uint8), (None, 8, 6, 2), False),
        "labels": FieldSpec(np.dtype(np.int64), (None,), False),
    }


@pytest.mark.parametrize("labels", [np.arange(6, dtype=np.int8), np.ones((6, 3)), None])
def test_arrays(labels):
    check([ArrayReader(np.zeros((6, 5, 4), np.float64), labels, 4, fields={"more": np.zeros((6, 2), bool)})])


@pytest.mark.parametrize("options", [{}, {"labels": "one_hot"}, {"color": "gray"}])
def test_files(photos, options):
    check([ImageFileReader(photos, 4, (24, 32), **options)])


TRANSFORMS = [
    [FlipX()],
    [FlipX(), Normalize()],
    [FlipX(), ToFloat(layout="NHWC", dtype="float16"), FlipX()],
    [CenterCrop((8, 9)), Pad(2)],
    [RandomResizedCrop((10, 12)), Rotate(10), Normalize(), RandomErasing()],
    [Normalize(), Mixup(num_classes=7)],
    [OneOf([CutMix(num_classes=5), Mixup(num_classes=5)])],
    [Sequential([FlipX(), Mixup(num_classes=4)]), Sequential([CenterCrop(8), Sequential([Normalize()])])],
    [RandomApply([Rotate(5)])],
]


@pytest.mark.parametrize("transforms", TRANSFORMS, ids=str)
@pytest.mark.parametrize("deterministic", [False, True])
def test_transforms(photos, transforms, deterministic):
    modules = [ImageFileReader(photos, 4, (24, 32)), Augmentations(transforms, deterministic=deterministic)]
    check(modules)
    # Not fused into the reader, and of labels that are one-hot.
    reader = ImageFileReader(photos, 4, (24, 32), labels="one_hot")
    check([reader, Same(), Augmentations(transforms, deterministic=deterministic)])


class Same(Stage):
    """A stage that says what it makes."""

    def process(self, batch):
        return batch

    def out_spec(self, before):
        return before


@pytest.fixture
def voc(tmp_path):
    annotations = {
        f"{number:03}": annotation(thing("dog", (11, 11, 40, 50)), thing("cat", (41, 21, 70, 40)))
        for number in range(6)
    }
    return voc_folder(tmp_path / "VOC", annotations)


def test_boxes(voc):
    reader = VOCReader(voc, 4, (32, 40), split=None)
    spec = check([reader])
    assert spec["boxes"] == FieldSpec(np.dtype(np.float32), (None, 4), ragged=True)
    padded = check([reader, Augmentations([FlipX(), CenterCrop(20), Normalize()]), PadBoxes(3)])
    assert padded["boxes"] == FieldSpec(np.dtype(np.float32), (None, 3, 4))
    assert padded["labels"].shape == (None, 3)


def test_lists(photos, tmp_path):
    paths = sorted(photos.glob("*/*"))
    check([ListReader(paths, None, 4, (24, 32))])
    check([ListReader(paths, np.ones((6, 2), np.float32), 4, (24, 32))])
    check([ListReader(paths, None, 4, (24, 32), boxes=[[(0, 0, 9, 9)]] * 6)])
    check([ListReader(paths, [["a"]] * 6, 4, (24, 32), boxes=[[(0, 0, 9, 9)]] * 6)])
    check([ListReader(paths, range(6), 4, (24, 32)), ImageSaver(tmp_path / "saved")])


def test_masks_follow_the_images():
    fields = {"masks": np.zeros((6, 20, 24), np.uint8), "heights": np.zeros((6, 20, 24), np.float32)}
    images = np.zeros((6, 20, 24, 3), np.uint8)
    reader = ArrayReader(images, np.arange(6), 4, fields=fields)
    same = check([reader, Augmentations([FlipX(), Normalize()], fields={"heights": "image"})])
    assert same["heights"].shape == same["masks"].shape == (None, 20, 24)
    with Pipeline(
        [reader, Augmentations([CenterCrop(9), ToFloat()], fields={"heights": "image"})]
    ) as pipeline:
        spec = pipeline.spec
        assert spec["images"].shape == (None, 3, 9, 9)
        assert spec["masks"] == FieldSpec(np.dtype(np.uint8), (None, 9, 9))
        assert spec["heights"] == FieldSpec(np.dtype(np.float32), (None, None, None))
        assert pipeline.dequeue().masks.shape == (4, 9, 9)


def test_encoded_pictures(photos):
    check([Encoded(ImageFileReader(photos, 4, (24, 32)), "original")])


def test_stores(photos, tmp_path):
    pytest.importorskip("plyvel", reason="plyvel, which stores need, is not installed")
    from highway.modules import LevelDBImageReader, LevelDBSink, LevelDBSource

    reader = ImageFileReader(photos, 4, (24, 32), epochs=1)
    for name, source in (("arrays", reader), ("pictures", Encoded(reader, "original"))):
        with Pipeline([source, LevelDBSink(tmp_path / name)]) as pipeline:
            assert list(pipeline.spec) == ["images", "labels"]
            pipeline.wait(60)
    check([LevelDBSource(tmp_path / "arrays", 4), Augmentations([CenterCrop(8), Normalize()])])
    check([LevelDBSource(tmp_path / "pictures", 4, fields=["labels", "images"])])
    check([LevelDBImageReader(tmp_path / "pictures", 4, (16, 20))])


class Own(Transform):
    def apply_images(self, images, params):
        return images.astype(np.int16)[:, ::2]


class OwnLabels(Transform):
    def apply_labels(self, labels, params):
        return labels.astype(np.float64)


def test_what_transforms_of_your_own_make_is_not_known():
    unknown = FieldSpec()
    assert not unknown.is_known
    with Pipeline([Noise(4, 8), Augmentations([Own(), FlipX()])]) as pipeline:
        assert pipeline.spec == {"images": unknown, "labels": FieldSpec(np.dtype(np.int64), (None,))}
    for transforms in ([OwnLabels()], [RandomApply([OwnLabels()])]):
        with Pipeline([Noise(4, 8), Augmentations(transforms)]) as pipeline:
            assert pipeline.spec["labels"] == unknown


def test_nothing_is_known_after_modules_that_do_not_say():
    class Lengths(Source):
        def tasks(self):
            return iter(range(1))

        def load(self, task):
            return Batch({"images": np.zeros((2, 4, 4, 3), np.uint8)})

    class Hidden(Stage):
        def process(self, batch):
            return batch

    for modules in ([Lengths()], [Noise(4, 8), Hidden()], [Lengths(), Augmentations([FlipX()])]):
        with Pipeline(modules) as pipeline:
            assert pipeline.spec is None


def test_the_fields_that_a_sink_gets():
    class Dropped(Sink):
        def consume(self, batch):
            pass

    with Pipeline([Noise(4, 8, epochs=1), Augmentations([Normalize()]), Dropped()]) as pipeline:
        assert pipeline.spec["images"] == FieldSpec(np.dtype(np.float32), (None, 3, 8, 8))
        pipeline.wait(60)
