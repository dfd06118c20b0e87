"""A module of Lightning, trained with checkpoints in the middle of epochs.

    python FILE DIR [--resume]

DIR has the folders train and val, each with one folder of photographs per class.
"""

import argparse
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from highway.modules import Augmentations, ImageFileReader
from highway.torch import Loader
from highway.transforms import FlipX, Normalize, RandomResizedCrop


def load_data(folder, train):
    reader = ImageFileReader(folder, 8, 32, fit=RandomResizedCrop() if train else None, shuffle=train)
    return Loader([reader, Augmentations([FlipX(), Normalize()], deterministic=not train)])


class Classifier(lightning.LightningModule):
    def __init__(self, classes):
        super().__init__()
        self.model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, classes),
        )

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.model(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        accuracy = (self.model(images).argmax(1) == labels).float().mean()
        self.log("accuracy", accuracy, batch_size=len(images))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_path", type=Path)
    parser.add_argument("--checkpoints", default="checkpoints")
    parser.add_argument("--limit", type=int, help="batches of an epoch")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    model = Classifier(len(list((args.data_path / "train").iterdir())))
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        limit_train_batches=args.limit,
        callbacks=[ModelCheckpoint(args.checkpoints, every_n_train_steps=2, save_top_k=-1, save_last=True)],
        logger=False,
        enable_progress_bar=False,
    )
    train, val = (load_data(args.data_path / part, part == "train") for part in ("train", "val"))
    trainer.fit(model, train, val, ckpt_path="last" if args.resume else None)


if __name__ == "__main__":
    main()
