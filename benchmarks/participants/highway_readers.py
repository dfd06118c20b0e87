"""Highway's readers of one set of photographs: class folders, tars and Parquet, here or in a store."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from jobs import Job

from highway import modules
from highway.engine import Pipeline
from highway.modules import Augmentations
from highway.transforms import FlipX, Normalize, RandomResizedCrop

FACTS: dict[str, Any] = {}
"""What else is known of the run: what was fetched from the store."""


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); labels are the numbers of the photographs.

    The variant is JSON: "reader", the name of a reader; "source", its first argument; "options", further ones; "fresh",
    names of those that are folders, which are made empty in the folder "scratch".
    """
    settings = json.loads(variant)
    with ExitStack() as stack:
        options = dict(settings.get("options", {}))
        for name in settings.get("fresh", ()):
            options[name] = stack.enter_context(tempfile.TemporaryDirectory(dir=settings["scratch"]))
        reader = getattr(modules, settings["reader"])(
            settings["source"],
            job.batch_size,
            (job.height, job.width),
            fit=RandomResizedCrop(),
            seed=seed,
            workers=threads,
            **options,
        )
        # Folders have the labels of their classes, and the order of the files is that of the numbers.
        numbered = settings["reader"] != "ImageFileReader"
        with Pipeline([reader, Augmentations([FlipX(), Normalize()], seed=seed)]) as pipeline:
            try:
                for batch in pipeline.forever():
                    yield batch.images, batch.labels if numbered else batch.indices
            finally:
                FACTS["fetched"] = reader.fetched()
