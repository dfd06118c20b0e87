"""simplejpeg (the TurboJPEG API) in threads, OpenCV to resize; decodes at half size or less if possible."""

import math
import random
from collections.abc import Iterator

import numpy as np
import simplejpeg
from batch_threads import thread_batches
from jobs import Job
from opencv_samples import finish_sample
from windows import centre_window, random_window


def read_window(
    path: str, rng: random.Random, job: Job, fast: bool
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Return the RGB image of a file, decoded no larger than its window needs, and the window in its pixels."""
    with open(path, "rb") as file:
        data = file.read()
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    if job.name == "fit":
        window = centre_window(height, width, job.height, job.width)
    else:
        window = random_window(rng, height, width)
    image = simplejpeg.decode_jpeg(
        data,
        fastdct=fast,
        fastupsample=fast,
        min_height=math.ceil(height * job.height / window[2]),
        min_width=math.ceil(width * job.width / window[3]),
        min_factor=2,
    )
    if image.shape[:2] == (height, width):
        return image, window
    rows, columns = image.shape[0] / height, image.shape[1] / width
    top, left = int(window[0] * rows), int(window[1] * columns)
    return image, (top, left, max(1, round(window[2] * rows)), max(1, round(window[3] * columns)))


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); variants: "area" (antialiased), "linear" (fast decoding too)."""
    antialias = variant == "area"

    def fill(path: str, rng: random.Random, out: np.ndarray) -> None:
        image, window = read_window(path, rng, job, fast=not antialias)
        finish_sample(image, window, rng, job, antialias, out)

    return thread_batches(directory, job, threads, seed, fill)
