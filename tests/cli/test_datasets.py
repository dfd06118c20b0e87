"""highway info DIR: what a folder of data is."""

import pytest
from commands import LIMIT, run
from pictures import class_folders
from voc_folders import annotation, thing, voc_folder

from highway.engine import Pipeline
from highway.modules import ImageFileReader, LevelDBSink

pytestmark = pytest.mark.python


def lines(output):
    """The facts of an output, by their names."""
    found = (line.partition("  ") for line in output.splitlines())
    return {name: value.strip() for name, _, value in found}


def test_class_folders(tmp_path, capsys):
    data = class_folders(tmp_path / "data", classes=2, each=3)
    (data / "class0" / "0.jpg").rename(data / "class0" / "0.JPG")
    (data / "class1" / "4").write_bytes(b"\xff\xd8\xff")
    (data / "@eaDir").mkdir()
    (data / "Class0").mkdir()
    (data / "class1" / "0.jpg").rename(data / "Class0" / "0.jpg")
    code, output, errors = run(capsys, "info", data)
    found = lines(output)
    assert (code, errors) == (0, "")
    assert found["kind"] == "class folders" and found["samples"] == "6"
    assert found["endings"] == "5 .jpg, 1 .JPG"
    assert found["skipped"] == (
        "1 file: 1 without an ending (class1/4); and 1 folder: 1 of the system (@eaDir); "
        "1 is JPEG under another name (class1/4)"
    )
    assert "look alike" in found["remark"]
    assert found["classes"] == "3"
    assert [found[f"class {label}"] for label in range(3)] == ["Class0: 1", "class0: 3", "class1: 2"]


def test_many_classes_are_cut(tmp_path, capsys):
    data = class_folders(tmp_path / "data", classes=1, each=1)
    for number in range(102):
        (data / f"more{number}").mkdir()
        (data / f"more{number}" / "1.jpg").touch()
    _, output, _ = run(capsys, "info", data)
    assert "and 3 more" in output and "class 99" in output and "class 100" not in output


def test_voc(tmp_path, capsys):
    folder = voc_folder(
        tmp_path / "voc", {"a": annotation(thing("cat"), thing("cat")), "b": annotation(thing("ant"))}
    )
    (folder / "JPEGImages" / ".hidden.jpg").touch()
    (folder / "JPEGImages" / "alone.png").touch()
    code, output, _ = run(capsys, "info", folder)
    found = lines(output)
    assert code == 0
    assert "Pascal VOC" in found["kind"] and found["samples"].startswith("2, which")
    assert found["endings"] == "2 .jpg"
    assert "1 without an annotation (JPEGImages/alone.png)" in found["skipped"]
    assert "1 hidden" in found["skipped"]
    assert found["classes"].startswith("2, found in 2 annotations")
    assert [found["class 0"], found["class 1"]] == ["ant: 1", "cat: 2"]


def test_a_store(tmp_path, capsys):
    pytest.importorskip(
        "plyvel", reason="plyvel is not installed; it has no wheels for Python 3.13 and later"
    )
    data = class_folders(tmp_path / "data", classes=2, each=1)
    reader = ImageFileReader(data, 2, (8, 8), epochs=1)
    with Pipeline([reader, LevelDBSink(tmp_path / "store")]) as pipeline:
        pipeline.wait(LIMIT)
    code, output, _ = run(capsys, "info", tmp_path / "store")
    assert code == 0 and lines(output)["kind"] == "a store" and "class0, class1" in lines(output)["classes"]


def test_what_is_no_data_is_an_error(tmp_path, capsys):
    code, _, errors = run(capsys, "info", tmp_path)
    assert code == 1 and "has no class folders" in errors
    code, _, errors = run(capsys, "info", tmp_path / "nothing")
    assert code == 1 and "does not exist" in errors
