from typing import Any

import numpy as np
from numpy.typing import NDArray

FILTERS: tuple[str, ...]

def center_windows(
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    height: float,
    width: float,
    windows: NDArray[np.float64],
) -> None: ...
def resize_batch(
    images: NDArray[Any],
    windows: NDArray[np.float64],
    targets: NDArray[np.int32],
    mirrored: NDArray[np.uint8],
    filter: int,
    out: NDArray[Any],
) -> None: ...
