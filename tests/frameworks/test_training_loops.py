"""The training loops of examples/frameworks, each with its usual loader and with Highway: what their models saw.

Photographs are told apart by their color, in the images that the first layer gets.
"""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from framework_programs import programs
from numbered_photographs import make_photographs
from repository import HELPERS, ROOT

import highway
from highway.engine import Pipeline
from highway.modules import ImageFileReader

FRAMEWORKS = ROOT / "examples" / "frameworks"
WATCHED = Path(__file__).with_name("watched.py")
# Steps of training before a kill. Checkpoints are made after every second step: the last one at the end of the first
# epoch of four, or within the second.
KILLS = (5, 7)
LIGHTNING_PROCESSES = Path(__file__).with_name("lightning_processes.py")
LIMIT = 120
TRAIN, VAL = range(28), range(28, 39)
BATCH = 8
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with the photographs, and their numbers by key."""
    root = tmp_path_factory.mktemp("photographs")
    return root, make_photographs(root / "train", TRAIN) | make_photographs(root / "val", VAL)


@pytest.fixture(scope="module")
def epochs(photographs):
    """Return the epochs of a reader: lists of batches of numbers."""
    root, numbers = photographs

    def of(batch_size=BATCH, part="train", count=2, **options):
        reader = ImageFileReader(root / part, batch_size, 32, epochs=count, **options)
        with Pipeline([reader]) as pipeline:
            return [[[numbers[key] for key in batch.keys] for batch in pipeline] for _ in range(count)]

    return of


def requires(*packages):
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


def run(program, *arguments, folder, cwd=None, kill=None, launcher=(), **environment):
    """Run a program; return the steps of each rank as (whether it trains, numbers).

    A name is that of an example.
    """
    notes = [] if program == LIGHTNING_PROCESSES else [WATCHED]
    folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, *launcher, *notes, FRAMEWORKS / program, *map(str, arguments)],
        cwd=cwd or folder,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join([str(Path(highway.__file__).parents[1]), str(HELPERS)]),
            "WATCHED_DIR": str(folder),
            "WATCHED_KILL": str(-1 if kill is None else kill),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == (0 if kill is None else -signal.SIGKILL), done.stdout + done.stderr
    return [
        [tuple(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    ]


def training(steps):
    return [numbers for trains, numbers in steps if trains]


def validation(steps):
    return [numbers for trains, numbers in steps if not trains]


def flat(batches):
    return sorted(number for batch in batches for number in batch)


def check_two_epochs(steps, epochs):
    """Two epochs of training in the order of the pipeline, each followed by a whole validation."""
    first, second = epochs()
    (whole,) = epochs(part="val", count=1, shuffle=False)
    expected = [*((True, batch) for batch in first), *((False, batch) for batch in whole)]
    expected += [*((True, batch) for batch in second), *((False, batch) for batch in whole)]
    assert [(trains, [*numbers]) for trains, numbers in steps] == expected
    assert flat(first) == flat(second) == [*TRAIN]
    assert flat(whole) == [*VAL]


def test_reference_of_torchvision(photographs, epochs, tmp_path):
    requires("torch")
    (steps,) = run("reference/with_highway.py", photographs[0], folder=tmp_path / "run")
    check_two_epochs(steps, epochs)


def test_ranks_of_torchrun_are_disjoint_and_complete(photographs, epochs, tmp_path):
    requires("torch")
    root = photographs[0] / "train"
    ranks = run("torchrun/with_highway.py", root, folder=tmp_path / "run", launcher=TORCHRUN)
    assert len(ranks) == 2
    for rank, steps in enumerate(ranks):
        expected = epochs(4, shard=(rank, 2))
        assert training(steps) == [batch for epoch in expected for batch in epoch]
    half = len(ranks[0]) // 2
    for part in (slice(half), slice(half, None)):
        assert flat(training(ranks[0])[part] + training(ranks[1])[part]) == [*TRAIN]


def test_lightning_sees_whole_epochs_and_validations(photographs, epochs, tmp_path):
    requires("torch", "lightning")
    (steps,) = run("lightning/with_highway.py", photographs[0], folder=tmp_path / "run")
    (whole,) = epochs(part="val", count=1, shuffle=False)
    sanity, steps = steps[:2], steps[2:]
    assert sanity == [(False, batch) for batch in whole[:2]]
    check_two_epochs(steps, epochs)


def test_lightning_with_limited_epochs(photographs, epochs, tmp_path):
    requires("torch", "lightning")
    (steps,) = run("lightning/with_highway.py", photographs[0], "--limit", 3, folder=tmp_path / "run")
    first, second = epochs()
    (whole,) = epochs(part="val", count=1, shuffle=False)
    assert training(steps) == first[:3] + second[:3]
    assert validation(steps) == whole[:2] + whole + whole


@pytest.mark.parametrize("kill", KILLS)
def test_lightning_killed_within_an_epoch_and_resumed(photographs, epochs, tmp_path, kill):
    requires("torch", "lightning")
    data, checkpoints = photographs[0], tmp_path / "checkpoints"
    arguments = ("lightning/with_highway.py", data, "--checkpoints", checkpoints)
    (killed,) = run(*arguments, folder=tmp_path / "killed", kill=kill)
    assert len(training(killed)) == kill
    (resumed,) = run(*arguments, "--resume", folder=tmp_path / "resumed")
    undisturbed = [batch for epoch in epochs() for batch in epoch]
    # The last checkpoint is after an even number of steps.
    assert training(resumed) == undisturbed[kill // 2 * 2 :]
    (whole,) = epochs(part="val", count=1, shuffle=False)
    assert validation(resumed)[-len(whole) :] == whole


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "ddp_fork"])
def test_lightning_in_two_processes(photographs, epochs, tmp_path, strategy):
    """Loaders of training are made in the processes, the one of validation before them."""
    requires("torch", "lightning")
    ranks = run(LIGHTNING_PROCESSES, strategy, photographs[0], folder=tmp_path / "run")
    assert len(ranks) == 2
    (whole,) = epochs(part="val", count=1, shuffle=False)
    for rank, steps in enumerate(ranks):
        assert training(steps) == [batch for epoch in epochs(4, shard=(rank, 2)) for batch in epoch]
        # The sanity check takes two batches, all of them.
        assert validation(steps) == 3 * whole


@pytest.mark.parametrize("kill", KILLS)
def test_accelerate_killed_within_an_epoch_and_resumed(photographs, epochs, tmp_path, kill):
    requires("torch", "accelerate")
    data, checkpoints = photographs[0] / "train", tmp_path / "checkpoints"
    arguments = ("accelerate/with_highway.py", data, "--checkpoints", checkpoints)
    (killed,) = run(*arguments, folder=tmp_path / "killed", kill=kill)
    undisturbed = [batch for epoch in epochs() for batch in epoch]
    assert training(killed) == undisturbed[:kill]
    (resumed,) = run(*arguments, "--resume", folder=tmp_path / "resumed")
    assert training(resumed) == undisturbed[kill // 2 * 2 :]


def test_trainer_of_transformers(photographs, epochs, tmp_path):
    requires("torch", "accelerate", "transformers")
    (steps,) = run("trainer/with_highway.py", photographs[0], folder=tmp_path / "run")
    check_two_epochs(steps, epochs)


@pytest.mark.parametrize("kill", KILLS)
def test_trainer_of_transformers_killed_within_an_epoch_and_resumed(photographs, epochs, tmp_path, kill):
    requires("torch", "accelerate", "transformers")
    arguments = ("trainer/with_highway.py", photographs[0], "--checkpoints", tmp_path / "checkpoints")
    (killed,) = run(*arguments, folder=tmp_path / "killed", kill=kill)
    undisturbed = [batch for epoch in epochs() for batch in epoch]
    assert training(killed) == undisturbed[:kill]
    (resumed,) = run(*arguments, "--resume", folder=tmp_path / "resumed")
    assert training(resumed) == undisturbed[kill // 2 * 2 :]


def test_trainer_of_transformers_in_two_processes(photographs, tmp_path):
    requires("torch", "accelerate", "transformers")
    ranks = run("trainer/with_highway.py", photographs[0], folder=tmp_path / "run", launcher=TORCHRUN)
    assert len(ranks) == 2
    half = len(training(ranks[0])) // 2
    for part in (slice(half), slice(half, None)):
        assert flat(training(ranks[0])[part] + training(ranks[1])[part]) == [*TRAIN]


@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_keras(photographs, epochs, tmp_path, backend):
    requires("keras", backend)
    folder, environment = tmp_path / "run", {"WATCHED": "keras", "KERAS_BACKEND": backend}
    (steps,) = run("keras/with_highway.py", photographs[0], folder=folder, **environment)
    check_two_epochs(steps, epochs)


@pytest.mark.parametrize("name", ["jax", "flax"])
def test_jax_and_flax(photographs, epochs, tmp_path, name):
    requires("jax", name)
    (steps,) = run(f"{name}/with_highway.py", photographs[0], folder=tmp_path / "run", WATCHED=name)
    check_two_epochs(steps, epochs)


def check_resumed(name, page, kill, photographs, epochs, folder, **environment):
    """The program of a page is killed, and the next run continues after its last checkpoint."""
    program = folder / name
    program.write_text(programs(page)[name], encoding="utf-8")
    (folder / "demo-output").mkdir()
    (folder / "demo-output" / "photos").symlink_to(photographs[0] / "train", target_is_directory=True)
    (killed,) = run(program, folder=folder / "killed", cwd=folder, kill=kill, **environment)
    (resumed,) = run(program, folder=folder / "resumed", cwd=folder, **environment)
    undisturbed = [batch for epoch in epochs() for batch in epoch]
    assert training(killed) == undisturbed[:kill]
    assert training(resumed) == undisturbed[kill // 2 * 2 :]


@pytest.mark.parametrize("kill", KILLS)
def test_jax_killed_within_an_epoch_and_resumed(photographs, epochs, tmp_path, kill):
    requires("jax")
    check_resumed("resume_jax.py", "docs/jax.md", kill, photographs, epochs, tmp_path, WATCHED="jax")


@pytest.mark.parametrize(("backend", "kill"), [("jax", 5), ("jax", 7), ("torch", 7), ("tensorflow", 7)])
def test_keras_killed_within_an_epoch_and_resumed(photographs, epochs, tmp_path, backend, kill):
    requires("keras", backend)
    watched = {"WATCHED": "keras", "KERAS_BACKEND": backend}
    check_resumed("resume_keras.py", "docs/keras.md", kill, photographs, epochs, tmp_path, **watched)


@pytest.mark.parametrize(
    "program", ["accelerate", "flax", "jax", "keras", "lightning", "reference", "torchrun", "trainer"]
)
def test_usual_form(photographs, tmp_path, program):
    """What the difference is taken from runs as well: each epoch has every photograph once."""
    others = {"jax": "jax", "reference": "torch", "torchrun": "torch", "trainer": "transformers"}
    requires(
        *(["keras", "tensorflow"] if program == "keras" else ["torchvision", others.get(program, program)])
    )
    by_name = program in ("flax", "jax", "keras")
    watched = {"WATCHED": program, "KERAS_BACKEND": "tensorflow"} if by_name else {}
    root = photographs[0] / "train" if program in ("accelerate", "torchrun") else photographs[0]
    launcher = TORCHRUN if program == "torchrun" else ()
    ranks = run(f"{program}/usual.py", root, folder=tmp_path / "run", launcher=launcher, **watched)
    steps = [step for rank in ranks for step in rank]
    assert flat(training(steps)) == sorted(2 * [*TRAIN])
    assert {*flat(validation(steps))} <= {*VAL}
