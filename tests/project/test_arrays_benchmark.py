"""The benchmark of decoded pictures measures who gives the right result, and nobody else."""

import importlib
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
SMALL = ("--batch", 3, "--size", 20, "--crop", 13, "--rounds", 2, "--seconds", 0.01)


@pytest.fixture
def arrays(monkeypatch):
    """The script as a module; it is forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("arrays")
    for name in ("arrays", "machine"):
        sys.modules.pop(name, None)


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(highway.__file__).parents[1])}
    command = [sys.executable, str(BENCHMARKS / "arrays.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_everybody_is_measured_in_every_round(tmp_path):
    done = run(*SMALL, "--json", tmp_path / "arrays.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "arrays.json").read_text())
    assert {"highway", "numpy", "numpy batch", "memcpy"} <= set(figures["seconds"])
    for name, seconds in figures["seconds"].items():
        assert len(seconds) == 2 and min(seconds) > 0
        assert name in done.stdout
        assert figures["versions"][name] in done.stdout
    assert figures["x slower"]["highway"] == 1
    if "torchvision" not in figures["seconds"]:
        assert "--python names an interpreter" in done.stdout


def work_of(arrays, folder):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 20, 24, 3), dtype=np.uint8)
    corners, flags = arrays.draws(images, 13)
    np.savez(folder / "work.npz", images=images, corners=corners, flags=flags, crop=13)
    return arrays.Work(folder)


def test_all_do_the_same_work(arrays, tmp_path):
    """And it is what was asked for: windows at the drawn places, mirrored where drawn, (x / 255 - mean) / std."""
    work = work_of(arrays, tmp_path)
    assert 0 < sum(work.flags) < 6
    expected = np.empty((6, 3, 13, 13))
    for n, ((top, left), flag) in enumerate(zip(work.corners, work.flags, strict=True)):
        window = work.images[n, top : top + 13, left : left + 13][:, :: -1 if flag else 1]
        expected[n] = ((window / 255 - np.array(arrays.MEAN)) / np.array(arrays.STD)).transpose(2, 0, 1)
    for name in ("highway", "numpy", "numpy batch"):
        make = arrays.PARTICIPANTS[name](work)
        make()
        arrays.check(name, make(), expected)


def test_who_gives_something_else_is_not_measured(arrays):
    right = np.ones((2, 3, 4, 4), np.float32)
    arrays.check("it", right, right)
    for wrong in (
        right + np.float32(1e-4),
        right[:1],
        right.astype(np.float64),
        right.transpose(0, 2, 3, 1),
        right * np.float32(np.nan),
    ):
        with pytest.raises(SystemExit, match=r"it gives .* expected float32"):
            arrays.check("it", wrong, right)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--crop", 30, "--size", 20), "--crop must not be larger than --size"),
        (("--rounds", 0), "must be 1 or more"),
        (("--core", 100000), "--core must be one of"),
        (("--python", "/no/such/python"), "/no/such/python cannot be run"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    done = run(*arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
