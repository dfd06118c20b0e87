"""Train with Keras on the backend of KERAS_BACKEND, and print which samples each step saw, as JSON; a program.

It prints a list of passes, (name, batches of sample numbers), for every combination of its options.
"""

import json
import sys

import keras
import numpy as np

from highway.engine import Pipeline
from highway.keras import Dataset
from highway.modules import ArrayReader

COUNT = 50
IMAGES = np.zeros((COUNT, 4, 4, 1), np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(COUNT)


class Recorder(keras.Sequential):
    """Notes which samples its steps see."""

    def __init__(self, layers):
        super().__init__(layers)
        self.seen = {"train": [], "test": [], "predict": []}

    def _note(self, kind, data):
        images = data[0]
        self.seen[kind].append(keras.ops.convert_to_numpy(images)[:, 0, 0, 0].tolist())

    def train_step(self, *arguments):
        self._note("train", arguments[-1])
        return super().train_step(*arguments)

    def test_step(self, *arguments):
        self._note("test", arguments[-1])
        return super().test_step(*arguments)

    def predict_step(self, *arguments):
        self._note("predict", arguments[-1])
        return super().predict_step(*arguments)


def model(built):
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    made = Recorder([keras.Input((4, 4, 1)), *layers] if built else layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(optimizer="sgd", loss=loss, metrics=["accuracy"], run_eagerly=True)
    return made


def pipeline(batch_size, **options):
    return Pipeline([ArrayReader(IMAGES, np.arange(COUNT) % 3, batch_size, **options)])


def main():
    result = {"backend": keras.backend.backend(), "fits": []}
    for shuffle in (True, False):
        for built in (True, False):
            with pipeline(4) as train, pipeline(7, shuffle=False) as validation:
                trained, data = model(built), Dataset(train)
                trained.fit(data, epochs=3, shuffle=shuffle, verbose=0, validation_data=Dataset(validation))
                fitted, trained.seen["train"] = trained.seen["train"], []
                trained.fit(data, epochs=1, shuffle=shuffle, verbose=0)
                validated, trained.seen["test"] = trained.seen["test"], []
                trained.evaluate(data, verbose=0)
                trained.predict(Dataset(train, y=None), verbose=0)
                result["fits"].append(
                    {"fit": fitted, "validation": validated, "again": trained.seen["train"]}
                    | {"evaluate": trained.seen["test"], "predict": trained.seen["predict"]}
                )
    with pipeline(4) as train:
        trained, data = model(False), Dataset(train)
        # 13 batches an epoch: Keras continues in the next steps, and warns where the data ends within its epoch.
        trained.fit(data, epochs=2, steps_per_epoch=5, verbose=0)
        result["steps"] = trained.seen["train"]
        trained.seen["train"] = []
        # A pass that ends early is over.
        trained.fit(data, epochs=1, steps_per_epoch=6, verbose=0)
        trained.fit(data, epochs=1, verbose=0)
        result["after_an_early_end"] = trained.seen["train"]
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
