"""Train in several processes, each with a part of the photographs.

    torchrun --nproc-per-node 2 FILE DIR

DIR has one folder of photographs per class.
"""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torchvision import datasets
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_data(folder, rank, world):
    sizes = [v2.RandomResizedCrop(32), v2.RandomHorizontalFlip()]
    steps = [*sizes, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    dataset = datasets.ImageFolder(folder, v2.Compose(steps))
    sampler = torch.utils.data.DistributedSampler(dataset, world, rank)
    return torch.utils.data.DataLoader(dataset, 4, sampler=sampler, num_workers=2)


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
        loader.sampler.set_epoch(epoch)
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"rank {rank}, epoch {epoch}: loss {loss.item():.3f}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
