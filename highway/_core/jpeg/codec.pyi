from typing import Any

import numpy as np
from numpy.typing import NDArray

OK: int
NOT_JPEG: int
REFUSED: int
NO_FILE: int
NO_HANDLE: int
STORAGE: int
UNTRIED: int
BAD_FILE: int
NO_MEMORY: int
MOST_VIEWS: int

def library_versions() -> dict[str, str | None]: ...
def orientation(exif: bytes | None, xmp: bytes | None) -> int: ...
def failure(number: int) -> int: ...
def encode(pixels: NDArray[np.uint8], quality: int) -> bytes: ...

class Images:
    def __init__(
        self,
        images: NDArray[Any],
        scale: NDArray[np.float32] | None = None,
        bias: NDArray[np.float32] | None = None,
        planar: bool = False,
    ) -> None: ...

class Crew:
    def close(self) -> None: ...

class BatchDecoder:
    sound: bool
    def __init__(self, crew: Crew | None = None, *, max_bytes: int = ..., max_pixels: int = ...) -> None: ...
    def close(self) -> None: ...
    @property
    def by_library(self) -> int: ...
    def read(self, paths: list[bytes], oriented: bool = True, turn: int = 0) -> NDArray[np.int64]: ...
    def read_ranges(
        self,
        paths: list[bytes],
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        oriented: bool = True,
        turn: int = 0,
    ) -> NDArray[np.int64]: ...
    def read_contents(
        self, contents: list[bytes | memoryview | None], oriented: bool = True, turn: int = 0
    ) -> NDArray[np.int64]: ...
    def contents(self, i: int) -> bytes | None: ...
    def orientations(self) -> NDArray[np.int64]: ...
    def status(self, i: int) -> int: ...
    def message(self, i: int) -> str: ...
    def begin(
        self,
        samples: NDArray[np.int64],
        windows: NDArray[np.float64],
        targets: NDArray[np.int32],
        mirrored: NDArray[np.bool_],
        filter: int,
        exact: bool,
        size: tuple[int, int, int],
        nbytes: int = 0,
        wide: bool = False,
    ) -> bool: ...
    def begin_views(
        self,
        samples: NDArray[np.int64],
        views: list[
            tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.bool_], int, tuple[int, int, int]]
        ],
        exact: bool,
        nbytes: int = 0,
        wide: bool = False,
    ) -> bool: ...
    def ahead(self) -> bool: ...
    def finish(self, slots: NDArray[np.int64], images: Images) -> list[int]: ...
    def finish_views(self, slots: NDArray[np.int64], images: list[Images]) -> list[int]: ...
    def leave(self) -> None: ...
