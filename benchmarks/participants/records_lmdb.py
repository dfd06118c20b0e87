"""LMDB and OpenCV in threads: crop and flip are views or one call, normalized straight into the batch.

usage: records_lmdb.py FOLDER writes FOLDER/lmdb.
"""

import os
import random
import sys
from collections.abc import Iterator

import cv2
import lmdb
import numpy as np
from batch_threads import index_batches, pooled
from jobs import MEAN, STD, Job
from opencv_samples import TABLES
from records import SIZE, images_of

SCALE = (1 / (255 * np.array(STD))).astype(np.float32)
BIAS = (-np.array(MEAN) / np.array(STD)).astype(np.float32)
LABEL = 8


def key_of(number: int) -> bytes:
    return number.to_bytes(8, "big")


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); variants: "lut" (a table for each channel), "blob" (cv2.dnn) and "numpy"."""
    store = lmdb.open(os.path.join(directory, "lmdb"), readonly=True, lock=False, readahead=False)
    params = cv2.dnn.Image2BlobParams()
    params.scalefactor = [1 / (255 * value) for value in STD]
    params.mean = [255 * value for value in MEAN]

    def windows(number: int, values: list[memoryview]) -> Iterator[np.ndarray]:
        rng = random.Random(seed * 1_000_003 + number)
        for value in values:
            image = np.frombuffer(value, np.uint8, offset=LABEL).reshape(SIZE, SIZE, 3)
            top, left = rng.randint(0, SIZE - job.height), rng.randint(0, SIZE - job.width)
            window = image[top : top + job.height, left : left + job.width]
            yield cv2.flip(window, 1) if rng.random() < 0.5 else window

    def make(number: int, indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
        with store.begin(buffers=True) as reading:
            values = [reading.get(key_of(index)) for index in indices]
            labels = np.array([int.from_bytes(value[:LABEL], "little") for value in values])
            if variant == "blob":
                return cv2.dnn.blobFromImagesWithParams([*windows(number, values)], params), labels
            images = np.empty(job.batch_shape(len(indices)), job.dtype)
            for window, out in zip(windows(number, values), images, strict=True):
                if variant == "lut":
                    for plane, table, target in zip(cv2.split(window), TABLES, out, strict=True):
                        cv2.LUT(plane, table, dst=target)
                else:
                    np.multiply(window.transpose(2, 0, 1), SCALE[:, None, None], out=out)
                    np.add(out, BIAS[:, None, None], out=out)
            return images, labels

    try:
        yield from pooled(make, index_batches(store.stat()["entries"], job.batch_size, seed), threads)
    finally:
        store.close()


def write(folder: str) -> None:
    """Write the pictures into an LMDB, each after its label."""
    images = images_of(folder)
    with lmdb.open(os.path.join(folder, "lmdb"), map_size=2 * images.nbytes + (1 << 24)) as store:
        for first in range(0, len(images), 64):
            with store.begin(write=True) as writing:
                for number in range(first, min(first + 64, len(images))):
                    value = number.to_bytes(LABEL, "little") + images[number].tobytes()
                    writing.put(key_of(number), value, append=True)


if __name__ == "__main__":
    write(sys.argv[1])
