"""Seeds of Python's random, NumPy and torch, for one sample."""

from __future__ import annotations

import random
import sys

import numpy as np
from numpy.typing import NDArray

from highway.sampling.rng import SEED_POSITION, SampleRandom

__all__ = ["seed_libraries", "seeds_of"]


def seeds_of(seed: int, epoch: int, indices: NDArray[np.int64]) -> list[int]:
    """Return a seed for each sample, 0 to 2**63 - 1: the same for any number of processes and any batch."""
    found: list[int] = SampleRandom(seed, epoch, indices, SEED_POSITION).integers(0, 2**63 - 1).tolist()
    return found


def seed_libraries(seed: int) -> None:
    """Seed the global generators of Python's random and NumPy, and of torch on the CPU if it is imported."""
    random.seed(seed)
    # NumPy's legacy generator is the global one; it takes 32 bits.
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(seed)
