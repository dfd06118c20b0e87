import numpy as np
from numpy.typing import NDArray

NONE: int
BRIGHTNESS: int
CONTRAST: int
SATURATION: int
HUE: int
GRAYSCALE: int
INVERT: int
SOLARIZE: int
POSTERIZE: int
AUTOCONTRAST: int
EQUALIZE: int
GAMMA: int

MOST_FACTOR: float
MOST_KERNEL: int

def run(
    images: NDArray[np.uint8],
    operations: NDArray[np.int32],
    arguments: NDArray[np.float32],
    out: NDArray[np.uint8],
) -> None: ...
def sharpen(images: NDArray[np.uint8], factors: NDArray[np.float32], out: NDArray[np.uint8]) -> None: ...
def blur(
    images: NDArray[np.uint8],
    sigmas: NDArray[np.float32],
    rows: int,
    columns: int,
    out: NDArray[np.uint8],
) -> None: ...
def add_noise(
    images: NDArray[np.uint8] | NDArray[np.float32],
    seed: int,
    epoch: int,
    position: int,
    indices: NDArray[np.uint32],
    offsets: NDArray[np.float32],
    scales: NDArray[np.float32],
    low: float,
    high: float,
    out: NDArray[np.uint8] | NDArray[np.float32],
) -> None: ...
