"""A model of Keras, on the backend of KERAS_BACKEND: jax, torch or tensorflow.

    python FILE DIR

DIR has the folders train and val, each with one folder of photographs per class.
"""

import sys
from pathlib import Path

import keras


def load_data(folder, train):
    options = {"interpolation": "bilinear", "shuffle": train, "verbose": False}
    return keras.utils.image_dataset_from_directory(folder, batch_size=8, image_size=(32, 32), **options)


def main():
    folder = Path(sys.argv[1])
    model = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(len(list((folder / "train").iterdir()))),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    train, val = (load_data(folder / part, part == "train") for part in ("train", "val"))
    model.fit(train, validation_data=val, epochs=2, verbose=2)


if __name__ == "__main__":
    main()
