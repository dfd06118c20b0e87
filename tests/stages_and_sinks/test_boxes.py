"""PadBoxes: as many boxes for every sample, and nothing lost unless that was asked for."""

import numpy as np
import pytest
from voc_folders import annotation, only_batch, thing, voc_folder

from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError, FieldError
from highway.modules import PadBoxes, VOCReader


def detection(counts=(2, 0, 3)):
    total = sum(counts)
    return Batch(
        {
            "images": np.zeros((len(counts), 4, 4, 3), np.uint8),
            "labels": np.arange(total),
            "boxes": np.arange(4 * total, dtype=np.float32).reshape(-1, 4) + 1,
            "scores": np.ones(len(counts)),
        },
        epoch=1,
        seq=2,
        indices=np.arange(len(counts)) + 7,
        keys=[f"{number}.jpg" for number in range(len(counts))],
        applied=3,
        extras={"difficult": np.ones(total, bool), "weights": np.ones(len(counts))},
        offsets=np.concatenate(([0], np.cumsum(counts))),
        ragged=("labels", "boxes", "difficult"),
    )


@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0), (5,), (1, 1, 1, 1)])
@pytest.mark.parametrize("most", [5, 8])
def test_padding(counts, most):
    before = detection(counts)
    after = PadBoxes(most).process(before)
    assert list(after.fields) == ["images", "labels", "boxes", "scores", "counts"]
    assert after.counts.tolist() == list(counts) and after.counts.dtype == np.int64
    assert after.boxes.shape == (len(counts), most, 4) and after.boxes.dtype == np.float32
    assert after.labels.shape == (len(counts), most) and after.labels.dtype == np.int64
    assert after.difficult.shape == (len(counts), most) and after.difficult.dtype == bool
    for i, count in enumerate(counts):
        for name, beyond in (("boxes", 0), ("labels", -1), ("difficult", False)):
            np.testing.assert_array_equal(after[name][i, :count], before.rows_of(name, i))
            assert (after[name][i, count:] == beyond).all()
    assert not after.ragged and after.offsets is None
    for name in ("epoch", "seq", "keys", "applied"):
        assert getattr(after, name) == getattr(before, name)
    assert after.indices.tolist() == before.indices.tolist()
    assert (
        after.images is before.images
        and after.weights is before.weights
        and list(after.extras) == list(before.extras)
    )


def test_more_boxes_are_an_error_unless_they_may_be_left_out():
    with pytest.raises(ArgumentError, match=r"PadBoxes: sample \d+ \('2\.jpg'\) has 3 boxes, most is 2"):
        PadBoxes(2).process(detection())
    with pytest.raises(ArgumentError, match="sample 9 has 3 boxes"):
        PadBoxes(2).process(Batch({"boxes": np.ones((3, 4))}, indices=[9], offsets=[0, 3], ragged=["boxes"]))
    after = PadBoxes(2, truncate=True).process(detection())
    assert after.counts.tolist() == [2, 0, 2] and after.labels.tolist() == [[0, 1], [-1, -1], [2, 3]]


def test_behind_a_reader(tmp_path):
    folder = voc_folder(
        tmp_path, {"a": annotation(thing()), "b": annotation(), "c": annotation(thing(), thing())}
    )
    reader = VOCReader(folder, 3, (60, 80), classes="voc", shuffle=False, epochs=1)
    images, labels, boxes, counts = only_batch(reader, PadBoxes(2))
    assert counts.tolist() == [1, 0, 2] and images.shape == (3, 60, 80, 3)
    assert labels.tolist() == [[11, -1], [-1, -1], [11, 11]]
    assert boxes[0].tolist() == [[10, 20, 30, 50], [0, 0, 0, 0]]
    with (
        Pipeline([VOCReader(folder, 3, (60, 80)), PadBoxes(1)]) as pipeline,
        pytest.raises(ArgumentError, match=r"'c\.jpg'\) has 2 boxes, most is 1"),
    ):
        pipeline.dequeue()


def test_nothing_to_pad():
    with pytest.raises(FieldError, match=r"PadBoxes: .*no boxes of differing number"):
        PadBoxes(2).process(Batch({"images": np.zeros((1, 2, 2, 3))}))


@pytest.mark.parametrize(
    "options", [{"most": 0}, {"most": 2.5}, {"most": 3, "truncate": "no"}, {"most": 3, "workers": 0}]
)
def test_arguments_are_checked(options):
    with pytest.raises(ArgumentError, match="PadBoxes"):
        PadBoxes(**options)
