"""`highway classes` and `--classes`: which label is which class, the same for training and validation."""

import logging

import pytest
from commands import run
from pictures import class_folders
from voc_folders import annotation, only_batch, thing, voc_folder

from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import (
    Encoded,
    ImageFileReader,
    LevelDBImageReader,
    LevelDBSink,
    LevelDBSource,
    ListReader,
    VOCReader,
)

CLASSES = ["cat", "dog"]


@pytest.fixture
def voc(tmp_path):
    annotations = {
        "a": annotation(thing("dog"), thing("cat")),
        "b": annotation(thing("dog")),
        "c": annotation(),
    }
    folder = voc_folder(tmp_path / "voc", annotations)
    (folder / "ImageSets/Main/val.txt").write_text("b\n")
    return folder


@pytest.fixture
def photos(tmp_path):
    return class_folders(tmp_path / "photos", classes=3, each=2)


def printed(capsys, *arguments):
    code, output, errors = run(capsys, "classes", *arguments)
    assert (code, errors) == (0, "")
    return output


def packed(path, reader):
    pytest.importorskip("plyvel", reason="plyvel is not installed: it has no wheels for this Python")
    with Pipeline([reader, LevelDBSink(path)]) as pipeline:
        pipeline.wait()
    return path


def test_class_folders(capsys, photos):
    assert printed(capsys, photos) == "0\tclass0\t2\n1\tclass1\t2\n2\tclass2\t2\n"


def test_a_voc_set(capsys, voc):
    # Found to be one, or said to be one.
    for options in ([], ["--voc"]):
        assert printed(capsys, voc, *options) == "0\tcat\t1\n1\tdog\t2\n"
    assert printed(capsys, voc, "--split", "val") == "0\tcat\t0\n1\tdog\t1\n"
    (voc / "JPEGImages").rename(voc / "x")
    (voc / "Annotations").rename(voc / "y")
    assert printed(capsys, voc, "--images", "x", "--annotations", "y") == "0\tcat\t1\n1\tdog\t2\n"


def test_a_store(capsys, voc, photos, tmp_path):
    boxes = packed(tmp_path / "s", Encoded(VOCReader(voc, 2, (1, 1), epochs=1, shuffle=False), "original"))
    assert printed(capsys, boxes) == "0\tcat\t1\n1\tdog\t2\n"
    arrays = packed(tmp_path / "t", ImageFileReader(photos, 2, (8, 8), epochs=1))
    assert printed(capsys, arrays) == printed(capsys, photos)
    one_hot = packed(tmp_path / "u", ImageFileReader(photos, 2, (8, 8), epochs=1, labels="one_hot"))
    assert printed(capsys, one_hot) == "0\tclass0\t-\n1\tclass1\t-\n2\tclass2\t-\n"
    unnamed = packed(tmp_path / "v", ListReader([*photos.glob("*/*.jpg")], [0] * 6, 2, (8, 8), epochs=1))
    code, output, errors = run(capsys, "classes", unnamed)
    assert (code, output) == (1, "") and "has no names of its classes" in errors
    code, _, errors = run(capsys, "classes", arrays, "--split", "val")
    assert code == 1 and "--split is for folders" in errors


def test_what_is_wrong(capsys, voc, tmp_path):
    code, output, errors = run(capsys, "classes", tmp_path / "nowhere")
    assert (code, output) == (1, "") and "does not exist" in errors
    (voc / "Annotations/c.xml").write_text("<annotation>")
    code, output, errors = run(capsys, "classes", voc)
    assert (code, output) == (1, "") and "c.xml is not XML" in errors


def test_names_that_are_no_line(capsys, tmp_path):
    name = "two\nlines\tof"
    folder = voc_folder(tmp_path / "voc", {"a": annotation(thing(name))})
    assert printed(capsys, folder) == "0\ttwo\\nlines\\tof\t1\n"


# What was printed is given to another set


@pytest.mark.parametrize("form", ["printed", "names", "windows"])
def test_classes_of_another_set(capsys, voc, tmp_path, form):
    pytest.importorskip("plyvel", reason="plyvel is not installed: it has no wheels for this Python")
    val = voc_folder(tmp_path / "val", {"a": annotation(thing("dog"))})
    file = tmp_path / "classes.txt"
    file.write_bytes(
        {
            "printed": printed(capsys, voc).encode(),
            "names": b"cat\ndog",
            "windows": b"\xef\xbb\xbfcat\r\n\r\ndog\r\n",
        }[form]
    )
    assert printed(capsys, val) == "0\tdog\t1\n"
    assert printed(capsys, val, "--classes", file) == "0\tcat\t0\n1\tdog\t1\n"
    assert run(capsys, "pack", "--voc", val, tmp_path / "s", "--classes", file)[0] == 0
    assert LevelDBImageReader(tmp_path / "s", 1, (8, 8)).classes == CLASSES
    code, output, _ = run(capsys, "bench", "--voc", val, "--classes", file, "--epochs", 1)
    assert code == 0 and "1 file in 2 classes" in output
    photos = class_folders(tmp_path / "few", classes=1, each=1)
    (photos / "class0").rename(photos / "dog")
    assert printed(capsys, photos, "--classes", file) == "0\tcat\t0\n1\tdog\t1\n"


def test_files_of_classes_that_are_none(capsys, voc, tmp_path):
    file = tmp_path / "classes.txt"
    for contents, says in {
        b"1\tdog\t3\n": "has the label '1'; expected 0",
        b"\xff": "cannot be read",
        b"\n": r"expected names, one or more",
        b"dog\ndog": "more than once",
    }.items():
        file.write_bytes(contents)
        code, output, errors = run(capsys, "classes", voc, "--classes", file)
        assert (code, output) == (1, "") and says in errors
    code, _, errors = run(capsys, "classes", voc, "--classes", tmp_path / "none")
    assert code == 1 and "none' cannot be read: No such file" in errors


@pytest.mark.parametrize("kind", ["images", "arrays"])
def test_a_store_with_other_classes_is_an_error(photos, tmp_path, kind):
    names = ["class0", "class1", "class2"]
    reader = ImageFileReader(photos, 2, (8, 8), epochs=1)
    path = packed(tmp_path / "s", Encoded(reader, "original") if kind == "images" else reader)

    def read(classes):
        if kind == "images":
            return LevelDBImageReader(path, 2, (8, 8), classes=classes)
        return LevelDBSource(path, 2, classes=classes)

    assert read(names).classes == read(None).classes == read(tuple(names)).classes == names
    for classes, says in {
        ("class1", "class0", "class2"): "label 0 is 'class1' in classes .*, 'class0' in",
        ("class0", "class1"): r"label 2 is none in classes \(2\), 'class2' in",
        (*names, "class3"): "label 3 is 'class3' in classes .*, none in",
        ("class0", "class0"): "more than once",
        (): "one or more",
    }.items():
        with pytest.raises(ArgumentError, match=rf"^{type(read(None)).__name__}: .*{says}"):
            read(classes)
    # Nothing is left open: another one may be written there.
    unnamed = packed(tmp_path / "t", ListReader([*photos.glob("*/*.jpg")], [0] * 6, 2, (8, 8), epochs=1))
    with pytest.raises(ArgumentError, match="does not have the names of its classes"):
        LevelDBSource(unnamed, 2, classes=names)


def test_lists_tell_their_classes(photos, caplog):
    caplog.set_level(logging.INFO, "highway.modules")
    paths = sorted(photos.glob("*/*.jpg"))[:2]
    reader = ListReader(paths, ["dog", "Dog"], 2, (8, 8), shuffle=False, epochs=1)
    assert reader.classes == ["Dog", "dog"] and repr(reader).endswith(", 2 classes found in the labels>")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages[0] == "ListReader: 2 classes, found in the labels: Dog, dog"
    assert "'Dog' and 'dog'" in caplog.messages[1]
    # The same numbers as another list has.
    reader = ListReader(paths, ["dog", "dog"], 2, (8, 8), classes=CLASSES, shuffle=False, epochs=1)
    assert only_batch(reader).labels.tolist() == [1, 1] and repr(reader).endswith(", 2 classes given>")
