"""Pillow or Pillow-SIMD in threads, whichever is installed: draft decoding, resize of a box."""

import math
import random
from collections.abc import Iterator

import numpy as np
from batch_threads import thread_batches
from jobs import MEAN, STD, Job
from PIL import Image
from windows import centre_window, random_window

SCALE = (1 / (255 * np.array(STD))).astype(np.float32)[:, None, None]
SHIFT = (-np.array(MEAN) / np.array(STD)).astype(np.float32)[:, None, None]


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); the only variant is antialiased."""
    size = (job.width, job.height)

    def fill(path: str, rng: random.Random, out: np.ndarray) -> None:
        with Image.open(path) as image:
            width, height = image.size
            if job.name == "fit":
                window = centre_window(height, width, job.height, job.width)
            else:
                window = random_window(rng, height, width)
            top, left, window_height, window_width = window
            image.draft(
                "RGB",
                (math.ceil(width * job.width / window_width), math.ceil(height * job.height / window_height)),
            )
            columns, rows = image.size[0] / width, image.size[1] / height
            box = (left * columns, top * rows, (left + window_width) * columns, (top + window_height) * rows)
            resized = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR, box=box))
        if rng.random() < 0.5:
            resized = resized[:, ::-1]
        if job.dtype == "uint8":
            out[:] = resized
        else:
            np.multiply(resized.transpose(2, 0, 1), SCALE, out=out)
            out += SHIFT

    return thread_batches(directory, job, threads, seed, fill)
