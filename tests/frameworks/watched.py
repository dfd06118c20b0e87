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
        return compile_model(self, *arguments, **{**options, "run_eagerly": True})

    # In the class that defines it: models whose class overrides `compile` are not compiled where they are loaded.
    owner = next(kind for kind in keras.Model.__mro__ if "compile" in vars(kind))
    compile_model, owner.compile = owner.compile, compiled
    keras.Model.train_step = watched(keras.Model.train_step, True)
    keras.Model.test_step = watched(keras.Model.test_step, False)


def watch_jit(compiler):
    """Note what functions get as images that the `jit` of a module compiles; training is what is named so."""

    def watched(function):
        compiled = jit(function)

        def noted(*arguments):
            *_, images, _ = arguments
            note(function.__name__ == "train_step", images)
            return compiled(*arguments)

        return noted

    jit, compiler.jit = compiler.jit, watched


def watch_jax():
    import jax

    watch_jit(jax)


def watch_flax():
    from flax import nnx

    watch_jit(nnx)


if __name__ == "__main__":
    del sys.argv[0]
    watches = {"flax": watch_flax, "jax": watch_jax, "keras": watch_keras, "torch": watch_torch}
    watches[os.environ.get("WATCHED", "torch")]()
    runpy.run_path(sys.argv[0], run_name="__main__")
