"""A loop with Accelerate, which continues from its last checkpoint, also from the middle of an epoch.

    python FILE DIR [--resume]

DIR has one folder of photographs per class.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torchvision import datasets
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_data(folder):
    scale = v2.ToDtype(torch.float32, scale=True)
    steps = [v2.RandomResizedCrop(32), v2.ToImage(), scale, v2.Normalize(MEAN, STD)]
    dataset = datasets.ImageFolder(folder, v2.Compose(steps))
    return torch.utils.data.DataLoader(dataset, 8, shuffle=True, num_workers=2)


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
    accelerator.register_for_checkpointing(progress)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if args.resume:
        accelerator.load_state(max(args.checkpoints.iterdir()))

    for epoch in range(progress.epoch, 2):
        batches = loader
        if progress.step:
            batches = accelerator.skip_first_batches(loader, progress.step)
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
