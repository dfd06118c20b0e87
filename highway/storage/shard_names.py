"""Names of shards: brace lists such as ``train-{0000..1023}.tar``, wildcards, and lists of both."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence

from highway.arguments import expanded
from highway.errors import ArgumentError, EmptyDatasetError
from highway.storage.urls import braces, has_wildcard

__all__ = ["shard_paths"]


def shard_paths(paths: object, owner: str, name: str = "paths") -> list[str]:
    """Return the files that a path, brace list or wildcard stands for, or a list of these; in this order.

    The files of a wildcard are sorted by name. Braces are expanded first.

    Raises
    ------
    ArgumentError
        The argument is something else, or has a file twice.
    EmptyDatasetError
        There is no name, or no file for a wildcard.
    """
    found: list[str] = []
    if isinstance(paths, Sequence) and not isinstance(paths, (str, bytes)):
        for number, path in enumerate(paths):
            found += _listed(path, owner, f"{name}[{number}]")
    else:
        found += _listed(paths, owner, name)
    if not found:
        raise EmptyDatasetError(f"{owner}: {name} is {paths!r}; expected one file or more")
    seen: set[str] = set()
    for path in found:
        if path in seen:
            raise ArgumentError(f"{owner}: {name} has {path!r} twice; expected every file once")
        seen.add(path)
    return found


def _listed(pattern: object, owner: str, name: str) -> Iterator[str]:
    path = expanded(owner, name, pattern)
    # A file may have braces or stars in its name.
    if os.path.lexists(path):
        yield path
        return
    for each in braces(path, owner):
        if not has_wildcard(each):
            yield each
            continue
        files = sorted(glob.glob(each, recursive=True))
        if not files:
            raise EmptyDatasetError(f"{owner}: {name} is {pattern!r}, and no file has such a name")
        yield from files
