"""OtherSizes: counts annotations whose stated size is not that of their picture, and warns once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

__all__ = ["OtherSizes"]

_logger = logging.getLogger("highway.modules")


class OtherSizes:
    """Counts the samples that are read although their annotation states another size than the picture has.

    Parameters
    ----------
    owner : str
        Name of the reader, for the warning.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._found: set[int] = set()

    def __len__(self) -> int:
        """Number of these samples that were read so far."""
        with self._lock:
            return len(self._found)

    def note(self, found: Mapping[int, str]) -> None:
        """Count samples, given by index with a text about each; logs a warning the first time."""
        if not found:
            return
        with self._lock:
            first = not self._found
            self._found.update(found)
        if first:
            _logger.warning(
                "%s: <size> is not that of the picture in %d of the annotations that were read first; one of them: %s. "
                "The size of the picture file is used: boxes are in its pixels and clipped to it. If pictures were "
                "scaled or turned after they were annotated, their boxes are wrong: strict=True makes them bad samples",
                self._owner,
                len(found),
                next(iter(found.values())),
            )
