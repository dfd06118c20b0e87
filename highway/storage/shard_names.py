"""Names of shards: brace lists such as ``train-{0000..1023}.tar``, wildcards, and lists of both."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from highway.errors import ArgumentError, EmptyDatasetError
from highway.storage.urls import braces, has_wildcard, is_url, located, split, wildcard

__all__ = ["shard_paths"]

_WITHOUT_END = re.compile(r"\{\d+\.\.\}", re.ASCII)


def shard_paths(
    paths: object, owner: str, name: str = "paths", options: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the files that a path, URL, brace list or wildcard stands for, or a list of these; in this order.

    The files of a wildcard are sorted by name. Braces are expanded first. `options` are those of the stores of URLs.

    Raises
    ------
    ArgumentError
        The argument is something else, has a file twice, or a brace list without a last number.
    EmptyDatasetError
        There is no name, or no file for a wildcard.
    ReadError, StorageError
        A store cannot be listed.
    """
    found: list[str] = []
    if isinstance(paths, Sequence) and not isinstance(paths, (str, bytes)):
        for number, path in enumerate(paths):
            found += _listed(path, owner, f"{name}[{number}]", options)
    else:
        found += _listed(paths, owner, name, options)
    if not found:
        raise EmptyDatasetError(f"{owner}: {name} is {paths!r}; expected one file or more")
    seen: set[str] = set()
    for path in found:
        same = path if is_url(path) else os.path.normpath(path)
        if same in seen:
            raise ArgumentError(f"{owner}: {name} has {path!r} twice; expected every file once")
        seen.add(same)
    return found


def _listed(pattern: object, owner: str, name: str, options: Mapping[str, Any] | None) -> Iterator[str]:
    path = located(owner, name, pattern)
    # A file may have braces or stars in its name.
    if not is_url(path) and os.path.lexists(path):
        yield path
        return
    without_end = _WITHOUT_END.search(path)
    if without_end is not None:
        raise ArgumentError(
            f"{owner}: {name} is {pattern!r}, and {without_end[0]!r} has no last number, which only names to write may "
            f"lack; expected one, or a wildcard: {_WITHOUT_END.sub('*', path)!r}"
        )
    for each in braces(path, owner):
        if not has_wildcard(each):
            yield each
            continue
        files = _found(each, owner, options) if is_url(each) else sorted(glob.glob(each, recursive=True))
        if not files:
            raise EmptyDatasetError(f"{owner}: {name} is {pattern!r}, and no file has such a name")
        yield from files


def _found(pattern: str, owner: str, options: Mapping[str, Any] | None) -> list[str]:
    """Return the objects whose URLs match, sorted."""
    # Only URLs need it.
    from highway.storage.opening import open_store

    place = split(pattern, owner)
    folder, expression = wildcard(place.name)
    store = open_store(place.root, owner, options)
    names = (found.name for found in store.list(folder))
    return sorted(f"{place.root}/{name}" for name in names if expression.fullmatch(name))
