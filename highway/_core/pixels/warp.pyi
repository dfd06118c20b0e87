from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAREST: int
BILINEAR: int

def sample(
    images: NDArray[Any],
    matrices: NDArray[np.float64],
    bounds: NDArray[np.float64],
    fill: NDArray[Any],
    interpolation: int,
    out: NDArray[Any],
) -> None: ...
