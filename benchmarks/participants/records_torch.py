"""torch.utils.data.DataLoader over an array of records, mapped or in memory."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from jobs import MEAN, STD, Job
from records import images_of
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info
from torchvision.transforms.v2 import functional

SCALE = (1 / (255 * torch.tensor(STD)))[:, None, None]
BIAS = (-torch.tensor(MEAN) / torch.tensor(STD))[:, None, None]


class Records(Dataset):
    """Returns one sample or, for "batch", all samples of a batch."""

    def __init__(self, images: np.ndarray, job: Job, way: str):
        self.images, self.job, self.way = images, job, way

    def __len__(self) -> int:
        return len(self.images)

    def window(self, index: int) -> tuple[torch.Tensor, bool]:
        """Return a view with channels first, and whether to mirror it."""
        image = self.images[index]
        top = random.randint(0, image.shape[0] - self.job.height)
        left = random.randint(0, image.shape[1] - self.job.width)
        window = torch.from_numpy(image).permute(2, 0, 1)
        if self.way == "functional":
            window = functional.crop(window, top, left, self.job.height, self.job.width)
        else:
            window = window[:, top : top + self.job.height, left : left + self.job.width]
        return window, random.random() < 0.5

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        window, flip = self.window(index)
        if self.way == "functional":
            if flip:
                window = functional.horizontal_flip(window)
            sample = functional.to_dtype(window, torch.float32, scale=True)
            return functional.normalize(sample, MEAN, STD, inplace=True).contiguous(), index
        sample = torch.empty(window.shape)
        self.finish(window, flip, sample)
        return sample, index

    def finish(self, window: torch.Tensor, flip: bool, out: torch.Tensor) -> None:
        torch.mul(window.flip(2) if flip else window, SCALE, out=out).add_(BIAS)

    def __getitems__(self, indices: list[int]) -> object:
        if self.way != "batch":
            return [self[index] for index in indices]
        shape = self.job.batch_shape(len(indices))
        if get_worker_info() is None:
            out = torch.empty(shape)
        else:
            # In shared memory from the beginning, as default_collate does.
            storage = torch.UntypedStorage._new_shared(4 * int(np.prod(shape)))
            out = torch.tensor([]).set_(storage).resize_(shape)
        for index, sample in zip(indices, out, strict=True):
            self.finish(*self.window(index), sample)
        return out, torch.tensor(indices)


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); variants: WAY/WORKERS.

    WAY is "functional" (torchvision), "tensor" (arithmetic), both sample by sample, or "batch" (arithmetic into the
    batch). WORKERS is the number of processes, 0 for none.
    """
    way, _, workers = variant.partition("/")
    torch.manual_seed(seed)
    random.seed(seed)
    torch.set_num_threads(1)
    images = images_of(directory)
    if job.name == "memory":
        images = np.array(images)
    loader = DataLoader(
        Records(images, job, way),
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=int(workers),
        persistent_workers=int(workers) > 0,
        collate_fn=_as_it_is if way == "batch" else default_collate,
    )
    while True:
        for found, labels in loader:
            yield found.numpy(), labels.numpy()


def _as_it_is(batch: object) -> object:
    return batch
