"""A cache with a limit on the local disk, shared by all processes of a machine."""

from highway.storage.cache.cache import Cache

__all__ = ["Cache"]
