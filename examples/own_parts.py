"""Write your own transform, stage and source in plain Python.

    python examples/own_parts.py

They hold the GIL while they run (NumPy releases it in larger operations), so they cost more than compiled modules;
`pipeline.stats()` shows how much.
"""

import numpy as np

from highway.batch import Batch
from highway.engine import Pipeline, Source, Stage
from highway.modules import Augmentations
from highway.transforms import FlipX, Transform


class Checkerboards(Source):
    """A source: `tasks` yields what to load, `load` loads it in a worker thread."""

    def __init__(self, batches, batch_size, side, **options):
        super().__init__(**options)
        self.batches, self.batch_size, self.side = batches, batch_size, side

    def __len__(self):
        return self.batches

    def tasks(self):
        return iter(range(self.batches))

    def load(self, task):
        # The label is the width of a square, 1 to 4 pixels.
        labels = (task * self.batch_size + np.arange(self.batch_size)) % 4 + 1
        places = np.arange(self.side) // labels[:, None]
        fields = (places[:, :, None] + places[:, None, :]) % 2
        images = np.repeat((fields * 200).astype(np.uint8)[..., None], 3, axis=3)
        return Batch({"images": images, "labels": labels})


class Brightness(Transform):
    """A transform: `draw` draws a value per sample, `apply_images` applies it.

    The drawn values do not depend on the number of threads or on the other samples of the batch.
    """

    def __init__(self, most=50):
        self.most = most

    def draw(self, rng, batch):
        return rng.uniform(-self.most, self.most)

    def apply_images(self, images, params):
        changed = images + params[:, None, None, None]
        return np.clip(np.rint(changed), 0, 255).astype(np.uint8)

    def deterministic(self):
        return None


class WithMeans(Stage):
    """A stage: adds a field to the batch. Return None to drop a batch."""

    def process(self, batch):
        return batch.replace(means=batch.images.mean(axis=(1, 2, 3)))


def main():
    modules = [
        Checkerboards(batches=100, batch_size=16, side=32, workers=1),
        Augmentations([Brightness(), FlipX()], seed=7),
        WithMeans(),
    ]
    with Pipeline(modules) as pipeline:
        for batch in pipeline:
            images, labels, means = batch
            if batch.seq == 0:
                print(
                    f"images {images.dtype}{images.shape}, labels {labels}, means {means.round().astype(int)}"
                )
        print(pipeline.stats())


if __name__ == "__main__":
    main()
