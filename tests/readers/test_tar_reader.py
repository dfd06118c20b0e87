"""TarReader: samples in tar files, read where they lie, in any order."""

import errno
import io
import json
import os
import pickle
import random
import shutil
import subprocess

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, photograph
from PIL import Image
from tars import members_of, shards_of_folder, write_tar

from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    DatasetError,
    DecodeError,
    EmptyDatasetError,
    ReadError,
    StateMismatchError,
    StorageError,
    TarError,
    TooManyErrors,
)
from highway.modules import Augmentations, ImageFileReader, ImageSaver, ListReader, TarReader
from highway.modules.readers.sample_fields import SampleField
from highway.modules.readers.tar_samples import TarSamples
from highway.storage import outages
from highway.storage.tar_index import indexed
from highway.transforms import CenterFit, FlipX, Letterbox, RandomResizedCrop, ToFloat

PICTURE = jpeg_bytes(photograph(30, 40))
SHAPE = (24, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders of JPEGs, one of them turned by EXIF, and a PNG."""
    root = class_folders(tmp_path_factory.mktemp("photos"), 3, 9)
    (root / "class1" / "3.jpg").write_bytes(jpeg_bytes(photograph(50, 70, 5), orientation=6))
    photograph(44, 55, 7).save(root / "class2" / "png.png")
    return root


@pytest.fixture(scope="module")
def tars(folder, tmp_path_factory):
    keys = [*ImageFileReader(folder, 1, SHAPE).known_keys()]
    return shards_of_folder(folder, keys, tmp_path_factory.mktemp("tars"), 5)


def samples_of(reader, *stages, epochs=1):
    """Bits of every field of every sample, by epoch and key."""
    found = {}
    with Pipeline([reader, *stages]) as pipeline:
        for _ in range(epochs):
            for batch in pipeline:
                for row, key in enumerate(batch.keys):
                    sample = batch.epoch, os.path.splitext(key)[0] if "." in key else key
                    assert sample not in found
                    found[sample] = [
                        batch.rows_of(name, row).tobytes() if name in batch.ragged else array[row].tobytes()
                        for name, array in batch.fields.items()
                    ]
    return found


def one_tar(tmp_path, *samples, name="a.tar", **options):
    members = [
        member for number, sample in enumerate(samples) for member in members_of(f"{number:03}", sample)
    ]
    return str(write_tar(tmp_path / name, members, **options))


def only_batch(reader, *stages):
    with Pipeline([reader, *stages]) as pipeline:
        return pipeline.dequeue()


# Equal to the folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit": RandomResizedCrop()},
        {"fit": Letterbox(), "color": "gray"},
        {"fit": RandomResizedCrop(), "exif": False, "exact": True, "seed": 9},
    ],
    ids=["center", "random", "letterbox gray", "exif"],
)
@pytest.mark.parametrize("stages", [[], [Augmentations([FlipX(), ToFloat()])]], ids=["", "fused"])
def test_bits_are_those_of_the_files(folder, tars, options, stages):
    of_files = ImageFileReader(folder, 4, SHAPE, epochs=2, **options)
    of_tars = TarReader(tars, 4, SHAPE, epochs=2, **options)
    expected = samples_of(of_files, *stages, epochs=2)
    assert len(expected) == 2 * 28
    assert samples_of(of_tars, *stages, epochs=2) == expected
    # Other batches and threads, and another order of the samples.
    again = TarReader(tars, 7, SHAPE, epochs=2, workers=3, window=2, **options)
    assert samples_of(again, *stages, epochs=2) == expected


def test_indices_and_keys(folder, tars):
    files = ImageFileReader(folder, 28, SHAPE, shuffle=False, epochs=1)
    reader = TarReader(tars, 28, SHAPE, shuffle=False, epochs=1)
    one, other = only_batch(files), only_batch(reader)
    assert other.keys == [os.path.splitext(key)[0] for key in one.keys]
    assert list(reader.known_keys()) == other.keys
    assert np.array_equal(one.labels, other.labels) and np.array_equal(one.images, other.images)
    assert reader.size == 28 and list(other.fields) == ["images", "labels"]
    assert Pipeline([reader]).spec == Pipeline([files]).spec


def test_a_brace_list_without_an_end_is_only_for_writing(tmp_path):
    with pytest.raises(ArgumentError, match=r"'\{000\.\.\}' has no last number.*wildcard: '.*/t-\*\.tar'"):
        TarReader(tmp_path / "t-{000..}.tar", 1, 8)
    path = write_tar(tmp_path / "t-{000..}.tar", [("a.jpg", PICTURE), ("a.cls", b"1")])
    assert TarReader(path, 1, 8).size == 1  # a file may have this name


def test_names_of_tars_and_the_program_tar(folder, tmp_path):
    for name in ("a", "b"):
        command = ["tar", "--sort=name", "-C", folder, "-cf", tmp_path / f"{name}.tar"]
        inside = ["./class0"] if name == "a" else ["class1", "class2"]
        subprocess.run([*command, *inside], check=True, timeout=60)
    reader = TarReader(tmp_path / "{a,b}.tar", 4, SHAPE, label=None, epochs=1)
    keys = [os.path.splitext(key)[0] for key in ImageFileReader(folder, 4, SHAPE).known_keys()]
    assert sorted(reader.known_keys()) == sorted(keys)
    expected = samples_of(
        ListReader(
            [folder / key for key in ImageFileReader(folder, 4, SHAPE).known_keys()],
            None,
            4,
            SHAPE,
            shuffle=False,
            epochs=1,
        )
    )
    found = samples_of(TarReader(tmp_path / "?.tar", 4, SHAPE, label=None, shuffle=False, epochs=1))
    assert {key: found[0, key] for key in keys} == {
        os.path.relpath(key, folder): bits for (_, key), bits in expected.items()
    }


# Order


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("window", [None, 1, 2])
def test_every_sample_once_an_epoch(tars, world, window):
    ranks = []
    for rank in range(world):
        reader = TarReader(tars, 3, 8, epochs=2, shard=(rank, world), window=window)
        with Pipeline([reader]) as pipeline:
            ranks.append(
                [[index for batch in pipeline for index in batch.indices.tolist()] for _ in range(2)]
            )
    for epoch in range(2):
        found = [index for rank in ranks for index in rank[epoch]]
        assert set(found) == set(range(28)) and len(found) - 28 < world
        assert len({len(rank[epoch]) for rank in ranks}) == 1


@pytest.mark.parametrize("window", [None, 2])
def test_resuming_anywhere_in_other_batches_and_another_world(tars, window):
    rng = random.Random(1)
    options = {"fit": RandomResizedCrop(), "epochs": 2, "window": window}
    expected = samples_of(TarReader(tars, 4, 8, **options), epochs=2)
    for _ in range(25):
        batch_size, world, others = rng.randrange(1, 8), rng.choice([1, 2, 3]), rng.choice([1, 2, 3])
        before = rng.randrange(1, max(2, 28 // (batch_size * world)))
        found, state = {}, None
        for rank in range(world):
            reader = TarReader(tars, batch_size, 8, shard=(rank, world), **options)
            with Pipeline([reader]) as pipeline:
                for _ in range(before):
                    batch = pipeline.dequeue()
                    for row, key in enumerate(batch.keys):
                        found[batch.epoch, key] = [array[row].tobytes() for array in batch.fields.values()]
                state = json.loads(json.dumps(pipeline.state_dict()))
        for rank in range(others):
            reader = TarReader(tars, rng.randrange(1, 8), 8, shard=(rank, others), **options)
            with Pipeline([reader]) as pipeline:
                pipeline.load_state_dict(state)
                while True:
                    batch = pipeline.dequeue()
                    if batch.epoch:
                        break
                    for row, key in enumerate(batch.keys):
                        bits = [array[row].tobytes() for array in batch.fields.values()]
                        # Ranks are filled up with samples that another one has too.
                        assert found.setdefault((0, key), bits) == bits
        assert found == {sample: bits for sample, bits in expected.items() if not sample[0]}


def test_a_state_belongs_to_its_window(tars):
    def state(window):
        with Pipeline([TarReader(tars, 4, 8, window=window)]) as pipeline:
            pipeline.dequeue()
            return pipeline.state_dict()

    for saved, loaded in ((None, 2), (2, None), (2, 3)):
        found = state(saved)
        with (
            Pipeline([TarReader(tars, 4, 8, window=loaded)]) as pipeline,
            pytest.raises(StateMismatchError, match="window"),
        ):
            pipeline.load_state_dict(found)


def test_a_state_belongs_to_its_samples(tars, tmp_path):
    with Pipeline([TarReader(tars, 4, 8)]) as pipeline:
        pipeline.dequeue()
        state = pipeline.state_dict()
    with (
        Pipeline([TarReader(tars[::-1], 4, 8)]) as pipeline,
        pytest.raises(StateMismatchError, match="the samples are not the same"),
    ):
        pipeline.load_state_dict(state)


def test_equal_readers(tars):
    reader = TarReader(tars, 4, 8, window=2, fields={"text": ("cls", "float32")})
    again = pickle.loads(pickle.dumps(reader))
    assert again == reader
    assert again.fingerprint() == reader.fingerprint() != TarReader(tars, 4, 8).fingerprint()
    assert "and 4 more tars" in repr(reader) and "window=2" in repr(reader)


# Fields


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_fields_by_ending(tmp_path):
    samples = [
        {
            "JPG": PICTURE,
            "cls": b" 7\n",
            "json": json.dumps({"label": {"id": number}, "tags": [1, 2.5], "names": ["a", "b"]}).encode(),
            "txt": "größe".encode(),
            "emb.npy": npy(np.full((2, 3), number, np.float64)),
            "raw": b"\0\1",
        }
        for number in range(2)
    ]
    samples[0]["n.json"], samples[1]["n.json"] = b"[1]", b"[1, 2]"
    fields = {
        "number": "json:label.id",
        "tags": "json:tags",
        "first": "json:names.0",
        "whole": "json",
        "caption": "txt",
        "embedding": "emb.npy",
        "raw": "raw",
        "several": ("n.json", object),
        "small": ("json:label.id", "uint8"),
    }
    batch = only_batch(TarReader(one_tar(tmp_path, *samples), 2, 8, shuffle=False, fields=fields))
    assert list(batch.fields) == ["images", "labels", *fields]
    assert batch.labels.tolist() == [7, 7] and batch.labels.dtype == np.int64
    assert batch["number"].tolist() == [0, 1] and batch["number"].dtype == np.int64
    assert batch["tags"].tolist() == [[1, 2.5]] * 2 and batch["tags"].dtype == np.float32
    assert batch["first"].tolist() == ["a", "a"]
    assert batch["whole"][1]["label"] == {"id": 1}
    assert batch["caption"].tolist() == ["größe", "größe"]
    assert batch["embedding"].dtype == np.float64 and batch["embedding"][1].tolist() == [[1] * 3] * 2
    assert batch["raw"].tolist() == [b"\0\1"] * 2
    assert batch["several"].tolist() == [[1], [1, 2]]
    assert batch["small"].dtype == np.uint8


def damaged(old, new):
    contents = npy(np.arange(6))
    assert old in contents
    return contents.replace(old, new)


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        (damaged(b"(6,), }       ", b"(1 << 40,), } "), "is no array"),
        (
            damaged(b"(6,), }" + b" " * 12, b"(1099511627776,), }"),
            "needs 8796093022208 bytes, and there are 48",
        ),
        (damaged(b"(6,), }  ", b"(-2,-3), "), "is no array"),
        (damaged(b"(6,), }", b"(((((( "), "is no array"),
        (damaged(b"'descr'", b"0x     "), "is no array"),
        (npy(np.arange(6))[:-1], "needs 48 bytes, and there are 47"),
        (npy(np.arange(6)) + b"x", "needs 48 bytes, and there are 49"),
        (npy(np.arange(6))[:50], "is no array"),
        (npy(np.array([{}], object)), "without objects"),
        (b"PK\3\4", "is no array"),
        (b"", "is no array"),
    ],
)
def test_damaged_arrays(contents, text):
    field = SampleField("a", "npy", "Test", "label")
    with pytest.raises(DecodeError, match=text):
        field.value(contents)


@pytest.mark.parametrize(
    "array",
    [np.arange(6).reshape(2, 3), np.zeros((0, 4), "f4"), np.float64(3), np.asfortranarray([[1, 2], [3, 4]])],
)
def test_arrays(array):
    found = SampleField("a", "npy", "Test", "label").value(npy(array))
    assert found.dtype == array.dtype and found.shape == array.shape and (found == array).all()


def test_labels(tmp_path):
    path = one_tar(
        tmp_path,
        *(
            {
                "jpg": PICTURE,
                "txt": name.encode(),
                "json": json.dumps(
                    {"name": name, "both": [name, "dog"], "price": price, "on": [1, 0, 1]}
                ).encode(),
            }
            for name, price in (("cat", 2), ("dog", 2.5))
        ),
    )

    def labels(label, **options):
        batch = only_batch(TarReader(path, 2, 8, shuffle=False, label=label, **options))
        return batch.labels

    classes = ["dog", "cat"]
    assert labels("txt", classes=classes).tolist() == [1, 0]
    assert labels("json:name", classes=classes).tolist() == [1, 0]
    assert labels("json:both", classes=classes).tolist() == [[1, 0], [0, 0]]
    assert labels("json:on").tolist() == [[1, 0, 1]] * 2
    prices = labels(("json:price", "float32"))
    assert prices.tolist() == [2, 2.5] and prices.dtype == np.float32
    assert TarReader(path, 2, 8, label="txt", classes=classes).classes == classes
    with pytest.raises(
        DecodeError, match=r"TarReader: '001.json:price' of .* has values of type float32; expected int64"
    ):
        labels("json:price")
    with pytest.raises(ArgumentError, match=r"labels are 'cat'.*names together with classes"):
        labels("txt")
    with pytest.raises(DecodeError, match=r"has 'cat'; expected one of the classes 'dog'"):
        labels("txt", classes=["dog"])
    with pytest.raises(DecodeError, match=r"has no 'a.b'|has no 'a'"):
        labels("json:a.b")


@pytest.mark.parametrize(
    "ending, three", [("cls", b"3"), ("json:a", b'{"a": 3}'), ("json:a", b'{"a": [0, 3]}')]
)
def test_numbers_of_classes_are_in_range(tmp_path, ending, three):
    path = one_tar(tmp_path, {"jpg": PICTURE, ending.partition(":")[0]: three})
    for classes in (["a", "b", "c", "d"], None):
        reader = TarReader(path, 1, 8, label=ending, classes=classes)
        assert only_batch(reader).labels.max() == 3
    with pytest.raises(DecodeError, match=r"has the class number 3; expected 0 to 2, the places in classes"):
        TarReader(path, 1, 8, label=ending, classes=["a", "b", "c"])


def test_boxes_and_masks(tmp_path):
    mask = np.zeros((30, 40), np.uint8)
    mask[:15] = 3
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "PNG")
    boxes = [[[0, 0, 20, 15], [10, 10, 40, 30]], []]
    samples = [
        {
            "jpg": PICTURE,
            "json": json.dumps({"boxes": each, "labels": [4, 5][: len(each)]}).encode(),
            "boxes.npy": npy(np.array(each, np.float64).reshape(-1, 4)),
            "mask.png": png.getvalue(),
        }
        for each in boxes
    ]
    path = one_tar(tmp_path, *samples)
    (tmp_path / "p.jpg").write_bytes(PICTURE)
    (tmp_path / "m.png").write_bytes(png.getvalue())
    expected = only_batch(
        ListReader(
            [tmp_path / "p.jpg"] * 2,
            [[4, 5], []],
            2,
            (20, 20),
            boxes=boxes,
            masks=[tmp_path / "m.png"] * 2,
            mask_fill=9,
            shuffle=False,
        )
    )
    for field in ("json:boxes", "boxes.npy"):
        found = only_batch(
            TarReader(
                path,
                2,
                (20, 20),
                label="json:labels",
                boxes=field,
                masks="mask.png",
                mask_fill=9,
                shuffle=False,
            )
        )
        assert list(found.fields) == ["images", "labels", "boxes", "masks"]
        for name, array in expected.fields.items():
            assert np.array_equal(found[name], array) and found[name].dtype == array.dtype
        assert found.offsets.tolist() == expected.offsets.tolist() == [0, 2, 2]


@pytest.mark.parametrize("upright", [False, True])
def test_boxes_and_masks_of_turned_pictures(tmp_path, upright):
    turned = jpeg_bytes(photograph(30, 40), orientation=6)
    height, width = (40, 30) if upright else (30, 40)
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 3
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "PNG")
    sample = {
        "jpg": turned,
        "json": json.dumps([[0, 0, width, height // 2]]).encode(),
        "mask.png": png.getvalue(),
    }
    reader = TarReader(
        one_tar(tmp_path, sample), 1, (40, 30), label=None, boxes="json", masks="mask.png", upright=upright
    )
    batch = only_batch(reader)
    if upright:
        assert batch.boxes.tolist() == [[0, 0, 30, 20]]
        assert (batch.masks[0, :20] == 3).all() and not batch.masks[0, 20:].any()
    else:
        # Turned clockwise: the top becomes the right half.
        assert batch.boxes.tolist() == [[15, 0, 30, 40]]
        assert (batch.masks[0, :, 15:] == 3).all() and not batch.masks[0, :, :15].any()


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ([[0, 0, 1]], r"has the shape \(1, 3\); expected \('n', 4\)"),
        ([[5, 0, 1, 1]], "with the smaller first"),
        ([[0, 0, 1, float("nan")]], "expected finite numbers"),
        ([[0, 0, 1, 1]] * 2, "has 2 boxes, and there are 1 labels"),
        ("no", "has values of type object; expected float32"),
    ],
)
def test_wrong_boxes_are_bad_samples(tmp_path, boxes, text):
    samples = [
        {"jpg": PICTURE, "json": json.dumps({"b": each, "l": [1]}).encode()}
        for each in ([[0, 0, 9, 9]], boxes)
    ]
    path = one_tar(tmp_path, *samples)
    options = {"label": "json:l", "boxes": "json:b", "shuffle": False, "epochs": 1}
    with pytest.raises(DecodeError, match=text):
        only_batch(TarReader(path, 2, 8, **options))
    reader = TarReader(path, 2, 8, on_error="skip", **options)
    assert only_batch(reader).keys == ["000"]
    assert reader.errors[0][0] == "001"


# Grouping


def test_samples_are_grouped_as_by_webdataset(tmp_path):
    members = [
        ("__meta__/x.jpg", PICTURE),
        ("dir.d/a.b.jpg", PICTURE),
        ("dir.d/a.cls", b"1"),
        ("dir.d/.hidden.jpg", PICTURE),
        ("noending", b"x"),
        ("./c.jpg", PICTURE),
        ("c.cls", b"2"),
        ("alone.cls", b"9"),
        ("e.png", b""),
        ("e.cls", b"3"),
        ("e.jpeg", PICTURE),
    ]
    path = write_tar(tmp_path / "a.tar", members)
    reader = TarReader(path, 3, 8, shuffle=False, epochs=1, image="b.jpg;jpg;jpeg;png")
    batch = only_batch(reader)
    assert batch.keys == ["dir.d/a", "c", "e"] and batch.labels.tolist() == [1, 2, 3]
    assert reader.without_picture == 1


def test_other_samples_without_pictures_are_reported(tmp_path, caplog):
    path = one_tar(tmp_path, {"jpg": PICTURE, "cls": b"1"}, {"cls": b"1"})
    with caplog.at_level("WARNING", "highway.modules"):
        assert TarReader(path, 1, 8).size == 1
    assert "1 samples of 2 in" in caplog.text


def test_two_members_with_one_name(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a.jpg", PICTURE), ("a.cls", b"1"), ("a.JPG", PICTURE)])
    with pytest.raises(TarError, match=r"'a\.jpg' of .* and 'a\.JPG' of .* have the same name and ending"):
        TarReader(path, 1, 8)


def test_a_sample_in_two_places_of_a_tar(tmp_path):
    members = [("a.jpg", PICTURE), ("b.jpg", PICTURE), ("a.cls", b"1"), ("b.cls", b"1")]
    with pytest.raises(TarError, match=r"has members of the sample 'a' in two places.*--sort=name"):
        TarReader(write_tar(tmp_path / "a.tar", members), 1, 8)


def test_a_sample_that_is_split_over_tars(tmp_path):
    one = write_tar(tmp_path / "a.tar", [("x.jpg", PICTURE), ("x.cls", b"0"), ("y.jpg", PICTURE)])
    other = write_tar(tmp_path / "b.tar", [("y.cls", b"1"), ("z.jpg", PICTURE), ("z.cls", b"2")])
    with pytest.raises(
        TarError, match=r"the sample 'y' is split: '.*a\.tar' has a part of it and '.*b\.tar'"
    ):
        TarReader([one, other], 1, 8)
    # Of no importance without labels.
    assert TarReader([one, other], 1, 8, label=None).size == 3


def test_tars_that_number_their_samples_alike(tmp_path):
    paths = [
        one_tar(tmp_path, *({"jpg": PICTURE, "cls": b"%d" % tar} for _ in range(3)), name=f"{tar}.tar")
        for tar in range(3)
    ]
    batch = only_batch(TarReader(paths, 9, 8, shuffle=False))
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert batch.keys == ["000", "001", "002"] * 3


def test_names_that_lead_out_of_folders_are_only_names(tmp_path):
    members = [("../../etc/a.jpg", PICTURE), ("/abs/b.jpg", PICTURE), ("c/../../d.jpg", PICTURE)]
    path = write_tar(tmp_path / "a.tar", members)
    reader = TarReader(path, 3, 8, label=None, shuffle=False, epochs=1)
    assert list(reader.known_keys()) == ["../../etc/a", "/abs/b", "c/../../d"]
    assert only_batch(reader).size == 3
    with (
        Pipeline([reader, ImageSaver(tmp_path / "out")]) as pipeline,
        pytest.raises(ArgumentError, match="is not a file inside of the folder"),
    ):
        pipeline.dequeue()
    assert not (tmp_path.parent.parent / "etc").exists()


# Bad samples


def bad_tar(tmp_path):
    return one_tar(
        tmp_path,
        {"jpg": PICTURE, "cls": b"0"},
        {"jpg": PICTURE[:-200], "cls": b"1"},
        {"jpg": PICTURE},
        {"jpg": PICTURE, "cls": b"three"},
        {"jpg": b"", "cls": b"4"},
        {"jpg": b"hello", "cls": b"5"},
        {"jpg": PICTURE, "cls": b"6"},
    )


def test_bad_samples_are_skipped_or_replaced(tmp_path):
    path = bad_tar(tmp_path)
    reader = TarReader(path, 7, 8, shuffle=False, epochs=1, on_error="skip")
    batch = only_batch(reader)
    assert batch.labels.tolist() == [0, 6] and batch.keys == ["000", "006"]
    errors = dict(reader.errors)
    assert sorted(errors) == ["001", "002", "003", "004", "005"]
    assert "'001.jpg' of" in errors["001"] and "a.tar" in errors["001"]
    assert "'002.cls' of" in errors["002"] and "is not there" in errors["002"]
    assert "has 'three'; expected a whole number" in errors["003"]
    assert "is empty (0 bytes)" in errors["004"]
    batch = only_batch(TarReader(path, 7, 8, shuffle=False, epochs=1, on_error="replace"))
    assert batch.size == 7 and set(batch.labels.tolist()) == {0, 6}
    with pytest.raises(TooManyErrors):
        only_batch(TarReader(path, 7, 8, epochs=1, on_error="skip", max_errors=2))
    with pytest.raises((DecodeError, ReadError)):
        only_batch(TarReader(path, 7, 8, epochs=1))


@pytest.mark.parametrize("kept", [False, True], ids=["", "with its index"])
def test_flipped_bits_anywhere(tmp_path, kept):
    """A sample without a flipped bit is right, or there is an error; the state of the file does not tell."""
    samples = [{"jpg": jpeg_bytes(photograph(24, 32, seed)), "cls": b"%d" % seed} for seed in range(6)]
    path = one_tar(tmp_path, *samples)
    options = {
        "shuffle": False,
        "epochs": 1,
        "on_error": "skip",
        "max_errors": 1.0,
        "index_dir": tmp_path / "indexes",
    }
    expected = samples_of(TarReader(path, 2, 8, **options))
    (index,) = indexed([path], "Test", str(tmp_path / "indexes"))
    whole, state = (tmp_path / "a.tar").read_bytes(), os.stat(path)
    rng = random.Random(int(kept))
    skipped = refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        place = rng.randrange(int(index.starts[-1] + index.sizes[-1]))
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "a.tar").write_bytes(damaged)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        if not kept:
            shutil.rmtree(tmp_path / "indexes", ignore_errors=True)
        # The sample whose members, or headers of members, have the flipped bit.
        hit = int(np.searchsorted(index.starts + index.sizes, place, "right")) // 2
        try:
            found = samples_of(TarReader(path, 2, 8, **options))
        except (TarError, EmptyDatasetError, ArgumentError, TooManyErrors, DecodeError):
            refused += 1
            continue
        skipped += len(found) < len(expected)
        key = 0, f"{hit:03}"
        assert {name: bits for name, bits in found.items() if name in expected and name != key} == {
            name: bits for name, bits in expected.items() if name != key
        }
    assert (refused > 5) == (not kept) and (kept or skipped < 150)


@pytest.mark.parametrize("label", ["cls", None])
@pytest.mark.parametrize("how", ["cut", "replaced", "written"])
def test_a_tar_that_changes_in_use(tmp_path, how, label):
    """Pictures of one tar with labels of another one must not be read, whatever happens to bad samples."""
    path = one_tar(tmp_path, *({"jpg": PICTURE, "cls": b"1"} for _ in range(8)))
    reader = TarReader(path, 1, 8, label=label, shuffle=False, on_error="skip", queue_size=1, workers=1)
    with Pipeline([reader]) as pipeline:
        assert label is None or pipeline.dequeue().labels.tolist() == [1]
        if how == "cut":
            os.truncate(path, 3 * (512 + -(-len(PICTURE) // 512) * 512 + 1024) + 1000)
        elif how == "replaced":
            other = one_tar(tmp_path, *({"jpg": PICTURE, "cls": b"2"} for _ in range(8)), name="b.tar")
            assert os.path.getsize(other) == os.path.getsize(path)
            os.utime(other, ns=(1, 1))
            os.replace(other, path)
        else:
            with open(path, "r+b") as file:
                file.write(b"other")
            os.utime(path, ns=(1, 1))
        with pytest.raises(DatasetError, match="was changed while it was in use"):
            [pipeline.dequeue() for _ in range(20)]
    if how == "cut":
        with pytest.raises(TarError, match="is cut off"):
            TarReader(path, 8, 8)


def test_a_tar_that_is_replaced_between_its_pictures_and_its_fields(tmp_path, monkeypatch):
    path = one_tar(tmp_path, {"jpg": PICTURE, "cls": b"1"})
    reader = TarReader(path, 1, 8, on_error="skip")
    os.utime(path, ns=(1, 1))
    monkeypatch.setattr(TarSamples, "check_same", lambda self, indices, checked: None)
    with pytest.raises(DatasetError, match="was changed while it was in use"):
        only_batch(reader)


def test_a_tar_that_is_gone(tmp_path):
    path = one_tar(tmp_path, {"jpg": PICTURE, "cls": b"1"})
    reader = TarReader(path, 1, 8)
    os.unlink(path)
    with pytest.raises(ReadError, match="No such file"):
        only_batch(reader)


def test_failing_storage_is_no_bad_sample(tars, monkeypatch):
    reader = TarReader(tars, 7, SHAPE, epochs=1, on_error="skip", workers=1)
    expected = samples_of(reader)
    fails = iter([True] * 3)
    read = os.pread

    def pread(*arguments):
        if next(fails, False):
            raise OSError(errno.EIO, "Input/output error")
        return read(*arguments)

    monkeypatch.setattr(os, "pread", pread)
    again = TarReader(tars, 7, SHAPE, epochs=1, on_error="skip", workers=1)
    assert samples_of(again) == expected
    assert again.errors == [] and next(fails, None) is None
    monkeypatch.setattr(outages, "LIMIT", 0.2)

    def fail(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StorageError, match="the storage failed"):
        samples_of(reader)


def test_no_pictures(tmp_path):
    with pytest.raises(
        EmptyDatasetError, match=r"none of the 1 members .* ends in \.jpg.*there are 'a\.mp4'"
    ):
        TarReader(write_tar(tmp_path / "a.tar", [("a.mp4", b"x")]), 1, 8)
    with pytest.raises(EmptyDatasetError):
        TarReader(write_tar(tmp_path / "b.tar", []), 1, 8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"label": "class"}, r"no sample .* has a member '\.class'; there are '000\.jpg'.*label=None"),
        ({"fields": {"text": "txt"}}, r"no sample .* has a member '\.txt'; there are [^(]*$"),
        ({"label": ".cls"}, "expected an ending without a dot before it"),
        ({"label": "cls:a"}, "expected a path after 'json:' only"),
        ({"label": ("cls", "U3")}, "expected one of numbers"),
        ({"image": "jpg;"}, "image is 'jpg;'"),
        ({"label": "jpg"}, "have the same ending"),
        ({"masks": "a;b"}, "expected one ending"),
        ({"fields": ["txt"]}, "expected endings by the names"),
        ({"fields": {"images": "txt"}}, "fields has the name 'images'"),
        ({"fields": {"a b": "txt"}}, "fields has the name 'a b'"),
        ({"window": 0}, "window is 0"),
        ({"min_visible": 0.5}, "and there are no boxes"),
        ({"mask_fill": 5}, "and there are no masks"),
        ({"upright": 2}, "upright"),
    ],
)
def test_wrong_arguments(tmp_path, options, text):
    path = one_tar(tmp_path, {"jpg": PICTURE, "cls": b"1"})
    with pytest.raises(ArgumentError, match=text):
        TarReader(path, 1, 8, **options)


# Tars of others


def test_tars_of_the_webdataset_package(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="the package webdataset is not installed")
    keys = [*ImageFileReader(folder, 1, SHAPE).known_keys()]
    with webdataset.ShardWriter(str(tmp_path / "w-%04d.tar"), maxcount=10, verbose=0) as writer:
        for key in keys:
            stem, _, ending = key.rpartition(".")
            writer.write({"__key__": stem, ending: (folder / key).read_bytes(), "cls": int(key[5])})
    options = {"fit": RandomResizedCrop(), "epochs": 1}
    expected = samples_of(ImageFileReader(folder, 4, SHAPE, **options))
    assert samples_of(TarReader(tmp_path / "w-{0000..0002}.tar", 4, SHAPE, **options)) == expected


def test_default_fits(tars, tmp_path):
    assert TarReader(tars, 1, 8).fit == CenterFit()
    path = one_tar(tmp_path, {"jpg": PICTURE, "json": b"[]"})
    assert TarReader(path, 1, 8, label=None, boxes="json").fit == Letterbox()
