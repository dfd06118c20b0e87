"""Data sets that worker processes import: they draw, fail, hang, or end their process."""

from __future__ import annotations

import os
import random
import signal
import threading

import numpy as np


class Drawn:
    """Samples with draws of Python's and NumPy's generators, an array, a text and a list of another length each."""

    def __init__(self, count=20):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {
            "image": np.full((6, 5, 3), index, np.uint8),
            "draws": [random.random(), np.random.rand()],  # noqa: NPY002
            "tokens": np.arange(index % 4),
            "text": f"sample {index}",
            "label": index,
        }


class Plain:
    """Samples of `width` numbers; `acts` maps an index to what happens there."""

    def __init__(self, count=20, acts=(), width=3):
        self.count, self.acts, self.width = count, dict(acts), width

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        act = self.acts.get(index)
        if act == "raise":
            raise Unpicklable(index, "no luck")
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "hang":
            threading.Event().wait()
        if act == "exit":
            os._exit(3)
        if act == "memory":
            raise MemoryError("no room")
        if act == "type":
            return {"x": "text", "pid": 0}
        return {"x": np.full(self.width, index, np.float32), "pid": os.getpid()}


class Empty(Plain):
    """Samples whose arrays have no byte."""

    def __getitem__(self, index):
        return {"x": np.zeros((0, 3), np.float32), "y": np.zeros((2, 0), np.int8)}


class Unpicklable(Exception):
    """Cannot be unpickled: it needs two arguments and keeps one."""

    def __init__(self, index, text):
        super().__init__(f"{text} at {index}")


class NotHere:
    """Can be pickled, but not unpickled in another process."""

    def __init__(self, parent):
        self.parent = parent

    def __setstate__(self, state):
        self.__dict__.update(state)
        if os.getpid() != self.parent:
            raise ValueError("not in this process")

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return index


def doubled(samples):
    """Collate in the worker process."""
    return {"x": np.stack([sample["x"] for sample in samples]) * 2}


class Batched(Plain):
    """Reads all samples of a batch with one call."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]
