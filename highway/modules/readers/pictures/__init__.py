"""Picture files that are not JPEGs: parses their headers, and decodes them with PIL."""

from highway.modules.readers.pictures.headers import NAMES, header
from highway.modules.readers.pictures.still import Still

__all__ = ["NAMES", "Still", "header"]
