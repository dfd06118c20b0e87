"""shard="auto": rank and world as torchrun, JAX, Slurm or Open MPI say; what contradicts raises."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from concurrency import LIMIT
from pictures import class_folders

import highway
from highway.engine import Pipeline
from highway.errors import ArgumentError, EmptyDatasetError
from highway.modules import ArrayReader, Augmentations, ImageFileReader, Noise
from highway.sampling import launchers
from highway.sampling.launchers import shard_of
from highway.transforms import FlipX

NAMES = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in (*NAMES, "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_STEP_ID", "SLURM_PTY_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launchers, "_logged", set())
    for module in ("torch.distributed", "jax"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def auto(**environment):
    return tuple(shard_of("Reader", "auto", environment))


FOUND = {
    "nothing": ({}, (0, 1)),
    "torchrun": ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}, (3, 8)),
    "one process": ({"WORLD_SIZE": "1"}, (0, 1)),
    "empty": ({"RANK": "", "WORLD_SIZE": ""}, (0, 1)),
    "slurm": ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
    "srun": ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, (1, 2)),
    "sbatch without srun": ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, (0, 1)),
    "salloc": ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, (0, 1)),
    "torchrun in a job": ({"RANK": "5", "WORLD_SIZE": "8", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (5, 8)),
    "mpirun": ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, (2, 3)),
    "srun in a shell": (
        {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1"}
        | {"SLURM_JOB_NAME": "interactive", "SLURM_PTY_PORT": "40000"},
        (2, 4),
    ),
    "mpirun in a job": (
        {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
        | {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
        (5, 8),
    ),
}

SHELLS = {
    "srun --pty": (
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_PTY_PORT": "40000"},
        (0, 1),
    ),
    "a shell": ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "bash"}, (0, 1)),
}


@pytest.mark.parametrize(("environment", "expected"), FOUND.values(), ids=FOUND)
def test_the_variables_of_launchers(environment, expected, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert auto(**environment) == expected


@pytest.mark.parametrize(("environment", "expected"), SHELLS.values(), ids=SHELLS)
def test_a_shell_of_slurm_has_a_terminal(environment, expected, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert auto(**environment) == expected


def test_what_is_incomplete_is_asked_for_again_at_the_start(monkeypatch):
    """Launchers such as Lightning set WORLD_SIZE first, and start torch.distributed later."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    pipeline = Pipeline([ArrayReader(np.zeros((10, 2)), range(10), 2, shuffle=False)])
    monkeypatch.setitem(sys.modules, "torch.distributed", Distributed(initialized=True, rank=1, world=2))
    with pipeline:
        assert [batch.indices.tolist() for batch in pipeline] == [[1, 3], [5, 7], [9]]
    monkeypatch.delitem(sys.modules, "torch.distributed")
    with pytest.raises(ArgumentError, match="RANK is not set"):
        Pipeline([Noise(4, (4, 4), size=8)]).dequeue(timeout=LIMIT)


def test_bad_samples_are_those_of_the_rank_that_is_known_at_the_start(tmp_path, monkeypatch):
    folder = class_folders(tmp_path, classes=1, each=4, size=(8, 8))
    for path in folder.rglob("*.*"):
        path.write_bytes(b"no picture")
    monkeypatch.setenv("WORLD_SIZE", "2")
    pipeline = Pipeline([ImageFileReader(folder, 2, (8, 8), shuffle=False, epochs=1, on_error="skip")])
    monkeypatch.setitem(sys.modules, "torch.distributed", Distributed(initialized=True, rank=1, world=2))
    with pipeline, pytest.raises(EmptyDatasetError, match="this is rank 1 of 2"):
        list(pipeline)


WRONG = {
    "no rank": ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, and RANK is not set"),
    "no world": ({"RANK": "0"}, "RANK is 0, and WORLD_SIZE is not set"),
    "rank too large": ({"RANK": "2", "WORLD_SIZE": "2"}, "expected a rank below the world"),
    "no number": ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one'; expected a whole number"),
    "negative": ({"SLURM_PROCID": "-1", "SLURM_NTASKS": "2"}, "SLURM_PROCID is '-1'"),
}


@pytest.mark.parametrize(("environment", "message"), WRONG.values(), ids=WRONG)
def test_what_is_incomplete_or_no_number_raises(environment, message):
    with pytest.raises(ArgumentError, match=message):
        auto(**environment)


class Distributed(SimpleNamespace):
    """Stands in for torch.distributed."""

    class ProcessGroup:
        rank, world = 1, 3

    def is_available(self):
        return True

    def is_initialized(self):
        return self.initialized

    def get_rank(self, group=None):
        return self.rank if group is None else group.rank

    def get_world_size(self, group=None):
        return self.world if group is None else group.world


def test_torch_comes_first_and_must_not_contradict(monkeypatch):
    torch = Distributed(initialized=False, rank=1, world=4)
    monkeypatch.setitem(sys.modules, "torch.distributed", torch)
    assert auto() == (0, 1)
    torch.initialized = True
    assert auto(SLURM_PROCID="0", SLURM_NTASKS="2") == (1, 4)
    assert auto(RANK="1", WORLD_SIZE="4") == (1, 4)
    with pytest.raises(ArgumentError, match=r"rank 1 of 4, but RANK and WORLD_SIZE say 0 of 4"):
        auto(RANK="0", WORLD_SIZE="4")
    group = torch.ProcessGroup()
    assert shard_of("Reader", group) == (1, 3)
    group.rank = -1
    with pytest.raises(ArgumentError, match="does not belong to"):
        shard_of("Reader", group)
    for other in (object(), 3, None, "all", (1,), (1, 2, 3)):
        with pytest.raises(ArgumentError, match="expected"):
            shard_of("Reader", other)


def test_a_device_mesh_of_one_dimension():
    mesh = SimpleNamespace(ndim=1, get_local_rank=lambda: 2, size=lambda: 4)
    assert shard_of("Reader", mesh) == (2, 4)
    mesh.ndim = 2
    with pytest.raises(ArgumentError, match=r"mesh\['dp'\]"):
        shard_of("Reader", mesh)


def test_jax_where_it_is_distributed(monkeypatch):
    jax = SimpleNamespace(
        distributed=SimpleNamespace(is_initialized=lambda: True),
        process_index=lambda: 2,
        process_count=lambda: 4,
    )
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert auto() == (2, 4)
    jax.distributed.is_initialized = lambda: False
    assert auto() == (0, 1)


def mesh_of(processes, names=("data", "model")):
    devices = np.empty(np.shape(processes), object)
    for place, process in np.ndenumerate(np.asarray(processes)):
        devices[place] = SimpleNamespace(process_index=process)
    return SimpleNamespace(axis_names=names, devices=devices)


def test_an_axis_of_a_jax_mesh(monkeypatch):
    jax = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "jax", jax)
    # Two processes along "data", each with two replicas of the model's parts; and four, two for each place of the data.
    for mesh, ranks in (
        (mesh_of([[0, 0], [0, 0], [1, 1], [1, 1]]), {0: (0, 2), 1: (1, 2)}),
        (mesh_of([[0, 1], [2, 3]]), {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}),
    ):
        for process, expected in ranks.items():
            jax.process_index = lambda process=process: process
            assert shard_of("Reader", (mesh, "data")) == expected
    with pytest.raises(ArgumentError, match="expected one of 'data', 'model'"):
        shard_of("Reader", (mesh, "batch"))
    jax.process_index = lambda: 9
    with pytest.raises(ArgumentError, match="no device of this process"):
        shard_of("Reader", (mesh, "data"))
    jax.process_index = lambda: 0
    with pytest.raises(ArgumentError, match="consecutive parts"):
        shard_of("Reader", (mesh_of([[0], [1], [0]]), "data"))


def test_it_is_the_default_and_logged_once(monkeypatch, caplog):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with caplog.at_level(logging.INFO, "highway.sampling"):
        assert Noise(4, (4, 4), size=8).shard == (1, 2)
        assert Noise(4, (4, 4), size=8).shard == (1, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "Noise: shard=(1, 2), of RANK and WORLD_SIZE"
    ]
    assert Noise(4, (4, 4), size=8, shard=(0, 1)).shard == (0, 1)


def test_what_counts_is_the_launcher_when_the_pipeline_starts(monkeypatch):
    """A pipeline may be made before its processes are."""
    reader = ArrayReader(np.zeros((10, 2)), range(10), 2, shuffle=False)
    pipelines = {rank: Pipeline([reader]) for rank in range(2)}
    assert {len(pipeline) for pipeline in pipelines.values()} == {5}
    found = []
    for rank, pipeline in pipelines.items():
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pipeline:
            found += [index for batch in pipeline for index in batch.indices.tolist()]
            assert len(pipeline) == 3
    assert sorted(found) == list(range(10))
    assert found[:5] == [0, 2, 4, 6, 8]


def test_a_drawn_seed_is_refused_where_there_are_ranks(monkeypatch):
    reader = Noise(4, (4, 4), size=8, seed=None)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError, match="seed is None"):
        Pipeline([reader]).dequeue(timeout=LIMIT)


def test_so_is_one_of_the_augmentations(monkeypatch):
    modules = [Noise(4, (4, 4), size=8), Augmentations([FlipX()], seed=None)]
    pipeline = Pipeline(modules)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for made in (lambda: pipeline, lambda: Pipeline(modules)):
        with pytest.raises(ArgumentError, match=r"^Augmentations: seed is None, and each of the 2 ranks"):
            made().dequeue(timeout=LIMIT)


PROGRAM = """
import json, numpy, os
from highway.engine import Pipeline
from highway.modules import ArrayReader

with Pipeline([ArrayReader(numpy.zeros((11, 2)), range(11), 2)]) as pipeline:
    epochs = [[i for batch in pipeline for i in batch.indices.tolist()] for _ in range(2)]
print(json.dumps(epochs))
"""


def test_two_processes_read_disjoint_parts_that_are_all():
    found = []
    for rank in range(2):
        environment = os.environ | {
            "PYTHONPATH": str(Path(highway.__file__).parents[1]),
            "RANK": str(rank),
            "WORLD_SIZE": "2",
        }
        answer = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60
        )
        assert answer.returncode == 0, answer.stderr
        found.append(json.loads(answer.stdout))
    for one, other in zip(*found, strict=True):
        # 11 samples for 2 ranks: the first place comes twice.
        assert len(one) == len(other) == 6
        assert {*one} | {*other} == {*range(11)}
        assert len({*one} & {*other}) == 1
