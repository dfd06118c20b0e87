"""~ in paths, as a shell expands it, wherever a path is taken; and what is no path."""

import os
from pathlib import Path

import numpy as np
import pytest
from commands import run
from pictures import class_folders, photograph
from voc_folders import annotation, thing, voc_folder

from highway.arguments import expanded
from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError, HighwayError
from highway.modules import (
    ArrayReader,
    ImageFileReader,
    ImageSaver,
    ListReader,
    VOCReader,
    ZMQSink,
    ZMQSource,
)
from highway.network.zmq import security
from highway.network.zmq.addresses import parse
from highway.viz.contact_sheet import contact_sheet, save_sheet


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with data in it, in a place that is not the working directory, where a folder ~ would lie."""
    (tmp_path / "work" / "~").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    folder = tmp_path / "home"
    class_folders(folder / "photos", classes=2, each=2, size=(12, 12))
    class_folders(folder / "masks", classes=2, each=2, size=(12, 12))
    voc_folder(folder / "voc", {"a": annotation(thing())})
    (folder / "mine.txt").write_text("a\n")
    np.save(folder / "rows.npy", np.zeros((3, 4, 4, 3), np.uint8))
    photograph(20, 20, seed=1).save(folder / "one.jpg")
    monkeypatch.setenv("HOME", str(folder))
    yield folder
    assert os.listdir(tmp_path / "work") == ["~"] and os.listdir(tmp_path / "work" / "~") == []


def picture():
    return Batch({"images": np.zeros((1, 16, 16, 3), np.uint8)}, keys=["a.jpg"])


def drawn(path, write):
    write()
    assert (Path(os.environ["HOME"]) / path).is_file()


def secret_file(home):
    security.new_secret_file("~/secret")
    assert (home / "secret").is_file()


TAKERS = {
    "ImageFileReader": lambda home: ImageFileReader("~/photos", 1, 8),
    "ImageFileReader, bytes": lambda home: ImageFileReader(b"~/photos", 1, 8),
    "ImageFileReader, Path": lambda home: ImageFileReader(Path("~") / "photos", 1, 8),
    "ImageFileReader, masks_dir": lambda home: ImageFileReader("~/photos", 1, 8, masks_dir="~/masks"),
    "VOCReader": lambda home: VOCReader("~/voc", 1, 8),
    "VOCReader, split": lambda home: VOCReader(home / "voc", 1, 8, split="~/mine.txt"),
    "ListReader": lambda home: list_reader(["~/one.jpg", b"~/one.jpg", Path("~/one.jpg")]),
    "ListReader, masks": lambda home: ListReader([home / "one.jpg"], None, 1, 8, masks=["~/mask.png"]),
    "ArrayReader": lambda home: ArrayReader("~/rows.npy", None, 1),
    "ArrayReader, fields": lambda home: ArrayReader(
        np.zeros((3, 1, 1, 3), np.uint8), None, 1, fields={"rows": "~/rows.npy"}
    ),
    "ImageSaver": lambda home: saved(home),
    "sheet": lambda home: drawn("a.png", lambda: picture().sheet("~/a.png")),
    "sheet, Path": lambda home: drawn("b.png", lambda: picture().sheet(Path("~/b.png"))),
    "secret": lambda home: (secret_file(home), security.find_keys("M", Path("~/secret"))),
    "ipc": lambda home: parse("M", "ipc://~/socket", bind=True).name == f"{home}/socket" or 1 / 0,
}


def list_reader(paths):
    reader = ListReader(paths, None, 3, 8, epochs=1)
    with Pipeline([reader]) as pipeline:
        assert pipeline.dequeue(timeout=60).keys == [str(Path.home() / "one.jpg")] * 3


def saved(home):
    with Pipeline([ImageFileReader("~/photos", 4, 8, epochs=1), ImageSaver("~/out")]) as pipeline:
        list(pipeline)
    assert len(list((home / "out").rglob("*.png"))) == 4


@pytest.mark.parametrize("taker", TAKERS)
def test_tilde_is_the_home(home, taker):
    TAKERS[taker](home)


def test_stores(home):
    pytest.importorskip("plyvel")
    from highway.cli.export import export
    from highway.cli.pack import pack
    from highway.cli.terminal import progress
    from highway.modules import LevelDBImageReader, LevelDBSink, LevelDBSource
    from highway.store import checks

    with Pipeline([ImageFileReader("~/photos", 2, 8, epochs=1), LevelDBSink("~/raw.ldb")]) as pipeline:
        pipeline.wait(60)
    assert (home / "raw.ldb").is_dir()
    assert LevelDBSource("~/raw.ldb", 1).size == 4
    pack(ImageFileReader("~/photos", 2, 8, epochs=1), "~/files.ldb", "original")
    assert LevelDBImageReader(Path("~/files.ldb"), 1, 8).size == 4
    assert checks.describe("~/raw.ldb")
    checks.verify("~/raw.ldb", print, progress)
    assert checks.repair("~/raw.ldb", "~/repaired.ldb", progress).kept == 4
    assert export("~/files.ldb", "~/files")[0] == 4
    assert {"repaired.ldb", "files"} <= set(os.listdir(home))


def test_commands(home, capsys):
    """As of ``--option=~/x``, which a shell leaves as it is."""
    assert run(capsys, "preview", "~/photos", "--output=~/sheet.png", "--size", 16)[0] == 0
    (home / "train.py").write_text("from highway.transforms import FlipX\ntrain = [FlipX()]\n")
    more = ("--masks-dir=~/masks", "--transforms=~/train.py:train", "--output=~/more.png")
    code, _, errors = run(capsys, "preview", "~/photos", "--on-error=skip", *more)
    # The masks are photographs: that they were found is enough.
    assert code == 1 and str(home / "masks") in errors
    assert run(capsys, "bench", "~/photos", "--seconds=0.01", "--size=8")[0] == 0
    assert run(capsys, "keygen", "~/key")[0] == 0
    assert {"sheet.png", "key"} <= set(os.listdir(home))


def test_commands_of_stores(home, capsys):
    pytest.importorskip("plyvel")
    assert run(capsys, "pack", "~/photos", "~/store")[0] == 0
    for words in (
        ("info", "~/store"),
        ("verify", "~/store"),
        ("repair", "~/store", "~/new"),
        ("export", "~/new", "~/f"),
    ):
        assert run(capsys, "store", *words)[0] == 0, words
    assert run(capsys, "preview", "~/store", "--output=~/sheet.png", "--size", 16)[0] == 0


def test_secret_of_the_environment(home, monkeypatch):
    keys = security.new_secret_file(home / "secret")
    monkeypatch.setenv("HIGHWAY_SECRET_FILE", "~/secret")
    assert security.find_keys("M").fingerprint == keys.fingerprint
    for end in (ZMQSource("tcp://10.0.0.1:5555"), ZMQSink("tcp://0.0.0.0:5555", secret=Path("~/secret"))):
        assert end.name


def test_only_a_leading_tilde_counts(home):
    assert expanded("M", "p", "~/a") == f"{home}/a" and expanded("M", "p", "~") == str(home)
    for text in ("a/~/b", "./~", "~nobody-of-this-name/x", "a~", "-~"):
        assert expanded("M", "p", text) == text
    assert os.fsencode(expanded("M", "p", b"~/\xff")) == os.fsencode(home) + b"/\xff"


@pytest.mark.parametrize("value", [None, 3, "", b"", "a\0b", ["x"], np.str_, object()], ids=repr)
@pytest.mark.parametrize(
    "owner, name, take",
    [
        ("ImageFileReader", "data_dir", lambda value: ImageFileReader(value, 1, 8)),
        ("VOCReader", "root", lambda value: VOCReader(value, 1, 8)),
        ("ListReader", r"paths\[0\]", lambda value: ListReader([value], None, 1, 8)),
        ("ImageSaver", "folder", ImageSaver),
        ("contact sheet", "path", lambda value: save_sheet(value, contact_sheet(picture()))),
    ],
)
def test_what_is_no_path_is_named(owner, name, take, value):
    with pytest.raises(ArgumentError, match=f"^{owner}: {name} is .*; expected a path$"):
        take(value)


def test_text_of_numpy_is_a_path(home):
    assert ImageFileReader(np.str_("~/photos"), 1, 8).size == 4


def test_home_that_is_not_there_is_named(home):
    with pytest.raises(HighwayError, match=f"{home}/none"):
        ImageFileReader("~/none", 1, 8)
