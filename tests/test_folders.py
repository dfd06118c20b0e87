"""Which files a folder of class folders has."""

import glob
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from pictures import photograph

from highway.engine import Pipeline
from highway.errors import DatasetError, EmptyDatasetError
from highway.modules import ImageFileReader, ListReader
from highway.modules.folders import list_class_folders


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_classes_and_names_are_sorted(tmp_path):
    touch(
        tmp_path,
        "b/2.jpg",
        "b/10.JPG",
        "a/z.png",
        "a/deep/er/x.tif",
        "a/notes.txt",
        "c/1.WebP",
        "loose.jpg",
        "a/.hidden.jpg",
    )
    touch(tmp_path, ".git/1.jpg", "a/.thumbnails/1.jpg")
    found = list_class_folders(tmp_path)
    assert found.classes == ["a", "b", "c"]
    assert found.names == [b"a/deep/er/x.tif", b"a/z.png", b"b/10.JPG", b"b/2.jpg", b"c/1.WebP"]
    np.testing.assert_array_equal(found.labels, [0, 0, 1, 1, 2])
    assert found.root == os.fsencode(tmp_path) + b"/"


@pytest.mark.parametrize("kind", [str, os.fsencode, lambda path: str(path) + "/"])
def test_kinds_of_paths(tmp_path, kind):
    touch(tmp_path, "a/1.jpg")
    assert list_class_folders(kind(tmp_path)).names == [b"a/1.jpg"]


def test_links_are_followed_and_loops_are_not(tmp_path):
    touch(tmp_path, "data/a/1.jpg", "elsewhere/2.jpg", "elsewhere/sub/3.jpg", "one.jpg")
    data = tmp_path / "data"
    (data / "b").symlink_to(tmp_path / "elsewhere")
    (data / "a" / "link.jpg").symlink_to(tmp_path / "one.jpg")
    (data / "a" / "loop").symlink_to(data / "a")
    (data / "a" / "up").symlink_to(data)
    (tmp_path / "elsewhere" / "sub" / "round").symlink_to(tmp_path / "elsewhere")
    (data / "a" / "itself").symlink_to("itself")
    (data / "itself").symlink_to("itself")
    found = list_class_folders(data)
    assert found.classes == ["a", "b"]
    assert found.names == [b"a/1.jpg", b"a/link.jpg", b"b/2.jpg", b"b/sub/3.jpg"]
    assert not any(name.count(b"loop") or name.count(b"round") for name in found.names)


def test_what_looks_like_a_picture_is_listed_whatever_it_is(tmp_path):
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "a" / "fifo.jpg")
    (tmp_path / "a" / "dangling.jpg").symlink_to("nowhere")
    assert list_class_folders(tmp_path).names == [
        b"a/1.jpg",
        b"a/dangling.jpg",
        b"a/fifo.jpg",
        b"a/folder.jpg",
    ]


def test_names_that_are_not_utf8(tmp_path):
    name = b"caf\xe9.jpg"
    (tmp_path / "a").mkdir()
    with open(os.path.join(os.fsencode(tmp_path), b"a", name), "wb"):
        pass
    assert list_class_folders(tmp_path).names == [b"a/" + name]


def test_empty_folders_say_what_is_missing(tmp_path):
    with pytest.raises(EmptyDatasetError, match=r"no class folders.*empty of both"):
        list_class_folders(tmp_path)
    touch(tmp_path, "1.jpg", "2.png", "notes.txt")
    with pytest.raises(EmptyDatasetError, match=r"no class folders.*2 pictures lie directly in it"):
        list_class_folders(tmp_path)
    touch(tmp_path, "a/1.jpg", "b/notes.txt")
    with pytest.raises(EmptyDatasetError, match=r"class folder '.*b' has no pictures"):
        list_class_folders(tmp_path)


def test_pictures_without_classes_are_read_as_the_error_says(tmp_path):
    folder = tmp_path / "a [b] 'c'"
    folder.mkdir()
    for number in range(3):
        photograph(16, 16, seed=number).save(folder / f"{number}.jpg")
    photograph(16, 16, seed=3).save(folder / "other.png")
    with pytest.raises(EmptyDatasetError) as caught:
        ImageFileReader(folder, 2, 8)
    code = re.search(r"ListReader\(.*\)$", str(caught.value))[0]
    reader = eval(code, {"ListReader": ListReader, "glob": glob, "batch_size": 3, "shape": 8})
    with Pipeline([reader]) as pipeline:
        keys = sorted(pipeline.dequeue(timeout=60).keys)
    assert keys == [str(folder / f"{number}.jpg") for number in range(3)]


def test_what_is_no_folder(tmp_path):
    with pytest.raises(EmptyDatasetError, match=r"'.*nothing/' does not exist; data_dir must be"):
        list_class_folders(tmp_path / "nothing")
    touch(tmp_path, "file")
    with pytest.raises(DatasetError, match=r"'.*file/' cannot be listed: Not a directory"):
        list_class_folders(tmp_path / "file")


@pytest.fixture
def open_place():
    """A folder that every user may enter; pytest closes its own whenever it begins, in another run too."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)
        yield Path(name)


def test_a_folder_that_may_not_be_read_is_an_error(open_place):
    """In a process that is not root, which may read everything."""
    touch(open_place, "data/a/1.jpg", "data/b/1.jpg")
    (open_place / "data" / "b").chmod(0)
    script = (
        "import os, sys\n"
        "from highway.errors import DatasetError\n"
        "from highway.modules.folders import list_class_folders\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: list_class_folders(sys.argv[1])\n"
        "except DatasetError as error: print('refused', error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(open_place / "data")], capture_output=True, text=True
    )
    (open_place / "data" / "b").chmod(0o755)
    assert answer.stdout.startswith("refused") and "/b" in answer.stdout, answer.stderr
