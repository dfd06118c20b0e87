"""A loop with Accelerate, which continues from its last checkpoint, also from the middle of an epoch.

    python FILE DIR [--resume]

DIR has one folder of photographs per class.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from highway.modules import Augmentations, ImageFileReader
from highway.torch import Loader
from highway.transforms import Normalize, RandomResizedCrop


def load_data(folder):
    return Loader([ImageFileReader(folder, 8, 32, fit=RandomResizedCrop()), Augmentations([Normalize()])])


@dataclass
class Progress:
    """How many epochs are done, and how many steps of the next one."""

    epoch: int = 0
    step: int = 0

    def state_dict(self):
        return asdict(self)

    def load_state_dict(self, state):
        self.epoch, self.step = state["epoch"], state["step"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_path", type=Path)
    parser.add_argument("--checkpoints", type=Path, default="checkpoints")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    accelerator = Accelerator(cpu=True)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, len(list(args.data_path.iterdir()))),
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader, progress = load_data(args.data_path), Progress()
    accelerator.register_for_checkpointing(progress, loader)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if args.resume:
        accelerator.load_state(max(args.checkpoints.iterdir()))

    for epoch in range(progress.epoch, 2):
        batches = loader
        for images, labels in batches:
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            progress.step += 1
            if progress.step == len(loader):
                progress.epoch, progress.step = epoch + 1, 0
            if progress.step % 2 == 0:
                accelerator.save_state(
                    args.checkpoints / f"epoch-{progress.epoch:03}-step-{progress.step:06}"
                )
        print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
