"""TarIndex: where the members of a tar file lie; kept in a file, so that a tar is searched once."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway._core.tar import members
from highway.errors import HighwayError, ReadError, StorageError, TarError, WriteError
from highway.storage.files import LARGEST_FILE, read_whole, write_whole
from highway.storage.outages import Outages, ask
from highway.storage.sniffing import sniff

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "TarIndex",
    "check_format",
    "complete",
    "compression_of",
    "indexed",
    "keep_index",
    "keep_written",
    "kept_index",
    "place_of_index",
    "refused_compression",
    "scanned_tar",
    "state_of",
]

_logger = logging.getLogger("highway.storage")

# Magic, version; size and modification time (ns) of the tar; members, bytes of their names; CRC-32 of the arrays.
_HEAD = struct.Struct("<8sqqqqI")
_MAGIC = b"HWTAR\0\0\2"
# Of each member: start, size, end of its name, checksum of its header.
_MEMBER_BYTES = 3 * 8 + 4

# Tars that are searched at a time: requests for the disk.
_TOGETHER = 8

_UNPACK = {"gzip": "gunzip -k", "bzip2": "bunzip2 -k", "xz": "unxz -k", "Zstandard": "unzstd"}
_ENDINGS = {
    **dict.fromkeys((".tar.bz2", ".tbz2", ".tbz"), "bzip2"),
    **dict.fromkeys((".tar.xz", ".txz"), "xz"),
    **dict.fromkeys((".tar.zst", ".tar.zstd", ".tzst"), "Zstandard"),
}
_KINDS = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a device",
    "4": "a device",
    "6": "a FIFO",
    "M": "a part of a file that began in another tar",
    "S": "a sparse file",
}


@dataclass(frozen=True)
class TarIndex:
    """The regular files in a tar file, in their order.

    Attributes
    ----------
    path : str
        Of the tar file.
    size, changed : int
        Of the tar file: bytes, and modification time in nanoseconds; of an object, a hash of its etag.
    starts, sizes : int64 (M,)
        First byte of the contents of each member, and their number of bytes.
    ends : int64 (M,)
        End of the name of each member in `text`; each begins at the end of the one before.
    checks : uint32 (M,)
        CRC-32C of the header of each member, the 512 bytes before its contents: whether it is there still.
    text : uint8 (K,)
        The names, one after the other.
    """

    path: str
    size: int
    changed: int
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    ends: NDArray[np.int64]
    checks: NDArray[np.uint32]
    text: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.starts)

    def name(self, member: int) -> bytes:
        """Name of a member as it is in the tar."""
        begin = int(self.ends[member - 1]) if member else 0
        return self.text[begin : int(self.ends[member])].tobytes()

    @property
    def nbytes(self) -> int:
        """Bytes of `packed`."""
        return _HEAD.size + _MEMBER_BYTES * len(self) + len(self.text)

    def packed(self) -> bytes:
        """Return the index as the contents of a file."""
        arrays = b"".join(
            array.tobytes()
            for array in (
                self.starts.astype("<i8", copy=False),
                self.sizes.astype("<i8", copy=False),
                self.ends.astype("<i8", copy=False),
                self.checks.astype("<u4", copy=False),
                self.text,
            )
        )
        head = self.size, self.changed, len(self), len(self.text), zlib.crc32(arrays)
        return _HEAD.pack(_MAGIC, *head) + arrays

    @classmethod
    def unpacked(cls, path: str, size: int, changed: int, contents: Buffer) -> TarIndex | None:
        """Return the index in the contents of a file; None if it is damaged, or not of this state of the tar."""
        contents = memoryview(contents)
        if len(contents) < _HEAD.size:
            return None
        magic, *state, count, letters, checksum = _HEAD.unpack_from(contents)
        arrays = contents[_HEAD.size :]
        if (magic, state) != (_MAGIC, [size, changed]) or min(count, letters) < 0:
            return None
        if len(arrays) != _MEMBER_BYTES * count + letters:
            return None
        if zlib.crc32(arrays) != checksum:
            return None
        starts, sizes, ends = np.frombuffer(arrays[: 24 * count], "<i8").astype(np.int64).reshape(3, count)
        checks = np.frombuffer(arrays[24 * count : _MEMBER_BYTES * count], "<u4").astype(np.uint32)
        # A view would keep all contents in memory.
        text = np.frombuffer(arrays[_MEMBER_BYTES * count :], np.uint8).copy()
        # An index in a store may come from anybody.
        inside = (starts >= 0) & (sizes >= 0) & (starts <= size) & (sizes <= size - starts)
        if (
            not inside.all()
            or (ends[1:] < ends[:-1]).any()
            or (ends[:1] < 0).any()
            or ends[-1:].sum() != letters
        ):
            return None
        return cls(path, size, changed, starts, sizes, ends, checks, text)


def indexed(paths: Sequence[str], owner: str, index_dir: str | None = None) -> list[TarIndex]:
    """Return the index of each tar file: as it is kept, or made now and kept for the next time.

    The index of ``x.tar`` is kept in ``x.tar.index``, beside it or in `index_dir`. It is made again when the size or
    the modification time of the tar has changed. Where it cannot be written, it is not kept.

    Parameters
    ----------
    paths : sequence of str
    owner : str
        Name of the reader, for errors.
    index_dir : str, optional
        Folder for the files; created if needed.

    Raises
    ------
    TarError
        A tar is cut off, damaged or compressed, or has links, sparse files or other members that are no files.
    ReadError
        A tar cannot be read, or is no file.
    StorageError
        The storage failed for more than 30 s.
    WriteError
        `index_dir` cannot be written to.
    """

    def one(path: str) -> TarIndex:
        return _indexed(path, owner, index_dir)

    if len(paths) <= 1:
        return [one(path) for path in paths]
    with ThreadPoolExecutor(min(_TOGETHER, len(paths)), "highway-index") as pool:
        return list(pool.map(one, paths))


def _indexed(path: str, owner: str, index_dir: str | None) -> TarIndex:
    size, changed = state_of(path, owner)
    kept = place_of_index(path, index_dir)
    found = kept_index(kept, path, size, changed, owner)
    if found is not None:
        return found
    made = scanned_tar(path, size, changed, owner)
    # A tar that is still being written would leave a wrong index.
    if state_of(path, owner) != (size, changed):
        raise TarError(f"{owner}: {path!r} was changed while it was indexed; wait until it is complete")
    keep_index(kept, made, owner, index_dir is not None)
    return made


def keep_index(kept: str, made: TarIndex, owner: str, required: bool) -> None:
    """Write an index to a file; raises WriteError if that fails and is `required`."""
    contents = made.packed()
    what = f"the index of {made.path!r} is"
    keep_written(kept, lambda file: file.write(contents), what, owner, required)


def keep_written(
    kept: str, write: Callable[[BinaryIO], object], what: str, owner: str, required: bool
) -> None:
    """Write a file of indexes, as `write_whole`; raises WriteError if that fails and is `required`."""
    try:
        write_whole(kept, write, owner)
    except WriteError as error:
        if required:
            raise
        _logger.info("%s: %s not kept (use index_dir=FOLDER): %s", owner, what, error)


def place_of_index(path: str, index_dir: str | None) -> str:
    """Return the file of the index of a tar."""
    if index_dir is None:
        return path + ".index"
    # It brings OpenSSL with it.
    from hashlib import blake2b

    # Tars of several folders may have the same name.
    folder = os.path.dirname(os.path.abspath(path))
    unique = blake2b(os.fsencode(folder), digest_size=6).hexdigest()
    return os.path.join(index_dir, f"{os.path.basename(path)}-{unique}.index")


def kept_index(kept: str, path: str, size: int, changed: int, owner: str) -> TarIndex | None:
    """Return the index in a file; None if there is none, or none of this state of the tar."""
    try:
        contents = read_whole(os.fsencode(kept), LARGEST_FILE, owner)
    except ReadError:
        return None
    found = TarIndex.unpacked(path, size, changed, contents)
    if found is None:
        _logger.info("%s: %r is not an index of %r as it is now; it is made again", owner, kept, path)
    return found


def state_of(path: str, owner: str) -> tuple[int, int]:
    """Return size and modification time of a tar."""
    try:
        found = ask(owner, path, lambda: os.stat(path))
    except StorageError:
        raise
    except OSError as error:
        raise ReadError(f"{owner}: {path!r} cannot be read: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns


def scanned_tar(path: str, size: int, changed: int, owner: str) -> TarIndex:
    """Search a tar file for its members; raises as `indexed`."""

    def once() -> TarIndex:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _failed(path, owner, error.errno or 0) from None
        try:
            check_format(path, owner, os.pread(file, 1024, 0))
            found = members.Members(file, size)
        except HighwayError:
            raise
        except OSError as error:
            raise _failed(path, owner, error.errno or 0) from None
        finally:
            os.close(file)
        return complete(path, size, changed, found, owner)

    return Outages(owner).patiently(once)


def complete(path: str, size: int, changed: int, found: members.Members, owner: str) -> TarIndex:
    """Return the index of the members that were found; raises if they are not all members of a sound tar."""
    if found.status == members.READ:
        raise _failed(path, owner, found.number)
    if found.status != members.END:
        raise TarError(f"{owner}: {path!r} {_wrong(found, size)}")
    if found.header >= size:
        _logger.warning(
            "%s: %r ends without the mark that ends a tar: all of its %d members are whole, and more may be missing",
            owner,
            path,
            len(found),
        )
    return TarIndex(path, size, changed, *found.arrays())


def _failed(path: str, owner: str, number: int) -> ReadError | StorageError:
    kind = StorageError if jpeg.failure(number) == jpeg.STORAGE else ReadError
    return kind(f"{owner}: {path!r} cannot be read: {os.strerror(number)}")


def check_format(path: str, owner: str, first: bytes) -> None:
    """Raise TarError if a file begins as an empty or compressed one."""
    found = sniff(first)
    if not first:
        raise TarError(f"{owner}: {path!r} is empty (0 bytes); expected a tar file")
    if found is not None and found in _UNPACK:
        raise refused_compression(path, owner, found)


def compression_of(path: str) -> str | None:
    """Return the compression, other than gzip, that the name of a tar states; None if it states none."""
    lower = path.lower()
    return next((kind for ending, kind in _ENDINGS.items() if lower.endswith(ending)), None)


def refused_compression(path: str, owner: str, found: str) -> TarError:
    """Return the error of a tar whose compression is not read."""
    # What is in a gzip'ed tar may be compressed once more.
    renamed = found != "gzip" or path.lower().endswith((".tar.gz", ".tgz"))
    way = "" if renamed else "rename it to .tar.gz, which is unpacked when it is read, or "
    return TarError(
        f"{owner}: {path!r} is compressed ({found}): samples in it cannot be read in any order; {way}unpack it once "
        f"with {_UNPACK[found]} (pictures are compressed already, so the tar is hardly larger)"
    )


def _wrong(found: members.Members, size: int) -> str:
    """Text of what is wrong with a tar, and where."""
    where = f"at byte {found.header}"
    name = os.fsdecode(found.name)
    texts = {
        members.CUT_HEADER: f"is cut off: it ends after {size} bytes, in the header {where}",
        members.CUT_MEMBER: f"is cut off: it ends after {size} bytes, in the member {name!r} {where}",
        members.CUT_AFTER: f"is cut off: it ends {where} after an extended header, whose member is missing",
        members.CHECKSUM: f"is damaged, or no tar: the header {where} has a wrong checksum",
        members.NUMBER: f"is damaged: the header {where} states no valid size",
        members.EXTENDED: f"is damaged: the extended header {where} is not valid",
        members.TRAILING: (
            f"has more {where}, after its end; if tars were joined, give them apart (tar --concatenate joins them to "
            "one)"
        ),
    }
    if found.status == members.REFUSED:
        kind = _KINDS.get(found.kind, f"of the unknown type {found.kind!r}")
        return (
            f"has {name!r} {where}, which is {kind}; expected files and folders (tar --dereference "
            "--hard-dereference makes such a tar)"
        )
    return f"{texts[found.status]}; copy or make it again"
