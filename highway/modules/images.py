"""ImageFileReader: a folder of class folders of pictures, in batches."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core import jpeg, resample
from highway._core.pool import waiting
from highway.arguments import flag, number, whole
from highway.batch import Batch, empty
from highway.engine import Source
from highway.errors import (
    ArgumentError,
    DecodeError,
    EmptyDatasetError,
    HighwayError,
    ReadError,
    TooManyErrors,
)
from highway.modules.finish import Finish
from highway.modules.folders import list_class_folders
from highway.modules.formats import OtherPicture
from highway.order import Order, Task
from highway.randomness import REPLACEMENT_POSITION, SampleRandom
from highway.transforms.fit import CenterFit, Fit, Placement
from highway.transforms.transform import Transform

__all__ = ["ImageFileReader"]

MAX_PIXELS = 2 * 89_478_485
"""Where PIL too refuses to open a picture."""

_RANDOM_REPLACEMENTS = 8
"""Replacements that are drawn for a bad sample before its neighbours in the list are tried in turn."""


class ImageFileReader(Source):
    """Reads ``data_dir/CLASS/.../picture`` and hands out batches ``images, labels``.

    JPEGs are decoded without the GIL: only the window that the fit chose, at a reduced scale where it is at least four
    times as large as the image, resampled row by row into the batch. Sequential ones at full scale have a decoder of
    our own, which gives what libjpeg-turbo gives, to the bit; libjpeg-turbo decodes the others, and judges whatever is
    not sound. Every other format goes through PIL. Links are followed.
    The workers make batches together that are large in pictures or in bytes, and small ones each for itself. The flips
    that the Augmentations behind begin with, and the `Normalize` behind those, are done while the images are written.
    The classes are the sorted names of the sub-folders.

    Parameters
    ----------
    data_dir : path
        Folder with one sub-folder for each class.
    batch_size : int
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`.
    shape : (int, int)
        Height and width of the images in pixels.
    fit : Fit
        Which window of a picture becomes the image: `CenterFit`, `RandomResizedCrop`, `Letterbox`, `Stretch`, or one
        of your own.
    shuffle : bool
        A new order each epoch, or the sorted order.
    seed : int
        0 to 2**64 - 1; of the order, the windows and the replacements.
    epochs : int, optional
        None for no end.
    shard : (int, int)
        (rank, world): this reader's part of the data. Every rank has the same number of samples and batches; where the
        count does not divide, at most world - 1 samples come twice, or are left out with `drop_last`.
    drop_last : bool
        Leave out what does not fill a batch on every rank.
    labels : {"index", "one_hot"}
        int64 (N,), or float32 (N, number of classes).
    color : {"rgb", "gray"}
        Three channels or one.
    exif : bool
        Turn pictures upright as their EXIF orientation says (PIL does so for TIFF in any case).
    on_error : {"raise", "skip", "replace"}
        What to do with a sample that cannot be read: end with its error; leave it out, so that the batch is smaller, or
        missing if nothing is left of it; or take another sample of the data instead, chosen by the seed, so that
        batches stay full and every rank has as many. Where the machine has no memory or file handles left, or PIL is
        missing, that is an error under any policy.
    max_errors : int or float, optional
        With "skip" and "replace": how many bad files are allowed, as a count or (a float up to 1) as part of the data.
        Each rank counts those that it came across.
    exact : bool
        Never decode at a reduced scale: more work where pictures are much larger than the images, which then differ
        from Pillow's by rounding only.
    max_pixels : int
        Larger pictures are bad files: their header is believed, and nothing decoded. A progressive JPEG takes up to 6
        bytes of memory a pixel in each worker, other JPEGs only some rows, other formats 4 bytes a pixel.
    workers : int, optional
        Threads; by default as many as help, up to one for each core that the process may use.
    queue_size : int
        Batches that are in the making or wait to be taken, at most; two for each worker are always allowed.

    Raises
    ------
    ArgumentError
        An argument is outside of what is allowed.
    EmptyDatasetError
        There are no class folders, or one has no pictures.

    Attributes
    ----------
    classes : list of str
        Names of the classes, in the order of their labels.
    """

    hands_over = True

    def __init__(
        self,
        data_dir: str | bytes | os.PathLike[str],
        batch_size: int,
        shape: tuple[int, int],
        *,
        fit: Fit | None = None,
        shuffle: bool = True,
        seed: int = 0,
        epochs: int | None = None,
        shard: tuple[int, int] = (0, 1),
        drop_last: bool = False,
        labels: str = "index",
        color: str = "rgb",
        exif: bool = True,
        on_error: str = "raise",
        max_errors: int | float | None = None,
        exact: bool = False,
        max_pixels: int = MAX_PIXELS,
        workers: int | None = None,
        queue_size: int = 4,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.shape = _shape(shape)
        self.fit = CenterFit() if fit is None else fit
        if not isinstance(self.fit, Fit):
            raise _refused(
                "fit", fit, "CenterFit(), RandomResizedCrop(), Letterbox(), Stretch() or a Fit of your own"
            )
        _choice("labels", labels, ("index", "one_hot"))
        _choice("color", color, ("rgb", "gray"))
        _choice("on_error", on_error, ("raise", "skip", "replace"))
        self.on_error = on_error
        self.exif = flag(self.name, "exif", exif)
        self.exact = flag(self.name, "exact", exact)
        self.max_pixels = whole("ImageFileReader", "max_pixels", max_pixels, 1, 2**62)
        self.fit.colour(1 if color == "gray" else 3)
        self.seed = seed
        self._one_hot = labels == "one_hot"
        self._gray = color == "gray"
        self._filter = resample.FILTERS.index(self.fit.interpolation)
        self._folders = list_class_folders(data_dir)
        self.classes = self._folders.classes
        self.max_errors = max_errors
        self._most_errors = _most_errors(max_errors, len(self._folders.names), on_error)
        self.order = Order(
            len(self._folders.names),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            epochs=epochs,
            shard=shard,
            drop_last=drop_last,
            owner="ImageFileReader",
        )
        self._size = (*self.shape, 1 if self._gray else 3)
        self.image_shape = self._size
        self._finish = Finish()
        self._crew = jpeg.Crew()
        self._local = threading.local()
        self._lock = threading.Lock()
        # All bad samples so far; those of them that were not read since; what came of the batches so far.
        self._bad: dict[int, HighwayError] = {}
        self._lost: set[int] = set()
        self._batches_done = 0
        self._any_good = False

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.order)

    def __repr__(self) -> str:
        folder = os.fsdecode(self._folders.root)
        return f"ImageFileReader({folder!r}, {self.order.batch_size}, {self.shape}, fit={self.fit!r})"

    @property
    def shard(self) -> tuple[int, int]:
        return self.order.rank, self.order.world

    def fingerprint(self) -> str:
        # Not where the folder is, and not what becomes of the pictures: that may be changed on the way.
        return self.order.fingerprint(b"ImageFileReader", self._folders.names)

    @property
    def size(self) -> int:
        """Number of pictures in the data."""
        return self.order.size

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(key, reason) of every file that could not be read so far, once each."""
        with self._lock:
            return [(self._key(index), str(error)) for index, error in self._bad.items()]

    # What the engine calls

    def finish_with(self, steps: Sequence[Transform | None], seed: int) -> int:
        """Take over the flips, and the Normalize behind them, that the Augmentations behind begin with.

        Returns
        -------
        int
            How many of the steps are done here.
        """
        finish = Finish(steps, seed)
        if finish.takes(self._size[2]):
            self._finish = finish
        return self._finish.count

    def open(self) -> None:
        self._local.decoder = jpeg.BatchDecoder(self._crew, max_pixels=self.max_pixels)

    def interrupt(self) -> None:
        self._crew.close()

    def close(self) -> None:
        self._local.decoder.close()

    def tasks(self) -> Iterator[Task]:
        return iter(self.order)

    def tasks_from(self, start: int) -> Iterator[Task]:
        return self.order.tasks(start)

    def load(self, task: Task) -> Batch | None:
        """One batch; None when every sample of it was left out."""
        indices = task.indices.copy()
        turn = task.epoch * len(self.order) + task.seq
        images, failures = self._read(task.epoch, indices, turn)
        if failures:
            self._record(failures, indices)
            if self.on_error == "replace":
                self._replace(images, list(failures), task.epoch, indices, turn)
            else:
                kept = np.delete(np.arange(len(indices)), list(failures))
                rest = empty((len(kept), *images.shape[1:]), images.dtype)
                images = np.take(images, kept, axis=0, out=rest)
                indices = indices[kept]
        self._count(indices)
        if not len(indices):
            return None
        return Batch(
            {"images": images, "labels": self._labels(indices)},
            epoch=task.epoch,
            seq=task.seq,
            indices=indices,
            keys=[self._key(index) for index in indices.tolist()],
            applied=1 + self._finish.count,
        )

    # Reading and decoding

    def _read(
        self,
        epoch: int,
        indices: NDArray[np.int64],
        turn: int,
        images: NDArray[Any] | None = None,
        slots: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[Any], dict[int, HighwayError]]:
        """Read samples into new images, or into the given slots of `images`.

        Returns
        -------
        images : ndarray
            As finished.
        failures : dict of int to HighwayError
            What went wrong with row k of `indices`, under k.
        """
        decoder: jpeg.BatchDecoder = self._local.decoder
        failures: dict[int, HighwayError] = {}
        others: dict[int, OtherPicture] = {}
        root, names = self._folders.root, self._folders.names
        try:
            heads = decoder.read([root + names[index] for index in indices.tolist()], self.exif, turn)
            statuses, heights, widths = heads.T
            good = decoder.sound
            if not good:
                np.maximum(heads[:, 1:], 1, out=heads[:, 1:])
                for row in np.flatnonzero(statuses).tolist():
                    found_one = self._other(row, indices[row])
                    if isinstance(found_one, OtherPicture):
                        others[row] = found_one
                        heights[row], widths[row] = found_one.height, found_one.width
                    else:
                        failures[row] = found_one
            rng = SampleRandom(self.seed, epoch, indices, 0)
            placement = self.fit.choose(rng, heights, widths, self.shape)
            mirrored = self._finish.mirrored(1, rng, self._size)
            everything = np.arange(len(indices))
            rows = everything if good else np.flatnonzero(statuses == jpeg.OK)
            nbytes = len(indices) * math.prod(self._size) * self._finish.itemsize
            windows, targets = placement
            try:
                covered = decoder.begin(
                    rows,
                    windows if good else windows[rows],
                    targets if good else targets[rows],
                    mirrored if good else mirrored[rows],
                    self._filter,
                    self.exact,
                    self._size,
                    nbytes,
                )
            except ValueError:
                self.fit.refuse(placement, heights, widths, self.shape)
                raise
            if images is None:
                # The memory of the batch before the last is about to come back: fewer are needed if it is waited for.
                while not waiting(nbytes) and decoder.ahead():
                    pass
                images = self._finish.room((len(indices), *self._size))
            places = everything if slots is None else slots
            if not covered:
                self._paint(images, places[rows], targets[rows])
            found = decoder.finish(places[rows], self._finish.images(images))
        finally:
            decoder.leave()
        if any(found):
            for row, status in zip(rows.tolist(), found, strict=True):
                if status != jpeg.OK:
                    failures[row] = self._error(indices[row], status, decoder.message(row))
        for row, picture in others.items():
            try:
                images[places[row]] = self._finished(picture, placement, mirrored, row)
            except DecodeError as error:
                failures[row] = self._error(indices[row], jpeg.BAD_FILE, str(error))
            except ValueError:
                self.fit.refuse(placement, heights, widths, self.shape)
                raise
        return images, failures

    def _paint(self, images: NDArray[Any], slots: NDArray[np.int64], targets: NDArray[np.int32]) -> None:
        """Fill those of the slots that their targets do not cover."""
        colour = np.broadcast_to(self.fit.colour(self._size[2]), (1, 1, 1, self._size[2]))
        pixel = self._finish.done(np.ascontiguousarray(colour), np.zeros((1, 2), np.bool_))
        images[slots[self.fit.uncovered(targets, self.shape)]] = pixel

    def _other(self, row: int, index: int) -> OtherPicture | HighwayError:
        """A picture that is no JPEG, not decoded yet; or what is wrong with it."""
        decoder: jpeg.BatchDecoder = self._local.decoder
        contents = decoder.contents(row) if decoder.status(row) == jpeg.NOT_JPEG else None
        if contents is None:
            return self._error(index, decoder.status(row), decoder.message(row))
        try:
            return OtherPicture(contents, gray=self._gray, oriented=self.exif, max_pixels=self.max_pixels)
        except DecodeError as error:
            return self._error(index, jpeg.BAD_FILE, str(error))

    def _finished(
        self, picture: OtherPicture, placement: Placement, mirrored: NDArray[np.bool_], row: int
    ) -> NDArray[Any]:
        """The image of row `row`, decoded by PIL."""
        whole = empty((1, *self._size))
        windows, targets = placement.windows[row : row + 1], placement.targets[row : row + 1]
        if self.fit.uncovered(targets, self.shape)[0]:
            whole[0] = self.fit.colour(self._size[2])
        upright = np.zeros((1, 2), np.uint8)
        resample.resize_batch(picture.pixels()[None], windows, targets, upright, self._filter, whole)
        image: NDArray[Any] = self._finish.done(whole, mirrored[row : row + 1])[0]
        return image

    def _replace(
        self,
        images: NDArray[Any],
        slots: list[int],
        epoch: int,
        indices: NDArray[np.int64],
        turn: int,
    ) -> None:
        """Put other samples into these slots, and their numbers into `indices`."""
        first = indices[slots]
        draws = SampleRandom(self.seed, epoch, first, REPLACEMENT_POSITION)
        last = first
        open_ones = np.arange(len(slots))
        for attempt in range(_RANDOM_REPLACEMENTS + self.size):
            last = draws.integers(0, self.size) if attempt < _RANDOM_REPLACEMENTS else (last + 1) % self.size
            chosen = last[open_ones]
            into = np.asarray(slots)[open_ones]
            _, failures = self._read(epoch, chosen, turn, images, into)
            indices[into] = chosen
            if not failures:
                return
            self._record(failures, chosen)
            open_ones = open_ones[list(failures)]
        self._refuse_all(next(iter(failures.values())))

    # Bad samples

    def _error(self, index: int, status: int, message: str) -> HighwayError:
        text = f"ImageFileReader: {os.fsdecode(self._path(index))} {message}"
        # What is wrong with the machine, and not with the file, is nothing to skip.
        if status == jpeg.NO_MEMORY:
            raise MemoryError(text)
        if status == jpeg.NO_HANDLE:
            raise ReadError(text)
        return ReadError(text) if status == jpeg.NO_FILE else DecodeError(text)

    def _record(self, failures: dict[int, HighwayError], indices: NDArray[np.int64]) -> None:
        """Note which rows of `indices` are bad; raises where the policy, or their number, does not allow them."""
        bad = {int(indices[row]): error for row, error in failures.items()}
        with self._lock:
            for index, error in bad.items():
                self._bad.setdefault(index, error)
            self._lost.update(bad)
            count, all_lost = len(self._bad), len(self._lost) >= self._reachable
        error = next(iter(bad.values()))
        if self.on_error == "raise":
            raise error
        if count > self._most_errors:
            raise TooManyErrors(
                f"ImageFileReader: {count} of {self.size} files are bad, max_errors={self.max_errors} allows fewer; "
                f"one of them: {error} (all of them: reader.errors)"
            )
        if all_lost:
            self._refuse_all(error)

    def _count(self, indices: NDArray[np.int64]) -> None:
        """Note a batch of these samples; raises when it was the last of all and there was no sample in any."""
        with self._lock:
            self._lost.difference_update(indices.tolist() if self._lost else ())
            self._batches_done += 1
            self._any_good = self._any_good or len(indices) > 0
            over = self.order.epochs is not None and self._batches_done == self.order.epochs * len(self.order)
            nothing = over and not self._any_good
            error = next(reversed(self._bad.values())) if nothing else None
        if error is not None:
            self._refuse_all(error)

    @property
    def _reachable(self) -> int:
        """How many samples this reader comes across sooner or later."""
        order = self.order
        if order.shuffle or self.on_error == "replace":
            return order.size
        samples = len(order) * order.batch_size if order.drop_last else order.samples
        return min(samples, order.size)

    def _refuse_all(self, error: HighwayError) -> None:
        rank, world = self.order.rank, self.order.world
        part = f", of which this is rank {rank} of {world}," if world > 1 else ""
        raise EmptyDatasetError(
            f"ImageFileReader: none of the files that were tried in {os.fsdecode(self._folders.root)!r}{part} could be "
            f"read, and none is left ({len(self._bad)} of {self.size} files); one of them: {error}"
        ) from error

    # Samples

    def _path(self, index: int) -> bytes:
        return self._folders.root + self._folders.names[index]

    def _key(self, index: int) -> str:
        return os.fsdecode(self._folders.names[index])

    def _labels(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        numbers = self._folders.labels[indices]
        if not self._one_hot:
            return numbers
        one_hot = np.zeros((len(indices), len(self.classes)), dtype=np.float32)
        one_hot[np.arange(len(indices)), numbers] = 1.0
        return one_hot


def _refused(name: str, value: object, allowed: str) -> ArgumentError:
    return ArgumentError(f"ImageFileReader: {name} is {value!r}; expected {allowed}")


def _choice(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise _refused(name, value, " or ".join(repr(one) for one in allowed))


def _shape(shape: object) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise _refused("shape", shape, "(height, width) in pixels")
    height, width = (whole("ImageFileReader", f"shape[{i}]", side, 1, 65536) for i, side in enumerate(shape))
    return height, width


def _most_errors(value: object, size: int, on_error: str) -> float:
    """How many bad files are still allowed."""
    if value is None:
        return float("inf")
    if on_error == "raise":
        raise _refused("max_errors", value, "None with on_error='raise', which ends at the first error")
    if isinstance(value, (float, np.floating)):
        return number("ImageFileReader", "max_errors", value, 0.0, 1.0) * size
    return float(whole("ImageFileReader", "max_errors", value, 0))
