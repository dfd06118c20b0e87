"""ListReader: pictures of a list with labels, boxes and masks of any kind, as the other readers read them."""

import logging
import os

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, photograph
from voc_folders import only_batch

from highway.engine import Pipeline
from highway.errors import ArgumentError, EmptyDatasetError, ReadError
from highway.modules import Augmentations, ImageFileReader, ListReader
from highway.transforms import CenterFit, FlipX, Letterbox, RandomResizedCrop, Stretch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photos"), classes=3, each=4)


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(folder.glob("*/*.jpg"))


def batches_of(reader, *modules):
    with Pipeline([reader, *modules]) as pipeline:
        return list(pipeline.forever())


@pytest.mark.parametrize("fit", [CenterFit(), RandomResizedCrop()], ids=["center", "random"])
def test_the_same_as_from_a_folder(folder, paths, fit):
    labels = [int(path.parent.name[-1]) for path in paths]
    options = {"fit": fit, "seed": 4, "epochs": 2, "shard": (1, 2), "drop_last": True}
    mine = batches_of(ListReader(paths, labels, 4, (24, 32), **options), Augmentations([FlipX()]))
    theirs = batches_of(ImageFileReader(folder, 4, (24, 32), **options), Augmentations([FlipX()]))
    assert len(mine) == len(theirs) == 2
    for batch, other in zip(mine, theirs, strict=True):
        assert [os.path.relpath(key, folder) for key in batch.keys] == other.keys
        assert batch.indices.tolist() == other.indices.tolist() and batch.epoch == other.epoch
        assert list(batch.fields) == ["images", "labels"]
        np.testing.assert_array_equal(batch.images, other.images)
        np.testing.assert_array_equal(batch.labels, other.labels)


@pytest.mark.parametrize(
    "labels, dtype, shape",
    [
        (list(range(12)), np.int64, ()),
        (tuple(np.uint8(range(12))), np.int64, ()),
        (np.arange(24).reshape(12, 2), np.int64, (2,)),
        (np.linspace(0, 1, 12), np.float32, ()),
        (np.linspace(0, 1, 36).reshape(12, 3).tolist(), np.float32, (3,)),
    ],
)
def test_labels(paths, labels, dtype, shape):
    batch = only_batch(ListReader(paths, labels, 12, (8, 8), epochs=1))
    assert batch.labels.dtype == dtype and batch.labels.shape == (12, *shape)
    np.testing.assert_array_equal(batch.labels, np.asarray(labels, dtype)[batch.indices])
    batch.labels[:] = 0
    assert batch.keys == [os.fspath(paths[index]) for index in batch.indices]


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda names: np.array(names, object)])
def test_names_become_numbers_of_classes(paths, form):
    names = ["dog", "cat", "emu"] * 4
    options = {"epochs": 1, "shuffle": False}
    reader = ListReader(paths, form(names), 12, (8, 8), **options)
    assert reader.classes == ["cat", "dog", "emu"] and all(type(name) is str for name in reader.classes)
    labels = only_batch(reader).labels
    assert labels.tolist() == [1, 0, 2] * 4 and labels.dtype == np.int64
    reader = ListReader(paths, form(names), 12, (8, 8), classes=["owl", "emu", "dog", "cat"], **options)
    assert reader.classes == ["owl", "emu", "dog", "cat"]
    assert only_batch(reader).labels.tolist() == [2, 3, 1] * 4


def test_numbers_that_are_texts_are_names(paths, caplog):
    caplog.set_level(logging.WARNING, "highway.modules")
    texts = ["9", "10", "8"] * 4
    reader = ListReader(paths, texts, 12, (8, 8), epochs=1, shuffle=False)
    assert reader.classes == ["10", "8", "9"] and only_batch(reader).labels.tolist() == [2, 0, 1] * 4
    (text,) = [record.getMessage() for record in caplog.records]
    assert text.startswith("ListReader: ") and "'10' has label 0" in text
    caplog.clear()
    in_order = sorted(reader.classes, key=int)
    reader = ListReader(paths, texts, 12, (8, 8), classes=in_order, epochs=1, shuffle=False)
    assert only_batch(reader).labels.tolist() == [1, 2, 0] * 4
    assert ListReader(paths, ["1", "0", "2"] * 4, 12, (8, 8)).classes == ["0", "1", "2"]
    assert ListReader(paths, list(map(int, texts)), 12, (8, 8)).classes is None
    assert caplog.records == []


def test_names_of_boxes(paths):
    box = (0, 0, 9, 9)
    options = {"boxes": [[box, box], [], [box]], "fit": Stretch(), "epochs": 1, "shuffle": False}
    names = [["dog", "cat"], [], np.array(["dog"])]
    reader = ListReader(paths[:3], names, 3, (8, 8), **options)
    assert reader.classes == ["cat", "dog"]
    batch = only_batch(reader)
    assert batch.labels.tolist() == [1, 0, 1] and batch.labels.dtype == np.int64
    assert batch.rows_of("labels", 0).tolist() == [1, 0]
    reader = ListReader(paths[:3], names, 3, (8, 8), classes=["dog", "emu", "cat"], **options)
    assert only_batch(reader).labels.tolist() == [0, 2, 0]


def test_numbers_have_no_classes_of_their_own(paths):
    assert ListReader(paths, range(12), 12, (8, 8)).classes is None
    # Names of ImageNet come twice; numbers tell them apart.
    assert ListReader(paths, [0, 1] * 6, 12, (8, 8), classes=["crane", "crane"]).classes == ["crane"] * 2


def test_labels_are_the_readers_own(paths):
    labels = np.arange(12)
    reader = ListReader(paths, labels, 12, (8, 8), epochs=1, shuffle=False)
    labels[:] = 0
    assert only_batch(reader).labels.tolist() == [*range(12)]


def test_images_alone(paths):
    batch = only_batch(ListReader([os.fsencode(path) for path in paths], None, 12, (8, 8), epochs=1))
    (images,) = batch
    assert images.shape == (12, 8, 8, 3)


def test_boxes(tmp_path):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(jpeg_bytes(photograph(50, 100, number)))
    boxes = [[(0, 0, 50, 50), (90.5, 10, 200, 20)], [], np.array([(10, 20, 30, 40)])]
    labels = [[3, 1], [], np.array([2])]
    options = {"boxes": boxes, "fit": Letterbox(), "epochs": 1, "shuffle": False}
    batch = only_batch(ListReader(paths, labels, 3, (200, 200), **options, classes=["a", "b", "c", "d"]))
    images, found_labels, found_boxes = batch
    assert images.shape == (3, 200, 200, 3) and batch.ragged == {"labels", "boxes"} and not batch.extras
    assert found_labels.tolist() == [3, 1, 2] and found_labels.dtype == np.int64
    assert found_boxes.tolist() == [[0, 50, 100, 150], [181, 70, 200, 90], [20, 90, 60, 130]]
    assert batch.offsets.tolist() == [0, 2, 2, 3]
    batch = only_batch(ListReader(paths, None, 3, (200, 200), **options))
    assert list(batch.fields) == ["images", "boxes"] and batch.ragged == {"boxes"}
    floats = only_batch(ListReader(paths, [[0.5, 1], [], [2]], 3, (200, 200), **options))
    assert floats.labels.dtype == np.float32 and floats.labels.tolist() == [0.5, 1, 2]
    for min_visible, offsets in ((0.2, [0, 1, 1, 2]), (0.3, [0, 1, 1, 1]), (0.6, [0, 0, 0, 0])):
        center = {**options, "fit": CenterFit(), "min_visible": min_visible}
        batch = only_batch(ListReader(paths, labels, 3, (50, 50), **center))
        assert batch.offsets.tolist() == offsets
        assert batch.boxes.tolist() == [[0, 0, 25, 50], [0, 20, 5, 40]][: offsets[-1]]


def test_the_fit_shows_all_boxes_unless_another_is_given(tmp_path):
    """As VOCReader and LevelDBImageReader do."""
    path = tmp_path / "wide.jpg"
    path.write_bytes(jpeg_bytes(photograph(100, 300)))
    at_ends = [[(0, 0, 40, 100), (260, 0, 300, 100)]]

    def read(**options):
        return ListReader([path], None, 1, (60, 60), epochs=1, **options)

    assert isinstance(read(boxes=at_ends).fit, Letterbox)
    assert only_batch(read(boxes=at_ends)).boxes.tolist() == [[0, 20, 8, 40], [52, 20, 60, 40]]
    assert only_batch(read(boxes=at_ends, fit=CenterFit())).boxes.shape == (0, 4)
    # Without boxes nothing is lost but a margin, and margins would be class 0 of a mask.
    assert isinstance(read().fit, CenterFit)
    assert isinstance(read(masks=[tmp_path / "mask.png"]).fit, CenterFit)


@pytest.mark.parametrize("box", [(30, 20, 8, 9), (3, 20, 8, 9), (30, 2, 38, 1)])
def test_boxes_of_width_and_height_are_noticed(paths, box):
    message = (
        r"boxes\[1\] is .*expected x0, y0, x1, y1 with the smaller first; if these are x, y, width, height"
    )
    with pytest.raises(ArgumentError, match=message):
        ListReader(paths[:2], None, 2, (8, 8), boxes=[[(0, 0, 5, 5)], [(1, 1, 9, 9), box]])


def test_no_boxes_at_all(paths):
    batch = only_batch(ListReader(paths, [[]] * 12, 12, (8, 8), boxes=[[]] * 12, epochs=1))
    assert batch.boxes.shape == (0, 4) and batch.labels.tolist() == [] and batch.labels.dtype == np.int64


def test_bad_files_are_accounted_for(paths, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no")
    mixed = [*paths[:4], bad, tmp_path / "missing.jpg", *paths[4:]]
    with (
        Pipeline([ListReader(mixed, None, 20, (8, 8))]) as pipeline,
        pytest.raises((ReadError, ValueError), match=r"^ListReader: .*(bad|missing)\.jpg"),
    ):
        pipeline.dequeue()
    reader = ListReader(mixed, range(14), 14, (8, 8), boxes=None, on_error="skip", epochs=1, shuffle=False)
    batch = only_batch(reader)
    assert batch.labels.tolist() == [0, 1, 2, 3, *range(6, 14)]
    assert [key for key, _ in reader.errors] == [str(bad), str(tmp_path / "missing.jpg")]
    boxes = [[(number, 0, number + 1, 1)] for number in range(14)]
    reader = ListReader(mixed, None, 14, (60, 80), boxes=boxes, on_error="replace", epochs=1, fit=Stretch())
    batch = only_batch(reader)
    assert batch.size == 14 and len(batch.boxes) == 14
    for index, box, key in zip(batch.indices, batch.boxes, batch.keys, strict=True):
        assert key == str(mixed[index])
        # Stretched by less than a third.
        assert index / 1.4 <= box[0] <= index * 1.4
    with (
        Pipeline([ListReader([bad], None, 1, (8, 8), on_error="skip")]) as pipeline,
        pytest.raises(EmptyDatasetError, match="tried of the list could be read"),
    ):
        pipeline.dequeue()


def test_fingerprint_is_that_of_the_paths(paths):
    first = ListReader(paths, [0] * 12, 4, (8, 8)).fingerprint()
    assert ListReader([str(path) for path in paths], np.ones(12), 4, (9, 9)).fingerprint() == first
    assert ListReader(paths[::-1], [0] * 12, 4, (8, 8)).fingerprint() != first
    assert repr(ListReader(paths, None, 4, (8, 8))) == (
        "<ListReader of 12 pictures, 4, (8, 8), fit=CenterFit(interpolation='bilinear')>"
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"paths": "a.jpg"}, "paths is a str"),
        ({"paths": 5}, "paths is a int"),
        ({"paths": [5]}, r"paths\[0\] is 5"),
        ({"paths": ["a\0b"]}, r"paths\[0\] is 'a\\x00b'"),
        ({"labels": [1, 2, 3]}, "3 labels for 2 paths"),
        ({"labels": "ab"}, "labels is an array of <U2"),
        ({"labels": [b"a", b"b"]}, "labels is an array of .S1"),
        ({"labels": ["a", "b", "c"]}, "3 labels for 2 paths"),
        ({"labels": ["a", 1]}, r"labels\[0\] is 'a' and labels\[1\] is 1; expected all labels to be names"),
        ({"labels": [None, "b"]}, r"labels\[1\] is 'b' and labels\[0\] is None"),
        ({"labels": [["a"], "b"]}, r"labels\[1\] is 'b' and labels\[0\] is \['a'\]"),
        ({"labels": ["a", "d"], "classes": ["a", "b"]}, r"labels\[1\] is 'd'; expected one of .*: a, b$"),
        ({"labels": ["a", "a"], "classes": ["a", "b", "a"]}, "classes has 'a' more than once"),
        (
            {"boxes": [[], [(1, 2, 3, 4)] * 2], "labels": [[], ["a", "d"]], "classes": ["a"]},
            r"labels\[1\]\[1\] is 'd'; expected one of the classes: a$",
        ),
        (
            {"boxes": [[(1, 2, 3, 4)], [(1, 2, 3, 4)]], "labels": [["a"], [7]]},
            r"labels\[0\]\[0\] is 'a' and labels\[1\]\[0\] is 7",
        ),
        ({"boxes": [[(1, 2, 3, 4)], []], "labels": ["a", []]}, r"labels\[0\] is 'a'; expected a list"),
        ({"labels": [[1], [2, 3]]}, "labels is an array of object"),
        ({"labels": 3}, r"shape \(\)"),
        ({"labels": [0, 2], "classes": ["a", "b"]}, "labels run from 0 to 2; expected 0 to 1"),
        ({"labels": [-1, 0], "classes": ["a", "b"]}, "labels run from -1 to 0"),
        ({"classes": "ab"}, "classes is 'ab'"),
        ({"classes": [1]}, r"classes is \[1\]"),
        ({"boxes": [[]]}, "boxes of 1 pictures for 2 paths"),
        ({"boxes": [[], [1, 2, 3, 4]]}, r"boxes\[1\] is"),
        ({"boxes": [[], [(1, 2, 3)]]}, r"boxes\[1\] is"),
        ({"boxes": [[(1, 2, np.nan, 4)], []]}, r"boxes\[0\] is .*finite"),
        ({"boxes": [[(3, 2, 1, 4)], []]}, r"boxes\[0\] is .*smaller first"),
        ({"boxes": [["box"], []]}, r"boxes\[0\] is"),
        ({"boxes": [[], []], "labels": [[]]}, "labels of 1 pictures for 2 paths"),
        (
            {"boxes": [[(1, 2, 3, 4)], []], "labels": [[], []]},
            r"labels\[0\] has 0 labels, boxes\[0\] 1 boxes",
        ),
        ({"boxes": [[(1, 2, 3, 4)], []], "labels": [[2], []], "classes": ["a"]}, "labels run from 2 to 2"),
        ({"masks": ["a"]}, "1 masks for 2 paths"),
        ({"masks": "ab"}, "masks is a str"),
        ({"boxes": [[], []], "min_visible": -1}, "min_visible is -1"),
        ({"masks": ["a", "b"], "mask_fill": -1}, "mask_fill is -1"),
        ({"min_visible": 0.5}, "min_visible is 0.5, and there are no boxes"),
        ({"min_visible": 2}, "min_visible is 2"),
        ({"mask_fill": 255}, "mask_fill is 255, and there are no masks"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ArgumentError, match=f"^ListReader: .*{message}"):
        ListReader(**{"paths": ["a", "b"], "labels": None, "batch_size": 4, "shape": (8, 8), **options})


def test_an_empty_list():
    with pytest.raises(EmptyDatasetError, match="paths is empty"):
        ListReader([], None, 1, (8, 8))
