"""Bad files: a clear error, every one accounted for, and no good sample lost."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, photograph, with_size

from highway._core.jpeg import codec as jpeg
from highway.engine import Pipeline
from highway.errors import DecodeError, EmptyDatasetError, MissingPackageError, ReadError, TooManyErrors
from highway.modules import ImageFileReader

GOOD = jpeg_bytes(photograph(40, 50))

BAD = {
    "empty.jpg": b"",
    "text.jpg": b"this is no picture",
    "cut.jpg": GOOD[: len(GOOD) // 2],
    "cut in header.jpg": GOOD[:100],
    "only the start.jpg": GOOD[:2],
    "garbage.jpg": GOOD[:700] + np.random.default_rng(0).bytes(1000) + GOOD[-2:],
    "huge.jpg": with_size(GOOD, 65500, 65500),
    "tall.jpg": with_size(GOOD, 60000, 50),
    "cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "text.png": b"neither is this",
    "unknown.tif": b"II+\x00" + bytes(40),
}
BAD_KINDS = [*BAD, "link to a folder.jpg", "fifo.jpg", "dangling.jpg"]


@pytest.fixture
def folder(tmp_path):
    return class_folders(tmp_path / "data", classes=2, each=6)


def spoil(folder, kinds=BAD_KINDS):
    for number, name in enumerate(kinds):
        path = folder / f"class{number % 2}" / name
        if name == "link to a folder.jpg":
            path.symlink_to(folder)
        elif name == "fifo.jpg":
            os.mkfifo(path)
        elif name == "dangling.jpg":
            path.symlink_to(folder / "nowhere.jpg")
        else:
            path.write_bytes(BAD[name])
    return {f"class{number % 2}/{name}" for number, name in enumerate(kinds)}


GOOD_KEYS = {f"class{label}/{number}.jpg" for label in range(2) for number in range(6)}


@pytest.mark.parametrize("kind", BAD_KINDS)
def test_raise_names_the_file(folder, kind):
    (key,) = spoil(folder, [kind])
    with Pipeline([ImageFileReader(folder, 4, (8, 8), epochs=1)]) as pipeline:
        with pytest.raises((DecodeError, ReadError)) as caught:
            for _ in pipeline:
                pass
        assert key in str(caught.value) and "ImageFileReader" in str(caught.value)
        with pytest.raises(type(caught.value)):
            pipeline.dequeue()
        assert [k for k, _ in pipeline.errors] == [key]


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_skip_loses_nothing(folder, workers, batch_size):
    bad = spoil(folder)
    reader = ImageFileReader(folder, batch_size, (8, 8), epochs=3, on_error="skip", workers=workers)
    with Pipeline([reader]) as pipeline:
        for epoch in range(3):
            counts = Counter()
            for batch in pipeline.epoch():
                assert batch.epoch == epoch and batch.size == len(batch.keys) == len(batch.labels) == len(
                    batch.indices
                )
                counts.update(batch.keys)
                assert all(image.std() > 0 for image in batch.images)
            assert counts == Counter(GOOD_KEYS)
        errors = dict(pipeline.errors)
    assert set(errors) == bad
    assert len(pipeline.errors) == len(bad)
    assert all(errors.values())


@pytest.mark.parametrize("workers", [1, 8])
def test_replace_keeps_batches_full_and_reproducible(folder, workers):
    bad = spoil(folder)
    runs = []
    for _ in range(2):
        reader = ImageFileReader(folder, 4, (8, 8), epochs=2, on_error="replace", workers=workers)
        with Pipeline([reader]) as pipeline:
            batches = list(pipeline.forever())
            assert {key for key, _ in pipeline.errors} == bad
        runs.append([(b.epoch, b.seq, b.keys, b.labels.tolist(), b.images.tobytes()) for b in batches])
        for epoch in range(2):
            counts = Counter(key for batch in batches if batch.epoch == epoch for key in batch.keys)
            assert set(counts) == GOOD_KEYS
            assert sum(counts.values()) == len(GOOD_KEYS) + len(bad)
        for batch in batches:
            for key, label, index in zip(batch.keys, batch.labels, batch.indices, strict=True):
                assert key.startswith(f"class{label}/") and reader.samples.name(index) == key
    assert runs[0] == runs[1]


def test_replacements_change_with_epoch_and_seed(folder):
    spoil(folder)

    def replaced(seed):
        reader = ImageFileReader(folder, 100, (8, 8), epochs=2, on_error="replace", seed=seed, shuffle=False)
        with Pipeline([reader]) as pipeline:
            return [batch.keys for batch in pipeline.forever()]

    first, second = replaced(0)
    assert first != second
    assert replaced(1)[0] != first


def test_only_bad_files_end_with_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(7):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(b"no")
    for policy in ("skip", "replace"):
        for epochs in (1, None):
            with Pipeline([ImageFileReader(tmp_path, 3, (8, 8), on_error=policy, epochs=epochs)]) as pipeline:
                with pytest.raises(EmptyDatasetError, match="none of the"):
                    pipeline.dequeue(timeout=60)
                assert len(pipeline.errors) == 7


def test_one_good_file_replaces_all(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(40):
        (tmp_path / "a" / f"{number:02}.jpg").write_bytes(GOOD if number == 17 else b"no")
    with Pipeline([ImageFileReader(tmp_path, 40, (8, 8), on_error="replace", epochs=1)]) as pipeline:
        assert pipeline.dequeue().keys == ["a/17.jpg"] * 40


@pytest.mark.parametrize(
    "limit, enough", [(2, False), (3, True), (0.19, False), (0.2, True), (0, False), (1.0, True)]
)
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_max_errors(folder, limit, enough, policy):
    spoil(folder, ["empty.jpg", "text.jpg", "cut.jpg"])  # 3 of 15
    reader = ImageFileReader(folder, 4, (8, 8), epochs=2, on_error=policy, max_errors=limit)
    with Pipeline([reader]) as pipeline:
        if enough:
            assert len(list(pipeline.forever())) == 8
        else:
            with pytest.raises(TooManyErrors, match="of 15 files are bad"):
                list(pipeline.forever())


def test_a_file_that_is_deleted_after_listing(folder):
    reader = ImageFileReader(folder, 4, (8, 8), epochs=1, on_error="skip")
    (folder / "class0" / "3.jpg").unlink()
    with Pipeline([reader]) as pipeline:
        assert Counter(key for batch in pipeline for key in batch.keys) == Counter(
            GOOD_KEYS - {"class0/3.jpg"}
        )
        ((key, reason),) = pipeline.errors
    assert key == "class0/3.jpg" and "No such file" in reason


def test_a_file_that_is_repaired_comes_back(folder):
    path = folder / "class0" / "3.jpg"
    contents = path.read_bytes()
    path.write_bytes(b"")
    reader = ImageFileReader(folder, 12, (8, 8), on_error="skip", epochs=9, workers=1, queue_size=1)
    with Pipeline([reader]) as pipeline:
        assert pipeline.dequeue().size == 11
        path.write_bytes(contents)
        sizes = [batch.size for batch in pipeline.forever()]
    # Two batches may have been read ahead.
    assert sizes[3:] == [12] * 5
    assert len(reader.errors) == 1


@pytest.mark.parametrize("world", [2, 7, 15])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_shards_lose_nothing(folder, world, shuffle, policy):
    """Also where a rank has no good sample in an epoch: it goes on with the next."""
    spoil(folder, ["empty.jpg", "text.jpg", "cut.jpg"])  # 3 of 15
    counts = [Counter() for _ in range(6)]
    for rank in range(world):
        options = {"shard": (rank, world), "shuffle": shuffle, "on_error": policy, "epochs": len(counts)}
        with Pipeline([ImageFileReader(folder, 2, (8, 8), **options)]) as pipeline:
            try:
                for batch in pipeline.forever():
                    counts[batch.epoch].update(batch.keys)
            except EmptyDatasetError:
                # An unshuffled rank of bad samples alone never gets another.
                assert not shuffle
                assert world == 15
    for count in counts:
        assert set(count) == GOOD_KEYS
        if policy == "skip":
            assert sum(count.values()) - len(GOOD_KEYS) <= world - 1
        elif not (world == 15 and not shuffle):
            assert 15 <= sum(count.values()) <= 15 + world - 1


def test_replacement_belongs_to_the_sample_not_to_the_batch(folder):
    spoil(folder, ["empty.jpg", "text.jpg", "cut.jpg"])

    def keys(batch_size):
        reader = ImageFileReader(folder, batch_size, (8, 8), on_error="replace", epochs=2)
        with Pipeline([reader]) as pipeline:
            return [key for batch in pipeline.forever() for key in batch.keys]

    assert keys(4) == keys(15) == keys(1)


def test_drop_last_of_bad_samples_goes_on(folder):
    """The only batch of an epoch may be lost; the data is not."""
    spoil(folder, ["empty.jpg", "text.jpg", "cut.jpg"])
    reader = ImageFileReader(folder, 3, (8, 8), shard=(0, 5), on_error="skip", drop_last=True, epochs=40)
    with Pipeline([reader]) as pipeline:
        seen = {key for batch in pipeline.forever() for key in batch.keys}
    assert seen == GOOD_KEYS


def test_without_pil_nothing_is_skipped(folder, monkeypatch):
    photograph(20, 20).save(folder / "class0" / "good.bmp")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with Pipeline([ImageFileReader(folder, 4, (8, 8), on_error="skip", epochs=1)]) as pipeline:
        with pytest.raises(MissingPackageError, match="pip install"):
            list(pipeline)
        assert pipeline.errors == []


@pytest.mark.skipif(jpeg.library_versions()["PNG"] is None, reason="the core was compiled without libdeflate")
def test_without_pil_sound_pngs_are_read_and_damaged_ones_are_bad(folder, monkeypatch):
    photograph(20, 20).save(folder / "class0" / "good.png")
    contents = (folder / "class0" / "good.png").read_bytes()
    (folder / "class0" / "cut.png").write_bytes(contents[:-20])
    (folder / "class0" / "damaged.png").write_bytes(contents[:20] + b"?" + contents[21:])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with Pipeline([ImageFileReader(folder, 4, (8, 8), on_error="skip", epochs=1)]) as pipeline:
        assert {key for batch in pipeline for key in batch.keys} == {*GOOD_KEYS, "class0/good.png"}
        errors = dict(pipeline.errors)
    assert errors.keys() == {"class0/cut.png", "class0/damaged.png"}
    assert "PIL, which may read it, is not installed or lacks a part" in errors["class0/cut.png"]


def test_what_the_decoder_of_pngs_refuses_is_judged_by_pil(folder):
    """As before: PIL accepts a file without its last chunk, and a picture with a row too many."""
    photograph(20, 20).save(folder / "class0" / "good.png")
    contents = (folder / "class0" / "good.png").read_bytes()
    (folder / "class0" / "endless.png").write_bytes(contents[:-12])
    (folder / "class0" / "cut.png").write_bytes(contents[: len(contents) // 2])
    reader = ImageFileReader(folder, 100, (8, 8), on_error="skip", epochs=1, shuffle=False)
    with Pipeline([reader]) as pipeline:
        (batch,) = pipeline
        errors = dict(pipeline.errors)
    images = dict(zip(batch.keys, batch.images, strict=True))
    np.testing.assert_array_equal(images["class0/endless.png"], images["class0/good.png"])
    assert errors.keys() == {"class0/cut.png"}
    assert "cannot be decoded" in errors["class0/cut.png"]


def test_max_pixels_is_an_argument(folder):
    (folder / "class0" / "large.png").write_bytes(b"")
    photograph(90, 90).save(folder / "class0" / "large.png")
    (folder / "class1" / "large.jpg").write_bytes(jpeg_bytes(photograph(90, 90)))
    reader = ImageFileReader(folder, 4, (8, 8), on_error="skip", epochs=1, max_pixels=8099)
    with Pipeline([reader]) as pipeline:
        assert {key for batch in pipeline for key in batch.keys} == GOOD_KEYS
        assert {key for key, _ in pipeline.errors} == {"class0/large.png", "class1/large.jpg"}


def test_one_bad_file_does_not_touch_its_neighbors(folder):
    def images(**options):
        with Pipeline([ImageFileReader(folder, 100, (8, 8), shuffle=False, epochs=1, **options)]) as pipeline:
            batch = pipeline.dequeue()
            return dict(zip(batch.keys, batch.images.copy(), strict=True))

    before = images()
    spoil(folder)
    after = images(on_error="skip")
    assert after.keys() == before.keys()
    for key, image in before.items():
        np.testing.assert_array_equal(after[key], image)


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_too_few_descriptors_are_not_the_files_fault(folder, policy):
    """In a process of its own, which may open nothing more."""
    script = (
        "import os, resource, sys\n"
        "from highway.errors import ReadError\n"
        "from highway.modules import ImageFileReader\n"
        f"reader = ImageFileReader(sys.argv[1], 4, (8, 8), on_error={policy!r})\n"
        "reader.open()\n"
        "task = next(reader.tasks())\n"
        "free = os.open(os.devnull, os.O_RDONLY)\n"
        "os.close(free)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))\n"
        "try:\n"
        "    reader.load(task)\n"
        "except ReadError as error:\n"
        "    print(error, reader.errors)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True)
    assert answer.stdout.endswith("cannot be opened: Too many open files []\n"), answer
