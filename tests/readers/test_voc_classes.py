"""Classes of VOCReader: found, given or VOC's own, the same whatever the split, and never renumbered in silence."""

import logging
import re

import pytest
from voc_folders import annotation, only_batch, thing, voc_folder

from highway.errors import ArgumentError, DecodeError
from highway.modules import VOCReader
from highway.modules.readers.voc.reader import VOC_CLASSES

BAD_BOX = annotation(thing("zebra", (30, 21, 11, 50)))


def reader_of(folder, **options):
    return VOCReader(folder, 9, (20, 20), **{"shuffle": False, "epochs": 1, **options})


def messages(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelname == level]


def test_found_in_all_annotations_whatever_the_split(tmp_path, caplog):
    caplog.set_level(logging.INFO, "highway.modules")
    names = {"a": "person", "b": "ant", "c": "person"}
    folder = voc_folder(tmp_path, {name: annotation(thing(label)) for name, label in names.items()})
    (folder / "ImageSets/Main/val.txt").write_text("a\n")
    for split, labels in (("train", [1, 0, 1]), ("val", [1]), (None, [1, 0, 1])):
        reader = reader_of(folder, split=split)
        assert reader.classes == ["ant", "person"] and only_batch(reader).labels.tolist() == labels
        assert ", classes=<2 found in 3 annotations: ant, person>)" in repr(reader)
    said = f"VOCReader: 2 classes, found in 3 annotations, of {str(folder) + '/'!r}: ant, person"
    assert messages(caplog, "INFO") == [said] * 3


def test_classes_of_voc_alone_are_not_made_twenty(tmp_path):
    folder = voc_folder(tmp_path, {"a": annotation(thing("person"))})
    reader = reader_of(folder)
    assert reader.classes == ["person"] and only_batch(reader).labels.tolist() == [0]
    voc = reader_of(folder, classes="voc")
    assert voc.classes == list(VOC_CLASSES) == sorted(VOC_CLASSES) and len(VOC_CLASSES) == 20
    assert only_batch(voc).labels.tolist() == [14]
    assert "classes=<20 of VOC: aeroplane, bicycle, " in repr(voc) and ", ...>" in repr(voc)
    assert voc.fingerprint() != reader.fingerprint()


def test_no_objects_no_classes(tmp_path):
    folder = voc_folder(tmp_path, {"a": annotation()})
    assert reader_of(folder).classes == [] and "classes=<0 found in 1 annotation: >" in repr(
        reader_of(folder)
    )


def test_two_folders_with_the_same_numbers(tmp_path):
    train = voc_folder(tmp_path / "train", {"a": annotation(thing("person")), "b": annotation(thing("ant"))})
    val = voc_folder(tmp_path / "val", {"a": annotation(thing("person"))})
    assert only_batch(reader_of(val)).labels.tolist() == [0]
    reader = reader_of(val, classes=reader_of(train).classes)
    assert reader.classes == ["ant", "person"] and only_batch(reader).labels.tolist() == [1]
    assert "classes=<2 given: ant, person>" in repr(reader)


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
@pytest.mark.parametrize(
    "damaged",
    [
        b"<annotation>",
        b"",
        b"\xff\xfe<\0",
        b"<html/>",
        b"<!DOCTYPE a><annotation/>",
        annotation(thing("")).encode(),
        b"<?xml version='1.0' encoding='klingon'?><annotation/>",
        annotation(thing().replace("<name>", "<name>cat</name><name>")).encode(),
    ],
    ids=["cut", "empty", "encoding", "root", "doctype", "nameless", "klingon", "two names"],
)
def test_an_unreadable_annotation_is_an_error_under_every_policy(tmp_path, policy, damaged):
    """Also outside of the split: nobody knows which classes it has."""
    good = annotation(thing("person"))
    folder = voc_folder(tmp_path, {"a": good, "b": damaged, "c": damaged})
    (folder / "ImageSets/Main/train.txt").write_text("a\n")
    with pytest.raises(DecodeError) as caught:
        reader_of(folder, on_error=policy)
    text = str(caught.value)
    assert text.startswith(f"VOCReader: {folder}/Annotations/b.xml ")
    assert "found in all 3 annotations" in text and "and 2 cannot be read: repair or remove" in text
    assert text.endswith("or give classes=[...]")
    # Where classes are given nobody asks it.
    reader = reader_of(folder, classes=["person"], on_error=policy)
    assert only_batch(reader).keys == ["a.jpg"] and reader.errors == []


def test_what_is_wrong_with_a_box_says_nothing_of_classes(tmp_path):
    folder = voc_folder(tmp_path, {"a": annotation(thing("person")), "b": BAD_BOX})
    reader = reader_of(folder, on_error="skip")
    assert reader.classes == ["person", "zebra"] and only_batch(reader).keys == ["a.jpg"]
    ((key, reason),) = reader.errors
    assert key == "b.jpg" and "<xmin>, <xmax> are 30 and 11" in reason


def test_a_listed_name_without_annotation_is_a_bad_sample(tmp_path):
    folder = voc_folder(tmp_path, {"a": annotation(thing("person")), "b": ""})
    (folder / "Annotations/b.xml").unlink()
    reader = reader_of(folder, on_error="skip")
    assert reader.classes == ["person"] and only_batch(reader).keys == ["a.jpg"]
    assert [key for key, _ in reader.errors] == ["b.jpg"]


def test_classes_in_nested_folders(tmp_path):
    folder = voc_folder(tmp_path, {"a": annotation(thing("person"))})
    for part in ("Annotations", "JPEGImages"):
        (folder / part / "sub/deep").mkdir(parents=True)
    (folder / "Annotations/sub/deep/b.xml").write_text(annotation(thing("ant")))
    (folder / "JPEGImages/a.jpg").rename(folder / "JPEGImages/sub/deep/b.jpg")
    (folder / "ImageSets/Main/train.txt").write_text("sub/deep/b\n")
    reader = reader_of(folder)
    batch = only_batch(reader)
    assert reader.classes == ["ant", "person"]
    assert batch.labels.tolist() == [0] and batch.keys == ["sub/deep/b.jpg"]


# A part of the classes


@pytest.fixture
def zoo(tmp_path):
    things = [
        thing(name, (1 + 9 * k, 1, 9 + 9 * k, 30)) for k, name in enumerate(("dog", "cat", "ant", "cat"))
    ]
    return voc_folder(tmp_path, {"a": annotation(*things), "b": annotation(*things[1:]), "c": annotation()})


def test_given(zoo):
    reader = reader_of(zoo, classes=("cat", "dog", "ant"))
    assert reader.classes == ["cat", "dog", "ant"]
    assert only_batch(reader).labels.tolist() == [1, 0, 2, 0, 0, 2, 0]
    assert reader.class_counts().tolist() == [4, 1, 2]
    assert reader.fingerprint() != reader_of(zoo).fingerprint()


def test_other_classes_are_bad_samples(zoo):
    reader = reader_of(zoo, classes=["cat", "dog"], on_error="skip")
    assert only_batch(reader).keys == ["c.jpg"]
    assert len(reader.errors) == 2
    for _, reason in reader.errors:
        assert re.search(
            r"<name> is 'ant'; expected one of the classes: cat, dog \(other_classes='drop'", reason
        )


def test_other_classes_dropped(zoo, caplog):
    caplog.set_level(logging.INFO, "highway.modules")
    reader = reader_of(zoo, classes=["dog", "bird"], other_classes="drop")
    batch = only_batch(reader)
    assert reader.errors == [] and batch.keys == ["a.jpg", "b.jpg", "c.jpg"]
    assert batch.offsets.tolist() == [0, 1, 1, 1] and batch.labels.tolist() == [0]
    assert len(batch.boxes) == len(batch.difficult) == len(batch.truncated) == 1
    (said,) = [text for text in messages(caplog, "INFO") if "are dropped: " in text]
    assert "6 objects of 2 other classes" in said and said.endswith("cat (4), ant (2)")
    assert [*reader.class_counts()] == [1, 0]


@pytest.mark.parametrize(
    "classes", ["dog", "VOC", "", [], (), ["dog", "dog"], [3], ["dog", None], {"dog": 0}, 3, b"voc"]
)
def test_classes_that_are_none(zoo, classes):
    with pytest.raises(
        ArgumentError, match=r"^VOCReader: classes .*; expected (names, one or more|each name once)"
    ):
        reader_of(zoo, classes=classes)


# Names that only look different


@pytest.mark.parametrize(
    "one, other, said",
    [
        ("Dog", "dog", "'Dog' and 'dog'"),
        ("traffic light", "traffic  light", "'traffic  light' and 'traffic light'"),
        ("Mu\u0308ller", "M\u00fcller", r"'Mu\u0308ller' and 'M\xfcller'"),
        ("STRASSE", "straße", "'STRASSE' and 'straße'"),
        ("ﬁsh", "fish", "'fish' and 'ﬁsh'"),
    ],
)
def test_names_that_are_nearly_the_same(tmp_path, caplog, one, other, said):
    folder = voc_folder(tmp_path, {"a": annotation(thing(one)), "b": annotation(thing(other), thing("cat"))})
    # Both stay.
    assert reader_of(folder).classes == sorted([one, other, "cat"])
    (text,) = messages(caplog, "WARNING")
    assert said in text and "cat" not in text
    caplog.clear()
    # The other one, which is left out, may be meant.
    assert reader_of(folder, classes=[one], other_classes="drop").classes == [one]
    assert [said in text for text in messages(caplog, "WARNING")] == [True]


def test_names_that_are_numbers_have_another_order_as_texts(tmp_path, caplog):
    folder = voc_folder(tmp_path, {"a": annotation(thing("9"), thing("10"))})
    classes = reader_of(folder).classes
    (text,) = messages(caplog, "WARNING")
    assert classes == ["10", "9"] and text.startswith("VOCReader: ") and "'10' has label 0" in text
    caplog.clear()
    for given in (classes, sorted(classes, key=int)):
        assert reader_of(folder, classes=given).classes == given
    assert messages(caplog, "WARNING") == []


def test_white_space_around_a_name_is_none_of_it(tmp_path, caplog):
    folder = voc_folder(tmp_path, {"a": annotation(thing("dog")), "b": annotation(thing(" dog\n"))})
    assert reader_of(folder).classes == ["dog"] and messages(caplog, "WARNING") == []
