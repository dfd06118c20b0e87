"""Train in several processes, each with a part of the photographs.

    torchrun --nproc-per-node 2 FILE DIR

DIR has one folder of photographs per class.
"""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from highway.modules import Augmentations, ImageFileReader
from highway.torch import Loader
from highway.transforms import FlipX, Normalize, RandomResizedCrop


def load_data(folder, rank, world):
    reader = ImageFileReader(folder, 4, 32, fit=RandomResizedCrop())  # shard="auto"
    return Loader([reader, Augmentations([FlipX(), Normalize()])])


def main():
    folder = Path(sys.argv[1])
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    loader = load_data(folder, rank, world)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, len(list(folder.iterdir()))),
    )
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(2):
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"rank {rank}, epoch {epoch}: loss {loss.item():.3f}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
