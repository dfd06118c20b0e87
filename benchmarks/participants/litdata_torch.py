"""litData: a StreamingDataset of chunks in an S3 store, and its StreamingDataLoader with worker processes."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import torch
from jobs import Job
from litdata.streaming import downloader
from torch_photographs import forever, loader


def sample(numbered: tuple[int, str]) -> dict[str, Any]:
    """Return what is packed of a file and its number."""
    number, path = numbered
    return {"image": Path(path).read_bytes(), "label": number}


def pack(paths: Sequence[str], folder: str, chunk_bytes: int) -> None:
    """Write the files as litData's chunks into an empty folder."""
    litdata.optimize(
        fn=sample, inputs=list(enumerate(paths)), output_dir=folder, chunk_bytes=chunk_bytes, num_workers=1
    )


class Photographs(litdata.StreamingDataset):
    """Decodes in the worker processes."""

    def __init__(self, load: Any, **arguments: Any):
        super().__init__(**arguments)
        self.load = load

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, int]:
        """Return the image and the label of a sample."""
        found = super().__getitem__(index)
        return self.load(found["image"]), found["label"]


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels).

    The variant is JSON: "kind", of torch_photographs.py; "source", the URL of the chunks; "scratch", a folder in which
    the cache is made. The store is that of the environment, as for boto3.
    """
    settings = json.loads(variant)
    torch.manual_seed(seed)
    # Its store takes only HTTPS, which the server of the benchmark does not speak.
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    with tempfile.TemporaryDirectory(dir=settings["scratch"]) as cache:
        data = Photographs(
            loader(settings["kind"], job),
            input_dir=settings["source"],
            cache_dir=cache,
            shuffle=True,
            drop_last=False,
            seed=seed,
        )
        yield from forever(
            litdata.StreamingDataLoader(
                data, batch_size=job.batch_size, num_workers=threads, persistent_workers=True
            )
        )
