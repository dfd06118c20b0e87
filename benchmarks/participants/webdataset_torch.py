"""webdataset with torch's DataLoader: worker processes read tar shards, torchvision decodes and transforms."""

import io
import random
import warnings
from collections.abc import Iterator

import numpy as np
import torch
import webdataset
from jobs import MEAN, STD, Job
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

# Samples that webdataset holds back to shuffle them, as its documentation suggests.
SHUFFLED = 1000


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); the variant is "decode_jpeg:" or "pil:" and the name of the shards."""
    # torchvision warns on every call that its decoders move to another package.
    warnings.filterwarnings("ignore", message=".*TorchCodec.*")
    torch.manual_seed(seed)
    kind, _, shards = variant.partition(":")
    steps = [v2.RandomResizedCrop((job.height, job.width), antialias=True), v2.RandomHorizontalFlip()]
    if kind == "pil":
        steps.append(v2.PILToTensor())
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def load(sample: dict) -> tuple[torch.Tensor, int]:
        contents = sample["jpg"]
        if kind == "pil":
            picture = Image.open(io.BytesIO(contents)).convert("RGB")
        else:
            data = torch.frombuffer(bytearray(contents), dtype=torch.uint8)
            picture = decode_jpeg(data, mode=ImageReadMode.RGB)
        return transform(picture), int(sample["cls"])

    dataset = (
        webdataset.WebDataset(shards, resampled=False, shardshuffle=100, empty_check=False, seed=seed)
        .shuffle(SHUFFLED, rng=random.Random(seed))
        .map(load)
        .batched(job.batch_size)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=threads, persistent_workers=True)
    while True:
        for images, labels in loader:
            yield images.numpy(), np.asarray(labels)
