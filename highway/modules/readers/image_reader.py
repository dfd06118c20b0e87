"""ImageReader: reads pictures into batches and handles bad files; the base of all readers of pictures."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.arguments import flag, size, whole
from highway.arguments.options import completed, takes
from highway.batch import Batch, empty
from highway.engine.spec import Spec, array_spec
from highway.errors import (
    ArgumentError,
    DecodeError,
    HighwayError,
    MissingPackageError,
    ReadError,
    StorageError,
)
from highway.modules.readers.bad_samples import BadSamples
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.fused_transforms import FusedTransforms
from highway.modules.readers.image_fields import ImageFields
from highway.modules.readers.options import PictureFileOptions, SourceOptions
from highway.modules.readers.ordered import OrderedSource
from highway.modules.readers.picture_mapping import PictureMapping
from highway.modules.readers.picture_sizes import (
    SizeReader,
    bucket_grouping,
    checked_sizes,
    read_sizes,
)
from highway.modules.readers.pictures.missing_parts import named
from highway.modules.readers.pictures.other_picture import OtherPicture
from highway.modules.readers.samples import SampleReader, Samples
from highway.modules.readers.voc.other_sizes import OtherSizes
from highway.sampling.grouped import GroupedSampler
from highway.sampling.identity import numbers_of
from highway.sampling.rng import SampleRandom
from highway.sampling.sampler import Sampler, Task
from highway.sampling.schedules import BatchSize, Schedule, Shape, constant, scheduled
from highway.sampling.windows import WindowedSampler
from highway.storage.access import cache_at
from highway.storage.outages import Outages
from highway.transforms.buckets import Buckets
from highway.transforms.fit import Fit, Resize
from highway.transforms.placement import Placement
from highway.transforms.transform import Transform
from highway.transforms.views import Views

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from highway.modules.readers.read_ahead import ReadAhead

__all__ = ["DecodedBatch", "ImageReader"]

# A larger file of another format is read twice, for its header and its pixels, instead of staying in memory between:
# uncompressed files are as large as their pixels.
_KEPT_BYTES = 1 << 20
# Statuses of files that the decoder leaves to PIL.
_FOR_PIL = (jpeg.NOT_JPEG, jpeg.REFUSED)


class DecodedBatch:
    """The decoded images and masks of a batch that is being made.

    Attributes
    ----------
    images : dict of str to ndarray
        Finished images, by their fields.
    mapping : PictureMapping or None
        How the images show the pictures, if boxes or masks need it.
    masks : uint8 (N, H, W) or None
    pairs : dict of str to DecodedBatch
        Further images of the samples, by their fields.
    """

    def __init__(
        self,
        images: Mapping[str, NDArray[Any]],
        mapping: PictureMapping | None = None,
        masks: NDArray[np.uint8] | None = None,
        pairs: Mapping[str, DecodedBatch] | None = None,
    ) -> None:
        self.images = dict(images)
        self.mapping = mapping
        self.masks = masks
        self.pairs = dict(pairs or {})

    def note(self, mapping: PictureMapping, slots: NDArray[np.int64] | None) -> None:
        """Set how all pictures are shown, or the pictures in `slots`."""
        if slots is None or self.mapping is None:
            self.mapping = mapping
        else:
            self.mapping.put(slots, mapping)

    def masks_for(self, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """The array of the masks, of height and width `shape`; allocated on the first call."""
        if self.masks is None:
            self.masks = empty((len(next(iter(self.images.values()))), *shape))
        return self.masks

    def take(self, rows: NDArray[np.int64]) -> DecodedBatch:
        """Copy some rows."""

        def taken(array: NDArray[Any]) -> NDArray[Any]:
            return np.take(array, rows, axis=0, out=empty((len(rows), *array.shape[1:]), array.dtype))

        return DecodedBatch(
            {name: taken(images) for name, images in self.images.items()},
            None if self.mapping is None else self.mapping.take(rows),
            None if self.masks is None else taken(self.masks),
            {name: pair.take(rows) for name, pair in self.pairs.items()},
        )


class _Heads(NamedTuple):
    """Headers of the pictures of a batch.

    Attributes
    ----------
    table : int64 (N, 3)
        Status, height and width, as `BatchDecoder.read` says.
    good : bool
        Whether the decoder decodes every row.
    rows : int64 (K,)
        The rows that the decoder decodes.
    others : dict of int to OtherPicture or None
        The rows that PIL decodes; None: still to be opened, as the decoder refused the file.
    orientations : int64 (N,)
        EXIF orientation by which each picture is turned upright.
    turns : int64 (N,)
        The same for its boxes.
    boxed : bool
        Whether there are boxes.
    """

    table: NDArray[np.int64]
    good: bool
    rows: NDArray[np.int64]
    others: dict[int, OtherPicture | None]
    orientations: NDArray[np.int64]
    turns: NDArray[np.int64]
    boxed: bool


@takes(PictureFileOptions)
class ImageReader(OrderedSource):
    """Reads pictures with their labels, boxes and masks; base of the readers, which list the samples.

    JPEGs are decoded without the GIL: only the window that the fit chose, at a reduced scale where the window is at
    least four times as large as the image, resampled row by row into the batch. Highway's own decoder decodes
    sequential JPEGs at full scale and gives the same bits as libjpeg-turbo; libjpeg-turbo decodes all other JPEGs and
    checks the damaged ones. Sound PNGs and WebPs are decoded without the GIL too, with the bits of PIL; PIL decodes all
    other formats and checks the damaged files.
    Workers share batches that are large in pictures or in bytes; each small batch is made by one worker. The first
    flips of the Augmentations after the reader, and a `Normalize`, `Rescale` or `ToFloat` after those flips, are fused
    into the reader.

    Parameters
    ----------
    samples : Samples
    batch_size, shape, fit
        See `ImageFileReader`.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size, color, dtype, on_error, max_errors, exact, exif
        See `PictureFileOptions`.
    """

    hands_over = True
    _bad_samples: BadSamples
    keeps_shown: ClassVar[bool] = False
    """Whether `_batch` always needs the mapping from pictures to images."""
    annotated: tuple[object, ...] = ()
    """Arguments, besides the files, that determine the boxes and the further images of a sample."""
    _ahead: ReadAhead | None = None
    _other_sizes: OtherSizes | None = None
    """Counts the pictures whose size is not the one that their boxes were made for; None: they are bad samples."""

    def __init__(
        self,
        samples: Samples,
        batch_size: BatchSize,
        shape: Shape | None,
        *,
        fit: Fit | Views,
        **options: Unpack[PictureFileOptions],
    ) -> None:
        options = completed(PictureFileOptions, options)
        super().__init__(workers=options["workers"], queue_size=options["queue_size"])
        self.shapes, every_shape = self._checked_shapes(shape, fit)
        self.fit = fit
        self._choice("color", options["color"], ("rgb", "gray"))
        self.color = options["color"]
        self._choice("dtype", options["dtype"], ("uint8", "uint16"))
        self.dtype = self.image_dtype = options["dtype"]
        self._type = np.dtype(self.dtype)
        self.on_error = options["on_error"]
        self.exif = flag(self.name, "exif", options["exif"])
        self.exact = flag(self.name, "exact", options["exact"])
        self.max_pixels = whole(self.name, "max_pixels", options["max_pixels"], 1, 2**62)
        self.storage_options = options["storage_options"]
        self.prefetch_bytes = whole(self.name, "prefetch_bytes", options["prefetch_bytes"], 1, 2**62)
        self.cache, self.cache_bytes = options["cache"], options["cache_bytes"]
        self._cache = cache_at(self.name, self.cache, self.cache_bytes)
        self._gray = self.color == "gray"
        channels = 1 if self._gray else 3
        self._by_shape = {one: ImageFields(fit, one, channels, self._type) for one in every_shape}
        self.shape, self._image_fields = next(iter(self._by_shape.items()))
        self.samples = samples
        if self.shape is None:
            self._check_views()
            self.view_fields = self._image_fields.names
        self.placed = samples.placement
        self._min_visible = max(samples.min_visible, self._image_fields.min_visible)
        self.max_errors = options["max_errors"]
        if len(self._by_shape) == 1:
            self.image_shape = None if self.shape is None else (*self.shape, channels)
        else:
            self.image_shapes = tuple((*one, channels) for one in self._by_shape if one is not None)
        self._finish = FusedTransforms(dtype=self._type)
        self._crew = jpeg.Crew()
        self._outages = Outages(self.name)
        self._local = threading.local()
        self._buckets = fit if isinstance(fit, Buckets) else None
        self.sizes = self._sizes_of_pictures(options["sizes"])
        if self._buckets is not None:
            if options["shuffle"] and self._windows() is not None:
                raise self._refused(
                    "fit",
                    fit,
                    "another one for data that are read in windows of shards, or data that are shuffled as a whole: "
                    "tars with window='all', Parquet files with larger window_bytes",
                )
            assert self.sizes is not None
            grouping = bucket_grouping(self.name, self._buckets, self.sizes, batch_size)
            self.order = self._grouped(grouping, options)
        else:
            self.order = self._ordered(samples.size, batch_size, options)
        self._bad_samples = BadSamples(
            self.name, self.order, self.on_error, self.max_errors, samples.noun, samples.where
        )

    def _checked_shapes(
        self, shape: Shape | None, fit: Fit | Views
    ) -> tuple[Schedule[Any], Sequence[tuple[int, int] | None]]:
        """Return the shape of the images in each epoch, and all shapes; with buckets, an epoch has all shapes."""
        if isinstance(fit, Views):
            if shape is not None:
                raise self._refused("shape", shape, "None with Views, which have a size for each field")
            return constant(None), [None]
        if isinstance(fit, Buckets):
            if shape is not None:
                raise self._refused("shape", shape, "None with Buckets, which have the shapes of the images")
            return constant(None), fit.shapes
        if shape is None:
            raise ArgumentError(
                f"{self.name}: shape is missing; expected a whole number or (height, width) in pixels; only Views and "
                "Buckets have sizes of their own"
            )
        shapes = scheduled(shape, lambda one: size(self.name, "shape", one))
        # `Resize` is refused: the height or width of its output may depend on the picture.
        given: object = fit
        if not isinstance(given, Fit) or isinstance(given, Resize):
            raise self._refused(
                "fit",
                fit,
                "CenterFit(), RandomFit(), RandomResizedCrop(), Letterbox(), Stretch(), a Fit of your own, or Views",
            )
        if fit.size is not None and shapes.stages != (fit.size,):
            raise self._refused("fit", fit, f"no size, or that of the images, {shapes.plain}")
        return shapes, list(dict.fromkeys(shapes.stages))

    def _sizes_of_pictures(self, given: Any) -> NDArray[np.int64] | None:
        """Return height and width of each picture, int64 (N, 2), for buckets; else None."""
        if self._buckets is None:
            if given is not None:
                raise ArgumentError(
                    f"{self.name}: sizes is given, and fit is no Buckets; expected both or none"
                )
            return None
        if given is not None:
            return checked_sizes(self.name, given, self.samples.size)
        return read_sizes(self.name, self.samples, self._size_reader)

    def _size_reader(self) -> SizeReader:
        decoder = self._local.decoder = jpeg.BatchDecoder(self._crew, max_pixels=self.max_pixels)
        return SizeReader(self.samples, decoder, self.exif, self._other, self._outages)

    @property
    def bucket_sizes(self) -> dict[tuple[int, int], int]:
        """Number of pictures in each bucket, by its shape, of those that are read; with the fit `Buckets`."""
        order = self.order
        if not isinstance(order, GroupedSampler) or self._buckets is None:
            raise ArgumentError(f"{self.name}: fit is {self.fit!r}, which has no buckets; expected Buckets")
        return dict(zip(self._buckets.shapes, order.group_counts.tolist(), strict=True))

    def _specification(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments, keywords = super()._specification()
        if self.sizes is not None:
            # The headers are not read again.
            keywords["sizes"] = self.sizes
        return arguments, keywords

    def _windows(self) -> tuple[NDArray[np.int64], int] | None:
        """Samples of each shard, int64 (S,), and shards in a window; None if the data are shuffled as a whole."""
        return None

    def _ordered(self, size: int, batch_size: BatchSize, options: SourceOptions) -> Sampler:
        windows = self._windows() if options["shuffle"] and options["weights"] is None else None
        if windows is None:
            return super()._ordered(size, batch_size, options)
        return WindowedSampler(*windows, batch_size, **self._order_options(size, options))

    @property
    def size(self) -> int:
        """Number of pictures in the data."""
        return self.order.data_size

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(key, reason) of every bad sample found so far, once each."""
        return [(self.samples.name(index), str(error)) for index, error in self._bad_by_index().items()]

    @property
    def other_sizes(self) -> OtherSizes | None:
        """Samples whose annotation states another size than the picture has; None if they are not read."""
        return self.latest._other_sizes  # type: ignore[attr-defined,no-any-return]

    def fetched(self) -> dict[str, int] | None:
        """Return figures of the requests of the pipeline that was made last; None if all of its files are local.

        Returns
        -------
        dict of str to int, or None
            "requests", and those among them that were "retried" or "hedged"; "fetched" and "cached": bytes from the
            store and from the cache; "held" and "most_held": bytes in memory or asked for, now and at most; "evicted":
            bytes that were dropped to make room for others that were needed earlier; "waiting": workers that wait.
        """
        run: Any = self.latest
        found: dict[str, int] | None = run.samples.fetched()
        return run._ahead.measures() if found is None and run._ahead is not None else found

    def known_keys(self) -> Iterable[str] | None:
        return self.samples.known_keys()

    def known_labels(self) -> NDArray[Any] | None:
        return self.samples.known_labels()

    def unlabeled(self) -> Sequence[int]:
        return self.samples.unlabeled()

    def out_spec(self, before: Spec | None) -> Spec | None:
        images = self._image_fields.spec()
        height, width = self._known_sides()
        if len(self._by_shape) > 1:
            images = {"images": array_spec(self._type, height, width, self._image_fields.channels)}
        spec = {**images, **self.samples.spec()}
        if self.samples.masked:
            spec["masks"] = array_spec(np.uint8, height, width)
        pairs = dict.fromkeys(self.samples.pairs, next(iter(images.values())))
        return {**spec, **pairs, **self.samples.columns_spec()}

    def making(self) -> Sequence[object]:
        wide = () if self.dtype == "uint8" else (self.dtype,)
        made = self._image_fields.making()
        if not self.shapes.constant:
            made = self.fit, self.shapes, self._image_fields.channels
        return *made, *wide, self.exif, self.exact, self._min_visible, *self.annotated

    # Calls from the engine

    def fuse(self, steps: Sequence[Transform | None], seed: int) -> int:
        """Fuse the first flips of the Augmentations after this reader, and a Normalize of uint8 images after those.

        Returns
        -------
        int
            Number of fused steps.
        """
        if self.samples.pairs or self.shape is None:
            # Only the Augmentations know which fields move with the images, or which field they change.
            return 0
        finish = FusedTransforms(steps, seed, self._type)
        self._finish = (
            finish if finish.takes(self._image_fields.channels) else FusedTransforms(dtype=self._type)
        )
        return self._finish.count

    def open(self) -> None:
        self._local.decoder = jpeg.BatchDecoder(self._crew, max_pixels=self.max_pixels)
        if self._ahead is not None:
            self._ahead.open()
        self.samples.open()

    def interrupt(self) -> None:
        self._crew.close()
        self._outages.interrupt()
        if self._ahead is not None:
            self._ahead.interrupt()
        self.samples.interrupt()

    def close(self) -> None:
        self.samples.close()
        self._local.decoder.close()
        if self._ahead is not None:
            self._ahead.close()

    def separate(self) -> None:
        super().separate()
        self.samples = self.samples.for_run()
        self._local = threading.local()
        if self._other_sizes is not None:
            self._other_sizes = OtherSizes(self.name)

    def prepare(self) -> None:
        # The old ones may be closed or interrupted.
        self._crew = jpeg.Crew()
        self._outages = Outages(self.name)
        self.samples = self.samples.for_run()
        if self.samples.ranges is not None:
            # Only URLs need it.
            from highway.modules.readers.read_ahead import ReadAhead

            self._ahead = ReadAhead(
                self.name, self.samples, self.ticket_of, self.prefetch_bytes, self._group, self._cache
            )
            self.samples = self._ahead.samples

    def tasks(self) -> Iterator[Task]:
        return self.announced(super().tasks())

    def tasks_from(self, start: int) -> Iterator[Task]:
        return self.announced(super().tasks_from(start))

    def announced(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """The same tasks, whose samples are fetched ahead."""
        # When the first task is asked for: `prepare` may run before that.
        yield from self.samples.announced(tasks if self._ahead is None else self._ahead.over(tasks))

    def _group(self, task: Task) -> object:
        """Group of a task whose samples are fetched together with those of its neighbors."""
        order = self.order
        if not isinstance(order, WindowedSampler) or self.within is not None:
            return self.ticket_of(task)
        place = order.place_at(self.ticket_of(task), self._begun)
        return place.epoch, order.window_at(place)

    def load(self, task: Task) -> Batch | None:
        """Read one batch; None if all of its samples were skipped."""
        indices = task.indices.copy()
        turn = self.ticket_of(task)
        self.samples.begin_task(task)
        try:
            if not len(indices):
                self._bad_samples.count(indices)
                return None
            return self._loaded(task, indices, turn)
        finally:
            self.samples.finish_task(task)
            if self._ahead is not None:
                self._ahead.done(turn)

    def _loaded(self, task: Task, indices: NDArray[np.int64], turn: int) -> Batch | None:
        part, sized = self.samples.begin(), self._sized(task)
        made, failures = sized._read(part, task.epoch, indices, turn)
        if failures:
            self._note(failures, indices)
            if self.on_error == "replace":
                sized._replace(part, made, list(failures), task, indices, turn)
                self.count_replaced(len(failures))
            else:
                kept = np.delete(np.arange(len(indices)), list(failures))
                made = made.take(kept)
                indices = indices[kept]
        self._bad_samples.count(indices)
        if not len(indices):
            return None
        return sized._batch(task, part, indices, made)

    def _known_sides(self) -> tuple[int | None, int | None]:
        """Return height and width of the images, None for a side that is not the same for all shapes, or with Views."""
        shapes = [shape for shape in self._by_shape if shape is not None]
        height, width = ({shape[axis] for shape in shapes} for axis in range(2))
        return (height.pop() if len(height) == 1 else None), (width.pop() if len(width) == 1 else None)

    def _sized(self, task: Task) -> Self:
        """Return the reader that makes images of the shape of a task, with the state of this one."""
        order = self.order
        if self._buckets is not None and isinstance(order, GroupedSampler):
            shape = self._buckets.shapes[order.group_of(task.indices)]
        else:
            shape = self.shapes.at(task.epoch)
        if shape == self.shape:
            return self
        sized = self.copied()
        sized.shape, sized._image_fields = shape, self._by_shape[shape]
        return sized

    def _batch(self, task: Task, part: SampleReader, indices: NDArray[np.int64], made: DecodedBatch) -> Batch:
        fields: dict[str, NDArray[Any]] = dict(made.images)
        extras: dict[str, NDArray[Any]] = {}
        offsets = None
        numbers = numbers_of(indices)
        labels, objects = part.labels(numbers), part.objects(numbers)
        ragged: set[str] = set()
        if objects is not None:
            assert made.mapping is not None
            boxes, of_boxes, extras, offsets = objects.mapped(made.mapping, self._shape, self._min_visible)
            labels = labels if of_boxes is None else of_boxes
            ragged = {"boxes", *extras} | ({"labels"} if of_boxes is not None else set())
        if labels is not None:
            fields["labels"] = labels
        if objects is not None:
            fields["boxes"] = boxes
        if self.placed:
            assert made.mapping is not None
            placement, sizes = made.mapping.placement.matrices(self._shape), made.mapping.sizes.copy()
            before = part.picture_sizes(numbers)
            if before is not None:
                placement[:, :, :2] *= (sizes / before)[:, None, ::-1]
                sizes = before
            extras |= {"placement": placement, "picture_sizes": sizes}
        if made.masks is not None:
            fields["masks"] = made.masks
        fields |= {name: pair.images["images"] for name, pair in made.pairs.items()}
        fields |= part.columns(numbers)
        lists = part.lists(numbers)
        if lists is not None:
            more, offsets = lists
            extras |= more
            ragged |= {*more}
        return Batch(
            fields,
            epoch=task.epoch,
            seq=task.seq,
            indices=indices,
            keys=part.keys(numbers),
            applied=len(self._image_fields.views) + self._finish.count,
            extras=extras,
            offsets=offsets,
            ragged=ragged,
        )

    # Reading and decoding

    def _read(
        self,
        part: SampleReader,
        epoch: int,
        indices: NDArray[np.int64],
        turn: int,
        made: DecodedBatch | None = None,
        slots: NDArray[np.int64] | None = None,
    ) -> tuple[DecodedBatch, dict[int, HighwayError]]:
        """Read samples into new images, or into the given slots of `made`; retries while the storage fails.

        Returns
        -------
        made : DecodedBatch
        failures : dict of int to HighwayError
            Errors, by row of `indices`.

        Raises
        ------
        StorageError
            The storage failed for more than 30 s.
        """
        made, failures = self._read_once(part, epoch, indices, turn, made, slots)
        if not failures:
            return made, failures
        images, places = made, np.arange(len(indices)) if slots is None else slots

        def again(rows: NDArray[np.int64]) -> dict[int, HighwayError]:
            _, found = self._read_once(part, epoch, indices[rows], turn, images, places[rows])
            return {int(rows[row]): error for row, error in found.items()}

        return made, self._outages.retried(failures, again)

    def _read_once(
        self,
        part: SampleReader,
        epoch: int,
        indices: NDArray[np.int64],
        turn: int,
        made: DecodedBatch | None,
        slots: NDArray[np.int64] | None,
    ) -> tuple[DecodedBatch, dict[int, HighwayError]]:
        """Read samples once, as `_read` does; the failure of a sample is a StorageError if the storage failed."""
        decoder: jpeg.BatchDecoder = self._local.decoder
        failures: dict[int, HighwayError] = {}
        places = np.arange(len(indices)) if slots is None else slots
        numbers = numbers_of(indices)
        try:
            heads = self._read_heads(part, numbers, turn, failures)
            placements = self._place(heads, epoch, indices)
            made, results = self._decode(heads, placements, made, places)
        finally:
            decoder.leave()
        self._note_results(heads, results, numbers, failures)
        self._decode_others(heads, placements, made.images, places, numbers, failures)
        self._annotate(part, heads, placements[0], made, slots, numbers, failures)
        for name in self.samples.pairs:
            pair = self._reader_of(name)
            # With the same random numbers as the first pictures.
            made.pairs[name], wrong = pair._read_once(
                pair.samples.begin(), epoch, indices, turn, made.pairs.get(name), slots
            )
            failures |= {row: error for row, error in wrong.items() if row not in failures}
        return made, failures

    def _reader_of(self, name: str) -> ImageReader:
        """Return a reader of further pictures, which decodes with the decoder of this one."""
        pair = self.copied()
        pair.samples, pair.placed, pair._other_sizes = self.samples.pairs[name], False, None
        return pair

    def _read_heads(
        self,
        part: SampleReader,
        indices: NDArray[np.int64],
        turn: int,
        failures: dict[int, HighwayError],
    ) -> _Heads:
        """Read the headers of the pictures and check their boxes; adds the errors of rows to `failures`."""
        decoder: jpeg.BatchDecoder = self._local.decoder
        others: dict[int, OtherPicture | None] = {}
        heads, wrong = part.read(decoder, indices, self.exif, turn)
        statuses, heights, widths = heads.T
        good = decoder.sound and not wrong
        if not good:
            np.maximum(heads[:, 1:], 1, out=heads[:, 1:])
            for row in _tried_first(np.flatnonzero(statuses).tolist(), statuses):
                found = wrong.get(row) or self._other(row, indices[row])
                if isinstance(found, OtherPicture):
                    others[row] = found
                    heights[row], widths[row] = found.height, found.width
                else:
                    failures[row] = found
        turns = orientations = self._orientations(others)
        objects = part.objects(indices)
        if objects is not None:
            turns, refused = self._refused_objects(objects, indices, heads, orientations)
            for row, error in refused.items():
                failures.setdefault(row, error)
                others.pop(row, None)
                statuses[row] = jpeg.BAD_FILE
            good = good and not refused
        rows = np.arange(len(indices)) if good else np.flatnonzero(statuses == jpeg.OK)
        return _Heads(heads, good, rows, others, orientations, turns, objects is not None)

    def _place(self, heads: _Heads, epoch: int, indices: NDArray[np.int64]) -> list[Placement]:
        """Choose, for each view, the window of each picture, its target in the image, and which images are mirrored."""
        _, heights, widths = heads.table.T
        return self._image_fields.placements(
            SampleRandom(self.seed, epoch, indices, 0), heights, widths, self._finish
        )

    def _decode(
        self,
        heads: _Heads,
        placements: Sequence[Placement],
        made: DecodedBatch | None,
        places: NDArray[np.int64],
    ) -> tuple[DecodedBatch, Sequence[int]]:
        """Decode pictures into new images, or into `places` of `made`; also returns a status for each of them."""
        decoder: jpeg.BatchDecoder = self._local.decoder
        rows = heads.rows
        chosen = placements if heads.good else [placement.take(rows) for placement in placements]
        count, itemsize = len(heads.table), self._finish.itemsize
        try:
            covered = self._image_fields.begin(
                decoder, rows, chosen, self.exact, self._image_fields.nbytes(count, itemsize)
            )
        except ValueError:
            self._refuse(heads, placements)
            raise
        if made is None:
            # The memory of an earlier batch is about to return to the pool: waiting for it saves a buffer.
            while not self._image_fields.have_room(count, itemsize) and decoder.ahead():
                pass
            made = DecodedBatch(self._image_fields.room(count, self._finish))
        if not covered:
            self._image_fields.paint(made.images, places[rows], chosen, self._finish)
        images = [self._finish.images(view.of(made.images)) for view in self._image_fields.views]
        return made, decoder.finish_views(places[rows], images)

    def _note_results(
        self,
        heads: _Heads,
        results: Sequence[int],
        indices: NDArray[np.int64],
        failures: dict[int, HighwayError],
    ) -> None:
        """Add the pictures that could not be decoded to `failures`, or to the others if PIL may decode them."""
        if not any(results):
            return
        decoder: jpeg.BatchDecoder = self._local.decoder
        found = dict(zip(heads.rows.tolist(), results, strict=True))
        for row in _tried_first(found, found):
            if found[row] == jpeg.REFUSED:
                heads.others[row] = None
            elif found[row] != jpeg.OK:
                failures[row] = self._error(indices[row], found[row], decoder.message(row))

    def _decode_others(
        self,
        heads: _Heads,
        placements: Sequence[Placement],
        images: Mapping[str, NDArray[Any]],
        places: NDArray[np.int64],
        indices: NDArray[np.int64],
        failures: dict[int, HighwayError],
    ) -> None:
        """Decode pictures with PIL into `places` of `images`, and free each one."""
        for row in list(heads.others):
            found = self._with_file(heads.others.pop(row), row, indices[row], heads)
            if isinstance(found, HighwayError):
                failures[row] = found
                continue
            try:
                self._image_fields.draw(found.pixels(), placements, row, images, places[row], self._finish)
            except DecodeError as error:
                failures[row] = self._error(indices[row], jpeg.BAD_FILE, str(error))
            except MissingPackageError as error:
                failures[row] = self._without_pil(row, indices[row], error)
            except ValueError:
                self._refuse(heads, placements)
                raise

    def _annotate(
        self,
        part: SampleReader,
        heads: _Heads,
        placement: Placement,
        made: DecodedBatch,
        slots: NDArray[np.int64] | None,
        indices: NDArray[np.int64],
        failures: dict[int, HighwayError],
    ) -> None:
        """Note how the images show the pictures, if boxes, masks or `placement` need it, and read the masks."""
        masks = part.masks
        if not (self.keeps_shown or self.placed or heads.boxed or masks is not None):
            return
        # Copied: `put` writes into the mapping, but fits may return arrays that they share.
        copied = placement._replace(windows=placement.windows.copy(), targets=placement.targets.copy())
        mapping = PictureMapping(heads.table[:, 1:], heads.turns, copied)
        made.note(mapping, slots)
        if masks is not None:
            places = np.arange(len(indices)) if slots is None else slots
            room = made.masks_for(self._shape)
            failures |= masks.show(indices, mapping, heads.orientations, room, places, failures)

    def _refuse(self, heads: _Heads, placements: Sequence[Placement]) -> None:
        """Raise where a fit chose windows or targets that are not allowed."""
        _, heights, widths = heads.table.T
        self._image_fields.refuse(placements, heights, widths)

    def _orientations(self, others: Mapping[int, OtherPicture | None]) -> NDArray[np.int64]:
        """EXIF orientation by which each picture of the last read is turned upright."""
        decoder: jpeg.BatchDecoder = self._local.decoder
        orientations = decoder.orientations()
        for row, picture in others.items():
            if picture is not None:
                orientations[row] = picture.orientation
        return orientations

    def _refused_objects(
        self,
        objects: BoxTable,
        indices: NDArray[np.int64],
        heads: NDArray[np.int64],
        orientations: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        """How to turn the boxes of the samples; and the errors of samples with bad boxes, by row."""
        refused: dict[int, HighwayError] = {}
        turns, wrong = objects.turns(heads[:, 1:], orientations)
        if wrong:
            # With exif=False, boxes with height and width swapped may belong to the upright picture.
            unsure = np.zeros(len(indices), np.bool_) if self.exif else objects.swapped(heads[:, 1:])
            accepted = {}
            for row, text in wrong.items():
                # The size of a bad picture is unknown.
                if heads[row, 0] not in (jpeg.OK, *_FOR_PIL):
                    continue
                if self._other_sizes is None or unsure[row]:
                    refused[row] = self._error(indices[row], jpeg.BAD_FILE, text)
                elif row not in objects.bad:
                    accepted[int(indices[row])] = f"{self.samples.describe(indices[row])} {text}"
            if self._other_sizes is not None:
                self._other_sizes.note(accepted)
        for row in objects.bad:
            refused[row] = objects.error(row, self.name)
        return turns, refused

    def _other(self, row: int, index: int, *, again: bool = False) -> OtherPicture | HighwayError:
        """Open a picture for PIL, or return its error; `again` keeps the file however large it is."""
        decoder: jpeg.BatchDecoder = self._local.decoder
        contents = decoder.contents(row) if decoder.status(row) in _FOR_PIL else None
        if contents is None:
            return self._error(index, decoder.status(row), decoder.message(row))
        try:
            picture = OtherPicture(
                contents,
                gray=self._gray,
                wide=self._type == np.uint16,
                oriented=self.exif,
                max_pixels=self.max_pixels,
                owner=self.name,
            )
        except DecodeError as error:
            return self._error(index, jpeg.BAD_FILE, str(error))
        except MissingPackageError as error:
            return self._without_pil(row, index, error)
        if len(contents) > _KEPT_BYTES and not again:
            picture.release()
        return picture

    def _without_pil(self, row: int, index: int, error: MissingPackageError) -> DecodeError:
        """The error of a file that the decoder refused, and that PIL cannot judge; raises for other formats."""
        decoder: jpeg.BatchDecoder = self._local.decoder
        if decoder.status(row) != jpeg.REFUSED:
            raise named(error, self.name, self.samples.describe(index)) from error
        found = DecodeError(
            f"{self.name}: {self.samples.describe(index)} {decoder.message(row)}; PIL, which may read it, is not "
            "installed or lacks a part"
        )
        found.__cause__ = error
        return found

    def _with_file(
        self, picture: OtherPicture | None, row: int, index: int, heads: _Heads
    ) -> OtherPicture | HighwayError:
        """The picture with its file, which is read again if it was not kept; or an error."""
        return self._again(row, index, heads) if picture is None or picture.released else picture

    def _again(self, row: int, index: int, heads: _Heads) -> OtherPicture | HighwayError:
        """Open a picture for PIL whose header was read already, or return its error."""
        again = self._other(row, index, again=True)
        height, width = heads.table[row, 1:].tolist()
        if isinstance(again, OtherPicture) and (again.height, again.width, again.orientation) != (
            height,
            width,
            heads.orientations[row],
        ):
            return self._error(
                index,
                jpeg.BAD_FILE,
                f"was changed while it was read: {again.height} x {again.width} pixels, before it had "
                f"{height} x {width}",
            )
        return again

    def _replace(
        self,
        part: SampleReader,
        made: DecodedBatch,
        slots: list[int],
        task: Task,
        indices: NDArray[np.int64],
        turn: int,
    ) -> None:
        """Read other samples into these slots, and write their indices to `indices`."""
        first = indices[slots]
        open_ones = np.arange(len(slots))
        for tried in self._bad_samples.replacements(task.epoch, first, self.skipped_samples(task)):
            chosen = tried[open_ones]
            into = np.asarray(slots)[open_ones]
            _, failures = self._read(part, task.epoch, chosen, turn, made, into)
            indices[into] = chosen
            if not failures:
                return
            self._note(failures, chosen)
            open_ones = open_ones[list(failures)]
        self._bad_samples.refuse_all(next(iter(failures.values())))

    # Bad samples

    def _error(self, index: int, status: int, message: str) -> HighwayError:
        text = f"{self.name}: {self.samples.describe(index)} {message}"
        # Errors of the machine always raise: the file may be good.
        if status == jpeg.NO_MEMORY:
            raise MemoryError(text)
        if status == jpeg.NO_HANDLE:
            raise ReadError(text)
        # Errors of the storage may be temporary: `_read` retries.
        if status in (jpeg.STORAGE, jpeg.UNTRIED):
            return StorageError(text)
        return ReadError(text) if status == jpeg.NO_FILE else DecodeError(text)

    def _note(self, failures: dict[int, HighwayError], indices: NDArray[np.int64]) -> None:
        """Record the bad rows of `indices`; raises if the policy or `max_errors` does not allow them."""
        self._bad_samples.note({int(numbers_of(indices)[row]): error for row, error in failures.items()})

    # Arguments

    @property
    def _shape(self) -> tuple[int, int]:
        """Height and width of the images; there are no boxes and masks with Views, which have several."""
        assert self.shape is not None
        return self.shape

    def _check_views(self) -> None:
        """Raise if the samples have what only follows one view, or a field with the name of one of the views."""
        samples = self.samples
        found = [
            name
            for name, there in (
                ("boxes", samples.boxed),
                ("masks", samples.masked),
                ("the extra placement", samples.placement),
                *((repr(name), True) for name in samples.pairs),
            )
            if there
        ]
        if found:
            raise ArgumentError(
                f"{self.name}: fit is {self.fit!r}, and the samples have {', '.join(found)}, which would need one set "
                "for each view; expected only labels and columns with Views: leave the others out, or give the reader "
                "a fit with one view"
            )
        taken = [name for name in self._image_fields.names if name in samples.columns_spec()]
        if taken:
            raise ArgumentError(
                f"{self.name}: fit is {self.fit!r}, and the samples have a field {taken[0]!r} too; expected other names"
            )

    def _refused(self, name: str, value: object, allowed: str) -> ArgumentError:
        return ArgumentError(f"{self.name}: {name} is {value!r}; expected {allowed}")

    def _choice(self, name: str, value: object, allowed: Sequence[str]) -> None:
        if value not in allowed:
            raise self._refused(name, value, " or ".join(repr(one) for one in allowed))


def _tried_first(rows: Iterable[int], statuses: Mapping[int, int] | NDArray[np.int64]) -> list[int]:
    """Sort rows so that the untried ones come last: the first failure should be the cause of the others."""
    return sorted(rows, key=lambda row: bool(statuses[row] == jpeg.UNTRIED))
