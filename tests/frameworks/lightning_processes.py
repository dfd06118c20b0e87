"""Train with Lightning in two processes that it starts, and note what each rank saw; a program.

    python lightning_processes.py STRATEGY DIR

Each process makes its loader of training, with a part of the data. The one of validation is made here, before.
A line of JSON for each step, [whether it trains, numbers of the photographs], is added to the file RANK.jsonl in
the folder WATCHED_DIR.
"""

import json
import os
import sys
from pathlib import Path

import lightning
import torch
from numbered_photographs import numbers_of

from highway.modules import Augmentations, ImageFileReader
from highway.torch import Loader
from highway.transforms import FlipX, Normalize


def loader(folder, batch_size, **options):
    return Loader([ImageFileReader(folder, batch_size, 32, **options), Augmentations([FlipX(), Normalize()])])


class Classifier(lightning.LightningModule):
    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.model = torch.nn.Conv2d(3, 3, 32)

    def train_dataloader(self):
        return loader(self.folder / "train", 4)

    def note(self, trains, images):
        path = Path(os.environ["WATCHED_DIR"]) / f"{self.global_rank}.jsonl"
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([trains, numbers_of(images.numpy())]) + "\n")

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.note(True, images)
        return torch.nn.functional.cross_entropy(self.model(images).flatten(1), labels)

    def validation_step(self, batch, batch_idx):
        self.note(False, batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def main():
    strategy, folder = sys.argv[1], Path(sys.argv[2])
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    validation = loader(folder / "val", 8, shuffle=False, shard=(0, 1))
    trainer.fit(Classifier(folder), val_dataloaders=validation)


if __name__ == "__main__":
    main()
