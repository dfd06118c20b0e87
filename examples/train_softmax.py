"""Train softmax regression in NumPy on a folder of class folders: the shortest complete training loop.

    python examples/train_softmax.py demo-output/photos

The accuracy is measured on the training pictures, without augmentation: the example shows how to feed a model, not how
well this model generalizes.
"""

import argparse
import sys

import numpy as np

from highway import HighwayError
from highway.engine import Pipeline
from highway.modules import Augmentations, ImageFileReader
from highway.transforms import FlipX, Normalize, RandomResizedCrop

SHAPE = (24, 32)


class SoftmaxRegression:
    """A linear classifier on pixels, trained by gradient descent with momentum."""

    def __init__(self, inputs, classes):
        self.weights = np.zeros((inputs + 1, classes), np.float32)
        self.velocity = np.zeros_like(self.weights)

    def scores(self, images):
        flat = images.reshape(len(images), -1)
        return flat @ self.weights[:-1] + self.weights[-1]

    def step(self, images, labels, rate=0.002, momentum=0.9):
        """Take one training step; return the mean loss of the batch."""
        scores = self.scores(images)
        scores -= scores.max(axis=1, keepdims=True)
        chances = np.exp(scores)
        chances /= chances.sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        loss = -np.log(np.maximum(chances[rows, labels], 1e-12)).mean()
        chances[rows, labels] -= 1
        chances /= len(labels)
        gradient = np.vstack([images.reshape(len(images), -1).T @ chances, chances.sum(axis=0)])
        self.velocity = momentum * self.velocity - rate * gradient
        self.weights += self.velocity
        return loss


def train(data_dir, epochs, batch_size):
    reader = ImageFileReader(
        data_dir, batch_size, SHAPE, fit=RandomResizedCrop(scale=(0.5, 1.0)), epochs=epochs
    )
    model = SoftmaxRegression(3 * SHAPE[0] * SHAPE[1], len(reader.classes))
    with Pipeline([reader, Augmentations([FlipX(), Normalize()])]) as pipeline:
        for epoch in range(epochs):
            losses = [model.step(images, labels) for images, labels in pipeline]
            print(f"epoch {epoch + 1:2}: loss {np.mean(losses):.3f}")
    return model


def accuracy(model, data_dir):
    """Return the fraction of correctly classified pictures; reads every picture once, nothing is random."""
    reader = ImageFileReader(data_dir, 64, SHAPE, epochs=1, shuffle=False)
    right = 0
    with Pipeline([reader, Augmentations([Normalize()])]) as pipeline:
        for images, labels in pipeline:
            right += int((model.scores(images).argmax(axis=1) == labels).sum())
    return right / reader.size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", help="folder with one sub-folder of pictures per class")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    try:
        model = train(options.data_dir, options.epochs, options.batch_size)
        print(f"accuracy: {accuracy(model, options.data_dir):.0%}")
    except (HighwayError, OSError) as error:
        sys.exit(f"train_softmax: {error}")


if __name__ == "__main__":
    main()
