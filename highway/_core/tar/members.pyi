from collections.abc import Callable
from typing import final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

HEADER: int
MEMBER: int
END: int
REFUSED: int
CUT_HEADER: int
CUT_MEMBER: int
CUT_AFTER: int
CHECKSUM: int
NUMBER: int
EXTENDED: int
TRAILING: int
READ: int
NO_MEMORY: int

@final
class Members:
    status: int
    number: int
    header: int
    name: bytes
    kind: str
    def __init__(
        self, source: int | Callable[[int, int], Buffer], size: int, at: int = 0, most: int = -1
    ) -> None: ...
    def __len__(self) -> int: ...
    def arrays(
        self,
    ) -> tuple[
        NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint8]
    ]: ...

def group(
    text: NDArray[np.uint8],
    ends: NDArray[np.int64],
    firsts: NDArray[np.int64],
    endings: list[bytes],
) -> tuple[NDArray[np.int64], NDArray[np.int16], NDArray[np.int64], NDArray[np.uint64]]: ...
