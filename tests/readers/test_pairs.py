"""Further pictures of a sample, and masks in columns: of lists, manifests and tables."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from object_server import ObjectServer
from pictures import jpeg_bytes, photograph
from PIL import Image

from highway.engine import Pipeline
from highway.errors import ArgumentError, ContractError, DecodeError, ReadError, StateMismatchError
from highway.modules import Augmentations, Encoded, LevelDBSink, ListReader, TableReader
from highway.storage import fetching
from highway.transforms import FlipX, Letterbox, Normalize, RandomCrop, RandomResizedCrop

SHAPE = (24, 32)
COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures `a`, the same ones again as `b`, of half the size as `small`, and masks of their gray values."""
    root = tmp_path_factory.mktemp("pairs")
    for number in range(COUNT):
        picture = photograph(40 + number, 60, number)
        picture.save(root / f"a{number}.png")
        picture.save(root / f"b{number}.webp", lossless=True)
        picture.resize((30, 20 + number // 2)).save(root / f"small{number}.png")
        picture.convert("L").save(root / f"mask{number}.png")
    return root


def names(kind, ending="png"):
    return [f"{kind}{number}.{ending}" for number in range(COUNT)]


def batches_of(reader, *stages):
    with Pipeline([reader, *stages]) as pipeline:
        return list(pipeline)


def options(**more):
    return {"fit": RandomResizedCrop(), "epochs": 1, "seed": 3, **more}


@pytest.mark.parametrize("fit", [RandomResizedCrop(), Letterbox(), None])
def test_pairs_show_the_same_window(folder, fit):
    given = {"fit": fit, "epochs": 2, "root": folder}
    pairs = {"right": names("b", "webp"), "small": names("small")}
    alone = batches_of(ListReader(names("a"), None, 5, SHAPE, **given))
    small = batches_of(ListReader(names("small"), None, 5, SHAPE, **given))
    found = batches_of(ListReader(names("a"), None, 5, SHAPE, pairs=pairs, **given))
    assert [batch.keys for batch in found] == [batch.keys for batch in alone]
    for batch, one, other in zip(found, alone, small, strict=True):
        assert [*batch.fields] == ["images", "right", "small"]
        np.testing.assert_array_equal(batch.images, one.images)
        np.testing.assert_array_equal(batch["right"], one.images)
        # Of another size: with the random numbers of the sample.
        np.testing.assert_array_equal(batch["small"], other.images)


def test_augmentations_move_pairs_that_are_named(folder):
    reader = ListReader(
        names("a"), None, 6, SHAPE, pairs={"right": names("b", "webp")}, root=folder, **options()
    )
    moved = Augmentations([FlipX(), RandomCrop((16, 16))], fields={"right": "image"})
    for batch in batches_of(reader, moved):
        assert batch.images.shape == (6, 16, 16, 3)
        np.testing.assert_array_equal(batch["right"], batch.images)
    for batch in batches_of(reader, Augmentations([FlipX(p=1), Normalize()], fields={"right": None})):
        assert batch.images.dtype == np.float32 and batch["right"].dtype == np.uint8
    with pytest.raises(ContractError, match=r"the per-pixel field 'right'.* has no kind"):
        batches_of(reader, Augmentations([FlipX()]))


def test_bad_pairs_are_bad_samples(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "b3.webp").unlink()
    (tmp_path / "b5.webp").write_bytes(b"RIFF")
    given = {"pairs": {"right": names("b", "webp")}, "root": tmp_path, "shuffle": False}
    with pytest.raises(ReadError, match=r"b3\.webp"):
        batches_of(ListReader(names("a"), None, 12, SHAPE, epochs=1, **given))
    reader = ListReader(names("a"), None, 12, SHAPE, epochs=1, on_error="skip", **given)
    (batch,) = batches_of(reader)
    assert batch.keys == [name for name in names("a") if name not in ("a3.png", "a5.png")]
    np.testing.assert_array_equal(batch["right"], batch.images)
    assert sorted(key for key, _ in reader.errors) == ["a3.png", "a5.png"]
    (batch,) = batches_of(ListReader(names("a"), None, 12, SHAPE, epochs=1, on_error="replace", **given))
    assert batch.size == 12
    np.testing.assert_array_equal(batch["right"], batch.images)


def write_manifest(path, rows):
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_manifests(folder, tmp_path, kind):
    rows = [
        {"path": a, "right": b, "small one": small, "mask": mask, "class": number}
        for number, (a, b, small, mask) in enumerate(
            zip(names("a"), names("b", "webp"), names("small"), names("mask"), strict=True)
        )
    ]
    path = write_manifest(tmp_path / f"list.{kind}", rows)
    make = ListReader.from_csv if kind == "csv" else ListReader.from_jsonl
    image = {"images": "path", "right": "right", "tiny": "small one"}
    found = batches_of(make(path, 4, SHAPE, image=image, masks="mask", root=folder, **options()))
    expected = batches_of(
        ListReader(
            names("a"),
            [*range(COUNT)],
            4,
            SHAPE,
            masks=names("mask"),
            pairs={"right": names("b", "webp"), "tiny": names("small")},
            root=folder,
            **options(),
        )
    )
    for batch, other in zip(found, expected, strict=True):
        assert [*batch.fields] == ["images", "labels", "masks", "right", "tiny"]
        for name, array in other.fields.items():
            np.testing.assert_array_equal(batch[name], array)
    (batch,) = batches_of(make(path, COUNT, SHAPE, image=("path", "right"), root=folder, **options()))
    np.testing.assert_array_equal(batch["right"], batch.images)


def test_a_pair_with_a_line_for_each_box(folder, tmp_path):
    sides = {"x0": 1, "y0": 2, "x1": 20, "y1": 20}
    rows = [{"path": names("a")[n], "right": names("b", "webp")[n], "class": 0, **sides} for n in (0, 0, 1)]
    given = {"image": ("path", "right"), "boxes": [*sides], "root": folder, "epochs": 1}
    path = write_manifest(tmp_path / "list.csv", rows)
    (batch,) = batches_of(ListReader.from_csv(path, 2, SHAPE, **given))
    np.testing.assert_array_equal(batch["right"], batch.images)
    assert batch.offsets[-1] == 3
    rows[1]["right"] = "other.png"
    write_manifest(path, rows)
    with pytest.raises(
        ArgumentError, match=r"line 3: 'right' is 'other\.png'; expected 'b0\.webp', as before"
    ):
        ListReader.from_csv(path, 2, SHAPE, **given)


def test_pairs_at_urls(folder, tmp_path):
    objects = {f"data/{path.name}": path.read_bytes() for path in folder.iterdir()}
    columns = [names("a"), names("b", "webp"), names("small")]
    rows = [dict(zip(("path", "right", "small"), row, strict=True)) for row in zip(*columns, strict=True)]
    given = {"image": ("path", "right", "small"), "label": None, **options()}
    path = write_manifest(tmp_path / "list.csv", rows)
    expected = batches_of(ListReader.from_csv(path, 5, SHAPE, root=folder, **given))
    with ObjectServer(objects) as server:
        given |= {"root": "s3://data", "storage_options": server.options}
        reader = ListReader.from_csv(path, 5, SHAPE, **given)
        found = batches_of(reader)
        figures = reader.fetched()
        # The pictures are here, the pairs there.
        for row in rows:
            row["path"] = str(folder / row["path"])
        mixed = batches_of(ListReader.from_csv(write_manifest(path, rows), 5, SHAPE, **given))
    for batch, other, third in zip(found, expected, mixed, strict=True):
        for name, array in other.fields.items():
            np.testing.assert_array_equal(batch[name], array)
            np.testing.assert_array_equal(third[name], array)
    assert figures["held"] == 0 and figures["fetched"] > 0


TABLES = ["memory", "whole file", "windows", "paths", "mixed"]


@pytest.mark.parametrize("kind", TABLES)
def test_tables(folder, tmp_path, kind):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def files(names, as_paths):
        return names if as_paths else [(folder / name).read_bytes() for name in names]

    paths = kind == "paths"
    table = pa.table(
        {
            "image": files(names("a"), paths or kind == "mixed"),
            "target": files(names("b", "webp"), paths),
            "small": files(names("small"), paths),
            "mask": files(names("mask"), paths),
            "label": [*range(COUNT)],
        }
    )
    data, more = table, {}
    if kind not in ("memory", "paths"):
        data = tmp_path / "data.parquet"
        parquet.write_table(table, data, row_group_size=2)
        more = {} if kind == "whole file" else {"window_bytes": 40_000}
    given = {"image": ("image", "target", "small"), "masks": "mask", "mask_fill": 9, "root": folder}
    reader = TableReader(data, 5, SHAPE, **given, **more, **options(epochs=2))
    assert (reader.order.window is None) == (kind not in ("windows", "mixed"))
    found = {}
    for batch in batches_of(reader):
        assert [*batch.fields] == ["images", "labels", "masks", "target", "small"]
        np.testing.assert_array_equal(batch["target"], batch.images)
        for row, index in enumerate(batch.indices.tolist()):
            found[batch.epoch, index] = [array[row].tobytes() for array in batch.fields.values()]
    listed = ListReader(
        names("a"),
        [*range(COUNT)],
        5,
        SHAPE,
        masks=names("mask"),
        mask_fill=9,
        pairs={"target": names("b", "webp"), "small": names("small")},
        root=folder,
        **options(epochs=2),
    )
    expected = {}
    for batch in batches_of(listed):
        for row, index in enumerate(batch.indices.tolist()):
            expected[batch.epoch, index] = [array[row].tobytes() for array in batch.fields.values()]
    assert found == expected


def test_bad_masks_and_pairs_of_tables(folder):
    pa = pytest.importorskip("pyarrow")
    pictures = [(folder / name).read_bytes() for name in names("a")]
    masks = [(folder / name).read_bytes() for name in names("mask")]
    wrong = jpeg_bytes(photograph(40, 60))
    columns = {
        "image": pictures,
        "target": [None, *pictures[1:]],
        "mask": [masks[0], wrong, None, masks[0], *masks[4:]],
    }
    table = pa.table(columns)
    for more, says in (
        ({"image": ("image", "target")}, "row 0 of the table has no picture: null in column 'target'"),
        (
            {"masks": "mask"},
            r"mask column 'mask' of row 1 of the table is no picture of a known format .*JPEG",
        ),
    ):
        with pytest.raises(DecodeError, match=says):
            batches_of(TableReader(table, COUNT, SHAPE, label=None, shuffle=False, epochs=1, **more))
    given = {"image": ("image", "target"), "masks": "mask", "label": None, "shuffle": False, "epochs": 1}
    reader = TableReader(table, COUNT, SHAPE, on_error="skip", **given)
    (batch,) = batches_of(reader)
    assert batch.indices.tolist() == [*range(4, COUNT)]
    reasons = dict(reader.errors)
    assert "mask column 'mask' of row 2 of the table is null in column 'mask'" in reasons["2"]
    assert "40 x 60 pixels (height x width), its picture 43 x 60" in reasons["3"]


def test_arguments(folder, tmp_path):
    def listed(**more):
        return ListReader(names("a"), None, 4, SHAPE, root=folder, **more)

    for pairs, says in (
        ({"images": names("b")}, "has the field 'images'"),
        ({"not a name": names("b")}, "has the field 'not a name'"),
        ({"right": names("b")[1:]}, r"pairs\['right'\] has 11 paths, and there are 12"),
        ({"right": "b"}, r"pairs\['right'\] is a str; expected a list of paths"),
        ([names("b")], "expected lists of paths by the names of fields"),
    ):
        with pytest.raises(ArgumentError, match=says):
            listed(pairs=pairs)
    with pytest.raises(ArgumentError, match="with the further pictures right; expected one picture"):
        Encoded(listed(pairs={"right": names("b", "webp")}), "original")
    path = write_manifest(tmp_path / "list.csv", [{"path": "a0.png", "b c": "b0.webp"}])
    for image, says in (
        (("path", "b c"), "has the field 'b c'"),
        (("path", "path", "path"), "expected every column once"),
        (("path", "images"), "has the field 'images'; expected identifiers"),
        (("path", ["b c"]), r"has the field \['b c'\]; expected identifiers"),
        ({"right": "path"}, "image is {'right': 'path'}; expected the name of a column; or several"),
        ((), "expected the name of a column; or several"),
        (7, "expected the name of a column; or several"),
    ):
        with pytest.raises(ArgumentError, match=says):
            ListReader.from_csv(path, 1, SHAPE, image=image, label=None)
    with pytest.raises(ArgumentError, match="mask_fill is 3, and there are no masks"):
        TableReader("x.parquet", 1, SHAPE, mask_fill=3)


def test_placement_and_boxes_belong_to_the_first_picture(folder):
    boxes = [[[1, 2, 20, 20]]] * COUNT
    given = {"boxes": boxes, "placement": True, "root": folder, "epochs": 1}
    plain = batches_of(ListReader(names("a"), None, 5, SHAPE, **given))
    paired = batches_of(ListReader(names("a"), None, 5, SHAPE, pairs={"small": names("small")}, **given))
    for batch, other in zip(paired, plain, strict=True):
        for name in ("images", "boxes", "placement", "picture_sizes"):
            np.testing.assert_array_equal(batch[name], other[name])


def test_a_store_has_the_pairs_of_one_reader(folder, tmp_path):
    pa = pytest.importorskip("pyarrow")
    table = pa.table(
        {
            name: [(folder / one).read_bytes() for one in names(kind)]
            for name, kind in (("image", "a"), ("one", "a"), ("other", "small"))
        }
    )
    given = {"epochs": 1, "workers": 1}
    for number, make in enumerate(
        (
            lambda kind: ListReader(
                names("a"), None, 4, SHAPE, pairs={"more": names(kind)}, root=folder, **given
            ),
            lambda kind: TableReader(
                table,
                4,
                SHAPE,
                image={"images": "image", "more": "one" if kind == "a" else "other"},
                label=None,
                **given,
            ),
        )
    ):
        store = tmp_path / f"{number}.ldb"
        with Pipeline([make("a"), LevelDBSink(store)]) as pipeline:
            pipeline.wait()
        with Pipeline([make("a"), LevelDBSink(store, append=True)]) as pipeline:
            pipeline.wait()
        with pytest.raises(StateMismatchError):
            Pipeline([make("small"), LevelDBSink(store, append=True)])


def test_a_gray_pair(folder):
    reader = ListReader(
        names("a"), None, 4, SHAPE, color="gray", pairs={"right": names("mask")}, root=folder, epochs=1
    )
    for batch in batches_of(reader):
        assert batch["right"].shape == batch.images.shape == (4, *SHAPE, 1)
        assert Image.fromarray(batch["right"][0, :, :, 0]).mode == "L"


def test_parquet_at_a_url(folder, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"image": names("a"), "target": names("b", "webp"), "mask": names("mask")}
    files = {name: [(folder / one).read_bytes() for one in column] for name, column in columns.items()}
    parquet.write_table(pa.table(files), tmp_path / "a.parquet", row_group_size=2)
    given = {
        "image": ("image", "target"),
        "masks": "mask",
        "label": None,
        "window_bytes": 40_000,
        **options(),
    }
    expected = batches_of(TableReader(tmp_path / "a.parquet", 5, SHAPE, **given))
    with ObjectServer({"data/a.parquet": (tmp_path / "a.parquet").read_bytes()}) as server:
        reader = TableReader("s3://data/a.parquet", 5, SHAPE, storage_options=server.options, **given)
        found = batches_of(reader)
        figures = reader.fetched()
    for batch, other in zip(found, expected, strict=True):
        assert batch.keys == other.keys
        for name, array in other.fields.items():
            np.testing.assert_array_equal(batch[name], array)
    assert figures["held"] == 0
    assert figures["fetched"] >= sum(len(one) for column in files.values() for one in column)


def test_columns_at_a_url_share_what_is_fetched_ahead(folder, tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"image": names("a"), "target": names("b", "webp"), "mask": names("mask")}
    files = {name: [(folder / one).read_bytes() for one in column] for name, column in columns.items()}
    parquet.write_table(pa.table(files), tmp_path / "a.parquet", row_group_size=2)
    limits = []

    class Spied(fetching.Fetcher):
        def __init__(self, owner, ranges, **more):
            limits.append(more["max_bytes"])
            super().__init__(owner, ranges, **more)

    monkeypatch.setattr(fetching, "Fetcher", Spied)
    given = {
        "image": ("image", "target"),
        "masks": "mask",
        "label": None,
        "prefetch_bytes": 10**6,
        **options(),
    }
    with ObjectServer({"data/a.parquet": (tmp_path / "a.parquet").read_bytes()}) as server:
        reader = TableReader("s3://data/a.parquet", 5, SHAPE, storage_options=server.options, **given)
        limits.clear()
        with Pipeline([reader]) as pipeline:
            assert len(pipeline.dequeue().indices) == 5
    # Those of the run come last.
    image, target, mask = limits[-3:]
    assert 0 < mask < image
    assert 10**6 - 3 <= image + target + mask <= 10**6


def test_encoded_tables_keep_masks(folder):
    pa = pytest.importorskip("pyarrow")
    columns = {"image": names("a"), "mask": names("mask")}
    files = {name: [(folder / one).read_bytes() for one in column] for name, column in columns.items()}
    reader = TableReader(pa.table(files), 5, SHAPE, masks="mask", label=None, epochs=1, shuffle=False)
    (batch,) = batches_of(Encoded(reader, "original"))
    assert batch.images.tolist() == files["image"]
    for png, name in zip(batch["masks"], names("mask"), strict=True):
        with Image.open(io.BytesIO(png)) as mask, Image.open(folder / name) as original:
            np.testing.assert_array_equal(np.asarray(mask), np.asarray(original))
