"""TarSink and highway pack: shards that are whole, complete themselves, and are plain WebDataset."""

import errno
import gc
import itertools
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, photograph
from PIL import Image
from tars import write_tar

from highway.batch import Batch
from highway.cli import main
from highway.engine import Pipeline, Source, Stage
from highway.errors import (
    ArgumentError,
    CorruptStoreError,
    DecodeError,
    EmptyDatasetError,
    IncompleteStoreError,
    ReadError,
    StateMismatchError,
    StoreError,
    StoreLockedError,
    TarError,
    WriteError,
)
from highway.modules import Encoded, ImageFileReader, ListReader, Noise, TarReader, TarSink
from highway.store import tar_shards
from highway.transforms import RandomResizedCrop

SHAPE = (24, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = class_folders(tmp_path_factory.mktemp("photos"), 3, 8)
    (root / "class1" / "3.jpg").write_bytes(jpeg_bytes(photograph(50, 70, 5), orientation=6))
    photograph(44, 55, 7).save(root / "class2" / "p.n.g.png")
    photograph(44, 55, 8).save(root / "class2" / "3.webp")
    return root


def source(folder, encoding="original", **options):
    return Encoded(ImageFileReader(folder, 1, 1, **{"epochs": 1, "shuffle": False, **options}), encoding)


def write(source, *arguments, **options):
    with Pipeline([source, sink := TarSink(*arguments, **options)]) as pipeline:
        pipeline.wait(60)
    return sink


def samples_of(reader):
    found = {}
    with Pipeline([reader]) as pipeline:
        for batch in pipeline:
            for row, index in enumerate(batch.indices.tolist()):
                assert index not in found
                found[index] = [
                    batch.rows_of(name, row).tobytes() if name in batch.ragged else array[row].tobytes()
                    for name, array in batch.fields.items()
                ]
    return found


@pytest.mark.parametrize("shuffle", [False, True])
def test_shards_have_the_samples_of_the_folder(folder, tmp_path, shuffle):
    sink = write(source(folder, shuffle=shuffle), tmp_path / "new" / "t-{00..}.tar", shard_samples=10)
    assert (sink.begun_with, sink.stored) == (0, 26)
    assert sorted(os.listdir(tmp_path / "new")) == ["t-00.tar", "t-01.tar", "t-02.tar", "t.json"]
    options = {"epochs": 1, "fit": RandomResizedCrop()}
    reader = TarReader(tmp_path / "new" / "t-{00..02}.tar", 4, SHAPE, **options)
    found, expected = samples_of(reader), samples_of(ImageFileReader(folder, 4, SHAPE, **options))
    keys = list(reader.known_keys())
    assert {"class0/0", "class2/p_n_g", "class2/3", "class2/3-2"} <= set(keys)
    if not shuffle:
        assert found == expected
    assert len(found) == 26
    listing = json.loads((tmp_path / "new" / "t.json").read_text())
    assert listing["__kind__"] == "wids-shard-index-v1" and listing["wids_version"] == 1
    assert [shard["nsamples"] for shard in listing["shardlist"]] == [10, 10, 6]
    for shard in listing["shardlist"]:
        path = tmp_path / "new" / shard["url"]
        assert path.stat().st_size == shard["filesize"] and path.stat().st_size % 10240 == 0
    assert listing["highway"]["classes"] == ["class0", "class1", "class2"]
    assert listing["highway"]["complete"] is True
    if not shuffle:
        assert listing["highway"]["samples"] == [[[0, 9]], [[10, 19]], [[20, 25]]]


def test_pictures_of_16_bits_keep_them(tmp_path):
    numbers = np.arange(24 * 32, dtype=np.uint16).reshape(SHAPE) * 85
    (tmp_path / "some" / "a").mkdir(parents=True)
    Image.fromarray(numbers).save(tmp_path / "some" / "a" / "0.png")
    (tmp_path / "some" / "a" / "1.pgm").write_bytes(b"P5 32 24 65535\n" + numbers.astype(">u2").tobytes())
    write(source(tmp_path / "some"), tmp_path / "t-{00..}.tar")
    with tarfile.open(tmp_path / "t-00.tar") as tar:
        assert {"png", "pgm"} < {name.rpartition(".")[2] for name in tar.getnames()}
    options = {"color": "gray", "dtype": "uint16", "epochs": 1, "shuffle": False}
    with Pipeline([TarReader(tmp_path / "t-00.tar", 2, SHAPE, **options)]) as pipeline:
        (batch,) = list(pipeline)
    assert (batch.images[..., 0] == numbers).all()


def test_the_list_of_shards_is_read(folder, tmp_path):
    write(source(folder), tmp_path / "t-{00..}.tar", shard_samples=10)
    listing = tmp_path / "t.json"
    reader = TarReader(listing, 4, SHAPE, epochs=1)
    assert [os.path.basename(path) for path in reader.paths] == ["t-00.tar", "t-01.tar", "t-02.tar"]
    assert samples_of(reader) == samples_of(ImageFileReader(folder, 4, SHAPE, epochs=1))
    text = listing.read_text()
    for name, value in (("nsamples", 10), ("filesize", (tmp_path / "t-00.tar").stat().st_size)):
        listing.write_text(text.replace(f'"{name}":{value}', f'"{name}":{value + 1}', 1))
        with pytest.raises(TarError, match=rf"t-00.tar' has {value} .*, and its list says {value + 1}"):
            TarReader(listing, 4, SHAPE)
    for wrong in (
        "{}",
        "[]",
        "x",
        '{"wids_version":2,"shardlist":[]}',
        '{"wids_version":1,"shardlist":[{}]}',
    ):
        listing.write_text(wrong)
        with pytest.raises(DecodeError, match="is no list of shards in the format of wids"):
            TarReader(listing, 4, SHAPE)
    listing.write_text('{"wids_version":1,"shardlist":[]}')
    with pytest.raises(EmptyDatasetError, match="lists no shards"):
        TarReader(listing, 4, SHAPE)
    listing.write_text('{"wids_version":1,"shardlist":[{"url":"t-00.tar"},{"url":"t-00.tar"}]}')
    with pytest.raises(DecodeError, match=r"t\.json' lists .*t-00\.tar' twice"):
        TarReader(listing, 4, SHAPE)
    with pytest.raises(ReadError, match=r"none\.json' cannot be read"):
        TarReader(tmp_path / "none.json", 4, SHAPE)


def test_shards_of_some_bytes_and_equal_bits_again(folder, tmp_path):
    for name in ("a", "b"):
        write(source(folder, workers=1 + (name == "b")), tmp_path / name / "{000..}.tar", shard_bytes=1 << 16)
    names = sorted(os.listdir(tmp_path / "a"))
    assert names[-1] == "shards.json" and len(names) > 2
    for name in names[:-1]:
        assert (tmp_path / "a" / name).stat().st_size <= 1 << 16
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_relative_path(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(source(folder), "t-{0..}.tar", shard_samples=20)
    assert sorted(os.listdir()) == ["t-0.tar", "t-1.tar", "t.json"]
    assert write(source(folder), "t-{0..}.tar", append=True).begun_with == 26


def test_python_reads_the_members(folder, tmp_path):
    write(source(folder), tmp_path / "t-{0..}.tar")
    with tarfile.open(tmp_path / "t-0.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert members["class0/0.jpg"] == (folder / "class0" / "0.jpg").read_bytes()
    assert members["class2/0.cls"] == b"2"
    assert len(members) == 52


# The package leaves its last tar open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_the_webdataset_package_reads_the_shards(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="the package webdataset is not installed")
    write(source(folder), tmp_path / "t-{00..}.tar", shard_samples=10)
    urls = str(tmp_path / "t-{00..02}.tar")
    found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(found) == 26
    keys = list(ImageFileReader(folder, 1, 1).known_keys())
    for sample, key in zip(found, keys, strict=True):
        assert sample["cls"] == str(int(key[5])).encode()
        ending = os.path.splitext(key)[1][1:]
        assert sample[ending] == (folder / key).read_bytes()
    gc.collect()


def test_boxes_masks_and_other_fields(tmp_path):
    Image.fromarray(np.full((50, 70), 3, np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "p.jpg").write_bytes(jpeg_bytes(photograph(50, 70, 1), orientation=6))
    reader = ListReader(
        [tmp_path / "p.jpg"] * 2,
        [[1, 2], []],
        1,
        1,
        boxes=[[[0, 0, 70, 25], [1, 1, 3, 9]], []],
        masks=[tmp_path / "m.png"] * 2,
        epochs=1,
        shuffle=False,
    )
    write(Encoded(reader, "original"), tmp_path / "t-{0..}.tar")
    packed = TarReader(
        tmp_path / "t-0.tar",
        2,
        (70, 50),
        label="labels.npy",
        boxes="boxes.npy",
        masks="mask.png",
        upright=True,
        shuffle=False,
        epochs=1,
    )
    straight = ListReader(
        [tmp_path / "p.jpg"] * 2,
        [[1, 2], []],
        2,
        (70, 50),
        boxes=[[[0, 0, 70, 25], [1, 1, 3, 9]], []],
        masks=[tmp_path / "m.png"] * 2,
        shuffle=False,
        epochs=1,
    )
    found, expected = samples_of(packed), samples_of(straight)
    assert found == expected
    small = write(Encoded(reader, "jpeg:40"), tmp_path / "s-{0..}.tar")
    with tarfile.open(small.path.replace("{0..}", "0")) as tar:
        assert "picture_sizes.npy" in " ".join(tar.getnames())


class Made(Source):
    """Batches as they are given."""

    epochs = 1

    def __init__(self, *batches):
        super().__init__()
        self.batches = batches

    def tasks(self):
        return iter(range(len(self.batches)))

    def load(self, task):
        return self.batches[task]


def encoded(count, **fields):
    images = np.empty(count, object)
    images[:] = [jpeg_bytes(photograph(8, 8, number)) for number in range(count)]
    return Batch({"images": images, **fields}, indices=np.arange(count), seq=0, keys=fields.pop("keys", None))


def test_fields_of_any_source(tmp_path):
    texts = np.array(["größe", "b"], object)
    batch = encoded(2, labels=np.eye(2, dtype=np.float32), caption=texts, scores=np.arange(2) * 0.5)
    write(Made(batch), tmp_path / "t-{0..}.tar")
    reader = TarReader(
        tmp_path / "t-0.tar",
        2,
        8,
        label="labels.npy",
        fields={"c": "caption.txt", "s": "scores.npy"},
        shuffle=False,
    )
    with Pipeline([reader]) as pipeline:
        found = pipeline.dequeue()
    assert found.keys == ["00000000", "00000001"]
    assert found.labels.tolist() == [[1, 0], [0, 1]] and found.labels.dtype == np.float32
    assert found["c"].tolist() == ["größe", "b"] and found["s"].tolist() == [0, 0.5]


def test_keys_become_names_that_webdataset_keeps(tmp_path):
    keys = [
        "/abs/a.b.jpg",
        "/abs/a_b.png",
        "__a__/x.jpg",
        "d.d/x.jpg",
        "d.d/.y",
        "n" * 150 + "/" + "m" * 150 + ".jpg",
    ]
    images = np.empty(len(keys), object)
    images[:] = [jpeg_bytes(photograph(8, 8, number)) for number in range(len(keys))]
    batch = Batch({"images": images}, indices=np.arange(len(keys)), seq=0, keys=keys)
    write(Made(batch), tmp_path / "t-{0..}.tar")
    reader = TarReader(tmp_path / "t-0.tar", 2, 8, label=None)
    assert list(reader.known_keys()) == [
        "abs/a_b",
        "abs/a_b-2",
        "_/__a__/x",
        "d.d/x",
        "d.d/_y",
        "n" * 150 + "/" + "m" * 150,
    ]


# Resuming


def shards(folder):
    return {
        name: (folder / name).read_bytes() for name in sorted(os.listdir(folder)) if name.endswith(".tar")
    }


class Stopping(TarSink):
    """Fails at sample number `after`."""

    after = 0

    def carry(self, ticket, outcome):
        if ticket >= self.after:
            raise KeyError("stopped here")
        super().carry(ticket, outcome)


@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_an_interrupted_run_resumes(folder, tmp_path, after, monkeypatch):
    # Encoded makes batches of up to 64 pictures.
    monkeypatch.setattr("highway.modules.readers.encoded._MOST_SAMPLES", 5)
    path = tmp_path / "t-{0..}.tar"
    monkeypatch.setattr(Stopping, "after", after)
    with (
        pytest.raises(KeyError, match="stopped here"),
        Pipeline([source(folder), Stopping(path, shard_samples=3)]) as pipeline,
    ):
        pipeline.wait(60)
    before = shards(tmp_path)
    if before:
        assert json.loads((tmp_path / "t.json").read_text())["highway"]["complete"] is False
        with pytest.raises(IncompleteStoreError, match="append=True"):
            write(source(folder), path, shard_samples=3)
    sink = write(source(folder), path, shard_samples=3, append=True)
    assert (sink.begun_with, sink.stored) == (5 * after, 26)
    found = shards(tmp_path)
    assert {name: found[name] for name in before} == before
    options = {"epochs": 1, "fit": RandomResizedCrop()}
    assert samples_of(TarReader(tmp_path / "t-?.tar", 4, SHAPE, **options)) == samples_of(
        ImageFileReader(folder, 4, SHAPE, **options)
    )
    # Once more: nothing to do.
    sink = write(source(folder), path, shard_samples=3, append=True)
    assert (sink.begun_with, sink.stored) == (26, 26) and shards(tmp_path) == found
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".part", ".lock"))]


def test_a_part_that_a_killed_run_left_is_replaced(folder, tmp_path):
    (tmp_path / ".t-0.tar.part").write_bytes(b"half")
    write(source(folder), tmp_path / "t-{0..}.tar")
    assert sorted(os.listdir(tmp_path)) == ["t-0.tar", "t.json"]


def test_a_shard_that_is_not_listed_is_written_again(folder, tmp_path):
    """Killed after the shard had its name, and before it was listed."""
    path = tmp_path / "t-{0..}.tar"
    write(source(folder), path, shard_samples=20)
    whole = shards(tmp_path)
    listing = json.loads((tmp_path / "t.json").read_text())
    listing["shardlist"].pop()
    listing["highway"]["samples"].pop()
    listing["highway"]["complete"] = False
    (tmp_path / "t.json").write_text(json.dumps(listing))
    sink = write(source(folder), path, shard_samples=20, append=True)
    assert (sink.begun_with, sink.stored) == (20, 26)
    assert shards(tmp_path) == whole


def test_bad_pictures_are_skipped_and_tried_again(folder, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(folder, root)
    good = (root / "class0" / "4.jpg").read_bytes()
    (root / "class0" / "4.jpg").write_bytes(good[:-100])
    path = tmp_path / "t-{0..}.tar"
    assert write(source(root, on_error="skip"), path).stored == 25
    (root / "class0" / "4.jpg").write_bytes(good)
    sink = write(source(root, on_error="skip"), path, append=True)
    assert (sink.begun_with, sink.stored) == (25, 26)


def test_nothing_is_overwritten(folder, tmp_path):
    path = tmp_path / "t-{0..}.tar"
    write(source(folder), path)
    with pytest.raises(StoreError, match="a set of 26 samples in 1 shards, and is not overwritten"):
        write(source(folder), path)
    with pytest.raises(StateMismatchError, match="were begun with other data: its fingerprint"):
        write(source(folder, "jpeg:20"), path, append=True)
    write_tar(tmp_path / "u-0.tar", [])
    with pytest.raises(StoreError, match=r"u-0.tar' exists, and is not overwritten"):
        write(source(folder), tmp_path / "u-{0..}.tar", append=True)
    (tmp_path / "v.json").write_text("{}")
    with pytest.raises(StoreError, match="is no list of shards that Highway wrote"):
        write(source(folder), tmp_path / "v-{0..}.tar", append=True)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: os.truncate(path, 512), "has 512 bytes; it was written with"),
        (os.unlink, "is gone; it was written with"),
        (lambda path: path.write_bytes(b"x" * path.stat().st_size), "is damaged, or no tar"),
    ],
    ids=["cut", "gone", "other"],
)
def test_damaged_shards_are_not_completed(folder, tmp_path, damage, text):
    path = tmp_path / "t-{0..}.tar"
    write(source(folder), path, shard_samples=20)
    damage(tmp_path / "t-0.tar")
    with pytest.raises(CorruptStoreError, match=text):
        write(source(folder), path, append=True)


def test_one_writer_at_a_time(folder, tmp_path):
    path = tmp_path / "t-{0..}.tar"
    lock = tar_shards._Lock(str(tmp_path / "t.json"), "Test")
    with pytest.raises(StoreLockedError, match="are being written"):
        write(source(folder), path)
    lock.release()
    assert write(source(folder), path).stored == 26


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk(folder, tmp_path, monkeypatch, step):
    path = tmp_path / "t-{0..}.tar"
    full = OSError(errno.ENOSPC, "No space left on device")
    write(source(folder), path, shard_samples=10)
    os.unlink(tmp_path / "t-2.tar")
    listing = json.loads((tmp_path / "t.json").read_text())
    listing["shardlist"].pop()
    listing["highway"]["samples"].pop()
    (tmp_path / "t.json").write_text(json.dumps(listing))

    def fail(*arguments):
        raise full

    if step == "write":
        monkeypatch.setattr(tar_shards._Part, "write", fail)
    else:
        monkeypatch.setattr(tar_shards.os, step, fail)
    with pytest.raises(WriteError, match="cannot be written: No space left"):
        write(source(folder), path, append=True)
    monkeypatch.undo()
    assert sorted(shards(tmp_path)) == ["t-0.tar", "t-1.tar"]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert write(source(folder), path, append=True).stored == 26


def test_more_shards_than_names(folder, tmp_path):
    with pytest.raises(WriteError, match=r"has no name for shard 2.*range without an end"):
        write(source(folder), tmp_path / "t-{0..1}.tar", shard_samples=10)


@pytest.mark.parametrize(
    "path", ["t.tar", "t-{a,b}.tar", "t-{0..}", "{0..}/t-{0..}.tar", "{0..}/t.tar", "t-{..3}.tar"]
)
def test_wrong_names(path):
    with pytest.raises(ArgumentError, match="expected the name of a tar with one range"):
        TarSink(path)


def test_wrong_sources(folder, tmp_path):
    with pytest.raises(ArgumentError, match="expected a source with epochs=1"):
        Pipeline([source(folder, epochs=None), TarSink(tmp_path / "t-{0..}.tar")])
    with pytest.raises(ArgumentError, match=r"images of uint8; expected encoded pictures"):
        write(Noise(2, (8, 8), size=3, epochs=1), tmp_path / "u-{0..}.tar")
    images = np.empty(1, object)
    images[0] = b"hello"
    with pytest.raises(ArgumentError, match="is no picture of a known format; expected JPEG"):
        write(Made(Batch({"images": images}, seq=0)), tmp_path / "v-{0..}.tar")
    other = np.array([{}], object)
    with pytest.raises(ArgumentError, match="other of sample 0 of a batch is a dict"):
        write(Made(encoded(1, other=other)), tmp_path / "w-{0..}.tar")
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_a_run_that_was_killed_before_it_listed_its_first_shard(folder, tmp_path, monkeypatch):
    path = tmp_path / "t-{0..}.tar"

    def killed(self):
        _Part.finish(self)
        raise KeyboardInterrupt("killed")

    _Part = tar_shards._Part
    monkeypatch.setattr(tar_shards, "_Part", type("_Part", (_Part,), {"finish": killed}))
    with (
        pytest.raises(KeyboardInterrupt),
        Pipeline([source(folder), TarSink(path, shard_samples=10)]) as pipeline,
    ):
        pipeline.wait(60)
    monkeypatch.undo()
    assert "t-0.tar" in os.listdir(tmp_path)
    assert write(source(folder), path, shard_samples=10, append=True).stored == 26
    assert samples_of(TarReader(tmp_path / "t-?.tar", 4, SHAPE, epochs=1, shuffle=False)) == samples_of(
        ImageFileReader(folder, 4, SHAPE, epochs=1, shuffle=False)
    )


def test_data_without_a_good_picture_leave_nothing_in_the_way(folder, tmp_path):
    path = tmp_path / "t-{0..}.tar"
    empty = tar_shards.TarShards(
        tar_shards.ShardNames(str(path), "Test"),
        "Test",
        append=True,
        shard_bytes=1 << 20,
        shard_samples=None,
        classes=None,
        fingerprint="",
        origin="",
    )
    empty.finish()
    empty.close()
    assert json.loads((tmp_path / "t.json").read_text())["shardlist"] == []
    assert write(source(folder), path, append=True).stored == 26


def test_a_tar_of_somebody_else_is_not_overwritten(folder, tmp_path):
    path = tmp_path / "t-{0..}.tar"
    (tmp_path / "t-2.tar").write_bytes(b"precious")
    with pytest.raises(StoreError, match=r"t-2.tar' exists, is not in .*t.json', and is not overwritten"):
        write(source(folder), path, shard_samples=10)
    assert (tmp_path / "t-2.tar").read_bytes() == b"precious"


def test_a_lock_whose_file_was_removed_is_taken_again(tmp_path, monkeypatch):
    """A writer ends between opening and locking the file by another one."""
    listing = str(tmp_path / "t.json")
    first = tar_shards._Lock(listing, "Test")
    flock = tar_shards.flock

    def late(file, *arguments):
        monkeypatch.setattr(tar_shards, "flock", flock)
        first.release()
        return flock(file, *arguments)

    monkeypatch.setattr(tar_shards, "flock", late)
    second = tar_shards._Lock(listing, "Test")
    with pytest.raises(StoreLockedError):
        tar_shards._Lock(listing, "Test")
    second.release()
    assert os.listdir(tmp_path) == []


# The command


def test_highway_pack(folder, tmp_path, capsys):
    to = str(tmp_path / "t-{000..}.tar")
    assert main(["pack", str(folder), to, "--shard-size", "1"]) == 0
    assert "26 samples" in capsys.readouterr().out
    assert main(["pack", str(folder), to]) == 0
    assert "26 were there already" in capsys.readouterr().out
    reader = TarReader(tmp_path / "t-*.tar", 4, SHAPE, epochs=1)
    assert samples_of(reader) == samples_of(ImageFileReader(folder, 4, SHAPE, epochs=1))
    assert main(["pack", str(folder), to, "--encoding", "raw:16"]) == 1
    assert "in the encoding raw; expected original" in capsys.readouterr().err
    for name in ("photos.tar.gz", "photos.tgz", "photos.tar.zst"):
        assert main(["pack", str(folder), str(tmp_path / name)]) == 1
        assert "names a compressed tar, which has no random access" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
    assert main(["pack", str(folder), str(tmp_path / "s.ldb"), "--shard-size", "1"]) == 1
    assert "no name of tar shards" in capsys.readouterr().err


def test_a_field_without_rows_is_refused(folder, tmp_path):
    class Whole(Stage):
        def process(self, batch):
            return batch.replace(loss=np.array(1.0, np.float32))

    sink = TarSink(tmp_path / "a-{0..}.tar")
    with (
        Pipeline([source(folder), Whole(), sink]) as pipeline,
        pytest.raises(ArgumentError, match="TarSink: loss is one float32 for the whole batch"),
    ):
        pipeline.wait(60)


def test_a_list_of_shards_states_the_classes(folder, tmp_path):
    write(source(folder), tmp_path / "a-{0..}.tar", shard_samples=10)
    classes = ["class0", "class1", "class2"]
    listed = TarReader(tmp_path / "a.json", 4, SHAPE)
    assert listed.classes == classes
    assert listed.class_counts().tolist() == [8, 8, 10]
    assert TarReader(tmp_path / "a-*.tar", 4, SHAPE).classes is None
    assert TarReader(tmp_path / "a-*.tar", 4, SHAPE).class_counts().tolist() == [8, 8, 10]
    assert TarReader(tmp_path / "a.json", 4, SHAPE, classes=["x", "y", "z"]).classes == ["x", "y", "z"]
    assert TarReader(tmp_path / "a.json", 4, SHAPE, label=None).classes is None
    with pytest.raises(ArgumentError, match="the labels are missing"):
        TarReader(tmp_path / "a.json", 4, SHAPE, label=None).class_counts()
    content = json.loads((tmp_path / "a.json").read_text())
    content["highway"]["classes"] = ["class0"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DecodeError, match="has the class number 1; expected 0 to 0"):
        TarReader(tmp_path / "a.json", 4, SHAPE).class_counts()


@pytest.mark.parametrize("options", [{"shuffle": False}, {"window": 2, "seed": 4}])
def test_tars_are_written_again_with_their_fields(folder, tmp_path, options):
    members = []
    for number in range(12):
        picture = jpeg_bytes(photograph(30, 40, number), orientation=1 + number % 8)
        fields = {"jpg": picture, "cls": b"%d" % number, "txt": b"text %d" % number, "json": b'{"a": [1, 2]}'}
        members.append([(f"{number:03}.{ending}", contents) for ending, contents in fields.items()])
    for shard in range(4):
        write_tar(tmp_path / f"in-{shard}.tar", itertools.chain(*members[3 * shard : 3 * shard + 3]))
    given = {"fields": {"caption": "txt", "pair": "json:a"}, "epochs": 1}
    reader = TarReader(tmp_path / "in-*.tar", 5, SHAPE, **given, **options)
    write(Encoded(reader, "original"), tmp_path / "out-{0..}.tar")
    given["fields"] = {"caption": "caption.txt", "pair": "pair.npy"}
    again = TarReader(tmp_path / "out.json", 12, SHAPE, shuffle=False, **given)
    with Pipeline([reader]) as pipeline:
        batches = list(pipeline)
    with Pipeline([again]) as pipeline:
        batch = pipeline.dequeue()
    # In the order in which they were read.
    for name in ("images", "labels", "caption", "pair"):
        np.testing.assert_array_equal(batch[name], np.concatenate([one[name] for one in batches]))
    assert batch.keys == [key for one in batches for key in one.keys]
    assert (batch.keys == sorted(batch.keys)) == ("window" not in options)
