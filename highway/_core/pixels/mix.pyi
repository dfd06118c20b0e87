from typing import Any

import numpy as np
from numpy.typing import NDArray

def blend(images: NDArray[Any], own: NDArray[np.float64], out: NDArray[Any]) -> None: ...
def paste(images: NDArray[np.uint8], boxes: NDArray[np.int64], out: NDArray[np.uint8]) -> None: ...
def paint(
    images: NDArray[np.uint8],
    boxes: NDArray[np.int64],
    pixel: NDArray[np.uint8],
    out: NDArray[np.uint8],
) -> None: ...
