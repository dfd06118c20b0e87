"""OpenCV in threads: imread, crop, resize."""

import random
from collections.abc import Iterator

import cv2
import numpy as np
from batch_threads import thread_batches
from jobs import Job
from opencv_samples import finish_sample
from windows import centre_window, random_window


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); variants: "area" (antialiased) and "linear"."""

    def fill(path: str, rng: random.Random, out: np.ndarray) -> None:
        image = cv2.imread(path, cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise ValueError(f"{path}: OpenCV could not read it")
        height, width = image.shape[:2]
        if job.name == "fit":
            window = centre_window(height, width, job.height, job.width)
        else:
            window = random_window(rng, height, width)
        finish_sample(image, window, rng, job, variant == "area", out)

    return thread_batches(directory, job, threads, seed, fill)
