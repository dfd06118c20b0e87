"""Opens arrays in files: .npy and .npz, which are mapped, HDF5 and zarr."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import expanded
from highway.errors import (
    ArgumentError,
    DecodeError,
    HighwayError,
    MissingPackageError,
    ReadError,
    StorageError,
)
from highway.storage.outages import ask

__all__ = ["check_path", "has_array_ending", "is_archive", "is_path", "members", "opened"]

_HDF5 = (".h5", ".hdf5", ".hdf")
_ENDINGS = (".npy", ".npz", ".zarr", *_HDF5)
# Between the path of a file and the name of an array in it.
_INSIDE = ":/"


def is_path(value: object) -> bool:
    """Whether a value is a path, not an array."""
    return isinstance(value, (str, bytes, os.PathLike))


def is_archive(value: object) -> bool:
    """Whether a value is the path of an ``.npz`` file, without the name of one of its arrays."""
    return is_path(value) and os.fsdecode(value).lower().endswith(".npz")  # type: ignore[arg-type]


def has_array_ending(path: Any) -> bool:
    """Whether a path ends as those of files with arrays do, or names an array in such a file."""
    where, _ = _parted(os.fsdecode(path))
    return where.lower().endswith(_ENDINGS)


def check_path(owner: str, name: str, value: object) -> None:
    """Raise ArgumentError for a text that looks like a path, but not like one of a file with arrays."""
    if isinstance(value, str) and (set(value) & {".", ":", "/", os.sep}):
        raise ArgumentError(
            f"{owner}: {name} is {value!r}; expected an array, or the path of a file that ends in "
            f"{', '.join(_ENDINGS)}, with {_INSIDE!r} and a name for one of several arrays"
        )


def opened(owner: str, name: str, path: Any) -> Any:
    """Open the array of a path.

    Parameters
    ----------
    owner, name : str
        The reader and its field, for errors.
    path : path
        As for `ArrayReader`.

    Returns
    -------
    ndarray, h5py.Dataset or zarr.Array
        Files of NumPy are mapped, except compressed members of ``.npz`` files, which are loaded.

    Raises
    ------
    ReadError, StorageError, DecodeError, ArgumentError, MissingPackageError
        As for `ArrayReader`.
    """
    where, inside = _parted(expanded(owner, name, path))
    lower = where.lower()
    if lower.endswith(_HDF5):
        return _hdf5(owner, name, where, inside)
    if lower.endswith(".zarr") or _is_zarr_folder(where):
        return _zarr(owner, name, where, inside)
    if lower.endswith(".npz"):
        return _attempted(owner, where, ".npz", lambda: _member(owner, name, where, inside))
    if inside is not None:
        raise ArgumentError(
            f"{owner}: {name} is {os.fsdecode(path)!r}; expected a file with named arrays before {_INSIDE!r}: "
            f".npz, .zarr, {', '.join(_HDF5)}"
        )
    return _attempted(owner, where, ".npy", lambda: _mapped(where))


def members(owner: str, path: Any) -> dict[str, str]:
    """Return the arrays of an ``.npz`` file: their names, and the path of each.

    Raises
    ------
    ReadError, StorageError, DecodeError
        The file cannot be read.
    """
    where = expanded(owner, "images", path)
    names = _attempted(owner, where, ".npz", lambda: _names(where))
    return {name: f"{where}{_INSIDE}{name}" for name in names}


def _parted(path: str) -> tuple[str, str | None]:
    """Return the path of a file, and the name of the array in it, if there is one."""
    where, colon, inside = path.rpartition(_INSIDE)
    return (where, inside) if colon and where.lower().endswith(_ENDINGS) else (path, None)


def _attempted(owner: str, where: str, kind: str, attempt: Any) -> Any:
    try:
        return ask(owner, where, attempt)
    except HighwayError:
        raise
    except OSError as error:
        raise ReadError(f"{owner}: {where} cannot be read: {error.strerror or error}") from error
    except MemoryError:
        raise
    except Exception as error:
        # Damaged headers raise errors of many types. Files of objects cannot be mapped; NumPy's message says so.
        way = (
            ""
            if where.lower().endswith(_ENDINGS)
            else f"; files of other kinds end in {', '.join(_ENDINGS[1:])}"
        )
        raise DecodeError(
            f"{owner}: {where} cannot be mapped as {'an' if kind == '.npz' else 'a'} {kind} file: {error}{way}"
        ) from error


# Files of NumPy


def _mapped(where: str) -> NDArray[Any]:
    with open(where, "rb") as file:
        _version(file)
    found: NDArray[Any] = np.lib.format.open_memmap(where, mode="r")
    return found


def _version(file: Any) -> tuple[int, int]:
    version = np.lib.format.read_magic(file)
    if version[0] > 3:
        raise ValueError(f"version {version[0]} of the format is not known")
    return version


def _names(where: str) -> list[str]:
    with zipfile.ZipFile(where) as file:
        return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]


def _member(owner: str, name: str, where: str, inside: str | None) -> NDArray[Any]:
    names = _names(where)
    if inside is None and len(names) == 1:
        inside = names[0]
    if inside not in names:
        raise _unnamed(owner, name, where, inside, names)
    with zipfile.ZipFile(where) as file:
        info = file.getinfo(f"{inside}.npy")
        with file.open(info) as member:
            version = _version(member)
        # Version 3 is for names of columns that are not Latin.
        if info.compress_type != zipfile.ZIP_STORED or version[0] > 2:
            with file.open(info) as member:
                loaded: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return loaded
    with open(where, "rb") as plain:
        begin = _begin(plain, info)
        plain.seek(begin)
        _version(plain)
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(plain)
        if dtype.hasobject:
            raise ValueError("Array can't be memory-mapped: Python objects in dtype.")
        at = plain.tell()
    if at - begin + int(np.prod(shape, dtype=object)) * dtype.itemsize != info.file_size:
        raise ValueError(f"the header of {inside} does not fit its {info.file_size} bytes")
    if 0 in shape or not dtype.itemsize:
        return np.zeros(shape, dtype)
    return np.memmap(where, dtype, "r", at, shape, "F" if fortran else "C")


def _begin(file: Any, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin: after its own header, which may differ from that in the directory."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise ValueError(f"{info.filename} has no header at {info.header_offset}")
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name + extra)


# HDF5 and zarr


def _hdf5(owner: str, name: str, where: str, inside: str | None) -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingPackageError(
            f"{owner}: {name} is {where}, and the package h5py is not installed: pip install h5py"
        ) from None
    if not os.path.exists(where):
        raise ReadError(f"{owner}: {where} cannot be read: No such file or directory")
    try:
        file = ask(owner, where, lambda: h5py.File(where, "r"))
    except StorageError:
        raise
    except OSError as error:
        raise DecodeError(
            f"{owner}: {where} cannot be opened as an HDF5 file: {' '.join(str(error).split())}"
        ) from error
    return _found(owner, name, where, inside, file)


def _zarr(owner: str, name: str, where: str, inside: str | None) -> Any:
    try:
        import zarr
    except ImportError:
        raise MissingPackageError(
            f"{owner}: {name} is {where}, and the package zarr is not installed: pip install zarr"
        ) from None
    if not os.path.exists(where):
        raise ReadError(f"{owner}: {where} cannot be read: No such file or directory")
    try:
        found = zarr.open(where, mode="r")
    except Exception as error:
        # zarr raises errors of many types.
        text = " ".join(str(error).split()) or type(error).__name__
        raise DecodeError(
            f"{owner}: {where} cannot be opened as an array or a group of zarr: {text}"
        ) from error
    if not hasattr(found, "keys"):
        if inside:
            raise ArgumentError(
                f"{owner}: {name} is {where}{_INSIDE}{inside}; expected {where}, which is an array itself"
            )
        return found
    return _found(owner, name, where, inside, found)


def _found(owner: str, name: str, where: str, inside: str | None, group: Mapping[str, Any]) -> Any:
    """Return an array of a group; ArgumentError if there is none of that name."""
    try:
        names = [] if inside else _array_names(group)
        if inside is None and len(names) == 1:
            inside = names[0]
        found = group[inside] if inside and inside in group else None
        if hasattr(found, "shape"):
            return found
        names = names or _array_names(group)
    except Exception as error:
        # Both libraries raise errors of many types for damaged files.
        text = " ".join(str(error).split()) or type(error).__name__
        what = where if inside is None else f"{where}{_INSIDE}{inside}"
        raise DecodeError(
            f"{owner}: {name} is {what}, which cannot be opened: {text}; expected an undamaged file"
        ) from error
    raise _unnamed(owner, name, where, inside, names)


def _array_names(group: Mapping[str, Any]) -> list[str]:
    """Return the names of the arrays in a group, without those that cannot be opened, such as links to nothing."""
    names = []
    for key in group:
        with suppress(KeyError, OSError):
            if hasattr(group[key], "shape"):
                names.append(key)
    return names


def _unnamed(owner: str, name: str, where: str, inside: str | None, names: list[str]) -> ArgumentError:
    what = "names no array" if inside is None else f"has no array {inside!r}"
    some = ", ".join(names[:20]) or "none"
    return ArgumentError(
        f"{owner}: {name} is {where}, which {what}; expected {where}{_INSIDE} and a name; its arrays are {some}"
    )


def _is_zarr_folder(where: str) -> bool:
    return any(os.path.exists(os.path.join(where, name)) for name in ("zarr.json", ".zarray", ".zgroup"))
