"""TarReader: reads pictures with their labels, boxes, masks and other fields from tar files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments import class_names, expanded, flag, whole
from highway.arguments.options import completed, takes
from highway.batch import is_field_name
from highway.errors import ArgumentError, TarError
from highway.modules.readers.image_reader import ImageReader
from highway.modules.readers.listing.class_names import counts_of, log_classes
from highway.modules.readers.options import PictureFileOptions
from highway.modules.readers.sample_fields import SampleField
from highway.modules.readers.samples import OWN_FIELDS, checked_min_visible
from highway.modules.readers.tar_samples import TarSamples
from highway.sampling.schedules import BatchSize, Shape
from highway.storage.access import cache_at
from highway.storage.shard_names import shard_paths
from highway.storage.tar_index import compression_of, indexed, refused_compression
from highway.storage.unpacked_tars import UnpackedTar, is_gzipped, unpacked_tars
from highway.storage.urls import is_url, located
from highway.storage.wids_lists import ListedShard, ShardList, is_wids_list, listed_shards
from highway.transforms.fit import CenterFit, Fit, Letterbox
from highway.transforms.views import Views

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from highway.storage.object_store import ObjectStore
    from highway.storage.objects import Object
    from highway.storage.tar_index import TarIndex

__all__ = ["TarReader"]

_logger = logging.getLogger("highway.modules")

# Adjacent samples of a tar in a store that are fetched together, in bytes; with less to prefetch they are fewer.
_CHUNK = 8 << 20
_CHUNKS = 8

# Labels that `TarSink` writes, to which the classes in its list belong.
_OF_SINK = ("cls", "labels.npy")
_IMAGE = "jpg;jpeg;png;webp;bmp;gif;tif;tiff;jpe;jfif"


@takes(PictureFileOptions)
class TarReader(ImageReader):
    r"""Reads pictures from tar files in the WebDataset layout and yields batches ``images, labels``.

    The members of a sample are next to each other and have the same name up to the first dot of the file name, such as
    ``cat/0001.jpg`` and ``cat/0001.cls``; ``cat/0001`` is the key. The fields are `images` and, as far as they are
    given, `labels`, `boxes`, `masks` and `fields`, in this order. Pictures are read as by `ImageFileReader`, where they
    lie in the tar.

    Every tar is searched once for its members; this index is kept beside it, in ``NAME.tar.index``, and made again when
    the tar changes. The order is a permutation of all samples of all tars, unless `window` is given.
    Tars in stores, such as ``s3://bucket/train-{0000..1023}.tar``, are fetched ahead, and their indexes are kept on
    this machine. Their default order reads large ranges: runs of adjacent samples, of 8 MiB, come in a random order,
    and the samples of so many runs as fit into half of `prefetch_bytes` are shuffled together.
    Gzip'ed tars (``.tar.gz``, ``.tgz``) are unpacked when the reader is made, into `cache`, or into temporary files
    without a name, and read from there; their order, fields and states are those of the plain tars.
    Members without an ending, hidden files and metadata of WebDataset (``__NAME__``) are ignored. Samples without a
    picture are counted and not read; a sample without one of its other members is a bad sample. Several tars may have
    samples with the same key.

    Parameters
    ----------
    paths : path or URL, or sequence of these
        Tar files, plain or gzip'ed; with brace lists, ``train-{0000..1023}.tar``, or wildcards, ``train-*.tar``. All
        are local, or all URLs. Or one JSON file in the format of wids, ``train.json``, which lists the tars with their
        numbers of bytes and samples; these are compared.
    batch_size : int or Schedule
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`.
    shape : int, (int, int) or Schedule, optional
        Height and width of the images in pixels; a number alone is a square. Not with `Views` and `Buckets`, which have
        their own.
    image : str
        Endings of the pictures, with ``;`` between them, in upper or lower case; of several pictures in a sample the
        first of these endings counts. The contents decide the format.
    label : str, (str, dtype) or None
        Field of the labels: ``cls``, a whole number or the name of a class; ``json:a.b``, a part of a JSON file (keys
        of objects, and places in lists); ``npy``, an array; ``txt``, the name of a class. The last part of an ending
        decides, as in ``meta.json``. Numbers become int64 or float32, (N,) or (N, K), as in the first sample, or the
        dtype. With `boxes`: for each picture a list or array, with one label for each of its boxes.
    classes : sequence of str, optional
        Class names in the order of their numbers, where labels are names. By default those in the list of shards, if it
        states them.
    boxes : str or None
        Field of the boxes, as for `label`: for each picture x0, y0, x1, y1 of its boxes, in pixels; (n, 4). They follow
        the picture through its orientation, fit and mirroring.
    masks : str or None
        Ending of masks, such as ``mask.png``: class numbers, as for `ListReader`.
    fields : mapping of str to (str or (str, dtype)), optional
        Further fields by their names, as for `label`. A ``txt`` is a str, a ``json`` without a path whatever it has,
        and any other ending bytes: arrays of objects, (N,). Arrays and lists have one shape in all samples; with the
        dtype ``object`` they may differ.
    upright : bool
        Whether boxes and masks belong to the upright pictures, as those that `highway pack` writes, rather than to the
        pictures as they are stored.
    min_visible : float
        0 to 1: a box is dropped if less than this fraction of its area is shown. A box with nothing shown is always
        dropped. Only with `boxes`.
    mask_fill : int
        0 to 255: value of mask pixels that the fit leaves uncovered. Only with `masks`.
    placement : bool
        Adds the extras `placement` and `picture_sizes`, as `ListReader` says.
    fit : Fit or Views, optional
        Which window of a picture becomes the image; by default ``Letterbox()`` with `boxes`, otherwise ``CenterFit()``.
    window : int, "all" or None
        A number shuffles the order of the tars, and the samples within every `window` tars of that order: few tars are
        read at a time, and samples of different windows are never mixed. "all" shuffles all samples, which needs a
        request or two for every sample in a store. None is "all" for local tars.
    index_dir : path, optional
        Folder for the indexes, instead of the folders of local tars, and of the user's folder for caches.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size, color, dtype, on_error, max_errors, exact, exif
        See `PictureFileOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range, no sample has a field, or labels are neither numbers nor names of classes.
    EmptyDatasetError
        There are no tars, or no pictures in them.
    TarError
        A tar is cut off, damaged or compressed in another way than gzip, or has links or sparse files; a sample has two
        members of one ending, comes twice in a tar, or is split over two tars; a tar is not as its list says.
    ReadError, DecodeError
        A tar or the fields of the first sample cannot be read.
    StorageError
        The storage failed for more than 30 s.
    WriteError
        `index_dir` cannot be written to, or there is no space to unpack a tar.

    Attributes
    ----------
    classes : list of str or None
        As given; or those in the list of shards, if `highway pack` or `TarSink` wrote it.
    paths : list of str
        The tars.
    without_picture : int
        Number of samples without a picture, which are not read.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        batch_size: BatchSize,
        shape: Shape | None = None,
        *,
        image: str = _IMAGE,
        label: str | tuple[str, Any] | None = "cls",
        classes: Sequence[str] | None = None,
        boxes: str | tuple[str, Any] | None = None,
        masks: str | None = None,
        fields: Mapping[str, str | tuple[str, Any]] | None = None,
        upright: bool = False,
        min_visible: float = 0.0,
        mask_fill: int = 0,
        placement: bool = False,
        fit: Fit | Views | None = None,
        window: int | Literal["all"] | None = None,
        index_dir: str | os.PathLike[str] | None = None,
        **options: Unpack[PictureFileOptions],
    ) -> None:
        options = completed(PictureFileOptions, options)
        min_visible = checked_min_visible(self.name, min_visible, boxes is not None)
        if mask_fill and masks is None:
            raise ArgumentError(f"TarReader: mask_fill is {mask_fill!r}, and there are no masks")
        self._window: int | None = None
        if window is not None and window != "all":
            self._window = whole(self.name, "window", window, 1)
            if options["weights"] is not None:
                raise ArgumentError(
                    f"TarReader: window is {window!r} with weights; expected window=None, since samples that are drawn "
                    "by their weights come from all tars"
                )
        mask_ending = None if masks is None else _endings("masks", masks)
        if mask_ending is not None and len(mask_ending) != 1:
            raise ArgumentError(f"TarReader: masks is {masks!r}; expected one ending")
        folder = None if index_dir is None else expanded(self.name, "index_dir", index_dir)
        listed = _listed(paths, options["storage_options"])
        self.paths = (
            shard_paths(paths, self.name, options=options["storage_options"])
            if listed is None
            else [shard.path for shard in listed.shards]
        )
        self.classes = None if classes is None else class_names(self.name, classes, repeated=True)
        if classes is None and listed is not None and label in _OF_SINK:
            self.classes = listed.classes
        if self.classes is not None:
            log_classes(self.name, self.classes, "stated by the list" if classes is None else "given")
        tars = self._opened(folder, options)
        samples = TarSamples(
            tars.indexes,
            _endings("image", image),
            store=tars.store,
            objects=tars.objects,
            unpacked=tars.unpacked,
            label=None if label is None else SampleField("labels", label, self.name, "label", self.classes),
            boxes=None if boxes is None else SampleField("boxes", boxes, self.name, "boxes"),
            fields=_fields(fields),
            masks=None if mask_ending is None else mask_ending[0],
            mask_fill=mask_fill,
            max_pixels=options["max_pixels"],
            owner=self.name,
            oriented=options["exif"],
            upright=flag(self.name, "upright", upright),
            min_visible=min_visible,
            placement=flag(self.name, "placement", placement),
        )
        self._tars = samples
        if listed is not None:
            _check_listed(listed.shards, samples, tars.nbytes)
        self._shards = self._sizes_of_shards(is_url(self.paths[0]) and window is None, options)
        self.without_picture = samples.without_picture
        super().__init__(
            samples,
            batch_size,
            shape,
            fit=(CenterFit() if boxes is None else Letterbox()) if fit is None else fit,
            **options,
        )
        self.annotated = ("boxes", boxes, samples.boxed and upright)
        if self.without_picture:
            _logger.warning(
                "%s: %d samples of %d %s have no picture (%s), and are not read",
                self.name,
                self.without_picture,
                self.without_picture + self.size,
                samples.where,
                image,
            )

    def __repr__(self) -> str:
        shown = repr(self.paths[0]) + (f" and {len(self.paths) - 1} more tars" * (len(self.paths) > 1))
        window = "" if self.order.window is None else f", window={self.order.window}"
        own = f"{self.order.batch_size}, {self.shapes.plain}, fit={self.fit!r}{window}"
        return f"<TarReader of {self.size} pictures in {shown}, {own}{self._drawn()}>"

    def _opened(self, folder: str | None, options: PictureFileOptions) -> _Tars:
        """Return the indexes of the tars, and where the tars are."""
        urls = [path for path in self.paths if is_url(path)]
        if 0 < len(urls) < len(self.paths):
            local = next(path for path in self.paths if not is_url(path))
            raise ArgumentError(
                f"TarReader: paths has {local!r} and {urls[0]!r}; expected only local files, or only URLs"
            )
        for path in self.paths:
            compression = compression_of(path)
            if compression is not None:
                raise refused_compression(path, self.name, compression)
        packed = [path for path in self.paths if is_gzipped(path)]
        if urls and 0 < len(packed) < len(urls):
            plain = next(path for path in urls if not is_gzipped(path))
            raise ArgumentError(
                f"TarReader: paths has {plain!r} and {packed[0]!r}; expected only plain or only gzip'ed tars at URLs"
            )
        store = None
        if urls:
            # Only URLs need them.
            from highway.storage.many_stores import ManyStores

            store = ManyStores(self.name, options["storage_options"])
            store.open(urls)
        if packed:
            return self._unpacked(packed, store, folder, options)
        if store is None:
            return _Tars(indexed(self.paths, self.name, folder))
        from highway.storage.remote_tar_index import indexed_objects

        indexes, objects = indexed_objects(store, urls, self.name, folder)
        return _Tars(indexes, store, objects)

    def _unpacked(
        self, packed: list[str], store: ObjectStore | None, folder: str | None, options: PictureFileOptions
    ) -> _Tars:
        """Unpack gzip'ed tars; the others are local files."""
        cache = cache_at(self.name, options["cache"], options["cache_bytes"])
        unpacked = {
            tar.index.path: tar
            for tar in unpacked_tars(packed, self.name, store=store, cache=cache, index_dir=folder)
        }
        plain = indexed([path for path in self.paths if path not in unpacked], self.name, folder)
        indexes = {index.path: index for index in (*(tar.index for tar in unpacked.values()), *plain)}
        return _Tars([indexes[path] for path in self.paths], unpacked=unpacked)

    def _sizes_of_shards(self, remote: bool, options: PictureFileOptions) -> NDArray[np.int64] | None:
        """Return the number of samples in each shard of the order, None for no shards; may set the window."""
        prefetch = options["prefetch_bytes"]
        if remote:
            nbytes = max(1, min(_CHUNK, prefetch // 2 // _CHUNKS))
            self._window = max(1, prefetch // 2 // nbytes)
            return self._tars.chunks(nbytes)
        if self._window is None:
            return None
        if self._tars.ranges is not None:
            largest = sum(sorted(self._tars.nbytes)[-self._window :])
            if 2 * largest > prefetch:
                raise ArgumentError(
                    f"TarReader: window is {self._window}, tars of up to {largest} bytes together, and prefetch_bytes "
                    f"is {prefetch}; expected at least twice as many bytes for a window of whole tars in a store"
                )
        return self._tars.shards

    def class_counts(self) -> NDArray[np.int64]:
        """Number of pictures, or with boxes of boxes, of each class: int64 (number of classes,). Reads all labels.

        Raises
        ------
        ArgumentError
            The labels are no classes.
        DecodeError, ReadError, StorageError
            A label cannot be read.
        """
        return counts_of(self.name, self._tars.all_labels(), self.classes)

    def contents(self) -> Iterable[bytes | Iterable[bytes]]:
        return b"TarReader", self._tars.identity()

    def _windows(self) -> tuple[NDArray[np.int64], int] | None:
        return None if self._shards is None or self._window is None else (self._shards, self._window)


class _Tars(NamedTuple):
    """The tars of a reader.

    Attributes
    ----------
    indexes : list of TarIndex
    store, objects : ObjectStore or None, list of Object
        Where plain tars at URLs are.
    unpacked : dict of str to UnpackedTar
        The gzip'ed ones among them.
    """

    indexes: list[TarIndex]
    store: ObjectStore | None = None
    objects: Sequence[Object] = ()
    unpacked: Mapping[str, UnpackedTar] = MappingProxyType({})

    @property
    def nbytes(self) -> list[int]:
        """Bytes of each tar as it is stored."""
        return [
            self.unpacked[index.path].nbytes if index.path in self.unpacked else index.size
            for index in self.indexes
        ]


def _listed(paths: object, options: Mapping[str, Any] | None) -> ShardList | None:
    """Return the tars of a list in a file; None if `paths` is none."""
    if not isinstance(paths, (str, os.PathLike)):
        return None
    path = located(TarReader.name, "paths", paths)
    return listed_shards(path, TarReader.name, options) if is_wids_list(path) else None


def _check_listed(listed: Sequence[ListedShard], samples: TarSamples, stored: Sequence[int]) -> None:
    """Raise if the tars are not as their list says."""
    for shard, nbytes, groups in zip(listed, stored, samples.groups.tolist(), strict=True):
        for stated, found, noun in ((shard.nbytes, nbytes, "bytes"), (shard.samples, groups, "samples")):
            if stated not in (None, found):
                raise TarError(
                    f"TarReader: {shard.path!r} has {found} {noun}, and its list says {stated}; expected the same: "
                    "copy the tar, or make the list, again"
                )


def _endings(name: str, text: object) -> list[bytes]:
    """Return the endings in an argument, in lower case, each once."""
    words = [word.strip().lower() for word in text.split(";")] if isinstance(text, str) else [""]
    if not all(words) or any(word.startswith(".") or "/" in word for word in words):
        raise ArgumentError(
            f"TarReader: {name} is {text!r}; expected endings without a dot before them, such as 'jpg;png'"
        )
    return [word.encode() for word in dict.fromkeys(words)]


def _fields(fields: object) -> list[SampleField]:
    if fields is None:
        return []
    if not isinstance(fields, Mapping):
        raise ArgumentError(
            f"TarReader: fields is {fields!r}; expected endings by the names of the fields, such as "
            "{'caption': 'txt'}"
        )
    for name in fields:
        if not is_field_name(name) or name in OWN_FIELDS:
            raise ArgumentError(
                f"TarReader: fields has the name {name!r}; expected identifiers that are no attributes of Batch and "
                f"none of {', '.join(OWN_FIELDS)}"
            )
    return [SampleField(name, spec, TarReader.name, f"fields[{name!r}]") for name, spec in fields.items()]
