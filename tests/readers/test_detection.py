"""Detection from files to batches: one chain of everything, on any number of threads and behind a hop."""

import numpy as np
import pytest
from voc_folders import CELLS, annotation, needs_cells, thing, voc_folder

from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import Augmentations, PadBoxes, VOCReader, ZMQSink, ZMQSource
from highway.transforms import (
    Affine,
    ColorJitter,
    FlipX,
    GaussianBlur,
    GaussianNoise,
    Letterbox,
    Normalize,
    OneOf,
    RandAugment,
    RandomApply,
    RandomErasing,
    RandomResizedCrop,
    Rotate,
    Sharpness,
    TrivialAugmentWide,
)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    annotations = {}
    for number in range(24):
        boxes = [rng.integers((1, 1, 25, 25), (20, 20, 81, 61)).tolist() for _ in range(number % 4)]
        annotations[f"p{number}"] = annotation(*(thing("cat", box, difficult=number % 2) for box in boxes))
    return voc_folder(tmp_path / "voc", annotations)


def everything():
    return [
        RandomResizedCrop((48, 64), scale=(0.3, 1), min_visible=0.25),
        FlipX(),
        ColorJitter(0.4, 0.4, 0.4, 0.1),
        OneOf([Rotate(15), Affine(10, (0.1, 0.1)), RandomApply([GaussianBlur(5), Sharpness()])]),
        RandAugment(),
        TrivialAugmentWide(),
        GaussianNoise(),
        RandomErasing(value="random"),
        Normalize(),
    ]


def reader_of(folder, **options):
    return VOCReader(folder, 5, (60, 80), fit=Letterbox(), epochs=2, seed=3, **options)


def taken(pipeline):
    with pipeline:
        return [
            {name: batch[name].copy() for name in (*batch.fields, *batch.extras)}
            | {"offsets": batch.offsets, "keys": batch.keys}
            for batch in pipeline.forever()
        ]


def same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            assert np.array_equal(value, other[name]), name


@pytest.fixture
def expected(folder):
    return taken(Pipeline([reader_of(folder, workers=1), Augmentations(everything(), seed=7, workers=1)]))


@pytest.mark.parametrize("workers", [2, 8])
def test_any_number_of_threads_gives_the_same_bits(folder, expected, workers):
    stage = Augmentations(everything(), seed=7, workers=workers)
    same(taken(Pipeline([reader_of(folder, workers=workers), stage])), expected)


def test_a_hop_gives_the_same_bits(folder, expected):
    data = Pipeline([reader_of(folder), ZMQSink("inproc://boxes")])
    try:
        training = [ZMQSource("inproc://boxes", ordered=True), Augmentations(everything(), seed=7)]
        same(taken(Pipeline(training)), expected)
        data.wait(30)
    finally:
        data.stop()


def test_epochs_differ(expected):
    first, second = expected[0], expected[5]
    assert not np.array_equal(first["images"], second["images"])
    assert {key for batch in expected[:5] for key in batch["keys"]} == {
        key for batch in expected[5:] for key in batch["keys"]
    }


def test_padded_boxes_at_the_end(folder):
    stages = [Augmentations([FlipX()], workers=1), PadBoxes(4)]
    with Pipeline([reader_of(folder), *stages]) as pipeline:
        images, labels, boxes, counts = pipeline.dequeue()
    assert boxes.shape == (len(images), 4, 4)
    assert labels.shape == (len(images), 4)
    for row, count in enumerate(counts):
        assert (labels[row, count:] == -1).all()
        assert (boxes[row, :count, 2] > boxes[row, :count, 0]).all()


def test_what_does_not_fit_is_refused_when_the_pipeline_is_built(folder):
    from highway.transforms import RandomCrop

    with pytest.raises(ArgumentError, match=r"RandomCrop: size is \(90, 90\), but the images are \(60, 80\)"):
        Pipeline([reader_of(folder), Augmentations([FlipX(), RandomCrop(90)])])


@needs_cells
def test_boxes_are_on_the_cells():
    """Red cells are darker than the plasma around them: inside of boxes the picture is, after any chain, too."""
    reader = VOCReader(CELLS, 8, (256, 256), split="train", fit=Letterbox(fill=255), epochs=1)
    chain = [RandomResizedCrop((256, 256), scale=(0.5, 1), min_visible=0.5), FlipX(), Rotate(20, fill=255)]
    inside, around = [], []
    with Pipeline([reader, Augmentations(chain)]) as pipeline:
        for batch in pipeline:
            for i, image in enumerate(batch.images):
                covered = np.zeros(image.shape[:2], bool)
                for x0, y0, x1, y1 in batch.boxes_of(i).round().astype(int):
                    covered[y0:y1, x0:x1] = True
                if 0.1 < covered.mean() < 0.9:
                    inside.append(image[covered].mean())
                    around.append(image[~covered].mean())
    assert len(inside) > 40
    assert np.mean(inside) < np.mean(around) - 10
    assert np.mean(np.array(inside) < np.array(around)) > 0.95
