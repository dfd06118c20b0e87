"""Every example runs, and does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import jpeg_bytes
from PIL import Image
from repository import ROOT
from voc_folders import annotation, thing, voc_folder

import highway

EXAMPLES = ROOT / "examples"
TESTED = {
    "detection.py",
    "train_softmax.py",
    "own_parts.py",
    "distributed/data_machine.py",
    "distributed/worker.py",
    "distributed/training_machine.py",
}
LIMIT = 100


def run(name, *arguments):
    package = str(Path(highway.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@pytest.fixture
def start(tmp_path):
    """Start an example beside others: the process, and the first line of its output."""
    package = str(Path(highway.__file__).parents[1])
    running = []

    def begin(name, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-W", "error", EXAMPLES / "distributed" / name, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": package},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        line = process.stdout.readline()
        if not line:
            pytest.fail(process.communicate(timeout=LIMIT)[1])
        return process, line

    yield begin
    for process in running:
        process.kill()
        process.communicate(timeout=LIMIT)


@pytest.fixture
def colors(tmp_path):
    """Two classes that a linear model can tell apart: reddish and bluish noise."""
    rng = np.random.default_rng(0)
    for label, color in (("blue", (60, 90, 170)), ("red", (170, 90, 60))):
        (tmp_path / label).mkdir()
        for number in range(20):
            pixels = rng.integers(-60, 61, (40, 50, 3)) + color
            picture = Image.fromarray(pixels.astype(np.uint8))
            (tmp_path / label / f"{number}.jpg").write_bytes(jpeg_bytes(picture))
    return tmp_path


def test_every_example_is_tested():
    found = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    # Those of frameworks are tested where these are installed: tests/frameworks/test_training_loops.py.
    assert {name for name in found if not name.startswith("frameworks/")} == TESTED


def test_training_learns(colors):
    answer = run("train_softmax.py", colors, "--epochs", 4)
    assert (answer.returncode, answer.stderr) == (0, "")
    losses = [float(loss) for loss in re.findall(r"epoch +\d+: loss ([\d.]+)", answer.stdout)]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert answer.stdout.splitlines()[-1] == "accuracy: 100%"


def test_training_on_a_wrong_folder_says_so(tmp_path):
    answer = run("train_softmax.py", tmp_path)
    assert answer.returncode == 1
    assert re.fullmatch(r"train_softmax: .*no class folders.*\n", answer.stderr)


def test_own_parts_run():
    answer = run("own_parts.py")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "images uint8(16, 32, 32, 3), labels [1 2 3 4 1 " in answer.stdout
    for module in ("Checkerboards", "Augmentations", "WithMeans"):
        assert re.search(rf"^{module} +\d(?: \(auto\))? +100 +1600 ", answer.stdout, re.MULTILINE)


def test_detection_tells_about_a_batch_and_draws_it(tmp_path):
    near, far = thing("dog", (11, 11, 40, 50)), thing("cat", (41, 21, 70, 40), difficult=1)
    root = voc_folder(tmp_path / "voc", {f"{number:03}": annotation(near, far) for number in range(5)})
    sheet = tmp_path / "sheet.png"
    answer = run("detection.py", root, "--split", "train", "--batch-size", 4, "-o", sheet)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "images: float32(4, 3, 512, 512), one per sample" in answer.stdout
    boxes, flags = (
        re.search(rf"^{name}: (\w+)\((\d+),.*\), one row per box$", answer.stdout, re.MULTILINE)
        for name in ("boxes", "difficult")
    )
    assert (boxes[1], flags[1], boxes[2]) == ("float32", "bool", flags[2])
    told = re.findall(r"^\d{3}\.jpg: (.*)$", answer.stdout, re.MULTILINE)
    assert len(told) == 4
    assert {*told} <= {"1 cat, 1 dog", "1 cat", "1 dog", "no boxes"}
    assert sum(line.count("1 ") for line in told) == int(boxes[2])
    with Image.open(sheet) as drawn:
        # Two in a row at least, each beside its original.
        assert drawn.width > 4 * 320


def test_detection_in_another_folder_says_so(tmp_path):
    answer = run("detection.py", tmp_path)
    assert answer.returncode == 1
    assert re.fullmatch(r"detection: VOCReader: .*JPEGImages.*\n", answer.stderr)


def address_in(line):
    return re.search(r"listening at (\S+?),?\s", line)[1]


def test_three_machines_train_on_every_picture_once_an_epoch_whatever_is_killed(
    colors, start, tmp_path_factory
):
    epochs, batch_size, batches = 6, 4, 10
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    data, line = start(
        *("data_machine.py", colors, "--listen", "tcp://127.0.0.1:*"),
        *("--epochs", epochs, "--batch-size", batch_size),
    )
    assert line.startswith("40 pictures, listening at tcp://127.0.0.1:")
    source = address_in(line)
    trains = ("training_machine.py", "--checkpoints", checkpoints, "--classes", 2, "--every", 7, "--listen")
    train, line = start(*trains, "tcp://127.0.0.1:*")
    assert line.endswith("after step 0\n")
    works = ("worker.py", "--data", source, "--train", address_in(line))
    doomed, _ = start(*works)
    assert train.stdout.readline() == "step 7\n"
    train.kill()
    doomed.kill()
    worker, _ = start(*works)
    train, line = start(*trains, address_in(line))
    first = int(re.search(r"after step (\d+)$", line)[1])
    assert first > 0
    assert first % 7 == 0
    output, errors = train.communicate(timeout=LIMIT)
    # The end of the killed one is known after a while.
    waits = (
        r"ZMQSource: the training machine \S+ receives the batches, and is alive; waits \d+ s for its end\n"
    )
    assert train.returncode == 0
    assert re.fullmatch(f"({waits})?", errors)
    last = output.splitlines()[-1]
    assert last == f"{epochs * batches} steps, pictures per class: [{20 * epochs}, {20 * epochs}]"
    assert re.search(r"^worker \S+: [\d.]+ batches/s, [\d.]+ cores$", output, re.MULTILINE)
    for process, says in ((data, "all batches sent\n"), (worker, "the data machines have ended\n")):
        output, errors = process.communicate(timeout=LIMIT)
        assert (process.returncode, output, errors) == (0, says, "")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("data_machine.py", ("missing",)),
        ("worker.py", ("--data", "tcp://127.0.0.1")),
        ("training_machine.py", ("--listen", "tcp://10.0.0.1:5555")),
    ],
)
def test_machine_that_cannot_start_says_so(tmp_path, monkeypatch, name, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HIGHWAY_SECRET_FILE", raising=False)
    answer = run(f"distributed/{name}", *arguments)
    assert answer.returncode == 1
    assert re.fullmatch(rf"{name[:-3]}: .*\n", answer.stderr)
