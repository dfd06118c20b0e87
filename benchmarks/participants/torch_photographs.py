"""JPEG files to training input with torchvision, for the loaders that yield files as bytes."""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from jobs import MEAN, STD, Job
from PIL import Image
from torchvision import transforms as v1
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

KINDS = ("decode_jpeg", "pil", "pil v1")


def loader(kind: str, job: Job) -> Callable[[bytes], torch.Tensor]:
    """Return a function from the bytes of a JPEG to a float32 image (3, height, width).

    Parameters
    ----------
    kind : str
        "decode_jpeg", torchvision's decoder with transforms v2; "pil" with transforms v2; "pil v1" with those of the
        first version.
    job : Job
        "rrc".
    """
    # torchvision warns on every call that its decoders move to another package.
    warnings.filterwarnings("ignore", message=".*TorchCodec.*")
    module = v1 if kind == "pil v1" else v2
    size = (job.height, job.width)
    steps = [module.RandomResizedCrop(size, antialias=True), module.RandomHorizontalFlip()]
    if kind == "pil v1":
        steps.append(v1.ToTensor())
    else:
        steps += [v2.PILToTensor()] * (kind == "pil") + [v2.ToDtype(torch.float32, scale=True)]
    transform = module.Compose([*steps, module.Normalize(MEAN, STD)])

    def from_tensor(contents: bytes) -> torch.Tensor:
        data = torch.frombuffer(bytearray(contents), dtype=torch.uint8)
        return transform(decode_jpeg(data, mode=ImageReadMode.RGB))

    def from_picture(contents: bytes) -> torch.Tensor:
        return transform(Image.open(io.BytesIO(contents)).convert("RGB"))

    return from_tensor if kind == "decode_jpeg" else from_picture


def forever(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of a loader as arrays, epoch after epoch."""
    while True:
        for images, labels in batches:
            yield images.numpy(), np.asarray(labels)
