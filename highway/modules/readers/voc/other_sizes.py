"""Annotations that state another size than their picture has: counted, and named in one warning."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

__all__ = ["OtherSizes"]

_logger = logging.getLogger("highway.modules")


class OtherSizes:
    """Samples whose annotation states another size than the picture has, and that are read all the same.

    Parameters
    ----------
    owner : str
        Who reads, for the warning.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._found: set[int] = set()

    def __len__(self) -> int:
        """How many were read so far."""
        with self._lock:
            return len(self._found)

    def note(self, found: Mapping[int, str]) -> None:
        """Count samples, by index, with what is to be said of each; the first time, log a warning."""
        if not found:
            return
        with self._lock:
            first = not self._found
            self._found.update(found)
        if first:
            _logger.warning(
                "%s: <size> is not that of the picture in %d of the annotations that were read first; one of them: %s. "
                "The size of the file counts: boxes are taken in its pixels and clipped to it. Where pictures were "
                "scaled or turned after they were annotated, that is wrong: strict=True makes bad samples of them",
                self._owner,
                len(found),
                next(iter(found.values())),
            )
