"""Picture files that PIL decodes: parses their headers, and decodes them."""

from highway.modules.readers.pictures.headers import NAMES, header
from highway.modules.readers.pictures.still import Still

__all__ = ["NAMES", "Still", "header"]
