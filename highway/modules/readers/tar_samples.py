"""TarSamples: the samples in tar files, members with a common name, and their fields."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway._core.records.checksum import crc32c
from highway._core.tar import members
from highway.engine.spec import Spec, array_spec
from highway.errors import (
    ArgumentError,
    DatasetError,
    DecodeError,
    EmptyDatasetError,
    HighwayError,
    ObjectChangedError,
    ReadError,
    StorageError,
    TarError,
)
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.masks import Masks
from highway.modules.readers.sample_fields import SampleField
from highway.modules.readers.samples import SampleReader, Samples
from highway.storage.files import LARGEST_FILE, check_same, unreadable
from highway.storage.objects import Object
from highway.storage.ranges import Ranges
from highway.storage.tar_index import TarIndex
from highway.storage.unpacked_tars import UnpackedTar, is_gzipped

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.fetching import Fetcher
    from highway.storage.object_store import ObjectStore

__all__ = ["TarSamples"]

_SHOWN = 3

# Samples that are tried to find the types of the fields.
_TRIED = 100

# Labels that are read at a time, and how often at once from a store.
_LABELS = 64
_REQUESTS = 16


class TarSamples(Samples):
    """The samples of tar files: adjacent members with the same name up to the first dot.

    Parameters
    ----------
    indexes : sequence of TarIndex
    store, objects : ObjectStore, sequence of Object, optional
        Where the tars are, if they are not local files.
    unpacked : mapping of str to UnpackedTar, optional
        Where the contents of gzip'ed tars are, by the paths of their indexes.
    image : sequence of bytes
        Endings of pictures; of several in a sample the first counts.
    label, boxes : SampleField or None
    fields : sequence of SampleField
    masks : bytes or None
        Ending of the masks.
    mask_fill, max_pixels, owner, oriented
        See `Masks`.
    upright : bool
        Whether boxes and masks belong to the upright pictures, rather than to the pictures as they are stored.
    min_visible, placement
        See `Samples`.

    Raises
    ------
    EmptyDatasetError
        No member is a picture.
    TarError
        A sample has two members of one ending, is split, or comes twice in a tar.
    DecodeError, ReadError
        None of the first samples has valid fields.
    ArgumentError
        Labels are names, and no classes are given.

    Attributes
    ----------
    shards : int64 (T,)
        Number of samples in each tar.
    nbytes : list of int
        Bytes of each tar.
    groups : int64 (T,)
        Number of samples in each tar, with or without a picture.
    without_picture : int
        Samples without a member that is a picture; they are not read.
    """

    noun = "sample"
    _fetcher: Fetcher | None = None

    def __init__(
        self,
        indexes: Sequence[TarIndex],
        image: Sequence[bytes],
        *,
        store: ObjectStore | None = None,
        objects: Sequence[Object] = (),
        unpacked: Mapping[str, UnpackedTar] | None = None,
        label: SampleField | None,
        boxes: SampleField | None,
        fields: Sequence[SampleField],
        masks: bytes | None,
        mask_fill: int,
        max_pixels: int,
        owner: str,
        oriented: bool,
        upright: bool,
        min_visible: float,
        placement: bool,
    ) -> None:
        self._owner = owner
        self._names = [index.path for index in indexes]
        self.nbytes = [index.size for index in indexes]
        self._files = [_TarFile.of(index, (unpacked or {}).get(index.path)) for index in indexes]
        self._offsets = np.array([file.start for file in self._files], np.int64)
        self.where = f"in {indexes[0].path!r}" + (f" and {len(indexes) - 1} more" * (len(indexes) > 1))
        self.label, self.boxes, self.fields = label, boxes, fields
        self.min_visible, self.placement = min_visible, placement
        self.boxed, self.masked = boxes is not None, masks is not None
        self._upright = upright
        self._mask_options = mask_fill, max_pixels, owner, oriented
        self._starts = np.concatenate([index.starts for index in indexes])
        self._sizes = np.concatenate([index.sizes for index in indexes])
        self._checks = np.concatenate([index.checks for index in indexes])
        self._text = np.concatenate([index.text for index in indexes])
        letters = np.cumsum([0, *(len(index.text) for index in indexes)])
        self._ends = np.concatenate(
            [index.ends + before for index, before in zip(indexes, letters[:-1].tolist(), strict=True)]
        )
        self._firsts = np.cumsum([0, *(len(index) for index in indexes)])
        small = [field for field in (label, boxes, *fields) if field is not None]
        endings = [*image, *dict.fromkeys(field.ending for field in small)]
        if masks is not None and masks not in endings:
            endings.append(masks)
        self._group(endings, len(image))
        self.size = len(self._pictures)
        self._small = [(field, self._member_of[endings.index(field.ending)]) for field in small]
        self._masks_of = None if masks is None else self._member_of[endings.index(masks)]
        self._mask_ending = masks
        self._requested: _Requested | None = None
        if store is not None:
            self.ranges = self._all_ranges(store, objects)
            self._requested = _Requested(store, objects, self._checked)
        self._learn(self._requested or self.opened())

    # Grouping

    def _group(self, endings: Sequence[bytes], pictures: int) -> None:
        """Set the picture of each sample, its other members, and its key."""
        if len(set(endings)) < len(endings):
            raise ArgumentError(f"{self._owner}: image and another field have the same ending")
        samples, codes, keys, hashes = members.group(self._text, self._ends, self._firsts[:-1], list(endings))
        count = int(samples.max(initial=-1)) + 1
        first = np.zeros(count, np.int64)
        rows = np.flatnonzero(samples >= 0)[::-1]
        first[samples[rows]] = rows
        self._check_apart(samples, codes, endings)
        table = np.full((len(endings), count), -1, np.int64)
        known = np.flatnonzero(codes >= 0)
        table[codes[known], samples[known]] = known
        picture = np.full(count, -1, np.int64)
        for row in table[:pictures][::-1]:
            picture = np.where(row >= 0, row, picture)
        tars = np.searchsorted(self._firsts, first, "right") - 1
        self.groups = np.bincount(tars, minlength=len(self._names)).astype(np.int64)
        self._keys = keys[first]
        self._check_keys(hashes[first], tars, table[pictures:] >= 0, picture >= 0)
        kept = np.flatnonzero(picture >= 0)
        self.without_picture = count - len(kept)
        if not len(kept):
            shown = ", ".join("." + ending.decode() for ending in endings[:pictures])
            raise EmptyDatasetError(
                f"{self._owner}: none of the {len(self._starts)} members {self.where} ends in {shown}; expected a "
                f"picture in every sample (there are {self._shown_names()})"
            )
        self._pictures = picture[kept]
        self._tars = tars[kept].astype(np.int32)
        self._keys = self._keys[kept]
        self._member_of = {code: table[code, kept] for code in range(len(endings))}
        self.shards = np.bincount(self._tars, minlength=len(self._names)).astype(np.int64)

    def _shown_names(self) -> str:
        names = [os.fsdecode(self._name(member)) for member in range(min(_SHOWN, len(self._starts)))]
        return ", ".join(map(repr, names)) + ", ..." * (len(self._starts) > _SHOWN) if names else "none"

    def _check_apart(
        self, samples: NDArray[np.int64], codes: NDArray[np.int16], endings: Sequence[bytes]
    ) -> None:
        """Raise if a sample has two members of one ending."""
        known = np.flatnonzero(codes >= 0)
        # In the order of the samples, members of one ending together.
        both = samples[known] * len(endings) + codes[known]
        order = np.argsort(both, kind="stable")
        twice = np.flatnonzero(both[order][1:] == both[order][:-1])
        if len(twice):
            one, other = (int(known[order[twice[0] + step]]) for step in (0, 1))
            raise TarError(
                f"{self._owner}: {self._place(one)} and {self._place(other)} have the same name and ending, and are "
                "one sample; give every sample its own name up to the first dot"
            )

    def _check_keys(
        self,
        hashes: NDArray[np.uint64],
        tars: NDArray[np.int64],
        has: NDArray[np.bool_],
        pictured: NDArray[np.bool_],
    ) -> None:
        """Raise if a sample comes twice in a tar, or is split over two of them.

        The same name in several tars is allowed, as shards may number their samples from 0.
        """
        whole = has.all(axis=0) & pictured
        order = np.argsort(hashes, kind="stable")
        ones, others = order[:-1], order[1:]
        suspects = (tars[ones] == tars[others]) | ~(whole[ones] | whole[others])
        for at in np.flatnonzero((hashes[ones] == hashes[others]) & suspects).tolist():
            one, other = int(ones[at]), int(others[at])
            if self._key_bytes(one) != self._key_bytes(other):
                continue
            key = os.fsdecode(self._key_bytes(one))
            paths = [self._names[tars[sample]] for sample in (one, other)]
            if tars[one] == tars[other]:
                raise TarError(
                    f"{self._owner}: {paths[0]!r} has members of the sample {key!r} in two places; expected all "
                    "members of a sample one after the other (tar --sort=name writes them so)"
                )
            if not (has[:, one] & has[:, other]).any() and not (pictured[one] and pictured[other]):
                raise TarError(
                    f"{self._owner}: the sample {key!r} is split: {paths[0]!r} has a part of it and {paths[1]!r} the "
                    "other; expected all members of a sample in one tar"
                )

    def _name(self, member: int) -> bytes:
        begin = int(self._ends[member - 1]) if member else 0
        return self._text[begin : int(self._ends[member])].tobytes()

    def member_names(self) -> Iterator[bytes]:
        """Yield the names of all members of all tars."""
        text, begin = self._text.tobytes(), 0
        for end in self._ends.tolist():
            yield text[begin:end]
            begin = end

    def _place(self, member: int) -> str:
        """Name of a member in errors."""
        tar = int(np.searchsorted(self._firsts, member, "right")) - 1
        return f"{os.fsdecode(self._name(member))!r} of {self._names[tar]!r}"

    def _key_bytes(self, sample: int) -> bytes:
        first, end = self._keys[sample].tolist()
        return self._text[first:end].tobytes()

    # Types of the fields

    def _learn(self, tars: _Opened) -> None:
        """Find the types of the fields in the first sample whose fields are valid."""
        if self.boxes is not None:
            self.boxes.dtype, self.boxes.shape = np.dtype(np.float32), (0, 4)
        for field, of_samples in self._small:
            if (of_samples < 0).all():
                way_on = " (label=None reads no labels)" if field is self.label else ""
                raise ArgumentError(
                    f"{self._owner}: no sample {self.where} has a member {field.text.partition(':')[0]!r}; there are "
                    f"{self._shown_names()}{way_on}"
                )
        wanted = [field for field, _ in self._small if field is not self.boxes]
        if not wanted:
            return
        failed: HighwayError | None = None
        for index in range(min(_TRIED, self.size)):
            with tars:
                values, wrong = self.values(tars, np.array([index]))
            if wrong:
                failed = failed or next(iter(wrong.values()))
                continue
            found = values[index]
            if self.boxes is not None and self.label is not None and not np.size(found[self.label.name]):
                # Without boxes there is no label to learn from.
                continue
            for field in wanted:
                try:
                    field.learn(found[field.name])
                except DecodeError as error:
                    raise ArgumentError(
                        f"{self._owner}: {self.describe(index)}{field.text} {error}"
                    ) from None
            break
        else:
            if failed is not None:
                raise failed
            if self.label is not None:
                self.label.dtype, self.label.shape = np.dtype(np.int64), (0,)
        label = self.label
        if label is not None and label.dtype.hasobject:
            raise ArgumentError(
                f"{self._owner}: labels are {found[label.name]!r} in {self.describe(index)}; expected numbers or lists "
                "of them, or names together with classes=[...], or the field as one of fields= instead of label="
            )

    def all_labels(self) -> NDArray[Any] | None:
        """Read the labels of all samples, or of all boxes; None if there are none.

        Raises
        ------
        DecodeError, ReadError, StorageError
            A label cannot be read.
        """
        label = self.label
        if label is None:
            return None
        only = copy.copy(self)
        only._small = [pair for pair in self._small if pair[0] is label]

        def some(first: int) -> list[NDArray[Any]]:
            indices = np.arange(first, min(first + _LABELS, self.size))
            with self._requested or self.opened() as tars:
                values, wrong = only.values(tars, indices)
            if wrong:
                raise next(iter(wrong.values()))
            try:
                found = [values[index][label.name] for index in indices.tolist()]
                if self.boxed:
                    return [label.rows(value) for value in found]
                return [label.stacked([label.checked(value) for value in found])]
            except DecodeError as error:
                raise DecodeError(f"{self._owner}: labels {label.text!r} {self.where}: {error}") from None

        # A store answers many requests at a time.
        with ThreadPoolExecutor(1 if self._requested is None else _REQUESTS, "highway-labels") as pool:
            parts = [one for part in pool.map(some, range(0, self.size, _LABELS)) for one in part]
        nothing = np.zeros((0, *(label.shape[1:] if self.boxed else label.shape)), label.dtype)
        return np.concatenate([nothing, *parts])

    # Samples

    def known_keys(self) -> Iterator[str]:
        return (self.name(index) for index in range(self.size))

    def spec(self) -> Spec:
        spec = {}
        if self.label is not None:
            spec["labels"] = self.label.spec(ragged=self.boxed)
        if self.boxed:
            spec["boxes"] = array_spec(np.float32, 4, ragged=True)
        return spec

    def columns_spec(self) -> Spec:
        return {field.name: field.spec() for field in self.fields}

    def describe(self, index: int) -> str:
        tar = self._names[self._tars[index]]
        return f"{os.fsdecode(self._name(int(self._pictures[index])))!r} of {tar!r}"

    def name(self, index: int) -> str:
        return os.fsdecode(self._key_bytes(index))

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """Keys of samples."""
        text = self._text.data
        return [os.fsdecode(text[first:end].tobytes()) for first, end in self._keys[indices].tolist()]

    def begin(self) -> SampleReader:
        return _TarPart(self, self._mask_options, self._upright)

    def identity(self) -> Iterator[bytes]:
        """Parts that identify the data, for `digest`."""
        for path in self._names:
            # A gzip'ed tar has the samples of the plain one.
            name = os.path.basename(path)
            stem = name[:-7] if name.lower().endswith(".tar.gz") else name[:-4]
            yield os.fsencode(f"{stem}.tar" if is_gzipped(name) else name)
        yield self._text.tobytes()
        yield self._sizes.astype("<i8", copy=False).tobytes()
        yield self._pictures.astype("<i8", copy=False).tobytes()

    def places(self, indices: NDArray[np.int64]) -> tuple[list[bytes], NDArray[np.int64], NDArray[np.int64]]:
        """Return path, first byte and size of the picture of each sample."""
        pictures = self._pictures[indices]
        tars = self._tars[indices]
        paths = [self._files[tar].path for tar in tars.tolist()]
        return paths, self._starts[pictures] + self._offsets[tars], self._sizes[pictures]

    def sizes(self, indices: NDArray[np.int64], owner: str) -> NDArray[np.int64]:
        return self._sizes[self._pictures[indices]]

    def starts(self, indices: NDArray[np.int64], nbytes: int) -> list[bytes | None]:
        found: list[bytes | None] = []
        pictures = self._pictures[indices]
        with self.opened() as tars:
            for tar, start, size in zip(
                self._tars[indices].tolist(),
                self._starts[pictures].tolist(),
                self._sizes[pictures].tolist(),
                strict=True,
            ):
                try:
                    found.append(tars.read(tar, start, min(size, nbytes)))
                except HighwayError:
                    found.append(None)
        return found

    def chunks(self, nbytes: int) -> NDArray[np.int64]:
        """Number of samples in each run of adjacent samples of a tar with up to so many bytes, int64 (C,)."""
        starts = self._starts[self._pictures]
        cuts = [0]
        while cuts[-1] < self.size:
            at = cuts[-1]
            end = int(np.searchsorted(self._tars, self._tars[at], "right"))
            far = at + int(np.searchsorted(starts[at:end], starts[at] + nbytes, "left"))
            cuts.append(max(at + 1, far))
        sizes: NDArray[np.int64] = np.diff(np.array(cuts))
        return sizes

    # Ranges of a store: the pictures of all samples, then the members of each other kind, empty where there is none.
    # Each begins with the header of its member, which tells whether the index is that of the tar.

    def _kinds(self) -> list[NDArray[np.int64]]:
        """Members of all samples, by kind; a kind that several fields share comes once."""
        kinds = {id(of_samples): of_samples for _, of_samples in self._small}
        if self._masks_of is not None:
            kinds[id(self._masks_of)] = self._masks_of
        return [self._pictures, *kinds.values()]

    def _all_ranges(self, store: ObjectStore, objects: Sequence[Object]) -> Ranges:
        kinds = self._kinds()
        rows = np.concatenate(kinds)
        start = self._starts[rows] - members.HEADER
        stop = np.where(rows >= 0, self._starts[rows] + self._sizes[rows], start)
        return Ranges(store, objects, np.tile(self._tars, len(kinds)), start, stop)

    def needed(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._needed(indices)[0]

    def _needed(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the ranges that samples need, and the member in each."""
        kinds = self._kinds()
        numbers = np.concatenate([indices + kind * self.size for kind in range(len(kinds))])
        rows = np.concatenate([members_of[indices] for members_of in kinds])
        return numbers[rows >= 0], rows[rows >= 0]

    def fetching(self, fetcher: Fetcher) -> TarSamples:
        run = copy.copy(self)
        run._fetcher = fetcher
        return run

    def taken(
        self, indices: NDArray[np.int64], turn: int, into: _Fetched
    ) -> tuple[list[bytes | memoryview | None], dict[int, HighwayError]]:
        """Take all members of samples from the fetcher; returns their pictures, and the errors of these by row.

        Raises
        ------
        ObjectChangedError
            The index is that of another tar.
        """
        assert self._fetcher is not None and self.ranges is not None
        numbers, rows = self._needed(indices)
        taken, errors = self._fetcher.take(turn, numbers)
        contents = [
            None if one is None else self._after_header(member, memoryview(one))
            for member, one in zip(rows.tolist(), taken, strict=True)
        ]
        tars, starts = self.ranges.which[numbers].tolist(), self._starts[rows].tolist()
        for row, (tar, start) in enumerate(zip(tars, starts, strict=True)):
            into.put(tar, start, errors.get(row) or contents[row])
        return list(contents[: len(indices)]), {
            row: error for row, error in errors.items() if row < len(indices)
        }

    def _checked(self, tar: int, start: int, found: memoryview) -> memoryview:
        """As `_after_header`, of the member whose contents begin at `start`."""
        first, end = self._firsts[tar : tar + 2].tolist()
        starts = self._starts[first:end]
        # They ascend, unless somebody made an index of their own.
        place = int(np.searchsorted(starts, start))
        if place == len(starts) or starts[place] != start:
            place = int(np.argmax(starts == start))
        return self._after_header(first + place, found)

    def _after_header(self, member: int, found: memoryview) -> memoryview:
        """Return the contents of a member; raises ObjectChangedError if its header is another one."""
        if crc32c(found[: members.HEADER], 0) != self._checks[member]:
            tar = self._names[int(np.searchsorted(self._firsts, member, "right")) - 1]
            raise ObjectChangedError(
                f"{self._owner}: the index of {tar} is that of another tar: {os.fsdecode(self._name(member))!r} is not "
                f"at byte {self._starts[member]}; make {tar}.index again or delete it, and delete what index_dir keeps"
            )
        return found[members.HEADER :]

    def values(
        self, tars: _Opened, indices: NDArray[np.int64], away: bool = False
    ) -> tuple[dict[int, dict[str, Any]], dict[int, HighwayError]]:
        """Read the small members of samples; none if the storage is `away`, and none after it has failed.

        Returns
        -------
        values : dict of int to dict of str to object
            By index and name of the field.
        wrong : dict of int to HighwayError
            Errors, by row of `indices`.
        """
        found: dict[int, dict[str, Any]] = {}
        wrong: dict[int, HighwayError] = {}
        for row, index in enumerate(indices.tolist()):
            if away and self._small:
                # Every attempt on a dead server may take a minute to fail.
                text = self._small[0][0].text
                wrong[row] = self.wrong(index, text, StorageError("was not tried after another one failed"))
                continue
            tar = int(self._tars[index])
            read: dict[int, bytes] = {}
            values: dict[str, Any] = {}
            field = self._small[0][0] if self._small else None
            try:
                for field, of_samples in self._small:
                    member = int(of_samples[index])
                    if member < 0:
                        raise ReadError("is not there")
                    if member not in read:
                        read[member] = tars.read(tar, int(self._starts[member]), int(self._sizes[member]))
                    values[field.name] = field.value(read[member])
            except (ReadError, StorageError, DecodeError) as error:
                assert field is not None
                wrong[row] = self.wrong(index, field.text, error)
                away = isinstance(error, StorageError)
                continue
            found[index] = values
        return found, wrong

    def wrong(self, index: int, what: str, error: HighwayError) -> HighwayError:
        """Return the error of a member of a sample: its ending and what is wrong with it."""
        tar = self._names[self._tars[index]]
        return type(error)(f"{self._owner}: {self.name(index) + what!r} of {tar!r} {error}")

    def opened(self) -> _OpenTars:
        """Return the tars, to read the small members of some samples."""
        return _OpenTars(self._owner, self._files)

    def check_same(self, indices: NDArray[np.int64], checked: Container[int]) -> None:
        """Raise DatasetError if a tar of some samples, none of those `checked`, is not the one that was indexed."""
        for tar in np.unique(self._tars[indices]).tolist():
            file = self._files[tar]
            if file.unpacked is not None or tar in checked:
                continue
            try:
                found = os.stat(file.path)
            except OSError:
                # Nor could the pictures be read.
                continue
            check_same(self._owner, file.index.path, file.index.size, file.index.changed, found)

    def mask(self, tars: _Opened, index: int) -> bytes:
        """Contents of the mask of a sample; raises ReadError and StorageError, whose text continues its name."""
        assert self._masks_of is not None
        member = int(self._masks_of[index])
        if member < 0:
            raise ReadError("is not there")
        try:
            return tars.read(int(self._tars[index]), int(self._starts[member]), int(self._sizes[member]))
        except DecodeError as error:
            raise ReadError(str(error)) from None

    def describe_mask(self, index: int) -> str:
        """Name of the mask of a sample in errors."""
        assert self._mask_ending is not None
        tar = self._names[self._tars[index]]
        return f"{self.name(index) + '.' + self._mask_ending.decode()!r} of {tar!r}"


class _Opened(Protocol):
    """Tars that are read; a context manager."""

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    def read(self, tar: int, start: int, size: int) -> bytes:
        """Return a range of a tar; raises ReadError, StorageError or DecodeError, whose text continues its name."""


def _check_size(size: int) -> None:
    if size > LARGEST_FILE:
        raise DecodeError(f"has {size} bytes; allowed are {LARGEST_FILE}")


class _Requested(_Opened):
    """Tars in a store, which are asked for one range at a time: for the time before the pipeline starts."""

    def __init__(
        self,
        store: ObjectStore,
        objects: Sequence[Object],
        checked: Callable[[int, int, memoryview], memoryview],
    ) -> None:
        self._store, self._objects, self._checked = store, objects, checked

    def read(self, tar: int, start: int, size: int) -> bytes:
        _check_size(size)
        found = self._store.read(self._objects[tar], start - members.HEADER, start + size)
        return bytes(self._checked(tar, start, memoryview(found)))


class _Fetched(_Opened):
    """Ranges that a fetcher fetched for a batch."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], Buffer | HighwayError | None] = {}

    def put(self, tar: int, start: int, found: Buffer | HighwayError | None) -> None:
        """Keep the range that begins at `start`, or its error."""
        self._found[tar, start] = found

    def read(self, tar: int, start: int, size: int) -> bytes:
        found = self._found[tar, start]
        if isinstance(found, HighwayError):
            raise found
        assert found is not None
        return bytes(found)


@dataclass(frozen=True)
class _TarFile:
    """A local file with the contents of a tar.

    Attributes
    ----------
    path : bytes
    start : int
        First byte of the contents.
    index : TarIndex
    unpacked : UnpackedTar or None
        What owns the file, if the tar is gzip'ed; nobody else can change it then.
    """

    path: bytes
    start: int
    index: TarIndex
    unpacked: UnpackedTar | None

    @classmethod
    def of(cls, index: TarIndex, unpacked: UnpackedTar | None) -> _TarFile:
        if unpacked is None:
            return cls(os.fsencode(index.path), 0, index, None)
        return cls(unpacked.path, unpacked.start, index, unpacked)


class _OpenTars(_Opened):
    """The tars of a batch, opened when they are needed."""

    def __init__(self, owner: str, files: Sequence[_TarFile]) -> None:
        self._owner, self._files = owner, files
        self._open: dict[int, int] = {}

    def __enter__(self) -> _OpenTars:
        return self

    def __exit__(self, *raised: object) -> None:
        for file in self._open.values():
            os.close(file)
        self._open.clear()

    @property
    def checked(self) -> Container[int]:
        """Tars that were opened, and were those that were indexed then."""
        return self._open.keys()

    def read(self, tar: int, start: int, size: int) -> bytes:
        _check_size(size)
        try:
            file = self._file(tar)
            start += self._files[tar].start
            contents = os.pread(file, size, start)
            while len(contents) < size:
                more = os.pread(file, size - len(contents), start + len(contents))
                if not more:
                    raise DecodeError(
                        f"is cut off: its tar ends after {start + len(contents)} bytes, expected {size} bytes from "
                        f"{start} on"
                    )
                contents += more
            return contents
        except DatasetError:
            raise
        except OSError as error:
            raise unreadable(error) from None

    def _file(self, tar: int) -> int:
        if tar not in self._open:
            opened = self._files[tar]
            file = os.open(opened.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if opened.unpacked is None:
                    index = opened.index
                    check_same(self._owner, index.path, index.size, index.changed, os.fstat(file))
            except BaseException:
                os.close(file)
                raise
            self._open[tar] = file
        return self._open[tar]


class _TarPart(SampleReader):
    """The samples of a batch."""

    def __init__(self, samples: TarSamples, mask_options: tuple[int, int, str, bool], upright: bool) -> None:
        self._samples = samples
        self._upright = upright
        self._values: dict[int, Mapping[str, Any]] = {}
        self._fetched = _Fetched()
        self._masks = _TarMasks(samples, self._fetched, mask_options, upright) if samples.masked else None

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        samples = self._samples
        if samples.ranges is None:
            heads = decoder.read_ranges(*samples.places(indices), oriented, turn)
            # After the headers of the pictures: these and the fields are of the tars that were indexed.
            with samples.opened() as tars:
                values, wrong = samples.values(tars, indices, bool((heads[:, 0] == jpeg.STORAGE).any()))
                samples.check_same(indices, tars.checked)
        else:
            pictures, wrong = samples.taken(indices, turn, self._fetched)
            heads = decoder.read_contents(pictures, oriented, turn)
            values, others = samples.values(self._fetched, indices)
            wrong = {**others, **wrong}
        for row, index in enumerate(indices.tolist()):
            if row not in wrong:
                try:
                    self._values[index] = self._checked(index, values[index])
                except DecodeError as error:
                    wrong[row] = error
        for row in wrong:
            heads[row, 0] = jpeg.BAD_FILE
        return heads, wrong

    def _checked(self, index: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a sample as arrays of the types of the fields."""
        samples = self._samples
        found: dict[str, Any] = {}
        for field, _ in samples._small:
            try:
                value = values[field.name]
                ragged = samples.boxed and field.name in ("boxes", "labels")
                found[field.name] = field.rows(value) if ragged else field.checked(value)
            except DecodeError as error:
                wrong = samples.wrong(index, field.text, error)
                assert isinstance(wrong, DecodeError)
                raise wrong from None
        if samples.boxes is not None:
            self._check_boxes(index, found)
        return found

    def _check_boxes(self, index: int, found: Mapping[str, NDArray[Any]]) -> None:
        samples = self._samples
        assert samples.boxes is not None
        boxes = found[samples.boxes.name]
        text = ""
        if not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
            text = f"is {boxes.tolist()!r}; expected finite numbers x0, y0, x1, y1 with the smaller first"
        elif samples.label is not None and len(found[samples.label.name]) != len(boxes):
            text = f"has {len(boxes)} boxes, and there are {len(found[samples.label.name])} labels; expected as many"
        if text:
            wrong = samples.wrong(index, samples.boxes.text, DecodeError(text))
            assert isinstance(wrong, DecodeError)
            raise wrong

    def keys(self, indices: NDArray[np.int64]) -> list[str]:
        return self._samples.names(indices)

    def labels(self, indices: NDArray[np.int64]) -> NDArray[Any] | None:
        label = self._samples.label
        if label is None or self._samples.boxed:
            return None
        return self._stacked(label, indices)

    def columns(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {field.name: self._stacked(field, indices) for field in self._samples.fields}

    def _stacked(self, field: SampleField, indices: NDArray[np.int64]) -> NDArray[Any]:
        return field.stacked([self._values[index][field.name] for index in indices.tolist()])

    def objects(self, indices: NDArray[np.int64]) -> BoxTable | None:
        boxes, label = self._samples.boxes, self._samples.label
        if boxes is None:
            return None
        # Bad samples have no boxes.
        nothing: dict[str, NDArray[Any]] = {boxes.name: np.zeros((0, 4), np.float32)}
        if label is not None:
            nothing[label.name] = np.zeros((0, *label.shape[1:]), label.dtype)
        found = [self._values.get(index, nothing) for index in indices.tolist()]
        counts = np.array([len(each[boxes.name]) for each in found], np.int64)
        flat = np.concatenate([nothing[boxes.name], *(each[boxes.name] for each in found)])
        labels = None
        if label is not None:
            labels = np.concatenate([nothing[label.name], *(each[label.name] for each in found)])
        return BoxTable(counts, flat, labels, upright=self._upright)

    @property
    def masks(self) -> Masks | None:
        return self._masks


class _TarMasks(Masks):
    """Masks that are members of tars."""

    def __init__(
        self, samples: TarSamples, fetched: _Fetched, options: tuple[int, int, str, bool], upright: bool
    ) -> None:
        super().__init__(*options, of_upright=upright)
        self._samples, self._fetched = samples, fetched

    def contents(self, index: int) -> bytes:
        with self._fetched if self._samples.ranges is not None else self._samples.opened() as tars:
            return self._samples.mask(tars, index)

    def describe(self, index: int) -> str:
        return self._samples.describe_mask(index)
