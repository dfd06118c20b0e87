"""Encoded, LevelDBImageReader, highway pack and store export: pictures packed as files come out as from files."""

import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from commands import LIMIT, run
from pictures import class_folders, jpeg_bytes, opened, photograph
from PIL import Image
from stated_orientations import (
    CORNER,
    corner,
    exif_chunk,
    exif_data,
    exif_segment,
    jpeg_with,
    png_with,
    tiff_with,
    webp_with,
    xmp_data,
    xmp_segment,
)
from voc_folders import annotation, thing, voc_folder

import highway
from highway.batch import Batch
from highway.cli.export import export
from highway.engine import Pipeline, Source
from highway.errors import (
    ArgumentError,
    CorruptStoreError,
    DecodeError,
    EmptyDatasetError,
    ReadError,
    StateMismatchError,
    StoreError,
)
from highway.modules import (
    Augmentations,
    Encoded,
    ImageFileReader,
    LevelDBImageReader,
    LevelDBSink,
    LevelDBSource,
    ListReader,
    Noise,
    VOCReader,
)
from highway.store.reading import StoreReader
from highway.transforms import FlipX, Letterbox, Normalize, RandomResizedCrop, Stretch

plyvel = pytest.importorskip(
    "plyvel", reason="plyvel is not installed; it has no wheels for Python 3.13 and later"
)


def batches_of(source, *modules):
    with Pipeline([source, *modules]) as pipeline:
        return list(pipeline.forever())


def packed(path, reader, encoding="original"):
    with Pipeline([Encoded(reader, encoding), LevelDBSink(path)]) as pipeline:
        pipeline.wait(LIMIT)
    return path


class Given(Source):
    """A batch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def tasks(self):
        return iter([self.batch])

    def load(self, task):
        return task


def assert_equal(found, expected):
    """All batches, to the bit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (*one.fields,) == (*other.fields,) and (*one.extras,) == (*other.extras,)
        for name in (*other.fields, *other.extras):
            np.testing.assert_array_equal(one[name], other[name], strict=True, err_msg=name)
        assert (one.keys, one.indices.tolist()) == (other.keys, other.indices.tolist())
        assert (one.epoch, one.seq, one.applied, one.ragged) == (
            other.epoch,
            other.seq,
            other.applied,
            other.ragged,
        )
        if other.offsets is not None:
            np.testing.assert_array_equal(one.offsets, other.offsets, strict=True)


@pytest.fixture
def photos(tmp_path):
    """Class folders with JPEGs, turned ones and a progressive one among them, and a PNG."""
    root = class_folders(tmp_path / "photos", classes=2, each=4)
    for orientation in range(2, 9):
        picture = jpeg_bytes(photograph(50, 70, orientation), orientation=orientation)
        (root / "class0" / f"turned{orientation}.jpg").write_bytes(picture)
    (root / "class1/progressive.JPG").write_bytes(jpeg_bytes(photograph(60, 40, 30), progressive=True))
    photograph(33, 44, 31).save(root / "class1/other.png")
    return root


@pytest.fixture
def voc(tmp_path):
    """A VOC set with boxes and masks, turned pictures among them."""
    root = voc_folder(
        tmp_path / "voc",
        {
            "a": annotation(thing("dog", (11, 21, 30, 50)), thing("cat", (1, 1, 80, 60), difficult=1)),
            "b": annotation(),
            "c": annotation(thing("dog", (5, 5, 9, 9), truncated=1)),
        },
        orientation=6,
    )
    (root / "SegmentationClass").mkdir()
    for seed, name in enumerate("abc"):
        mask = np.random.default_rng(seed).integers(0, 21, (60, 80), dtype=np.uint8)
        Image.fromarray(mask).save(root / f"SegmentationClass/{name}.png")
    return root


# Originals


@pytest.mark.parametrize(
    "fit", [None, Letterbox(fill=7), RandomResizedCrop(), Stretch(interpolation="nearest")]
)
def test_originals_decode_as_from_their_files(tmp_path, photos, fit):
    path = packed(tmp_path / "s", ImageFileReader(photos, 1, (1, 1), epochs=1, shuffle=False))
    arguments = {"shuffle": True, "seed": 5, "epochs": 2, "shard": (1, 2), "fit": fit}
    for more in ({}, {"color": "gray"}):
        expected = batches_of(
            ImageFileReader(photos, 3, (24, 32), **arguments, **more),
            Augmentations([FlipX(), Normalize(0.5, 0.25)], seed=3),
        )
        for workers in (1, 3):
            source = LevelDBImageReader(path, 3, (24, 32), workers=workers, **arguments, **more)
            assert source.classes == ["class0", "class1"] and source.size == 17
            found = batches_of(source, Augmentations([FlipX(), Normalize(0.5, 0.25)], seed=3))
            assert_equal(found, expected)


@pytest.fixture
def turned(tmp_path):
    """Arguments of a ListReader: pictures of every format that state an orientation, with a box and a mask."""
    root = tmp_path / "turned"
    root.mkdir()
    made = {
        "a.tif": tiff_with(4, (6,)),
        "b.tif": tiff_with(xmp=xmp_data(8)),
        "c.png": png_with(behind=[exif_chunk(exif_data(3, (5,)))]),
        "d.webp": webp_with(xmp=xmp_data(7)),
        "e.jpg": jpeg_with(xmp_segment(xmp_data(3))),
        "f.jpg": jpeg_with(exif_segment(exif_data(9, (2,), ">"))),
    }
    for name, contents in made.items():
        (root / name).write_bytes(contents)
    mask = tmp_path / "mask.png"
    Image.fromarray((np.asarray(corner())[:, :, 0] > 128).astype(np.uint8)).save(mask)
    names = sorted(root.iterdir())
    return names, {"boxes": [[CORNER]] * len(names), "masks": [mask] * len(names), "epochs": 1}


@pytest.mark.parametrize("encoding, off", [("original", 0), ("jpeg:32:100", 60)])
def test_pictures_of_every_format_stay_upright(tmp_path, turned, encoding, off):
    """In a store, and in the files that are exported from it."""
    names, options = turned
    path = packed(tmp_path / "s", ListReader(names, None, 1, (1, 1), shuffle=False, **options), encoding)
    arguments = {"fit": Stretch(), "shuffle": False, "exact": True, "placement": True, "epochs": 1}
    (expected,) = batches_of(ListReader(names, None, 6, (32, 32), **{**arguments, **options}))
    (found,) = batches_of(LevelDBImageReader(path, 6, (32, 32), **arguments))
    for name in ("boxes", "masks", "picture_sizes", "placement"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert np.abs(found.images.astype(int) - expected.images).max() <= off
    assert expected.picture_sizes.tolist() == [[32, 16]] * 4 + [[16, 32]] * 2
    for i in range(6):
        extent = Image.fromarray((found.images[i] > 128).any(axis=2)).getbbox()
        assert found.boxes_of(i).tolist() == [list(extent)]
        np.testing.assert_array_equal(found.images[i, :, :, 0] > 128, found.masks[i])
    export(path, tmp_path / "exported")
    for i, line in enumerate((tmp_path / "exported/samples.jsonl").read_text().splitlines()):
        facts = json.loads(line)
        shown = opened(tmp_path / "exported" / facts["images"])
        assert shown.size == tuple(expected.picture_sizes[i, ::-1])
        assert facts["boxes"] == [list(Image.fromarray((np.asarray(shown) > 128).any(axis=2)).getbbox())]
        with Image.open(tmp_path / "exported" / facts["masks"]) as mask:
            np.testing.assert_array_equal(np.asarray(mask) == 1, np.asarray(shown)[:, :, 0] > 128)


def test_files_are_kept_to_the_byte(tmp_path, photos):
    path = packed(tmp_path / "s", ImageFileReader(photos, 1, (1, 1), epochs=1, shuffle=False))
    for batch in batches_of(LevelDBSource(path, 4, epochs=1, fields=["images"])):
        for key, file in zip(batch.keys, batch.images, strict=True):
            assert file == (photos / key).read_bytes()


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("fit", [None, RandomResizedCrop((20, 30), min_visible=0.3)])
def test_boxes_and_masks_come_along(tmp_path, voc, masks, fit):
    """With `placement` too, which is found anew."""
    path = packed(
        tmp_path / "s", VOCReader(voc, 1, (1, 1), epochs=1, shuffle=False, masks=masks, placement=True)
    )
    arguments = {"epochs": 1, "seed": 2, "fit": fit, "mask_fill": 9, "placement": True}
    expected = batches_of(VOCReader(voc, 2, (20, 30), masks=masks, **arguments), Augmentations([FlipX()]))
    source = LevelDBImageReader(path, 2, (20, 30), **arguments)
    assert ("masks" in expected[0].fields) == masks
    assert_equal(batches_of(source, Augmentations([FlipX()])), expected)


def test_labels_of_a_list_come_along(tmp_path, photos):
    files = sorted(str(file) for file in photos.rglob("*.jpg"))
    labels = np.random.default_rng(0).random((len(files), 3), np.float32)
    path = packed(tmp_path / "s", ListReader(files, labels, 1, (1, 1), epochs=1, shuffle=False))
    expected = batches_of(ListReader(files, labels, 4, (16, 16), epochs=1))
    assert_equal(batches_of(LevelDBImageReader(path, 4, (16, 16), epochs=1)), expected)


def test_goes_on_at_any_place(tmp_path, photos):
    path = packed(tmp_path / "s", ImageFileReader(photos, 1, (1, 1), epochs=1, shuffle=False))
    whole = [key for batch in batches_of(LevelDBImageReader(path, 3, (8, 8), epochs=2)) for key in batch.keys]
    with Pipeline([LevelDBImageReader(path, 3, (8, 8), epochs=2)]) as pipeline:
        for _ in range(3):
            pipeline.dequeue()
        state = json.loads(json.dumps(pipeline.state_dict()))
    with Pipeline([LevelDBImageReader(path, 5, (8, 8), epochs=2, workers=3)]) as pipeline:
        pipeline.load_state_dict(state)
        assert [key for batch in pipeline.forever() for key in batch.keys] == whole[9:]
    other = packed(tmp_path / "t", ImageFileReader(photos, 1, (1, 1), epochs=1), "jpeg:20")
    with (
        Pipeline([LevelDBImageReader(other, 3, (8, 8), epochs=2)]) as pipeline,
        pytest.raises(StateMismatchError),
    ):
        pipeline.load_state_dict(state)


# JPEGs


def test_jpegs_are_shrunk_and_never_enlarged(tmp_path, photos):
    large = {"large": (90, 333), "tall": (400, 3), "small": (20, 30)}
    for seed, (name, size) in enumerate(large.items()):
        (photos / f"class0/{name}.jpg").write_bytes(jpeg_bytes(photograph(*size, seed)))
    path = packed(tmp_path / "s", ImageFileReader(photos, 1, (1, 1), epochs=1, shuffle=False), "jpeg:64:95")
    sizes = {}
    for batch in batches_of(LevelDBSource(path, 4, epochs=1, fields=["images", "labels"])):
        for key, file, label in zip(batch.keys, batch.images, batch.labels, strict=True):
            assert key.startswith(f"class{label}/")
            with Image.open(io.BytesIO(file)) as picture:
                assert (picture.format, picture.mode) == ("JPEG", "RGB")
                sizes[key] = picture.size[::-1]
                if key == "class0/small.jpg":
                    with Image.open(photos / key) as before:
                        off = np.abs(np.asarray(picture, int) - np.asarray(before, int)).mean()
                    assert off < 4
    assert sizes["class0/large.jpg"] == (17, 64) and sizes["class0/tall.jpg"] == (64, 1)
    assert sizes["class0/small.jpg"] == (20, 30) and sizes["class0/turned6.jpg"] == (64, 46)
    assert max(max(size) for size in sizes.values()) == 64


def test_jpegs_look_as_their_files(tmp_path, photos):
    path = packed(tmp_path / "s", ImageFileReader(photos, 1, (1, 1), epochs=1, shuffle=False), "jpeg:70:95")
    expected = batches_of(ImageFileReader(photos, 32, (24, 32), epochs=1, exact=True))
    found = batches_of(LevelDBImageReader(path, 32, (24, 32), epochs=1, exact=True))
    assert found[0].keys == expected[0].keys
    assert np.abs(found[0].images.astype(int) - expected[0].images).mean(axis=(1, 2, 3)).max() < 4


ENCODE = """
import resource
import numpy as np
from highway._core.jpeg import codec as jpeg

picture = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
jpeg.encode(picture[:8, :8], 100)
for room in range(0, 96, 2):
    # Anew each time: what was freed may stay mapped.
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + (room << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        found = jpeg.encode(picture, 100)
    except MemoryError:
        found = None
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    print("no memory" if found is None else len(found))
"""


def test_encoder_without_memory_says_so():
    told = subprocess.run([sys.executable, "-c", ENCODE], capture_output=True, text=True, timeout=LIMIT)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("no memory\n") and len(set(told.stdout.split())) == 3


def test_boxes_and_masks_shrink_with_their_pictures(tmp_path, voc):
    path = packed(
        tmp_path / "s", VOCReader(voc, 1, (1, 1), epochs=1, shuffle=False, masks=True), "jpeg:40:95"
    )
    (batch,) = batches_of(
        LevelDBSource(path, 3, epochs=1, shuffle=False, fields=["images", "boxes", "masks"])
    )
    (full,) = batches_of(VOCReader(voc, 3, (80, 60), epochs=1, shuffle=False, masks=True))
    np.testing.assert_allclose(batch.boxes, full.boxes / 2, atol=1e-4)
    for mask, whole in zip(batch.masks, full.masks, strict=True):
        with Image.open(io.BytesIO(mask)) as picture:
            assert picture.size == (30, 40) and set(np.unique(picture)) <= set(np.unique(whole))
    (read,) = batches_of(LevelDBImageReader(path, 3, (40, 30), epochs=1, shuffle=False))
    np.testing.assert_array_equal(read.boxes, batch.boxes)
    with Image.open(io.BytesIO(batch.masks[0])) as picture:
        np.testing.assert_array_equal(read.masks[0], picture)


def test_grey_pictures(tmp_path, photos):
    reader = ImageFileReader(photos, 1, (1, 1), epochs=1, color="gray")
    path = packed(tmp_path / "s", reader, "jpeg:30")
    (batch,) = batches_of(LevelDBSource(path, 32, epochs=1, fields=["images"]))
    assert {Image.open(io.BytesIO(file)).mode for file in batch.images} == {"L"}


# Bad input


@pytest.mark.parametrize("encoding", ["original", "jpeg:30"])
def test_bad_files_are_left_out_of_the_store(tmp_path, photos, encoding):
    whole = (photos / "class0/0.jpg").read_bytes()
    (photos / "class0/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "class0/empty.jpg").write_bytes(b"")
    (photos / "class0/text.jpg").write_text("no picture")
    (photos / "class1/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises((DecodeError, ReadError)) as caught:
        packed(tmp_path / "raising", ImageFileReader(photos, 1, (1, 1), epochs=1), encoding)
    assert str(photos) in str(caught.value)
    reader = ImageFileReader(photos, 1, (1, 1), epochs=1, on_error="skip")
    with Pipeline([Encoded(reader, encoding), LevelDBSink(tmp_path / "s")]) as pipeline:
        pipeline.wait(LIMIT)
        errors = dict(pipeline.errors)
    assert {*errors} == {"class0/cut.jpg", "class0/empty.jpg", "class0/text.jpg", "class1/gone.jpg"}
    assert all(str(photos / key) in reason and "Encoded" in reason for key, reason in errors.items())
    source = LevelDBImageReader(tmp_path / "s", 4, (8, 8), epochs=1)
    assert source.size == 17
    assert sum(batch.size for batch in batches_of(source)) == 17


def test_bad_masks_make_bad_samples(tmp_path, voc):
    (voc / "SegmentationClass/b.png").write_bytes(b"no mask")
    for encoding in ("original", "jpeg:30"):
        reader = VOCReader(voc, 1, (1, 1), epochs=1, masks=True, on_error="skip")
        with Pipeline([Encoded(reader, encoding), LevelDBSink(tmp_path / encoding[:4])]) as pipeline:
            pipeline.wait(LIMIT)
            assert [key for key, _ in pipeline.errors] == ["b.jpg"]


@pytest.fixture
def with_bad_record(tmp_path, photos):
    path = packed(tmp_path / "s", ImageFileReader(photos, 1, (1, 1), epochs=1, shuffle=False))
    with plyvel.DB(str(path)) as db:
        value = bytearray(db.get(struct.pack(">Q", 5)))
        value[-1] ^= 1
        db.put(struct.pack(">Q", 5), bytes(value))
    return path


@pytest.mark.parametrize("on_error", ["raise", "skip", "replace"])
def test_damaged_records_are_bad_samples(with_bad_record, on_error):
    source = LevelDBImageReader(with_bad_record, 4, (8, 8), epochs=1, on_error=on_error)
    if on_error == "raise":
        with pytest.raises(CorruptStoreError, match=r"record 5 of .* is damaged: its checksum is wrong"):
            batches_of(source)
        return
    numbers = sorted(index for batch in batches_of(source) for index in batch.indices.tolist())
    assert [key for key, _ in source.errors] == ["5"]
    assert len(numbers) == (16 if on_error == "skip" else 17) and 5 not in numbers


def test_what_cannot_be_encoded_is_refused(photos):
    for reader in (Noise(1, (2, 2)), "folder"):
        with pytest.raises(ArgumentError, match=r"Encoded: reader is .*; expected a reader of picture files"):
            Encoded(reader, "original")
    with pytest.raises(ArgumentError, match="exif=False"):
        Encoded(ImageFileReader(photos, 1, (1, 1), exif=False), "original")
    for encoding in (
        "png",
        "jpeg",
        "jpeg:",
        "jpeg:a",
        "jpeg:10:90:1",
        "jpeg:0",
        "jpeg:9999",
        "jpeg:9:0",
        "jpeg:9:101",
    ):
        with pytest.raises(ArgumentError, match="Encoded: encoding"):
            Encoded(ImageFileReader(photos, 1, (1, 1)), encoding)


def test_stores_of_the_other_kind_are_refused(tmp_path, photos):
    arrays = tmp_path / "arrays"
    with Pipeline([ImageFileReader(photos, 4, (8, 8), epochs=1), LevelDBSink(arrays)]) as pipeline:
        pipeline.wait(LIMIT)
    with pytest.raises(ArgumentError, match=r"expected encoded pictures, as highway pack"):
        LevelDBImageReader(arrays, 4, (8, 8))
    path = packed(tmp_path / "s", ImageFileReader(photos, 1, (1, 1), epochs=1))
    with pytest.raises(ArgumentError, match=r"images are encoded; LevelDBImageReader"):
        LevelDBSource(path, 4)
    # Nobody holds a lock on a store that was refused.
    shutil.rmtree(path)


def test_other_boxes_are_refused(tmp_path, voc):
    (batch,) = batches_of(Encoded(VOCReader(voc, 1, (1, 1), epochs=1, split=None), "original"))
    for boxes in (batch.boxes.astype(np.float64), batch.boxes[:, :2]):
        path = tmp_path / f"{boxes.dtype}{boxes.shape[1]}"
        with Pipeline([Given(batch.replace(boxes=boxes)), LevelDBSink(path)]) as pipeline:
            pipeline.wait(LIMIT)
        with pytest.raises(ArgumentError, match=r"expected boxes of float32 \(rows, 4\)"):
            LevelDBImageReader(path, 4, (8, 8))


def test_queues_count_the_bytes_of_files(photos):
    (batch,) = batches_of(Encoded(ImageFileReader(photos, 1, (1, 1), epochs=1), "original"))
    files = sum(file.stat().st_size for file in photos.rglob("*.*"))
    assert batch.nbytes == files + 17 * (batch.images.itemsize + batch.labels.itemsize)


# The way back


@pytest.mark.parametrize("encoding", ["original", "jpeg:30", "raw:30"])
def test_boxes_of_a_store_lead_back_to_the_pictures_that_were_packed(tmp_path, capsys, voc, encoding):
    assert run(capsys, "pack", "--voc", voc, tmp_path / "s", "--encoding", encoding, "--fit", "letterbox")[
        0
    ] == (0 if encoding == "raw:30" else 1)
    if encoding != "raw:30":
        assert run(capsys, "pack", "--voc", voc, tmp_path / "s", "--encoding", encoding)[0] == 0
        source = LevelDBImageReader(tmp_path / "s", 3, (50, 40), epochs=1, shuffle=False, placement=True)
    else:
        source = LevelDBSource(tmp_path / "s", 3, epochs=1, shuffle=False)
    (expected,) = batches_of(VOCReader(voc, 3, (80, 60), split=None, epochs=1, shuffle=False, placement=True))
    (found,) = batches_of(source, Augmentations([FlipX(p=1)]))
    np.testing.assert_array_equal(found.picture_sizes, expected.picture_sizes, strict=True)
    for i in range(3):
        np.testing.assert_allclose(found.boxes_in_picture(i), expected.boxes_in_picture(i), rtol=0, atol=1e-3)


# The commands


def test_pack_and_export_give_the_folder_back(tmp_path, capsys, photos):
    code, output, errors = run(capsys, "pack", photos, tmp_path / "s")
    assert (code, errors) == (0, "") and "17 samples of 17 files" in output
    code, output, errors = run(capsys, "store", "export", tmp_path / "s", tmp_path / "out")
    assert (code, errors) == (0, "") and "17 samples" in output
    files = sorted(file.relative_to(photos) for file in photos.rglob("*.*"))
    assert (
        sorted(file.relative_to(tmp_path / "out/images") for file in (tmp_path / "out/images").rglob("*.*"))
        == files
    )
    for file in files:
        assert (tmp_path / "out/images" / file).read_bytes() == (photos / file).read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [*range(17)]
    assert all(line["class"] == line["key"][:6] == f"class{line['labels']}" for line in lines)


def test_raw_stores_are_arrays(tmp_path, capsys, photos):
    assert run(capsys, "pack", photos, tmp_path / "s", "--encoding", "raw:20x30", "--fit", "stretch")[0] == 0
    expected = batches_of(ImageFileReader(photos, 4, (20, 30), epochs=1, shuffle=False, fit=Stretch()))
    assert_equal(batches_of(LevelDBSource(tmp_path / "s", 4, epochs=1, shuffle=False)), expected)
    assert run(capsys, "store", "export", tmp_path / "s", tmp_path / "out")[0] == 0
    for batch in expected:
        for key, image in zip(batch.keys, batch.images, strict=True):
            file = (tmp_path / "out/images" / key).with_suffix(".png")
            np.testing.assert_array_equal(Image.open(file), image)


def pixels_of_preview(capsys, tmp_path, *arguments):
    path = tmp_path / "sheet.png"
    code, output, errors = run(capsys, "preview", *arguments, "-o", path, "--count", 8)
    assert (code, errors) == (0, "")
    with Image.open(path) as sheet:
        # Without the title.
        return output, np.asarray(sheet)[40:]


@pytest.mark.parametrize("masks", [[], ["--masks"]], ids=["boxes", "masks"])
def test_preview_of_a_store_is_that_of_what_was_packed(tmp_path, capsys, voc, masks):
    assert run(capsys, "pack", "--voc", voc, tmp_path / "s", *masks)[0] == 0
    given = ["--size", "80x60", "--fit", "letterbox", "--seed", "3", "--original"]
    output, found = pixels_of_preview(capsys, tmp_path, tmp_path / "s", *given)
    assert output == f"{tmp_path / 'sheet.png'}: 3 of 3 records in 2 classes\n"
    _, expected = pixels_of_preview(capsys, tmp_path, "--voc", voc, *masks, *given)
    np.testing.assert_array_equal(found, expected)


def test_preview_of_arrays_is_that_of_what_was_packed(tmp_path, capsys, photos):
    assert run(capsys, "pack", photos, tmp_path / "s", "--encoding", "raw:100x130")[0] == 0
    _, expected = pixels_of_preview(capsys, tmp_path, photos, "--size", "100x130")
    _, found = pixels_of_preview(capsys, tmp_path, tmp_path / "s")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("encoding", "job"),
    [("original", "LevelDBImageReader"), ("raw:24", "LevelDBSource"), ("jpeg:24", "LevelDBImageReader")],
)
def test_bench_of_a_store(tmp_path, capsys, photos, encoding, job):
    assert run(capsys, "pack", photos, tmp_path / "s", "--encoding", encoding)[0] == 0
    code, output, errors = run(capsys, "bench", tmp_path / "s", "--epochs", 2, "--batch-size", 5)
    assert (code, errors) == (0, "")
    assert f"17 records in 2 classes, in {tmp_path / 's'}" in output and job in output
    assert "34 images in 8 batches" in output


@pytest.mark.parametrize(
    ("encoding", "options", "says"),
    [
        ("raw:24", ["--size", "32"], "--size is for pictures; the store .* holds arrays"),
        ("raw:24", ["--fit", "random"], "--fit is for pictures; the store .* holds arrays"),
        ("raw:24", ["--original"], "--original is for pictures; the store .* holds arrays"),
        ("original", ["--masks"], "--masks is for folders; .* is a store"),
        ("original", ["--split", "train"], "--split is for folders; .* is a store"),
        ("original", ["--voc"], "--voc is for folders; .* is a store"),
        ("original", ["--masks-dir", "m"], "--masks-dir is for folders; .* is a store"),
    ],
)
def test_options_that_do_not_fit_a_store_are_refused(tmp_path, capsys, photos, encoding, options, says):
    assert run(capsys, "pack", photos, tmp_path / "s", "--encoding", encoding)[0] == 0
    for command in ("preview",) if "--original" in options else ("bench", "preview"):
        code, _, errors = run(capsys, command, tmp_path / "s", *options)
        assert code == 1
        assert re.fullmatch(rf"highway: {says}.*\n", errors)


def test_folder_with_a_file_of_a_name_that_stores_have_is_a_folder(tmp_path, capsys, photos):
    (photos / "CURRENT").write_text("of the tide\n", encoding="utf-8")
    output, _ = pixels_of_preview(capsys, tmp_path, photos)
    assert "17 files in 2 classes" in output
    assert not (photos / "highway.lock").exists()


def test_damaged_records_of_a_store_are_told(tmp_path, capsys, photos):
    assert run(capsys, "pack", photos, tmp_path / "s")[0] == 0
    plyvel = pytest.importorskip("plyvel")
    with plyvel.DB(str(tmp_path / "s")) as db:
        value = bytearray(db.get(struct.pack(">Q", 5)))
        value[-9] ^= 1
        db.put(struct.pack(">Q", 5), bytes(value))
    code, _, errors = run(capsys, "bench", tmp_path / "s", "--epochs", 1, "--on-error", "skip")
    assert code == 0
    assert errors.startswith("17 records, of which 1 could not be read; skipped:\n")


def test_export_of_voc(tmp_path, capsys, voc):
    assert run(capsys, "pack", "--voc", voc, tmp_path / "s", "--masks", "--split", "train")[0] == 0
    assert run(capsys, "store", "export", tmp_path / "s", tmp_path / "out")[0] == 0
    first, second, _ = map(json.loads, (tmp_path / "out/samples.jsonl").read_text().splitlines())
    (full,) = batches_of(VOCReader(voc, 3, (80, 60), epochs=1, shuffle=False, masks=True))
    assert first["boxes"] == full.boxes_of(0).tolist() and second["boxes"] == []
    assert first["class"] == ["dog", "cat"] and first["difficult"] == [False, True]
    np.testing.assert_array_equal(Image.open(tmp_path / "out" / first["masks"]), full.masks[0])
    assert (tmp_path / "out" / first["images"]).read_bytes() == (voc / "JPEGImages/a.jpg").read_bytes()


def test_export_of_other_arrays(tmp_path, capsys, photos):
    modules = [ImageFileReader(photos, 4, (4, 5), epochs=1, shuffle=False), Augmentations([Normalize()])]
    with Pipeline([*modules, LevelDBSink(tmp_path / "s")]) as pipeline:
        pipeline.wait(LIMIT)
    assert run(capsys, "store", "export", tmp_path / "s", tmp_path / "out")[0] == 0
    first = json.loads((tmp_path / "out/samples.jsonl").read_text().splitlines()[0])
    assert first["images"] == "images/class0/0.npy"
    (batch, *_) = batches_of(LevelDBSource(tmp_path / "s", 4, epochs=1, shuffle=False))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / first["images"]), batch.images[0])


def test_export_of_labels_without_a_class_and_of_complex_numbers(tmp_path, capsys):
    fields = {"images": np.zeros((3, 2, 2, 3), np.uint8), "labels": np.array([-1, 1, 2])}
    batch = Batch({**fields, "waves": np.array([1j, 2, 3])}, seq=0)
    source = Given(batch)
    source.classes = ["a", "b"]
    with Pipeline([source, LevelDBSink(tmp_path / "s")]) as pipeline:
        pipeline.wait(LIMIT)
    assert run(capsys, "store", "export", tmp_path / "s", tmp_path / "out")[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    assert [line["class"] for line in lines] == [None, "b", None]
    assert [np.load(tmp_path / "out" / line["waves"]) for line in lines] == [1j, 2, 3]


def test_export_raises_what_is_wrong_with_the_store(tmp_path, with_bad_record):
    with pytest.raises(CorruptStoreError, match="highway store repair saves the other records"):
        export(with_bad_record, tmp_path / "out")
    with pytest.raises(StoreError, match="is not a store"):
        export(tmp_path, tmp_path / "other")
    assert not (tmp_path / "out/samples.jsonl").exists()


def test_export_refuses_what_would_be_lost(tmp_path, capsys, photos):
    run(capsys, "pack", photos, tmp_path / "s", "--encoding", "raw:4")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    code, _, errors = run(capsys, "store", "export", tmp_path / "s", tmp_path / "full")
    assert code == 1 and "is not an empty folder" in errors
    with Pipeline([ImageFileReader(photos, 4, (4, 5), epochs=2), LevelDBSink(tmp_path / "t")]) as pipeline:
        pipeline.wait(LIMIT)
    code, _, errors = run(capsys, "store", "export", tmp_path / "t", tmp_path / "out")
    assert code == 1 and "several samples" in errors and not (tmp_path / "out/samples.jsonl").exists()


def test_export_keeps_samples_whose_keys_differ_in_the_ending_alone(tmp_path):
    image = np.zeros((2, 4, 5, 3), np.uint8)
    batch = Batch({"images": image, "masks": image[..., 0]}, keys=["cat/1.jpg", "cat/1.png"], indices=[0, 1])
    with Pipeline([Given(batch), LevelDBSink(tmp_path / "s")]) as pipeline:
        pipeline.wait(LIMIT)
    assert export(tmp_path / "s", tmp_path / "out") == (2, True)
    lines = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    assert [(line["key"], line["images"], line["masks"]) for line in lines] == [
        ("cat/1.jpg", "images/cat/1.png", "masks/cat/1.png"),
        ("cat/1.png", "images/cat/1.png.png", "masks/cat/1.png.png"),
    ]
    assert all((tmp_path / "out" / line[field]).is_file() for line in lines for field in ("images", "masks"))


def test_export_of_files_of_equal_stems_gives_the_folder_back(tmp_path, photos):
    (photos / "class0/0.png").write_bytes(b"")
    Image.new("RGB", (9, 7)).save(photos / "class0/0.png")
    packed(tmp_path / "s", ImageFileReader(photos, 4, (4, 5), epochs=1))
    export(tmp_path / "s", tmp_path / "out")
    for file in photos.rglob("*.*"):
        assert (tmp_path / "out/images" / file.relative_to(photos)).read_bytes() == file.read_bytes()


def test_other_classes_are_not_appended(tmp_path, photos):
    classes = ImageFileReader(photos, 1, (4, 5)).classes
    packed(tmp_path / "s", ImageFileReader(photos, 1, (4, 5), epochs=1))
    for given, refused in ((classes, False), (classes[::-1], True), ([*classes, "more"], True)):
        reader = Encoded(ImageFileReader(photos, 1, (4, 5), epochs=1, classes=given), "original")
        if refused:
            with pytest.raises(StateMismatchError):
                Pipeline([reader, LevelDBSink(tmp_path / "s", append=True)])
        else:
            with Pipeline([reader, LevelDBSink(tmp_path / "s", append=True)]) as pipeline:
                pipeline.wait(LIMIT)


def test_pack_goes_on_and_never_mixes(tmp_path, capsys, photos):
    assert run(capsys, "pack", photos, tmp_path / "s")[0] == 0
    code, output, _ = run(capsys, "pack", photos, tmp_path / "s")
    assert code == 0 and "0 samples" in output and "17 were there already" in output
    for encoding in ("jpeg:30", "raw:8"):
        code, _, errors = run(capsys, "pack", photos, tmp_path / "s", "--encoding", encoding)
        assert code == 1 and "in another encoding" in errors and "use another path" in errors
    assert run(capsys, "pack", photos, tmp_path / "t", "--encoding", "jpeg:30")[0] == 0
    code, output, _ = run(capsys, "pack", photos, tmp_path / "t", "--encoding", "jpeg:030:90")
    assert code == 0 and "17 were there already" in output
    code, _, errors = run(capsys, "pack", photos, tmp_path / "s", "--split", "train")
    assert code == 1 and "--split needs --voc" in errors


def test_other_boxes_are_not_appended(tmp_path, voc):
    packed(tmp_path / "s", VOCReader(voc, 1, (1, 1), epochs=1))
    for change in ({"difficult": False}, {"one_based": False}):
        source = Encoded(VOCReader(voc, 1, (1, 1), epochs=1, **change), "original")
        with pytest.raises(StateMismatchError):
            Pipeline([source, LevelDBSink(tmp_path / "s", append=True)])


def test_pack_tells_what_it_left_out(tmp_path, capsys, photos):
    (photos / "class0/text.jpg").write_text("no picture")
    code, output, errors = run(capsys, "pack", photos, tmp_path / "s")
    assert code == 0 and "17 samples of 18 files" in output
    assert "1 could not be read; skipped" in errors and "class0/text.jpg" in errors
    code, _, errors = run(capsys, "pack", photos, tmp_path / "t", "--on-error", "raise")
    assert code == 1 and "class0/text.jpg" in errors and "(--on-error skip continues without it)" in errors


@pytest.mark.parametrize("encoding", ["jpeg", "jpeg:0", "jpeg:9:101", "raw", "raw:", "raw:4x", "png"])
def test_wrong_encodings_are_wrong_usage(tmp_path, capsys, photos, encoding):
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "pack", photos, tmp_path / "s", "--encoding", encoding)
    assert "--encoding" in capsys.readouterr().err


def test_options_that_do_not_fit_are_refused(tmp_path, capsys, photos):
    code, _, errors = run(capsys, "pack", photos, tmp_path / "s", "--fit", "random")
    assert code == 1 and "--fit is for --encoding raw:SIZE" in errors
    code, _, errors = run(
        capsys, "pack", photos, tmp_path / "s", "--max-pixels", "2000", "--on-error", "raise"
    )
    assert code == 1 and "allowed are 2000 in total (max_pixels)" in errors
    assert run(capsys, "pack", photos, tmp_path / "t")[0] == 0
    code, _, errors = run(capsys, "pack", tmp_path / "t", tmp_path / "u")
    assert code == 1 and "is a store" in errors and "LevelDBImageReader" in errors


PACKER = """
import signal
import sys
from highway.cli import main
from highway.store.writing import StoreWriter

write, counts = StoreWriter.flush, []

def flush(self):
    write(self)
    counts.append(self.count)
    print(self.count, flush=True)
    if len(counts) == 3:
        # It is killed by then, or waits for that: it must not pack everything.
        signal.pause()

def add(self, batch, add=StoreWriter.add):
    self._batch_bytes = 20_000
    add(self, batch)

StoreWriter.flush, StoreWriter.add = flush, add
main(["pack", *sys.argv[1:]])
"""


@pytest.mark.parametrize("encoding", ["original", "jpeg:40", "raw:30"])
def test_killed_packer_loses_nothing(tmp_path, capsys, encoding):
    """What was said to be in the store is there after a kill, and the command completes it."""
    photos = class_folders(tmp_path / "photos", classes=2, each=150, size=(90, 120))
    path, before = tmp_path / "s", []
    environment = os.environ | {"PYTHONPATH": str(Path(highway.__file__).parents[1])}
    arguments = [sys.executable, "-c", PACKER, photos, path, "--encoding", encoding]
    for writes in (1, 2, 1, 2):
        with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE) as process:
            said = [int(process.stdout.readline()) for _ in range(writes)][-1]
            process.send_signal(signal.SIGKILL)
        found = stored(path)
        assert found[: len(before)] == before and said <= len(found)
        before = found
    code, output, _ = run(capsys, "pack", photos, path, "--encoding", encoding)
    assert code == 0 and f"{len(before)} were there already; 300 samples of 300 files" in output
    assert len(stored(path)) == 300
    if encoding == "raw:30":
        found = batches_of(LevelDBSource(path, 16, epochs=1))
    else:
        found = batches_of(LevelDBImageReader(path, 16, (30, 30), epochs=1))
    expected = batches_of(ImageFileReader(photos, 16, (30, 30), epochs=1))
    assert [batch.keys for batch in found] == [batch.keys for batch in expected]
    if encoding != "jpeg:40":
        assert_equal(found, expected)


def stored(path):
    """Every record of a store, complete or not."""
    with suppress(EmptyDatasetError, StoreError):
        reader = StoreReader(path, "test", allow_incomplete=True)
        try:
            with reader:
                spans = reader.read(range(len(reader))).spans
                return [bytes(spans[number]) for number in range(len(spans))]
        finally:
            reader.close()
    return []
