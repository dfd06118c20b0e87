from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

CHECKED: int
PLAIN: int
RAGGED: int
FILE: int
SOUND: int
NO_MAGIC: int
WRONG_CHECKSUM: int
WRONG_NUMBER: int
WRONG_COLUMNS: int
WRONG_SIZE: int

@final
class Spans:
    def __init__(self, values: Sequence[Buffer | None] = ()) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> memoryview | None: ...
    def put(self, number: int, value: Buffer) -> None: ...
    def missing(self) -> list[int]: ...
    def take(self, numbers: NDArray[np.int64]) -> Spans: ...
    def parts(self, at: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[memoryview]: ...
    def texts(self, at: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[bytes]: ...

def rows_of(array: NDArray[np.uint8], indices: NDArray[np.int64]) -> Spans: ...
def check_records(
    spans: Spans,
    numbers: NDArray[np.int64],
    description: bytes | None,
    sizes: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    out: NDArray[np.int64],
) -> None: ...
def place(spans: Spans, at: NDArray[np.int64], out: NDArray[np.uint8], rows: NDArray[np.int64]) -> None: ...
def place_windows(
    spans: Spans,
    at: NDArray[np.int64],
    shape: tuple[int, int, int],
    places: NDArray[np.int64],
    fill: NDArray[np.uint8],
    out: NDArray[np.uint8],
    rows: NDArray[np.int64],
) -> None: ...
def normalize_windows(
    spans: Spans,
    at: NDArray[np.int64],
    shape: tuple[int, int, int],
    places: NDArray[np.int64],
    fill: NDArray[np.uint8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    planar: bool,
    out: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.int16],
    rows: NDArray[np.int64],
) -> None: ...
