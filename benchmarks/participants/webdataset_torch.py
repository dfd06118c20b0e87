"""webdataset's WebLoader, torch's DataLoader: worker processes read tar shards, torchvision decodes and transforms."""

import json
import random
from collections.abc import Iterator

import numpy as np
import torch
import webdataset
from jobs import Job
from torch_photographs import forever, loader

# Samples that webdataset holds back to shuffle them, as its documentation suggests.
SHUFFLED = 1000


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); the variant is JSON: "kind", of torch_photographs.py, and "source", the tars."""
    settings = json.loads(variant)
    torch.manual_seed(seed)
    load = loader(settings["kind"], job)
    dataset = (
        webdataset.WebDataset(
            settings["source"], resampled=False, shardshuffle=100, empty_check=False, seed=seed
        )
        .shuffle(SHUFFLED, rng=random.Random(seed))
        .map(lambda sample: (load(sample["jpg"]), int(sample["cls"])))
        .batched(job.batch_size)
    )
    yield from forever(
        webdataset.WebLoader(dataset, batch_size=None, num_workers=threads, persistent_workers=True)
    )
