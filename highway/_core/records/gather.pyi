from typing import Any

import numpy as np
from numpy.typing import NDArray

def gather(
    rows: NDArray[np.uint8],
    firsts: NDArray[np.int64],
    parts: NDArray[np.int64],
    run: int,
    out: NDArray[np.uint8],
) -> None: ...
def gather_planar(images: NDArray[Any], indices: NDArray[np.int64], out: NDArray[Any]) -> None: ...
