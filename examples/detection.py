"""Boxes through a pipeline: a folder in the format of Pascal VOC, augmented.

    python examples/detection.py VOCdevkit/VOC2012 -o detection.png

Prints what one batch holds, and writes a sheet of it with the pictures as they were beside.
"""

import argparse
import sys

import numpy as np

from highway import HighwayError
from highway.engine import Pipeline
from highway.modules import Augmentations, VOCReader
from highway.transforms import ColorJitter, FlipX, Letterbox, Normalize, RandomResizedCrop

SHAPE = (512, 512)
NORMALIZE = Normalize()
TRANSFORMS = [
    # Of a box, a quarter has to be left.
    RandomResizedCrop(SHAPE, scale=(0.3, 1), min_visible=0.25),
    FlipX(),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    NORMALIZE,
]


def reader_of(options):
    """The same samples in the same order, as often as it is called."""
    return VOCReader(
        options.root,
        options.batch_size,
        SHAPE,
        split=options.split,
        fit=Letterbox(fill=114),
        seed=options.seed,
    )


def first_batch(*modules):
    with Pipeline(modules) as pipeline:
        return pipeline.dequeue()


def show(batch, classes):
    """Every array of a batch; then, sample for sample, what is in it."""
    for name, array in {**batch.fields, **batch.extras}.items():
        rows = "a row for each box" if name in batch.ragged else "one for each sample"
        print(f"{name}: {array.dtype}{array.shape}, {rows}")
    for i in range(batch.size):
        counts = np.bincount(batch.rows_of("labels", i), minlength=len(classes))
        found = [f"{count} {name}" for name, count in zip(classes, counts, strict=True) if count]
        print(f"{batch.keys[i]}: {', '.join(found) or 'no boxes'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder with JPEGImages, Annotations and ImageSets")
    parser.add_argument(
        "--split", help="list of names, such as train; without it everything with an annotation"
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", default="detection.png")
    options = parser.parse_args()
    try:
        reader = reader_of(options)
        batch = first_batch(reader, Augmentations(TRANSFORMS, seed=options.seed))
        show(batch, reader.classes)
        batch.sheet(
            options.output,
            reader.classes,
            normalize=NORMALIZE,
            original=first_batch(reader_of(options)),
            title="Left as read, right as the network gets it",
        )
        print(f"{options.output} shows them")
    except (HighwayError, OSError) as error:
        sys.exit(f"detection: {error}")


if __name__ == "__main__":
    main()
