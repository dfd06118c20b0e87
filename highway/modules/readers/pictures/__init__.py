"""Picture files that are no JPEGs: what their headers say, and PIL images of their pixels."""

from highway.modules.readers.pictures.headers import NAMES, header
from highway.modules.readers.pictures.still import Still

__all__ = ["NAMES", "Still", "header"]
