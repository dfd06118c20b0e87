"""Run a training program, and note which photographs every step of its model saw; a program.

    python watched.py PROGRAM ARGUMENTS

A line of JSON for each step, [whether it trains, numbers of the photographs], is added to the file RANK.jsonl in the
folder WATCHED_DIR. With WATCHED_KILL the process kills itself before the step of training with that number.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

import numpy as np
from numbered_photographs import numbers_of

FOLDER = Path(os.environ["WATCHED_DIR"])
KILL = int(os.environ.get("WATCHED_KILL", -1))
trained = 0


def note(trains, images):
    global trained
    if trains and trained == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    trained += trains
    with open(FOLDER / f"{os.environ.get('RANK', 0)}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps([trains, numbers_of(np.asarray(images))]) + "\n")


def watch_torch():
    """Note what the first layer gets, a convolution of colors."""
    import torch

    def hook(module, arguments):
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
            note(module.training, arguments[0].detach().float().numpy())

    torch.nn.modules.module.register_module_forward_pre_hook(hook)


def watch_keras():
    """Note what the steps of all models get."""
    import keras

    def watched(step, trains):
        def noted(self, *arguments):
            note(trains, keras.ops.convert_to_numpy(arguments[-1][0]))
            return step(self, *arguments)

        return noted

    def compiled(self, *arguments, **options):
        return compile_model(self, *arguments, **options, run_eagerly=True)

    compile_model, keras.Model.compile = keras.Model.compile, compiled
    keras.Model.train_step = watched(keras.Model.train_step, True)
    keras.Model.test_step = watched(keras.Model.test_step, False)


def watch_jax():
    """Note what compiled functions get as images; training is what is named so."""
    import jax

    def watched(function):
        compiled = jit(function)

        def noted(weights, images, labels):
            note(function.__name__ == "train_step", images)
            return compiled(weights, images, labels)

        return noted

    jit, jax.jit = jax.jit, watched


if __name__ == "__main__":
    del sys.argv[0]
    {"keras": watch_keras, "jax": watch_jax}.get(os.environ.get("WATCHED", "torch"), watch_torch)()
    runpy.run_path(sys.argv[0], run_name="__main__")
