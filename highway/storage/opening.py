"""Opens the store of a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from highway.errors import ArgumentError
from highway.storage.object_store import ObjectStore

__all__ = ["open_store"]


def open_store(url: str, owner: str, options: Mapping[str, Any] | None = None) -> ObjectStore:
    """Return the store of a URL; asks it nothing yet.

    Parameters
    ----------
    url : str
        As `Location.root`. ``s3``, ``s3a``, ``gs``, ``gcs``, ``az``, ``azure``, ``adl``, ``abfs``, ``abfss``, ``http``
        and ``https`` are read with obstore, other schemes with fsspec.
    owner : str
        Name of the reader, for errors.
    options : mapping, optional
        For the store: those of obstore, such as `endpoint`, `region`, `skip_signature`, `client_options`; or those of
        the file system of fsspec.

    Raises
    ------
    ArgumentError
        `options` is no mapping, the store does not have such options, or there is no such scheme.
    MissingPackageError
        obstore or fsspec is not installed.
    """
    if options is not None and not isinstance(options, Mapping):
        # Not the value, which may be a secret.
        raise ArgumentError(
            f"{owner}: storage_options is of type {type(options).__name__}; expected a mapping, such as "
            "{'region': 'eu-central-1'}"
        )
    scheme = url.partition("://")[0]
    from highway.storage.fsspec_objects import FsspecObjects
    from highway.storage.obstore_objects import SCHEMES, ObstoreObjects

    kind = ObstoreObjects if scheme in SCHEMES else FsspecObjects
    return kind(url, owner, dict(options or {}))
