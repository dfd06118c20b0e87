"""torch.utils.data.DataLoader with worker processes, torchvision's ImageFolder and v2 transforms."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from jobs import MEAN, STD, Job
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from windows import centre_window


class CentreFit(torch.nn.Module):
    """Crop to the target's aspect, then resize."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.size = (height, width)

    def forward(self, image):
        """Return the fitted image, of the same type (tensor or PIL)."""
        height, width = functional.get_size(image)
        window = centre_window(height, width, *self.size)
        return functional.resized_crop(image, *window, list(self.size), antialias=True)


class ToChannelsLast(torch.nn.Module):
    """CHW tensor to HWC."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a contiguous image with channels last."""
        return image.permute(1, 2, 0).contiguous()


def load_tensor(path: str) -> torch.Tensor:
    """Return the decoded RGB image, uint8 CHW."""
    return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); variants: "decode_jpeg" (torchvision.io) and "pil"; both antialiased."""
    # torchvision warns on every call that its decoders move to another package.
    warnings.filterwarnings("ignore", message=".*TorchCodec.*")
    torch.manual_seed(seed)
    steps: list[torch.nn.Module] = []
    if job.name == "fit":
        steps += [CentreFit(job.height, job.width), v2.RandomHorizontalFlip()]
    else:
        steps += [v2.RandomResizedCrop((job.height, job.width), antialias=True), v2.RandomHorizontalFlip()]
    if variant == "pil":
        steps.append(v2.PILToTensor())
    if job.dtype == "uint8":
        steps.append(ToChannelsLast())
    else:
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose(steps)
    if variant == "pil":
        dataset = ImageFolder(directory, transform)
    else:
        dataset = ImageFolder(directory, transform, loader=load_tensor)
    loader = DataLoader(
        dataset, batch_size=job.batch_size, shuffle=True, num_workers=threads, persistent_workers=True
    )
    while True:
        for images, labels in loader:
            yield images.numpy(), labels.numpy()
