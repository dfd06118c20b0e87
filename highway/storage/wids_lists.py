"""Lists of shards in the format of wids, WebDataset's JSON files: which tars there are, and how much is in them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from highway.errors import DecodeError, EmptyDatasetError, ReadError
from highway.storage.files import LARGEST_FILE, read_whole
from highway.storage.urls import is_url, join, split

__all__ = ["ListedShard", "ShardList", "is_wids_list", "listed_shards"]


class ListedShard(NamedTuple):
    """A tar in a list.

    Attributes
    ----------
    path : str
        Path or URL.
    samples, nbytes : int or None
        Number of samples and bytes of the tar; None if the list does not say.
    """

    path: str
    samples: int | None
    nbytes: int | None


class ShardList(NamedTuple):
    """What a list has.

    Attributes
    ----------
    shards : list of ListedShard
    classes : list of str or None
        Classes of the source that a `TarSink` wrote.
    """

    shards: list[ListedShard]
    classes: list[str] | None


def is_wids_list(path: str) -> bool:
    """Return whether a path names a list rather than a tar."""
    return path.lower().endswith(".json")


def listed_shards(path: str, owner: str, options: Mapping[str, Any] | None) -> ShardList:
    """Return the tars of a list; names without a folder are relative to that of the list.

    Parameters
    ----------
    path : str
        Path or URL.
    owner : str
        Name of the reader, for errors.
    options : mapping or None
        `storage_options`.

    Raises
    ------
    DecodeError
        The file is no such list, or lists a tar twice.
    EmptyDatasetError
        It lists nothing.
    ReadError, StorageError
        It cannot be read.
    """
    try:
        found = json.loads(_contents(path, owner, options))
        if found["wids_version"] != 1:
            raise ValueError(f"wids_version is {found['wids_version']!r}")
        listed = [
            ListedShard(
                join(os.path.dirname(path), str(shard["url"])),
                _count(shard, "nsamples"),
                _count(shard, "filesize"),
            )
            for shard in found["shardlist"]
        ]
        classes = found.get("highway", {}).get("classes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DecodeError(
            f"{owner}: {path!r} is no list of shards in the format of wids, version 1 ({error!r}); expected a "
            "shardlist with the url of each tar"
        ) from None
    paths = [shard.path for shard in listed]
    if len(set(paths)) < len(paths):
        twice = next(shard for number, shard in enumerate(paths) if shard in paths[:number])
        raise DecodeError(f"{owner}: {path!r} lists {twice!r} twice; expected every shard once")
    if not listed:
        raise EmptyDatasetError(f"{owner}: {path!r} lists no shards; expected one or more")
    named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    return ShardList(listed, classes if named else None)


def _count(shard: Mapping[str, Any], name: str) -> int | None:
    return None if shard.get(name) is None else int(shard[name])


def _contents(path: str, owner: str, options: Mapping[str, Any] | None) -> bytes:
    if is_url(path):
        # Only URLs need them.
        from highway.storage.objects import Object
        from highway.storage.opening import open_store

        place = split(path, owner)
        return bytes(open_store(place.root, owner, options).read(Object(place.name)))
    try:
        return read_whole(os.fsencode(path), LARGEST_FILE, owner)
    except ReadError as error:
        raise ReadError(f"{owner}: {path!r} {error}") from None
