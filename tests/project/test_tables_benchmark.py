"""The benchmark of rows of a table measures who returns every row with its label, and nobody else."""

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from repository import ROOT

import highway

BENCHMARKS = ROOT / "benchmarks"
SMALL = ("--rows", 500, "--columns", 3, "--batch", 64, "--rounds", 2, "--seconds", 0.01)


@pytest.fixture
def tables(monkeypatch):
    """The script as a module; it is forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("tables")
    for name in ("tables", "machine"):
        sys.modules.pop(name, None)


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(highway.__file__).parents[1])}
    command = [sys.executable, str(BENCHMARKS / "tables.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_everybody_is_measured_in_every_round(tmp_path):
    done = run(*SMALL, "--json", tmp_path / "tables.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "tables.json").read_text())
    assert {"highway", "highway alone", "numpy", "memcpy"} <= set(figures["seconds"])
    for name, seconds in figures["seconds"].items():
        assert len(seconds) == 2 and min(seconds) > 0
        assert name in done.stdout
    assert figures["of memcpy"]["memcpy"] == 1
    if "torch" not in figures["seconds"]:
        assert "--python names an interpreter" in done.stdout


@pytest.mark.parametrize("name", ["highway", "highway alone", "numpy", "memcpy"])
def test_all_return_the_rows_and_labels_of_the_table(tables, name):
    table = tables.Table(100, 5, 16)
    batches = tables.PARTICIPANTS[name](table)
    for x, y in itertools.islice(batches, 14):
        assert (x == table.x[y]).all()
    batches.close()
    tables.check(name, tables.PARTICIPANTS[name](table), table)


def test_who_returns_something_else_is_not_measured(tables):
    table = tables.Table(10, 2, 5)
    halves = [(table.x[:5], table.y[:5]), (table.x[5:], table.y[5:])]
    tables.check("it", iter(halves), table)
    with pytest.raises(SystemExit, match="does not have every row once"):
        tables.check("it", iter([halves[0], halves[0]]), table)
    with pytest.raises(SystemExit, match="do not belong together"):
        tables.check("it", iter([(table.x[:5], np.roll(table.y[:5], 1)), halves[1]]), table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rows", 5, "--batch", 6), "--batch must not be larger than --rows"),
        (("--rounds", 0), "must be 1 or more"),
        (("--python", "/no/such/python"), "/no/such/python cannot be run"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    done = run(*arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
