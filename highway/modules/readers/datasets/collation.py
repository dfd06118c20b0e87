"""Collator: turns samples, whatever they are, into the fields of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.batch import is_field_name
from highway.errors import ArgumentError, ContractError

__all__ = ["Collator", "Field", "Names", "Planned", "Schema", "Unfit", "samples_of"]

Names = Sequence[str] | Mapping[Any, str] | None

_LARGE = 4096
"""Bytes of a value that is worth a copy of its own."""

_MOST_AXES_OF_LISTS = 2
"""Fields of more axes, such as pictures, are ragged only if the user says so."""


class Unfit(Exception):
    """A sample, or a value of it, does not fit into a batch; the text says why."""


class Field(NamedTuple):
    """A field as the reference sample has it.

    Attributes
    ----------
    name : str
    key : object
        Place of its value in a sample: position, key, or None for the sample itself.
    kind : {"array", "text", "bytes"}
    dtype : dtype
    shape : tuple of int
    """

    name: str
    key: Any
    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Schema(NamedTuple):
    """What all samples have in common: how they are built, and their fields.

    Attributes
    ----------
    reference : int
        Index of the sample that determined it.
    form : {"tuple", "mapping", "value"}
    width : int
        Number of values of a tuple.
    fields : tuple of Field
    """

    reference: int
    form: str
    width: int
    fields: tuple[Field, ...]


class Planned(NamedTuple):
    """An array of a batch before it has memory.

    Attributes
    ----------
    name : str
    dtype : dtype
    shape : tuple of int
    parts : list of ndarray, or None
        Arrays that follow each other along the first axis of the parts; None: `whole` is the array.
    whole : ndarray or None
    offsets : int64 (N + 1,), or None
        Where the rows of each sample begin, of a ragged field.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    parts: list[NDArray[Any]] | None
    whole: NDArray[Any] | None
    offsets: NDArray[np.int64] | None

    def fill(self, out: NDArray[Any]) -> None:
        """Write the array into memory, large parts without the GIL."""
        if self.parts is None:
            assert self.whole is not None
            np.copyto(out, self.whole)
        elif self.parts:
            # One call for all parts: rows of samples follow each other.
            joined = (
                out if self.offsets is not None else out.reshape(out.shape[0] * out.shape[1], *out.shape[2:])
            )
            np.concatenate(self.parts, axis=0, out=joined)


class Collator:
    """Makes fields of samples.

    Parameters
    ----------
    owner : str
        For errors.
    names : sequence of str, mapping, or None
        See `DatasetReader`.
    ragged : collection of str, or None
        See `DatasetReader`.
    collate : callable or None
        Takes a list of samples and returns arrays: a mapping by name, a tuple, or one array.
    """

    def __init__(
        self,
        owner: str,
        names: Names,
        ragged: Iterable[str] | None,
        collate: Callable[[list[Any]], Any] | None,
    ) -> None:
        self._owner = owner
        self._names = self._checked(names)
        self._ragged = None if ragged is None else frozenset(self._words("ragged", ragged))
        if collate is not None and not callable(collate):
            raise ArgumentError(f"{owner}: collate is {collate!r}; expected a function of a list of samples")
        self.collate = collate

    def _checked(self, names: Names) -> Names:
        if names is None:
            return None
        if isinstance(names, Mapping):
            self._words("names", names.values())
            return dict(names)
        return self._words("names", names)

    def _words(self, argument: str, given: Iterable[str]) -> tuple[str, ...]:
        words = () if isinstance(given, (str, bytes)) else tuple(given)
        if isinstance(given, (str, bytes)) or not all(is_field_name(word) for word in words):
            raise ArgumentError(
                f"{self._owner}: {argument} is {given!r}; expected names of fields, such as ('inputs', 'labels'): "
                "identifiers that are no attribute of Batch"
            )
        if len({*words}) < len(words):
            raise ArgumentError(f"{self._owner}: {argument} has a name twice: {', '.join(words)}")
        return words

    # The reference

    def learn(self, index: int, sample: Any) -> Schema:
        """Return the schema of a sample.

        Raises
        ------
        Unfit
            The sample, or one of its values, cannot be part of a batch.
        ArgumentError
            `names` or `ragged` does not fit the sample.
        """
        form, keys, values = self._taken_apart(sample)
        kinds = []
        for key, value in zip(keys, values, strict=True):
            try:
                kinds.append(_kind(value))
                if isinstance(value, (list, tuple)) and kinds[-1][1].kind in "US":
                    raise Unfit("is a list of texts; expected one text, or names= without it")
            except Unfit as error:
                where = "" if form == "value" else f"has a value at {key!r} that "
                raise Unfit(f"{where}{error}") from error.__cause__
        names = self._names_of(form, keys, kinds, sample)
        fields = tuple(
            Field(name, key, *kind)
            for name, key, kind in zip(names, keys, kinds, strict=True)
            if name is not None
        )
        for name in self._ragged or ():
            field = next((field for field in fields if field.name == name), None)
            if field is None or not field.shape:
                found = "no such field" if field is None else "one value for each sample"
                raise ArgumentError(
                    f"{self._owner}: ragged has {name!r}, and sample {index} has {found}; expected fields with rows, "
                    f"of {', '.join(field.name for field in fields)}"
                )
        return Schema(index, form, len(sample) if form == "tuple" else 1, fields)

    def _taken_apart(self, sample: Any) -> tuple[str, Sequence[Any], Sequence[Any]]:
        """Return how a sample is built, the places of its values, and the values."""
        if isinstance(sample, Mapping):
            if isinstance(self._names, Mapping):
                keys: Sequence[Any] = list(self._names)
            else:
                keys = list(sample) if self._names is None else self._names
            for key in keys:
                if key not in sample:
                    raise Unfit(f"has no {key!r}; it has {', '.join(map(repr, sample)) or 'nothing'}")
            return "mapping", keys, [sample[key] for key in keys]
        if isinstance(sample, tuple):
            if not isinstance(self._names, Mapping):
                return "tuple", range(len(sample)), sample
            for key in self._names:
                if key not in range(len(sample)):
                    raise Unfit(f"has no value at {key!r}; it has {len(sample)}, from 0")
            return "tuple", [*self._names], [sample[key] for key in self._names]
        return "value", (None,), (sample,)

    def _names_of(
        self,
        form: str,
        keys: Sequence[Any],
        kinds: list[tuple[str, np.dtype[Any], tuple[int, ...]]],
        sample: Any,
    ) -> Sequence[str | None]:
        given = self._names
        if isinstance(given, Mapping):
            return [given.get(key) for key in keys]
        if given is not None:
            if form != "mapping" and len(given) != len(keys):
                raise ArgumentError(
                    f"{self._owner}: names has {len(given)} names, {', '.join(given)}, and the samples of the dataset "
                    f"have {len(keys)} values; expected a name for each"
                )
            return given
        if form == "mapping":
            for key in keys:
                if not is_field_name(key):
                    raise ArgumentError(
                        f"{self._owner}: the samples of the dataset have the key {key!r}, which cannot name a field; "
                        "expected names=, a mapping from keys to names of fields, such as {'input ids': 'tokens'}"
                    )
            return keys
        fields = getattr(sample, "_fields", None)
        if form == "tuple" and fields and all(map(is_field_name, fields)):
            return fields  # type: ignore[no-any-return]
        if not 1 <= len(keys) <= 2:
            raise ArgumentError(
                f"{self._owner}: the samples of the dataset are tuples of {len(keys)} values; expected names=, a name "
                "for each, such as names=('images', 'labels', 'weights')"
            )
        _, dtype, shape = kinds[0]
        first = "images" if dtype == np.uint8 and len(shape) == 3 else "inputs"
        return (first, "labels")[: len(keys)]

    # Batches

    def large_fields(self, schema: Schema) -> list[Field]:
        """Return the fields with large values of one shape."""
        return [
            field
            for field in schema.fields
            if field.kind == "array"
            and field.dtype.itemsize * math.prod(field.shape) >= _LARGE
            and self._is_listed(field) is False
        ]

    def moved(self, schema: Schema, sample: Any, places: Mapping[str, NDArray[Any]], row: int) -> Any:
        """Return a sample whose values are row `row` of `places`, written there, where they fit.

        Parameters
        ----------
        schema : Schema
        sample : object
        places : dict of str to ndarray
            By the name of the field.
        row : int
        """
        values: Any
        if schema.form == "value":
            values = {None: sample}
        elif schema.form == "mapping" and isinstance(sample, Mapping):
            # Only these: another value may be computed when it is asked for.
            values = {field.key: sample[field.key] for field in schema.fields if field.key in sample}
            if len(values) < len(schema.fields):
                return sample
        elif schema.form == "tuple" and isinstance(sample, tuple) and len(sample) == schema.width:
            values = [*sample]
        else:
            return sample
        for field in schema.fields:
            if field.name not in places:
                continue
            try:
                array = _array(values[field.key])
            except Unfit:
                # `plan` says so.
                continue
            if array.dtype == field.dtype and array.shape == field.shape:
                values[field.key] = place = places[field.name][row]
                np.copyto(place, array)
        if schema.form == "value":
            return values[None]
        return values if schema.form == "mapping" else tuple(values)

    def plan(
        self, schema: Schema, samples: Sequence[Any]
    ) -> tuple[list[Planned], list[int], dict[int, Unfit]]:
        """Return the arrays of a batch of samples, the rows that are in it, and what is wrong with the others."""
        rows = range(len(samples))
        try:
            return self._of_columns(schema, _columns(schema, samples)), [*rows], {}
        except Unfit:
            pass
        # Something is wrong: find out with which samples.
        wrong: dict[int, Unfit] = {}
        for row in rows:
            try:
                self._of_columns(schema, _columns(schema, [samples[row]]))
            except Unfit as error:
                wrong[row] = error
        kept = [row for row in rows if row not in wrong]
        if not kept:
            return [], [], wrong
        return self._of_columns(schema, _columns(schema, [samples[row] for row in kept])), kept, wrong

    def plan_columns(
        self, schema: Schema, columns: Mapping[str, Any], count: int
    ) -> tuple[list[Planned], list[int], dict[int, Unfit]]:
        """As `plan`, of columns by name."""
        try:
            found = [columns[field.key] for field in schema.fields]
            return self._of_columns(schema, found), [*range(count)], {}
        except (Unfit, KeyError):
            return self.plan(schema, samples_of(columns, count))

    def _of_columns(self, schema: Schema, columns: Sequence[Any]) -> list[Planned]:
        found = []
        for field, values in zip(schema.fields, columns, strict=True):
            try:
                found.append(self._planned(schema, field, values))
            except Unfit as error:
                raise Unfit(f"has a field {field.name!r} that {error}") from error.__cause__
        return found

    def _planned(self, schema: Schema, field: Field, values: Any) -> Planned:
        """Return the plan of a field; raises Unfit if a value does not fit."""
        shape = field.shape
        if isinstance(values, np.ndarray):
            # A column with a row for each sample.
            _compare(schema, field, values.dtype, values.shape[1:], free=False)
            return Planned(field.name, field.dtype, values.shape, None, values, None)
        rows = getattr(values, "rows", None)
        if rows is not None:
            return self._of_lists(schema, field, rows, values.offsets)
        if not shape:
            return Planned(
                field.name, field.dtype, (len(values),), None, _numbers(schema, field, values), None
            )
        arrays = _arrays(field, values)
        dtype, lengths, first = field.dtype, set(), shape[1:]
        listed = self._is_listed(field)
        for array in arrays:
            if array.dtype != dtype or array.ndim != len(shape) or array.shape[1:] != first:
                _compare(schema, field, array.dtype, array.shape, free=listed is not False)
            lengths.add(len(array))
        if not listed and len(lengths) == 1 and (listed is None or shape[0] in lengths):
            return Planned(field.name, dtype, (len(arrays), lengths.pop(), *first), arrays, None, None)
        if listed is False:
            for array in arrays:
                _compare(schema, field, array.dtype, array.shape, free=False)
        offsets = np.zeros(len(arrays) + 1, np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        return Planned(field.name, dtype, (int(offsets[-1]), *first), arrays, None, offsets)

    def _is_listed(self, field: Field) -> bool | None:
        """Whether a field is ragged; None: where lengths differ."""
        if field.kind != "array":
            return True
        if self._ragged is not None:
            return field.name in self._ragged
        return None if len(field.shape) <= _MOST_AXES_OF_LISTS else False

    def _of_lists(
        self, schema: Schema, field: Field, rows: NDArray[Any], offsets: NDArray[np.int64]
    ) -> Planned:
        listed = self._is_listed(field)
        _compare(schema, field, rows.dtype, (field.shape[0], *rows.shape[1:]), free=True)
        counts = np.diff(offsets)
        same = bool((counts == counts[0]).all())
        if listed is False and not (same and counts[0] == field.shape[0]):
            raise Unfit("has another length")
        if listed or not same:
            return Planned(field.name, field.dtype, rows.shape, None, rows, offsets)
        whole = rows.reshape(len(counts), int(counts[0]), *rows.shape[1:])
        return Planned(field.name, field.dtype, whole.shape, None, whole, None)

    def collated(self, samples: list[Any]) -> list[Planned]:
        """Return the arrays that the function of the user makes of samples.

        Raises
        ------
        ContractError
            It returned something else than arrays with a row for each sample.
        """
        assert self.collate is not None
        made = self.collate(samples)
        try:
            form, keys, values = self._taken_apart(made)
            kinds = [_kind(value) for value in values]
            names = self._names_of(form, keys, kinds, made)
        except Unfit as error:
            raise ContractError(
                f"{self._owner}: collate returned a {type(made).__name__} that {error}; expected arrays"
            ) from error
        planned = []
        for name, value in zip(names, values, strict=True):
            if name is None:
                continue
            array = _array(value)
            if array.ndim and len(array) != len(samples):
                raise ContractError(
                    f"{self._owner}: collate returned {name!r} with {len(array)} rows for {len(samples)} samples; "
                    "expected a row for each"
                )
            planned.append(Planned(name, array.dtype, array.shape, None, array, None))
        return planned


def samples_of(columns: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Return the samples of columns."""
    parts = {}
    for name, values in columns.items():
        rows = getattr(values, "rows", None)
        parts[name] = values if rows is None else np.split(rows, values.offsets[1:-1])
    return [{name: values[row] for name, values in parts.items()} for row in range(count)]


def _columns(schema: Schema, samples: Sequence[Any]) -> Sequence[Sequence[Any]]:
    """Return the values of each field; raises Unfit where a sample is built differently."""
    if schema.form == "tuple":
        width = schema.width
        for sample in samples:
            if not isinstance(sample, tuple) or len(sample) != width:
                raise _other_form(schema, sample)
        columns = list(zip(*samples, strict=True))
        return [columns[field.key] for field in schema.fields]
    if schema.form == "mapping":
        try:
            return [[sample[field.key] for sample in samples] for field in schema.fields]
        except (KeyError, TypeError, IndexError):
            for sample in samples:
                if not isinstance(sample, Mapping):
                    raise _other_form(schema, sample) from None
                for field in schema.fields:
                    if field.key not in sample:
                        raise Unfit(
                            f"has no {field.key!r}, as sample {schema.reference} has; it has "
                            f"{', '.join(map(repr, sample)) or 'nothing'}"
                        ) from None
            raise
    for sample in samples:
        if isinstance(sample, (tuple, Mapping)):
            raise _other_form(schema, sample)
    return [samples]


def _other_form(schema: Schema, sample: Any) -> Unfit:
    expected = {"tuple": f"a tuple of {schema.width}", "mapping": "a mapping", "value": "one value"}[
        schema.form
    ]
    found = f"a {type(sample).__name__}" + (f" of {len(sample)}" if isinstance(sample, tuple) else "")
    return Unfit(f"is {found}; expected {expected}, as sample {schema.reference} is")


def _kind(value: Any) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    """Return kind, dtype and shape of a value."""
    if isinstance(value, str):
        return "text", np.dtype(np.uint8), (len(value),)
    if isinstance(value, (bytes, bytearray)):
        return "bytes", np.dtype(np.uint8), (len(value),)
    if isinstance(value, (list, tuple)) and not value:
        raise Unfit(
            "is an empty list, which has no type; expected an array, such as numpy.zeros(0, numpy.int64)"
        )
    array = _array(value)
    return "array", array.dtype, array.shape


def _array(value: Any) -> NDArray[Any]:
    """Return a value as an array; Python's floats are float32, its whole numbers int64."""
    if type(value) is np.ndarray:
        array = value
    elif value is None:
        raise Unfit("is None; expected a number, a text, bytes or an array")
    elif isinstance(value, (Mapping, set, frozenset)):
        raise Unfit(
            f"is a {type(value).__name__}; expected a number, a text, bytes or an array: take nested values apart in "
            "the dataset"
        )
    else:
        try:
            array = np.asarray(value)
        except MemoryError:
            raise
        except Exception as error:
            # Such as a list of lists of different lengths, or a tensor that is on a device.
            raise Unfit(f"is a {type(value).__name__} that is no array: {error}") from error
        if (
            isinstance(value, (float, list, tuple))
            and array.dtype == np.float64
            and type(value) is not np.float64
        ):
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
    if array.dtype.hasobject:
        raise Unfit(
            f"is a {type(value).__name__} of objects; expected a number, a text, bytes or an array of numbers"
        )
    return array


def _arrays(field: Field, values: Sequence[Any]) -> list[NDArray[Any]]:
    if field.kind == "text":
        return [np.frombuffer(_encoded(value), np.uint8) for value in values]
    if field.kind == "bytes":
        for value in values:
            if not isinstance(value, (bytes, bytearray)):
                raise Unfit(f"is a {type(value).__name__}; expected bytes")
        return [np.frombuffer(value, np.uint8) for value in values]
    if {*map(type, values)} == {np.ndarray}:
        return list(values)
    for value in values:
        if isinstance(value, (str, bytes, bytearray)):
            raise Unfit(f"is a {type(value).__name__}; expected an array")
    empty_one = np.empty((0, *field.shape[1:]), field.dtype)
    # An empty list has no type of its own.
    return [
        empty_one if isinstance(value, (list, tuple)) and not value else _array(value) for value in values
    ]


_PLAIN = {int: np.dtype(np.int64), float: np.dtype(np.float32), bool: np.dtype(np.bool_)}


def _numbers(schema: Schema, field: Field, values: Sequence[Any]) -> NDArray[Any]:
    """Return one number for each sample."""
    kinds = {*map(type, values)}
    if len(kinds) == 1 and _PLAIN.get(*kinds) == field.dtype:
        try:
            with np.errstate(over="ignore"):
                return np.array(values, field.dtype)
        except OverflowError as error:
            raise Unfit(f"is too large for {field.dtype}") from error
    out = np.empty(len(values), field.dtype)
    for row, value in enumerate(values):
        if isinstance(value, (str, bytes, bytearray)):
            raise Unfit(f"is a {type(value).__name__}; expected a number of {field.dtype}")
        array = _array(value)
        if array.dtype != field.dtype or array.ndim:
            _compare(schema, field, array.dtype, array.shape, free=False)
        out[row] = array
    return out


def _encoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise Unfit(f"is a {type(value).__name__}; expected a text")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise Unfit(f"is a text that UTF-8 does not have: {error}") from error


def _compare(schema: Schema, field: Field, dtype: np.dtype[Any], shape: tuple[int, ...], free: bool) -> None:
    """Raise Unfit unless dtype and shape are those of a field; `free` is whether the length may differ."""
    expected = field.shape
    if dtype == field.dtype and len(shape) == len(expected) and shape[free:] == expected[free:]:
        return
    advice = ""
    if dtype == field.dtype and len(shape) == len(expected) and shape[1:] == expected[1:]:
        advice = f" (ragged=({field.name!r},) joins rows of samples with different lengths)"
    raise Unfit(
        f"is {dtype} of shape {shape}; expected {field.dtype} of shape {expected}, as in sample "
        f"{schema.reference}{advice}"
    )
