"""What is said of the files that a reader skips."""

import logging
import os

import pytest

from highway.modules.readers.listing.leftovers import is_leftover
from highway.modules.readers.listing.skipped_files import SkippedFiles

pytestmark = pytest.mark.python

JPEG = b"\xff\xd8\xff\xe0 and so on"


def test_nothing_skipped_says_nothing(caplog):
    skipped = SkippedFiles()
    with caplog.at_level(logging.DEBUG, "highway.modules"):
        skipped.log("Reader", "data/")
    assert (len(skipped), str(skipped), skipped.missed, caplog.records) == (0, "", False, [])


def test_files_and_folders_by_reason_with_examples():
    skipped = SkippedFiles()
    for name in (b".DS_Store", b"b/2.PPM", b"a/1.ppm", b"a/4", b"a/Thumbs.db", b"a/notes.txt"):
        skipped.add_by_name(name)
    skipped.add_by_name(b"a/@eaDir", folder=True)
    skipped.add_by_name(b".git", folder=True)
    skipped.add(b"x.jpg", "without an annotation")
    assert len(skipped) == 9
    assert str(skipped) == (
        "skipped 7 files: 2 with the ending .ppm (such as a/1.ppm), 1 without an annotation (x.jpg), "
        "1 without an ending (a/4), 1 hidden (.DS_Store), 1 of the system (a/Thumbs.db), "
        "1 with the ending .txt (a/notes.txt); and 2 folders: 1 hidden (.git), 1 of the system (a/@eaDir)"
    )


def test_many_kinds_are_summed_up():
    skipped = SkippedFiles()
    for number in range(20):
        skipped.add_by_name(b"a/photo.%d" % number)
    assert str(skipped).startswith("skipped 20 files: 1 with the ending .0 (a/photo.0), ")
    assert str(skipped).endswith(", 14 of other kinds")


@pytest.mark.parametrize(
    ("name", "level"),
    [
        (b"a/.hidden.jpg", logging.INFO),
        (b"a/._1.jpg", logging.INFO),
        (b"THUMBS.DB", logging.INFO),
        (b"a/1.jpg:Zone.Identifier", logging.INFO),
        (b"a/1.jpg@SynoEAStream", logging.INFO),
        (b"README.md", logging.INFO),
        (b"a/1.psd", logging.WARNING),
        (b"a/3.jpg_large", logging.WARNING),
        (b"a/1.tar", logging.WARNING),
        (b"a/4", logging.WARNING),
    ],
)
def test_what_may_be_missed_is_a_warning(caplog, name, level):
    skipped = SkippedFiles()
    skipped.add_by_name(name)
    with caplog.at_level(logging.DEBUG, "highway.modules"):
        skipped.log("SomeReader", "'data/'")
    assert [(record.name, record.levelno) for record in caplog.records] == [("highway.modules", level)]
    assert caplog.messages == [f"SomeReader: 'data/': {skipped}"]


def test_a_look_at_the_first_bytes_tells_pictures_under_other_names(tmp_path):
    contents = {
        b"4": JPEG,
        b"3.jpg_large": JPEG,
        b"5.jpg.1": b"\x89PNG\r\n\x1a\n",
        b"1.ppm": b"P6 1 1 255 abc",
    }
    skipped = SkippedFiles()
    for name, content in contents.items():
        (tmp_path / os.fsdecode(name)).write_bytes(content)
        skipped.add_by_name(name)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    skipped.add_by_name(b"pipe")
    skipped.add_by_name(b"link")
    skipped.look(os.fsencode(tmp_path))
    assert str(skipped).endswith(
        "; 2 are JPEG under another name (such as 3.jpg_large), 1 is PNG under another name (5.jpg.1)"
    )


def test_few_files_are_looked_at_of_many(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(
        "highway.modules.readers.listing.skipped_files.first_bytes",
        lambda path, count: looked.append(path) or JPEG,
    )
    skipped = SkippedFiles()
    for number in range(5000):
        skipped.add_by_name(b"%d.e%d" % (number, number % 100))
    skipped.look(b"root")
    assert 100 < len(looked) <= 300
    assert len({os.path.splitext(path)[1] for path in looked}) >= 8


def test_names_that_are_no_text_stay_on_the_line():
    skipped = SkippedFiles()
    skipped.add_by_name(b"caf\xe9\n.ppm")
    assert "(caf\\xe9\\n.ppm)" in str(skipped)
    str(skipped).encode()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "@eaDir",
            "@EADIR",
            "#recycle",
            "@Recycle",
            "@Recently-Snapshot",
            "@__thumb",
            "#snapshot",
            "~snapshot",
        ),
        *("$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "RECYCLER", "FOUND.000", "Thumbs.db"),
        *(
            "desktop.ini",
            "__MACOSX",
            "Icon\r",
            "Network Trash Folder",
            "lost+found",
            "LOST.DIR",
            "__pycache__",
        ),
        *("SYNOPHOTO_THUMB_XL.jpg", "_vti_cnf"),
    ],
)
def test_leftovers(name):
    assert is_leftover(name.encode())


@pytest.mark.parametrize(
    "name", ["trash", "Recycled", "cat", "snapshot", "@home", "#1", "$5", "found", "tmp"]
)
def test_names_that_a_class_may_have(name):
    assert not is_leftover(name.encode())
