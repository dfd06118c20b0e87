from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from highway._core.records.spans import Spans

@final
class Tables:
    def __init__(self, paths: Sequence[bytes]) -> None: ...
    def find(self, numbers: NDArray[np.int64]) -> Spans: ...
