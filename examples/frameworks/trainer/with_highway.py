"""The Trainer of transformers, with checkpoints in the middle of epochs.

    python FILE DIR [--resume]

DIR has the folders train and val, each with one folder of photographs per class.
"""

import argparse
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from highway.modules import Augmentations, ImageFileReader
from highway.torch import Loader
from highway.transforms import Normalize


def load_data(folder, train):
    reader = ImageFileReader(folder, 8, 32, shuffle=train, shard=(0, 1))
    return Loader([reader, Augmentations([Normalize()])], as_dict=True).as_dataloader()


class Classifier(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(8, classes),
        )

    def forward(self, images, labels):
        logits = self.layers(images)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class ClassifierTrainer(Trainer):
    def get_train_dataloader(self):
        return self.accelerator.prepare(self.train_dataset)

    def get_eval_dataloader(self, eval_dataset=None):
        return self.accelerator.prepare(self.eval_dataset)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_path", type=Path)
    parser.add_argument("--checkpoints", default="checkpoints")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    options = TrainingArguments(
        args.checkpoints,
        num_train_epochs=2,
        eval_strategy="epoch",
        save_steps=2,
        learning_rate=0.01,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    model = Classifier(len(list((args.data_path / "train").iterdir())))
    train, val = (load_data(args.data_path / part, part == "train") for part in ("train", "val"))
    trainer = ClassifierTrainer(model, options, train_dataset=train, eval_dataset=val)
    trainer.train(resume_from_checkpoint=args.resume)


if __name__ == "__main__":
    main()
