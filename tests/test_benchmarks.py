"""The benchmarks run, say who is missing or fails, and count no image that was not returned."""

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import jpeg_bytes, photograph

import highway

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PARTICIPANTS = BENCHMARKS / "participants"
FILES = 12
CLASSES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve photographs in three class folders."""
    directory = tmp_path_factory.mktemp("photos")
    for number in range(FILES):
        target = directory / f"class{number * CLASSES // FILES}"
        target.mkdir(exist_ok=True)
        picture = photograph(90 + number, 130 - number, seed=number)
        (target / f"{number:02}.jpg").write_bytes(jpeg_bytes(picture))
    return directory


@pytest.fixture
def participants(monkeypatch):
    """Imports modules of benchmarks/participants by name; they are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(PARTICIPANTS)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(PARTICIPANTS)):
            del sys.modules[name]


def run(script, *arguments, path=()):
    """A script of benchmarks/ in a fresh interpreter that can import highway."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, path), str(Path(highway.__file__).parents[1])])
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_queue_hop_measures(tmp_path):
    done = run(
        "queue_hop.py", "--count", 20, "--rounds", 1, "--stages", 0, 2, "--json", tmp_path / "hop.json"
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "hop.json").read_text())
    assert {"cpu", "python", "numpy", "highway"} <= set(figures["machine"])
    for name in ("queues full, one more stage", "one under way, one more stage", "queue alone, two threads"):
        assert len(figures["microseconds"][name]) == 2
        assert name in done.stdout
    assert run("queue_hop.py", "--stages", 3).returncode == 2


@pytest.mark.parametrize(
    "script", ["main_job.py", "scaling.py", "startup.py", "memory.py", "participants/run.py"]
)
def test_help_tells_the_options(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "--threads" in done.stdout


@pytest.mark.parametrize("script", ["main_job.py", "scaling.py", "startup.py", "memory.py"])
def test_a_folder_without_photographs_is_one_sentence(script, tmp_path):
    done = run(script, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("expected class folders of JPEGs")
    assert "Traceback" not in done.stderr


def test_main_job_measures_highway_and_the_limit(folder, tmp_path):
    result = tmp_path / "result.json"
    options = [
        "--only",
        "highway,spdl",
        "--rounds",
        "1",
        "--seconds",
        "0.05",
        "--warmup",
        "0.05",
        "--threads",
        "1",
    ]
    done = run("main_job.py", folder, *options, "--json", result)
    assert done.returncode == 0, done.stderr
    record = json.loads(result.read_text())
    assert record["files"] == FILES
    for job in ("fit", "rrc"):
        rows = {row["label"]: row for row in record["jobs"][job]["rows"]}
        assert rows["limit"]["status"] == "ok", rows["limit"]["reason"]
        assert rows["highway"]["status"] == "ok", rows["highway"]["reason"]
        assert rows["highway"]["images_per_second"] > 0
        assert rows["highway"]["rounds"][0]["versions"]["numpy"] == np.__version__
        # who cannot be imported is in the table, with the reason
        if rows["spdl"]["status"] == "missing":
            assert "spdl: missing: no interpreter that was given imports spdl.io" in done.stdout


def test_scaling_startup_and_memory_measure_highway(folder, tmp_path):
    result = tmp_path / "result.json"
    quick = ["--rounds", "1", "--seconds", "0.05", "--warmup", "0.05", "--threads", "1,2", "--job", "fit"]
    done = run("scaling.py", folder, *quick, "--json", result)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(result.read_text())["jobs"]["fit"]["highway"]) == {"1", "2"}

    done = run("startup.py", folder, "--rounds", "1", "--threads", "1", "--json", result)
    assert done.returncode == 0, done.stderr
    assert all(len(values) == 1 for values in json.loads(result.read_text())["seconds"].values())

    done = run("memory.py", folder, "--epochs", "4", "--threads", "1", "--hold", "2", "--json", result)
    assert done.returncode == 0, done.stderr
    assert [len(job["epochs"]) for job in json.loads(result.read_text())["jobs"].values()] == [4, 4]


PARTICIPANT = """
import numpy as np
{imports}

def batches(directory, job, threads, variant, seed):
    rng = np.random.default_rng(seed)
    while True:
        images = rng.integers(0, 256, job.batch_shape(job.batch_size)).astype(job.dtype)
        labels = rng.integers(0, 3, job.batch_size)
        {action}
        yield images, labels
"""


@pytest.mark.parametrize(
    ("imports", "action", "status", "reason"),
    [
        ("import package_that_nobody_has", "", "missing", "No module named 'package_that_nobody_has'"),
        ("import json.nothing", "", "missing", "No module named 'json.nothing'"),
        ("raise OSError('libsomething.so: not found')", "", "failed", "libsomething.so: not found"),
        ("", "raise RuntimeError('broken decoder')", "failed", "RuntimeError: broken decoder"),
        ("", "images[:] = 7", "failed", "ValueError: all pixels of a batch are 7; expected photographs"),
        ("", "images = images.astype('float64')", "failed", "images are float64"),
        ("", "images = images[:, :, :, :2]", "failed", "images have shape (16, 240, 320, 2)"),
        ("", "labels = labels[:3]", "failed", "labels have shape (3,); expected (16,)"),
        ("", "labels += 1", "failed", "found the labels [1, 2, 3]; expected those of 3 classes"),
    ],
)
def test_a_participant_that_is_missing_or_wrong_says_why(folder, tmp_path, imports, action, status, reason):
    (tmp_path / "odd_one.py").write_text(PARTICIPANT.format(imports=imports, action=action))
    quick = ["--threads", "1", "--warmup", "0.01", "--seconds", "0.01"]
    done = run("participants/run.py", "odd_one", "--job", "fit", "--dir", folder, *quick, path=[tmp_path])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == status
    assert reason in result["reason"]


def fitted(number, mirrored):
    """What a right participant returns of a file: 240x320."""
    picture = photograph(90 + number, 130 - number, seed=number)
    width, height = picture.size
    box_width, box_height = min(width, height * 4 / 3), min(height, width * 3 / 4)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    image = np.asarray(picture.resize((320, 240), box=(left, top, left + box_width, top + box_height)))
    return image[:, ::-1] if mirrored else image


def prove(participants, *, same_file=False, wrong_label=False, never_mirrored=False, upside_down=False):
    """A proof over 48 images that are right but for what the arguments say."""
    jobs, proof = participants("jobs"), participants("proof")
    labels = np.arange(FILES) * CLASSES // FILES
    cells = np.stack([fitted(n, False).reshape(4, 60, 5, 64, 3).mean((1, 3)) for n in range(FILES)])
    judge = proof.Proof(jobs.JOBS["fit"], labels.tolist(), cells)
    for start in range(0, 48, 16):
        numbers = [0 if same_file else n % FILES for n in range(start, start + 16)]
        images = np.stack([fitted(n, k % 2 and not never_mirrored) for k, n in enumerate(numbers)])
        if upside_down:
            images = np.ascontiguousarray(images[:, ::-1])
        batch_labels = (labels[numbers] + wrong_label) % CLASSES
        assert judge.check(images, batch_labels) == 16
        judge.look(images, batch_labels)
    judge.conclude()


def test_proof_accepts_the_files(participants):
    prove(participants)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("same_file", "different images among 48"),
        ("wrong_label", "48 of 48 images are none of the files of their label"),
        ("upside_down", "images are none of the files of their label"),
        ("never_mirrored", "0 of 48 images are mirrored; expected half"),
    ],
)
def test_proof_refuses(participants, fault, reason):
    with pytest.raises(ValueError, match=reason):
        prove(participants, **{fault: True})


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (1, 1), (1, 900), (2000, 7)])
def test_windows_are_inside_the_picture(participants, size):
    windows = participants("windows")
    height, width = size
    rng = random.Random(3)
    found = [windows.random_window(rng, height, width) for _ in range(200)]
    for top, left, rows, columns in [*found, windows.centre_window(height, width, 240, 320)]:
        assert 0 <= top < top + rows <= height or height == rows == 1
        assert 0 <= left < left + columns <= width or width == columns == 1
    assert windows.centre_window(375, 500, 240, 320) == (0, 0, 375, 500)
    assert windows.centre_window(500, 375, 240, 320) == (109, 0, 281, 375)
