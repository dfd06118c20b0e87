"""Access: what readers were told about the objects behind URLs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from highway.arguments import expanded
from highway.errors import ArgumentError
from highway.storage.urls import is_url, located

if TYPE_CHECKING:
    from highway.storage.cache import Cache

__all__ = ["Access", "cache_at"]


class Access(NamedTuple):
    """How a reader gets at the objects behind its URLs.

    Attributes
    ----------
    options : mapping or None
        `storage_options`.
    cache : Cache or None
        Keeps what is fetched, and the listing.
    index_file : str or None
        File that keeps the listing.
    """

    options: Mapping[str, Any] | None = None
    cache: Cache | None = None
    index_file: str | None = None

    @classmethod
    def of(cls, owner: str, options: Mapping[str, Any], index: object = None) -> Access:
        """Return that of the options of a reader.

        Parameters
        ----------
        owner : str
            Name of the reader, for errors.
        options : mapping
            With `storage_options`, `cache` and `cache_bytes`.
        index : path, optional

        Raises
        ------
        ArgumentError, StoreError, WriteError
            See `cache_at`.
        """
        return cls(
            options["storage_options"],
            cache_at(owner, options["cache"], options["cache_bytes"]),
            None if index is None else expanded(owner, "index", index),
        )


def cache_at(owner: str, directory: Any, max_bytes: int | float | None) -> Cache | None:
    """Return the cache of the arguments `cache` and `cache_bytes` of a reader; None if there is none.

    Raises
    ------
    ArgumentError, StoreError, WriteError
        See `Cache`.
    """
    if directory is None:
        if max_bytes is not None:
            raise ArgumentError(
                f"{owner}: cache_bytes is {max_bytes!r} without cache; expected the folder in cache"
            )
        return None
    if is_url(located(owner, "cache", directory)):
        raise ArgumentError(f"{owner}: cache is {directory!r}; expected a folder of this machine")
    # It brings OpenSSL.
    from highway.storage.cache import Cache

    return Cache(directory, max_bytes, owner)
