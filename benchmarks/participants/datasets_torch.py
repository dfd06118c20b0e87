"""`datasets` of Hugging Face with torch's DataLoader: worker processes read Arrow files made of a Parquet file."""

import json
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import torch
from jobs import Job
from torch.utils.data import DataLoader
from torch_photographs import forever, loader


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels).

    The variant is JSON: "kind", of torch_photographs.py; "source", the Parquet file; "scratch", a folder in which the
    Arrow files are kept for later runs, as `datasets` does it.
    """
    settings = json.loads(variant)
    torch.manual_seed(seed)
    load = loader(settings["kind"], job)
    datasets.disable_progress_bars()
    data = datasets.load_dataset(
        "parquet", data_files=settings["source"], split="train", cache_dir=settings["scratch"]
    )
    data = data.cast_column("image", datasets.Image(decode=False))

    def transform(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"image": [load(one["bytes"]) for one in rows["image"]], "label": rows["label"]}

    data.set_transform(transform)

    def collate(samples: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.stack([one["image"] for one in samples])
        return images, torch.tensor([one["label"] for one in samples])

    yield from forever(
        DataLoader(
            data,
            batch_size=job.batch_size,
            shuffle=True,
            num_workers=threads,
            persistent_workers=True,
            collate_fn=collate,
        )
    )
