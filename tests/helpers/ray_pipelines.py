"""Pipelines for the tests of workers on Ray; the nodes, and other drivers, import them from here."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
from pictures import class_folders
from voc_folders import annotation, thing, voc_folder

from highway.engine import Stage
from highway.modules import ArrayReader, Augmentations, ImageFileReader, VOCReader
from highway.transforms import FlipX, Letterbox, Normalize, RandomResizedCrop

SIZE = 48


def make_data(root: Path) -> Path:
    """Write class folders of photographs, the same with a damaged file, and a VOC set."""
    class_folders(root / "photos", classes=3, each=SIZE // 3)
    class_folders(root / "damaged", classes=3, each=SIZE // 3)
    victim = sorted((root / "damaged").glob("*/*.jpg"))[7]
    victim.write_bytes(victim.read_bytes()[:200])
    annotations = {
        f"{number:06}": annotation(*[thing(box=(5 + each, 6, 30, 40 + each)) for each in range(number % 3)])
        for number in range(SIZE)
    }
    voc_folder(root / "voc", annotations)
    return root


def pictures(root, *, folder="photos", epochs=2, batch_size=4, **options):
    return [
        ImageFileReader(
            str(root / folder),
            batch_size,
            (32, 32),
            fit=RandomResizedCrop(),
            seed=1,
            epochs=epochs,
            drop_last=False,
            **options,
        ),
        Augmentations([FlipX(), Normalize()], seed=2),
    ]


def boxes(root, *, epochs=2, **options):
    reader = VOCReader(
        str(root / "voc"), 4, (40, 40), fit=Letterbox(), seed=1, epochs=epochs, drop_last=False, **options
    )
    return [reader, Augmentations([FlipX()], seed=2)]


def arrays(root, *, epochs=2, batch_size=4, **options):
    rows = np.random.default_rng(0).integers(0, 256, (SIZE, 6, 8, 3), np.uint8)
    reader = ArrayReader(rows, np.arange(SIZE), batch_size, seed=1, epochs=epochs, drop_last=False, **options)
    return [reader, Augmentations([FlipX()], seed=2)]


class Paced(Stage):
    """Takes some time for each batch, as a larger job does."""

    def __init__(self, seconds):
        super().__init__(workers=1)
        self.seconds = seconds

    def process(self, batch):
        time.sleep(self.seconds)
        return batch


class Poison(Stage):
    """Kills its process where a batch has a sample."""

    def __init__(self, index, note):
        super().__init__(workers=1)
        self.index = index
        self.note = note

    def process(self, batch):
        if self.index in batch.indices:
            with open(self.note, "a") as file:
                file.write(f"{os.getpid()}\n")
            os._exit(3)
        return batch


class Failing(Stage):
    """Raises where a batch has a sample."""

    def __init__(self, index):
        super().__init__()
        self.index = index

    def process(self, batch):
        if self.index in batch.indices:
            raise ValueError(f"{self.index} is not allowed")
        return batch


def told(batches):
    """Epoch, number, samples and a hash of everything in it, of each batch."""
    found = []
    for batch in batches:
        sha = hashlib.sha256()
        for name, array in batch.as_dict().items():
            sha.update(f"{name} {np.asarray(array).dtype.str} {np.shape(array)};".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        found.append((batch.epoch, batch.seq, tuple(batch.indices.tolist()), sha.hexdigest()))
    return found
