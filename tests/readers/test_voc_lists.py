"""Folders of VOC as people write them: names in lists, layouts, endings, and what is skipped."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image
from voc_folders import annotation, only_batch, thing, voc_folder

from highway.engine import Pipeline
from highway.errors import ArgumentError, DatasetError, ReadError
from highway.modules import VOCReader

GOOD = annotation(thing())


def keys_of(folder, **options):
    options = {"shuffle": False, "epochs": 1, **options}
    return only_batch(VOCReader(folder, 99, (20, 20), **options)).keys


def listed(folder, contents):
    """Write the list "train"."""
    path = folder / "ImageSets/Main/train.txt"
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return folder


def move(folder, part, name, to):
    (folder / part / to).parent.mkdir(parents=True, exist_ok=True)
    (folder / part / name).rename(folder / part / to)


# Names in lists


def test_names_that_end_in_numbers(tmp_path):
    names = ["photo", "photo 0", "photo 1", "photo -1", "photo 2", "lone 1"]
    folder = voc_folder(tmp_path, {name: annotation(thing(name)) for name in names})
    assert keys_of(folder) == [f"{name}.jpg" for name in names]
    # A line of a list of one class, where no file has all of it as its name.
    lines = {"photo  1": "photo", "photo\t1": "photo", "photo 1  1": "photo 1", "photo 2 -1": "photo 2"}
    listed(folder, "\n".join(lines))
    assert keys_of(folder) == [f"{name}.jpg" for name in lines.values()]
    batch = only_batch(VOCReader(folder, 9, (20, 20), shuffle=False, epochs=1))
    classes = VOCReader(folder, 9, (20, 20)).classes
    assert [classes[label] for label in batch.labels] == [*lines.values()]


def test_a_name_with_a_number_of_which_there_is_only_the_picture_or_the_annotation(tmp_path):
    folder = voc_folder(tmp_path, dict.fromkeys(("photo", "photo 1", "photo 0"), GOOD))
    (folder / "JPEGImages/photo 1.jpg").unlink()
    (folder / "Annotations/photo 0.xml").unlink()
    listed(folder, "photo 1\nphoto 0\nphoto\n")
    reader = VOCReader(folder, 3, (20, 20), shuffle=False, epochs=1, on_error="skip")
    assert only_batch(reader).keys == ["photo.jpg"]
    assert sorted(key for key, _ in reader.errors) == ["photo 0.jpg", "photo 1.jpg"]


FORMS = [
    *("{}.jpg", "{}.xml", "{}.JPG", "{}.png", "./{}", "./{}.jpg", "JPEGImages/{}.jpg", "Annotations/{}.xml"),
    *("VOC2012/JPEGImages/{}.jpg", "/mnt/elsewhere/VOC2012/JPEGImages/{}.jpg", "../JPEGImages/{}.jpg"),
    *(".\\{}.jpg", "JPEGImages\\{}.jpg", "C:\\data\\VOC\\Annotations\\{}.xml", "JPEGImages//{}", "{}.jpg 1"),
    *("./{} -1", "JPEGImages/{}  0"),
]


@pytest.mark.parametrize("form", FORMS)
def test_names_with_endings_and_folders(tmp_path, form):
    folder = voc_folder(tmp_path, {"a": GOOD, "b": GOOD})
    assert keys_of(listed(folder, f"b\n{form.format('a')}\n")) == ["b.jpg", "a.jpg"]
    move(folder, "JPEGImages", "a.jpg", "sub/two words.jpg")
    move(folder, "Annotations", "a.xml", "sub/two words.xml")
    for name in ("sub/two words", "sub\\two words"):
        assert keys_of(listed(folder, f"b\n{form.format(name)}\n")) == ["b.jpg", "sub/two words.jpg"]


def test_absolute_names_below_the_folder(tmp_path):
    folder = voc_folder(tmp_path, {"a": GOOD})
    (folder / "JPEGImages").rename(folder / "x")
    assert (
        keys_of(listed(folder, f"{folder}/x/a.jpg\n{folder}/Annotations/a.xml"), images="x") == ["a.jpg"] * 2
    )


def test_an_ending_says_which_of_two_pictures(tmp_path):
    folder = voc_folder(tmp_path, {"a": GOOD, "a.jpg": GOOD, "dotted.name": GOOD})
    Image.new("RGB", (80, 60)).save(folder / "JPEGImages/a.png")
    assert keys_of(listed(folder, "a.png\na\ndotted.name")) == ["a.png", "a.jpg", "dotted.name.jpg"]
    # The name of a sample may look like one with an ending.
    assert keys_of(listed(folder, "a.jpg\na.jpg.jpg")) == ["a.jpg.jpg"] * 2


@pytest.mark.parametrize("of_list", ["NFC", "NFD"])
@pytest.mark.parametrize("of_picture", ["NFC", "NFD"])
@pytest.mark.parametrize("of_annotation", ["NFC", "NFD"])
def test_normalizations_of_unicode(tmp_path, of_list, of_picture, of_annotation):
    def name(form):
        return unicodedata.normalize(form, "Müller é")

    folder = voc_folder(tmp_path, {"plain": GOOD, "x": annotation(thing("cat"))})
    move(folder, "JPEGImages", "x.jpg", f"{name(of_picture)}.jpg")
    move(folder, "Annotations", "x.xml", f"{name(of_annotation)}.xml")
    for line in ("{}", "{}.jpg", "JPEGImages/{}.jpg", "{} 1"):
        listed(folder, "plain\n" + line.format(name(of_list)))
        assert keys_of(folder) == ["plain.jpg", f"{name(of_picture)}.jpg"]
    assert keys_of(folder, split=None) == [f"{name(of_picture)}.jpg", "plain.jpg"]


def test_two_files_that_normalize_to_the_same_are_two(tmp_path):
    names = [unicodedata.normalize(form, "ü") for form in ("NFC", "NFD")]
    folder = voc_folder(tmp_path, {names[0]: annotation(thing("a")), names[1]: annotation(thing("b"))})
    reader = VOCReader(folder, 2, (20, 20), shuffle=False, epochs=1)
    batch = only_batch(reader)
    assert batch.keys == [f"{name}.jpg" for name in names] and batch.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "contents",
    [
        b"\xef\xbb\xbfb\r\n\r\n \t a\t \r\n",
        b"b\ra\r",
        b"# the list of 2012\nb\n#\n\n#\tmore\na",
        "b\r\na\r\n".encode("utf-16"),
        b"\xfe\xff" + "b\na".encode("utf-16-be"),
    ],
)
def test_lists_as_editors_write_them(tmp_path, contents):
    folder = voc_folder(tmp_path, {"a": GOOD, "b": GOOD})
    assert keys_of(listed(folder, contents)) == ["b.jpg", "a.jpg"]


def test_names_that_begin_with_a_hash(tmp_path):
    folder = voc_folder(tmp_path, {"#1": GOOD, "# 2": GOOD})
    assert keys_of(listed(folder, "#1\n# 2")) == ["#1.jpg", "# 2.jpg"]
    with (
        Pipeline([VOCReader(listed(folder, "#1\n#3"), 2, (20, 20))]) as pipeline,
        pytest.raises(ReadError, match="#3"),
    ):
        pipeline.dequeue()


def test_names_more_than_once_are_told(tmp_path, caplog):
    folder = voc_folder(tmp_path, {"a": GOOD, "b": GOOD})
    assert keys_of(listed(folder, "a\nb\na.jpg\n./a")) == ["a.jpg", "b.jpg", "a.jpg", "a.jpg"]
    (text,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "train.txt names 1 samples more than once, the first is a.jpg" in text


@pytest.mark.parametrize("line", ["c", "sub/a", "other/a.jpg", "c 1", "/c.jpg", "A", "a.b"])
def test_a_name_of_nothing_is_a_bad_sample(tmp_path, line):
    """No file of another folder, or of a similar name, is taken for it."""
    folder = listed(voc_folder(tmp_path, {"a": GOOD, "b": GOOD}), f"b\n{line}\n")
    reader = VOCReader(folder, 2, (20, 20), epochs=1, on_error="skip")
    assert only_batch(reader).keys == ["b.jpg"]
    ((key, reason),) = reader.errors
    assert "No such file" in reason and line.removesuffix(" 1").removesuffix(".jpg") in key


def test_lists_elsewhere(tmp_path):
    folder = voc_folder(tmp_path, {"a": GOOD, "b": GOOD})
    (folder / "ImageSets/flat.txt").write_text("b")
    (folder / "lists").mkdir()
    (folder / "lists/mine.txt").write_text("a")
    (tmp_path / "far.txt").write_text("b\na")
    assert keys_of(folder, split="flat") == ["b.jpg"]
    assert keys_of(folder, split="lists/mine.txt") == ["a.jpg"]
    assert keys_of(folder, split=str(tmp_path / "far.txt")) == ["b.jpg", "a.jpg"]
    with pytest.raises(DatasetError, match=r"split is 'lists/none.txt'.*it has flat, train"):
        VOCReader(folder, 1, (20, 20), split="lists/none.txt")


# Layouts


@pytest.mark.parametrize("around", ["VOC[2012]", "VOCdevkit/VOC2012"])
def test_a_folder_around_the_set(tmp_path, around):
    voc_folder(tmp_path / around, {"a": GOOD})
    (tmp_path / around.partition("/")[0] / "notes").mkdir()
    with pytest.raises(DatasetError) as caught:
        VOCReader(tmp_path, 1, (20, 20))
    assert str(caught.value).endswith(f"; {str(tmp_path / around)!r} is such a folder")


def test_folders_of_other_names(tmp_path):
    folder = voc_folder(tmp_path / "set", {"a": GOOD, "b": GOOD})
    (folder / "JPEGImages").rename(folder / "images")
    (folder / "Annotations").rename(tmp_path / "labels")
    with pytest.raises(
        DatasetError, match=r"Annotations' cannot be listed.*images= and annotations="
    ) as caught:
        VOCReader(folder, 1, (20, 20))
    assert "is such a folder" not in str(caught.value)
    for images, annotations in (("images", tmp_path / "labels"), (b"images/", "../labels")):
        assert keys_of(folder, images=images, annotations=annotations) == ["a.jpg", "b.jpg"]
        assert keys_of(folder, images=images, annotations=annotations, split=None) == ["a.jpg", "b.jpg"]


def flat_folder(tmp_path, names="ab"):
    made = voc_folder(tmp_path / "made", dict.fromkeys(names, GOOD))
    folder = tmp_path / "flat"
    folder.mkdir()
    for part in ("JPEGImages", "Annotations"):
        for path in (made / part).iterdir():
            path.rename(folder / path.name)
    return folder


def test_pictures_and_annotations_side_by_side(tmp_path, caplog):
    folder = flat_folder(tmp_path)
    options = {"images": ".", "annotations": "."}
    assert keys_of(folder, split=None, **options) == ["a.jpg", "b.jpg"]
    (folder / "train.txt").write_text("b\n./a.jpg\n")
    assert keys_of(folder, split="train.txt", **options) == ["b.jpg", "a.jpg"]
    # Further folders are gone into, but not those of other use.
    for part in ("sub", "SegmentationClass", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    (folder / "a.jpg").rename(folder / "sub/c.jpg")
    (folder / "a.xml").rename(folder / "sub/c.xml")
    Image.new("L", (80, 60)).save(folder / "SegmentationClass/b.png")
    (folder / "ImageSets/Main/val.txt").write_text("sub/c")
    assert keys_of(folder, split="val", **options) == ["sub/c.jpg"]
    reader = VOCReader(folder, 2, (20, 20), split=None, masks=True, shuffle=False, epochs=1, **options)
    assert str(reader.skipped) == "skipped 1 file: 1 with the ending .txt (train.txt)"
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_pictures_in_the_folder_and_annotations_below(tmp_path):
    folder = flat_folder(tmp_path)
    (folder / "xml").mkdir()
    for name in "ab":
        (folder / f"{name}.xml").rename(folder / f"xml/{name}.xml")
    reader = VOCReader(folder, 2, (20, 20), split=None, images=".", annotations="xml")
    assert reader.size == 2 and len(reader.skipped) == 0


def test_a_folder_of_masks(tmp_path):
    names = ["ü", "b"]
    folder = voc_folder(tmp_path, dict.fromkeys(names, GOOD))
    (folder / "SegmentationObject").mkdir()
    for number, name in enumerate(("u\u0308.PNG", "b.png")):
        mask = Image.fromarray(np.full((60, 80), number + 1, np.uint8))
        mask.save(folder / "SegmentationObject" / name, "PNG")
    for masks in ("SegmentationObject", folder / "SegmentationObject"):
        batch = only_batch(VOCReader(folder, 2, (60, 80), masks=masks, shuffle=False, epochs=1))
        assert batch.masks[:, 30, 40].tolist() == [1, 2]
    with pytest.raises(DatasetError, match=r"none' cannot be listed.*NAME\.png for each picture"):
        VOCReader(folder, 2, (60, 80), masks="none")
    with pytest.raises(ArgumentError, match="masks is of type int"):
        VOCReader(folder, 2, (60, 80), masks=1)


def test_upper_case_endings(tmp_path):
    folder = voc_folder(tmp_path, {"a": annotation(thing("cat")), "b": GOOD})
    for part, ending in (("Annotations", ".XML"), ("JPEGImages", ".JPG")):
        for path in [*(folder / part).iterdir()]:
            path.rename(path.with_suffix(ending))
    assert keys_of(folder) == keys_of(folder, split=None) == ["a.JPG", "b.JPG"]
    assert VOCReader(folder, 1, (20, 20)).classes == ["cat", "dog"]


def test_the_file_name_in_an_annotation_does_not_matter(tmp_path):
    text = GOOD.replace("<folder>", "<filename>b.jpg</filename><folder>")
    folder = voc_folder(tmp_path, {"a": text, "b": annotation(thing("cat"))})
    assert keys_of(folder) == ["a.jpg", "b.jpg"]


def test_links_and_loops(tmp_path):
    folder = voc_folder(tmp_path / "set", {"a": GOOD})
    (tmp_path / "far").mkdir()
    for part in ("JPEGImages", "Annotations"):
        (folder / part / "loop").symlink_to(folder / part)
        os.symlink("self", folder / part / "self")
    (folder / "JPEGImages/far").symlink_to(tmp_path / "far")
    (folder / "Annotations/far").symlink_to(tmp_path / "far")
    for path in (folder / "JPEGImages/a.jpg", folder / "Annotations/a.xml"):
        (tmp_path / "far" / path.with_stem("c").name).write_bytes(path.read_bytes())
    assert keys_of(folder, split=None) == ["a.jpg", "far/c.jpg"]


# What is skipped


def test_what_is_skipped_is_told(tmp_path, caplog):
    folder = voc_folder(tmp_path, dict.fromkeys("abcd", GOOD))
    listed(folder, "a\nb")
    pictures = folder / "JPEGImages"
    for name in ("x.psd", ".hidden.jpg", "Thumbs.db", "notes.txt"):
        (pictures / name).write_bytes(b"x")
    (pictures / "@eaDir").mkdir()
    (pictures / "@eaDir/a.jpg").write_bytes(b"x")
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    (folder / "Annotations/c.xml").unlink()
    (pictures / "d.jpg").unlink()
    (folder / "Annotations/a.json").write_bytes(b"{}")
    reader = VOCReader(folder, 2, (20, 20))
    for said in (
        "skipped 8 files: ",
        "1 with the ending .psd (JPEGImages/x.psd)",
        "1 without an annotation (JPEGImages/c.jpg)",
        "1 without a picture (Annotations/d.xml)",
        "1 with the name of another except for the ending (JPEGImages/a.png)",
        "1 hidden (JPEGImages/.hidden.jpg)",
        "1 of the system (JPEGImages/Thumbs.db)",
        "and 1 folder: 1 of the system (JPEGImages/@eaDir)",
    ):
        assert said in str(reader.skipped)
    assert str(reader.skipped) in repr(reader)
    (text,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert text == f"VOCReader: {folder}/: {reader.skipped}"


def test_nothing_is_skipped(tmp_path, caplog):
    folder = listed(voc_folder(tmp_path, {"a": GOOD, "b": GOOD}), "a")
    # b is not of this split, and nobody misses it.
    reader = VOCReader(folder, 1, (20, 20))
    assert len(reader.skipped) == 0 and ", skipped" not in repr(reader)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_every_picture_is_among_the_samples_or_skipped(tmp_path):
    """With split=None, annotations without a picture are bad samples."""
    folder = voc_folder(tmp_path, dict.fromkeys("abc", GOOD))
    (folder / "JPEGImages/b.jpg").unlink()
    (folder / "Annotations/c.xml").unlink()
    reader = VOCReader(folder, 2, (20, 20), split=None, epochs=1, on_error="skip")
    assert only_batch(reader).keys == ["a.jpg"] and [key for key, _ in reader.errors] == ["b.jpg"]
    assert str(reader.skipped) == "skipped 1 file: 1 without an annotation (JPEGImages/c.jpg)"
