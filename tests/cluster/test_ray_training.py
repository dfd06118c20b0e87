"""Pipelines in trainings of Ray Train: rank and world of the training, and a state that travels in its checkpoint."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from framework_programs import programs

ray_train = pytest.importorskip("ray.train", reason="Ray Train is not installed: pip install 'ray[train]'")
from ray_loops import SIZE, loop  # noqa: E402

from highway.engine import Pipeline  # noqa: E402
from highway.errors import ArgumentError, PipelineStateError, StateMismatchError  # noqa: E402
from highway.modules import Noise  # noqa: E402
from highway.ray import loader, save_state, training  # noqa: E402


def train(folder, world, **config):
    """Train, in a run that continues the one before; return what each rank got."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    seen = folder / f"world{world}"
    seen.mkdir()
    trainer = DataParallelTrainer(
        loop,
        train_loop_config={"seen": str(seen), **config},
        scaling_config=ScalingConfig(num_workers=world),
        run_config=RunConfig(
            name="run", storage_path=str(folder / "storage"), failure_config=FailureConfig(max_failures=1)
        ),
    )
    trainer.fit()
    return {path.stem: json.loads(path.read_text()) for path in seen.iterdir()}


# What Ray Train says of Ray Data, which it imports.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_a_training_goes_on_with_another_world(nodes, tmp_path):
    """Two ranks begin the epoch, one fails after the checkpoint, and three continue; each rank has workers."""
    begun = train(tmp_path, 2, steps=2, fail_once=str(tmp_path / "failed"))
    assert (tmp_path / "failed").exists()
    continued = train(tmp_path, 3, steps=None)
    assert sorted(begun) == ["0", "1"]
    assert sorted(continued) == ["0", "1", "2"]
    counts = Counter(index for ranks in (begun, continued) for indices in ranks.values() for index in indices)
    assert counts == Counter(range(SIZE))


class Context:
    """The context of a rank of Ray Train, and its checkpoint."""

    def __init__(self, monkeypatch, rank, world, folder=None):
        self._shard = rank, world
        monkeypatch.setattr(ray_train, "get_context", lambda: self)
        checkpoint = None if folder is None else ray_train.Checkpoint.from_directory(folder)
        monkeypatch.setattr(ray_train, "get_checkpoint", lambda: checkpoint)

    def get_world_rank(self):
        return self._shard[0]

    def get_world_size(self):
        return self._shard[1]


def modules(**options):
    return [Noise(2, 4, size=20, seed=1, **options)]


def test_the_reader_takes_rank_and_world(monkeypatch):
    Context(monkeypatch, 1, 2)
    with loader(modules()) as made, Pipeline(modules(shard=(1, 2))) as expected:
        assert [batch.indices.tolist() for batch in made] == [batch.indices.tolist() for batch in expected]
    with loader(modules(shard=(1, 2))) as made:
        assert made.modules[0].shard == (1, 2)


def test_another_shard_is_refused(monkeypatch):
    Context(monkeypatch, 1, 2)
    with pytest.raises(ArgumentError, match=r"shard=\(0, 2\), and Ray Train says rank and world \(1, 2\)"):
        loader(modules(shard=(0, 2)))


def test_the_state_of_a_checkpoint_is_loaded(monkeypatch, tmp_path):
    with Pipeline(modules()) as pipeline:
        expected = [batch.indices.tolist() for batch in pipeline][3:]
    with Pipeline(modules()) as pipeline:
        for _ in range(3):
            pipeline.dequeue()
        save_state(pipeline, tmp_path)
    assert os.listdir(tmp_path) == [training.STATE_FILE]
    Context(monkeypatch, 0, 1, tmp_path)
    with loader(modules()) as made:
        assert [batch.indices.tolist() for batch in made] == expected
    with loader(modules(), resume=False) as made:
        assert len(list(made)) == 10


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "has no highway.json; expected one that highway.ray.save_state has written"),
        ("{", "is not valid JSON"),
        ("[]", r"holds \[\]"),
        ("{}", "state"),
    ],
)
def test_a_checkpoint_without_a_state(monkeypatch, tmp_path, contents, message):
    if contents is not None:
        (tmp_path / training.STATE_FILE).write_text(contents)
    Context(monkeypatch, 0, 1, tmp_path)
    with pytest.raises(StateMismatchError, match=message):
        loader(modules())


def test_the_loop_of_the_page(nodes, monkeypatch, tmp_path):
    reported = []

    def report(metrics, checkpoint):
        reported.append((metrics, sorted(os.listdir(checkpoint.path))))

    monkeypatch.setattr(ray_train, "report", report)
    Context(monkeypatch, 0, 1)
    shown = {
        "train_step": lambda images, labels: float(labels[0]),
        "save_model": lambda folder: Path(folder, "model").touch(),
    }
    exec(programs("docs/ray.md")["loop.py"], shown)
    shown["train_loop_per_worker"]({"modules": [Noise(1, 4, size=100, seed=1, epochs=1)]})
    ((metrics, files),) = reported
    assert files == [training.STATE_FILE, "model"]
    assert list(metrics) == ["loss"]


def test_outside_of_a_training():
    with pytest.raises(PipelineStateError, match="this process is no worker of Ray Train"):
        loader(modules())


def test_what_has_no_state(tmp_path):
    with pytest.raises(ArgumentError, match="pipeline is 3; expected a Pipeline"):
        save_state(3, tmp_path)
