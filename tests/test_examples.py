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

import highway

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TESTED = {"train_softmax.py", "own_parts.py"}


def run(name, *arguments):
    package = str(Path(highway.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def colours(tmp_path):
    """Two classes that a linear model can tell apart: reddish and bluish noise."""
    rng = np.random.default_rng(0)
    for label, colour in (("blue", (60, 90, 170)), ("red", (170, 90, 60))):
        (tmp_path / label).mkdir()
        for number in range(20):
            pixels = rng.integers(-60, 61, (40, 50, 3)) + colour
            picture = Image.fromarray(pixels.astype(np.uint8))
            (tmp_path / label / f"{number}.jpg").write_bytes(jpeg_bytes(picture))
    return tmp_path


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


def test_training_learns(colours):
    answer = run("train_softmax.py", colours, "--epochs", 4)
    assert (answer.returncode, answer.stderr) == (0, "")
    losses = [float(loss) for loss in re.findall(r"epoch +\d+: loss ([\d.]+)", answer.stdout)]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert answer.stdout.splitlines()[-1] == "right: 100%"


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
