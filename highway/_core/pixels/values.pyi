import numpy as np
from numpy.typing import NDArray

def normalize(
    images: NDArray[np.uint8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    planar: bool,
    out: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.int16],
) -> None: ...
def normalize16(
    images: NDArray[np.uint16],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    planar: bool,
    out: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.int16],
) -> None: ...
def normalize_windows(
    images: NDArray[np.uint8],
    places: NDArray[np.int64],
    fill: NDArray[np.uint8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    planar: bool,
    out: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.int16],
) -> None: ...
