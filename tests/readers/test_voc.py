"""VOCReader: boxes stay on what they were drawn around, through EXIF, fit and flips; splits and classes."""

import math
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, photograph
from PIL import Image
from voc_folders import CELLS, annotation, needs_cells, only_batch, thing, voc_folder

from highway.engine import Pipeline, Stage
from highway.errors import ArgumentError, DatasetError, DecodeError, EmptyDatasetError, TooManyErrors
from highway.modules import Augmentations, ImageFileReader, VOCReader
from highway.transforms import (
    CenterFit,
    FlipX,
    FlipY,
    Letterbox,
    Normalize,
    RandomResizedCrop,
    Resize,
    Stretch,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    annotations = {}
    for number in range(11):
        low = rng.integers(1, 40, (number % 4, 2))
        boxes = np.concatenate((low, low + rng.integers(3, 20, low.shape)), axis=1).tolist()
        things = [
            thing(("cat", "dog", "bird")[k % 3], box, difficult=k % 2, truncated=(k + number) % 2)
            for k, box in enumerate(boxes)
        ]
        annotations[f"{number:02}"] = annotation(*things)
    return voc_folder(tmp_path_factory.mktemp("voc"), annotations)


def epochs_of(reader, *modules):
    with Pipeline([reader, *modules]) as pipeline:
        return list(pipeline.forever())


def test_the_lines_of_the_example(folder):
    reader = VOCReader(folder, 16, (512, 512), split="train", fit=Letterbox())
    with Pipeline([reader]) as pipeline:
        images, labels, boxes = batch = pipeline.dequeue()
    assert images.shape == (11, 512, 512, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and boxes.dtype == np.float32
    assert len(labels) == len(boxes) == len(batch.difficult) == len(batch.truncated) == batch.offsets[-1] > 0
    assert batch.ragged == {"labels", "boxes", "difficult", "truncated"}
    assert repr(reader) == (
        f"VOCReader({str(folder) + '/'!r}, 16, (512, 512), split='train', fit={Letterbox()!r}, "
        "classes=<3 found in 11 annotations: bird, cat, dog>)"
    )
    assert reader.size == 11 and len(reader) == 1


def written(folder, key):
    """Classes, boxes in continuous coordinates, and flags of an annotation, read in the plainest way."""
    names, boxes, flags = [], [], []
    for element in (
        ElementTree.parse(folder / "Annotations" / f"{Path(key).stem}.xml").getroot().iter("object")
    ):
        names.append(element.find("name").text)
        x0, y0, x1, y1 = (
            float(element.find(f"bndbox/{tag}").text) for tag in ("xmin", "ymin", "xmax", "ymax")
        )
        boxes.append((x0 - 1, y0 - 1, x1, y1))
        flags.append((element.find("difficult").text == "1", element.find("truncated").text == "1"))
    return names, np.array(boxes).reshape(-1, 4), np.array(flags).reshape(-1, 2)


def assert_as_written(folder, reader, shape):
    scale = min(shape[0] / 60, shape[1] / 80) if folder is not CELLS else min(shape[0] / 480, shape[1] / 640)
    size = (60, 80) if folder is not CELLS else (480, 640)
    left, top = ((shape[1] - round(size[1] * scale)) // 2, (shape[0] - round(size[0] * scale)) // 2)
    seen = []
    for batch in epochs_of(reader):
        for i, key in enumerate(batch.keys):
            names, boxes, flags = written(folder, key)
            assert [reader.classes[label] for label in batch.rows_of("labels", i)] == names
            np.testing.assert_allclose(batch.boxes_of(i), boxes * scale + (left, top, left, top), atol=1e-3)
            np.testing.assert_array_equal(batch.rows_of("difficult", i), flags[:, 0])
            np.testing.assert_array_equal(batch.rows_of("truncated", i), flags[:, 1])
            seen.append(key)
    return seen


def test_boxes_labels_and_keys_belong_together(folder):
    reader = VOCReader(folder, 4, (120, 200), epochs=1)
    assert sorted(assert_as_written(folder, reader, (120, 200))) == [
        f"{number:02}.jpg" for number in range(11)
    ]


@needs_cells
def test_a_real_set():
    keys = []
    for split in ("train", "val"):
        reader = VOCReader(CELLS, 16, (512, 512), split=split, fit=Letterbox(), epochs=1)
        assert reader.classes == ["Platelets", "RBC", "WBC"]
        keys += assert_as_written(CELLS, reader, (512, 512))
        listed = (CELLS / "ImageSets/Main" / f"{split}.txt").read_text().split()
        assert sorted(keys[-len(listed) :]) == sorted(f"{name}.jpg" for name in listed)
    assert len({*keys}) == len(keys) > 50


# A picture of plain rectangles: what is inside of a box has its color, wherever it went.


COLORS = {"red": (250, 10, 10), "green": (10, 240, 10), "blue": (10, 10, 250)}
RECTANGLES = {"red": (4, 4, 36, 28), "green": (60, 8, 108, 40), "blue": (20, 48, 92, 88)}


def drawn(height=96, width=128):
    picture = np.full((height, width, 3), 120, np.uint8)
    for name, (x0, y0, x1, y1) in RECTANGLES.items():
        picture[y0:y1, x0:x1] = COLORS[name]
    return Image.fromarray(picture)


def rectangles_folder(tmp_path, size=(96, 128), boxes=RECTANGLES, ending="jpg", **options):
    things = [thing(name, (x0 + 1, y0 + 1, x1, y1)) for name, (x0, y0, x1, y1) in boxes.items()]
    root = voc_folder(tmp_path, {"a": annotation(*things, size=size)}, size=(96, 128))
    contents = jpeg_bytes(drawn(), subsampling=0, quality=97, **options)
    (root / "JPEGImages" / "a.jpg").write_bytes(contents)
    return root


def assert_around(batch, classes, most_off=1.5):
    """Every box is the extent of its color in the image."""
    assert len(batch.boxes)
    for i, image in enumerate(batch.images):
        for label, box in zip(batch.rows_of("labels", i), batch.boxes_of(i), strict=True):
            near = (np.abs(image.astype(int) - COLORS[classes[label]]) < 90).all(axis=2)
            rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
            extent = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            np.testing.assert_allclose(box, extent, atol=most_off)


FITS = [
    Stretch(),
    Letterbox(),
    CenterFit(),
    RandomResizedCrop(scale=(0.3, 0.9)),
]


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: type(fit).__name__)
@pytest.mark.parametrize("shape", [(200, 200), (90, 180), (131, 97)])
@pytest.mark.parametrize("modules", [[], [FlipX(1)], [FlipX(1), FlipY(1)]], ids=["", "x", "xy"])
def test_boxes_stay_around(tmp_path, fit, shape, modules):
    folder = rectangles_folder(tmp_path)
    for seed in range(4 if isinstance(fit, RandomResizedCrop) else 1):
        reader = VOCReader(folder, 1, shape, fit=fit, epochs=1, seed=seed, min_visible=0.1)
        assert_around(only_batch(reader, *([Augmentations(modules)] if modules else [])), reader.classes, 2.5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", [Stretch(), CenterFit()], ids=lambda fit: type(fit).__name__)
def test_boxes_of_the_stored_picture_turn_with_it(tmp_path, orientation, fit):
    for name, size in {"stated": (96, 128), "missing": None}.items():
        folder = rectangles_folder(tmp_path / name, size=size, orientation=orientation)
        reader = VOCReader(folder, 1, (160, 200), fit=fit, epochs=1)
        assert_around(only_batch(reader), reader.classes, 2)
        # Flips come after that.
        assert_around(
            only_batch(VOCReader(folder, 1, (160, 200), fit=fit, epochs=1), Augmentations([FlipX(1)])),
            reader.classes,
            2,
        )


@pytest.mark.parametrize("orientation", range(5, 9))
def test_boxes_of_the_upright_picture_stay(tmp_path, orientation):
    """The size says that the boxes were drawn on the picture as viewers show it."""
    upright = {"red": (4, 8, 30, 40)}
    folder = rectangles_folder(tmp_path, size=(128, 96), boxes=upright, orientation=orientation)
    batch = only_batch(VOCReader(folder, 1, (128, 96), fit=Stretch(), epochs=1, classes=["red"]))
    assert batch.boxes.tolist() == [[4, 8, 30, 40]]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_size_that_is_a_little_wrong_is_taken_for_the_nearer_one(tmp_path, orientation):
    folder = rectangles_folder(tmp_path / "stored", size=(97, 128), orientation=orientation)
    reader = VOCReader(folder, 1, (160, 200), fit=Stretch(), epochs=1)
    assert_around(only_batch(reader), reader.classes, 2)
    assert len(reader.other_sizes) == 1
    if orientation >= 5:
        upright = {"red": (4, 8, 30, 40)}
        folder = rectangles_folder(tmp_path / "upright", (128, 95), upright, orientation=orientation)
        batch = only_batch(VOCReader(folder, 1, (128, 96), fit=Stretch(), epochs=1))
        assert batch.boxes.tolist() == [[4, 8, 30, 40]]


def test_without_exif_the_size_must_be_the_stored_one(tmp_path):
    folder = rectangles_folder(tmp_path, size=(128, 96), orientation=6)
    with (
        Pipeline([VOCReader(folder, 1, (128, 96), epochs=1, exif=False)]) as pipeline,
        pytest.raises(DecodeError, match=r"96 x 128 pixels.*says 128 x 96"),
    ):
        pipeline.dequeue()
    folder = rectangles_folder(tmp_path / "stored", orientation=6)
    reader = VOCReader(folder, 1, (96, 128), epochs=1, exif=False)
    assert_around(only_batch(reader), reader.classes)


def test_pngs_turn_too(tmp_path):
    folder = rectangles_folder(tmp_path)
    (folder / "JPEGImages" / "a.jpg").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn().save(folder / "JPEGImages" / "a.png", exif=exif)
    reader = VOCReader(folder, 1, (128, 96), fit=Stretch(), epochs=1)
    batch = only_batch(reader, Augmentations([FlipX(1)]))
    assert batch.keys == ["a.png"]
    assert_around(batch, reader.classes)


def test_flips_are_the_same_as_without_the_reader(folder):
    """Flips that the reader does, or that stand behind something that it does not do."""
    reader = VOCReader(folder, 11, (40, 50), epochs=1, shuffle=False)
    batch = only_batch(reader, Augmentations([FlipX(), FlipY()], seed=5))
    plain = only_batch(VOCReader(folder, 11, (40, 50), epochs=1, shuffle=False))
    for i in range(batch.size):
        options = [
            (x, y)
            for x in (False, True)
            for y in (False, True)
            if np.array_equal(batch.images[i], plain.images[i][:: -1 if y else 1, :: -1 if x else 1])
        ]
        ((x, y),) = options
        x0, y0, x1, y1 = plain.boxes_of(i).T
        if x:
            x0, x1 = 50 - x1, 50 - x0
        if y:
            y0, y1 = 40 - y1, 40 - y0
        np.testing.assert_allclose(batch.boxes_of(i), np.stack((x0, y0, x1, y1), axis=1), atol=1e-4)


class Pass(Stage):
    """Nothing, so that no reader does what is behind it."""

    def process(self, batch):
        return batch


@pytest.mark.parametrize(
    "fit", [Letterbox(), RandomResizedCrop(scale=(0.2, 0.7))], ids=["letterbox", "random"]
)
def test_the_reader_flips_as_the_stage_does(folder, fit):
    def run(*between):
        reader = VOCReader(folder, 11, (41, 53), fit=fit, epochs=2)
        return epochs_of(reader, *between, Augmentations([FlipX(), FlipY(), Normalize()]))

    for mine, other in zip(run(), run(Pass()), strict=True):
        assert mine.keys == other.keys and mine.offsets.tolist() == other.offsets.tolist()
        for name in (*mine.fields, *mine.extras):
            np.testing.assert_array_equal(mine[name], other[name])


class Inwards(FlipX):
    """A flip with its own way with boxes."""

    def apply_boxes(self, boxes, owners, params, shape):
        return boxes + 1, None


class Renamed(Normalize):
    """Normalize that does something to labels."""

    def apply_labels(self, labels, params):
        return labels + 100


def test_the_reader_leaves_what_was_made_to_do_more(folder, tmp_path):
    plain = only_batch(VOCReader(folder, 11, (40, 50), epochs=1, shuffle=False))
    own = only_batch(VOCReader(folder, 11, (40, 50), epochs=1, shuffle=False), Augmentations([Inwards(1)]))
    np.testing.assert_array_equal(own.images, plain.images[:, :, ::-1])
    np.testing.assert_array_equal(own.boxes, plain.boxes + 1)
    photos = class_folders(tmp_path, classes=2, each=1)
    batch = only_batch(ImageFileReader(photos, 2, (8, 8), epochs=1), Augmentations([FlipX(), Renamed()]))
    assert sorted(batch.labels.tolist()) == [100, 101] and batch.images.shape == (2, 3, 8, 8)


def test_boxes_go_before_normalize(folder):
    reader = VOCReader(folder, 11, (40, 50), epochs=1, shuffle=False)
    batch = only_batch(reader, Augmentations([FlipX(1), Normalize()]))
    plain = only_batch(VOCReader(folder, 11, (40, 50), epochs=1, shuffle=False))
    assert batch.images.shape == (11, 3, 40, 50)
    np.testing.assert_allclose(batch.boxes[:, 0], 50 - plain.boxes[:, 2], atol=1e-4)


def test_what_is_not_shown_is_left_out(tmp_path):
    # The middle 60 x 60 of a picture of 60 x 80: columns 10 to 70.
    boxes = {"out": (1, 1, 10, 60), "edge": (1, 1, 11, 60), "half": (1, 11, 20, 20), "in": (11, 1, 70, 60)}
    things = [thing(name, box, difficult=int(name == "half")) for name, box in boxes.items()]
    folder = voc_folder(tmp_path, {"a": annotation(*things)})

    def left(**options):
        reader = VOCReader(folder, 1, (120, 120), fit=CenterFit(), epochs=1, **options)
        batch = only_batch(reader)
        names = [reader.classes[label] for label in batch.labels]
        assert batch.difficult.tolist() == [name == "half" for name in names]
        return dict(zip(names, batch.boxes.tolist(), strict=True))

    whole = {"edge": [0, 0, 2, 120], "half": [0, 20, 20, 40], "in": [0, 0, 120, 120]}
    assert left() == whole
    assert left(min_visible=0.5) == {"half": whole["half"], "in": whole["in"]}
    assert left(min_visible=0.51) == left(min_visible=1) == {"in": whole["in"]}
    assert left(difficult=False) == {"edge": whole["edge"], "in": whole["in"]}


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_equal_bits_for_any_number_of_threads(folder, workers):
    def run(count):
        reader = VOCReader(
            folder, 3, (40, 40), fit=RandomResizedCrop(scale=(0.2, 1)), epochs=2, seed=3, workers=count
        )
        return [
            (batch.keys, *(array.tobytes() for array in (*batch, batch.offsets, *batch.extras.values())))
            for batch in epochs_of(reader, Augmentations([FlipX()]))
        ]

    assert run(workers) == run(1)


def test_shards_and_epochs(folder):
    keys = []
    for rank in range(2):
        reader = VOCReader(folder, 2, (20, 20), shard=(rank, 2), epochs=1)
        assert reader.shard == (rank, 2)
        keys += [key for batch in epochs_of(reader) for key in batch.keys]
    assert {*keys} == {f"{number:02}.jpg" for number in range(11)} and len(keys) == 12


def test_max_errors_counts_annotations(folder, tmp_path):
    bad = voc_folder(tmp_path, {str(number): "" for number in range(4)} | {"good": annotation(thing())})
    options = {"classes": ["dog"]}
    with (
        Pipeline([VOCReader(bad, 5, (20, 20), on_error="skip", max_errors=3, **options)]) as pipeline,
        pytest.raises(TooManyErrors, match="VOCReader: 4 of 5"),
    ):
        pipeline.dequeue()
    reader = VOCReader(bad, 2, (20, 20), on_error="replace", max_errors=4, epochs=1, **options)
    with Pipeline([reader]) as pipeline:
        assert [batch.keys for batch in pipeline] == [["good.jpg"] * 2] * 2 + [["good.jpg"]]


# Folders


def test_splits(folder, tmp_path):
    copy = voc_folder(tmp_path, {name: annotation(thing()) for name in ("b", "a", "two words", "c")})
    lists = copy / "ImageSets/Main"
    (lists / "val.txt").write_bytes(b"\xef\xbb\xbfc\r\n\r\n  a  \r\n")
    (lists / "dog_train.txt").write_text("a -1\nb  1\ntwo words  0\n")

    def keys(**options):
        return only_batch(VOCReader(copy, 9, (20, 20), shuffle=False, epochs=1, **options)).keys

    assert keys() == ["b.jpg", "a.jpg", "two words.jpg", "c.jpg"]
    assert keys(split="val") == ["c.jpg", "a.jpg"]
    assert keys(split="dog_train") == ["a.jpg", "b.jpg", "two words.jpg"]
    assert keys(split=None) == ["a.jpg", "b.jpg", "c.jpg", "two words.jpg"]
    with pytest.raises(DatasetError, match=r"split is 'test'.*dog_train, train, val; split=None"):
        VOCReader(copy, 1, (20, 20), split="test")


def test_a_folder_without_lists(tmp_path):
    folder = voc_folder(tmp_path, {"b": annotation(), "a": annotation()}, splits=False)
    assert only_batch(VOCReader(folder, 2, (20, 20), split=None, shuffle=False, epochs=1)).keys == [
        "a.jpg",
        "b.jpg",
    ]
    with pytest.raises(DatasetError, match=r"split is 'train'.*it has no lists; split=None reads everything"):
        VOCReader(folder, 1, (20, 20))


def test_no_such_folder(tmp_path):
    with pytest.raises(DatasetError, match="Annotations' cannot be listed: No such file"):
        VOCReader(tmp_path, 1, (20, 20))
    folder = voc_folder(tmp_path / "empty", {})
    for split in (None, "train"):
        with pytest.raises(EmptyDatasetError, match="names no samples"):
            VOCReader(folder, 1, (20, 20), split=split)
    (folder / "ImageSets/Main/train.txt").write_bytes(b"a\0b\n")
    with pytest.raises(DatasetError, match="is not text"):
        VOCReader(folder, 1, (20, 20))


def test_endings_of_pictures(tmp_path):
    folder = voc_folder(tmp_path, dict.fromkeys("abc", annotation(thing())))
    photograph(60, 80).save(folder / "JPEGImages" / "a.png")
    (folder / "JPEGImages" / "b.jpg").rename(folder / "JPEGImages" / "b.JPEG")
    (folder / "JPEGImages" / "c.jpg").unlink()
    photograph(60, 80).save(folder / "JPEGImages" / "c.png")
    assert only_batch(VOCReader(folder, 9, (9, 9), shuffle=False, epochs=1)).keys == [
        "a.jpg",
        "b.JPEG",
        "c.png",
    ]


def test_fingerprint(folder, tmp_path):
    def fingerprint(root=folder, **options):
        return VOCReader(root, 2, (8, 8), **options).fingerprint()

    assert fingerprint() == fingerprint(os.fsencode(folder)) == fingerprint(fit=Stretch(), epochs=3)
    assert (
        len({fingerprint(), fingerprint(split=None, seed=1), fingerprint(classes=["cat", "dog", "bird"])})
        == 3
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": 3}, "split is 3"),
        ({"split": ""}, "split is ''"),
        ({"classes": "dog"}, "classes is 'dog'"),
        ({"classes": []}, r"classes is \[\]"),
        ({"other_classes": "keep"}, "other_classes is 'keep'"),
        ({"other_classes": "drop"}, "other_classes is 'drop', and classes is not given"),
        ({"strict": 1}, "strict"),
        ({"images": None}, "images is None; expected a path"),
        ({"annotations": 3}, "annotations is 3; expected a path"),
        ({"classes": ["dog", "dog"]}, "each name once"),
        ({"min_visible": 2}, "min_visible is 2"),
        ({"min_visible": math.nan}, "min_visible is nan"),
        ({"difficult": "no"}, "difficult"),
        ({"one_based": 1}, "one_based"),
        ({"masks": 1}, "masks"),
        ({"fit": FlipX()}, "fit is FlipX"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"shape": 0}, "shape is 0"),
        ({"masks": True, "mask_fill": 256}, "mask_fill is 256"),
    ],
)
def test_arguments_are_checked(folder, options, message):
    with pytest.raises(ArgumentError, match=f"^VOCReader: .*{message}"):
        VOCReader(**{"root": folder, "batch_size": 4, "shape": (8, 8), **options})


def test_min_visible_of_the_fit_counts_too(folder):
    def boxes(**options):
        fit = RandomResizedCrop(scale=(0.1, 0.2), min_visible=options.pop("fit", 0.0))
        reader = VOCReader(folder, 11, (60, 80), epochs=1, seed=1, fit=fit, **options)
        return len(only_batch(reader).boxes)

    assert boxes() > boxes(fit=0.6) == boxes(min_visible=0.6) == boxes(fit=0.2, min_visible=0.6)


def test_resize_is_no_fit_of_a_reader(folder):
    with pytest.raises(ArgumentError, match=r"VOCReader: fit is Resize.*Stretch\(\)"):
        VOCReader(folder, 4, (60, 80), fit=Resize(40))
