"""Augment boxes: reads a folder in Pascal VOC format and augments pictures and boxes.

    python examples/detection.py VOCdevkit/VOC2012 -o detection.png

Prints the contents of one batch and writes a sheet that shows it next to the original pictures.
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
    # Drop boxes with less than a quarter of their area visible.
    RandomResizedCrop(SHAPE, scale=(0.3, 1), min_visible=0.25),
    FlipX(),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    NORMALIZE,
]


def reader_of(options):
    """Return a new reader; every reader yields the same samples in the same order."""
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
    """Print the arrays of a batch, then the objects in each sample."""
    for name, array in {**batch.fields, **batch.extras}.items():
        rows = "one row per box" if name in batch.ragged else "one per sample"
        print(f"{name}: {array.dtype}{array.shape}, {rows}")
    for i in range(batch.size):
        counts = np.bincount(batch.rows_of("labels", i), minlength=len(classes))
        found = [f"{count} {name}" for name, count in zip(classes, counts, strict=True) if count]
        print(f"{batch.keys[i]}: {', '.join(found) or 'no boxes'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder with JPEGImages, Annotations and ImageSets")
    parser.add_argument(
        "--split", help="list of names, such as train; default: all pictures with an annotation"
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
            title="Left: as read, right: network input",
        )
        print(f"wrote {options.output}")
    except (HighwayError, OSError) as error:
        sys.exit(f"detection: {error}")


if __name__ == "__main__":
    main()
