"""Annotations: what is read, what is repaired, and an error that names file and element for everything else."""

import contextlib
import encodings
import os
import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voc_folders import annotation, only_batch, thing, voc_folder

from highway.engine import Pipeline
from highway.errors import DecodeError, ReadError
from highway.modules import VOCReader
from highway.modules.readers.voc.voc_xml import LARGEST_FILE, parse_annotation
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
    "difficult": (annotation(thing(difficult="maybe")), "object 1: <difficult> is 'maybe'; expected 0 or 1"),
    "truncated is no number": (annotation(thing(truncated="nan")), "object 1: <truncated> is 'nan'"),
    "truncated below": (annotation(thing(truncated=-2)), "object 1: <truncated> is '-2'"),
    "two boxes": (
        annotation(thing().replace("</object>", "<BndBox/></object>")),
        "object 1: has <bndbox> 2 times; expected it once",
    ),
    "two names": (annotation(thing().replace("<name>", "<name>cat</name><name>")), "has <name> 2 times"),
    "in an object": (
        annotation(thing().replace("</object>", "<object><name>dog</name></object></object>")),
        "object 2: has no <bndbox>",
    ),
    "truncated": (annotation(thing(truncated=2)), "object 1: <truncated> is '2'"),
    "half a size": (annotation(thing(), size=(0, 80)), "<size> says 0 x 80"),
    "negative size": (annotation(thing(), size=(-60, 80)), "<size>, <height> is '-60'"),
    "size is text": (annotation(thing(), size=("tall", 80)), "<size>, <height> is 'tall'"),
    "size is huge": (annotation(thing(), size=(60, "9" * 5000)), "<size>, <width> is '999"),
    "size is between": (annotation(thing(), size=(60.5, 80)), "<size>, <height> is '60.5'"),
    "size is empty": (GOOD.replace("<width>80</width>", ""), "<size>, <width> is ''"),
    "nothing": ("", "is not XML"),
    "cut": (GOOD[:100], "is not XML"),
    "text": ("no xml", "is not XML"),
    "other tags": (GOOD.replace("</name>", "</nome>"), "is not XML"),
    "other root": ("<html></html>", "holds <html>; expected <annotation>"),
    "wrong encoding": (
        b'<?xml version="1.0" encoding="utf-8"?>' + annotation(thing("caf\xe9")).encode("latin-1"),
        "is not XML in the encoding that it declares",
    ),
    "unknown encoding": ('<?xml version="1.0" encoding="klingon"?>' + GOOD, "is not XML in the encoding"),
    "not in its encoding of several bytes": (
        b'<?xml version="1.0" encoding="gbk"?>' + annotation(thing("\xff\xff")).encode("latin-1"),
        "is not XML in the encoding",
    ),
    "no encoding of files": ('<?xml version="1.0" encoding="rot13"?>' + GOOD, "'rot13': no such encoding"),
    "slow encoding": ('<?xml version="1.0" encoding="punycode"?>' + GOOD, "'punycode': no such encoding"),
    "surrogates": (
        b"\xff\xfe" + annotation(thing("\ud800")).encode("utf-16-le", "surrogatepass"),
        "is not XML in the encoding",
    ),
    "entity bomb": (BOMB, "declares a document type"),
    "entity bomb in UTF-16": (
        BOMB.replace('"1.0"', '"1.0" encoding="utf-16"').encode("utf-16"),
        "document type",
    ),
    **{
        f"entity bomb in {encoding}": (
            BOMB.replace('"1.0"', f'"1.0" encoding="{encoding}"').encode(encoding),
            "document type",
        )
        for encoding in ("utf-7", "utf-32", "cp037", "gb18030", "iso2022_jp")
    },
    "file from outside": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
        "document type",
    ),
    "DTD": ('<!DOCTYPE annotation SYSTEM "http://127.0.0.1/a.dtd"><annotation/>', "document type"),
    "unknown entity": (annotation(thing("dog").replace("dog", "&dog;")), "is not XML"),
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
    reader = VOCReader(folder, 3, (30, 40), classes=["dog"], epochs=1, on_error="skip")
    assert only_batch(reader).size == 2
    ((key, reason),) = reader.errors
    assert key == "bad.jpg" and str(path) in reason
    if kind in ("fifo", "link"):
        with pytest.raises(
            ReadError, match=r"bad\.xml .*classes are found in all 3 annotations .*, and 1 cannot"
        ):
            VOCReader(folder, 3, (30, 40), on_error="skip")
    else:
        # What is not there has no classes.
        assert VOCReader(folder, 3, (30, 40)).classes == ["dog"]


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


ENCODINGS = {
    "utf8": "犬 café",
    "UTF-8": "犬 café",
    "utf_8": "犬 café",
    "utf-8-sig": "犬 café",
    "utf-16": "犬 café",
    "utf-16-le": "犬 café",
    "utf-16-be": "犬 café",
    "utf-32": "犬 café",
    "utf-7": "犬 café",
    "latin-1": "café",
    "iso-8859-1": "café",
    "iso-8859-15": "caf€",
    "cp1252": "caf€",
    "windows-1251": "собака",
    "koi8-r": "собака",
    "mac-roman": "café",
    "gb2312": "猫狗",
    "GBK": "貓",
    "gb18030": "猫 café",
    "big5": "貓",
    "shift_jis": "犬ソ",
    "euc-jp": "犬",
    "iso-2022-jp": "犬",
    "euc-kr": "개",
    "ascii": "dog",
    "cp037": "cafe",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_as_declared(tmp_path, encoding):
    name = ENCODINGS[encoding]
    text = f"<?xml version='1.0' encoding='{encoding}'?>" + annotation(thing(name))
    reader = VOCReader(voc_folder(tmp_path, {"a": text.encode(encoding)}), 1, (60, 80), epochs=1)
    assert reader.classes == [name] and len(only_batch(reader).boxes) == 1


@pytest.mark.parametrize(
    "declared, written, name",
    [
        # What programs write that mean the code page of Windows, and one that names UTF-16 and writes UTF-8.
        ("gb2312", "gbk", "貓"),
        ("gbk", "gb18030", "㐀"),
        ("shift_jis", "cp932", "髙"),
        ("euc-kr", "cp949", "똠"),
        ("utf-16", "utf-8", "猫"),
        ("us-ascii", "utf-8", "猫"),
    ],
)
def test_encodings_that_are_nearly_as_declared(declared, written, name):
    text = f'<?xml version="1.0" encoding="{declared}"?>' + annotation(thing(name))
    assert parse_annotation(text.encode(written)).names == [name]


def test_an_encoding_without_a_declaration():
    text = annotation(thing("犬"))
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"):
        assert parse_annotation(text.encode(encoding)).names == ["犬"]
    # White space in front of a declaration is not allowed, and does no harm.
    assert parse_annotation(f'\n <?xml version="1.0"?>{text}'.encode()).names == ["犬"]


def test_every_encoding_of_python_is_an_annotation_or_an_error():
    for encoding in {*encodings.aliases.aliases.values(), "mbcs", "undefined", "idna"}:
        text = f'<?xml version="1.0" encoding="{encoding}"?>' + GOOD
        contents = [text.encode()]
        with contextlib.suppress(LookupError, UnicodeError):
            contents.append(text.encode(encoding))
        for each in contents:
            with contextlib.suppress(DecodeError):
                assert parse_annotation(each).names == ["dog"]


YES = ("1", "True", "true", "yes", "Y", "t", " 1\n", "1.0", "0.0597", "1e-3")
NO = ("", "0", "False", "no", "N", "Unspecified", "unknown", "None", "-1", "-1.0", "0.0", " 0 ", "\n")


@pytest.mark.parametrize("tag", ["truncated", "difficult"])
def test_flags_as_people_write_them(tag):
    for text in (*YES, *NO):
        found = parse_annotation(annotation(thing(**{tag: text})).encode())
        assert getattr(found, tag) == [text in YES], text


def test_numbers_as_people_write_them():
    sides = "<ymax> 1e1\n</ymax><xmin>1.50</xmin><ymin>+2</ymin><xmax>03</xmax>"
    text = f"<object><name>\n dog\t</name><bndbox>{sides}</bndbox></object>"
    found = parse_annotation(annotation(text, size=("60.0", " 8e1 ")).encode())
    assert found.names == ["dog"] and found.boxes == [(1.5, 2.0, 3.0, 10.0)]
    assert (found.height, found.width) == (60, 80)


def test_objects_wherever_they_are():
    nested = f"<objects>{thing('cat')}<more>{thing('dog')}</more></objects>{thing('ant')}"
    assert parse_annotation(annotation(nested).encode()).names == ["cat", "dog", "ant"]
    within = thing("car").replace("</object>", thing("wheel") + "</object>")
    assert parse_annotation(annotation(within).encode()).names == ["car", "wheel"]


def test_tags_in_any_case_and_namespace():
    text = annotation(thing("Dog", difficult=1)).replace("annotation>", "Annotation>")
    found = parse_annotation(text.replace("object>", "OBJECT>").replace("xmin>", "Xmin>").encode())
    assert found == (60, 80, ["Dog"], [(11.0, 21.0, 30.0, 50.0)], [True], [False])
    spaced = annotation(thing(truncated=1)).replace("<annotation>", '<annotation xmlns="http://x.y/z">', 1)
    assert parse_annotation(spaced.encode()) == (
        *(60, 80, ["dog"], [(11.0, 21.0, 30.0, 50.0)], [False], [True]),
    )


OTHER_SIZES = {"off by one": (61, 81), "swapped": (80, 60), "twice": (120, 160), "square": (60, 60)}


@pytest.mark.parametrize("kind", OTHER_SIZES)
def test_the_size_of_the_file_counts(tmp_path, caplog, kind):
    other = annotation(thing(box=(11, 21, 81, 62)), size=OTHER_SIZES[kind])
    folder = voc_folder(tmp_path, {"a": GOOD, "b": other, "c": other})
    reader = VOCReader(folder, 3, (60, 80), fit=Stretch(), epochs=2, shuffle=False)
    assert len(reader.other_sizes) == 0
    with Pipeline([reader]) as pipeline:
        for _ in range(2):
            batch = pipeline.dequeue()
            # Clipped to the picture.
            assert batch.boxes.tolist() == [[10, 20, 30, 50], [10, 20, 80, 60], [10, 20, 80, 60]]
    assert reader.errors == [] and len(reader.other_sizes) == 2
    assert ", 2 with another <size>)" in repr(reader)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.name == "highway.modules"
    height, width = OTHER_SIZES[kind]
    said = rf"in 2 of .*b\.jpg has 60 x 80 pixels .*b\.xml says {height} x {width}; .*strict=True"
    assert re.search(said, record.getMessage())
    strict = VOCReader(folder, 3, (60, 80), epochs=1, strict=True, on_error="skip")
    assert strict.other_sizes is None and only_batch(strict).keys == ["a.jpg"]
    assert [key for key, _ in strict.errors] and all("expected the same" in text for _, text in strict.errors)


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
