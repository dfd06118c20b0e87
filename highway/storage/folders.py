"""Finds a folder, on this machine or in a store."""

from __future__ import annotations

import os

from highway.storage.access import Access
from highway.storage.file_tree import LocalTree, Tree
from highway.storage.urls import is_url, located

__all__ = ["folder_at"]


def folder_at(owner: str, name: str, value: object, access: Access) -> tuple[bytes, Tree]:
    """Return the path or URL of a folder, with a slash at its end, and the tree to read it with.

    Parameters
    ----------
    owner, name : str
        The reader and the name of its argument, for errors.
    value : object
        str, bytes or path.
    access : Access
        For a URL.

    Raises
    ------
    ArgumentError
        It is neither a path nor a URL.
    DatasetError, MissingPackageError, StorageError
        See `ObjectTree`.
    """
    text = located(owner, name, value)
    root = os.path.join(os.fsencode(text), b"")
    if not is_url(text):
        return root, LocalTree(owner)
    # Only URLs need it.
    from highway.storage.object_tree import ObjectTree

    return root, ObjectTree(text, owner, access)
