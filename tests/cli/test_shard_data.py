"""highway info, bench and preview of tar shards and tables."""

import re

import pytest
from commands import run
from pictures import class_folders
from PIL import Image
from tars import shards_of_folder

from highway.modules import ImageFileReader

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
        (folder, ["--label", "cls"], "--label is for tar shards and tables; .* is neither"),
        (folder, ["--no-labels"], "--no-labels is for tar shards and tables"),
        (folder, ["--image", "jpg"], "--image is for tar shards and tables"),
        (table, [], "has no column 'image'"),
        (tars, ["--label", "json:a"], r"no sample .* has a member '\.json'"),
    ):
        code, _, errors = run(capsys, "bench", path, "--epochs", 1, *options)
        assert code == 1 and re.search(says, errors), errors
        assert errors.count("\n") == 1
    with pytest.raises(SystemExit):
        run(capsys, "bench", tars, "--label", "cls", "--no-labels")
