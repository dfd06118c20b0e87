"""ImageSaver: files named by the keys, batches that pass unchanged, and what is refused or cannot be written."""

import os
import threading

import numpy as np
import pytest
from pictures import class_folders
from PIL import Image

from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError, FieldError, MissingPackageError, WriteError
from highway.modules import ArrayReader, Augmentations, ImageFileReader, ImageSaver, ListReader, Noise
from highway.transforms import FlipX, Normalize


def some(count=3, channels=3, **more):
    images = np.random.default_rng(0).integers(0, 256, (count, 9, 7, channels), np.uint8)
    return Batch({"images": images}, **more)


def files(folder):
    """Names of all files, the folder left out, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_written_bit_for_bit_and_the_batch_passes(tmp_path, channels):
    batch = some(3, channels, keys=["a/1.jpg", "a/b/2.JPEG", "3"])
    assert ImageSaver(tmp_path).process(batch) is batch
    assert files(tmp_path) == ["3.png", "a/1.png", "a/b/2.png"]
    for name, image in zip(["a/1.png", "a/b/2.png", "3.png"], batch.images, strict=True):
        assert np.array_equal(pixels(tmp_path / name), image if channels == 3 else image[:, :, 0])


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a.tar.jpg", "a.tar.png"),
        ("photo.v2", "photo.v2.png"),
        ("2007_000027", "2007_000027.png"),
        ("./a//b.png", "a/b.png"),
        ("a..b/...c.gif", "a..b/...c.png"),
        ("not UTF-8 \udcff.bmp", "not UTF-8 \udcff.png"),
        ("x" * 251 + ".jpg", "x" * 251 + ".png"),
    ],
)
def test_ending_of_a_picture_is_replaced_and_no_other(tmp_path, key, name):
    ImageSaver(tmp_path).process(some(1, keys=[key]))
    assert files(tmp_path) == [name]


def test_images_of_later_epochs_are_kept_apart(tmp_path):
    saver = ImageSaver(tmp_path)
    for epoch in (0, 1, 12):
        saver.process(some(1, keys=["a/1.jpg"], epoch=epoch))
        saver.process(some(1, epoch=epoch, indices=[7]))
    assert files(tmp_path) == [
        *("00000007-e1.png", "00000007-e12.png", "00000007.png"),
        *("a/1-e1.png", "a/1-e12.png", "a/1.png"),
    ]


@pytest.mark.parametrize(
    ("format", "ending", "written"),
    [("jpeg", ".jpg", "JPEG"), ("webp", ".webp", "WEBP"), ("png", ".png", "PNG")],
)
def test_formats_and_their_endings(tmp_path, format, ending, written):
    ImageSaver(tmp_path, format).process(some(1, keys=["a.png"]))
    assert files(tmp_path) == [f"a{ending}"]
    with Image.open(tmp_path / f"a{ending}") as picture:
        assert picture.format == written


def test_masks_go_into_a_folder_that_a_reader_takes(tmp_path):
    data, masks_dir = class_folders(tmp_path / "data", classes=2, each=3), tmp_path / "masks"
    for number, picture in enumerate(sorted(data.rglob("*.jpg"))):
        with Image.open(picture) as opened:
            mask = np.full(opened.size[::-1], 100 + number, np.uint8)
        mask[:, ::3] = 255
        path = masks_dir / picture.relative_to(data).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    options = {"epochs": 1, "shuffle": False}
    reader = ImageFileReader(data, 6, (20, 30), masks_dir=masks_dir, **options)
    saver = ImageSaver(tmp_path / "out", masks_dir=tmp_path / "out masks")
    with Pipeline([reader, Augmentations([FlipX()]), saver]) as pipeline:
        (batch,) = pipeline
    again = ImageFileReader(tmp_path / "out", 6, (20, 30), masks_dir=tmp_path / "out masks", **options)
    with Pipeline([again]) as pipeline:
        (read,) = pipeline
    assert batch.masks.min() == 100 and batch.masks.max() == 255
    for name in ("images", "labels", "masks"):
        assert np.array_equal(batch[name], read[name])


def test_masks_are_named_as_their_images(tmp_path):
    saver = ImageSaver(tmp_path / "a", "jpeg", masks_dir=tmp_path / "b")
    masks = np.arange(2 * 9 * 7, dtype=np.uint8).reshape(2, 9, 7)
    saver.process(some(2, keys=["x/1.jpg", "2.v"]).replace(masks=masks))
    saver.process(some(2, indices=[3, 4], epoch=2).replace(masks=masks[:, ::-1, ::-1]))
    stems = ["00000003-e2", "00000004-e2", "2.v", "x/1"]
    assert files(tmp_path / "a") == [f"{stem}.jpg" for stem in stems]
    assert files(tmp_path / "b") == [f"{stem}.png" for stem in stems]
    assert np.array_equal(pixels(tmp_path / "b/x/1.png"), masks[0])
    assert np.array_equal(pixels(tmp_path / "b/00000004-e2.png"), masks[1, ::-1, ::-1])
    assert repr(saver).endswith(f"'jpeg', quality=95, masks_dir={str(tmp_path / 'b')!r})")


@pytest.mark.parametrize("masks", [np.zeros((2, 9, 7), np.int64), np.zeros((2, 9, 7, 1), np.uint8)])
def test_masks_that_are_none_are_refused_before_anything_is_written(tmp_path, masks):
    saver = ImageSaver(tmp_path / "a", masks_dir=tmp_path / "b")
    with pytest.raises(
        ArgumentError, match=r"^ImageSaver: masks are .*; expected uint8 \(2, height, width\)$"
    ):
        saver.process(some(2, indices=[0, 1]).replace(masks=masks))
    with pytest.raises(FieldError, match="no field 'masks'"):
        saver.process(some(2))
    assert list(tmp_path.iterdir()) == []


def test_masks_have_a_folder_of_their_own(tmp_path):
    with pytest.raises(ArgumentError, match="the folder of the images; expected another"):
        ImageSaver(tmp_path / "a", masks_dir=f"{tmp_path}/b/../a")


def test_quality_says_how_many_bytes(tmp_path):
    sizes = []
    for quality in (10, 50, None, 100):
        ImageSaver(tmp_path, "jpeg", quality=quality).process(some(1, keys=["a"]))
        sizes.append((tmp_path / "a.jpg").stat().st_size)
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("workers", [1, 4])
def test_it_can_stand_anywhere(tmp_path, workers):
    data = class_folders(tmp_path / "data", classes=2, each=5)

    def batches(*before):
        reader = ImageFileReader(data, 3, (24, 32), epochs=2, seed=4)
        saver = ImageSaver(tmp_path / "out", workers=workers)
        augmentations = Augmentations([FlipX(), Normalize()])
        with Pipeline([reader, *before, *([saver] if before == () else []), augmentations]) as pipeline:
            return list(pipeline.forever())

    class Nothing(ImageSaver):
        def process(self, batch):
            return batch

    unsaved, saved = batches(Nothing(tmp_path / "none")), batches()
    for one, other in zip(unsaved, saved, strict=True):
        assert one.keys == other.keys
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
    names = [f"class{label}/{number}" for label in range(2) for number in range(5)]
    assert files(tmp_path / "out") == sorted(f"{name}{epoch}.png" for name in names for epoch in ("", "-e1"))
    assert not (tmp_path / "none").exists()


def test_it_can_stand_at_the_end(tmp_path):
    source = Noise(4, (8, 8), epochs=1, size=10)
    with Pipeline([source, ImageSaver(tmp_path)]) as pipeline:
        written = {
            index: image
            for batch in pipeline
            for index, image in zip(batch.indices, batch.images, strict=True)
        }
    assert files(tmp_path) == [f"{index:08}.png" for index in range(10)]
    for index, image in written.items():
        assert np.array_equal(pixels(tmp_path / f"{index:08}.png"), image)


def test_the_next_may_write_into_the_arrays_if_this_one_might(tmp_path):
    source, saver = Noise(4, (8, 8)), ImageSaver(tmp_path)
    saver.follow(source)
    assert saver.hands_over
    behind = ImageSaver(tmp_path)
    behind.follow(type("Keeps", (Noise,), {"hands_over": False})(4, (8, 8)))
    assert not behind.hands_over


@pytest.mark.parametrize("key", ["../a.jpg", "a/../../b.jpg", "/..", "a/..", "..", "", "a/", ".", "a\0b"])
def test_keys_that_lead_out_of_the_folder_are_refused(tmp_path, key):
    folder = tmp_path / "out"
    with pytest.raises(ArgumentError, match="is not a file inside") as refused:
        ImageSaver(folder).process(some(2, keys=["fine.jpg", key]))
    assert repr(key) in str(refused.value)
    # Nothing of the batch is written.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 8, 8), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, images):
    with pytest.raises(ArgumentError, match="put it before Normalize"):
        ImageSaver(tmp_path).process(Batch({"images": images}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"format": "gif"}, "format is 'gif'"),
        ({"format": "jpeg", "quality": 0}, "quality is 0"),
        ({"format": "jpeg", "quality": 101}, "quality is 101"),
        ({"quality": 90}, "'png' has none"),
        ({"workers": 0}, "workers"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, says):
    with pytest.raises(ArgumentError, match=says):
        ImageSaver(tmp_path, **arguments)


def test_missing_pil_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingPackageError, match="pip install Pillow-SIMD"):
        ImageSaver(tmp_path)


def test_a_file_in_the_place_of_a_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(WriteError, match=r"a/1\.png' cannot be written: (Not a directory|File exists)"):
        ImageSaver(tmp_path).process(some(1, keys=["a/1.jpg"]))
    (tmp_path / "b.png").mkdir()
    with pytest.raises(WriteError, match=r"b\.png' cannot be written: Is a directory"):
        ImageSaver(tmp_path).process(some(1, keys=["b.jpg"]))
    assert files(tmp_path) == ["a"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(monkeypatch, tmp_path):
    import builtins

    (tmp_path / "a.png").write_bytes(b"before")
    real = builtins.open

    def full(path, mode="r", *rest, **more):
        if ".highway-" not in str(path):
            return real(path, mode, *rest, **more)
        real(path, mode).close()
        return real("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(WriteError, match=r"a\.png' cannot be written: No space left on device"):
        ImageSaver(tmp_path).process(some(1, keys=["a.jpg"]))
    monkeypatch.undo()
    assert files(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"before"


def test_an_error_ends_the_pipeline(tmp_path):
    (tmp_path / "out").write_bytes(b"")
    source = Noise(4, (8, 8), epochs=1, size=40)
    with pytest.raises(WriteError, match="out"), Pipeline([source, ImageSaver(tmp_path / "out")]) as pipeline:
        list(pipeline)


def test_several_workers_may_write_the_same_file(tmp_path):
    saver, batch = ImageSaver(tmp_path), some(20, keys=["a/1.jpg"] * 20)
    threads = [threading.Thread(target=saver.process, args=(batch,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(tmp_path) == ["a/1.png"]
    assert np.array_equal(pixels(tmp_path / "a" / "1.png"), batch.images[-1])


def test_absolute_keys_are_below_the_folder_too(tmp_path):
    batch = Batch({"images": np.zeros((1, 4, 4, 3), np.uint8)}, seq=0, keys=["/data/set/a.jpg"])
    ImageSaver(tmp_path).process(batch)
    assert (tmp_path / "data" / "set" / "a.png").is_file()


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ("cat/1.jpg", "cat/1.png", "cat/1.png"),
        ("cat/1", "cat/1.webp", "cat/1.png"),
        ("/data/1.jpg", "data/1.jpg", "data/1.png"),
        ("a/1.jpg", "./a//1.jpg", "a/1.png"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_two_samples_never_get_one_file(tmp_path, one, other, name, apart):
    saver = ImageSaver(tmp_path)
    if apart:
        saver.process(some(2, keys=["x.jpg", one]))
    with pytest.raises(ArgumentError, match="would be the file of two samples") as refused:
        saver.process(some(1, keys=[other]) if apart else some(2, keys=[one, other]))
    assert repr(other) in str(refused.value) and str(tmp_path / name) in str(refused.value)
    assert apart or repr(one) in str(refused.value)
    assert files(tmp_path) == (sorted(["x.png", name]) if apart else [])


def test_a_sample_that_comes_again_replaces_its_file(tmp_path):
    data = class_folders(tmp_path / "data", classes=2, each=3)
    for _ in range(2):
        # Six samples for four parts: some come twice.
        for rank in range(4):
            options = {"epochs": 2, "seed": 1, "shard": (rank, 4)}
            with Pipeline(
                [ImageFileReader(data, 2, (8, 8), **options), ImageSaver(tmp_path / "out")]
            ) as pipeline:
                list(pipeline.forever())
    assert len(files(tmp_path / "out")) == 12


def test_keys_that_are_equal_in_one_epoch_are_two_samples(tmp_path):
    data = class_folders(tmp_path / "data", classes=1, each=2)
    first, second = sorted(data.rglob("*.jpg"))
    reader = ListReader([first, second, first], [0, 1, 2], 1, (8, 8), epochs=1)
    pipeline = Pipeline([reader, ImageSaver(tmp_path / "out")])
    with pytest.raises(ArgumentError, match="one of them of the key"), pipeline:
        list(pipeline)


def test_names_of_epochs_are_kept_apart_from_keys(tmp_path):
    saver = ImageSaver(tmp_path)
    saver.process(some(2, keys=["1.jpg", "1-e2.jpg"]))
    saver.process(some(1, keys=["1.jpg"], epoch=1))
    with pytest.raises(ArgumentError, match=r"1-e2\.png' would be the file of two samples"):
        saver.process(some(1, keys=["1.jpg"], epoch=2))
    other = ImageSaver(tmp_path / "other")
    other.process(some(1, keys=["1.jpg"], epoch=2))
    with pytest.raises(ArgumentError, match=r"1-e2\.png' would be the file of two samples"):
        other.process(some(1, keys=["1-e2.jpg"]))


@pytest.mark.parametrize(
    "keys", [["a/X.jpg", "a/x.jpg"], ["\u00e9.jpg", "e\u0301.jpg"], ["\u00c9.jpg", "e\u0301.jpg"]]
)
def test_names_that_the_file_system_takes_for_one(tmp_path, monkeypatch, keys):
    ImageSaver(tmp_path / "apart").process(some(2, keys=keys))
    assert len(files(tmp_path / "apart")) == 2
    real = os.path.lexists
    monkeypatch.setattr(
        os.path, "lexists", lambda path: real(path) or ".HIGHWAY-NAMES" in path or "names-e\u0301" in path
    )
    with pytest.raises(ArgumentError, match="would be the file of two samples"):
        ImageSaver(tmp_path / "one").process(some(2, keys=keys))
    assert files(tmp_path / "one") == []


@pytest.mark.parametrize("shard", [(0, 1), (0, 3), (2, 3)])
@pytest.mark.parametrize("workers", [1, 3])
def test_pictures_that_differ_in_the_ending_alone_keep_it(tmp_path, workers, shard):
    data = class_folders(tmp_path / "data", classes=1, each=3)
    with Image.open(sorted(data.rglob("*.jpg"))[0]) as picture:
        picture.save(data / "class0" / "0.png")
        picture.save(data / "class0" / "0.BMP")
    for ranks in ([shard[0]], range(shard[1])):
        for rank in ranks:
            reader = ImageFileReader(data, 1, (8, 8), epochs=2, seed=5, shard=(rank, shard[1]))
            saver = ImageSaver(tmp_path / "out", workers=workers)
            with Pipeline([reader, Augmentations([FlipX()]), saver]) as pipeline:
                list(pipeline.forever())
    names = ["0.BMP", "0.jpg", "0.png", "1", "2"]
    assert files(tmp_path / "out") == sorted(
        f"class0/{name}{epoch}.png" for name in names for epoch in ("", "-e1")
    )


def test_masks_of_keys_that_differ_in_the_ending_alone(tmp_path):
    arrays = {
        "images": np.zeros((3, 8, 8, 3), np.uint8),
        "masks": np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8),
    }
    source = ArrayReader(
        arrays["images"],
        None,
        2,
        fields={"masks": arrays["masks"]},
        keys=["a/1.jpg", "a/1.png", "a/1"],
        epochs=1,
        shuffle=False,
    )
    with Pipeline([source, ImageSaver(tmp_path / "a", "jpeg", masks_dir=tmp_path / "b")]) as pipeline:
        list(pipeline)
    assert files(tmp_path / "a") == ["a/1.jpg", "a/1.jpg.jpg", "a/1.png.jpg"]
    assert files(tmp_path / "b") == ["a/1.jpg.png", "a/1.png", "a/1.png.png"]
    assert np.array_equal(pixels(tmp_path / "b/a/1.png.png"), arrays["masks"][1])
    reader = ImageFileReader(tmp_path / "a", 3, (8, 8), masks_dir=tmp_path / "b", epochs=1, shuffle=False)
    with Pipeline([reader]) as pipeline:
        assert np.array_equal(pipeline.dequeue().masks, arrays["masks"][[2, 0, 1]])


def test_pictures_that_differ_in_the_ending_alone_are_an_error_where_keys_are_not_known_beforehand(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(ImageFileReader, "known_keys", lambda self: None)
    data = class_folders(tmp_path / "data", classes=1, each=2)
    with Image.open(sorted(data.rglob("*.jpg"))[0]) as picture:
        picture.save(data / "class0" / "0.png")
    reader = ImageFileReader(data, 1, (8, 8), epochs=1)
    pipeline = Pipeline([reader, ImageSaver(tmp_path / "out", workers=3)])
    with pytest.raises(ArgumentError, match=r"'class0/0\.(jpg|png)'"), pipeline:
        list(pipeline)
