"""ImageFileReader: what comes out of a folder, in which order, and that it is the same every time."""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, jpeg_kinds, opened, photograph
from PIL import Image, ImageOps
from repository import HELPERS

from highway.engine import Pipeline
from highway.errors import ArgumentError, EmptyDatasetError, EndOfData
from highway.modules import Augmentations, ImageFileReader
from highway.transforms import CenterFit, FlipX, Letterbox, RandomResizedCrop, Stretch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photos"), classes=3, each=7)


def epochs_of(folder, batch_size=4, shape=(24, 32), *, epochs=2, modules=(), **options):
    with Pipeline(
        [ImageFileReader(folder, batch_size, shape, epochs=epochs, **options), *modules]
    ) as pipeline:
        return list(pipeline.forever())


def digest(batches):
    sums = hashlib.sha256()
    for batch in batches:
        sums.update(repr((batch.epoch, batch.seq, batch.keys, batch.indices.tolist())).encode())
        for array in batch:
            sums.update(array.tobytes())
    return sums.hexdigest()


def test_the_first_lines_of_the_readme(folder):
    pipeline = Pipeline([ImageFileReader(folder, 16, (240, 320)), Augmentations([FlipX()])])
    images, labels = pipeline.dequeue()
    assert images.shape == (16, 240, 320, 3) and images.dtype == np.uint8
    assert labels.shape == (16,) and labels.dtype == np.int64
    assert images.flags.writeable and images.flags.c_contiguous
    pipeline.stop()


def test_images_labels_and_keys_belong_together(folder):
    reader = ImageFileReader(folder, 4, (24, 32), epochs=1, exact=True)
    assert reader.classes == ["class0", "class1", "class2"]
    assert len(reader) == 6 and reader.size == 21
    seen = []
    with Pipeline([reader]) as pipeline:
        for number, batch in enumerate(pipeline):
            assert (batch.epoch, batch.seq, batch.applied) == (0, number, 1)
            for image, label, key in zip(batch.images, batch.labels, batch.keys, strict=True):
                assert key.startswith(f"class{label}/")
                picture = ImageOps.fit(opened(folder / key), (32, 24), Image.Resampling.BILINEAR)
                assert np.abs(image.astype(int) - np.asarray(picture)).mean() <= 1
                seen.append(key)
    assert sorted(seen) == sorted(os.path.relpath(p, folder) for p in folder.glob("*/*.jpg"))


@pytest.mark.parametrize("fit", [CenterFit(), RandomResizedCrop()])
def test_equal_bits_for_any_number_of_threads(folder, fit):
    def run(workers, **options):
        return digest(
            epochs_of(
                folder,
                fit=fit,
                workers=workers,
                modules=[Augmentations([FlipX()], workers=workers)],
                **options,
            )
        )

    one = run(1)
    assert run(2) == one and run(8) == one
    assert run(2, seed=1) != one


def test_equal_bits_in_another_process(folder):
    script = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_reader import digest, epochs_of\n"
        "from highway.modules import Augmentations\n"
        "from highway.transforms import FlipX, RandomResizedCrop\n"
        "print(digest(epochs_of(sys.argv[1], fit=RandomResizedCrop(), modules=[Augmentations([FlipX()])])))\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script, str(folder), os.path.dirname(__file__), HELPERS],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    }
    here = digest(epochs_of(folder, fit=RandomResizedCrop(), modules=[Augmentations([FlipX()])]))
    assert runs == {here + "\n"}


def test_what_a_sample_is_does_not_depend_on_its_batch(folder):
    def samples(batch_size, **options):
        found = {}
        for batch in epochs_of(
            folder, batch_size, fit=RandomResizedCrop(), modules=[Augmentations([FlipX()])], **options
        ):
            for image, key in zip(batch.images, batch.keys, strict=True):
                found[batch.epoch, key] = image.tobytes()
        return found

    whole = samples(21)
    assert samples(4) == whole
    parts = {}
    for rank in range(3):
        parts.update(samples(5, shard=(rank, 3)))
    assert parts == whole


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_cover_every_epoch(folder, world, drop_last, shuffle):
    counts = [Counter(), Counter()]
    sizes = set()
    for rank in range(world):
        batches = epochs_of(folder, 2, shard=(rank, world), drop_last=drop_last, shuffle=shuffle)
        sizes.add((len(batches), sum(batch.size for batch in batches)))
        for batch in batches:
            counts[batch.epoch].update(batch.keys)
    assert len(sizes) == 1, "ranks differ"
    for count in counts:
        if drop_last:
            assert max(count.values()) == 1
            assert 21 - sum(count.values()) < 2 * world + world
        else:
            assert len(count) == 21 and sum(count.values()) - 21 <= world - 1


def test_shuffling(folder):
    first, second = (
        [key for batch in epochs_of(folder) if batch.epoch == epoch for key in batch.keys] for epoch in (0, 1)
    )
    assert sorted(first) == sorted(second) and first != second
    assert [key for batch in epochs_of(folder, shuffle=False, epochs=1) for key in batch.keys] == sorted(
        first
    )


def test_epochs_end(folder):
    with Pipeline([ImageFileReader(folder, 4, (8, 8), epochs=2)]) as pipeline:
        assert len(pipeline) == 6
        assert [len(list(pipeline.epoch())) for _ in range(2)] == [6, 6]
        with pytest.raises(EndOfData):
            pipeline.dequeue()


def test_one_hot_and_grey(folder):
    plain = epochs_of(folder, epochs=1)
    for batch, other in zip(plain, epochs_of(folder, epochs=1, labels="one_hot", color="gray"), strict=True):
        assert other.labels.dtype == np.float32 and other.labels.shape == (batch.size, 3)
        np.testing.assert_array_equal(other.labels.argmax(axis=1), batch.labels)
        assert np.all(other.labels.sum(axis=1) == 1)
        assert other.images.shape == (batch.size, 24, 32, 1)
        luma = batch.images @ np.array([0.299, 0.587, 0.114])
        assert np.abs(other.images[..., 0] - luma).mean() < 1.5


def test_every_kind_of_jpeg_and_other_formats_in_one_folder(tmp_path):
    (tmp_path / "all").mkdir()
    for name, contents in jpeg_kinds().items():
        (tmp_path / "all" / f"{name.replace(':', '')}.jpg").write_bytes(contents)
    for ending in ("png", "webp", "bmp", "gif", "tif"):
        photograph(40, 50).save(tmp_path / "all" / f"other.{ending}")
    photograph(40, 50).save(tmp_path / "all" / "really_png.jpg", "PNG")
    for fit in (CenterFit(), Letterbox(), Stretch()):
        (batch,) = epochs_of(tmp_path, 100, (30, 41), fit=fit, epochs=1, exact=True)
        assert batch.size == len(list((tmp_path / "all").iterdir()))
        for image, key in zip(batch.images, batch.keys, strict=True):
            picture = opened(tmp_path / key)
            if isinstance(fit, Stretch):
                expected = np.asarray(picture.resize((41, 30), Image.Resampling.BILINEAR))
                assert np.abs(image.astype(int) - expected).mean() <= 1, key
            assert image.std() > 0


def test_large_pictures_are_close_to_pillow(tmp_path):
    (tmp_path / "a").mkdir()
    for number, size in enumerate([(900, 1200), (1111, 640), (333, 2000)]):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(jpeg_bytes(photograph(*size, number)))
    for exact, limit in ((True, 1), (False, 3)):
        (batch,) = epochs_of(tmp_path, 3, (120, 160), epochs=1, exact=exact)
        for image, key in zip(batch.images, batch.keys, strict=True):
            expected = ImageOps.fit(opened(tmp_path / key), (160, 120), Image.Resampling.BILINEAR)
            assert np.abs(image.astype(int) - np.asarray(expected)).mean() <= limit


def test_orientation_can_be_ignored(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(jpeg_bytes(photograph(40, 40), orientation=3))
    (upright,), (stored,) = (epochs_of(tmp_path, 1, (40, 40), epochs=1, exif=exif) for exif in (True, False))
    np.testing.assert_array_equal(upright.images[:, ::-1, ::-1], stored.images)


def test_held_batches_do_not_change(folder):
    with Pipeline([ImageFileReader(folder, 2, (24, 32)), Augmentations([FlipX()])]) as pipeline:
        held = [pipeline.dequeue() for _ in range(200)]
        before = [hashlib.sha256(batch.images.tobytes()).digest() for batch in held]
        for _ in range(100):
            pipeline.dequeue()
    assert [hashlib.sha256(batch.images.tobytes()).digest() for batch in held] == before


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "a").mkdir()
    name = os.path.join(os.fsencode(tmp_path), b"a", b"caf\xe9.jpg")
    with open(name, "wb") as file:
        file.write(jpeg_bytes(photograph(20, 20)))
    (batch,) = epochs_of(tmp_path, 1, (20, 20), epochs=1)
    assert os.fsencode(batch.keys[0]) == b"a/caf\xe9.jpg"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"shape": (1, 2, 3)}, r"shape is \(1, 2, 3\).*height, width"),
        ({"shape": (0, 5)}, r"shape\[0\] is 0"),
        ({"shape": "224"}, "shape is '224'"),
        ({"shape": 0}, "shape is 0"),
        ({"shape": 2.0}, "shape is 2.0"),
        ({"shape": (8, 8, 3)}, r"shape is \(8, 8, 3\)"),
        ({"fit": "center"}, "fit is 'center'.*CenterFit"),
        ({"fit": FlipX()}, "fit is FlipX"),
        ({"shard": (2, 2)}, "rank"),
        ({"shard": (0, 0)}, "world"),
        ({"shard": 3}, "shard is 3"),
        ({"seed": -1}, "seed is -1"),
        ({"epochs": -1}, "epochs is -1"),
        ({"labels": "names"}, "labels is 'names'.*'index' or 'one_hot'"),
        ({"color": "bgr"}, "color is 'bgr'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'.*'raise' or 'skip' or 'replace'"),
        ({"max_errors": 5}, "max_errors is 5.*None with on_error='raise'"),
        ({"max_errors": -1, "on_error": "skip"}, "max_errors is -1"),
        ({"max_errors": 1.5, "on_error": "skip"}, "max_errors is 1.5"),
        ({"workers": 0}, "workers.*0"),
        ({"queue_size": 0}, "queue_size.*0"),
    ],
)
def test_arguments_are_checked(folder, options, message):
    with pytest.raises(ArgumentError, match=message):
        ImageFileReader(**{"data_dir": folder, "batch_size": 4, "shape": (8, 8), **options})


def test_a_data_machine_knows_its_part_and_finds_any_place(tmp_path):
    folder = class_folders(tmp_path, classes=2, each=5)
    reader = ImageFileReader(folder, 2, (8, 8), epochs=2, shard=(1, 2))
    assert reader.shard == (1, 2)
    tasks = [(task.epoch, task.seq, task.indices.tolist()) for task in reader.tasks()]
    found = [(task.epoch, task.seq, task.indices.tolist()) for task in reader.tasks_from(4)]
    assert found == tasks[4:]


def test_fingerprint_tells_other_files_and_another_order(tmp_path):
    folder = class_folders(tmp_path, classes=2, each=5)
    before = ImageFileReader(folder, 2, (8, 8)).fingerprint()
    assert ImageFileReader(folder, 2, (8, 8)).fingerprint() == before
    assert ImageFileReader(folder, 2, (8, 8), seed=1).fingerprint() != before
    (folder / "class0" / "0.jpg").rename(folder / "class0" / "00.jpg")
    assert ImageFileReader(folder, 2, (8, 8)).fingerprint() != before


def test_a_fit_of_another_size_is_refused(folder):
    with pytest.raises(
        ArgumentError, match=r"fit is CenterFit\(\(20, 20\), .*; expected no size, or that of the images"
    ):
        ImageFileReader(folder, 4, (24, 24), fit=CenterFit(20))
    assert ImageFileReader(folder, 4, (20, 20), fit=CenterFit(20)).shape == (20, 20)


def test_a_set_in_the_format_of_voc_is_named(tmp_path):
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).mkdir()
    with pytest.raises(EmptyDatasetError, match=r"Pascal VOC.*VOCReader reads it"):
        ImageFileReader(tmp_path, 4, (24, 24))


def test_classes_as_given_keep_their_labels_in_another_folder(tmp_path):
    train, val = class_folders(tmp_path / "train", classes=3, each=2), tmp_path / "val"
    shutil.copytree(train, val)
    shutil.rmtree(val / "class1")
    classes = ImageFileReader(train, 2, (8, 8)).classes
    reader = ImageFileReader(val, 4, (8, 8), classes=classes, epochs=1, labels="one_hot", shuffle=False)
    assert reader.classes == classes
    with Pipeline([reader]) as pipeline:
        (batch,) = pipeline
    assert batch.keys == ["class0/0.jpg", "class0/1.jpg", "class2/0.jpg", "class2/1.jpg"]
    np.testing.assert_array_equal(batch.labels, np.eye(3, dtype=np.float32)[[0, 0, 2, 2]])
    with pytest.raises(ArgumentError, match=r"has a folder that classes lacks: 'class2'"):
        ImageFileReader(val, 4, (8, 8), classes=["class0"])


def test_repr_and_log_tell_the_classes_and_what_is_skipped(tmp_path, caplog):
    data = class_folders(tmp_path / "data", classes=2, each=2)
    with caplog.at_level(logging.INFO, "highway.modules"):
        plain = ImageFileReader(data, 2, (8, 8))
    assert repr(plain).startswith(f"ImageFileReader('{data}/', 2, (8, 8), fit=CenterFit(")
    assert repr(plain).endswith(", 2 classes from the folders)")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert caplog.messages[0].endswith(": 4 pictures of 2 classes from the folders")
    (data / "class0" / "2.psd").touch()
    (data / "class1").rename(data / "Class0")
    caplog.clear()
    with caplog.at_level(logging.INFO, "highway.modules"):
        reader = ImageFileReader(data, 2, (8, 8), classes=["Class0", "class0", "more"])
    skipped = "skipped 1 file: 1 with the ending .psd (class0/2.psd)"
    assert repr(reader).endswith(f", 3 classes as given (1 without pictures), {skipped})")
    assert str(reader.skipped) == skipped
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]
    assert "look alike" in caplog.messages[1] and caplog.messages[2].endswith(skipped)


def test_folders_that_a_system_left_are_not_read(tmp_path):
    data = class_folders(tmp_path / "data", classes=2, each=2)
    for number in range(2):
        thumbnail = data / "class0" / "@eaDir" / f"{number}.jpg" / "SYNOPHOTO_THUMB_XL.jpg"
        thumbnail.parent.mkdir(parents=True)
        shutil.copy(data / "class0" / f"{number}.jpg", thumbnail)
    shutil.copytree(data / "class0", data / "#recycle")
    (batch,) = epochs_of(data, 8, epochs=1)
    assert sorted(batch.keys) == ["class0/0.jpg", "class0/1.jpg", "class1/0.jpg", "class1/1.jpg"]
