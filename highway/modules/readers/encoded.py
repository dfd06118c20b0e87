"""Encoded: reads the samples of a reader as encoded files, mostly JPEG, instead of arrays; for a store."""

from __future__ import annotations

import io
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.arguments.limits import MOST_JPEG_SIDE, side_and_quality
from highway.batch import Batch
from highway.engine.spec import Spec, array_spec
from highway.errors import ArgumentError, HighwayError, ReadError, StorageError
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.image_reader import DecodedBatch, ImageReader
from highway.modules.readers.masks import Masks
from highway.modules.readers.options import SourceOptions
from highway.modules.readers.picture_mapping import PictureMapping
from highway.modules.readers.pictures.other_picture import pillow
from highway.modules.readers.samples import Files, SampleReader, Samples
from highway.sampling.identity import numbers_of
from highway.sampling.plan import Plan
from highway.sampling.rng import SampleRandom
from highway.sampling.sampler import Task
from highway.transforms.fit import Fit
from highway.transforms.placement import Placement

if TYPE_CHECKING:
    from highway.storage.fetching import Fetcher

__all__ = ["Encoded"]

_BATCH_BYTES = 4 << 20
_MOST_SAMPLES = 64
# A bad file is found at any size; a small one is fastest.
_LOOKED_AT = 32


class Encoded(ImageReader):
    """Yields the samples of a reader with encoded pictures, which `LevelDBSink` packs for a `LevelDBImageReader`.

    `images` is an object array (N,) of bytes: the original files, or JPEGs made from them. `masks` is an object array
    (N,) of bytes too: PNGs of class numbers. Boxes are in pixels of these pictures, upright. Every picture is decoded
    once, so that bad pictures are found now.

    Parameters
    ----------
    reader : ImageFileReader, VOCReader, ListReader, TarReader or TableReader
        Determines the samples, their order and the policy for bad samples. Its batch size, shape and fit are not used.
    encoding : str
        "original": the bytes of the files, without loss, with the orientation that they state; or "jpeg:SIDE" or
        "jpeg:SIDE:QUALITY": upright JPEGs, shrunk so that neither side is longer than SIDE pixels, 1 to 8192, never
        enlarged, in quality 1 to 100 (default 90). The extra `picture_sizes`, int64 (N, 2), is then height and width of
        the upright pictures before they were shrunk.

    Raises
    ------
    ArgumentError
        The encoding is not one of these, or the reader is of another type, or does not turn pictures upright.
    MissingPackageError
        The reader has masks, and PIL, which encodes them, is not installed.
    """

    keeps_shown = True

    def __init__(self, reader: ImageReader, encoding: str) -> None:
        given: object = reader
        if not isinstance(given, ImageReader) or not reader.samples.in_files:
            raise ArgumentError(
                f"Encoded: reader is {reader!r}; expected a reader of picture files, such as an ImageFileReader or a "
                "TarReader"
            )
        files = reader.samples
        if files.pairs:
            raise ArgumentError(
                f"Encoded: reader is {reader!r} with the further pictures {', '.join(files.pairs)}; expected one "
                "picture for each sample"
            )
        if not reader.exif:
            raise ArgumentError(f"Encoded: reader is {reader!r} with exif=False; expected one with exif=True")
        self._reader = reader
        size = size_and_quality(encoding)
        if size and reader.dtype != "uint8":
            raise ArgumentError(
                'Encoded: reader has dtype="uint16", and JPEG has 8 bits; expected the encoding "original"'
            )
        # Originals are not encoded.
        side, self._quality = size or (_LOOKED_AT, 0)
        samples: Samples = files
        nbytes = 3 * side * side
        if size is None:
            samples = originals = _Originals(files, self.name)
            nbytes = originals.nbytes
        self.encoding = encoding if size is None else f"jpeg:{side}:{self._quality}"
        if files.masked:
            pillow(self.name)
        order = reader.order
        super().__init__(
            samples,
            min(max(_BATCH_BYTES // nbytes, 1), _MOST_SAMPLES),
            (side, side),
            fit=_Whole(interpolation="lanczos"),
            shuffle=order.shuffle,
            seed=order.seed,
            epochs=order.epochs,
            shard=(order.rank, order.world),
            drop_last=False,
            color=reader.color,
            exif=True,
            on_error=reader.on_error,
            max_errors=reader.max_errors,
            exact=reader.exact,
            max_pixels=reader.max_pixels,
            workers=reader.workers,
            queue_size=2,
            storage_options=reader.storage_options,
            prefetch_bytes=reader.prefetch_bytes,
            cache=reader.cache,
            cache_bytes=reader.cache_bytes,
        )
        self.image_shape, self.image_shapes = None, ()
        # The placement in stored pictures is computed when they are read.
        self.placed = False
        self.annotated = reader.annotated
        self.classes = getattr(reader, "classes", None)

    def __repr__(self) -> str:
        return f"Encoded({self._reader!r}, {self.encoding!r})"

    def _plan(self, size: int, options: SourceOptions) -> Plan:
        plan = self._reader.order.plan
        return super()._plan(size, options) if plan is None else plan

    def contents(self) -> Iterable[bytes | Iterable[bytes]]:
        return b"Encoded", *self._reader.contents()

    def making(self) -> Sequence[object]:
        return self.encoding, *super().making()

    def out_spec(self, before: Spec | None) -> Spec:
        spec = {"images": array_spec(object), **self.samples.spec()}
        if self.samples.masked:
            spec["masks"] = array_spec(object)
        return {**spec, **self.samples.columns_spec()}

    def _windows(self) -> tuple[NDArray[np.int64], int] | None:
        # None where the reader has no windows either, as where it draws by weights.
        return None if self._reader.order.window is None else self._reader._windows()

    def fuse(self, steps: Sequence[Any], seed: int) -> int:
        """Fuse nothing: transforms do not work on encoded pictures."""
        return 0

    def _batch(self, task: Task, part: SampleReader, indices: NDArray[np.int64], made: DecodedBatch) -> Batch:
        assert made.mapping is not None
        targets = made.mapping.placement.targets[:, 2:].tolist()
        if isinstance(part, _OriginalFiles):
            numbers = numbers_of(indices).tolist()
            files = [part.contents[number] for number in numbers]
            masks = [part.pngs[number] for number in numbers] if part.masks is not None else None
            # Boxes keep their coordinates in the upright picture.
            placement = made.mapping.placement
            placement = placement._replace(targets=placement.windows.astype(np.int32))
            made.note(made.mapping._replace(placement=placement), None)
        else:
            files = [
                jpeg.encode(image[:height, :width], self._quality)
                for image, (width, height) in zip(made.images["images"], targets, strict=True)
            ]
            masks = None
            if made.masks is not None:
                masks = [
                    _png(mask[:height, :width])
                    for mask, (width, height) in zip(made.masks, targets, strict=True)
                ]
        made.masks = None
        batch = super()._batch(task, part, indices, made)
        batch = batch.replace(images=_array(files))
        if not isinstance(part, _OriginalFiles):
            # The store has no other record of the original size.
            batch.extras["picture_sizes"] = made.mapping.sizes.copy()
        return batch if masks is None else batch.replace(masks=_array(masks))


def size_and_quality(encoding: object) -> tuple[int, int] | None:
    """Longest side and quality; None for original files."""
    if encoding == "original":
        return None
    found = side_and_quality(encoding) if isinstance(encoding, str) else None
    if found is None:
        raise ArgumentError(
            f"Encoded: encoding is {encoding!r}; expected 'original', 'jpeg:SIDE' or 'jpeg:SIDE:QUALITY', with a side "
            f"of 1 to {MOST_JPEG_SIDE} pixels and a quality of 1 to 100"
        )
    return found


class _Whole(Fit):
    """Puts the whole picture into the upper left corner, shrunk if it is larger than the image."""

    def place(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        sides = np.stack([widths, heights], axis=1)
        scales = np.minimum(1.0, max(size) / sides.max(axis=1, keepdims=True))
        nothing = np.zeros_like(sides)
        ends = np.maximum(np.rint(sides * scales), 1)
        return Placement(
            np.concatenate([nothing, sides], axis=1).astype(np.float64),
            np.concatenate([nothing, ends], axis=1).astype(np.int32),
        )


class _Originals(Samples):
    """The samples of a reader, whose pictures are read as whole files."""

    in_files = False

    def __init__(self, files: Samples, owner: str) -> None:
        self._files, self._owner = files, owner
        self.size, self.noun, self.where = files.size, files.noun, files.where
        self.boxed, self.masked, self.min_visible = files.boxed, files.masked, files.min_visible
        self.placement = False
        self.ranges = files.ranges

    def needed(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._files.needed(indices)

    def fetching(self, fetcher: Fetcher) -> _Originals:
        return _Originals(self._files.fetching(fetcher), self._owner)

    def for_run(self) -> _Originals:
        return _Originals(self._files.for_run(), self._owner)

    def announced(self, tasks: Iterator[Task]) -> Iterator[Task]:
        return self._files.announced(tasks)

    def begin_task(self, task: Task) -> None:
        self._files.begin_task(task)

    def finish_task(self, task: Task) -> None:
        self._files.finish_task(task)

    def open(self) -> None:
        self._files.open()

    def close(self) -> None:
        self._files.close()

    def interrupt(self) -> None:
        self._files.interrupt()

    def fetched(self) -> dict[str, int] | None:
        return self._files.fetched()

    @property
    def nbytes(self) -> int:
        """Mean size of a file, estimated from some of them."""
        some = range(0, self.size, max(1, self.size // _MOST_SAMPLES))
        # Errors are raised when the files are read.
        sizes = self._files.sizes(np.array(some, np.int64), self._owner)
        return max(1, int(sizes.sum()) // len(sizes))

    def spec(self) -> Spec:
        return self._files.spec()

    def columns_spec(self) -> Spec:
        return self._files.columns_spec()

    def begin(self) -> SampleReader:
        return _OriginalFiles(self._files.begin(), self._owner, self._files.describe)

    def describe(self, index: int) -> str:
        return self._files.describe(index)

    def name(self, index: int) -> str:
        return self._files.name(index)


class _OriginalFiles(SampleReader):
    def __init__(self, files: SampleReader, owner: str, describe: Callable[[int], str]) -> None:
        self._files, self._owner, self._describe = files, owner, describe
        self.contents: dict[int, bytes] = {}
        self.pngs: dict[int, bytes] = {}
        masks = files.masks
        self._masks = None if masks is None else _MasksToPNG(masks, self.pngs)

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        found: Sequence[bytes | memoryview | None]
        if isinstance(self._files, Files):
            # Each file is read once: what is kept is what is decoded.
            found, wrong = self._files.contents(indices, turn, self._owner)
            heads = decoder.read_contents(list(found), oriented, turn)
        else:
            heads, wrong = self._files.read(decoder, indices, oriented, turn)
            found = [None if row in wrong else decoder.contents(row) for row in range(len(indices))]
            for row, contents in enumerate(found):
                if contents is None and heads[row, 0] == jpeg.OK:
                    # It could be read a moment ago.
                    away = decoder.status(row) in (jpeg.STORAGE, jpeg.UNTRIED)
                    text = f"{self._owner}: {self._describe(int(indices[row]))} {decoder.message(row)}"
                    wrong[row] = StorageError(text) if away else ReadError(text)
                    heads[row, 0] = jpeg.BAD_FILE
        for index, contents in zip(indices.tolist(), found, strict=True):
            if contents is not None:
                self.contents[index] = bytes(contents)
        return heads, wrong

    def keys(self, indices: NDArray[np.int64]) -> list[str]:
        return self._files.keys(indices)

    def labels(self, indices: NDArray[np.int64]) -> NDArray[Any] | None:
        return self._files.labels(indices)

    def objects(self, indices: NDArray[np.int64]) -> BoxTable | None:
        return self._files.objects(indices)

    def columns(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return self._files.columns(indices)

    def lists(self, indices: NDArray[np.int64]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]] | None:
        return self._files.lists(indices)

    @property
    def masks(self) -> Masks | None:
        return self._masks


class _MasksToPNG(Masks):
    """Encodes masks as PNGs with the size of their upright pictures, and stores them by index in `pngs`."""

    def __init__(self, masks: Masks, pngs: dict[int, bytes]) -> None:
        self._of, self._pngs = masks, pngs

    def whole(self, index: int, size: tuple[int, int], orientation: int) -> NDArray[np.uint8]:
        return self._of.whole(index, size, orientation)

    def show(
        self,
        indices: NDArray[np.int64],
        mapping: PictureMapping,
        orientations: NDArray[np.int64],
        out: NDArray[np.uint8],
        slots: NDArray[np.int64],
        skipped: Container[int],
    ) -> dict[int, HighwayError]:
        failures: dict[int, HighwayError] = {}
        for _, index, mask in self._wholes(indices, mapping, orientations, skipped, failures):
            self._pngs[index] = _png(mask)
            # Free it before the next one is decoded.
            del mask
        return failures


def _png(mask: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    pillow("Encoded").fromarray(np.ascontiguousarray(mask)).save(file, "PNG")
    return file.getvalue()


def _array(files: Sequence[bytes]) -> NDArray[Any]:
    found = np.empty(len(files), object)
    found[:] = files
    return found
