"""A model of Flax, trained with Optax.

    python FILE DIR

DIR has the folders train and val, each with one folder of photographs per class.
"""

import sys
from pathlib import Path

import optax
from flax import nnx

from highway.engine import Pipeline
from highway.jax import batches
from highway.modules import ImageFileReader


def load_data(folder, train):
    return Pipeline([ImageFileReader(folder, 8, 32, shuffle=train)])


class Classifier(nnx.Module):
    def __init__(self, classes):
        rngs = nnx.Rngs(0)
        self.convolution = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.linear = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, images):
        features = nnx.relu(self.convolution(images / 255))
        return self.linear(features.mean(axis=(1, 2)))


@nnx.jit
def train_step(model, optimizer, images, labels):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


@nnx.jit
def count_correct(model, images, labels):
    return (model(images).argmax(axis=1) == labels).sum()


def main():
    folder = Path(sys.argv[1])
    train, val = (load_data(folder / part, part == "train") for part in ("train", "val"))
    model = Classifier(len(list((folder / "train").iterdir())))
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
    for epoch in range(2):
        for images, labels in batches(train):
            value = train_step(model, optimizer, images, labels)
        correct = sum(count_correct(model, images, labels) for images, labels in batches(val))
        print(f"epoch {epoch}: loss {value:.3f}, {correct} are correct")


if __name__ == "__main__":
    main()
