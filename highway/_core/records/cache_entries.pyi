import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

DAMAGED: int

def read(
    paths: list[bytes], keys: list[bytes], places: NDArray[np.int64], into: Buffer
) -> NDArray[np.int32]: ...
