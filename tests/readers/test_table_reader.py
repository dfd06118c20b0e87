"""TableReader: pictures, labels, boxes and fields from the columns of tables of every kind."""

import csv
import errno
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from pictures import class_folders, jpeg_bytes, photograph
from voc_folders import only_batch

from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    DatasetError,
    DecodeError,
    EmptyDatasetError,
    MissingPackageError,
    ReadError,
    StateMismatchError,
    StorageError,
)
from highway.modules import Augmentations, ImageFileReader, ListReader, TableReader
from highway.modules.readers.tables import arrow
from highway.storage import outages
from highway.transforms import FlipX, Letterbox, RandomResizedCrop

IN_ORDER = {"epochs": 1, "shuffle": False}
DRAWN = {"fit": RandomResizedCrop(), "seed": 6}
ROWS = 27
GROUP = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photos"), classes=3, each=ROWS // 3)


@pytest.fixture(scope="module")
def keys(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg"))


@pytest.fixture(scope="module")
def files(folder, keys):
    return [(folder / key).read_bytes() for key in keys]


@pytest.fixture(scope="module")
def table(keys, files):
    return pa.table({"image": files, "label": [key.split("/")[0] for key in keys], "key": keys})


@pytest.fixture(scope="module")
def parquet(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "photos.parquet"
    pq.write_table(table, path, row_group_size=GROUP)
    return path


# Two row groups, of which the largest has up to 10 KB.
WINDOW = 20_000


def windowed(path, batch_size=5, **options):
    reader = TableReader(path, batch_size, (24, 32), **{"key": "key", "window_bytes": WINDOW, **options})
    if options.get("shuffle", True):
        assert reader.order.window in (1, 2), reader
    return reader


def read(reader):
    """Bits and label of every sample, by its key."""
    found = {}
    with Pipeline([reader, Augmentations([FlipX()])]) as pipeline:
        for batch in pipeline:
            for row, key in enumerate(batch.keys):
                assert key not in found
                found[key] = batch.indices[row], batch.images[row].tobytes(), batch.labels[row]
    return found


def with_paths(table, folder):
    return table.set_column(0, "image", [[str(folder / key) for key in table["key"].to_pylist()]])


def with_structs(table):
    images = [{"bytes": one, "path": f"{row}.jpg"} for row, one in enumerate(table["image"].to_pylist())]
    return table.set_column(0, "image", [images])


def parquet_file(table, tmp_path, **options):
    pq.write_table(table, tmp_path / "a.parquet", **options)
    return tmp_path / "a.parquet"


def two_files(table, tmp_path):
    pq.write_table(table[:10], tmp_path / "part-0.parquet", row_group_size=GROUP)
    pq.write_table(table[10:], tmp_path / "part-1.parquet", row_group_size=GROUP)
    return tmp_path / "part-*.parquet"


def in_folder(table, tmp_path):
    two_files(table, tmp_path)
    (tmp_path / "_SUCCESS").write_text("")
    return tmp_path


def arrow_file(table, tmp_path):
    pyarrow.feather.write_feather(table, tmp_path / "a.arrow", compression="uncompressed", chunksize=5)
    return tmp_path / "a.arrow"


def arrow_stream(table, tmp_path):
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return tmp_path / "a.arrow"


def pandas_frame(table, tmp_path):
    pytest.importorskip("pandas", reason="pandas is not installed")
    return table.to_pandas()


def polars_frame(table, tmp_path):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    return polars.from_arrow(table)


def hugging_face(table, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    rows = with_structs(table).to_pydict()
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Value("string"), "key": datasets.Value("string")}
    )
    return datasets.Dataset.from_dict(rows, features=features)


def hugging_face_rows(table, tmp_path):
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    backwards = hugging_face(table.take(list(range(ROWS))[::-1]), tmp_path)
    assert isinstance(backwards, datasets.Dataset)
    return backwards.select(range(ROWS - 1, -1, -1))


KINDS = {
    "table": lambda table, tmp_path: table,
    "record batch": lambda table, tmp_path: table.combine_chunks().to_batches()[0],
    "chunks": lambda table, tmp_path: pa.concat_tables([table[:1], table[1:1], table[1:20], table[20:]]),
    "slice": lambda table, tmp_path: pa.concat_tables([table[:5], table])[5:],
    "structs": lambda table, tmp_path: with_structs(table),
    "large": lambda table, tmp_path: table.set_column(0, "image", table["image"].cast(pa.large_binary())),
    "views": lambda table, tmp_path: table.cast(
        pa.schema({"image": pa.binary_view(), "label": pa.string_view(), "key": pa.string_view()})
    ),
    "dictionaries": lambda table, tmp_path: table.set_column(1, "label", table["label"].dictionary_encode()),
    "parquet": parquet_file,
    "parquet of structs": lambda table, tmp_path: parquet_file(
        with_structs(table), tmp_path, row_group_size=5
    ),
    "parquet without compression": lambda table, tmp_path: parquet_file(
        table, tmp_path, compression="none", use_dictionary=False, write_page_checksum=True
    ),
    "files": two_files,
    "folder": in_folder,
    "arrow file": arrow_file,
    "arrow stream": arrow_stream,
    "pandas": pandas_frame,
    "polars": polars_frame,
    "datasets": hugging_face,
    "datasets, selected": hugging_face_rows,
}


@pytest.fixture(scope="module")
def expected(folder):
    return read(ImageFileReader(folder, 8, (24, 32), epochs=1, **DRAWN))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_from_a_folder(kind, table, expected, tmp_path):
    reader = TableReader(KINDS[kind](table, tmp_path), 8, (24, 32), key="key", epochs=1, **DRAWN)
    assert reader.classes == ["class0", "class1", "class2"] and reader.size == ROWS
    assert list(read(reader).items()) == list(expected.items())


def test_windows_have_the_same_samples_in_another_order(parquet, expected):
    found = read(windowed(parquet, epochs=1, **DRAWN))
    assert found == expected and list(found) != list(expected)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_manifests_have_the_same_samples(form, folder, keys, expected, tmp_path):
    path = tmp_path / "manifest"
    if form == "csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("path", "class"), *((key, key[:6]) for key in keys)])
    else:
        path.write_text("".join(json.dumps({"path": key, "class": key[:6]}) + "\n" for key in keys))
    make = ListReader.from_csv if form == "csv" else ListReader.from_jsonl
    assert read(make(path, 8, (24, 32), root=folder, epochs=1, **DRAWN)) == expected


@pytest.mark.parametrize("where", ["absolute", "root", "beside", "structs"])
def test_paths(where, table, folder, expected, tmp_path):
    options = {"key": "key"}
    if where == "absolute":
        data = parquet_file(with_paths(table, folder), tmp_path)
    elif where == "root":
        data, options = table.set_column(0, "image", table["key"]), {"root": folder}
    elif where == "beside":
        data, options = folder / "beside.parquet", {}
        pq.write_table(table.set_column(0, "image", table["key"]), data)
    else:
        # Some with bytes, some with a path alone.
        images = [
            {"bytes": one, "path": None} if row % 2 else {"bytes": None, "path": table["key"][row].as_py()}
            for row, one in enumerate(table["image"].to_pylist())
        ]
        data = parquet_file(table.set_column(0, "image", [images]), tmp_path, row_group_size=10)
        options["root"] = folder
    assert read(TableReader(data, 8, (24, 32), epochs=1, **options, **DRAWN)) == expected


def test_keys_are_paths_or_rows_by_default(table, folder):
    assert only_batch(TableReader(table, ROWS, (8, 8), **IN_ORDER)).keys == list(map(str, range(ROWS)))
    paths = with_paths(table, folder)
    assert only_batch(TableReader(paths, ROWS, (8, 8), **IN_ORDER)).keys == paths["image"].to_pylist()
    numbered = table.append_column("id", [range(100, 100 + ROWS)])
    batch = only_batch(TableReader(numbered, ROWS, (8, 8), key="id", **IN_ORDER))
    assert batch.keys == list(map(str, range(100, 100 + ROWS)))


# Order


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_sample_once_an_epoch(world, parquet, keys):
    batches = []
    for rank in range(world):
        with Pipeline([windowed(parquet, epochs=3, shard=(rank, world))]) as pipeline:
            batches.append([(batch.epoch, batch.keys) for batch in pipeline.forever()])
    assert len({tuple((epoch, len(found)) for epoch, found in of_rank) for of_rank in batches}) == 1
    for epoch in range(3):
        found = [key for of_rank in batches for at, some in of_rank if at == epoch for key in some]
        assert {*found} == {*keys} and len(found) - ROWS < world


def test_resuming_anywhere_in_another_world(parquet, keys):
    rng = np.random.default_rng(1)
    with Pipeline([windowed(parquet, 4, epochs=2, **DRAWN)]) as pipeline:
        states, delivered = [pipeline.state_dict()], [[]]
        while len(states) <= 2 * 7:
            batch = pipeline.dequeue()
            states.append(pipeline.state_dict())
            delivered.append([*delivered[-1], *((batch.epoch, key) for key in batch.keys)])
    everything = [(epoch, key) for epoch in range(2) for key in keys]
    for place in rng.permutation(len(states) - 1)[:10]:
        world, batch_size = int(rng.integers(1, 5)), int(rng.integers(1, 12))
        rest = []
        for rank in range(world):
            reader = windowed(parquet, batch_size, epochs=2, shard=(rank, world), **DRAWN)
            with Pipeline([reader]) as pipeline:
                pipeline.load_state_dict(json.loads(json.dumps(states[place])))
                rest += [(batch.epoch, key) for batch in pipeline.forever() for key in batch.keys]
        assert {*rest} | {*delivered[place]} == {*everything}
        # In each of the two epochs at most world - 1 samples come twice.
        assert 0 <= len(rest) + len(delivered[place]) - len(everything) <= 2 * (world - 1)


def test_states_of_other_tables_are_refused(table, parquet, tmp_path):
    with Pipeline([windowed(parquet)]) as pipeline:
        pipeline.dequeue()
        state = pipeline.state_dict()
    for reader in (
        windowed(parquet, window_bytes=10_000),
        TableReader(table, 5, (24, 32)),
        windowed(parquet_file(table[:20], tmp_path, row_group_size=GROUP)),
        TableReader(parquet, 5, (24, 32), key="key"),
    ):
        with Pipeline([reader]) as pipeline, pytest.raises(StateMismatchError):
            pipeline.load_state_dict(state)


def test_row_groups_are_decoded_once_an_epoch(parquet):
    groups = pq.ParquetFile(parquet).num_row_groups
    for options in ({}, {"shuffle": False}, {"workers": 1}, {"workers": 3}):
        reader = windowed(parquet, epochs=4, **options)
        with Pipeline([reader]) as pipeline:
            for _ in pipeline.forever():
                pass
        # Row groups of the last window of an epoch may still be there in the next epoch.
        assert groups <= reader.latest.samples.decodes <= 4 * groups


def test_only_some_row_groups_are_held(parquet):
    reader = windowed(parquet, 1, epochs=2, workers=2)
    run = reader.for_run()
    window = run.order.window
    most = 0
    for task in run.tasks():
        run.samples.begin_task(task)
        run.samples._pictures_of(task.indices)
        most = max(most, len(run.samples._groups._decoded))
        run.samples.finish_task(task)
    assert window <= most <= 2 * window + 2 < 7


def test_one_window_is_the_order_of_other_readers(table, parquet):
    one = [task.indices.tolist() for task in TableReader(parquet, 5, (8, 8), epochs=2).order]
    assert one == [task.indices.tolist() for task in TableReader(table, 5, (8, 8), epochs=2).order]


def test_parts_of_the_order_can_be_skipped(parquet, keys):
    with Pipeline([windowed(parquet, epochs=1)]) as pipeline:
        pipeline.skip(samples=[keys[3]])
        found = [key for batch in pipeline for key in batch.keys]
    assert sorted(found) == sorted({*keys} - {keys[3]})


# Labels


def labels_of(table, values, kind=None, **options):
    column = values if isinstance(values, pa.Array) else pa.array(values, kind)
    data = table[: len(column)].set_column(1, "label", column)
    reader = TableReader(data, len(column), (8, 8), **options, **IN_ORDER)
    batch = only_batch(reader)
    spec = Pipeline([reader]).spec["labels"]
    assert spec.dtype == batch.labels.dtype and spec.shape[1:] == batch.labels.shape[1:]
    return batch.labels, reader.classes


@pytest.mark.parametrize(
    "values, kind, dtype, expected, classes",
    [
        ([3, 0, 7], pa.uint8(), np.int64, [3, 0, 7], None),
        ([True, False], pa.bool_(), np.int64, [1, 0], None),
        ([0.5, 2], pa.float64(), np.float32, [0.5, 2], None),
        (["b", "a", "b"], pa.string(), np.int64, [1, 0, 1], ["a", "b"]),
        ([["b"], [], ["a", "b"]], pa.list_(pa.string()), np.float32, [[0, 1], [0, 0], [1, 1]], ["a", "b"]),
        ([[1, 2], [3, 4]], pa.list_(pa.int32(), 2), np.int64, [[1, 2], [3, 4]], None),
        ([[0.5, 2], [3, 4]], pa.list_(pa.float32()), np.float32, [[0.5, 2], [3, 4]], None),
    ],
)
def test_labels(table, values, kind, dtype, expected, classes):
    labels, names = labels_of(table, values, kind)
    assert labels.dtype == dtype and labels.tolist() == expected and names == classes


def test_given_classes(table):
    assert labels_of(table, ["b", "a"], classes=["z", "b", "a"])[0].tolist() == [1, 2]
    assert labels_of(table, [1, 0], classes=["z", "b"])[1] == ["z", "b"]
    assert labels_of(table, [[1], [0, 1]], classes=["z", "b"])[0].tolist() == [[0, 1], [1, 1]]
    dictionary = pa.array(["b", "a", "b"]).dictionary_encode()
    assert labels_of(table, dictionary)[0].tolist() == [1, 0, 1]


def test_classes_that_a_table_states(table):
    features = {
        "label": {"_type": "ClassLabel", "names": ["cat", "ant"]},
        "objects": {"_type": "Sequence", "feature": {"kind": {"_type": "ClassLabel", "names": ["x", "y"]}}},
        "tags": {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["p", "q", "r"]}},
    }
    data = pa.table(
        {
            "image": table["image"][:2],
            "label": [1, 0],
            "tags": [[2], [0, 2]],
            "objects": [{"box": [[0.0, 0, 9, 9]], "kind": [1]}, {"box": [], "kind": []}],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    reader = TableReader(data, 2, (8, 8), **IN_ORDER)
    assert reader.classes == ["cat", "ant"] and only_batch(reader).labels.tolist() == [1, 0]
    assert "2 classes stated by the table" in repr(reader)
    reader = TableReader(data, 2, (8, 8), label="tags", **IN_ORDER)
    assert reader.classes == ["p", "q", "r"]
    assert only_batch(reader).labels.tolist() == [[0, 0, 1], [1, 0, 1]]
    reader = TableReader(data, 2, (8, 8), label="objects.kind", boxes="objects.box", **IN_ORDER)
    assert reader.classes == ["x", "y"] and only_batch(reader).labels.tolist() == [1]


@pytest.mark.parametrize(
    "values, kind, options, message",
    [
        (
            ["a", "c"],
            None,
            {"classes": ["a", "b"]},
            r"column 'label' of the table has 'c' .*expected one of the classes: a, b$",
        ),
        ([0, 2], None, {"classes": ["a", "b"]}, "has labels from 0 to 2; expected 0 to 1"),
        ([-1, 0], None, {"classes": ["a", "b"]}, "has labels from -1 to 0"),
        ([2**63], pa.uint64(), {}, "expected labels below"),
        ([[1], [2, 3]], None, {}, "give classes="),
        ([[0.5], [2, 3]], None, {}, "has 1 numbers in row 0, 2 in row 1"),
        ([b"a"], None, {}, "is of type binary; expected labels"),
        ([{"a": 1}], None, {}, "is of type struct"),
        ([None, None], pa.string(), {}, "has no label in any row"),
    ],
)
def test_wrong_labels(table, values, kind, options, message):
    with pytest.raises(ArgumentError, match=f"^TableReader: .*{message}"):
        labels_of(table, values, kind, **options)


# Fields


def test_fields(table):
    vectors = [[row, row + 0.5] for row in range(3)]
    grids = pa.array([[[1, 2], [3, 4]]] * 3, pa.list_(pa.list_(pa.int16(), 2), 2))
    data = table[:3].set_column(2, "number", pa.array([1, 2, 3], pa.int16()))
    for name, column in {
        "flag": pa.array([True, False, True]),
        "text": ["a", "", "ç\N{GRINNING FACE}"],
        "blob": [b"\0x", b"y\xff", b""],
        "vector": vectors,
        "fixed": pa.array(vectors, pa.list_(pa.float32(), 2)),
        "grid": grids,
        "meta": [{"id": row} for row in range(3)],
    }.items():
        data = data.append_column(name, column if isinstance(column, pa.Array) else pa.array(column))
    names = ["number", "flag", "text", "blob", "vector", "fixed", "grid"]
    reader = TableReader(
        data, 3, (8, 8), fields={**{name: name for name in names}, "id": "meta.id"}, **IN_ORDER
    )
    batch = only_batch(reader)
    assert list(batch.fields) == ["images", "labels", *names, "id"] and not batch.extras
    found = {name: (batch[name].dtype, batch[name].tolist()) for name in [*names, "id"]}
    assert found == {
        "number": (np.int16, [1, 2, 3]),
        "flag": (np.bool_, [True, False, True]),
        "text": (np.dtype("U2"), ["a", "", "ç\N{GRINNING FACE}"]),
        "blob": (np.dtype("S2"), [b"\0x", b"y\xff", b""]),
        "vector": (np.float64, vectors),
        "fixed": (np.float32, vectors),
        "grid": (np.int16, grids.to_pylist()),
        "id": (np.int64, [0, 1, 2]),
    }
    for name, spec in Pipeline([reader]).spec.items():
        assert spec.dtype == batch[name].dtype and spec.shape[1:] == batch[name].shape[1:], name
    batch.number[:] = 0
    assert only_batch(reader).number.tolist() == [1, 2, 3]


def test_ragged_lists(table):
    data = table[:4].append_column("spans", [[[1, 2], [], [3], [4, 5, 6]]])
    data = data.append_column("scores", [[[0.1, 0.2], [], [0.3], [0.4, 0.5, 0.6]]])
    data = data.append_column(
        "points", pa.array([[[1, 1], [2, 2]], [], [[3, 3]], [[4, 4]] * 3], pa.list_(pa.list_(pa.int8(), 2)))
    )
    reader = TableReader(data, 3, (8, 8), fields=["spans", "scores", "points"], epochs=1)
    with Pipeline([reader]) as pipeline:
        batches = list(pipeline)
    for batch in batches:
        assert batch.ragged == {"spans", "scores", "points"} and list(batch.fields) == ["images", "labels"]
        for row, index in enumerate(batch.indices.tolist()):
            for name in batch.ragged:
                assert batch.rows_of(name, row).tolist() == data[name][index].as_py()
    other = data.append_column("other", [[[1], [], [3], [4]]])
    with pytest.raises(ArgumentError, match=r"column 'other' .* has 1 values in row 0, and 2 others"):
        TableReader(other, 3, (8, 8), fields=["spans", "other"])


@pytest.fixture(scope="module")
def pictures():
    return [jpeg_bytes(photograph(50, 100, number)) for number in range(3)]


BOXES = [[[0, 0, 50, 50], [10, 10, 100, 20]], [], [[10, 20, 30, 40]]]


def as_xywh(boxes):
    return [[[x, y, right - x, bottom - y] for x, y, right, bottom in one] for one in boxes]


@pytest.mark.parametrize("form", ["lists", "xywh", "structs", "fixed", "parquet", "windows"])
def test_boxes(pictures, tmp_path, form):
    names, ids = [["dog", "cat"], [], ["dog"]], [[5, 6], [], [7]]
    data = pa.table({"image": pictures, "box": BOXES, "name": names, "id": ids, "weight": [[1.0]] * 3})
    columns = {"boxes": "box", "label": "name", "fields": {"ids": "id", "weight": "weight"}}
    if form == "xywh":
        data = data.set_column(1, "box", [as_xywh(BOXES)])
        columns["box_format"] = "xywh"
    if form == "structs":
        objects = [
            [{"box": box, "name": name, "id": number} for box, name, number in zip(*one, strict=True)]
            for one in zip(BOXES, names, ids, strict=True)
        ]
        data = pa.table({"image": pictures, "objects": objects, "weight": data["weight"]})[1:2]
        data = pa.concat_tables(
            [data, pa.table({"image": pictures, "objects": objects, "weight": [[1.0]] * 3})]
        ).take([1, 0, 3])
        columns = {
            "boxes": "objects.box",
            "label": "objects.name",
            "fields": {"ids": "objects.id", "weight": "weight"},
        }
    if form == "fixed":
        data = data.set_column(1, "box", pa.array(BOXES, pa.list_(pa.list_(pa.float32(), 4))))
    if form in ("parquet", "windows"):
        data = parquet_file(data, tmp_path, row_group_size=1 if form == "windows" else 100)
    reader = TableReader(data, 3, (200, 200), **columns, **IN_ORDER)
    assert isinstance(reader.fit, Letterbox) and reader.classes == ["cat", "dog"]
    batch = only_batch(reader)
    assert list(batch.fields) == ["images", "labels", "boxes", "weight"] and list(batch.extras) == ["ids"]
    assert batch.offsets.tolist() == [0, 2, 2, 3] and batch.labels.tolist() == [1, 0, 1]
    assert batch.boxes.tolist() == [[0, 50, 100, 150], [20, 70, 200, 90], [20, 90, 60, 130]]
    assert batch.ids.tolist() == [5, 6, 7] and batch.weight.tolist() == [[1.0]] * 3
    assert Pipeline([reader]).spec["labels"].ragged
    small = TableReader(data, 3, (50, 50), fit=RandomResizedCrop(scale=(0.1, 0.1)), epochs=20, **columns)
    with Pipeline([small]) as pipeline:
        counts = [(len(batch.ids), len(batch.boxes)) for batch in pipeline.forever()]
    assert all(ids == boxes for ids, boxes in counts) and min(counts) < (3, 3)


def test_a_box_in_columns(pictures):
    data = pa.table(
        {
            "image": pictures,
            "x0": [0, None, 10],
            "y0": [0, None, 20],
            "x1": [50.0, None, 30],
            "y1": [50, None, 40],
        }
    )
    sides = ["x0", "y0", "x1", "y1"]
    batch = only_batch(TableReader(data, 3, (200, 200), label=None, boxes=sides, **IN_ORDER))
    assert batch.offsets.tolist() == [0, 1, 1, 2] and list(batch.fields) == ["images", "boxes"]
    assert batch.boxes.tolist() == [[0, 50, 100, 150], [20, 90, 60, 130]]
    one = pa.table({"image": pictures, "box": [[0, 0, 50, 50], [], [10, 20, 30, 40]]})
    again = only_batch(TableReader(one, 3, (200, 200), label=None, boxes="box", **IN_ORDER))
    assert again.boxes.tolist() == batch.boxes.tolist()
    half = data.set_column(3, "x1", [[50, 3, 30]])
    reader = TableReader(half, 3, (200, 200), label=None, boxes=sides, on_error="skip", **IN_ORDER)
    assert only_batch(reader).indices.tolist() == [0, 2]
    assert "row 1 of the table has a part of a box" in reader.errors[0][1]


def test_placement(pictures):
    data = pa.table({"image": pictures, "box": BOXES})
    reader = TableReader(data, 3, (60, 60), label=None, boxes="box", placement=True, **IN_ORDER)
    batch = only_batch(reader)
    np.testing.assert_allclose(batch.boxes_in_picture(0), BOXES[0], atol=0.01)


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"boxes": "label", "label": None}, "is of type string; expected boxes"),
        (
            {"boxes": "names", "label": None},
            "is of type list<.*expected boxes of numbers|has 1 numbers in row 0; expected 4",
        ),
        ({"boxes": "sides", "label": None}, "has a box of 3 numbers in row 0; expected 4"),
        (
            {"boxes": ["label", "number", "number", "number"], "label": None},
            "is of type string; expected numbers",
        ),
        ({"boxes": ["number", "number"]}, "boxes is .*4 columns"),
        ({"boxes": 3}, "boxes is 3"),
        ({"boxes": "box", "label": "label"}, "is of type string; expected lists, with a label for each box"),
        (
            {"boxes": "box", "label": None, "fields": ["three"]},
            "has 3 values in row 0, and 1 others are there; expected as many as boxes",
        ),
        ({"box_format": "cxcywh"}, "box_format is 'cxcywh'"),
        ({"image": "images"}, "no column 'images' .*it has 'image', 'label', .*did you mean"),
        ({"label": "lable"}, r"no column 'lable' \(label=\); .*did you mean 'label'"),
        ({"key": "label.x"}, r"no column 'label.x'"),
        ({"image": "number"}, "is of type int64; expected bytes or paths"),
        ({"fields": ["box"]}, "is of type list<.*expected numbers, texts"),
        ({"fields": ["images"]}, "fields has 'images'"),
        ({"fields": ["a-b"]}, "fields has 'a-b'"),
        ({"fields": "number"}, "fields is 'number'"),
        ({"image": None}, "image is None"),
        ({"min_visible": 0.5}, "min_visible is 0.5, and there are no boxes"),
        ({"window_bytes": 0}, "window_bytes is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_arguments_are_checked(pictures, columns, message):
    data = pa.table(
        {
            "image": pictures[:2],
            "label": ["a", "b"],
            "number": [1, 2],
            "names": [["a"], ["b"]],
            "box": [[[0, 0, 5, 5]], [[0, 0, 5, 5]]],
            "sides": [[[0, 0, 5]], []],
            "three": [[1, 2, 3], [1]],
        }
    )
    with pytest.raises(ArgumentError, match=f"^TableReader: .*({message})"):
        TableReader(data, **{"batch_size": 2, "shape": (8, 8), **columns})


@pytest.mark.parametrize("data", [5, None, {"image": []}, object()])
def test_what_is_no_table(data):
    with pytest.raises(ArgumentError, match=r"^TableReader: table is a "):
        TableReader(data, 2, (8, 8))


def test_empty_tables(table, tmp_path):
    for data in (table[:0], parquet_file(table[:0], tmp_path), tmp_path / "x-*.parquet", []):
        with pytest.raises(EmptyDatasetError, match=r"^TableReader: "):
            TableReader(data, 2, (8, 8))


# Bad samples


def bad_rows(data, **options):
    """Indices that were read, and (key, reason) of those that were not."""
    reader = TableReader(data, 6, (24, 32), on_error="skip", **{**IN_ORDER, **options})
    with Pipeline([reader]) as pipeline:
        found = [index for batch in pipeline for index in batch.indices.tolist()]
    return found, sorted(reader.errors, key=lambda error: (len(error[0]), error[0]))


@pytest.mark.parametrize("kind", ["table", "parquet"])
def test_nulls_are_bad_samples(table, tmp_path, kind):
    images = [None if row == 3 else one for row, one in enumerate(table["image"].to_pylist())]
    labels = [None if row == 5 else one for row, one in enumerate(table["label"].to_pylist())]
    numbers = [None if row == 9 else row for row in range(ROWS)]
    data = pa.table({"image": images, "label": labels, "number": numbers})
    where = "the table"
    if kind == "parquet":
        data = parquet_file(data, tmp_path, row_group_size=GROUP)
        where = repr(str(data))
    found, errors = bad_rows(data, fields=["number"])
    assert found == [row for row in range(ROWS) if row not in (3, 5, 9)]
    assert errors == [
        ("3", f"TableReader: row 3 of {where} has no picture: null in column 'image'"),
        ("5", f"TableReader: row 5 of {where} has no label: null in column 'label'"),
        ("9", f"TableReader: row 9 of {where} has no value of 'number': null in column 'number'"),
    ]
    with (
        Pipeline([TableReader(data, 6, (24, 32), **IN_ORDER)]) as pipeline,
        pytest.raises(DecodeError, match=r"row [35] of .* has no"),
    ):
        list(pipeline)


def test_nulls_in_boxes(pictures):
    boxes = pa.array([None, [[10, 20, 30, 40], [9, 9, 1, 1]]], pa.list_(pa.list_(pa.float32())))
    data = pa.table({"image": pictures[1:], "box": boxes})
    reader = TableReader(data, 3, (50, 50), label=None, boxes="box", on_error="skip", epochs=1)
    with Pipeline([reader]) as pipeline, pytest.raises(EmptyDatasetError):
        list(pipeline)
    reasons = dict(reader.errors)
    assert "row 0 of the table has no boxes: null" in reasons["0"]
    assert "row 1 of the table has the box [9.0, 9.0, 1.0, 1.0]" in reasons["1"]


def test_labels_for_each_box(pictures):
    data = pa.table({"image": pictures, "box": BOXES, "name": [["a"], [], ["b"]]})
    found, errors = bad_rows(data, label="name", boxes="box")
    assert found == [1, 2] and "has 1 labels and 2 boxes; expected as many" in errors[0][1]
    data = pa.table({"image": pictures, "box": BOXES, "name": [["a", None], [], ["b"]]})
    found, errors = bad_rows(data, label="name", boxes="box")
    assert found == [1, 2] and "has no label for one of its boxes" in errors[0][1]


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_a_bad_picture(table, keys, tmp_path, policy):
    images = table["image"].to_pylist()
    images[7] = images[7][:200]
    images[11] = b""
    images[12] = b"no picture"
    data = parquet_file(table.set_column(0, "image", [images]), tmp_path, row_group_size=GROUP)
    reader = windowed(data, 5, epochs=1, on_error=policy)
    with Pipeline([reader]) as pipeline:
        if policy == "raise":
            with pytest.raises(DecodeError, match=r"^TableReader: row (7|11|12) of '.*parquet' "):
                list(pipeline)
            return
        found = [key for batch in pipeline for key in batch.keys]
    good = {*keys} - {keys[row] for row in (7, 11, 12)}
    assert {*found} == good and len(found) == (ROWS - 3 if policy == "skip" else ROWS)
    assert {key for key, _ in reader.errors} == {keys[row] for row in (7, 11, 12)}


def test_missing_pictures(table, folder):
    names = table["key"].to_pylist()
    names[2] = "gone.jpg"
    paths = table.set_column(0, "image", [names])
    found, errors = bad_rows(paths, root=folder)
    assert found == [row for row in range(ROWS) if row != 2]
    ((key, reason),) = errors
    assert key == "gone.jpg" and f"{folder}/gone.jpg (row 2 of the table)" in reason
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    structs = pa.array([{"bytes": None, "path": name} for name in names], kind)
    found, errors = bad_rows(table.set_column(0, "image", [structs]), root=folder)
    assert found == [row for row in range(ROWS) if row != 2] and "gone.jpg" in errors[0][1]


def test_paths_with_a_zero_byte_name_no_other_file(table, folder):
    names = table["key"].to_pylist()
    names[2] += "\0.png"
    found, errors = bad_rows(table.set_column(0, "image", [names]), root=folder)
    assert found == [row for row in range(ROWS) if row != 2] and "has no picture: '" in errors[0][1]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    structs = pa.array([{"bytes": None, "path": name} for name in names], kind)
    found, errors = bad_rows(table.set_column(0, "image", [structs]), root=folder)
    assert found == [row for row in range(ROWS) if row != 2] and "no zero bytes" in errors[0][1]


def of_many_bytes(count):
    """A column of chunks of 1 MiB, which share their memory."""
    offsets, data = pa.py_buffer(np.array([0, 1 << 20], np.int32)), pa.py_buffer(bytes(1 << 20))
    return pa.chunked_array([pa.Array.from_buffers(pa.binary(), 1, [None, offsets, data])] * count)


def test_columns_of_more_than_two_gigabytes(table, monkeypatch):
    structs = pa.chunked_array(
        [pa.StructArray.from_arrays([one], ["a"]) for one in of_many_bytes(2100).chunks]
    )
    with pytest.raises(ArgumentError, match=r"column .big. of the table cannot be joined .*large_binary"):
        arrow.column("Test", "the table", pa.table({"big": structs}), "fields=", "big")
    monkeypatch.setattr(arrow, "_MOST_BYTES", 1 << 20)
    found = arrow.column("Test", "the table", pa.table({"big": of_many_bytes(2)}), "fields=", "big")
    assert found.type == pa.large_binary() and len(found) == 2


# Damaged files


def test_cut_files(parquet, tmp_path):
    whole = parquet.read_bytes()
    for size in (0, 3, 4, 100, len(whole) // 2, len(whole) - 1, len(whole) - 9):
        (tmp_path / "cut.parquet").write_bytes(whole[:size])
        with pytest.raises(
            DecodeError, match=r"^TableReader: '.*cut\.parquet' is damaged, or no file of a table: "
        ):
            TableReader(tmp_path / "cut.parquet", 4, (8, 8))


def test_flipped_bytes(table, tmp_path):
    """With the checksums of pages, every flip in a picture is found, and only its row group is bad."""
    path = parquet_file(
        table,
        tmp_path,
        row_group_size=GROUP,
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    whole = path.read_bytes()
    metadata = pq.ParquetFile(path).metadata
    rng = np.random.default_rng(0)
    for number in range(metadata.num_row_groups):
        chunk = metadata.row_group(number).column(0)
        changed = bytearray(whole)
        # The first half may be the header of the page, which has no checksum, with copies of two pictures.
        place = chunk.data_page_offset + int(chunk.total_compressed_size * rng.uniform(0.5, 1))
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        found, errors = bad_rows(path)
        bad = [*range(number * GROUP, min((number + 1) * GROUP, ROWS))]
        assert found == [row for row in range(ROWS) if row not in bad]
        assert sorted(int(key) for key, _ in errors) == bad
        assert f"row group {number} of '{path}' is damaged" in errors[0][1]


def test_flipped_bytes_anywhere(table, parquet, tmp_path):
    """Whatever byte is damaged: an error of Highway, bad samples, or another picture, and nothing else."""
    whole = parquet.read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "flipped.parquet"
    outcomes = set()
    places = [*rng.integers(0, len(whole), 15), *rng.integers(len(whole) - 1500, len(whole), 25)]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found, errors = bad_rows(path, key="key")
            outcomes.add("read" if not errors else "bad samples")
            assert len(found) + len(errors) == ROWS
        except (ArgumentError, DecodeError, EmptyDatasetError):
            outcomes.add("refused")
    assert {"read", "refused"} <= outcomes


def test_texts_that_are_not_utf8(table, tmp_path):
    wrong = pa.array([b"\xff" if row == 3 else b"a" for row in range(ROWS)]).view(pa.string())
    data = parquet_file(table.set_column(1, "label", wrong), tmp_path)
    with pytest.raises(DecodeError, match=r"^TableReader: column 'label' of '.*' is damaged: .*UTF8"):
        TableReader(data, 4, (8, 8))


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(DecodeError, match=r"a\.parquet' is damaged"):
        TableReader(tmp_path / "a.parquet", 4, (8, 8))
    (tmp_path / "a.arrow").write_bytes(b"ARROW1" + bytes(100))
    with pytest.raises(DecodeError, match=r"a\.arrow' is damaged"):
        TableReader(tmp_path / "a.arrow", 4, (8, 8))
    with pytest.raises(ReadError, match=r"^TableReader: '.*gone\.parquet' cannot be read: No such file"):
        TableReader(tmp_path / "gone.parquet", 4, (8, 8))


def test_files_that_differ(table, tmp_path):
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.rename_columns(["image", "class", "key"]), tmp_path / "b.parquet")
    with pytest.raises(
        ArgumentError, match=r"b\.parquet' has the columns image \(binary\), class .*expected the same"
    ):
        TableReader([tmp_path / "a.parquet", tmp_path / "b.parquet"], 4, (8, 8))
    arrow = arrow_file(table, tmp_path)
    with pytest.raises(ArgumentError, match=r"a\.arrow' is an Arrow file, and '.*a\.parquet' is none"):
        TableReader([tmp_path / "a.parquet", arrow], 4, (8, 8))


def failing(monkeypatch, number, times):
    """Let the next openings of Parquet files fail."""
    opened, left = pq.ParquetFile, [times]

    def fail(*arguments, **options):
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return opened(*arguments, **options)

    monkeypatch.setattr("highway.modules.readers.tables.parquet.pq.ParquetFile", fail)


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_failing_storage_makes_no_bad_samples(parquet, expected, monkeypatch, policy):
    reader = windowed(parquet, epochs=1, on_error=policy, **DRAWN)
    other = windowed(parquet, epochs=1, on_error=policy)
    failing(monkeypatch, errno.EIO, 5)
    assert read(reader) == expected and reader.errors == []
    monkeypatch.setattr(outages, "LIMIT", 0.2)
    failing(monkeypatch, errno.ESTALE, 10**9)
    with (
        Pipeline([other]) as pipeline,
        pytest.raises(StorageError, match=r"^TableReader: row group \d of '.*parquet' cannot be read: "),
    ):
        pipeline.dequeue()


def test_failing_storage_at_the_start(parquet, monkeypatch):
    failing(monkeypatch, errno.EIO, 2)
    assert windowed(parquet).size == ROWS
    failing(monkeypatch, errno.EACCES, 2)
    with pytest.raises(ReadError, match=r"parquet' cannot be read: Permission denied"):
        windowed(parquet)


def test_a_machine_without_file_handles(parquet, monkeypatch):
    reader = windowed(parquet, epochs=1, on_error="skip")
    failing(monkeypatch, errno.EMFILE, 10**9)
    with Pipeline([reader]) as pipeline, pytest.raises(OSError, match="Too many open files"):
        pipeline.dequeue()


@pytest.mark.parametrize("how", ["other", "cut", "gone"])
def test_files_that_change(table, tmp_path, how):
    path = parquet_file(table, tmp_path, row_group_size=GROUP)
    reader = windowed(path, on_error="skip", epochs=1)
    if how == "other":
        pq.write_table(table, path, row_group_size=GROUP, compression="none")
    elif how == "cut":
        os.truncate(path, 20_000)
    else:
        path.unlink()
    with Pipeline([reader]) as pipeline:
        if how == "gone":
            with pytest.raises(EmptyDatasetError, match="cannot be read: No such file"):
                list(pipeline)
        else:
            with pytest.raises(DatasetError, match=r"^TableReader: '.*' was changed while it was in use"):
                list(pipeline)


# As a module


def test_pickles_and_copies_are_equal(parquet, table):
    for data in (parquet, [str(parquet)], table):
        reader = TableReader(data, 4, (8, 8), fields=["key"])
        copy = pickle.loads(pickle.dumps(reader))
        assert copy == reader and copy.fingerprint() == reader.fingerprint()
        assert TableReader(data, 4, (8, 8)) != reader
    assert repr(windowed(parquet)).startswith(
        f"<TableReader of {ROWS} rows in '{parquet}', 5, (24, 32), fit="
    )
    assert "windows of 2 row groups" in repr(windowed(parquet))


def test_a_reader_can_run_twice(parquet, expected):
    reader = windowed(parquet, epochs=1, **DRAWN)
    assert read(reader) == read(reader) == expected
    with Pipeline([windowed(parquet)]) as pipeline:
        first = pipeline.dequeue()
        state = pipeline.state_dict()
        second = pipeline.dequeue()
        pipeline.load_state_dict(state)
        assert pipeline.dequeue().keys == second.keys != first.keys


def test_stopping_in_the_middle(parquet):
    for _ in range(5):
        with Pipeline([windowed(parquet, 2)]) as pipeline:
            pipeline.dequeue()


def test_fingerprint(table, parquet):
    same = TableReader(table, 4, (8, 8), key="key").fingerprint()
    assert TableReader(parquet, 4, (9, 9), key="key").fingerprint() == same
    assert TableReader(table, 4, (8, 8)).fingerprint() != same
    assert TableReader(table[:26], 4, (8, 8), key="key").fingerprint() != same
    other = table.set_column(1, "label", [["class0"] * ROWS])
    assert TableReader(other, 4, (8, 8), key="key").fingerprint() != same


def test_nothing_is_imported_before_it_is_needed():
    code = """
import sys
from highway.modules import TableReader
print(*sorted({"pyarrow", "pandas", "polars", "datasets"} & set(sys.modules)))
sys.modules["pyarrow"] = None
try:
    TableReader("a.parquet", 4, 8)
except ImportError as error:
    print(type(error).__name__, error)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )
    assert answer.stdout.splitlines() == [
        "",
        "MissingPackageError TableReader: the package pyarrow is not installed: pip install pyarrow",
    ], answer.stderr
    assert issubclass(MissingPackageError, ImportError)
