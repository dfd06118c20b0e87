"""ListReader.from_csv and from_jsonl: manifests of pictures with labels, boxes and masks."""

import csv
import json
import os
import pickle

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, photograph
from PIL import Image
from voc_folders import only_batch

from highway.engine import Pipeline
from highway.errors import ArgumentError, DecodeError, EmptyDatasetError, ReadError, SignatureError
from highway.modules import Augmentations, ImageFileReader, ListReader
from highway.transforms import FlipX, Letterbox, RandomResizedCrop

IN_ORDER = {"epochs": 1, "shuffle": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photos"), classes=3, each=4)


@pytest.fixture(scope="module")
def keys(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg"))


def write_csv(path, header, rows, **form):
    with open(path, "w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        csv.writer(file, **form).writerows([header, *rows])
    return path


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def manifest(form, path, header, rows):
    if form == "csv":
        return ListReader.from_csv, write_csv(path, header, rows)
    return ListReader.from_jsonl, write_jsonl(path, [dict(zip(header, row, strict=True)) for row in rows])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_same_as_from_a_folder(folder, keys, tmp_path, form):
    read, path = manifest(form, tmp_path / "m", ["path", "class"], [(key, key.split("/")[0]) for key in keys])
    options = {"fit": RandomResizedCrop(), "seed": 5, "epochs": 2, "shard": (1, 2)}
    flips = Augmentations([FlipX()])
    mine = read(path, 4, (24, 32), root=folder, **options)
    theirs = ImageFileReader(folder, 4, (24, 32), **options)
    assert mine.classes == theirs.classes
    with Pipeline([mine, flips]) as one, Pipeline([theirs, flips]) as other:
        for batch, expected in zip(one.forever(), other.forever(), strict=True):
            assert batch.keys == expected.keys and batch.indices.tolist() == expected.indices.tolist()
            np.testing.assert_array_equal(batch.images, expected.images)
            np.testing.assert_array_equal(batch.labels, expected.labels)


def test_paths_begin_at_the_manifest_unless_root_says_else(folder, keys, tmp_path, monkeypatch):
    beside = write_csv(folder / "list.csv", ["path", "class"], [(keys[0], "a")])
    assert only_batch(ListReader.from_csv(beside, 1, (8, 8), **IN_ORDER)).keys == [keys[0]]
    monkeypatch.chdir(folder)
    assert only_batch(ListReader.from_csv("list.csv", 1, (8, 8), **IN_ORDER)).keys == [keys[0]]
    whole = str(folder / keys[1])
    away = write_csv(tmp_path / "list.csv", ["path", "class"], [(keys[0], "a"), (whole, "b")])
    reader = ListReader.from_csv(away, 2, (8, 8), root=folder, **IN_ORDER)
    assert only_batch(reader).keys == [keys[0], whole]
    moved = ListReader.from_csv(away, 2, (8, 8), root=tmp_path, **IN_ORDER)
    assert moved.fingerprint() == reader.fingerprint()
    with pytest.raises(ReadError, match=r"class0/0\.jpg"):
        only_batch(moved)


def test_equal_readers_and_pickles(folder, keys, tmp_path):
    path = write_csv(tmp_path / "m.csv", ["path", "class"], [(key, key[:6]) for key in keys])
    reader = ListReader.from_csv(path, 4, (8, 8), root=folder)
    assert ListReader.from_csv(path, 4, (8, 8), root=folder) == reader
    os.unlink(path)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy == reader and copy.fingerprint() == reader.fingerprint() and copy.classes == reader.classes


@pytest.mark.parametrize(
    "values, dtype, expected",
    [
        (["3", "-1", "+2"], np.int64, [3, -1, 2]),
        (["3", "-1.5", "2e3"], np.float32, [3, -1.5, 2000]),
        (["b", "7", "a"], np.int64, [2, 0, 1]),
        (["1_0", "a", "b"], np.int64, [0, 1, 2]),
    ],
)
def test_labels_of_csv(folder, keys, tmp_path, values, dtype, expected):
    path = write_csv(tmp_path / "m.csv", ["path", "class"], zip(keys[:3], values, strict=True))
    labels = only_batch(ListReader.from_csv(path, 3, (8, 8), root=folder, **IN_ORDER)).labels
    assert labels.dtype == dtype and labels.tolist() == expected


def test_classes_that_are_numbers(folder, keys, tmp_path):
    path = write_csv(tmp_path / "m.csv", ["path", "class"], [(keys[0], "20"), (keys[1], "3")])
    options = {"root": folder, **IN_ORDER}
    named = ListReader.from_csv(path, 2, (8, 8), classes=["3", "20"], **options)
    assert only_batch(named).labels.tolist() == [1, 0]
    with pytest.raises(ArgumentError, match="labels run from 3 to 20; expected 0 to 1"):
        ListReader.from_csv(path, 2, (8, 8), classes=["a", "b"], **options)
    wrong = write_csv(tmp_path / "m.csv", ["path", "class"], [(keys[0], "x")])
    with pytest.raises(ArgumentError, match=r"line 2: 'class' is 'x'; expected one of the classes: a, b$"):
        ListReader.from_csv(wrong, 2, (8, 8), classes=["a", "b"], **options)


def test_several_columns_are_targets(folder, keys, tmp_path):
    rows = [(key, number, number / 4) for number, key in enumerate(keys[:3])]
    for form in ("csv", "jsonl"):
        read, path = manifest(form, tmp_path / form, ["path", "x", "y"], rows)
        labels = only_batch(read(path, 3, (8, 8), label=["x", "y"], root=folder, **IN_ORDER)).labels
        assert labels.dtype == np.float32 and labels.tolist() == [[0, 0], [1, 0.25], [2, 0.5]]
        assert list(only_batch(read(path, 3, (8, 8), label=None, root=folder, **IN_ORDER)).fields) == [
            "images"
        ]


def test_several_classes_of_a_picture(folder, keys, tmp_path):
    options = {"root": folder, **IN_ORDER}
    expected = [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    sets = [["b"], ["c", "a", "b"], []]
    table = write_csv(
        tmp_path / "m.csv",
        ["path", "class"],
        [(key, ";".join(one)) for key, one in zip(keys, sets, strict=False)],
    )
    lines = write_jsonl(
        tmp_path / "m.jsonl", [{"path": key, "class": one} for key, one in zip(keys, sets, strict=False)]
    )
    for reader in (
        ListReader.from_csv(table, 3, (8, 8), separator=";", **options),
        ListReader.from_jsonl(lines, 3, (8, 8), **options),
        ListReader(keys[:3], sets, 3, (8, 8), **options),
    ):
        labels = only_batch(reader).labels
        assert (
            labels.dtype == np.float32 and labels.tolist() == expected and reader.classes == ["a", "b", "c"]
        )
    reader = ListReader.from_csv(table, 3, (8, 8), separator=";", classes=["c", "b", "a", "z"], **options)
    assert only_batch(reader).labels.tolist() == [[0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    for read, path, more in (
        (ListReader.from_csv, table, {"separator": ";"}),
        (ListReader.from_jsonl, lines, {}),
    ):
        with pytest.raises(
            ArgumentError, match=r"line [23]: 'class' is 'c'; expected one of the classes: a, b$"
        ):
            read(path, 3, (8, 8), classes=["a", "b"], **more, **options)
    with pytest.raises(ArgumentError, match=r"labels\[1\]\[0\] is 'c'; expected one of the classes: a, b$"):
        ListReader(keys[:3], sets, 3, (8, 8), classes=["a", "b"])
    with pytest.raises(ArgumentError, match=r"labels\[1\]\[1\] is 4; expected names"):
        ListReader(keys[:2], [["a"], ["a", 4]], 3, (8, 8))


def test_labels_of_jsonl(folder, keys, tmp_path):
    def labels(values, **more):
        rows = [{"path": key, "class": value} for key, value in zip(keys, values, strict=False)]
        path = write_jsonl(tmp_path / "m.jsonl", rows)
        reader = ListReader.from_jsonl(path, len(rows), (8, 8), root=folder, **more, **IN_ORDER)
        return only_batch(reader).labels

    assert labels([2, 0]).tolist() == [2, 0] and labels([2, 0]).dtype == np.int64
    assert labels([2, 0.5]).tolist() == [2, 0.5] and labels([2, 0.5]).dtype == np.float32
    assert labels(["10", "9"]).tolist() == [0, 1]
    assert labels([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert labels([{"id": 3}, {"id": 4}], label="class.id").tolist() == [3, 4]
    for values, message in (
        ([1, "a"], r"line 2: 'class' is 'a'; expected .*of one kind in all lines \(numbers in line 1\)"),
        ([None, 1], r"line 1: 'class' is None"),
        ([True, 1], r"line 1: 'class' is True"),
        ([float("nan")], r"line 1: 'class' is nan; expected a finite number"),
        ([[1], [1, 2]], r"line 2: 'class' has 2 numbers, and 1 in line 1"),
        ([[1], ["a"]], r"line 2: 'class' is 'a'; expected a number"),
    ):
        with pytest.raises(ArgumentError, match=message):
            labels(values)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("boxes")
    for number in range(3):
        (root / f"{number}.jpg").write_bytes(jpeg_bytes(photograph(50, 100, number)))
        Image.fromarray(np.full((50, 100), number + 1, np.uint8)).save(root / f"{number}.png")
    return root


SIDES = ["xmin", "ymin", "xmax", "ymax"]


def check_boxes(reader):
    batch = only_batch(reader)
    assert isinstance(reader.fit, Letterbox) and batch.keys == ["0.jpg", "1.jpg", "2.jpg"]
    assert batch.offsets.tolist() == [0, 2, 2, 3] and batch.labels.tolist() == [1, 0, 1]
    assert batch.boxes.tolist() == [[0, 50, 100, 150], [20, 70, 200, 90], [20, 90, 60, 130]]
    assert reader.classes == ["cat", "dog"]
    return batch


@pytest.mark.parametrize("xywh", [False, True])
def test_boxes(pictures, tmp_path, xywh):
    boxes = [[(0, 0, 50, 50), (10, 10, 100, 20)], [], [(10, 20, 30, 40)]]
    if xywh:
        boxes = [[(x, y, right - x, bottom - y) for x, y, right, bottom in one] for one in boxes]
    names = [["dog", "cat"], [], ["dog"]]
    options = {"root": pictures, "box_format": "xywh" if xywh else "xyxy", **IN_ORDER}
    rows = [
        ("0.jpg", "dog", *boxes[0][0]),
        ("1.jpg", "", "", "", "", ""),
        ("2.jpg", "dog", *boxes[2][0]),
        ("0.jpg", "cat", *boxes[0][1]),
    ]
    table = write_csv(tmp_path / "m.csv", ["path", "class", *SIDES], rows)
    check_boxes(ListReader.from_csv(table, 3, (200, 200), boxes=SIDES, **options))
    one_each = [dict(zip(["path", "class", *SIDES], row, strict=True)) for row in rows]
    for name in one_each[1].keys() - {"path"}:
        one_each[1][name] = None
    lines = write_jsonl(tmp_path / "m.jsonl", one_each)
    check_boxes(ListReader.from_jsonl(lines, 3, (200, 200), boxes=SIDES, **options))
    nested = [
        {"file": f"{number}.jpg", "objects": {"bbox": boxes[number], "category": names[number]}}
        for number in range(3)
    ]
    lines = write_jsonl(tmp_path / "nested.jsonl", nested)
    check_boxes(
        ListReader.from_jsonl(
            lines,
            3,
            (200, 200),
            image="file",
            label="objects.category",
            boxes="objects.bbox",
            **options,
        )
    )
    alone = ListReader.from_csv(table, 3, (200, 200), label=None, boxes=SIDES, **options)
    assert list(only_batch(alone).fields) == ["images", "boxes"]


def test_masks(pictures, tmp_path):
    path = write_csv(
        tmp_path / "m.csv", ["path", "mask"], [(f"{number}.jpg", f"{number}.png") for number in range(3)]
    )
    reader = ListReader.from_csv(path, 3, (50, 50), label=None, masks="mask", root=pictures, **IN_ORDER)
    masks = only_batch(reader).masks
    assert [np.unique(mask).tolist() for mask in masks] == [[1], [2], [3]]


@pytest.mark.parametrize(
    "text, encoding",
    [
        ("path,class\r\nclass0/0.jpg,a\r\nclass0/1.jpg,b\r\n", "utf-8"),
        ("path,class\nclass0/0.jpg,a\nclass0/1.jpg,b", "utf-8-sig"),
        ("path,class\r\nclass0/0.jpg,a\r\nclass0/1.jpg,b\r\n", "utf-16"),
        ('\n\npath,"class"\n\n"class0/0.jpg","a"\n\n\nclass0/1.jpg,b\n\n', "utf-8"),
        ('other,path,class\n"x, ""y""\nz",class0/0.jpg,a\n,class0/1.jpg,b\n', "utf-8"),
    ],
)
def test_forms_of_csv(folder, tmp_path, text, encoding):
    (tmp_path / "m.csv").write_bytes(text.encode(encoding))
    batch = only_batch(ListReader.from_csv(tmp_path / "m.csv", 2, (8, 8), root=folder, **IN_ORDER))
    assert batch.keys == ["class0/0.jpg", "class0/1.jpg"] and batch.labels.tolist() == [0, 1]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(folder, keys, tmp_path, delimiter):
    rows = [(keys[0], "a"), (keys[1], "b, c")]
    path = write_csv(tmp_path / "m.csv", ["path", "class"], rows, delimiter=delimiter)
    for given in (delimiter, None):
        reader = ListReader.from_csv(path, 2, (8, 8), root=folder, delimiter=given, **IN_ORDER)
        assert reader.classes == ["a", "b, c"] and only_batch(reader).keys == keys[:2]
    if delimiter != ",":
        with pytest.raises(ArgumentError, match=r"has no column 'path'.* delimiter= is the character"):
            ListReader.from_csv(path, 2, (8, 8), root=folder)
    else:
        with pytest.raises(ArgumentError, match="has no column 'x'") as caught:
            ListReader.from_csv(path, 2, (8, 8), root=folder, image="x")
        assert "delimiter=" not in str(caught.value)


def test_repeated_rows_are_repeated_samples(folder, keys, tmp_path):
    path = write_csv(tmp_path / "m.csv", ["path", "class"], [(keys[0], "a"), (keys[0], "a"), (keys[0], "b")])
    batch = only_batch(ListReader.from_csv(path, 3, (8, 8), root=folder, **IN_ORDER))
    assert batch.keys == [keys[0]] * 3 and batch.labels.tolist() == [0, 0, 1]


def test_missing_pictures_are_bad_samples(folder, keys, tmp_path):
    path = write_csv(
        tmp_path / "m.csv", ["path", "class"], [(keys[0], "a"), ("gone.jpg", "b"), (keys[1], "c")]
    )
    reader = ListReader.from_csv(path, 3, (8, 8), root=folder, on_error="skip", **IN_ORDER)
    assert only_batch(reader).labels.tolist() == [0, 2]
    ((key, reason),) = reader.errors
    assert key == "gone.jpg" and str(folder / "gone.jpg") in reason
    with pytest.raises(ReadError, match=r"^ListReader: .*gone\.jpg"):
        only_batch(ListReader.from_csv(path, 3, (8, 8), root=folder, **IN_ORDER))


@pytest.mark.parametrize(
    "text, options, error, message",
    [
        ("", {}, EmptyDatasetError, "is empty; expected a line with the names"),
        ("\n\n", {}, EmptyDatasetError, "is empty"),
        ("path,class\n\n", {}, EmptyDatasetError, "has no samples"),
        (
            "paths,class\na,b\n",
            {},
            ArgumentError,
            "no column 'path' .*it has 'paths', 'class'; did you mean 'paths'",
        ),
        (
            "path,class\na,b\n",
            {"label": "label"},
            ArgumentError,
            "no column 'label' .*it has 'path', 'class'",
        ),
        ("path,class,path\na,b,c\n", {}, ArgumentError, "2 columns 'path'; expected one"),
        ("path,class\na,b,c\n", {}, DecodeError, "line 2: 3 fields; expected 2"),
        ("path,class\na,b\nc\n", {}, DecodeError, "line 3: 1 fields; expected 2"),
        ('path,class\n"a,b\n', {}, DecodeError, "line 2: not CSV: unexpected end"),
        ('path,class\n"a"x,b\n', {}, DecodeError, "line 2: not CSV"),
        ("path,class\na,b\n,c\n", {}, ArgumentError, "line 3: 'path' is ''; expected a path"),
        ("path,class\na,b\nc,\n", {}, ArgumentError, "line 3: 'class' is empty"),
        ("path,class\na,b;;c\n", {"separator": ";"}, ArgumentError, "line 2: 'class' has an empty name"),
        (
            "path,x,y\na,1,2\nb,c,3\n",
            {"label": ["x", "y"]},
            ArgumentError,
            "line 3: 'x' is 'c'; expected a number",
        ),
        ("path,x,y\na,1,nan\n", {"label": ["x", "y"]}, ArgumentError, "line 2: 'y' is 'nan'"),
        ("path,a,b,c,d\np,1,2,,4\n", {"label": None, "boxes": "abcd"}, ArgumentError, "boxes is 'abcd'"),
        (
            "path,a,b,c,d\np,1,2,,4\n",
            {"label": None, "boxes": [*"abcd"]},
            ArgumentError,
            "line 2: 'c' is empty",
        ),
        ("path,a,b,c,d\np,1,2,x,4\n", {"label": None, "boxes": [*"abcd"]}, ArgumentError, "line 2: .*is 'x'"),
        (
            "path,a,b,c,d\np,9,2,3,4\n",
            {"label": None, "boxes": [*"abcd"]},
            ArgumentError,
            "line 2: the box .*xywh",
        ),
        (f"path,class\na,1\nb,{'9' * 5000}\n", {}, ArgumentError, "line 3: 'class' is '9999.* of 64 bits"),
        ("path,class\na,b\n", {"separator": ""}, ArgumentError, "separator is ''"),
        ("path,class\na,b\n", {"delimiter": "ab"}, ArgumentError, "delimiter is 'ab'"),
        ("path,class;x\na,b\n", {"delimiter": None}, DecodeError, "several delimiters"),
        ("path,class\na,b\n", {"label": []}, ArgumentError, r"label is \[\]"),
        ("path,class\na,b\n", {"label": 5}, ArgumentError, "label is 5"),
        ("path,class\na,b\n", {"boxes": 5}, ArgumentError, "boxes is 5"),
        ("path,class\na,b\n", {"image": None}, ArgumentError, "image is None"),
        ("path,class\na,b\n", {"masks": 5}, ArgumentError, "masks is 5"),
        ("path,class\na,b\n", {"box_format": "cxcywh"}, ArgumentError, "box_format is 'cxcywh'"),
        ("path,class\na,b\n", {"shufle": True}, TypeError, "unknown argument 'shufle'"),
    ],
)
def test_wrong_csv(tmp_path, text, options, error, message):
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message) as raised:
        ListReader.from_csv(tmp_path / "m.csv", 2, (8, 8), **options)
    assert str(raised.value).startswith(("ListReader: ", "ListReader.from_"))


@pytest.mark.parametrize(
    "text, options, error, message",
    [
        ("\n", {}, EmptyDatasetError, "has no samples"),
        ('{"path": "a", "class": 1}\n{"path": \n', {}, DecodeError, "line 2: not JSON"),
        ("[1]\n", {}, DecodeError, "line 1: a list; expected an object"),
        ('{"file": "a", "class": 1}\n', {"image": "files"}, ArgumentError, "'files' .*did you mean 'file'"),
        ('{"path": 3, "class": 1}\n', {}, ArgumentError, "line 1: 'path' is 3; expected a path"),
        (
            '{"path": "a", "b": [[1, 2, 3, 1' + "0" * 400 + "]]}\n",
            {"label": None, "boxes": "b"},
            ArgumentError,
            "line 1: 'b' is 10",
        ),
        ('{"path": "a", "class": ' + "9" * 5000 + "}\n", {}, DecodeError, "line 1: not JSON"),
        ('{"path": "a", "o": {"b": 1}}\n', {"label": "o.c"}, ArgumentError, "no column 'o.c' .*it has 'b'"),
        ('{"path": "a", "b": [1, 2, 3, 4]}\n', {"label": None, "boxes": "b"}, ArgumentError, "list of boxes"),
        (
            '{"path": "a", "b": [[1, 2, 3, "4"]]}\n',
            {"label": None, "boxes": "b"},
            ArgumentError,
            "'b' is '4'",
        ),
        (
            '{"path": "a", "class": [1], "b": []}\n',
            {"boxes": "b"},
            ArgumentError,
            "a list of 0, a label for each",
        ),
    ],
)
def test_wrong_jsonl(tmp_path, text, options, error, message):
    (tmp_path / "m.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message) as raised:
        ListReader.from_jsonl(tmp_path / "m.jsonl", 2, (8, 8), **options)
    assert str(raised.value).startswith(("ListReader: ", "ListReader.from_"))


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(b"path,class\n\xe9.jpg,a\n")
    for delimiter in (",", None):
        with pytest.raises(DecodeError, match=r"m\.csv' is not UTF-8: byte 0xe9; expected UTF-8"):
            ListReader.from_csv(path, 2, (8, 8), delimiter=delimiter)
    with pytest.raises(DecodeError, match="is not UTF-8"):
        ListReader.from_jsonl(path, 2, (8, 8))
    path.write_bytes(b"path,class\na,%s\n" % (b"x" * 200_000))
    with pytest.raises(DecodeError, match="line 2: not CSV: field larger"):
        ListReader.from_csv(path, 2, (8, 8))
    with pytest.raises(ReadError, match=r"^ListReader: .*nothing\.csv cannot be read"):
        ListReader.from_csv(tmp_path / "nothing.csv", 2, (8, 8))
    with pytest.raises(ReadError, match="is no regular file"):
        ListReader.from_csv(tmp_path, 2, (8, 8))


@pytest.mark.parametrize("make", [ListReader.from_csv, ListReader.from_jsonl])
def test_unknown_arguments_are_explained_before_the_file_is_read(make):
    name = make.__name__
    with pytest.raises(
        SignatureError, match=rf"ListReader\.{name}: unknown argument 'lable'.*'label'"
    ) as error:
        make("gone", 4, (8, 8), lable="class")
    listed = str(error.value).partition("the arguments are")[2]
    assert "image='path'" in listed and "exif=True" in listed and "path, batch_size, shape" in listed
    assert ("delimiter" in listed) == (name == "from_csv")
    assert "labels" not in listed and "pairs" not in listed
    with pytest.raises(SignatureError, match="unknown argument 'labels'"):
        make("gone", 4, (8, 8), labels=[0])
