"""Training loops for the tests of Ray Train; its workers import them from here."""

import json
import tempfile
from itertools import islice
from pathlib import Path

import ray.train

from highway.modules import Noise
from highway.ray import Workers, loader, save_state

SIZE = 60


def loop(config):
    """Take batches, report a checkpoint after each, and note the samples of all steps that were reported."""
    rank = ray.train.get_context().get_world_rank()
    note = Path(config["seen"]) / f"{rank}.json"
    modules = [Noise(4, 4, size=SIZE, seed=1, epochs=1, drop_last=False)]
    with loader(modules, on=Workers(1, cpus=0.5)) as pipeline:
        for step, batch in enumerate(islice(pipeline, config["steps"])):
            seen = json.loads(note.read_text()) if note.exists() else []
            with tempfile.TemporaryDirectory() as folder:
                save_state(pipeline, folder)
                ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder))
            note.write_text(json.dumps(seen + batch.indices.tolist()))
            _fail_once(config, rank, step)


def _fail_once(config, rank, step):
    failed = config.get("fail_once")
    if failed is not None and rank == 1 and step == 0 and not Path(failed).exists():
        Path(failed).touch()
        raise RuntimeError("This rank fails once.")
