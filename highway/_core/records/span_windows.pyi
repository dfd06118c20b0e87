import numpy as np
from numpy.typing import NDArray

from highway._core.records.spans import Spans

def copy(
    spans: Spans,
    at: NDArray[np.int64],
    shape: tuple[int, int, int],
    places: NDArray[np.int64],
    fill: NDArray[np.uint8],
    out: NDArray[np.uint8],
    rows: NDArray[np.int64],
) -> None: ...
def normalize(
    spans: Spans,
    at: NDArray[np.int64],
    shape: tuple[int, int, int],
    places: NDArray[np.int64],
    fill: NDArray[np.uint8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    planar: bool,
    out: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.int16],
    rows: NDArray[np.int64],
) -> None: ...
