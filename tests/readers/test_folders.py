"""Which files a folder of class folders has."""

import glob
import logging
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
from highway.errors import ArgumentError, DatasetError, EmptyDatasetError
from highway.modules import ImageFileReader, ListReader
from highway.modules.readers.listing.class_folders import list_class_folders


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


def test_what_looks_like_a_picture_and_is_no_folder_is_listed_whatever_it_is(tmp_path):
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "a" / "fifo.jpg")
    (tmp_path / "a" / "dangling.jpg").symlink_to("nowhere")
    assert list_class_folders(tmp_path).names == [b"a/1.jpg", b"a/dangling.jpg", b"a/fifo.jpg"]


def test_a_folder_is_a_folder_whatever_its_name_ends_in(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2.jpg/3.png", "a/4.PNG/notes.txt", "b.tif/1.jpg")
    (tmp_path / "a" / "empty.jpg").mkdir()
    found = list_class_folders(tmp_path)
    assert found.classes == ["a", "b.tif"]
    assert found.names == [b"a/1.jpg", b"a/2.jpg/3.png", b"b.tif/1.jpg"]
    assert str(found.skipped) == (
        "skipped 1 file: 1 with the ending .txt (a/4.PNG/notes.txt); and 2 folders: "
        "2 named like a picture, with none inside (such as a/4.PNG)"
    )
    assert found.skipped.missed
    assert found.remarks() == ["the class 'b.tif' is a folder that is named like a picture"]


LEFT = [
    *(
        "@eaDir",
        "@EADIR",
        "#recycle",
        "@Recycle",
        "@Recently-Snapshot",
        ".@__thumb",
        "#snapshot",
        "$RECYCLE.BIN",
    ),
    *(
        "System Volume Information",
        "__MACOSX",
        "__macosx",
        "lost+found",
        ".ipynb_checkpoints",
        ".AppleDouble",
    ),
    *(".Trash-1000", "__pycache__", "FOUND.000", "@tmp", ".git"),
]


@pytest.mark.parametrize("name", LEFT)
def test_what_systems_leave_behind_is_no_class_and_no_picture(tmp_path, name):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", f"{name}/cat/1.jpg", f"{name}/2.jpg")
    touch(tmp_path, f"cat/{name}/1.jpg/SYNOPHOTO_THUMB_XL.jpg", f"dog/deep/{name}/3.png", "dog/deep/x.jpg")
    found = list_class_folders(tmp_path)
    assert found.classes == ["cat", "dog"]
    assert found.names == [b"cat/1.jpg", b"dog/1.jpg", b"dog/deep/x.jpg"]
    assert str(found.skipped).startswith("skipped 3 folders: 3 ") and name in str(found.skipped)
    assert not found.skipped.missed


def test_files_that_systems_leave_behind_are_no_pictures(tmp_path):
    touch(
        tmp_path, "a/1.jpg", "a/._1.jpg", "._2.jpg", "a/Thumbs.db", "a/SYNOPHOTO_THUMB_M.jpg", "a/desktop.ini"
    )
    touch(tmp_path, "a/1.jpg:Zone.Identifier", "a/1.jpg@SynoEAStream")
    found = list_class_folders(tmp_path)
    assert found.names == [b"a/1.jpg"]
    assert len(found.skipped) == 7 and not found.skipped.missed


def test_what_is_skipped_is_counted(tmp_path):
    touch(
        tmp_path, "loose.jpg", "README.md", "a/1.JPG", "a/3.jpg_large", "a/deep/2.ppm", "b/1.jpg", "b/2.hdr"
    )
    (tmp_path / "a" / "4").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "c").symlink_to("nowhere")
    found = list_class_folders(tmp_path)
    assert found.names == [b"a/1.JPG", b"b/1.jpg"]
    assert str(found.skipped) == (
        "skipped 7 files: 1 in no class folder (loose.jpg), 1 linked to nothing (c), "
        "1 with the ending .hdr (b/2.hdr), 1 with the ending .jpg_large (a/3.jpg_large), "
        "1 with the ending .ppm (a/deep/2.ppm), 1 without an ending (a/4), 1 of other kinds; "
        "1 is JPEG under another name (a/4)"
    )
    assert found.skipped.missed


def test_classes_say_the_labels_and_may_be_missing_or_empty(tmp_path):
    touch(tmp_path, "dog/1.jpg", "cat/1.jpg", "cat/2.jpg", "empty/notes.txt")
    found = list_class_folders(tmp_path, ["empty", "dog", "missing", "cat"])
    assert found.classes == ["empty", "dog", "missing", "cat"]
    assert found.names == [b"dog/1.jpg", b"cat/1.jpg", b"cat/2.jpg"]
    np.testing.assert_array_equal(found.labels, [1, 3, 3])
    touch(tmp_path / "more", ".hidden/1.jpg", "lost+found/1.jpg", "@eaDir/1.jpg")
    assert list_class_folders(tmp_path / "more", (".hidden", "lost+found")).names == [
        b".hidden/1.jpg",
        b"lost+found/1.jpg",
    ]


def test_the_classes_belong_to_the_identity_where_the_pictures_do_not_say_them(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    plain = list_class_folders(tmp_path)
    assert list_class_folders(tmp_path, ["a", "b"]).identity() == plain.identity() == plain.names
    kinds = [["b", "a"], ["0", "a", "b"], ["a", "b", "c"], ["a", "a0", "b"]]
    found = [tuple(list_class_folders(tmp_path, classes).identity()) for classes in kinds]
    assert len({*found, tuple(plain.names)}) == 5


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ("cat", "classes is 'cat'; expected names"),
        ([], r"classes is \[\]; expected names"),
        (["cat", 3], r"classes is \['cat', 3\]; expected names"),
        (3, "classes is 3; expected names"),
        (["cat", "dog", "cat"], "classes has 'cat' more than once"),
        (["cat", "a/b"], "classes has 'a/b'; expected names of folders"),
        (["cat", ".."], r"classes has '\.\.'; expected names of folders"),
        (["cat", ""], "classes has ''; expected names of folders"),
        (["cat"], r"has a folder that classes lacks: 'dog'; add"),
        (["x"], r"has folders that classes lacks: 'cat', 'dog'; add"),
        (["cat", "Dog"], r"'dog' is there, and classes has 'Dog', which looks alike"),
    ],
)
def test_classes_that_are_refused(tmp_path, classes, says):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    with pytest.raises(ArgumentError, match=f"^ImageFileReader: .*{says}"):
        list_class_folders(tmp_path, classes)


def test_classes_without_a_picture_at_all(tmp_path):
    touch(tmp_path, "cat/1.ppm")
    with pytest.raises(
        EmptyDatasetError, match=r"no pictures in the folders that classes names; skipped 1 file"
    ):
        list_class_folders(tmp_path, ["cat", "dog"])


def remarks(root, *names):
    touch(root, *names)
    return list_class_folders(root).remarks()


@pytest.mark.parametrize(
    "splits", [("train", "val"), ("Train", "TEST"), ("training_set", "test_set"), ("train2017",)]
)
def test_folders_of_splits_are_no_classes(tmp_path, splits):
    (said,) = remarks(tmp_path, *(f"{split}/cat/1.jpg" for split in splits))
    assert "names of splits" in said and f"use {str(tmp_path / min(splits))!r}" in said


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "extra"), ("train", "val")),
        (("seg_pred", "seg_test", "seg_train"), ("seg_test", "seg_train")),
        (("Images Train", "Images Val"), ("Images Train", "Images Val")),
        (("testing-photos", "training-photos"), ("testing-photos", "training-photos")),
        (("fold1", "fold2", "fold10"), ("fold1", "fold10", "fold2")),
    ],
)
def test_folders_that_are_named_like_splits_among_others(tmp_path, folders, splits):
    (said,) = remarks(tmp_path, *(f"{folder}/cat/1.jpg" for folder in folders))
    assert f"the classes {', '.join(map(repr, splits))} are named like splits" in said
    assert f"use {str(tmp_path / splits[0])!r}" in said


@pytest.mark.parametrize(
    "pictures",
    [
        ("toy train/side/1.jpg", "toy tram/side/1.jpg"),
        ("a_train/1.jpg", "a_test/deep/1.jpg"),
        ("bullet train/deep/1.jpg", "crash test/deep/1.jpg"),
        ("strain/deep/1.jpg", "attest/deep/1.jpg"),
    ],
)
def test_classes_that_are_no_splits(tmp_path, pictures):
    assert remarks(tmp_path, *pictures) == []


def test_splits_without_folders_of_classes_and_classes_that_are_no_splits(tmp_path):
    (said,) = remarks(tmp_path / "a", "train/1.jpg", "test/1.jpg")
    assert "names of splits" in said and "use" not in said
    assert remarks(tmp_path / "b", "train/1.jpg", "tram/deep/1.jpg") == []
    assert remarks(tmp_path / "c", "only/1.jpg", "only/deep/1.jpg") == []


def test_one_folder_around_the_classes(tmp_path):
    (said,) = remarks(tmp_path, "photos/cat/1.jpg", "photos/dog/1.jpg")
    assert "'photos' is the only class, and all" in said and f"use {str(tmp_path / 'photos')!r}" in said


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("M\u00fcller", "Mu\u0308ller"),
        ("cat", "Cat"),
        ("a b", "a  b"),
        ("cat", "cat "),
        ("stra\xdfe", "STRASSE"),
    ],
)
def test_classes_that_look_alike_are_named(tmp_path, one, other):
    (said,) = remarks(tmp_path, f"{one}/1.jpg", f"{other}/1.jpg", "z/1.jpg")
    assert ascii(one) in said and ascii(other) in said and "look alike" in said


def test_names_that_are_not_utf8(tmp_path):
    name = b"caf\xe9.jpg"
    (tmp_path / "a").mkdir()
    with open(os.path.join(os.fsencode(tmp_path), b"a", name), "wb"):
        pass
    assert list_class_folders(tmp_path).names == [b"a/" + name]


def test_empty_folders_say_what_is_missing(tmp_path):
    with pytest.raises(EmptyDatasetError, match=r"no class folders.*neither folders nor pictures"):
        list_class_folders(tmp_path)
    touch(tmp_path, "1.jpg", "2.png", "notes.txt")
    with pytest.raises(EmptyDatasetError, match=r"no class folders.*2 pictures are directly in it"):
        list_class_folders(tmp_path)
    touch(tmp_path, "a/1.jpg", "b/notes.txt")
    with pytest.raises(
        EmptyDatasetError, match=r"class folder '.*b' has no pictures .*notes\.txt.* with classes="
    ):
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
    with pytest.raises(
        DatasetError, match=r"'.*file/' cannot be listed: Not a directory.*TarReader reads tars"
    ):
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
        "from highway.modules.readers.listing.class_folders import list_class_folders\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: list_class_folders(sys.argv[1])\n"
        "except DatasetError as error: print('refused', error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(open_place / "data")], capture_output=True, text=True
    )
    (open_place / "data" / "b").chmod(0o755)
    assert answer.stdout.startswith("refused") and "/b" in answer.stdout, answer.stderr


@pytest.mark.parametrize(
    ("names", "first"),
    [(("0", "1", "10", "2"), "'10' has label 2"), (("100", "99"), "'100' has label 0")],
)
def test_names_that_are_numbers_have_another_order_as_texts(tmp_path, caplog, names, first):
    (said,) = remarks(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert first in said and "sorted(reader.classes, key=int)" in said
    caplog.set_level(logging.WARNING, "highway.modules")
    reader = ImageFileReader(tmp_path, 1, 8)
    assert [record.getMessage().endswith(said) for record in caplog.records] == [True]
    caplog.clear()
    for classes in (reader.classes, sorted(reader.classes, key=int)):
        assert ImageFileReader(tmp_path, 1, 8, classes=classes).classes == classes
    assert caplog.records == []


@pytest.mark.parametrize("names", [("1", "2", "9"), ("01", "02", "10"), ("1", "10", "2b"), ("\u00b2", "10")])
def test_names_whose_order_is_the_same_or_that_are_no_numbers(tmp_path, names):
    assert remarks(tmp_path, *(f"{name}/1.jpg" for name in names)) == []
