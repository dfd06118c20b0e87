"""Batch: named arrays in order (also ragged ones, such as boxes) and the identity of their samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from highway._core.pool import empty
from highway.arguments.signatures import explained
from highway.errors import ArgumentError, FieldError, SampleIndexError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Batch", "assembled", "concatenated", "empty", "is_field_name", "ragged_groups"]


# Of all batches whose ragged fields share their offsets; nothing writes into it.
_NONE: Mapping[str, NDArray[np.int64]] = {}


class Batch:
    """Named arrays of a batch and the identity of its samples.

    Iterating or unpacking a batch yields the fields in order: ``images, labels = batch``. ``batch["images"]``,
    ``batch.images`` and ``batch[0]`` are the same array, and ``len(batch)`` is the number of fields. ``dict(batch)`` is
    the fields by name, as in ``function(**batch)``.

    Parameters
    ----------
    fields : mapping of str to ndarray
        In order. A name is an identifier without a leading underscore, and not an attribute of Batch. A field with the
        name of a keyword of Python, such as "global", is ``batch["global"]``.
    epoch : int
        Epoch of the samples, from 0.
    seq : int, optional
        Number of the batch in its epoch, from 0. By default the engine sets it when the source returns the batch.
    indices : int64 array of shape (N,), optional
        Number of every sample in the data set: with the epoch, the identity of the sample. By default
        ``seq * N + arange(N)``, which is right if every batch of an epoch has N samples. Batches of 4, 4
        and 2 samples would be 0 to 3, 4 to 7, and 4 and 5 again, and two samples with the same number draw the
        same random numbers: set `indices` if batches differ in size.
    keys : sequence of str, optional
        Name of every sample in its source (a file name, a key of a store); without names, none or an empty list.
    applied : int
        Number of transforms applied to the batch; the next one draws at this position.
    extras : mapping of str to ndarray, optional
        Further named arrays; unpacking skips them.
    offsets : int64 array of shape (N + 1,), optional
        For samples with different numbers of rows, such as boxes: sample i has the rows from ``offsets[i]`` to
        ``offsets[i + 1]`` (exclusive). The first offset is 0.
    ragged : sequence of str, or mapping of str to int64 array of shape (N + 1,), optional
        Fields and extras with ``offsets[-1]`` rows instead of one per sample. A mapping gives each of them its own
        offsets, as boxes and tokens need; `offsets` is then omitted. Fields that get the same array object share it:
        where a transform drops boxes, the rows of the fields that share their offsets are dropped too.

    Raises
    ------
    ArgumentError
        A field is not an ndarray, a name is not allowed, or counts disagree: every field and extra has one
        row per sample, unless it is ragged or has no dimensions; so have `indices` and `keys`. Or offsets do not ascend
        from 0 to the number of rows.

    Attributes
    ----------
    fields, extras : dict of str to ndarray
    offsets : int64 array or None
        The offsets that all ragged fields share. None without ragged fields, and where these differ: `offsets_of`
        returns those of a field.
    ragged : frozenset of str

    Notes
    -----
    ``dict(batch)`` calls ``batch.keys()``, as it does for any mapping. So `keys`, the list of the names of the samples,
    can be called: it then returns the names of the fields.

    Examples
    --------
    >>> import numpy as np
    >>> batch = Batch({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.array([0, 1])}, seq=3)
    >>> images, labels = batch
    >>> batch.size, batch.indices.tolist()
    (2, [6, 7])

    Three boxes, two of them in the second sample:

    >>> boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [1, 1, 4, 4]], np.float32)
    >>> batch = batch.replace(labels=np.array([5, 6, 7]), boxes=boxes, offsets=[0, 1, 3], ragged=("labels", "boxes"))
    >>> images, labels, boxes = batch
    >>> batch.boxes_of(1).tolist()
    [[1.0, 0.0, 3.0, 2.0], [1.0, 1.0, 4.0, 4.0]]
    >>> batch.rows_of("labels", 1).tolist()
    [6, 7]

    Texts as bytes, beside tokens of other numbers:

    >>> text, starts = concatenated(["a cat", "dogs"])
    >>> batch = Batch({"text": text, "tokens": np.array([4, 8, 9])}, ragged={"text": starts, "tokens": [0, 2, 3]})
    >>> batch.text_of("text", 1), batch.rows_of("tokens", 0).tolist()
    ('dogs', [4, 8])
    """

    __slots__ = (
        *("__weakref__", "_apart", "_indices", "applied", "epoch"),
        *("_keys", "extras", "fields", "offsets", "ragged", "seq"),
    )

    fields: dict[str, NDArray[Any]]
    extras: dict[str, NDArray[Any]]
    offsets: NDArray[np.int64] | None
    ragged: frozenset[str]
    epoch: int
    seq: int | None
    applied: int
    # Offsets by name, where ragged fields have different ones; `offsets` is then None.
    _apart: Mapping[str, NDArray[np.int64]]
    _indices: NDArray[np.int64] | None
    _keys: list[str]

    @explained()
    def __init__(
        self,
        fields: Mapping[str, NDArray[Any]],
        *,
        epoch: int = 0,
        seq: int | None = None,
        indices: NDArray[np.int64] | Sequence[int] | None = None,
        keys: Sequence[str] | None = None,
        applied: int = 0,
        extras: Mapping[str, NDArray[Any]] | None = None,
        offsets: NDArray[np.int64] | Sequence[int] | None = None,
        ragged: Iterable[str] | Mapping[str, NDArray[np.int64] | Sequence[int]] = (),
    ) -> None:
        for name, arrays in (("fields", fields), ("extras", extras or {})):
            if not isinstance(arrays, Mapping):
                raise ArgumentError(
                    f"Batch: {name} is a {type(arrays).__name__}; expected arrays by name, such as "
                    "{'images': images}"
                )
        self.fields = dict(fields)
        self.extras = {} if extras is None else dict(extras)
        for name in (*self.fields, *self.extras):
            if not is_field_name(name):
                raise ArgumentError(
                    f"Batch: {name!r} cannot name a field; expected an identifier that does not begin with "
                    f"an underscore, and is none of {', '.join(sorted(_TAKEN))}"
                )
        self._check_arrays()
        self.epoch = epoch
        self.seq = seq
        self.applied = applied
        self._indices = None if indices is None else _as_indices(indices)
        self.offsets, self.ragged, self._apart = _raggedness(offsets, ragged)
        self.keys = keys
        if self.extras and not self.extras.keys().isdisjoint(self.fields):
            raise ArgumentError(
                f"Batch: {', '.join(self.extras.keys() & self.fields)} is a field and an extra"
            )
        self._check_counts()

    def _check(self) -> None:
        """Check like the constructor; the engine repeats it, since a module may have written into the fields."""
        self._check_arrays()
        self._check_counts()

    def _check_arrays(self) -> None:
        for arrays in (self.fields, self.extras):
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise ArgumentError(
                        f"Batch: field {name!r} must be a numpy array, but is {type(array).__name__}; "
                        "use numpy.asarray"
                    )

    def _check_counts(self) -> None:
        size, ragged = self.size, self.ragged
        for arrays in (self.fields, self.extras):
            for name, array in arrays.items():
                shape = array.shape
                # An array without rows, such as a loss, belongs to the whole batch.
                if shape and shape[0] != size and name not in ragged:
                    raise self._disagreement(name, shape[0])
        if self._keys and len(self._keys) != size:
            raise ArgumentError(f"Batch: {len(self._keys)} keys for {size} samples; every sample needs one")
        if ragged or self.offsets is not None:
            self._check_ragged()

    def _disagreement(self, name: str, rows: int) -> ArgumentError:
        """Return the error for a field with a wrong number of rows."""
        kind = "field" if name in self.fields else "extra"
        if self._indices is not None:
            other = f"there are {len(self._indices)} indices"
        elif self.offsets is not None or self._apart:
            other = f"the offsets are for {self.size} samples"
        else:
            first = next(other for other, array in self._with_rows() if other not in self.ragged)
            other = f"{'field' if first in self.fields else 'extra'} {first!r} has {self.size}"
        return ArgumentError(
            f"Batch: {kind} {name!r} has {rows} rows, and {other}; expected one row per sample (if samples have "
            "different numbers of rows, such as boxes, set offsets= and ragged=)"
        )

    def _with_rows(self) -> Iterator[tuple[str, NDArray[Any]]]:
        for arrays in (self.fields, self.extras):
            for name, array in arrays.items():
                if array.ndim:
                    yield name, array

    def _check_ragged(self) -> None:
        size, shared, apart = self.size, self.offsets, self._apart
        if shared is not None and len(shared) != size + 1:
            raise ArgumentError(
                f"Batch: {len(shared)} offsets for {size} samples; expected one more than samples"
            )
        for name in apart or self.ragged:
            offsets = apart.get(name, shared)
            if offsets is None:
                raise ArgumentError(
                    f"Batch: {', '.join(sorted(self.ragged))} ragged, but there are no offsets"
                )
            if offsets is not shared and len(offsets) != size + 1:
                raise ArgumentError(
                    f"Batch: field {name!r} has {len(offsets)} offsets for {size} samples; expected one more than "
                    "samples"
                )
            array = self[name]
            if not array.ndim or len(array) != offsets[-1]:
                raise ArgumentError(
                    f"Batch: field {name!r} has shape {array.shape}, and the offsets end with {offsets[-1]}; "
                    "expected as many rows"
                )

    @property
    def indices(self) -> NDArray[np.int64]:
        """Number of every sample in the data set, int64 of shape (N,)."""
        if self._indices is None:
            size = self.size
            first = (self.seq or 0) * size
            made = np.arange(first, first + size, dtype=np.int64)
            if self.seq is None:
                return made
            self._indices = made
        return self._indices

    @property
    def keys(self) -> _Keys:
        """Name of every sample in its source, a list; empty if the source does not name its samples."""
        keys = self._keys
        if not isinstance(keys, _Keys):
            self._keys = keys = _Keys(keys)
        keys.fields = tuple(self.fields)
        return keys

    @keys.setter
    def keys(self, keys: Sequence[str] | None) -> None:
        self._keys = [] if keys is None else list(keys)

    @property
    def size(self) -> int:
        """Number of samples: by the indices, else the offsets, else the rows of the first field that has rows."""
        if self._indices is not None:
            return len(self._indices)
        if self.offsets is not None:
            return len(self.offsets) - 1
        if self._apart:
            return len(next(iter(self._apart.values()))) - 1
        for array in self.fields.values():
            if array.ndim:
                return len(array)
        return next((len(array) for _, array in self._with_rows()), 0)

    @property
    def nbytes(self) -> int:
        """Bytes of all fields and extras, including the contents of `bytes` objects in them."""
        total = 0
        for arrays in (self.fields, self.extras):
            for array in arrays.values():
                total += array.nbytes
                if array.dtype.hasobject:
                    total += sum(len(file) for file in array.flat if isinstance(file, bytes))
        return total

    def rows_of(self, name: str, i: int) -> NDArray[Any]:
        """Return the part of a field that belongs to sample `i`: its rows of a ragged field, else its element.

        Parameters
        ----------
        name : str
        i : int
            ``-size`` to ``size - 1``; -1 is the last sample.

        Raises
        ------
        FieldError
            The batch has no such field.
        SampleIndexError
            The batch has no such sample.
        """
        array = self[name]
        size = self.size
        # A NumPy integer may have a type that cannot hold the number of samples.
        i = index(i)
        if not -size <= i < size:
            raise SampleIndexError(
                f"Batch: there is no sample {i}; expected a number from {-size} to {size - 1}, of {size} samples"
                if size
                else f"Batch: there is no sample {i}; the batch is empty"
            )
        if name not in self.ragged:
            return array[i]  # type: ignore[no-any-return]
        offsets = self.offsets_of(name)
        i = i % size
        return array[offsets[i] : offsets[i + 1]]

    def offsets_of(self, name: str) -> NDArray[np.int64]:
        """Return the offsets of a ragged field or extra, int64 (N + 1,).

        Fields that share their offsets return the same array.

        Raises
        ------
        FieldError
            The batch has no such field, or it is not ragged.
        """
        offsets = self._apart.get(name, self.offsets)
        if name not in self.ragged or offsets is None:
            shape = self[name].shape
            others = (
                f"; expected one of {', '.join(sorted(self.ragged))}" if self.ragged else ", nor is any other"
            )
            way = f"; ragged=[{name!r}] of DatasetReader and Map makes it so, also where lengths are equal"
            raise FieldError(
                f"Batch: field {name!r}, of shape {shape}, is not ragged{others}{way if len(shape) > 1 else ''}"
            )
        return offsets

    def ragged_with(self, name: str) -> frozenset[str]:
        """Return the names of the ragged fields and extras that share the offsets of `name`, with itself.

        Raises
        ------
        FieldError
            The batch has no such field, or it is not ragged.
        """
        offsets = self.offsets_of(name)
        return frozenset(other for other in self.ragged if self.offsets_of(other) is offsets)

    def text_of(self, name: str, i: int) -> str:
        """Return the text of sample `i`: its UTF-8 bytes in a ragged uint8 field, else its element.

        Parameters
        ----------
        name : str
        i : int
            ``-size`` to ``size - 1``; -1 is the last sample.

        Raises
        ------
        FieldError
            The batch has no such field, it holds neither bytes nor texts, or the bytes are not UTF-8.
        SampleIndexError
            The batch has no such sample.
        """
        found: Any = self.rows_of(name, i)
        if isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.ndim == 1:
            found = found.tobytes()
        if isinstance(found, bytes):
            try:
                return found.decode()
            except UnicodeDecodeError as error:
                raise FieldError(
                    f"Batch: {name!r} of sample {i} is not UTF-8: {error}; for other bytes, use "
                    f"rows_of({name!r}, {i}).tobytes()"
                ) from None
        if isinstance(found, str):
            return str(found)
        raise FieldError(
            f"Batch: field {name!r} is {self[name].dtype} of shape {self[name].shape}; expected ragged uint8 (M,), "
            "bytes or str"
        )

    def boxes_of(self, i: int) -> NDArray[np.float32]:
        """Return the boxes of sample `i`, float32 (n, 4): x0, y0, x1, y1 in pixels.

        Raises
        ------
        FieldError
            The batch has no boxes.
        SampleIndexError
            The batch has no such sample.
        """
        return self.rows_of("boxes", i)

    def boxes_in_picture(self, i: int, boxes: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Map boxes of sample `i` to pixels of the original picture, such as boxes that a network predicts.

        Parameters
        ----------
        i : int
        boxes : array_like (n, 4), optional
            x0, y0, x1, y1 in pixels of the image of sample `i`; by default ``boxes_of(i)``.

        Returns
        -------
        float32 (n, 4)
            The same number of boxes, in pixels of the picture, upright by its EXIF orientation (unless it was read
            with ``exif=False``), and clipped to it. If the image was rotated or sheared, the smallest upright boxes
            around them.

        Raises
        ------
        ArgumentError
            `boxes` have another shape.
        FieldError
            The batch has no placement: its reader needs ``placement=True``.
        SampleIndexError
            The batch has no such sample.
        """
        if "placement" not in self or "picture_sizes" not in self:
            raise FieldError(
                f"{self!r} does not know its pictures; expected the extras placement and picture_sizes: set "
                "placement=True in the reader"
            )
        table = np.asarray(self.boxes_of(i) if boxes is None else boxes, np.float64)
        if not table.size:
            table = table.reshape(0, 4)
        if table.ndim != 2 or table.shape[1] != 4:
            raise ArgumentError(f"Batch: boxes have shape {table.shape}; expected (n, 4)")
        # Homogeneous coordinates (x, y, 1), scaled if the image is a perspective view of the picture.
        corners = np.ones((len(table), 4, 3))
        corners[:, :, :2] = table[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        found = corners @ np.linalg.inv(self.rows_of("placement", i)).T
        points = found[:, :, :2] / found[:, :, 2:]
        ends = np.stack((points.min(axis=1), points.max(axis=1)), axis=1)
        sizes = self.rows_of("picture_sizes", i)
        clipped: NDArray[np.float32] = np.clip(ends, 0, sizes[::-1]).astype(np.float32)
        return clipped.reshape(-1, 4)

    def replace(
        self,
        *,
        indices: NDArray[np.int64] | Sequence[int] | None = None,
        keys: Sequence[str] | None = None,
        applied: int | None = None,
        offsets: NDArray[np.int64] | Sequence[int] | None = None,
        ragged: Iterable[str] | Mapping[str, NDArray[np.int64] | Sequence[int]] | None = None,
        **fields: NDArray[Any],
    ) -> Batch:
        """Return a batch with other arrays and the same identity.

        Parameters
        ----------
        indices, keys : optional
            Of the remaining samples, if samples were dropped; set both together.
        applied : int, optional
            Number of transforms applied to the new batch.
        offsets, ragged : optional
            New offsets and ragged arrays, if the numbers of rows have changed. Names alone keep their offsets. A
            mapping lists all ragged arrays of the new batch.
        **fields : ndarray
            Arrays that replace the fields and extras of the same name; arrays with new names become fields, after
            the existing ones.

        Returns
        -------
        Batch

        Raises
        ------
        ArgumentError
            Counts disagree, also with those of kept arrays.
        """
        kept_indices = self._indices if indices is None else indices
        kept_keys = self._keys if keys is None and indices is None else keys
        extras = {name: fields.pop(name, array) for name, array in self.extras.items()}
        if self._apart and offsets is None:
            if ragged is None:
                ragged = self._apart
            elif not isinstance(ragged, Mapping):
                ragged = {name: self.offsets_of(name) for name in ragged}
        elif not isinstance(ragged, Mapping):
            offsets = self.offsets if offsets is None else offsets
            ragged = self.ragged if ragged is None else ragged
        return Batch(
            {**self.fields, **fields},
            epoch=self.epoch,
            seq=self.seq,
            indices=kept_indices,
            keys=kept_keys,
            applied=self.applied if applied is None else applied,
            extras=extras,
            offsets=offsets,
            ragged=ragged or (),
        )

    def take(self, rows: NDArray[np.intp] | Sequence[int]) -> Batch:
        """Return a batch of some of the samples, with copies of their data.

        Parameters
        ----------
        rows : sequence of int
            Numbers of samples in this batch, in any order: ``-size`` to ``size - 1``; -1 is the last one.

        Raises
        ------
        ArgumentError
            `rows` are no whole numbers, or a field does not have one row per sample.
        SampleIndexError
            The batch has no such sample.
        """
        chosen = _as_rows(rows, self.size)
        shared = None if self.offsets is None else _chosen(self.offsets, chosen)
        apart = {id(offsets): _chosen(offsets, chosen) for offsets in self._apart.values()}

        for name in (*self.fields, *self.extras):
            if name not in self.ragged and self[name].shape[:1] != (self.size,):
                raise ArgumentError(
                    f"Batch: field {name!r} has shape {self[name].shape}, for {self.size} samples; expected one row "
                    "per sample, to take some of them"
                )

        def taken(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            found = {}
            for name, array in arrays.items():
                if name in self._apart:
                    found[name] = _rows(array, apart[id(self._apart[name])][1])
                elif name in self.ragged and shared is not None:
                    found[name] = _rows(array, shared[1])
                else:
                    found[name] = _rows(array, chosen)
            return found

        return Batch(
            taken(self.fields),
            epoch=self.epoch,
            seq=self.seq,
            indices=self.indices[chosen],
            keys=[self._keys[row] for row in chosen] if self._keys else None,
            applied=self.applied,
            extras=taken(self.extras),
            offsets=None if shared is None else shared[0],
            ragged={name: apart[id(offsets)][0] for name, offsets in self._apart.items()} or self.ragged,
        )

    def sheet(
        self,
        path: str | os.PathLike[str] | None = None,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> Image:
        """Draw the images with their labels, boxes, masks and keypoints.

        Parameters
        ----------
        path : path, optional
            File to write too, in the format of its extension (.png).
        classes : sequence of str, optional
            Names of the labels, as ``reader.classes``.
        **options
            Options of `highway.viz.contact_sheet.contact_sheet`.

        Returns
        -------
        PIL.Image.Image
            RGB; a notebook shows it.

        Raises
        ------
        ArgumentError
            The images cannot be drawn, or PIL does not write the format of `path`.
        MissingPackageError
            PIL is not installed.
        OSError
            The file cannot be written.
        """
        # Late: few programs draw.
        from highway.viz.contact_sheet import contact_sheet, save_sheet

        sheet = contact_sheet(self, classes, **options)
        if path is not None:
            save_sheet(path, sheet)
        return sheet

    def adopt(self, other: Batch) -> None:
        """Take the identity of `other`; the engine does so for a batch that a stage made without one."""
        self.epoch = other.epoch
        self.seq = other.seq
        self.applied = max(self.applied, other.applied)
        if self.size == other.size:
            if self._indices is None:
                self._indices = other.indices
            if not self._keys:
                self.keys = other.keys

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.fields.values())

    def __len__(self) -> int:
        return len(self.fields)

    def as_tuple(self) -> tuple[NDArray[Any], ...]:
        """Return the fields in order."""
        return tuple(self.fields.values())

    def as_dict(self) -> dict[str, NDArray[Any]]:
        """Return the fields by name, in order; extras are not in it."""
        return dict(self.fields)

    def __getitem__(self, name: str | int) -> NDArray[Any]:
        """Return a field or an extra by its name, or a field by its position."""
        # A position is in neither.
        found = self.fields.get(name)  # type: ignore[arg-type]
        if found is None:
            found = self.extras.get(name)  # type: ignore[arg-type]
        return self._sought(name) if found is None else found

    def _sought(self, name: str | int) -> NDArray[Any]:
        """Return what `__getitem__` has not found: a field by its position, or what stands for no array."""
        if not isinstance(name, str):
            return self._at(name)
        for arrays in (self.fields, self.extras):
            if name in arrays:
                return arrays[name]
        raise FieldError(
            f"Batch has no field {name!r}; it has {', '.join((*self.fields, *self.extras)) or 'none'}"
        )

    def _at(self, position: int) -> NDArray[Any]:
        try:
            return self.as_tuple()[index(position)]
        except TypeError:
            expected = "expected a name, or a position as a whole number"
        except IndexError:
            expected = f"it has {len(self)}: {', '.join(self.fields) or 'none'}"
        raise FieldError(f"Batch has no field {position!r}; {expected}")

    def __contains__(self, name: object) -> bool:
        """Whether there is a field or an extra of this name."""
        return name in self.fields or name in self.extras

    def __getattr__(self, name: str) -> NDArray[Any]:
        # Runs only for names that are not attributes; copy and pickle look up private ones before `fields` is set.
        if name[0] != "_" and name not in _TAKEN and name in self:
            return self[name]
        known = (
            "" if name[0] == "_" or name in _TAKEN else f"; its fields are {', '.join(self.fields) or 'none'}"
        )
        raise FieldError(f"Batch has no attribute {name!r}{known}")

    def __repr__(self) -> str:
        arrays = {**self.fields, **self.extras}
        fields = ", ".join(f"{name}={_described(array)}" for name, array in arrays.items())
        return f"<Batch {fields}, epoch={self.epoch}, seq={self.seq}>"


def assembled(
    fields: dict[str, Any],
    extras: dict[str, Any],
    offsets: Any,
    ragged: frozenset[str],
    *,
    epoch: int = 0,
    seq: int | None = None,
    indices: NDArray[np.int64] | None = None,
    keys: Sequence[str] = (),
    applied: int = 0,
    apart: Mapping[str, Any] = _NONE,
) -> Batch:
    """Make a batch of the arrays of another library, or of what stands for them, without any checks.

    `apart` has the offsets of each ragged name where these differ; `offsets` is then None.
    """
    batch = object.__new__(Batch)
    batch.fields, batch.extras, batch.offsets, batch.ragged = fields, extras, offsets, ragged
    batch._apart = apart
    batch.epoch, batch.seq, batch.applied = epoch, seq, applied
    batch._indices, batch._keys = indices, list(keys)
    return batch


def ragged_groups(batch: Batch) -> list[list[str]]:
    """Return the names of the ragged fields and extras, those that share their offsets together; all in order."""
    return sorted(sorted(group) for group in {batch.ragged_with(name) for name in batch.ragged})


def concatenated(samples: Sequence[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the values of samples of different length, one after the other, and their offsets.

    Parameters
    ----------
    samples : sequence of str, bytes or array_like (n, ...)
        Of one kind. Texts become UTF-8. Arrays have the same dtype and the same shape but for the first axis.

    Returns
    -------
    values : array (M, ...)
        uint8 for str and bytes, else of the dtype of the arrays; uint8 (0,) without samples.
    offsets : int64 (N + 1,)
        Sample i has the rows from ``offsets[i]`` to ``offsets[i + 1]`` (exclusive), for ``ragged=`` of `Batch`.

    Raises
    ------
    ArgumentError
        Samples are of several dtypes or shapes, an array has no dimensions or no numbers, or a text cannot be UTF-8.

    Examples
    --------
    >>> values, offsets = concatenated([np.array([1, 2]), np.array([3])])
    >>> values.tolist(), offsets.tolist()
    ([1, 2, 3], [0, 2, 3])
    """
    arrays = [_as_sample(number, sample) for number, sample in enumerate(samples)]
    for number, array in enumerate(arrays):
        first = arrays[0]
        if array.dtype != first.dtype or array.shape[1:] != first.shape[1:]:
            raise ArgumentError(
                f"concatenated: sample {number} is {array.dtype} of shape {array.shape}, sample 0 is {first.dtype} of "
                f"shape {first.shape}; expected the same dtype, and the same shape but for the first axis"
            )
    offsets = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    if not arrays:
        return np.empty(0, np.uint8), offsets
    values = empty((int(offsets[-1]), *arrays[0].shape[1:]), arrays[0].dtype)
    np.concatenate(arrays, out=values)
    return values, offsets


def _as_sample(number: int, sample: Any) -> NDArray[Any]:
    if isinstance(sample, str):
        try:
            sample = sample.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ArgumentError(f"concatenated: sample {number} is no text in UTF-8: {error}") from None
    if isinstance(sample, (bytes, bytearray)):
        return np.frombuffer(sample, np.uint8)
    try:
        array = np.asarray(sample)
    except ValueError as error:
        raise ArgumentError(f"concatenated: sample {number} is no array: {error}") from None
    if not array.ndim or array.dtype.kind not in "biufc":
        raise ArgumentError(
            f"concatenated: sample {number} is {array.dtype} of shape {array.shape}; expected str, bytes, or numbers "
            "with at least one dimension"
        )
    return array


class _Keys(list[str]):
    """The names of the samples of a batch, a list; called, the names of the fields."""

    # Names only: a list that outlives its batch must not keep the arrays.
    fields: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        return self.fields

    def __reduce__(self) -> tuple[Any, ...]:
        # What is loaded without Highway, such as a checkpoint that has keys, is a plain list.
        return list, (list(self),)


_TAKEN = frozenset(name for name in dir(Batch) if not name.startswith("_"))


@lru_cache(maxsize=256)
def is_field_name(name: object) -> bool:
    """Whether `name` can name a field of a batch."""
    if not isinstance(name, str) or name in _TAKEN:
        return False
    return name.isidentifier() and name[0] != "_"


def _described(array: object) -> str:
    # A batch may hold what JAX puts in the place of arrays.
    if hasattr(array, "dtype") and hasattr(array, "shape"):
        return f"{array.dtype}{list(array.shape)}"
    return repr(array)


def _rows(array: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    if array.dtype.hasobject or not array.ndim:
        return array[rows]
    out = empty((len(rows), *array.shape[1:]), array.dtype)
    # mode="clip" avoids a buffer; every row exists.
    return np.take(array, rows, axis=0, out=out, mode="clip")


def _chosen(
    offsets: NDArray[np.int64], chosen: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the offsets of chosen samples, and the rows that these have."""
    starts, counts = offsets[chosen], np.diff(offsets)[chosen]
    found = np.concatenate(([0], np.cumsum(counts)))
    return found, np.arange(found[-1]) + np.repeat(starts - found[:-1], counts)


def _raggedness(
    offsets: NDArray[np.int64] | Sequence[int] | None,
    ragged: Iterable[str] | Mapping[str, NDArray[np.int64] | Sequence[int]],
) -> tuple[NDArray[np.int64] | None, frozenset[str], Mapping[str, NDArray[np.int64]]]:
    """Return the shared offsets, the ragged names, and the offsets by name where they differ."""
    if not isinstance(ragged, Mapping):
        return None if offsets is None else _as_offsets(offsets), frozenset(ragged), _NONE
    if offsets is not None:
        raise ArgumentError(
            "Batch: ragged is a mapping, which has the offsets of each field, and offsets are given too; expected one "
            "of both"
        )
    # A mapping may make its arrays anew each time, as an archive of NumPy does; below, their ids tell them apart.
    ragged = dict(ragged)
    arrays = {id(given): _as_offsets(given, f" of {name!r}") for name, given in ragged.items()}
    if len(arrays) == 1:
        return next(iter(arrays.values())), frozenset(ragged), _NONE
    return None, frozenset(ragged), {name: arrays[id(given)] for name, given in ragged.items()}


def _as_offsets(offsets: NDArray[np.int64] | Sequence[int], whose: str = "") -> NDArray[np.int64]:
    array = np.asarray(offsets)
    if (
        array.ndim != 1
        or not array.size
        or array.dtype.kind not in "iu"
        or array[0] != 0
        or (array[1:] < array[:-1]).any()
    ):
        raise ArgumentError(
            f"Batch: offsets{whose} are {offsets!r}; expected whole numbers that ascend from 0"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _as_rows(rows: NDArray[np.intp] | Sequence[int], size: int) -> NDArray[np.intp]:
    """Return the numbers of chosen samples, 0 to ``size - 1``."""
    chosen = np.asarray(rows).reshape(-1)
    if chosen.size and chosen.dtype.kind not in "iu":
        way = ": of a mask, take np.flatnonzero(mask)" if chosen.dtype.kind == "b" else ""
        raise ArgumentError(
            f"Batch.take: rows have dtype {chosen.dtype}; expected whole numbers of samples{way}"
        )
    wrong = chosen[(chosen < -size) | (chosen >= size)]
    if wrong.size:
        raise SampleIndexError(
            f"Batch.take: there is no sample {wrong[0]}; expected numbers from {-size} to {size - 1}, of {size} samples"
            if size
            else f"Batch.take: there is no sample {wrong[0]}; the batch is empty"
        )
    chosen = chosen.astype(np.intp, copy=False)
    return np.where(chosen < 0, chosen + size, chosen)


def _as_indices(indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(
            f"Batch: indices must be one whole number a sample, but have shape {array.shape} and dtype "
            f"{array.dtype}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)
