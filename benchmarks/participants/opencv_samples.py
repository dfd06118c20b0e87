"""Crop, resize, flip and normalize with OpenCV, for the participants that resize with it."""

import random

import cv2
import numpy as np
from jobs import MEAN, STD, Job
from windows import Window

# OpenCV's own threads would compete with those of the loader.
cv2.setNumThreads(0)

LEVELS = np.arange(256, dtype=np.float64) / 255
TABLES = [((LEVELS - mean) / std).astype(np.float32) for mean, std in zip(MEAN, STD, strict=True)]


def finish_sample(
    image: np.ndarray, window: Window, rng: random.Random, job: Job, antialias: bool, out: np.ndarray
) -> None:
    """Resize a window of an RGB image, flip it with p=0.5, write it to `out`, normalized if the job says so.

    INTER_AREA is OpenCV's antialiased way to shrink, and meant for shrinking only: enlarged images are
    interpolated.
    """
    top, left, height, width = window
    view = image[top : top + height, left : left + width]
    shrinks = height > job.height or width > job.width
    interpolation = cv2.INTER_AREA if antialias and shrinks else cv2.INTER_LINEAR
    size = (job.width, job.height)
    flip = rng.random() < 0.5
    if job.dtype == "uint8":
        if flip:
            cv2.flip(cv2.resize(view, size, interpolation=interpolation), 1, dst=out)
        else:
            cv2.resize(view, size, dst=out, interpolation=interpolation)
        return
    resized = cv2.resize(view, size, interpolation=interpolation)
    if flip:
        resized = cv2.flip(resized, 1)
    for plane, table, target in zip(cv2.split(resized), TABLES, out, strict=True):
        cv2.LUT(plane, table, dst=target)
