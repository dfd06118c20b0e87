"""TarShards: writes samples to tar files, each of them whole or not at all, and resumes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from highway.errors import (
    ArgumentError,
    CorruptStoreError,
    HighwayError,
    IncompleteStoreError,
    StateMismatchError,
    StoreError,
    StoreLockedError,
    TarError,
    WriteError,
)
from highway.storage.file_names import name_of
from highway.storage.files import write_whole
from highway.storage.locks import flock
from highway.storage.tar_index import indexed
from highway.store.marks import Seen

__all__ = ["ShardNames", "TarShards"]

logger = logging.getLogger("highway.store")

_PATTERN = re.compile(r"\{(\d+)\.\.(\d*)\}", re.ASCII)
_VERSION = 1
_BLOCK = 512
# Two blocks of zeros, filled up to a record as by every tar.
_RECORD = 20 * _BLOCK


class ShardNames:
    """Names of shards that are written, ``out-{0000..}.tar``, and of the list of them.

    Parameters
    ----------
    pattern : str
        A path with one range in braces; without a second number it has no end.
    owner : str
        Name of the writer, for errors.

    Raises
    ------
    ArgumentError
        There is no such range, or more than one.

    Attributes
    ----------
    listing : str
        Path of the JSON file that lists the shards: ``out.json``.
    """

    def __init__(self, pattern: str, owner: str) -> None:
        found = list(_PATTERN.finditer(pattern))
        if len(found) != 1 or "{" in os.path.dirname(pattern) or not pattern.endswith(".tar"):
            raise ArgumentError(
                f"{owner}: path is {pattern!r}; expected the name of a tar with one range of numbers, such as "
                "'train-{0000..}.tar'"
            )
        self.pattern, self._owner = pattern, owner
        self._before, self._after = pattern[: found[0].start()], pattern[found[0].end() :]
        first, last = found[0].groups()
        self._first, self._width = int(first), len(first)
        self._last = int(last) if last else None
        folder, stem = os.path.split(self._before + self._after.removesuffix(".tar"))
        self.listing = os.path.join(folder, (stem.strip("-_.") or "shards") + ".json")

    def name(self, number: int) -> str:
        """Path of shard `number`, counted from 0.

        Raises
        ------
        WriteError
            The range ends before.
        """
        if self._last is not None and self._first + number > self._last:
            raise WriteError(
                f"{self._owner}: {self.pattern!r} has no name for shard {number}, and there are more samples; use a "
                "range without an end, such as {0000..}, or larger shards"
            )
        return f"{self._before}{self._first + number:0{self._width}}{self._after}"


class TarShards:
    """Writes tar shards, exclusively and from one thread.

    Every sample is some members with one name, for WebDataset. A shard appears under its name when it is whole, and
    then in the listing: a JSON file in the format of wids, which also says which samples the shards have.

    Parameters
    ----------
    names : ShardNames
    owner : str
        Name of the writing module, for errors.
    append : bool
        True to add missing samples to existing shards.
    shard_bytes, shard_samples : int, int or None
        Largest shard, unless one sample is larger.
    classes : list of str, int or None
        Classes of the source.
    fingerprint : str
        Fingerprint of the source. Existing shards must have the same.
    origin : str
        The repr of the source.

    Raises
    ------
    StoreError
        There are shards, and `append` is False.
    IncompleteStoreError
        The same, and they are not complete.
    StateMismatchError
        There are shards of other data.
    StoreLockedError
        The shards are being written.
    CorruptStoreError
        Existing shards are damaged or missing.
    WriteError
        The folder cannot be written to.

    Attributes
    ----------
    count : int
        Number of samples, including those in the shard that is being written.
    before : int
        Number of samples in existing shards.
    """

    def __init__(
        self,
        names: ShardNames,
        owner: str,
        *,
        append: bool,
        shard_bytes: int,
        shard_samples: int | None,
        classes: list[str] | int | None,
        fingerprint: str,
        origin: str,
    ) -> None:
        self._names, self._owner = names, owner
        self._most_bytes, self._most_samples = shard_bytes, shard_samples
        self._told = {"version": _VERSION, "fingerprint": fingerprint, "classes": classes, "origin": origin}
        self._shards: list[dict[str, Any]] = []
        self._seen = Seen()
        self._keys: set[int] = set()
        self._part: _Part | None = None
        # Number of the only shard that may be there without being listed: a run was killed before it listed it.
        self._unlisted = -1
        self._failed = self._closed = False
        self.count = self.before = 0
        folder = os.path.dirname(os.path.abspath(names.listing))
        try:
            os.makedirs(folder, exist_ok=True)
            self._lock = _Lock(names.listing, owner)
        except HighwayError:
            raise
        except OSError as error:
            raise WriteError(f"{owner}: {folder!r} cannot be written to: {error.strerror}") from None
        try:
            self._go_on(append)
        except BaseException:
            self._lock.release()
            raise
        self.before = self.count

    # Existing shards

    def _go_on(self, append: bool) -> None:
        listing = self._names.listing
        first = self._names.name(0)
        if not os.path.lexists(listing):
            if os.path.lexists(first):
                raise StoreError(
                    f"{self._owner}: {first!r} exists, and is not overwritten: {listing!r}, the list of its shards, is "
                    "not there; use another path"
                )
            return
        try:
            with open(listing, encoding="utf-8") as file:
                found = json.load(file)
            own, shards = found["highway"], found["shardlist"]
            count = sum(shard["nsamples"] for shard in shards)
            intervals = [(int(low), int(high)) for shard in own["samples"] for low, high in shard]
            complete = bool(own["complete"])
            was = {name: own[name] for name in ("version", "fingerprint", "classes")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._owner}: {listing!r} exists, and is no list of shards that Highway wrote ({error!r}); use "
                "another path"
            ) from None
        self._unlisted = len(shards)
        if not shards:
            return
        if not append:
            kind, what = (StoreError, "a set") if complete else (IncompleteStoreError, "an incomplete set")
            raise kind(
                f"{self._owner}: {listing!r} lists {what} of {count} samples in {len(shards)} shards, and is not "
                "overwritten; use another path, or append=True to add missing samples"
            )
        for name, value in was.items():
            if value != self._told[name]:
                raise StateMismatchError(
                    f"{self._owner}: the shards of {listing!r} were begun with other data: its {name} is {value!r}, "
                    f"not {self._told[name]!r}; append=True needs the same reader with the same arguments"
                )
        self._told["origin"] = own.get("origin", "")
        self._shards = [
            {**shard, "samples": samples} for shard, samples in zip(shards, own["samples"], strict=True)
        ]
        for low, high in intervals:
            for index in range(low, high + 1):
                self.count += self._seen.add(0, index)
        self._check_shards()
        if self.count != count:
            raise CorruptStoreError(
                f"{self._owner}: {self._names.listing!r} lists {count} samples, and says of {self.count} which they are"
            )

    def _check_shards(self) -> None:
        """Check that the shards are those that were written, and take the keys of their samples."""
        folder = os.path.dirname(self._names.listing)
        for number, shard in enumerate(self._shards):
            path = self._names.name(number)
            if os.path.join(folder, str(shard["url"])) != path:
                raise CorruptStoreError(
                    f"{self._owner}: {self._names.listing!r} lists {shard['url']!r} as shard {number}; expected "
                    f"{os.path.basename(path)!r}, by {self._names.pattern!r}"
                )
            size = os.path.getsize(path) if os.path.isfile(path) else -1
            if size != shard["filesize"]:
                raise CorruptStoreError(
                    f"{self._owner}: {path!r} "
                    + (f"has {size} bytes" if size >= 0 else "is gone")
                    + f"; it was written with {shard['filesize']}"
                )
        try:
            for index in indexed(
                [self._names.name(number) for number in range(len(self._shards))], self._owner
            ):
                for member in range(len(index)):
                    name = os.fsdecode(index.name(member))
                    folder, slash, base = name.rpartition("/")
                    self._keys.add(hash(folder + slash + base.partition(".")[0]))
        except TarError as error:
            raise CorruptStoreError(str(error)) from error

    # Writing

    def has(self, epoch: int, index: int) -> bool:
        """Whether a sample is in a shard, or in the one that is being written."""
        return self._seen.has(epoch, index)

    def put(self, index: int, key: str, members: Mapping[str, bytes | memoryview]) -> None:
        """Add a sample, unless it is there already.

        Parameters
        ----------
        index : int
        key : str
        members : mapping of str to bytes
            Contents of the members, by their endings.

        Raises
        ------
        ArgumentError
            The key leads out of a folder.
        WriteError
        """
        if self._seen.has(0, index):
            return
        name = self._name(key)
        # A sample of many members is written after its size is known.
        blocks = [
            part for ending, contents in members.items() for part in _member(f"{name}.{ending}", contents)
        ]
        size = sum(map(len, blocks))
        part = self._part
        if part is not None and (
            len(part.indices) == self._most_samples or part.size + size + _RECORD > self._most_bytes
        ):
            self._end_shard()
        if self._part is None:
            path = self._names.name(len(self._shards))
            if len(self._shards) != self._unlisted and os.path.lexists(path):
                raise StoreError(
                    f"{self._owner}: {path!r} exists, is not in {self._names.listing!r}, and is not overwritten; move "
                    "it, or use another path"
                )
            self._part = self._writing(path, lambda: _Part(path))
        part = self._part
        self._writing(part.path, lambda: part.write(blocks, size))
        part.indices.append(index)
        self._seen.add(0, index)
        self.count += 1

    def _name(self, key: str) -> str:
        """Return a name of the members of a sample that no other sample has."""
        stem, _ = name_of(key, self._owner)
        folder, slash, base = stem.rpartition("/")
        # WebDataset cuts names at the first dot, and drops those that begin with a folder __NAME__.
        name = folder + slash + (base.replace(".", "_") or "_")
        if re.match(r"__[^/]*__(/|$)", name):
            name = "_/" + name
        unique, number = name, 1
        while hash(unique) in self._keys:
            number += 1
            unique = f"{name}-{number}"
        self._keys.add(hash(unique))
        return unique

    def _writing(self, path: str, what: Any) -> Any:
        try:
            return what()
        except OSError as error:
            self._failed = True
            raise WriteError(
                f"{self._owner}: {path!r} cannot be written: {error.strerror or error}; the shards written before are "
                "kept, and append=True resumes"
            ) from error

    def _end_shard(self) -> None:
        part, self._part = self._part, None
        assert part is not None
        if not self._shards:
            # From now on a run that was killed can be completed.
            try:
                self._write_listing(False)
            except BaseException:
                part.discard()
                raise
        self._writing(part.path, part.finish)
        self._shards.append(
            {
                "url": os.path.basename(part.path),
                "nsamples": len(part.indices),
                "filesize": part.size,
                "samples": [list(pair) for pair in _intervals(part.indices)],
            }
        )
        self._write_listing(False)

    def _write_listing(self, complete: bool) -> None:
        listing = {
            "__kind__": "wids-shard-index-v1",
            "wids_version": 1,
            "shardlist": [
                {name: shard[name] for name in ("url", "nsamples", "filesize")} for shard in self._shards
            ],
            "highway": {
                **self._told,
                "complete": complete,
                "samples": [shard["samples"] for shard in self._shards],
            },
        }
        text = json.dumps(listing, separators=(",", ":")) + "\n"

        def write(file: BinaryIO) -> None:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

        try:
            write_whole(self._names.listing, write, self._owner)
        except WriteError:
            self._failed = True
            raise

    def finish(self) -> None:
        """Write the last shard, and mark the set as complete."""
        if self._part is not None:
            self._end_shard()
        self._write_listing(True)

    def close(self) -> None:
        """Write the shard that was begun, and close; the set may be incomplete."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._part is not None and not self._failed:
                self._end_shard()
        finally:
            if self._part is not None:
                self._part.discard()
            self._lock.release()


class _Part:
    """A shard that is being written, under another name.

    Attributes
    ----------
    size : int
        Bytes so far.
    indices : list of int
        Samples so far.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        folder, name = os.path.split(path)
        self._beside = os.path.join(folder, f".{name}.part")
        self._file = open(self._beside, "wb", 1 << 20)  # noqa: SIM115 – closed by finish and discard
        self.size = 0
        self.indices: list[int] = []

    def write(self, blocks: Sequence[bytes | memoryview], size: int) -> None:
        for block in blocks:
            self._file.write(block)
        self.size += size

    def finish(self) -> None:
        """Give the shard its name; it is on the disk then."""
        try:
            rest = -(self.size + 2 * _BLOCK) % _RECORD + 2 * _BLOCK
            self._file.write(bytes(rest))
            self.size += rest
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._beside, self.path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            os.unlink(self._beside)


class _Lock:
    """Lets one writer at a time write a set of shards."""

    def __init__(self, listing: str, owner: str) -> None:
        folder, name = os.path.split(listing)
        self._path = os.path.join(folder, f".{name}.lock")
        while True:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, listing, logger, owner)
                if self._is_there():
                    return
            except BlockingIOError:
                os.close(self._file)
                raise StoreLockedError(f"{owner}: the shards of {listing!r} are being written") from None
            except BaseException:
                os.close(self._file)
                raise
            # Another writer ended, and removed the file, between opening and locking it.
            os.close(self._file)

    def _is_there(self) -> bool:
        """Whether the locked file still has its name."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        # First: after the lock is gone, another writer may have made the file again.
        with suppress(OSError):
            os.unlink(self._path)
        os.close(self._file)


def _member(name: str, contents: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """Yield header, contents and padding of a member; equal members have equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(contents)
    info.mode = 0o444
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    yield contents
    yield bytes(-len(contents) % _BLOCK)


def _intervals(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of the runs of ascending numbers, in their order."""
    first = last = -2
    for index in indices:
        if index != last + 1:
            if last >= 0:
                yield first, last
            first = index
        last = index
    if last >= 0:
        yield first, last
