"""ManyStores: objects by their URLs, in any stores, and local files by their paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from highway.errors import ReadError, StorageError
from highway.storage.files import LARGEST_FILE, read_once
from highway.storage.object_store import ObjectStore
from highway.storage.objects import Object
from highway.storage.opening import open_store
from highway.storage.urls import is_url, split

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ManyStores"]


class ManyStores(ObjectStore):
    """Reads objects whose names are URLs or paths; it cannot be listed.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    options : mapping, optional
        `storage_options`, for all stores.
    """

    def __init__(self, owner: str, options: Mapping[str, Any] | None) -> None:
        super().__init__("", owner)
        self._options = options
        self._stores: dict[str, ObjectStore] = {}

    def open(self, names: Iterable[str]) -> None:
        """Open the stores of all URLs among some names, so that wrong options raise now.

        Raises
        ------
        ArgumentError, MissingPackageError
            See `open_store`.
        """
        for name in names:
            if is_url(name):
                self._found(name)

    def identity_of(self, name: str) -> str:
        store, _ = self._found(name)
        return store.identity

    def is_cached(self, name: str) -> bool:
        return is_url(name)

    def where(self, name: str) -> str:
        return name

    def ask_now(self, name: str) -> Object:
        store, inside = self._found(name)
        return store.ask_now(inside)._replace(name=name)

    def read_now(self, object: Object, start: int, stop: int) -> Buffer:
        store, inside = self._found(object.name)
        return store.read_now(object._replace(name=inside), start, stop)

    def listed(self, names: Sequence[str]) -> dict[str, Object]:
        inside: dict[ObjectStore, dict[str, str]] = {}
        for name in names:
            if is_url(name):
                store, one = self._found(name)
                inside.setdefault(store, {})[one] = name
        return {
            given[one]: found._replace(name=given[one])
            for store, given in inside.items()
            for one, found in store.listed([*given]).items()
        }

    def _found(self, name: str) -> tuple[ObjectStore, str]:
        root, inside = split(name, self.owner) if is_url(name) else ("", name)
        store = self._stores.get(root)
        if store is None:
            store = open_store(root, self.owner, self._options) if root else _LocalFiles("", self.owner)
            self._stores[root] = store
        return store, inside


class _LocalFiles(ObjectStore):
    """Files of this machine, by their paths."""

    def where(self, name: str) -> str:
        return name

    def ask_now(self, name: str) -> Object:
        try:
            return Object(name, os.stat(name).st_size)
        except OSError as error:
            raise self.unreadable(name, error.strerror or str(error)) from error

    def read_now(self, object: Object, start: int, stop: int) -> Buffer:
        try:
            contents = read_once(os.fsencode(object.name), LARGEST_FILE)
        except (ReadError, StorageError) as error:
            raise type(error)(f"{self.owner}: {object.name} {error}") from error
        self.check(object, len(contents), "")
        return memoryview(contents)[start:stop]
