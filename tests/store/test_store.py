"""LevelDBSink and LevelDBSource: what goes in comes out to the bit, and nothing else ever does."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders
from voc_folders import annotation, thing, voc_folder

import highway
from highway._core import simd
from highway._core.records import checksum
from highway._core.records.spans import Spans
from highway._core.wire import packing
from highway.batch import Batch, ragged_groups
from highway.cli import main
from highway.engine import Pipeline, Source, Stage
from highway.engine.spec import array_spec
from highway.errors import (
    ArgumentError,
    CorruptStoreError,
    EmptyDatasetError,
    IncompleteStoreError,
    MissingPackageError,
    StateMismatchError,
    StoreError,
    StoreLockedError,
    TooManyErrors,
)
from highway.modules import (
    Augmentations,
    ImageFileReader,
    LevelDBSink,
    LevelDBSource,
    Noise,
    PadBoxes,
    VOCReader,
)
from highway.sampling.sampler import Sampler
from highway.store.marks import Mark
from highway.store.records import Schema
from highway.store.writing import StoreWriter
from highway.transforms import FlipX, Normalize

plyvel = pytest.importorskip(
    "plyvel", reason="plyvel is not installed; it has no wheels for Python 3.13 and later"
)

LIMIT = 60


def noise(batch_size=4, **more):
    return Noise(batch_size, (5, 6), **{"size": 23, "epochs": 1, "seed": 3, **more})


def written(path, source=None, **more):
    """A store of what a source gives."""
    finished(noise() if source is None else source, LevelDBSink(path, **more))
    return path


def finished(*modules):
    with Pipeline(modules) as pipeline:
        pipeline.wait(LIMIT)


def batches_of(source, *modules):
    with Pipeline([source, *modules]) as pipeline:
        return list(pipeline.forever())


def assert_equal(found, expected):
    """To the bit, all but what says where the samples come from."""
    assert (*found.fields,) == (*expected.fields,) and (*found.extras,) == (*expected.extras,)
    for name in (*expected.fields, *expected.extras):
        assert found[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(found[name], expected[name], strict=True, err_msg=name)
    assert found.keys == expected.keys and found.ragged == expected.ragged
    assert found.applied == expected.applied and (found.epoch, found.seq) == (expected.epoch, expected.seq)
    assert (found.offsets is None) == (expected.offsets is None)
    if expected.offsets is not None:
        np.testing.assert_array_equal(found.offsets, expected.offsets, strict=True)


def contents(batches):
    """Bytes of every sample, in order."""
    return [
        b"".join(batch.rows_of(name, i).tobytes() for name in (*batch.fields, *batch.extras))
        for batch in batches
        for i in range(batch.size)
    ]


class Batches(Source):
    """Those that it is given."""

    def __init__(self, *batches):
        super().__init__()
        self.batches = batches

    def tasks(self):
        return iter(self.batches)

    def load(self, task):
        return task


# The checksum


@pytest.mark.parametrize(
    ("data", "expected"),
    # RFC 3720, B.4
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_crc32c_of_known_bytes(simd_variant, data, expected):
    assert checksum.crc32c(data, 0) == expected


@pytest.mark.parametrize("size", [1, 7, 8, 6143, 6144, 6145, 50001])
def test_crc32c_of_any_pieces(simd_variant, size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    whole = checksum.crc32c(data, 0)
    for cut in (0, 1, size // 2, size):
        assert checksum.crc32c(data[cut:], checksum.crc32c(data[:cut], 0)) == whole
    simd.use("plain")
    assert checksum.crc32c(data, 0) == whole


# What goes in comes out


def test_class_folders_come_back_to_the_bit(tmp_path):
    folder = class_folders(tmp_path / "data")
    reader = {"epochs": 1, "seed": 5}
    written(tmp_path / "s", ImageFileReader(folder, 4, (24, 32), **reader))
    source = LevelDBSource(tmp_path / "s", 4, epochs=1, shuffle=False)
    assert source.classes == ["class0", "class1", "class2"]
    assert source.image_shape == (24, 32, 3) and source.size == 15
    found = batches_of(source)
    expected = batches_of(ImageFileReader(folder, 4, (24, 32), **reader))
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)
    assert [batch.indices.tolist() for batch in found] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [12, 13, 14],
    ]


def test_augmentations_behind_a_store_draw_as_behind_the_reader(tmp_path):
    """Where the store is in the order of the data, so that its numbers are theirs."""
    folder = class_folders(tmp_path / "data")
    written(tmp_path / "s", ImageFileReader(folder, 4, (24, 32), epochs=1, shuffle=False))
    steps = [FlipX(), Normalize()]
    found = batches_of(LevelDBSource(tmp_path / "s", 4, epochs=2), Augmentations(steps, seed=1))
    expected = batches_of(ImageFileReader(folder, 4, (24, 32), epochs=2), Augmentations(steps, seed=1))
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)
        assert one.indices.tolist() == other.indices.tolist()


def voc_reader(root, batch_size=2, **more):
    objects = [[], [thing("cat")], [thing("dog"), thing("cat", (1, 2, 60, 55)), thing("dog", (5, 6, 20, 30))]]
    if not root.exists():
        voc_folder(root, {f"p{i}": annotation(*objects[i % 3]) for i in range(7)})
    return VOCReader(root, batch_size, (24, 32), **{"epochs": 1, **more})


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_boxes_and_extras_come_back_to_the_bit(tmp_path, batch_size):
    written(tmp_path / "s", voc_reader(tmp_path / "data", 3))
    found = batches_of(LevelDBSource(tmp_path / "s", batch_size, epochs=1, shuffle=False))
    for one, other in zip(found, batches_of(voc_reader(tmp_path / "data", batch_size)), strict=True):
        assert other.extras and other.ragged
        assert_equal(one, other)


DTYPES = ("bool", "int8", "uint16", "int64", "float16", "float32", ">f4", "complex128")


def test_any_fields_come_back_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)

    def made(seq, count):
        fields = {f"f{i}": (rng.random((count, 3, i)) * 100).astype(dtype) for i, dtype in enumerate(DTYPES)}
        fields["scalars"] = rng.random(count)
        fields["strided"] = rng.integers(0, 9, (count, 4, 6))[:, ::2, ::-1]
        fields["rows"] = rng.random((count + 1, 2))
        keys = [f"é\udcff/{seq}/{i}" for i in range(count)]
        offsets = [0, *range(2, count + 2)]
        extras = {"masks": rng.integers(0, 9, (count, 3, 3), np.uint8), "more": rng.random(count + 1)}
        return Batch(
            fields, seq=seq, indices=seq * 10 + np.arange(count), keys=keys, applied=5, extras=extras,
            offsets=offsets, ragged=("rows", "more"),
        )  # fmt: skip

    batches = [made(0, 3), made(1, 3), made(2, 1)]
    written(tmp_path / "s", Batches(*batches))
    found = batches_of(LevelDBSource(tmp_path / "s", 3, epochs=1, shuffle=False))
    for one, other in zip(found, batches, strict=True):
        assert one["f6"].dtype == np.float32
        assert_equal(one, other.replace(f6=other["f6"].astype(np.float32)))


def texts(seq, count):
    """A batch with boxes, their labels, texts, and tokens with weights."""
    boxes, words, tokens = (np.arange(count + 1) * factor for factor in (1, 5, 3))
    rng = np.random.default_rng(seq)
    return Batch(
        {"boxes": rng.random((count, 4), np.float32), "text": rng.integers(0, 256, 5 * count, np.uint8)},
        seq=seq,
        indices=seq * 10 + np.arange(count),
        extras={
            "labels": np.arange(count),
            "tokens": rng.integers(0, 9, 3 * count),
            "weights": rng.random((3 * count, 2)),
        },
        ragged={"boxes": boxes, "labels": boxes, "text": words, "tokens": tokens, "weights": tokens},
    )


def test_ragged_fields_of_different_offsets_come_back(tmp_path):
    batches = [texts(0, 3), texts(1, 3), texts(2, 1)]
    written(tmp_path / "s", Batches(*batches))
    found = batches_of(LevelDBSource(tmp_path / "s", 3, epochs=1, shuffle=False))
    for one, other in zip(found, batches, strict=True):
        assert_equal(one, other)
        assert ragged_groups(one) == [["boxes", "labels"], ["text"], ["tokens", "weights"]]
        for name in other.ragged:
            assert one.offsets_of(name).tolist() == other.offsets_of(name).tolist()
    with Pipeline([LevelDBSource(tmp_path / "s", 3), PadBoxes(5)]) as pipeline:
        assert pipeline.spec["boxes"].shape == (None, 5, 4)
        assert pipeline.spec["text"] == array_spec(np.uint8, ragged=True, rows="text")
        batch = pipeline.dequeue(timeout=60)
        assert batch.boxes.shape[1:] == (5, 4) and "text" in batch.ragged
    (some,) = batches_of(
        LevelDBSource(tmp_path / "s", 7, epochs=1, shuffle=False, fields=["tokens", "boxes"])
    )
    assert some.tokens.tolist() == np.concatenate([batch.tokens for batch in batches]).tolist()
    assert some.offsets_of("tokens").tolist() == [0, 3, 6, 9, 12, 15, 18, 21]
    assert some.offsets_of("boxes").tolist() == [*range(8)]


def test_an_older_version_refuses_different_offsets():
    """It expects a flag in the place of the groups, and no column of both kinds."""
    schema = Schema.of(texts(0, 3), "test")
    _, _, offset, table = packing.unpack(schema.packed)
    assert offset == [["text"], ["tokens", "weights"]]
    assert [kind for name, _, kind, *_ in table if name in ("text", "tokens")] == [6, 7]
    assert Schema.unpacked(schema.packed) == schema


@pytest.mark.parametrize(
    "groups", [[["text"]], [["text"], ["tokens"]], [["text"], ["tokens", "weights", "boxes"]], [[5]], [5]]
)
def test_damaged_groups_are_refused(groups):
    applied, keyed, _, table = packing.unpack(Schema.of(texts(0, 3), "test").packed)
    with pytest.raises(CorruptStoreError):
        Schema.unpacked(packing.pack([applied, keyed, groups, table]))


def test_rows_that_disagree_are_damage():
    """Records whose checksums are right, from a program that writes other numbers of rows than it says."""
    batch = texts(0, 2)
    schema = Schema.of(batch, "test")
    wrong = batch.replace(weights=batch.weights[:3], ragged={
        **{name: batch.offsets_of(name) for name in batch.ragged}, "weights": [0, 2, 3],
    })  # fmt: skip
    values = [*schema.records(batch, 0, [0]), *schema.records(wrong, 1, [0]), *schema.records(batch, 2, [1])]
    records = schema.check(Spans(values), np.arange(3))
    assert records.rows.tolist() == [0, 2]
    assert "do not have the same number of whole rows" in str(records.errors[1])


def test_rows_without_values_need_the_offsets_of_the_others():
    batch = Batch({"a": np.ones((2, 3)), "b": np.ones((4, 0))}, ragged={"a": [0, 2], "b": [0, 4]})
    with pytest.raises(StoreError, match=r"field 'b' has rows of shape \(0,\), without values"):
        Schema.of(batch, "LevelDBSink")


def test_chosen_fields_alone(tmp_path):
    written(tmp_path / "s", voc_reader(tmp_path / "data"))
    (batch,) = batches_of(LevelDBSource(tmp_path / "s", 7, epochs=1, fields=["boxes", "difficult"]))
    assert [*batch.fields] == ["boxes"] and [*batch.extras] == ["difficult"]
    for wrong in ([], ["nothing"], "boxes"):
        with pytest.raises(ArgumentError, match="fields is"):
            LevelDBSource(tmp_path / "s", 7, fields=wrong)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_order_is_that_of_every_reader(tmp_path, workers):
    written(tmp_path / "s", noise(shuffle=False))
    found = batches_of(LevelDBSource(tmp_path / "s", 4, epochs=2, seed=9, workers=workers))
    order = Sampler(23, 4, seed=9, epochs=2)
    assert [batch.indices.tolist() for batch in found] == [task.indices.tolist() for task in order]
    samples = contents(batches_of(noise(shuffle=False)))
    for batch in found:
        assert contents([batch]) == [samples[index] for index in batch.indices]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shards_are_read_side_by_side(tmp_path, world):
    written(tmp_path / "s", noise())
    sources = [
        LevelDBSource(tmp_path / "s", 4, epochs=1, shard=(rank, world), drop_last=False)
        for rank in range(world)
    ]
    assert len({source.fingerprint() for source in sources}) == 1
    indices = [
        index for source in sources for batch in batches_of(source) for index in batch.indices.tolist()
    ]
    assert sorted(set(indices)) == list(range(23)) and len(indices) < 23 + world


def test_processes_read_side_by_side(tmp_path):
    written(tmp_path / "s", noise())
    code = (
        "import sys; from highway.engine import Pipeline; from highway.modules import LevelDBSource\n"
        "with Pipeline([LevelDBSource(sys.argv[1], 4, epochs=1)]) as p: print(sum(b.size for b in p))"
    )
    with Pipeline([LevelDBSource(tmp_path / "s", 4)]) as pipeline:
        pipeline.dequeue()
        assert run(code, tmp_path / "s").stdout == "23\n"
        pipeline.dequeue()


def test_stores_that_differ_have_other_fingerprints(tmp_path):
    sources = [
        LevelDBSource(written(tmp_path / "a", noise()), 4),
        LevelDBSource(written(tmp_path / "b", noise(seed=4)), 4),
        LevelDBSource(tmp_path / "a", 4, fields=["images"]),
        LevelDBSource(tmp_path / "a", 4, seed=1),
    ]
    assert len({source.fingerprint() for source in sources}) == len(sources)


# Environment of programs that tests start


def run(code, *arguments, **more):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        **more,
    )


def environment():
    return os.environ | {"PYTHONPATH": str(Path(highway.__file__).parents[1])}


# Interrupted writing


WRITER = """
import sys
from highway.engine import Pipeline, Stage
from highway.modules import LevelDBSink, Noise

class Told(Stage):
    def process(self, batch):
        print(batch.seq, flush=True)
        return batch

source = Noise(4, (32, 32), size=400, epochs=1, seed=3)
sink = LevelDBSink(sys.argv[1], batch_bytes=20_000, append=len(sys.argv) > 2)
Pipeline([source, Told(workers=1), sink]).wait()
"""


@pytest.mark.parametrize("seed", range(10))
def test_killed_writer_loses_nothing(tmp_path, seed):
    path = tmp_path / "s"
    when = random.Random(seed)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    with process:
        for _ in range(when.randrange(1, 95)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    expected = contents(batches_of(Noise(4, (32, 32), size=400, epochs=1, seed=3)))
    if process.returncode == -signal.SIGKILL:
        with pytest.raises(IncompleteStoreError, match="was interrupted"):
            LevelDBSource(path, 4)
        with suppress(EmptyDatasetError, IncompleteStoreError):
            found = contents(
                batches_of(LevelDBSource(path, 4, shuffle=False, epochs=1, allow_incomplete=True))
            )
            assert found == expected[: len(found)]
        finished(Noise(4, (32, 32), size=400, epochs=1, seed=3), LevelDBSink(path, append=True))
    source = LevelDBSource(path, 4, shuffle=False, epochs=1)
    assert source.size == 400
    assert contents(batches_of(source)) == expected


class Stops(Stage):
    """Raises at a batch."""

    def __init__(self, seq):
        super().__init__(workers=1)
        self.seq = seq

    def process(self, batch):
        if batch.seq == self.seq:
            raise RuntimeError("no more")
        return batch


def test_failure_is_raised_and_append_finishes(tmp_path):
    with pytest.raises(RuntimeError, match="no more"):
        finished(noise(), Stops(3), LevelDBSink(tmp_path / "s"))
    with pytest.raises(IncompleteStoreError, match="after 12 samples"):
        LevelDBSource(tmp_path / "s", 4)
    with pytest.raises(IncompleteStoreError, match="after 12 samples"):
        Pipeline([noise(), LevelDBSink(tmp_path / "s")])
    assert LevelDBSource(tmp_path / "s", 4, allow_incomplete=True).size == 12
    with Pipeline([noise(), LevelDBSink(tmp_path / "s", append=True)]) as pipeline:
        pipeline.wait(LIMIT)
        # What is there is not read again.
        assert pipeline.stats().modules[0].batches == 3
    assert contents(batches_of(LevelDBSource(tmp_path / "s", 4, epochs=1, shuffle=False))) == contents(
        batches_of(noise())
    )


def test_drained_pipeline_leaves_an_incomplete_store(tmp_path):
    entered = threading.Event()

    class Tells(Stage):
        def process(self, batch):
            entered.set()
            return batch

    with Pipeline([noise(epochs=10**6), Tells(), LevelDBSink(tmp_path / "s")]) as pipeline:
        assert entered.wait(LIMIT)
        pipeline.drain(LIMIT)
    assert LevelDBSource(tmp_path / "s", 4, allow_incomplete=True).size > 0
    with pytest.raises(IncompleteStoreError):
        LevelDBSource(tmp_path / "s", 4)


def test_stopped_pipeline_lets_the_store_go(tmp_path):
    with Pipeline([noise(epochs=10**6), LevelDBSink(tmp_path / "s")]):
        pass
    with suppress(EmptyDatasetError, IncompleteStoreError):
        LevelDBSource(tmp_path / "s", 4, allow_incomplete=True)
    finished(noise(), LevelDBSink(tmp_path / "t", append=True))


def test_samples_of_all_epochs_are_stored_once_each(tmp_path):
    written(tmp_path / "s", noise(epochs=2))
    assert LevelDBSource(tmp_path / "s", 4).size == 46
    written(tmp_path / "s", noise(epochs=2), append=True)
    written(tmp_path / "s", noise(epochs=3), append=True)
    assert LevelDBSource(tmp_path / "s", 4).size == 69


def test_append_of_other_data_is_refused(tmp_path):
    written(tmp_path / "s")
    for other in (noise(seed=4), noise(size=24), noise(classes=3)):
        with pytest.raises(StateMismatchError, match="begun with other data"):
            written(tmp_path / "s", other, append=True)
    assert LevelDBSource(tmp_path / "s", 4).size == 23


def test_other_fields_than_before_are_refused(tmp_path):
    one = Batch({"a": np.zeros((2, 3))}, seq=0)
    for number, other in enumerate(
        [
            {"b": np.zeros((2, 3))},
            {"a": np.zeros((2, 3), np.float32)},
            {"a": np.zeros((2, 4))},
            {"a": np.zeros((2, 3)), "b": np.zeros(2)},
        ]
    ):
        with pytest.raises(StoreError, match="expected the same in every batch"):
            written(tmp_path / f"{number}", Batches(one, Batch(other, seq=1)))
    for name, array in (
        ("objects", np.zeros(2, object)),
        ("texts", np.array(["a", "b"])),
        ("whole", np.array(3.0)),
    ):
        with pytest.raises(StoreError, match=f"field '{name}'"):
            written(tmp_path / name, Batches(Batch({"a": np.zeros(2), name: array}, seq=0)))


# What is in the way


def test_complete_store_is_not_overwritten(tmp_path):
    written(tmp_path / "s")
    with pytest.raises(StoreError, match="is not overwritten"):
        Pipeline([noise(), LevelDBSink(tmp_path / "s")])
    assert LevelDBSource(tmp_path / "s", 4).size == 23


def test_paths_that_are_none(tmp_path):
    (tmp_path / "file").write_text("hello")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "picture.jpg").write_text("hello")
    for name, said in (("file", "is a file"), ("full", "other contents"), ("none/s", "cannot be made")):
        with pytest.raises(StoreError, match=said):
            Pipeline([noise(), LevelDBSink(tmp_path / name)])
    for name, said in (("file", "Not a directory"), ("full", "is not a store"), ("none", "No such file")):
        with pytest.raises(StoreError, match=said):
            LevelDBSource(tmp_path / name, 4)
    assert os.listdir(tmp_path / "full") == ["picture.jpg"]


def test_leveldb_of_somebody_else(tmp_path):
    with plyvel.DB(str(tmp_path / "s"), create_if_missing=True) as db:
        db.put(b"name", b"value")
    with pytest.raises(StoreError, match="did not write"):
        LevelDBSource(tmp_path / "s", 4)
    for append in (False, True):
        with pytest.raises(StoreError, match="did not write"):
            Pipeline([noise(), LevelDBSink(tmp_path / "s", append=append)])


def test_store_that_another_program_writes(tmp_path):
    written(tmp_path / "s")
    with (
        plyvel.DB(str(tmp_path / "s")),
        pytest.raises(StoreLockedError, match="open in another program"),
    ):
        Pipeline([noise(), LevelDBSink(tmp_path / "s", append=True)])


def test_incomplete_store_without_a_record_may_become_another(tmp_path):
    StoreWriter(tmp_path / "s", "test", append=False, batch_bytes=1, fingerprint="other").close()
    with plyvel.DB(str(tmp_path / "s")) as db:
        db.put(b"\0", Mark(0, False, None, None, "other", (0, 1)).packed())
    with pytest.raises(RuntimeError, match="no more"):
        finished(noise(), Stops(3), LevelDBSink(tmp_path / "s"))
    written(tmp_path / "s", append=True)
    assert LevelDBSource(tmp_path / "s", 4).size == 23


def test_version_of_the_future(tmp_path):
    written(tmp_path / "s")
    with plyvel.DB(str(tmp_path / "s")) as db:
        value = db.get(b"\0")
        db.put(b"\0", b"HWS\x02" + value[4:])
    for begin in (
        lambda: LevelDBSource(tmp_path / "s", 4),
        lambda: Pipeline([noise(), LevelDBSink(tmp_path / "s", append=True)]),
    ):
        with pytest.raises(StoreError, match=r"version 2 .* install a newer Highway"):
            begin()


@pytest.fixture
def nobody_else():
    """Without the rights of root, who may write everywhere; and a folder that is read all the same."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        before = os.geteuid()
        yield Path(folder), lambda: os.seteuid(65534 if before == 0 else before)
        os.seteuid(before)
        os.chmod(folder, 0o755)
        for inside in Path(folder).iterdir():
            inside.chmod(0o755)


@pytest.mark.parametrize("locked", [True, False])
def test_folder_that_may_not_be_written(nobody_else, locked):
    folder, become_nobody = nobody_else
    written(folder / "s")
    if not locked:
        (folder / "s" / "highway.lock").unlink()
    (folder / "s").chmod(0o555)
    folder.chmod(0o555)
    become_nobody()
    assert sum(batch.size for batch in batches_of(LevelDBSource(folder / "s", 4, epochs=1))) == 23
    for name, append in (("s", True), ("t", False)):
        with pytest.raises(StoreError, match="Permission denied"):
            Pipeline([noise(), LevelDBSink(folder / name, append=append)])


def test_full_disk_is_told_and_keeps_what_was_written(tmp_path):
    """A limit of the size of files stands for the disk: what is beyond is refused the same way."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from highway.engine import Pipeline; from highway.modules import LevelDBSink, Noise\n"
        "from highway.errors import StoreError\n"
        "try: Pipeline([Noise(4, (32, 32), size=400, epochs=1), LevelDBSink(sys.argv[1], batch_bytes=20000)]).wait()\n"
        "except StoreError as error: print(error)\n"
    )
    answer = run(code, tmp_path / "s")
    assert "cannot be written to" in answer.stdout, answer
    found = contents(
        batches_of(LevelDBSource(tmp_path / "s", 4, shuffle=False, epochs=1, allow_incomplete=True))
    )
    expected = contents(batches_of(Noise(4, (32, 32), size=400, epochs=1)))
    assert 10 < len(found) < 400 and found == expected[: len(found)]
    finished(Noise(4, (32, 32), size=400, epochs=1), LevelDBSink(tmp_path / "s", append=True))
    assert contents(batches_of(LevelDBSource(tmp_path / "s", 4, shuffle=False, epochs=1))) == expected


def test_reader_that_never_ends_is_refused(tmp_path):
    with pytest.raises(
        ArgumentError, match="Noise has no end, and would fill the disk; expected one with epochs=1"
    ):
        Pipeline([noise(epochs=None), LevelDBSink(tmp_path / "s")])
    assert not (tmp_path / "s").exists()


def with_columns(path, change):
    """A store whose mark says something else of its columns."""
    with plyvel.DB(str(path)) as db:
        value = db.get(b"\0")
        found = json.loads(value[8:])
        applied, keyed, offset, table = packing.unpack(bytes.fromhex(found["schema"]))
        change(table)
        found["schema"] = packing.pack([applied, keyed, offset, table]).hex()
        body = json.dumps(found).encode()
        db.put(b"\0", value[:4] + checksum.crc32c(body, 0).to_bytes(4, "little") + body)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table[0].__setitem__(slice(3, None), [2**40, 2**40]),
        lambda table: table[0].__setitem__(slice(3, None), [0, 2**63 - 1, 4]),
        lambda table: table[0].__setitem__(slice(3, None), [2**32]),
        lambda table: table[0].__setitem__(slice(3, None), [1] * 80),
        lambda table: table[1].__setitem__(0, "images"),
        lambda table: table[1].__setitem__(0, "no name"),
        lambda table: table[1].__setitem__(2, 2),
    ],
)
def test_columns_that_cannot_be_are_refused(tmp_path, capsys, change):
    with_columns(written(tmp_path / "s"), change)
    with pytest.raises(CorruptStoreError, match="a description of columns is damaged"):
        LevelDBSource(tmp_path / "s", 4)
    # The records say themselves what they have.
    assert main(["store", "repair", str(tmp_path / "s"), str(tmp_path / "new")]) == 0
    assert "23 records" in capsys.readouterr().out


def test_columns_that_the_records_do_not_have_take_no_memory(tmp_path):
    with_columns(written(tmp_path / "s"), lambda table: table[0].__setitem__(slice(3, None), [2**31 - 1]))
    with pytest.raises(CorruptStoreError, match=r"record \d+ of .* its columns are not those of the store"):
        next(iter(batches_of(LevelDBSource(tmp_path / "s", 4096, epochs=1))))


def test_too_many_dimensions_are_refused(tmp_path):
    batch = Batch({"images": np.zeros((1,) * 32, np.uint8)}, seq=0)
    written(tmp_path / "s", Batches(batch))
    assert batches_of(LevelDBSource(tmp_path / "s", 1, epochs=1))[0].images.shape == (1,) * 32
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        return
    batch = Batch({"images": np.zeros((1,) * 33, np.uint8)}, seq=0)
    with pytest.raises(StoreError, match="up to 31 dimensions"):
        written(tmp_path / "t", Batches(batch))


def test_packed_tables_are_read_by_leveldb_which_is_told(tmp_path, capsys, caplog):
    path = written(tmp_path / "s", noise(size=400))
    expected = batches_of(LevelDBSource(path, 4, epochs=1))
    assert not caplog.records
    zeros = bytes(1 << 16)
    with plyvel.DB(str(path), compression="snappy") as db:
        # What is written anew is packed.
        for key, value in list(db):
            db.put(key, value)
        db.put(b"z", zeros)
        db.delete(b"z")
        db.compact_range()
    source = LevelDBSource(path, 4, epochs=1)
    (record,) = caplog.records
    assert record.name == "highway.store" and "several times slower" in record.getMessage()
    for found, other in zip(batches_of(source), expected, strict=True):
        assert_equal(found, other)
    assert main(["store", "info", str(path)]) == 0
    assert "by LevelDB, slower: its table" in capsys.readouterr().out


def test_info_shows_any_text_in_one_line(tmp_path, capsys):
    source = noise()
    type(source).__repr__, before = lambda self: "two\nlines \x1b[31m \udcff", type(source).__repr__
    try:
        written(tmp_path / "s", source)
    finally:
        type(source).__repr__ = before
    assert main(["store", "info", str(tmp_path / "s")]) == 0
    assert r"two\nlines \x1b[31m \xff" in capsys.readouterr().out


def test_empty_store(tmp_path):
    written(tmp_path / "s", Batches())
    with pytest.raises(EmptyDatasetError, match="no samples"):
        LevelDBSource(tmp_path / "s", 4)


# Several at once


def test_second_writer_and_readers_are_refused_while_one_writes(tmp_path):
    may_go_on = threading.Event()

    class Waits(Stage):
        def process(self, batch):
            assert may_go_on.wait(LIMIT)
            return batch

    code = (
        "import sys; from highway.engine import Pipeline\n"
        "from highway.errors import StoreLockedError; from highway.modules import LevelDBSink, LevelDBSource, Noise\n"
        "for begin in (lambda: LevelDBSource(sys.argv[1], 4), lambda: Pipeline([Noise(4, (5, 6), epochs=1), "
        "LevelDBSink(sys.argv[1], append=True)])):\n"
        "    try: begin()\n"
        "    except StoreLockedError as error: print('locked')\n"
    )
    with Pipeline([noise(), Waits(), LevelDBSink(tmp_path / "s")]) as pipeline:
        try:
            # The second one here must not take the lock away from the others there.
            for _ in range(2):
                with pytest.raises(StoreLockedError, match="by this or another process"):
                    Pipeline([noise(), LevelDBSink(tmp_path / "s", append=True)])
                with pytest.raises(StoreLockedError, match="is being written"):
                    LevelDBSource(tmp_path / "s", 4)
                assert run(code, tmp_path / "s").stdout == "locked\nlocked\n"
        finally:
            may_go_on.set()
        pipeline.wait(LIMIT)
    with Pipeline([LevelDBSource(tmp_path / "s", 4)]) as pipeline:
        pipeline.dequeue()
        with pytest.raises(StoreLockedError, match="read or written"):
            Pipeline([noise(), LevelDBSink(tmp_path / "s", append=True)])
    written(tmp_path / "s", append=True)


def test_closing_while_readers_run(tmp_path):
    written(tmp_path / "s")
    for _ in range(20):
        pipeline = Pipeline([LevelDBSource(tmp_path / "s", 4, workers=8)])
        pipeline.dequeue()
        pipeline.stop()
    written(tmp_path / "s", append=True)


def test_views_are_removed(tmp_path, monkeypatch):
    written(tmp_path / "s")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    source = LevelDBSource(tmp_path / "s", 4, epochs=1)
    assert len(os.listdir(tmp_path / "tmp")) == 1
    batches_of(source)
    assert os.listdir(tmp_path / "tmp") == []


def test_forked_child_leaves_view_and_lock_to_its_parent(tmp_path):
    code = (
        "import os, sys; from highway.errors import StoreLockedError\n"
        "from highway.store.reading import StoreReader; from highway.store.writing import StoreWriter\n"
        "reader = StoreReader(sys.argv[1], 'test')\n"
        "if not (child := os.fork()): sys.exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "with reader: print(*reader.read([0, 1]).keys(), os.path.exists(reader._view.folder))\n"
        "try: StoreWriter(sys.argv[1], 'test', append=True, batch_bytes=1)\n"
        "except StoreLockedError: print('locked')\n"
        "r, w = os.pipe()\n"
        "if not os.fork(): os.close(w); os.read(r, 1); os._exit(0)\n"
        "reader.close()\n"
        "try: StoreWriter(sys.argv[1], 'test', append=True, batch_bytes=1)\n"
        "except StoreLockedError: print('still locked')\n"
        "except ValueError: print('free')\n"
    )
    written(tmp_path / "s")
    assert run(code, tmp_path / "s").stdout == "None None True\nlocked\nfree\n"


# Damage


def damaged(path, name, damage):
    """Damage a file; None where it was not changed."""
    file = path / name
    before = file.read_bytes()
    after = damage(before)
    file.write_bytes(after)
    return before != after


def flipped(at, bit):
    def damage(contents):
        changed = bytearray(contents)
        if changed:
            changed[int(at * len(changed))] ^= 1 << bit
        return bytes(changed)

    return damage


def read_all(path):
    """Every record that a store gives, by number; and what was wrong with others."""
    found, errors = {}, []
    try:
        source = LevelDBSource(path, 1, shuffle=False, epochs=1, on_error="skip")
        for batch in batches_of(source):
            found[int(batch.indices[0])] = contents([batch])[0]
        errors = source.errors
    except (StoreError, EmptyDatasetError) as error:
        errors.append(("", str(error)))
    return found, errors


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store of several tables, and its records."""
    path = tmp_path_factory.mktemp("sound") / "s"
    for epochs in (1, 2):
        written(path, noise(epochs=epochs), append=True)
    return path, contents(batches_of(noise(epochs=2)))


def test_every_flipped_byte_is_found(tmp_path, sound):
    path, expected = sound
    drawn = random.Random(7)
    files = sorted(file.name for file in path.iterdir())
    assert sum(name.endswith(".ldb") for name in files) >= 2
    noticed = dict.fromkeys(files, 0)
    for name in files:
        for _ in range(20):
            copy = tmp_path / "copy"
            shutil.copytree(path, copy)
            damaged(copy, name, flipped(drawn.random(), drawn.randrange(8)))
            found, errors = read_all(copy)
            noticed[name] += bool(errors)
            for number, record in found.items():
                assert record == expected[number], (name, number)
            assert errors or len(found) == len(expected), name
            shutil.rmtree(copy)
    assert all(noticed[name] for name in files if name.startswith(("CURRENT", "MANIFEST")))
    assert all(
        noticed[name] > 10 for name in files if name.endswith(".ldb") and (path / name).stat().st_size > 2000
    )


def test_every_cut_and_every_missing_file_is_found(tmp_path, sound):
    path, expected = sound
    for name in sorted(file.name for file in path.iterdir()):
        for part in (0.0, 0.3, 0.9, None):
            copy = tmp_path / "copy"
            shutil.copytree(path, copy)
            if part is None:
                (copy / name).unlink()
                changed = True
            else:
                changed = damaged(copy, name, lambda before, part=part: before[: int(part * len(before))])
            found, errors = read_all(copy)
            for number, record in found.items():
                assert record == expected[number], (name, number)
            assert errors or len(found) == len(expected), name
            if (changed and name.startswith(("CURRENT", "MANIFEST"))) or name.endswith(".ldb"):
                assert errors, (name, part)
            shutil.rmtree(copy)


@pytest.fixture
def with_bad_record(tmp_path):
    """A store whose record 5 is damaged, and its records."""
    written(tmp_path / "s")
    with plyvel.DB(str(tmp_path / "s")) as db:
        value = bytearray(db.get(struct.pack(">Q", 5)))
        value[-1] ^= 1
        db.put(struct.pack(">Q", 5), bytes(value))
    return tmp_path / "s"


def test_policies_for_bad_records(with_bad_record):
    with pytest.raises(CorruptStoreError, match=r"record 5 of .* checksum"):
        batches_of(LevelDBSource(with_bad_record, 4, epochs=1))
    source = LevelDBSource(with_bad_record, 4, epochs=1, on_error="skip", shuffle=False)
    assert [batch.indices.tolist() for batch in batches_of(source)][1] == [4, 6, 7]
    assert [number for number, _ in source.errors] == ["5"]
    source = LevelDBSource(with_bad_record, 4, epochs=1, on_error="replace", shuffle=False)
    batch = batches_of(source)[1]
    samples = contents(batches_of(noise()))
    assert batch.indices[1] != 5 and contents([batch]) == [samples[index] for index in batch.indices]
    with pytest.raises(TooManyErrors, match="1 of 23 records"):
        batches_of(LevelDBSource(with_bad_record, 4, epochs=1, on_error="skip", max_errors=0))
    with pytest.raises(ArgumentError, match="max_errors"):
        LevelDBSource(with_bad_record, 4, max_errors=1)
    with pytest.raises(ArgumentError, match="on_error"):
        LevelDBSource(with_bad_record, 4, on_error="ignore")


def damage_records(path, numbers):
    with plyvel.DB(str(path)) as db:
        for number in numbers:
            value = bytearray(db.get(struct.pack(">Q", number)))
            value[40] ^= 1
            db.put(struct.pack(">Q", number), bytes(value))


@pytest.mark.parametrize("workers", [1, 8])
def test_many_bad_records_are_replaced_or_left_out(tmp_path, workers):
    damage_records(written(tmp_path / "s"), range(0, 23, 2))
    samples = contents(batches_of(noise()))
    for policy, size in (("replace", 46), ("skip", 22)):
        source = LevelDBSource(tmp_path / "s", 4, epochs=2, on_error=policy, workers=workers)
        found = batches_of(source)
        assert sum(batch.size for batch in found) == size and len(source.errors) == 12
        for batch in found:
            assert (batch.indices % 2 == 1).all()
            assert contents([batch]) == [samples[index] for index in batch.indices]


@pytest.mark.parametrize("seed", range(3))
def test_replacements_do_not_depend_on_the_batch_size(tmp_path, seed):
    """Whatever is wrong with the records: some are damaged, some are gone."""
    path = written(tmp_path / "s", noise(size=40))
    with plyvel.DB(str(path)) as db:
        for number in range(0, 30, 3):
            db.delete(struct.pack(">Q", number))
    damage_records(path, [number for number in range(30) if number % 3 == 1])
    found = []
    for batch_size in (1, 4, 40):
        source = LevelDBSource(path, batch_size, epochs=2, seed=seed, on_error="replace")
        found.append([index for batch in batches_of(source) for index in batch.indices.tolist()])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("policy", ["replace", "skip"])
@pytest.mark.parametrize("more", [{}, {"shuffle": False, "shard": (1, 3)}])
def test_store_without_a_sound_record(tmp_path, policy, more):
    damage_records(written(tmp_path / "s"), range(23))
    with pytest.raises(EmptyDatasetError, match="none is left"):
        batches_of(LevelDBSource(tmp_path / "s", 4, on_error=policy, **more))


def test_records_that_changed_places_are_found(tmp_path):
    written(tmp_path / "s")
    with plyvel.DB(str(tmp_path / "s")) as db:
        db.put(struct.pack(">Q", 5), db.get(struct.pack(">Q", 6)))
        db.delete(struct.pack(">Q", 8))
    source = LevelDBSource(tmp_path / "s", 4, epochs=1, on_error="skip")
    assert sum(batch.size for batch in batches_of(source)) == 21
    assert {number: error.rpartition(": ")[2] for number, error in source.errors} == {
        "5": "it is number 6",
        "8": "it is gone",
    }


# Commands


def test_info_of_a_store(tmp_path, capsys):
    written(tmp_path / "s", voc_reader(tmp_path / "data", classes=["cat", "dog"]))
    assert main(["store", "info", str(tmp_path / "s")]) == 0
    told = capsys.readouterr().out
    for text in (
        "samples",
        "7",
        "images: uint8 (24, 32, 3)",
        "boxes: float32 (rows, 4)",
        "cat, dog",
        ", extra",
        "in place",
        "VOCReader(",
    ):
        assert text in told
    assert main(["store", "info", str(tmp_path / "data")]) == 1
    assert "is not a store" in capsys.readouterr().err


def test_verify_reports_bad_records_by_number(with_bad_record, capsys):
    assert main(["store", "verify", str(with_bad_record)]) == 1
    told = capsys.readouterr().out
    assert "record 5 is damaged: its checksum is wrong" in told and "23 records, 1 of them damaged" in told
    written(with_bad_record.with_name("sound"))
    assert main(["store", "verify", str(with_bad_record.with_name("sound"))]) == 0
    assert "23 records, none of them damaged" in capsys.readouterr().out


def test_verify_finds_what_is_gone_at_the_end(tmp_path, capsys):
    written(tmp_path / "s")
    with plyvel.DB(str(tmp_path / "s")) as db:
        for number in (20, 21, 22):
            db.delete(struct.pack(">Q", number))
        db.delete(struct.pack(">Q", 0) + b"i")
    with pytest.raises(CorruptStoreError, match="20 records, but 23 were written"):
        LevelDBSource(tmp_path / "s", 4)
    assert main(["store", "verify", str(tmp_path / "s")]) == 1
    told = capsys.readouterr().out
    assert "records 20 to 22 are damaged: it is gone" in told and "23 records, 3 of them damaged" in told


def test_damage_is_told_of_the_store_and_not_of_a_view(tmp_path, capsys, monkeypatch):
    (tmp_path / "views").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "views"))
    path = written(tmp_path / "s")
    (table,) = (file for file in path.iterdir() if file.suffix == ".ldb" and file.stat().st_size > 1000)
    os.truncate(table, table.stat().st_size // 2)
    for command in ("verify", "info"):
        assert main(["store", command, str(path)]) == 1
        told = "".join(capsys.readouterr())
        assert str(table) in told or command == "info"
        assert "highway-store-" not in told and len(told.splitlines()) < 4


@pytest.fixture
def incomplete(tmp_path):
    """A store whose writing was interrupted after 12 samples."""
    writer = StoreWriter(tmp_path / "s", "test", append=False, batch_bytes=1)
    (batch, *_) = batches_of(noise(12, shuffle=False))
    writer.add(batch)
    writer.close()
    return tmp_path / "s"


def test_commands_say_that_a_store_is_incomplete(incomplete, tmp_path, capsys):
    assert main(["store", "verify", str(incomplete)]) == 1
    told = capsys.readouterr().out
    assert "12 records, none of them damaged; its writing was interrupted" in told
    assert main(["store", "export", str(incomplete), str(tmp_path / "files")]) == 0
    assert "12 samples of" in (told := capsys.readouterr().out) and "was interrupted" in told
    assert main(["store", "repair", str(incomplete), str(tmp_path / "new")]) == 0
    told = capsys.readouterr().out
    assert "12 records of" in told and "none lost; its writing was interrupted" in told
    assert main(["bench", str(incomplete)]) == 1
    assert "(here: highway pack with the same arguments resumes" in capsys.readouterr().err


def test_repair_keeps_what_is_sound_and_counts_what_is_gone(with_bad_record, tmp_path, capsys):
    before = {file.name: file.read_bytes() for file in with_bad_record.iterdir()}
    assert main(["store", "repair", str(with_bad_record), str(tmp_path / "new")]) == 0
    assert "22 records of" in (told := capsys.readouterr().out) and "; 1 lost" in told
    assert {file.name: file.read_bytes() for file in with_bad_record.iterdir()} == before
    samples = contents(batches_of(noise()))
    source = LevelDBSource(tmp_path / "new", 4, epochs=1, shuffle=False)
    assert source.classes == 10
    assert contents(batches_of(source)) == samples[:5] + samples[6:]
    with pytest.raises(StateMismatchError):
        written(tmp_path / "new", append=True)
    assert main(["store", "repair", str(with_bad_record), str(tmp_path / "new")]) == 1
    assert "remove it, or use another path" in capsys.readouterr().err


def test_a_flipped_byte_costs_one_record(tmp_path, capsys):
    """Of many small ones in a block of LevelDB, which has one checksum for all."""
    fields = {"images": np.arange(800, dtype=np.uint8).reshape(400, 2, 1, 1), "labels": np.arange(400)}
    path = written(tmp_path / "s", Batches(Batch(fields, seq=0)))
    (table,) = (file for file in path.iterdir() if file.suffix == ".ldb" and file.stat().st_size > 10_000)
    contents_ = bytearray(table.read_bytes())
    at = -1
    for _ in range(100):
        at = contents_.index(b"HWR\x01", at + 1)
    contents_[at + 8] ^= 1
    table.write_bytes(contents_)
    assert main(["store", "verify", str(path)]) == 1
    told = capsys.readouterr().out
    assert "itself it is sound" in told and "its checksum is wrong" not in told
    assert main(["store", "repair", str(path), str(tmp_path / "new")]) == 0
    assert "399 records of" in (told := capsys.readouterr().out) and "; 1 lost" in told


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST"])
def test_repair_without_the_files_that_lead_to_the_others(tmp_path, name):
    written(tmp_path / "s")
    for file in (tmp_path / "s").iterdir():
        if file.name.startswith(name):
            file.unlink()
    if name == "MANIFEST":
        assert main(["store", "verify", str(tmp_path / "s")]) == 1
    assert main(["store", "repair", str(tmp_path / "s"), str(tmp_path / "new")]) == 0
    found = contents(batches_of(LevelDBSource(tmp_path / "new", 4, epochs=1, shuffle=False)))
    assert found == contents(batches_of(noise()))


# Stores of the first Highway


@pytest.mark.parametrize("key", [bytes, lambda number: str(number).encode()], ids=["zeros", "text"])
@pytest.mark.parametrize("form", ["list", "map"])
def test_stores_of_the_first_highway(tmp_path, key, form):
    msgpack_numpy = pytest.importorskip("msgpack_numpy", reason="the package msgpack-numpy is not installed")
    msgpack = pytest.importorskip("msgpack", reason="the package msgpack is not installed")
    (batch,) = batches_of(noise(23, shuffle=False))
    with plyvel.DB(str(tmp_path / "s"), create_if_missing=True) as db:
        for number in range(23):
            image, label = batch["images"][number], batch["labels"][number]
            value = [image, label] if form == "list" else {"images": image, "labels": label}
            db.put(key(number), msgpack.packb(value, default=msgpack_numpy.encode))
    source = LevelDBSource(tmp_path / "s", 23, shuffle=False, epochs=1)
    assert source.image_shape == (5, 6, 3) and source.classes is None
    (found,) = batches_of(source)
    assert_equal(found, Batch(batch.fields, seq=0, keys=[str(number) for number in range(23)], applied=1))
    with pytest.raises(StoreError, match="did not write"):
        Pipeline([noise(), LevelDBSink(tmp_path / "s", append=True)])


def test_python_objects_of_the_first_highway_are_refused(tmp_path):
    msgpack_numpy = pytest.importorskip("msgpack_numpy", reason="the package msgpack-numpy is not installed")
    msgpack = pytest.importorskip("msgpack", reason="the package msgpack is not installed")
    with plyvel.DB(str(tmp_path / "s"), create_if_missing=True) as db:
        for number in range(3):
            array = np.array([{1: 2}], object) if number == 1 else np.zeros(1)
            db.put(str(number).encode(), msgpack.packb([array], default=msgpack_numpy.encode))
    with pytest.raises(CorruptStoreError, match="never unpickled"):
        batches_of(LevelDBSource(tmp_path / "s", 1, epochs=1))


def test_without_plyvel(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plyvel", None)
    for begin in (
        lambda: LevelDBSource(tmp_path, 4),
        lambda: Pipeline([noise(), LevelDBSink(tmp_path / "s")]),
    ):
        with pytest.raises(MissingPackageError, match="pip install plyvel"):
            begin()


def test_a_store_resumes_in_the_middle_of_an_epoch(tmp_path):
    """With another batch size, number of threads and world: exactly the rest, in the same order."""
    path = tmp_path / "noise.ldb"
    with Pipeline([Noise(8, (6, 6), epochs=1, size=50, shuffle=False), LevelDBSink(path)]) as pipeline:
        pipeline.wait(60)

    def numbers(source, state=None, count=None):
        with Pipeline([source]) as pipeline:
            if state is not None:
                pipeline.load_state_dict(state)
            taken = []
            for batch in pipeline.forever():
                taken.append(batch.indices)
                if len(taken) == count:
                    return np.concatenate(taken).tolist(), pipeline.state_dict()
            return np.concatenate(taken).tolist()

    whole = numbers(LevelDBSource(path, 5, epochs=2, seed=3))
    begun, state = numbers(LevelDBSource(path, 5, epochs=2, seed=3), count=4)
    assert begun == whole[:20]
    for size, workers in ((7, 1), (1, 4), (50, 2)):
        rest = numbers(LevelDBSource(path, size, epochs=2, seed=3, workers=workers), state)
        assert rest == whole[20:]
    parts = [numbers(LevelDBSource(path, 5, epochs=1, seed=3, shard=(rank, 3)), state) for rank in range(3)]
    assert sorted(number for part in parts for number in part) == sorted(whole[20:50])
    other = LevelDBSource(path, 5, seed=4)
    with Pipeline([other]) as pipeline, pytest.raises(StateMismatchError, match="seed"):
        pipeline.load_state_dict(state)
