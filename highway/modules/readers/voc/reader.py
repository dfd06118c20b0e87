"""VOCReader: reads pictures with boxes and masks from a folder in the format of Pascal VOC."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from highway.arguments import class_names, flag, number, whole
from highway.arguments.options import completed, takes
from highway.errors import ArgumentError, DecodeError, HighwayError, ReadError
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.image_reader import ImageReader
from highway.modules.readers.listing.class_names import log_classes, shown_names, warn_of_alike
from highway.modules.readers.listing.numeric_names import warn_of_order
from highway.modules.readers.options import PictureFileOptions
from highway.modules.readers.remote_files import files_of, masks_of
from highway.modules.readers.voc.folder import VOCFolder, VOCSample
from highway.modules.readers.voc.other_sizes import OtherSizes
from highway.modules.readers.voc.voc_xml import LARGEST_FILE, Annotation, object_names, parse_annotation
from highway.sampling.schedules import BatchSize, Shape
from highway.storage.access import Access
from highway.transforms.fit import Fit, Letterbox

__all__ = ["VOC_CLASSES", "VOCReader"]

VOC_CLASSES = (
    *(
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
    ),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of Pascal VOC, in the order of its development kit."""

_logger = logging.getLogger("highway.modules")

Path = str | bytes | os.PathLike[str]


@takes(PictureFileOptions)
class VOCReader(ImageReader):
    """Reads a folder in the format of Pascal VOC and yields batches ``images, labels, boxes``.

    `labels` are int64 (total,), `boxes` float32 (total, 4): x0, y0, x1, y1 in pixels of the images, of all samples one
    after the other; ``batch.boxes_of(i)`` and ``batch.rows_of("labels", i)`` return the rows of sample i. The extras
    `difficult` and `truncated` are bool (total,). With `masks=True`, `masks` is the last field. Pictures are read as by
    `ImageFileReader`; all annotations are read when the reader is made. A bad annotation or a bad mask makes the sample
    a bad one.

    The folder has ``JPEGImages/NAME.jpg`` (or another ending of a picture), ``Annotations/NAME.xml``, lists of names
    in ``ImageSets/Main/SPLIT.txt`` and masks in ``SegmentationClass/NAME.png``. A NAME may contain folders:
    ``JPEGImages/day/1.jpg`` and ``Annotations/day/1.xml``.

    Coordinates are continuous: the first pixel covers 0 to 1. VOC counts from 1, and the last pixel is inside, so a box
    is (xmin - 1, ymin - 1, xmax, ymax). Boxes follow the picture through its orientation, fit and mirroring.

    Parameters
    ----------
    root : path or URL
        The folder; a URL such as ``s3://bucket/VOC2012`` is listed once, now, and all of its annotations are fetched.
    batch_size : int or Schedule
    shape : int, (int, int) or Schedule
        Height and width of the images in pixels; a number alone is a square. Not with the fit `Buckets`.
    split : str, (str, float), (str, mapping of str to float) or None
        Which list of names: "train" stands for ``ImageSets/Main/train.txt``, or, with `masks`, for
        ``ImageSets/Segmentation/train.txt`` if that exists, or else for ``ImageSets/train.txt``; "lists/mine.txt"
        for a list of your own, relative to the folder. None: every annotation, sorted by name. A pair is a part of
        those, chosen by `split_seed`: ("train", 0.9) is 0.9 of them, and ("validation", 0.9) the rest; for other
        parts as in ``("test", {"train": 0.8, "validation": 0.1, "test": 0.1})``.
    fit : Fit, optional
        Which window of a picture becomes the image; by default ``Letterbox()``, which shows all of it.
    classes : sequence of str, "voc" or None
        The classes in the order of their labels. By default the classes of all annotations of the folder, sorted,
        whatever the split; an annotation that cannot be read then raises here. Folders for training and validation may
        have different classes: give the second reader ``classes=reader.classes`` of the first. "voc": `VOC_CLASSES`.
    other_classes : {"error", "drop"}
        Policy for objects whose class is not in `classes`: "error" makes their samples bad ones, "drop" drops the
        objects. "drop" needs `classes`.
    masks : bool or path
        Whether batches end with `masks`, uint8 (N, H, W): class numbers as in the files; VOC's own masks have 255 for
        borders. A path names the folder of the masks, relative to `root` or absolute, instead of
        ``SegmentationClass``.
    images, annotations : path
        The folders of pictures and annotations, relative to `root` or absolute; "." for both if they lie side by side
        in `root`.
    difficult : bool
        False: drop the objects that are marked difficult.
    one_based : bool
        False: the annotations count from 0 and their ends are outside; boxes are used as they are written.
    strict : bool
        Whether an annotation whose ``<size>`` is not that of its picture makes the sample a bad one. By default, the
        size of the picture file is used, and a warning is logged.
    min_visible : float
        0 to 1: a box is dropped if less than this fraction of its area is shown. A box with nothing shown is always
        dropped.
    mask_fill : int
        0 to 255: value of mask pixels that the fit leaves uncovered.
    placement : bool
        Adds two extras, which map what a network finds back to the picture: `placement`, float64 (N, 3, 3), maps
        (x, y, 1) in pixels of the upright picture to pixels of the image, and Augmentations keep it up to date;
        `picture_sizes`, int64 (N, 2), is height and width of the upright picture. See `Batch.boxes_in_picture`.
    index : path, optional
        For a URL: file that keeps its listing, as `highway index` writes it; written now if it does not exist.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size, color, dtype, on_error, max_errors, exact, exif
        See `PictureFileOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range.
    DatasetError
        The folder, one of the folders in it, or the list is missing.
    DecodeError, ReadError
        An annotation cannot be read, and `classes` is not given.
    EmptyDatasetError
        There are no samples.
    StorageError
        The storage failed for more than 30 s; skipping an annotation could change the classes.

    Attributes
    ----------
    classes : list of str
        Names of the classes, in the order of their labels.
    classes_origin : str
        Where they come from: "given", "of VOC", or "found in N annotations".
    skipped : SkippedFiles
        Files and folders in `root` that the reader does not read; ``str()`` sums them up in one line.
    other_sizes : OtherSizes or None
        Its ``len()`` is the number of samples read so far whose ``<size>`` is not that of their picture; None with
        `strict`.

    Notes
    -----
    A line of a list is a name: the whole line if an annotation or a picture has that name, otherwise the line without
    the -1, 0 or 1 at its end, which lists of one class have. The name may have the ending of a picture, and folders
    before it (``JPEGImages/a.jpg``, also absolute ones of another machine). Names that differ only in Unicode
    normalization are the same. ``<filename>`` in annotations is ignored.

    Annotations are repaired: boxes are clipped to the picture; boxes without area are dropped; if ``<size>`` is missing
    or 0 x 0, the size of the picture is used. These raise, and the error names the file and the element: XML that is
    not well formed, or not in its declared encoding; a document type; more than 8 MiB; an object without name or box;
    coordinates that are not numbers, or whose smaller one does not come first; an unknown class.
    Boxes belong to the picture as it is stored, or to the upright picture if ``<size>`` is that of the upright picture
    alone. If ``<size>`` is neither, they belong to the one whose size is nearer; but without `exif`, swapped height and
    width make a bad sample.

    M. Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 88, 2010.
    """

    def __init__(
        self,
        root: Path,
        batch_size: BatchSize,
        shape: Shape | None = None,
        *,
        split: str | tuple[str, float | Mapping[str, float]] | None = "train",
        fit: Fit | None = None,
        classes: Sequence[str] | str | None = None,
        other_classes: Literal["error", "drop"] = "error",
        masks: bool | Path = False,
        images: Path = "JPEGImages",
        annotations: Path = "Annotations",
        difficult: bool = True,
        one_based: bool = True,
        strict: bool = False,
        min_visible: float = 0.0,
        mask_fill: int = 0,
        placement: bool = False,
        index: Path | None = None,
        # Those of PictureFileOptions, whose `split` is another.
        **given: Any,
    ) -> None:
        options = completed(PictureFileOptions, cast(PictureFileOptions, given))
        min_visible = number(self.name, "min_visible", min_visible, 0.0, 1.0)
        difficult = flag(self.name, "difficult", difficult)
        one_based = flag(self.name, "one_based", one_based)
        strict = flag(self.name, "strict", strict)
        if not isinstance(masks, (str, bytes, os.PathLike)):
            masks = "SegmentationClass" if flag(self.name, "masks", masks) else ""
        mask_fill = whole(self.name, "mask_fill", mask_fill, 0, 255)
        self._choice("other_classes", other_classes, ("error", "drop"))
        if other_classes == "drop" and classes is None:
            raise ArgumentError(
                "VOCReader: other_classes is 'drop', and classes is not given; expected the classes that are to be kept"
            )
        known = _given(classes)
        folder = VOCFolder(root, images, annotations, masks or None, Access.of(self.name, options, index))
        if isinstance(split, (tuple, list)):
            options["split"] = split
            samples = folder.samples(None)
        else:
            samples = folder.samples(split)
        self.split = split
        self.root = os.fsdecode(folder.root)
        read = dict(_read(folder, [*{sample.annotation: None for sample in samples}]))
        self.classes, self.classes_origin = _found(folder, read) if known is None else known
        names = {name for found in read.values() if isinstance(found, Annotation) for name in found.names}
        if known is None:
            warn_of_order(self.name, self.classes)
        warn_of_alike(self.name, names | {*self.classes}, f"in {self.root!r}")
        log_classes(self.name, self.classes, f"{self.classes_origin}, of {self.root!r}")
        drop = other_classes == "drop"
        if drop:
            _log_dropped(read, self.classes, self.root)
        self.annotated = difficult, one_based, drop, strict
        self._other_sizes = None if strict else OtherSizes(self.name)
        objects = _objects(folder, samples, read, self.classes, difficult, one_based, drop)
        assert objects.labels is not None
        self._labels = objects.labels
        self._names = [sample.picture for sample in samples]
        files = (
            masks_of(
                folder.tree,
                folder.masks(samples),
                mask_fill,
                options["max_pixels"],
                self.name,
                options["exif"],
            )
            if masks
            else None
        )
        folder.skip_unpaired(samples)
        self.skipped = folder.skipped
        self.skipped.log(self.name, self.root)
        super().__init__(
            files_of(
                folder.tree,
                folder.images,
                self._names,
                self.name,
                objects=objects,
                masks=files,
                min_visible=min_visible,
                placement=flag(self.name, "placement", placement),
            ),
            batch_size,
            shape,
            fit=Letterbox() if fit is None else fit,
            **options,
        )

    def __repr__(self) -> str:
        own = f"{self.root!r}, {self.order.batch_size}, {self.shapes.plain}, split={self.split!r}"
        classes = f"<{len(self.classes)} {self.classes_origin}: {shown_names(self.classes)}>"
        skipped = f", {self.skipped}" if len(self.skipped) else ""
        sizes = f", {len(self.other_sizes)} with another <size>" if self.other_sizes else ""
        return f"VOCReader({own}, fit={self.fit!r}, classes={classes}{skipped}{sizes}{self._drawn()})"

    def contents(self) -> tuple[bytes, Sequence[bytes], list[bytes]]:
        return b"VOCReader", self._names, [name.encode("utf-8", "surrogateescape") for name in self.classes]

    def class_counts(self) -> NDArray[np.int64]:
        """Number of objects of each class in the annotations of the samples: int64 (number of classes,)."""
        return np.bincount(self._labels, minlength=len(self.classes)).astype(np.int64)


# An annotation, or its error.
_Read = Annotation | tuple[type[HighwayError], str]


def _given(classes: object) -> tuple[list[str], str] | None:
    """Classes that the user gave, and where they come from."""
    if classes is None:
        return None
    if isinstance(classes, str) and classes == "voc":
        return list(VOC_CLASSES), "of VOC"
    if isinstance(classes, str):
        raise ArgumentError(
            f"VOCReader: classes is {classes!r}; expected names, one or more, in a list, or 'voc'"
        )
    return class_names("VOCReader", classes), "given"


def _read(folder: VOCFolder, annotations: Sequence[bytes]) -> Iterator[tuple[bytes, _Read]]:
    """Yield annotations, given relative to their folder, with what they are."""
    for annotation, contents in _contents(folder, annotations):
        try:
            yield annotation, parse_annotation(_raised(contents))
        except (DecodeError, ReadError) as error:
            yield annotation, (type(error), f"{os.fsdecode(folder.annotations + annotation)} {error}")


def _contents(
    folder: VOCFolder, annotations: Sequence[bytes]
) -> Iterator[tuple[bytes, bytes | HighwayError]]:
    paths = [folder.annotations + annotation for annotation in annotations]
    return zip(annotations, folder.tree.contents(paths, LARGEST_FILE), strict=True)


def _raised(contents: bytes | HighwayError) -> bytes:
    if isinstance(contents, HighwayError):
        raise contents
    return contents


def _found(folder: VOCFolder, read: dict[bytes, _Read]) -> tuple[list[str], str]:
    """Classes of all annotations of the folder, and where they come from; `read` has the annotations read so far.

    Raises
    ------
    DecodeError, ReadError
        An annotation cannot be read, so that the classes are unknown.
    """
    classes: set[str] = set()
    unreadable: list[HighwayError] = []
    files = folder.annotation_files()
    there = frozenset(files)
    others = _read(folder, [file for file in files if file not in read])
    bad = []
    for annotation, found in itertools.chain(read.items(), others):
        if annotation not in there:
            continue
        if isinstance(found, Annotation):
            classes.update(found.names)
        else:
            bad.append(annotation)
    # An annotation with a bad box still has its class names.
    for annotation, contents in _contents(folder, sorted(bad)):
        try:
            classes.update(object_names(_raised(contents)))
        except (DecodeError, ReadError) as error:
            unreadable.append(type(error)(f"{os.fsdecode(folder.annotations + annotation)} {error}"))
    if unreadable:
        raise type(unreadable[0])(
            f"VOCReader: {unreadable[0]}; classes are found in all {len(files)} annotations of the folder, and "
            f"{len(unreadable)} cannot be read: repair or remove them, or give classes=[...]"
        )
    return sorted(classes), f"found in {len(files)} annotation{'s' * (len(files) != 1)}"


def _log_dropped(read: dict[bytes, _Read], classes: Sequence[str], root: str) -> None:
    found = (annotation for annotation in read.values() if isinstance(annotation, Annotation))
    others = Counter(name for annotation in found for name in annotation.names if name not in classes)
    if others:
        _logger.info(
            "VOCReader: %d objects of %d other classes of %r are dropped: %s",
            others.total(),
            len(others),
            root,
            shown_names([f"{name} ({count})" for name, count in others.most_common()]),
        )


def _objects(
    folder: VOCFolder,
    samples: Sequence[VOCSample],
    read: dict[bytes, _Read],
    classes: list[str],
    difficult: bool,
    one_based: bool,
    drop: bool,
) -> BoxTable:
    """Boxes of all annotations in one table; `drop` drops objects of other classes."""
    numbers = {name: number for number, name in enumerate(classes)}
    bad: dict[int, tuple[type[HighwayError], str]] = {}
    counts = np.zeros(len(samples), np.int64)
    sizes = np.zeros((len(samples), 2), np.int64)
    files = []
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    hard: list[bool] = []
    cut: list[bool] = []
    for index, sample in enumerate(samples):
        found = read[sample.annotation]
        files.append(folder.annotations + sample.annotation)
        if not isinstance(found, Annotation):
            bad[index] = found
            continue
        unknown = next((k for k, name in enumerate(found.names) if name not in numbers), None)
        if unknown is not None and not drop:
            bad[index] = (
                DecodeError,
                f"{os.fsdecode(files[-1])} object {unknown + 1}: <name> is {found.names[unknown][:100]!r}; expected "
                f"one of the classes: {', '.join(classes[:30])}{', ...' if classes[30:] else ''} "
                "(other_classes='drop' drops such objects)",
            )
            continue
        counts[index] = len(found.names)
        sizes[index] = found.height, found.width
        boxes += found.boxes
        labels += [numbers.get(name, -1) for name in found.names]
        hard += found.difficult
        cut += found.truncated
    table = np.array(boxes, np.float64).reshape(-1, 4)
    if one_based:
        table[:, :2] -= 1
    kept = (table[:, 2] > table[:, 0]) & (table[:, 3] > table[:, 1]) & (np.array(labels, np.int64) >= 0)
    if not difficult:
        kept &= ~np.array(hard, np.bool_)
    owners = np.repeat(np.arange(len(samples)), counts)
    return BoxTable(
        np.bincount(owners[kept], minlength=len(samples)).astype(np.int64),
        table[kept].astype(np.float32),
        np.array(labels, np.int64)[kept],
        {"difficult": np.array(hard, np.bool_)[kept], "truncated": np.array(cut, np.bool_)[kept]},
        sizes=sizes,
        files=files,
        bad=bad,
    )
