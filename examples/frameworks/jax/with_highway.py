"""A training loop in JAX.

    python FILE DIR

DIR has the folders train and val, each with one folder of photographs per class.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from highway.engine import Pipeline
from highway.jax import batches
from highway.modules import ImageFileReader


def load_data(folder, train):
    return Pipeline([ImageFileReader(folder, 8, 32, shuffle=train)])


def scores(weights, images):
    return (images / 255).reshape(len(images), -1) @ weights


def loss(weights, images, labels):
    chances = jax.nn.log_softmax(scores(weights, images))
    return -jnp.take_along_axis(chances, labels[:, None], axis=1).mean()


@jax.jit
def train_step(weights, images, labels):
    value, gradient = jax.value_and_grad(loss)(weights, images, labels)
    return weights - 0.01 * gradient, value


@jax.jit
def count_correct(weights, images, labels):
    return (scores(weights, images).argmax(axis=1) == labels).sum()


def main():
    folder = Path(sys.argv[1])
    train, val = (load_data(folder / part, part == "train") for part in ("train", "val"))
    weights = jnp.zeros((32 * 32 * 3, len(list((folder / "train").iterdir()))))
    for epoch in range(2):
        for images, labels in batches(train):
            weights, value = train_step(weights, images, labels)
        correct = sum(count_correct(weights, images, labels) for images, labels in batches(val))
        print(f"epoch {epoch}: loss {value:.3f}, {correct} are correct")


if __name__ == "__main__":
    main()
