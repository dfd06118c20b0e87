"""Identities of samples: the number of a sample in the data, and which of its copies in an epoch it is.

Bits 0 to 31 of an identity are the number in the data, bits 32 to 62 the number of the copy: 0, unless the order has
samples several times in an epoch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["COPY_BITS", "MOST_COPIES", "draw_numbers", "identities", "numbers_of"]

COPY_BITS = 32
"""Place of the lowest bit of the number of the copy."""

MOST_COPIES = 2**31
"""Most copies of a sample in an epoch."""

_NUMBER = 2**COPY_BITS - 1
# Odd, so that the copies of a sample draw with different numbers; the golden ratio spreads them evenly.
_STEP = 0x9E3779B1


def identities(numbers: NDArray[np.int64], copies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the identities of copies of samples, int64 (N,)."""
    return numbers | copies << COPY_BITS


def numbers_of(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of samples in the data, int64 (N,), from their identities, as a task or a batch has them."""
    numbers: NDArray[np.int64] = indices & _NUMBER
    return numbers


def draw_numbers(indices: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return the numbers by which samples draw, uint32 (N,): their own for copy 0, and others for all other copies."""
    # Modulo 2**64, of which the lower half counts.
    spread: NDArray[np.int64] = numbers_of(indices) + (indices >> COPY_BITS) * _STEP & _NUMBER
    return spread.astype(np.uint32)
