import numpy as np
from numpy.typing import NDArray

def pad_rows(
    values: NDArray[np.uint8],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    fill: NDArray[np.uint8],
    out: NDArray[np.uint8],
) -> None: ...
def join_rows(
    values: NDArray[np.uint8],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    width: int,
    out: NDArray[np.uint8],
) -> None: ...
def number_rows(
    offsets: NDArray[np.int64], positions: NDArray[np.int32], segments: NDArray[np.int32]
) -> None: ...
