"""Picture files that are no JPEGs: what their headers say, and PIL images of their pixels."""

from highway.modules.pictures.files import NAMES, header
from highway.modules.pictures.still import Still

__all__ = ["NAMES", "Still", "header"]
