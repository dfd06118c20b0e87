"""A training machine: trains on received batches and resumes from its last checkpoint after a restart.

    python examples/distributed/training_machine.py --listen tcp://127.0.0.1:5556 --checkpoints checkpoints

The model is minimal: the mean picture of each class. It counts its pictures, so you can check that each one arrives
once per epoch, however often you kill a process.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from highway import HighwayError
from highway.engine import Pipeline
from highway.modules import ZMQSource


class MeanPictures:
    def __init__(self, classes):
        self.counts = np.zeros(classes, np.int64)
        self.sums = None

    def step(self, images, labels):
        if self.sums is None:
            self.sums = np.zeros((len(self.counts), *images.shape[1:]))
        for image, label in zip(images, labels, strict=True):
            self.counts[label] += 1
            self.sums[label] += image


def save(folder, step, model, state):
    """Write model and state into a temporary folder, then rename it when both are complete."""
    new = folder / "new"
    new.mkdir(parents=True, exist_ok=True)
    np.savez(new / "model.npz", counts=model.counts, sums=model.sums)
    (new / "data.json").write_text(json.dumps(state))
    new.rename(folder / f"step-{step:08}")


def load(folder, model):
    """Load the last checkpoint; return the step and the state of the data, (0, None) if there is none."""
    found = sorted(folder.glob("step-*"))
    if not found:
        return 0, None
    with np.load(found[-1] / "model.npz") as arrays:
        model.counts, model.sums = arrays["counts"], arrays["sums"]
    return int(found[-1].name[5:]), json.loads((found[-1] / "data.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", default="tcp://127.0.0.1:5556", metavar="ADDR")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), metavar="DIR")
    parser.add_argument("--every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--classes", type=int, default=10)
    options = parser.parse_args()
    model = MeanPictures(options.classes)
    step, state = load(options.checkpoints, model)
    try:
        source = ZMQSource(options.listen, bind=True)
        with Pipeline([source]) as pipeline:
            if state is not None:
                pipeline.load_state_dict(state)
            print(f"listening at {source.address}, after step {step}", flush=True)
            for images, labels in pipeline.forever():
                model.step(images, labels)
                step += 1
                if step % options.every == 0:
                    # At this point the model contains exactly the batches that the pipeline has returned.
                    save(options.checkpoints, step, model, pipeline.state_dict())
                    print(f"step {step}", flush=True)
            if step % options.every:
                # Also save the last steps: the data machines have ended and do not send their batches again.
                save(options.checkpoints, step, model, pipeline.state_dict())
            machines = pipeline.stats().machines
    except (HighwayError, OSError) as error:
        sys.exit(f"training_machine: {error}")
    for machine in machines:
        print(f"{machine.role} {machine.name}: {machine.rate:.1f} batches/s, {machine.cpu:.1f} cores")
    print(f"{step} steps, pictures per class: {model.counts.tolist()}")


if __name__ == "__main__":
    main()
