"""Grain: MapDataset with its prefetching threads; the user decodes, here with OpenCV or simplejpeg."""

import random
from collections.abc import Iterator

import cv2
import grain
import numpy as np
from jobs import Job, list_files
from opencv_samples import finish_sample
from simplejpeg_threads import read_window
from windows import centre_window, random_window


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); variants: opencv or simplejpeg, a hyphen, area (antialiased) or linear."""
    decoder, resize = variant.split("-")
    antialias = resize == "area"
    paths, labels, _ = list_files(directory)

    def load(index: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rng = random.Random(int(generator.integers(2**32)))
        path = paths[index]
        if decoder == "simplejpeg":
            image, window = read_window(path, rng, job, fast=not antialias)
        else:
            image = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
            if image is None:
                raise ValueError(f"{path}: OpenCV could not read it")
            height, width = image.shape[:2]
            if job.name == "fit":
                window = centre_window(height, width, job.height, job.width)
            else:
                window = random_window(rng, height, width)
        sample = np.empty(job.batch_shape(1)[1:], job.dtype)
        finish_sample(image, window, rng, job, antialias, sample)
        return sample, np.int64(labels[index])

    dataset = (
        grain.MapDataset.range(len(paths))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(load)
        .batch(job.batch_size)
        .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    )
    yield from dataset
