"""Annotations: what is read, what is repaired, and an error that names file and element for everything else."""

import os
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voc_folders import annotation, only_batch, thing, voc_folder

from highway.engine import Pipeline
from highway.errors import DecodeError, ReadError
from highway.modules import VOCReader
from highway.modules.annotations import LARGEST_FILE, parse_annotation
from highway.transforms import Stretch

GOOD = annotation(thing())

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "]><annotation><object><name>&j;</name></object></annotation>"
)

BAD = {
    "unknown class": (
        annotation(thing(), thing("dragon")),
        "object 2: <name> is 'dragon'; expected one of the classes",
    ),
    "min above max": (
        annotation(thing(box=(30, 21, 11, 50))),
        "object 1: <bndbox>, <xmin>, <xmax> are 30 and 11",
    ),
    "y min above max": (annotation(thing(box=(1, 9, 11, 5))), "<ymin>, <ymax> are 9 and 5"),
    "NaN": (annotation(thing(box=("nan", 21, 30, 50))), "object 1: <bndbox>, <xmin> is 'nan'"),
    "infinite": (annotation(thing(box=(1, 21, "1e999", 50))), "object 1: <bndbox>, <xmax> is '1e999'"),
    "text for a number": (
        annotation(thing(), thing(box=(1, "two", 3, 4))),
        "object 2: <bndbox>, <ymin> is 'two'",
    ),
    "nothing for a number": (annotation(thing(box=("", 2, 3, 4))), "<xmin> is ''"),
    "side missing": (GOOD.replace("<xmin>11</xmin>", ""), "<bndbox> has no <xmin>"),
    "no box": (annotation("<object><name>dog</name></object>"), "object 1: has no <bndbox>"),
    "no name": (annotation(thing("")), "object 1: has no <name>"),
    "difficult": (annotation(thing(difficult="yes")), "object 1: <difficult> is 'yes'; expected 0 or 1"),
    "truncated": (annotation(thing(truncated=2)), "object 1: <truncated> is '2'"),
    "other size": (annotation(thing(), size=(61, 80)), r"has 60 x 80 pixels .*\.xml says 61 x 80"),
    "swapped size": (annotation(thing(), size=(80, 60)), "has 60 x 80 pixels .* says 80 x 60"),
    "half a size": (annotation(thing(), size=(0, 80)), "<size> says 0 x 80"),
    "negative size": (annotation(thing(), size=(-60, 80)), "<size>, <height> is '-60'"),
    "size is text": (annotation(thing(), size=("tall", 80)), "<size>, <height> is 'tall'"),
    "size is huge": (annotation(thing(), size=(60, "9" * 5000)), "<size>, <width> is '999"),
    "size is empty": (GOOD.replace("<width>80</width>", ""), "<size>, <width> is ''"),
    "nothing": ("", "is no XML"),
    "cut": (GOOD[:100], "is no XML"),
    "text": ("no xml", "is no XML"),
    "other tags": (GOOD.replace("</name>", "</nome>"), "is no XML"),
    "other root": ("<html></html>", "holds <html>; expected <annotation>"),
    "wrong encoding": (
        b'<?xml version="1.0" encoding="utf-8"?>' + annotation(thing("caf\xe9")).encode("latin-1"),
        "is no XML in the encoding that it declares",
    ),
    "unknown encoding": ('<?xml version="1.0" encoding="klingon"?>' + GOOD, "is no XML in the encoding"),
    "encoding of several bytes": (
        '<?xml version="1.0" encoding="shift_jis"?>' + GOOD,
        "is no XML in the encoding",
    ),
    "entity bomb": (BOMB, "declares a document type"),
    "entity bomb in UTF-16": (
        BOMB.replace('"1.0"', '"1.0" encoding="utf-16"').encode("utf-16"),
        "document type",
    ),
    "file from outside": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "document type",
    ),
    "DTD": ('<!DOCTYPE annotation SYSTEM "http://127.0.0.1/a.dtd"><annotation/>', "document type"),
    "unknown entity": (annotation(thing("dog").replace("dog", "&dog;")), "is no XML"),
    "large file": (b"<annotation>" + b" " * LARGEST_FILE + b"</annotation>", "allowed are 8388608"),
}


def folder_with(tmp_path, bad):
    return voc_folder(tmp_path, {"good": GOOD, "bad": bad, "other": GOOD})


@pytest.mark.parametrize("name", BAD)
def test_error_names_file_and_element(tmp_path, name):
    contents, message = BAD[name]
    folder = folder_with(tmp_path, contents)
    reader = VOCReader(folder, 3, (30, 40), classes=["cat", "dog"], epochs=1)
    with Pipeline([reader]) as pipeline:
        with pytest.raises((DecodeError, ReadError), match=message) as caught:
            pipeline.dequeue()
        assert str(caught.value).startswith("VOCReader: ")
        assert str(folder / "Annotations" / "bad.xml") in str(caught.value)
        ((key, reason),) = pipeline.errors
    assert key == "bad.jpg" and reason == str(caught.value)
    # Rows are as long as a line or two, whatever the file holds.
    assert len(reason) < 1000


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_policies(tmp_path, name, policy):
    folder = folder_with(tmp_path, BAD[name][0])
    options = {"classes": ["cat", "dog"], "epochs": 1, "on_error": policy}
    reader = VOCReader(folder, 3, (30, 40), **options)
    batch = only_batch(reader)
    assert [key for key, _ in reader.errors] == ["bad.jpg"]
    assert batch.size == (2 if policy == "skip" else 3) and {*batch.keys} == {"good.jpg", "other.jpg"}
    assert len(batch.boxes) == batch.size and batch.offsets.tolist() == [*range(batch.size + 1)]
    np.testing.assert_allclose(batch.boxes, [[5, 10, 15, 25]] * batch.size)
    for image, key in zip(batch.images, batch.keys, strict=True):
        alone = only_batch(VOCReader(folder, 3, (30, 40), **options, shuffle=False))
        np.testing.assert_array_equal(image, alone.images[alone.keys.index(key)])


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "link"])
def test_no_annotation_where_one_should_be(tmp_path, kind):
    folder = folder_with(tmp_path, GOOD)
    path = folder / "Annotations" / "bad.xml"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    reader = VOCReader(folder, 3, (30, 40), epochs=1, on_error="skip")
    assert only_batch(reader).size == 2
    ((key, reason),) = reader.errors
    assert key == "bad.jpg" and str(path) in reason


def test_a_picture_that_is_missing(tmp_path):
    folder = folder_with(tmp_path, GOOD)
    (folder / "JPEGImages" / "bad.jpg").unlink()
    with (
        Pipeline([VOCReader(folder, 3, (30, 40))]) as pipeline,
        pytest.raises(ReadError, match=r"JPEGImages/bad.jpg .*No such file"),
    ):
        pipeline.dequeue()


def test_a_picture_that_is_damaged_has_its_own_error(tmp_path):
    folder = folder_with(tmp_path, annotation(thing(), size=(1, 1)))
    (folder / "JPEGImages" / "bad.jpg").write_bytes(b"no picture")
    with (
        Pipeline([VOCReader(folder, 3, (30, 40))]) as pipeline,
        pytest.raises(DecodeError, match=r"JPEGImages/bad.jpg is no picture"),
    ):
        pipeline.dequeue()


def boxes_of(tmp_path, text, **options):
    reader = VOCReader(voc_folder(tmp_path, {"a": text}), 1, (60, 80), fit=Stretch(), epochs=1, **options)
    batch = only_batch(reader)
    assert reader.errors == []
    assert batch.boxes.dtype == np.float32 and batch.boxes.shape == (len(batch.labels), 4)
    assert batch.labels.dtype == np.int64 and batch.difficult.dtype == batch.truncated.dtype == bool
    return batch.boxes.tolist()


def test_one_based_and_inclusive(tmp_path):
    assert boxes_of(tmp_path / "a", annotation(thing(box=(1, 1, 80, 60)))) == [[0, 0, 80, 60]]
    assert boxes_of(tmp_path / "b", annotation(thing(box=(5, 7, 5, 7)))) == [[4, 6, 5, 7]]
    assert boxes_of(tmp_path / "c", annotation(thing(box=(0, 0, 80, 60))), one_based=False) == [
        [0, 0, 80, 60]
    ]
    assert boxes_of(tmp_path / "d", annotation(thing(box=(2.5, 3, 9.25, 8)))) == [[1.5, 2, 9.25, 8]]


def test_what_is_outside_is_clipped(tmp_path):
    things = [
        thing(box=box)
        for box in ((-20, 11, 20, 9999), ("1e30", 1, "1e35", 5), (0, 0, 81, 61), (90, 1, 99, 9))
    ]
    assert boxes_of(tmp_path, annotation(*things)) == [[0, 10, 20, 60], [0, 0, 80, 60]]


def test_without_area_is_left_out(tmp_path):
    things = [thing(box=box) for box in ((5, 5, 5, 9), (5, 5, 9, 5), (5, 5, 9, 9))]
    assert boxes_of(tmp_path, annotation(*things), one_based=False) == [[5, 5, 9, 9]]


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_without_a_size_that_of_the_picture_is_taken(tmp_path, size):
    assert boxes_of(tmp_path, annotation(thing(), size=size)) == [[10, 20, 30, 50]]


@pytest.mark.parametrize("text", [annotation(), "<annotation/>", annotation("<object_/>")])
def test_without_objects(tmp_path, text):
    assert boxes_of(tmp_path, text) == []


def test_parts_are_not_looked_at(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>x</xmin></bndbox></part>"
    assert boxes_of(tmp_path, annotation(thing().replace("</object>", f"{part}</object>"))) == [
        [10, 20, 30, 50]
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "cp1252"])
def test_encodings_as_declared(tmp_path, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + annotation(thing("café"))
    reader = VOCReader(voc_folder(tmp_path, {"a": text.encode(encoding)}), 1, (60, 80), epochs=1)
    assert reader.classes == ["café"] and len(only_batch(reader).boxes) == 1


def test_ten_thousand_boxes(tmp_path):
    rng = np.random.default_rng(0)
    low = rng.integers(1, 40, (10_000, 2))
    boxes = np.concatenate((low, low + rng.integers(0, 20, (10_000, 2))), axis=1)
    text = annotation(*(thing(box=box) for box in boxes.tolist()))
    begin = time.process_time()
    expected = (boxes - (1, 1, 0, 0)).tolist()
    assert boxes_of(tmp_path, text) == expected
    assert time.process_time() - begin < 20


def test_parsed_values():
    found = parse_annotation(
        annotation(thing(), thing("cat", difficult=1, truncated=1), size=(3, 4)).encode()
    )
    assert found == (3, 4, ["dog", "cat"], [(11.0, 21.0, 30.0, 50.0)] * 2, [False, True], [False, True])


@given(st.data())
def test_damaged_files_are_decode_errors_or_sound(data):
    """Whatever is cut out, put in or changed: a DecodeError, or boxes that are in order."""
    text = annotation(thing(difficult=1), thing("cat", (1, 2.5, 3, 4), truncated=0)).encode()
    for _ in range(data.draw(st.integers(1, 4))):
        at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 30))
        piece = data.draw(
            st.binary(max_size=6)
            | st.sampled_from(
                [b"<object>", b"</object>", b"<bndbox/>", b"-9e99", b"nan", b"&#0;", b"&lt;", b"<!--", b"1_0"]
            )
        )
        text = text[:at] + piece + text[at + length :]
    try:
        found = parse_annotation(text)
    except DecodeError:
        return
    assert len(found.names) == len(found.boxes) == len(found.difficult) == len(found.truncated)
    assert all(found.names) and found.height >= 0 and found.width >= 0
    for x0, y0, x1, y1 in found.boxes:
        assert x0 <= x1 and y0 <= y1 and np.isfinite((x0, y0, x1, y1)).all()
