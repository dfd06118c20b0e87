import numpy as np
from numpy.typing import NDArray

OK: int
NOT_JPEG: int
NO_FILE: int
NO_HANDLE: int
BAD_FILE: int
NO_MEMORY: int

def library_version() -> str: ...

class BatchDecoder:
    def __init__(self, *, max_bytes: int = ..., max_pixels: int = ...) -> None: ...
    def close(self) -> None: ...
    @property
    def by_library(self) -> int: ...
    def read(self, paths: list[bytes], oriented: bool = True) -> list[tuple[int, int, int]]: ...
    def contents(self, i: int) -> bytes: ...
    def message(self, i: int) -> str: ...
    def decode(
        self,
        samples: NDArray[np.int64],
        windows: NDArray[np.float64],
        targets: NDArray[np.int32],
        filter: int,
        exact: bool,
        slots: NDArray[np.int64],
        out: NDArray[np.uint8],
    ) -> list[int]: ...
