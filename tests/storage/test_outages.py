"""Storage that fails for a while: nothing is lost, no sample is a bad one, and nobody waits for ever."""

import errno
import gc
import json
import logging
import re
import threading
import time
import weakref

import numpy as np
import pytest
from concurrency import LIMIT, Task
from pictures import class_folders
from PIL import Image
from voc_folders import annotation, thing, voc_folder

from highway._core.jpeg import codec as jpeg
from highway.errors import DecodeError, PipelineStateError, StorageError
from highway.storage import outages

PASSING = [
    *("ESTALE", "EIO", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ECONNRESET"),
    *("ECONNABORTED", "ENOLINK", "EAGAIN", "EREMOTEIO", "ENOTCONN", "EINTR", "EBUSY", "ESHUTDOWN", "EPROTO"),
]
LASTING = ["ENOENT", "EACCES", "EPERM", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENOTDIR", "ENXIO"]
MACHINE = ["EMFILE", "ENFILE", "ENOMEM"]


# What errors say


@pytest.mark.parametrize(
    ("names", "kind"), [(PASSING, jpeg.STORAGE), (LASTING, jpeg.NO_FILE), (MACHINE, jpeg.NO_HANDLE)]
)
def test_errors_of_the_system_are_told_apart(names, kind):
    assert {name: jpeg.failure(getattr(errno, name)) for name in names} == dict.fromkeys(names, kind)
    assert [outages.may_pass(getattr(errno, name)) for name in names] == [kind == jpeg.STORAGE] * len(names)


# Waiting


class Failing:
    """Raises StorageError so many times, and returns 7 after that."""

    def __init__(self, times):
        self.left, self.calls = times, 0
        self.failed = threading.Event()

    def __call__(self):
        self.calls += 1
        if self.left:
            self.left -= 1
            if self.calls > 1:
                self.failed.set()
            raise StorageError("Reader: a.jpg cannot be opened: Stale file handle")
        return 7


def test_what_fails_for_a_while_is_read(caplog):
    read = Failing(3)
    with caplog.at_level(logging.WARNING, "highway.modules"):
        assert outages.Outages("Reader").patiently(read) == 7
    assert read.calls == 4
    begin, end = caplog.messages
    assert "a.jpg cannot be opened: Stale file handle; the storage failed: 1 file(s) wait" in begin
    assert end.startswith("Reader: the storage is back after") and end.endswith("1 file(s) waited")


def test_the_wait_has_an_end(monkeypatch):
    monkeypatch.setattr(outages, "LIMIT", 0.1)
    read = Failing(10**9)
    began = time.monotonic()
    with pytest.raises(
        StorageError, match=r"a\.jpg cannot be opened: Stale .*: \d+ tries in \d+\.\d s\. Check"
    ):
        outages.Outages("Reader").patiently(read)
    assert 0.1 <= time.monotonic() - began < LIMIT
    assert 3 <= read.calls < 20


@pytest.mark.parametrize("before", [True, False])
def test_all_who_wait_are_woken(monkeypatch, before):
    monkeypatch.setattr(outages, "LIMIT", 1000)
    waits = outages.Outages("Reader")
    if before:
        waits.interrupt()
    reads = [Failing(10**9) for _ in range(5)]
    tasks = [Task(waits.patiently, read) for read in reads]
    if not before:
        assert all(read.failed.wait(LIMIT) for read in reads)
        waits.interrupt()
        waits.interrupt()
    for task in tasks:
        with pytest.raises(PipelineStateError, match="Reader: the pipeline was stopped"):
            task.result()


def test_an_interrupt_takes_no_lock():
    """A finalizer may call it while this very thread is in the middle of a wait."""
    waits = outages.Outages("Reader")
    with waits._lock:
        waits.interrupt()


def test_rows_of_a_batch_are_read_again_together(caplog):
    away, bad = StorageError("x is away"), DecodeError("is damaged")
    tried = []

    def again(rows):
        tried.append(rows.tolist())
        # One comes, one is damaged, one is away once more.
        return {5: bad, 9: away} if len(tried) == 1 else {}

    with caplog.at_level(logging.WARNING, "highway.modules"):
        found = outages.Outages("Reader").retried({9: away, 2: bad, 5: away, 4: away}, again)
    assert found == {2: bad, 5: bad}
    assert tried == [[4, 5, 9], [9]]
    assert len(caplog.messages) == 2 and "3 file(s) wait" in caplog.messages[0]


def test_several_threads_have_one_outage(caplog):
    waits = outages.Outages("Reader")
    reads = [Failing(4) for _ in range(6)]
    gate = threading.Barrier(6, timeout=LIMIT)
    failed = StorageError("Reader: a.jpg cannot be opened: Stale file handle")

    def run(read):
        with waits._outage(1, failed):
            gate.wait()
            return read.calls

    with caplog.at_level(logging.WARNING, "highway.modules"):
        assert [task.result() for task in [Task(run, read) for read in reads]] == [0] * 6
    assert len(caplog.messages) == 2
    assert caplog.messages[1].endswith("6 file(s) waited")


# Reading, with calls that fail


@pytest.mark.parametrize("call", ["open", "fstat", "pread"])
def test_no_sample_is_lost_or_bad(faults, call):
    class_folders(faults.data / "photos", classes=2, each=20)
    answer = faults.run(
        call,
        """
        for name in json.loads(sys.argv[2]):
            on(getattr(errno, name))
            log.lines.clear()
            reader = ImageFileReader(sys.argv[1], 4, (8, 8), epochs=1, on_error="skip", workers=2)
            with Pipeline([reader]) as pipeline:
                keys = [key for batch in pipeline for key in batch.keys]
            answer[name] = [len({*keys}), len(keys), pipeline.errors, log.lines]
        """,
        faults.data / "photos",
        json.dumps(PASSING),
    )
    assert [*answer] == PASSING
    for name, (different, count, errors, (begin, end)) in answer.items():
        assert (different, count, errors) == (40, 40, []), name
        assert "the storage failed" in begin and "the storage is back" in end, name


@pytest.mark.parametrize("call", ["open", "fstat", "pread"])
def test_files_that_will_not_come_are_bad_and_machines_are_not(faults, call):
    class_folders(faults.data / "photos", classes=1, each=6)
    answer = faults.run(
        call,
        """
        log.at_first = nothing
        for name in json.loads(sys.argv[2]):
            on(getattr(errno, name))
            reader = ImageFileReader(sys.argv[1], 4, (8, 8), epochs=1, on_error="skip", workers=1)
            with Pipeline([reader]) as pipeline:
                try:
                    list(pipeline)
                except Exception as error:
                    answer[name] = [type(error).__name__, str(error), len(pipeline.errors)]
        assert not log.lines
        """,
        faults.data / "photos",
        json.dumps([*LASTING, *MACHINE]),
    )
    assert [(answer[name][0], answer[name][2]) for name in LASTING] == [("EmptyDatasetError", 6)] * len(
        LASTING
    )
    assert [(answer[name][0], answer[name][2]) for name in MACHINE] == [("ReadError", 0)] * len(MACHINE)


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
@pytest.mark.parametrize("call", ["open", "pread"])
def test_an_outage_that_lasts_is_an_error_under_any_policy(faults, policy, call):
    class_folders(faults.data / "photos", classes=1, each=10)
    answer = faults.run(
        call,
        """
        outages.LIMIT = 0.3
        log.at_first = nothing
        on(errno.ESTALE)
        with Pipeline([ImageFileReader(sys.argv[1], 4, (8, 8), on_error=sys.argv[2])]) as pipeline:
            for _ in range(2):
                try:
                    pipeline.dequeue()
                except StorageError as error:
                    answer["error"] = str(error)
            answer["errors"] = pipeline.errors
        """,
        faults.data / "photos",
        policy,
    )
    text = answer["error"]
    assert answer["errors"] == []
    assert text.startswith(f"ImageFileReader: {faults.data}/photos/class0/")
    assert (
        f"cannot be {'opened' if call == 'open' else 'read'}: Stale file handle; the storage failed" in text
    )
    assert re.search(r"tries in \d+\.\d s, and 3 more file\(s\) wait\. Check the disk", text)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_stop_does_not_wait_for_the_storage(faults, dropped):
    class_folders(faults.data / "photos", classes=1, each=10)
    answer = faults.run(
        "open",
        """
        log.at_first = nothing
        outages._SHORTEST = outages._LONGEST = outages.LIMIT = 1000
        on(errno.EIO)
        pipeline = Pipeline([ImageFileReader(sys.argv[1], 2, (8, 8), workers=3)])
        pipeline.start()
        assert log.heard.wait(60)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("highway ")]
        began = time.monotonic()
        if sys.argv[2] == "True":
            del pipeline
            gc.collect()
        else:
            pipeline.stop()
        answer["seconds"] = time.monotonic() - began
        for thread in threads:
            thread.join(60)
        answer["left"] = sum(thread.is_alive() for thread in threads)
        """,
        faults.data / "photos",
        dropped,
    )
    assert answer["seconds"] < LIMIT and answer["left"] == 0


def test_a_reader_of_a_pipeline_that_could_not_be_made_waits_as_any(faults):
    class_folders(faults.data / "photos", classes=1, each=10)
    answer = faults.run(
        "open",
        """
        from highway.engine import Stage

        class Fails(Stage):
            def enter(self, modules, stats):
                raise KeyError(1)

        reader = ImageFileReader(sys.argv[1], 2, (8, 8), epochs=1)
        try:
            Pipeline([reader, Fails()]).start()
        except KeyError:
            answer["failed"] = True
        on(errno.EIO)
        with Pipeline([reader]) as pipeline:
            answer["samples"] = sum(batch.size for batch in pipeline)
        answer["lines"] = log.lines
        """,
        faults.data / "photos",
    )
    assert answer["failed"] and answer["samples"] == 10
    assert "the storage failed" in answer["lines"][0] and "the storage is back" in answer["lines"][-1]


def test_batches_are_the_same_with_outages(faults):
    """Also where files fail between their header and their pixels, and while others take their place."""
    root = class_folders(faults.data / "photos", classes=2, each=20)
    for path in (root / "class1").iterdir():
        # Small files, the others, are read once, for the header.
        path.write_bytes(path.read_bytes() + bytes(8192))
    (root / "class0" / "bad.jpg").write_bytes(b"none")
    answer = faults.run(
        "open",
        """
        from highway.transforms import CenterFit, FlipX, RandomResizedCrop, Views

        views = Views({"one": (RandomResizedCrop(), (16, 16)), "two": (2, CenterFit(), 9)})
        lock = threading.Lock()
        log.under_way = False

        def end():
            with lock:
                log.under_way = True
                off()

        def over():
            log.under_way = False

        log.at_first, log.at_last = end, over

        def run(disturbed):
            reader = ImageFileReader(
                sys.argv[1], 8, fit=views, epochs=4, on_error="replace", workers=2
            )
            found = []
            with Pipeline([reader, Augmentations([FlipX()], field="two")]) as pipeline:
                for one, two, labels in pipeline.forever():
                    found.append((one, two, labels))
                    with lock:
                        if disturbed and not log.under_way:
                            on(errno.ETIMEDOUT)
                return found, pipeline.errors

        log.lines.clear()
        (before, bad), (after, still_bad) = run(False), run(True)
        assert len(before) == len(after)
        for one, other in zip(before, after):
            for array, same in zip(one, other):
                np.testing.assert_array_equal(array, same)
        answer["bad"] = [[key for key, _ in each] for each in (bad, still_bad)]
        answer["outages"] = sum("the storage failed" in line for line in log.lines)
        """,
        root,
    )
    assert answer["bad"] == [["class0/bad.jpg"]] * 2
    assert answer["outages"] >= 1


def test_others_are_not_tried_after_the_first(faults):
    """A server that is gone may take a minute to say so."""
    root = class_folders(faults.data / "photos", classes=1, each=40)
    answer = faults.run(
        "open",
        """
        from highway._core.jpeg import codec as jpeg
        paths = [os.fsencode(f"{sys.argv[1]}/class0/{number}.jpg") for number in range(40)]
        for path in paths:
            # Small files are read once, for the header.
            with open(path, "ab") as file:
                file.write(bytes(8192))
        decoder = jpeg.BatchDecoder()
        heads = decoder.read(paths)
        assert not heads[:, 0].any()
        windows = np.array([[0, 0, width, height] for _, height, width in heads], float)
        targets = np.array([[0, 0, 8, 8]] * 40, np.int32)
        decoder.begin(np.arange(40), windows, targets, np.zeros((40, 2), bool), 2, False, (8, 8, 3))
        on(errno.EIO)
        names = {jpeg.OK: "ok", jpeg.STORAGE: "storage", jpeg.UNTRIED: "untried"}
        images = jpeg.Images(np.zeros((40, 8, 8, 3), np.uint8))
        answer["decoded"] = [names[status] for status in decoder.finish(np.arange(40), images)]
        answer["read"] = [names[status] for status in decoder.read(paths)[:, 0].tolist()]
        answer["message"] = decoder.message(39)
        """,
        root,
    )
    assert answer["read"] == answer["decoded"] == ["storage"] + ["untried"] * 39
    assert answer["message"] == "was not tried: the storage failed at another file"


# Everything else that is read


def marked(root):
    """A folder of VOC with 6 pictures, and masks in a split of their own."""
    voc_folder(root, {f"p{number}": annotation(thing(f"kind{number}")) for number in range(6)})
    (root / "SegmentationClass").mkdir()
    for number in range(6):
        Image.new("L", (80, 60), number).save(root / "SegmentationClass" / f"p{number}.png")
    (root / "ImageSets/Segmentation").mkdir()
    (root / "ImageSets/Segmentation/train.txt").write_text("p1\np2\n")
    return root


@pytest.mark.parametrize("call", ["open", "fstat"])
def test_masks_and_packed_files_wait_too(faults, call):
    root = marked(faults.data / "voc")
    photos = class_folders(faults.data / "photos", classes=1, each=9)
    answer = faults.run(
        call,
        """
        from highway.modules import Encoded
        for name, make in {
            "masks": lambda: VOCReader(sys.argv[1], 2, (8, 8), masks=True, split=None, epochs=1, on_error="skip"),
            "encoded": lambda: Encoded(
                ImageFileReader(sys.argv[2], 2, (1, 1), epochs=1, on_error="skip"), "original"
            ),
        }.items():
            reader = make()
            on(errno.EIO)
            log.lines.clear()
            with Pipeline([reader]) as pipeline:
                answer[name] = [sum(batch.size for batch in pipeline), pipeline.errors, len(log.lines)]
        """,
        root,
        photos,
    )
    assert answer == {"masks": [6, [], 2], "encoded": [9, [], 2]}


@pytest.mark.parametrize("call", ["open", "opendir", "stat"])
def test_what_is_read_at_the_beginning_waits(faults, call):
    """Lists, annotations, folders and arrays: what they decide must not depend on a second of trouble."""
    root = marked(faults.data / "voc")
    photos = class_folders(faults.data / "photos", classes=2, each=3)
    np.save(faults.data / "images.npy", np.zeros((5, 4, 4, 3), np.uint8))
    answer = faults.run(
        call,
        """
        def voc(): return VOCReader(sys.argv[1], 2, (8, 8), masks=True, split="train")
        def folders(): return ImageFileReader(sys.argv[2], 2, (8, 8))
        def arrays(): return ArrayReader(sys.argv[3], None, 2)

        for make in voc, folders, arrays:
            sound = make()
            log.lines.clear()
            on(errno.ESTALE)
            found = make()
            off()
            answer[make.__name__] = [found.order.size == sound.order.size, bool(log.lines)]
            assert getattr(found, "classes", None) == getattr(sound, "classes", None)
            assert found.fingerprint() == sound.fingerprint()
            outages.LIMIT, log.at_first = 0.1, nothing
            on(errno.ESTALE)
            try:
                make()
                answer[make.__name__].append("")
            except StorageError as error:
                answer[make.__name__].append(str(error))
            off()
            outages.LIMIT, log.at_first = 30.0, off
        """,
        root,
        photos,
        faults.data / "images.npy",
    )
    told = {name: waited for name, (same, waited, _) in answer.items() if same}
    expected = {
        "open": {"voc": True, "folders": False, "arrays": True},
        "opendir": {"voc": True, "folders": True, "arrays": False},
        "stat": {"voc": True, "folders": True, "arrays": False},
    }
    assert told == expected[call]
    for name, (_, waited, text) in answer.items():
        assert ("Stale file handle; the storage failed" in text) == waited, name


# Stores


@pytest.fixture
def store(faults):
    pytest.importorskip("plyvel")
    from highway.engine import Pipeline
    from highway.modules import ArrayReader, LevelDBSink

    path = faults.data / "store"
    with Pipeline(
        [
            ArrayReader(np.zeros((9, 4, 4, 3), np.uint8), range(9), 3, shuffle=False, epochs=1),
            LevelDBSink(path),
        ]
    ) as pipeline:
        pipeline.wait(LIMIT)
    return path


# As where tables cannot be mapped; LevelDB opens a table when it first reads from it.
BY_LEVELDB = """
from highway.store.opening import open_leveldb

def by_leveldb(source):
    reader = source._store
    reader._tables = None
    reader._db.close()
    reader._db = open_leveldb(reader._view.folder, "LevelDBSource")
"""


@pytest.mark.parametrize("call", ["open", "opendir"])
def test_a_store_waits_and_is_not_damaged(faults, store, call):
    answer = faults.run(
        call,
        BY_LEVELDB
        + """
on(errno.EIO)
source = LevelDBSource(sys.argv[1], 3, epochs=1, on_error="skip", workers=1)
answer["opened"] = len(log.lines)
by_leveldb(source)
on(errno.EIO)
log.lines.clear()
with Pipeline([source]) as pipeline:
    answer["labels"] = sorted(label for batch in pipeline for label in batch.labels.tolist())
    answer["errors"] = pipeline.errors
answer["read"] = len(log.lines)
outages.LIMIT, log.at_first = 0.1, nothing
on(errno.EIO)
try:
    LevelDBSource(sys.argv[1], 3)
except StorageError as error:
    answer["error"] = str(error)
""",
        store,
    )
    assert answer["opened"] == 2 and answer["labels"] == [*range(9)] and answer["errors"] == []
    assert answer["read"] == (2 if call == "open" else 0)
    assert "Input/output error; the storage failed" in answer["error"]


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_a_store_that_stays_away_is_no_store_of_bad_records(faults, store, policy):
    answer = faults.run(
        "open",
        BY_LEVELDB
        + """
source = LevelDBSource(sys.argv[1], 3, epochs=1, on_error=sys.argv[2], workers=1)
by_leveldb(source)
outages.LIMIT, log.at_first = 0.2, nothing
on(errno.EIO)
with Pipeline([source]) as pipeline:
    try:
        list(pipeline)
    except StorageError as error:
        answer["error"], answer["errors"] = str(error), pipeline.errors
""",
        store,
        policy,
    )
    assert answer["errors"] == []
    assert answer["error"].startswith("LevelDBSource: record ")
    assert "Input/output error" in answer["error"] and "the storage failed" in answer["error"]


def test_a_repair_that_cannot_read_drops_nothing(faults, store):
    """Records that cannot be read now may be sound."""
    answer = faults.run(
        "open",
        """
        from contextlib import contextmanager
        from highway.store.checks import repair

        @contextmanager
        def progress(count):
            # The store is open; its tables are not.
            on(errno.EIO)
            yield lambda number: None

        try:
            repair(sys.argv[1], sys.argv[1] + "-new", progress)
        except StorageError as error:
            answer["error"] = str(error)
        answer["made"] = os.path.exists(sys.argv[1] + "-new")
        """,
        store,
    )
    assert "cannot be read" in answer["error"] and not answer["made"]


@pytest.mark.parametrize("number", ["ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL"])
def test_stores_and_sockets_do_without_flock(faults, number):
    pytest.importorskip("plyvel")
    answer = faults.run(
        "flock",
        """
        stores, network = Log("highway.store"), Log("highway.network")
        on(getattr(errno, sys.argv[2]))
        images = np.zeros((4, 4, 4, 3), np.uint8)
        for append in (False, True):
            reader = ArrayReader(images, range(4), 2, shuffle=False, epochs=1)
            with Pipeline([reader, LevelDBSink(sys.argv[1], append=append)]) as pipeline:
                pipeline.wait(60)
        for _ in range(2):
            with Pipeline([LevelDBSource(sys.argv[1], 2, epochs=1)]) as pipeline:
                answer["labels"] = sorted(label for batch in pipeline for label in batch.labels.tolist())
        with Pipeline([ZMQSource(f"ipc://{os.path.dirname(sys.argv[1])}/sub/hub.sock", bind=True)]):
            pass
        answer["stores"], answer["network"] = stores.lines, network.lines
        on(errno.EBADF)
        try:
            LevelDBSource(sys.argv[1], 2)
        except StoreError as error:
            answer["other"] = str(error)
        """,
        faults.data / "store",
        number,
    )
    assert answer["labels"] == [0, 1, 2, 3]
    (told,) = answer["stores"]
    assert f"{faults.data}/store is not locked" in told
    assert len(answer["network"]) == 1 and "is not locked" in answer["network"][0]
    assert "cannot be locked: Bad file descriptor" in answer["other"]


# What finalizers call


def test_closing_a_store_takes_no_lock(store):
    """The collector may end a pipeline in a thread that is in the middle of a method of its reader."""
    from highway.modules import LevelDBSource

    source = LevelDBSource(store, 3)
    reader = source._store
    with reader:
        Task(source.interrupt).result()
        assert reader.holds_store
    assert not reader.holds_store
    with pytest.raises(Exception, match="was closed"), reader:
        pass
    source.interrupt()


def test_a_dropped_sink_is_ended_in_the_middle_of_its_start(tmp_path):
    pytest.importorskip("plyvel")
    from highway.modules import LevelDBSink

    class Lock:
        """Stands for a lock; the collector runs while it is taken."""

        def __init__(self, sink):
            self.sink, self.lock = weakref.proxy(sink), threading.Lock()

        def acquire(self, blocking=True):
            taken = self.lock.acquire(blocking)
            if taken and self.sink is not None:
                sink, self.sink = self.sink, None
                sink.interrupt()
            return taken

    sink = LevelDBSink(tmp_path / "store")
    sink._closer = Lock(sink)
    Task(sink.open).result()
    gc.collect()
