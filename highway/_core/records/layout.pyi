import numpy as np
from numpy.typing import NDArray

from highway._core.records.spans import Spans

MAGIC: bytes
HEADER_BYTES: int
NO_KEY: int
ALIGNMENT: int
LENGTH_BYTES: int
EXTRA: int
RAGGED: int
ENCODED: int
SOUND: int
NO_MAGIC: int
WRONG_CHECKSUM: int
WRONG_NUMBER: int
WRONG_COLUMNS: int
WRONG_SIZE: int
CHECKED: int

def check_records(
    spans: Spans,
    numbers: NDArray[np.int64],
    description: bytes | None,
    sizes: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    out: NDArray[np.int64],
) -> None: ...
