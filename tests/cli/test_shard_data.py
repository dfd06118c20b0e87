"""highway info, classes, bench, preview and pack of tar shards, tables and manifests."""

import csv
import gzip
import json
import re

import pytest
from commands import run
from pictures import class_folders
from PIL import Image
from tars import shards_of_folder

from highway.engine import Pipeline
from highway.modules import ImageFileReader, TarReader

pytestmark = pytest.mark.python


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photos"), 3, 5)


@pytest.fixture(scope="module")
def tars(folder, tmp_path_factory):
    keys = [*ImageFileReader(folder, 1, 8).known_keys()]
    where = tmp_path_factory.mktemp("tars")
    shards_of_folder(folder, keys, where, 2)
    return where / "part-*.tar"


@pytest.fixture(scope="module")
def table(folder, tmp_path_factory):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = sorted(folder.rglob("*.jpg"))
    columns = {
        "photo": [path.read_bytes() for path in paths],
        "kind": [path.parent.name for path in paths],
    }
    path = tmp_path_factory.mktemp("table") / "data.parquet"
    parquet.write_table(pa.table(columns), path, row_group_size=4)
    return path


@pytest.fixture(scope="module")
def manifests(folder, tmp_path_factory):
    """A CSV, a TSV and a JSONL file of the pictures."""
    where = tmp_path_factory.mktemp("manifests")
    rows = [(str(path), path.parent.name) for path in sorted(folder.rglob("*.jpg"))]
    for name, mark in (("list.csv", ";"), ("list.tsv", "\t")):
        with open(where / name, "w", newline="") as file:
            csv.writer(file, delimiter=mark).writerows([("path", "class"), *rows])
    lines = [json.dumps({"path": path, "class": name}) for path, name in rows]
    (where / "list.jsonl").write_text("\n".join(lines))
    return where


def test_manifests(capsys, manifests, tmp_path):
    for name in ("list.csv", "list.tsv", "list.jsonl"):
        code, output, errors = run(capsys, "info", manifests / name)
        assert (code, errors) == (0, "")
        assert re.search(r"^kind +a manifest$", output, re.MULTILINE)
        assert re.search(r"^rows +15$", output, re.MULTILINE)
        assert re.search(r"^column 0 +path$", output, re.MULTILINE)
        assert re.search(r"^column 1 +class$", output, re.MULTILINE)
        code, output, errors = run(capsys, "classes", manifests / name)
        assert (code, errors, output) == (0, "", "0\tclass0\t5\n1\tclass1\t5\n2\tclass2\t5\n")
        code, output, _ = run(capsys, "bench", manifests / name, "--epochs", 1, "--size", 16, "--no-labels")
        assert code == 0 and "15 files, in" in output
    code, output, _ = run(
        capsys, "preview", manifests / "list.csv", "-o", tmp_path / "sheet.png", "--size", 32
    )
    assert code == 0 and "15 of 15 files in 3 classes" in output


def test_classes(capsys, tars, table, tmp_path):
    code, output, errors = run(capsys, "classes", tars)
    assert (code, errors, output) == (0, "", "0\t0\t5\n1\t1\t5\n2\t2\t5\n")
    upper = tmp_path / "PART.TAR"
    upper.symlink_to(tars.with_name("part-00.tar"))
    code, output, errors = run(capsys, "info", upper)
    assert (code, errors) == (0, "") and "tar shards" in output
    names = tmp_path / "names"
    names.write_text("cat\ndog\nowl\nemu\n")
    code, output, _ = run(capsys, "classes", tars, "--classes", names)
    assert (code, output) == (0, "0\tcat\t5\n1\tdog\t5\n2\towl\t5\n3\temu\t0\n")
    code, output, errors = run(capsys, "classes", table, "--image", "photo", "--label", "kind")
    assert (code, errors, output) == (0, "", "0\tclass0\t5\n1\tclass1\t5\n2\tclass2\t5\n")
    code, _, errors = run(capsys, "classes", table, "--image", "photo", "--no-labels")
    assert code == 1 and "the labels are missing; expected numbers of classes" in errors


@pytest.mark.parametrize("encoding", ["original", "jpeg:20"])
def test_packing_keeps_pictures_and_labels(capsys, folder, tars, table, manifests, tmp_path, encoding):
    gzipped = tmp_path / "packed.tar.gz"
    with open(tars.with_name("part-00.tar"), "rb") as file:
        gzipped.write_bytes(gzip.compress(file.read()))
    sources = {
        "folder": (folder, ()),
        "tars": (tars, ()),
        "table": (table, ("--image", "photo", "--label", "kind")),
        "csv": (manifests / "list.csv", ()),
        "gzip": (gzipped, ()),
    }
    found = {}
    for name, (source, options) in sources.items():
        target = tmp_path / name / "out-{00..}.tar"
        code, output, errors = run(capsys, "pack", source, target, "--encoding", encoding, *options)
        assert (code, errors) == (0, "")
        count = 8 if name == "gzip" else 15
        noun = {"folder": "files", "csv": "files", "table": "rows"}.get(name, "samples")
        assert (f"{count} samples in" in output and f"15 samples of 15 {noun}" in output) or name == "gzip"
        code, output, _ = run(capsys, "pack", source, target, "--encoding", encoding, *options)
        assert code == 0 and ": 0 samples in " in output and f", {count} were there already" in output
        reader = TarReader(tmp_path / name / "out.json", 5, 24, shuffle=False, epochs=1)
        with Pipeline([reader]) as pipeline:
            found[name] = [(batch.images.tobytes(), batch.labels.tolist()) for batch in pipeline]
        assert reader.classes == (
            ["class0", "class1", "class2"] if name in ("folder", "table", "csv") else None
        )
    assert found["tars"] == found["table"] == found["csv"] == found["folder"]
    assert found["gzip"][0] == found["folder"][0]
    code, output, _ = run(capsys, "classes", tmp_path / "table" / "out.json")
    assert (code, output) == (0, "0\tclass0\t5\n1\tclass1\t5\n2\tclass2\t5\n")
    code, _, errors = run(capsys, "pack", tars, tmp_path / "raw-{0..}.tar.zst")
    assert code == 1 and "names a compressed tar" in errors


def test_packing_tars_into_a_store_of_arrays(capsys, tars, tmp_path):
    pytest.importorskip("plyvel")
    code, output, errors = run(capsys, "pack", tars, tmp_path / "store", "--encoding", "raw:8x8")
    assert (code, errors) == (0, "") and "15 samples of 15 samples" in output
    code, _, errors = run(capsys, "pack", tmp_path / "store", tmp_path / "other")
    assert code == 1 and "is a store" in errors


def test_info_of_tars(capsys, tars):
    code, output, errors = run(capsys, "info", tars)
    assert (code, errors) == (0, "")
    assert re.search(r"^kind +tar shards$", output, re.MULTILINE)
    assert re.search(r"^tars +2, [\d,]+ bytes$", output, re.MULTILINE)
    assert re.search(r"^samples +15$", output, re.MULTILINE)
    assert re.search(r"^endings +15 \.jpg, 15 \.cls$", output, re.MULTILINE)
    code, _, errors = run(capsys, "info", tars.with_name("gone-*.tar"))
    assert code == 1 and "no file has such a name" in errors


@pytest.mark.parametrize("where", ["file", "folder"])
def test_info_of_a_table(capsys, table, where):
    code, output, errors = run(capsys, "info", table if where == "file" else table.parent)
    assert (code, errors) == (0, "")
    assert re.search(r"^kind +a table$", output, re.MULTILINE)
    assert re.search(r"^rows +15$", output, re.MULTILINE)
    assert re.search(r"^row groups +4$", output, re.MULTILINE)
    assert re.search(r"^column photo +binary$", output, re.MULTILINE)
    assert re.search(r"^column kind +string$", output, re.MULTILINE)


def test_a_folder_of_classes_beside_a_table_stays_one(capsys, table, tmp_path):
    folder = class_folders(tmp_path / "photos", 2, 2)
    (folder / "list.parquet").write_bytes(table.read_bytes())
    code, output, _ = run(capsys, "info", folder)
    assert code == 0 and "class folders" in output


def test_bench(capsys, tars, table):
    options = ("--epochs", 2, "--batch-size", 4, "--size", 16)
    code, output, errors = run(capsys, "bench", tars, *options)
    assert (code, errors) == (0, "")
    assert f"15 samples, in {tars}" in output
    assert re.search(r"[\d,]+ images/s: 30 images in 8 batches", output)
    code, output, errors = run(capsys, "bench", table, *options, "--image", "photo", "--label", "kind")
    assert (code, errors) == (0, "")
    assert f"15 rows in 3 classes, in {table}" in output
    assert re.search(r"[\d,]+ images/s: 30 images in 8 batches", output)
    code, output, _ = run(capsys, "bench", table, *options, "--image", "photo", "--no-labels")
    assert code == 0 and f"15 rows, in {table}" in output


def test_preview(capsys, tars, table, tmp_path):
    sheet = tmp_path / "sheet.png"
    options = ("-o", sheet, "--count", 6, "--size", 32)
    code, output, errors = run(capsys, "preview", tars, *options)
    assert (code, errors) == (0, "")
    assert f"{sheet}: 6 of 15 samples" in output
    with Image.open(sheet) as picture:
        width = picture.width
    assert run(capsys, "preview", tars, *options, "--original")[0] == 0
    with Image.open(sheet) as picture:
        assert picture.width > width
    code, output, _ = run(capsys, "preview", table, *options, "--image", "photo", "--label", "kind")
    assert code == 0 and f"{sheet}: 6 of 15 rows in 3 classes" in output


def test_options_that_do_not_fit_the_data(capsys, folder, tars, table):
    for path, options, says in (
        (tars, ["--voc"], "--voc is for folders; .* names tar shards"),
        (table, ["--masks-dir", "x"], "--masks-dir is for folders; .* names a table"),
        (folder, ["--label", "cls"], "--label is for tar shards, tables and manifests; .* is none of them"),
        (folder, ["--no-labels"], "--no-labels is for tar shards, tables and manifests"),
        (folder, ["--image", "jpg"], "--image is for tar shards, tables and manifests"),
        (table, [], "has no column 'image'"),
        (tars, ["--label", "json:a"], r"no sample .* has a member '\.json'"),
    ):
        code, _, errors = run(capsys, "bench", path, "--epochs", 1, *options)
        assert code == 1 and re.search(says, errors), errors
        assert errors.count("\n") == 1
    with pytest.raises(SystemExit):
        run(capsys, "bench", tars, "--label", "cls", "--no-labels")
