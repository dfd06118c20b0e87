"""A model of Flax, trained with Optax.

    python FILE DIR

DIR has the folders train and val, each with one folder of photographs per class.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torchvision import datasets
from torchvision.transforms import v2


def as_arrays(samples):
    images, labels = zip(*samples, strict=True)
    return np.stack(images), np.array(labels)


def load_data(folder, train):
    dataset = datasets.ImageFolder(folder, v2.Compose([v2.Resize((32, 32)), np.asarray]))
    return torch.utils.data.DataLoader(dataset, 8, shuffle=train, num_workers=2, collate_fn=as_arrays)


def batches(loader):
    for images, labels in loader:
        yield jnp.asarray(images), jnp.asarray(labels)


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
