"""SampleField: a value of a sample that is a small file of its own: a number, a text, JSON, or an array."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from highway.engine.spec import FieldSpec, array_spec
from highway.errors import ArgumentError, DecodeError

__all__ = ["SampleField"]

_NUMBERS = frozenset(("cls", "cls2", "index", "inx", "id", "count"))
_TEXTS = frozenset(("txt", "text", "caption", "transcript"))
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class SampleField:
    """A field whose values are files with an ending, or parts of JSON files.

    Parameters
    ----------
    name : str
        Name of the field.
    spec : str or (str, dtype)
        Ending of the files, without the first dot: ``cls`` is a whole number or the name of a class, ``txt`` a text,
        ``json`` JSON, ``npy`` an array, and any other ending bytes; the last part of an ending decides, as in
        ``meta.json``. ``json:a.b.0`` is a part of JSON: keys of objects and places in lists. With a dtype, values are
        converted to it, if that keeps them; ``object`` allows values that differ in shape.
    owner, argument : str
        Name of the reader and of its argument, for errors.
    classes : sequence of str, optional
        Names of classes, which become numbers.

    Raises
    ------
    ArgumentError
        The spec is not valid.

    Attributes
    ----------
    ending : bytes
        In lower case.
    dtype : dtype
        Of the values; known after `learn`.
    shape : tuple of int
        Of one value.
    """

    def __init__(
        self, name: str, spec: object, owner: str, argument: str, classes: Sequence[str] | None = None
    ) -> None:
        self.name = name
        text, dtype = spec if isinstance(spec, tuple) and len(spec) == 2 else (spec, None)
        if not isinstance(text, str) or not text or "/" in text or text.startswith("."):
            raise ArgumentError(
                f"{owner}: {argument} is {spec!r}; expected an ending without a dot before it, such as 'cls', 'txt', "
                "'npy' or 'json:label.id', or a pair of that and a dtype"
            )
        ending, colon, path = text.partition(":")
        kind = ending.rpartition(".")[2].lower()
        if colon and (kind != "json" or not path):
            raise ArgumentError(f"{owner}: {argument} is {spec!r}; expected a path after 'json:' only")
        self.ending = ending.lower().encode()
        self._kind = kind
        self._path = path.split(".") if path else []
        self._classes = None if classes is None else {name: number for number, name in enumerate(classes)}
        self._given: np.dtype[Any] | None = None if dtype is None else _checked(dtype, owner, argument)
        self.dtype: np.dtype[Any] = np.dtype(object)
        self.shape: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The field in errors: its ending and path."""
        return "." + self.ending.decode() + (":" + ".".join(self._path) if self._path else "")

    def spec(self, *, ragged: bool = False) -> FieldSpec:
        """The field of the batches."""
        return array_spec(self.dtype, *(self.shape[1:] if ragged else self.shape), ragged=ragged)

    # Values

    def value(self, contents: bytes) -> Any:
        """Return the value in a file.

        Returns
        -------
        object
            ndarray, str, bytes, or what JSON has.

        Raises
        ------
        DecodeError
            The file is not valid; the text continues its name.
        """
        if self._kind in _NUMBERS:
            return self._number(contents)
        if self._kind in _TEXTS:
            return self._class(_decoded(contents))
        if self._kind == "json":
            return self._class(self._part(contents))
        if self._kind == "npy":
            return _npy(contents)
        return contents

    def _number(self, contents: bytes) -> int:
        text = _decoded(contents).strip()
        if self._classes is not None and text in self._classes:
            return self._classes[text]
        try:
            number = int(text)
        except ValueError:
            known = "(classes= gives names their numbers)"
            if self._classes is not None:
                known = f"or one of the classes {_few(self._classes)}"
            raise DecodeError(f"has {text[:60]!r}; expected a whole number {known}") from None
        return self._class_number(_in_range(number))

    def _class_number(self, number: int) -> int:
        """Return the number of a class as it is; raises for one that `classes` does not have."""
        if self._classes is not None and not 0 <= number < len(self._classes):
            raise DecodeError(
                f"has the class number {number}; expected 0 to {len(self._classes) - 1}, the places in classes="
            )
        return number

    def _class(self, value: Any) -> Any:
        """Return the number of a class by its name, also in a list; other values as they are."""
        if self._classes is None:
            return value
        if isinstance(value, list):
            return [self._class(one) for one in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return self._class_number(value)
        if not isinstance(value, str):
            return value
        name = value if value in self._classes else value.strip()
        if name not in self._classes:
            raise DecodeError(f"has {value[:60]!r}; expected one of the classes {_few(self._classes)}")
        return self._classes[name]

    def _part(self, contents: bytes) -> Any:
        try:
            found = json.loads(contents)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"is no JSON: {error}") from None
        for depth, word in enumerate(self._path):
            if isinstance(found, dict) and word in found:
                found = found[word]
            elif isinstance(found, list) and word.isdecimal() and int(word) < len(found):
                found = found[int(word)]
            else:
                raise DecodeError(f"has no {'.'.join(self._path[: depth + 1])!r}")
        return found

    # Arrays

    def learn(self, value: Any) -> None:
        """Take dtype and shape of the field from a value; later values have the same.

        Raises
        ------
        DecodeError
            It is not of the dtype that was given.
        """
        if self._given is not None and self._given.hasobject:
            return
        array = _array(value)
        if self._given is not None:
            array = self._cast(array, self._given)
        self.dtype, self.shape = array.dtype, array.shape

    def checked(self, value: Any) -> Any:
        """Return a value as an array of the dtype and shape of the field; a whole number may stay an int.

        Raises
        ------
        DecodeError
            It has another shape, or another type.
        """
        if type(value) is int and self.dtype == np.int64 and not self.shape:
            return _in_range(value)
        if self.dtype.hasobject:
            return _as_object(value)
        array = self._cast(_array(value), self.dtype)
        if array.shape != self.shape:
            raise DecodeError(
                f"has the shape {array.shape}, other samples {self.shape}; expected the same (with the dtype object, "
                "shapes may differ)"
            )
        return array

    def rows(self, value: Any) -> NDArray[Any]:
        """Return a value with a row for each box, of the dtype of the field.

        Raises
        ------
        DecodeError
            It has another type.
        """
        array = _array(value)
        shape = self.shape[1:]
        if not array.size:
            return np.zeros((0, *shape), self.dtype)
        array = self._cast(array, self.dtype)
        if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
            raise DecodeError(f"has the shape {array.shape}; expected {('n', *shape)}")
        return array

    def stacked(self, values: Sequence[Any]) -> NDArray[Any]:
        """Return checked values as the array of a batch."""
        found = np.empty((len(values), *self.shape), self.dtype)
        for row, value in enumerate(values):
            found[row] = value if not self.dtype.hasobject else value[()]
        return found

    def _cast(self, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        if array.dtype == dtype:
            return array
        if array.dtype.kind not in "biuf" or dtype.kind not in "biuf":
            raise DecodeError(f"has values of type {array.dtype}; expected {dtype}")
        # Silent: what does not fit differs afterwards.
        with np.errstate(invalid="ignore", over="ignore"):
            cast = array.astype(dtype)
        exact = dtype.kind == "f" or np.array_equal(cast, array)
        if not exact:
            raise DecodeError(
                f"has values of type {array.dtype}; expected {dtype}, as in other samples (a pair of ending and dtype "
                "chooses another type)"
            )
        return cast


def _checked(dtype: DTypeLike, owner: str, argument: str) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype("V1")
    if found.kind not in "biufO":
        raise ArgumentError(
            f"{owner}: {argument} has the dtype {dtype!r}; expected one of numbers, or object"
        )
    return found


def _npy(contents: bytes) -> NDArray[Any]:
    """Return the array in a file of NumPy."""
    file = io.BytesIO(contents)
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format")
        shape, _, dtype = _HEADERS[version](file)
        # Before NumPy takes the memory that the header asks for.
        stated, left = math.prod(shape) * dtype.itemsize, len(contents) - file.tell()
        if min(shape, default=0) < 0 or (stated != left and not dtype.hasobject):
            raise ValueError(f"the shape {shape} of {dtype} needs {stated} bytes, and there are {left}")
        file.seek(0)
        found: NDArray[Any] = np.load(file, allow_pickle=False)
    except MemoryError:
        raise
    except Exception as error:
        # NumPy parses the header as Python: a damaged one raises anything from a SyntaxError to a TypeError.
        raise DecodeError(f"is no array of NumPy without objects: {error}") from None
    return found


def _few(names: Iterable[str], most: int = 5) -> str:
    """Return the first names as text, and how many there are more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name[:40]) for name in names[:most]) + more


def _decoded(contents: bytes) -> str:
    try:
        return contents.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"is no text in UTF-8: {error}") from None


def _in_range(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise DecodeError(f"has {number}; expected a number of 64 bits")
    return number


def _array(value: Any) -> NDArray[Any]:
    """Return a value as an array: numbers as int64 and float32, arrays as they are, all else as an object."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (bool, int, float, list)):
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):
            return _as_object(value)
        if array.dtype.kind == "b":
            return array
        if array.dtype.kind in "iu":
            return array.astype(np.int64, copy=False) if array.dtype != np.uint64 else _as_object(value)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                return array.astype(np.float32)
    return _as_object(value)


def _as_object(value: Any) -> NDArray[Any]:
    found = np.empty((), object)
    found[()] = value
    return found
