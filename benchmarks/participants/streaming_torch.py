"""mosaicml-streaming: a StreamingDataset of MDS shards in an S3 store, with worker processes."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streaming
import torch
from jobs import Job
from streaming.base.util import clean_stale_shared_memory
from torch_photographs import forever, loader


def pack(paths: Sequence[str], folder: str, chunk_bytes: int) -> None:
    """Write the files as MDS shards into an empty folder."""
    columns = {"image": "bytes", "label": "int"}
    with streaming.MDSWriter(out=folder, columns=columns, size_limit=chunk_bytes) as writer:
        for number, path in enumerate(paths):
            writer.write({"image": Path(path).read_bytes(), "label": number})


class Photographs(streaming.StreamingDataset):
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

    The variant is JSON: "kind", of torch_photographs.py; "source", the URL of the shards; "scratch", a folder in which
    the cache is made. The store is that of the environment: boto3's keys, and S3_ENDPOINT_URL.
    """
    settings = json.loads(variant)
    torch.manual_seed(seed)
    # A run that was killed leaves its names of shared memory, which the next one would refuse.
    clean_stale_shared_memory()
    with tempfile.TemporaryDirectory(dir=settings["scratch"]) as cache:
        data = Photographs(
            loader(settings["kind"], job),
            remote=settings["source"],
            local=cache,
            shuffle=True,
            shuffle_seed=seed,
            batch_size=job.batch_size,
            # With more, which serve more machines, samples are repeated until their number can be divided.
            num_canonical_nodes=1,
        )
        # It has fetched the index. Worker processes that are forked would all continue on that one connection.
        for stream in data.streams:
            stream._downloader.clean_up()
        yield from forever(
            streaming.StreamingDataLoader(
                data, batch_size=job.batch_size, num_workers=threads, persistent_workers=True
            )
        )
