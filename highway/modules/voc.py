"""VOCReader: pictures with boxes, and masks, from a folder in the format of Pascal VOC."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from highway.arguments import flag, number, whole
from highway.errors import (
    ArgumentError,
    DatasetError,
    DecodeError,
    EmptyDatasetError,
    HighwayError,
    ReadError,
)
from highway.modules.annotations import Annotation, read_annotation
from highway.modules.files import read_whole
from highway.modules.folders import EXTENSIONS
from highway.modules.images import MAX_PIXELS, ImageReader
from highway.modules.masks import MaskFiles
from highway.modules.objects import Objects
from highway.modules.samples import Files
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
"""The classes of Pascal VOC, as its development kit sorts them."""

_LARGEST_LIST = 1 << 28


class VOCReader(ImageReader):
    """Reads a folder in the format of Pascal VOC and hands out batches ``images, labels, boxes``.

    `labels` are int64 (total,), `boxes` float32 (total, 4): x0, y0, x1, y1 in pixels of the images, of all samples one
    after the other; ``batch.boxes_of(i)`` and ``batch.rows_of("labels", i)`` give those of a sample. The extras
    `difficult` and `truncated` are bool (total,). With `masks`, these are the last field. Pictures are read as
    `ImageFileReader` reads them; annotations once, at the beginning.

    The folder holds ``JPEGImages/NAME.jpg`` (or another ending of a picture), ``Annotations/NAME.xml``, lists of names
    in ``ImageSets/Main/SPLIT.txt`` and masks in ``SegmentationClass/NAME.png``.

    Coordinates are continuous: the first pixel covers 0 to 1. VOC counts from 1, and the last pixel is inside, so a box
    is (xmin - 1, ymin - 1, xmax, ymax). Boxes go with the picture through its orientation, fit and mirroring.

    Parameters
    ----------
    root : path
        The folder.
    batch_size : int
    shape : (int, int)
        Height and width of the images in pixels.
    split : str or None
        Which list of names: "train" stands for ``ImageSets/Main/train.txt``, or, with `masks`, for
        ``ImageSets/Segmentation/train.txt`` where there is one. A line begins with the name; what follows in lists of
        one class, -1, 0 or 1, is not looked at. None: every picture that has an annotation, sorted.
    fit : Fit, optional
        Which window of a picture becomes the image; by default ``Letterbox()``, which shows all of it.
    classes : sequence of str, optional
        The classes in the order of their labels; an object of another class makes its sample a bad one. By default
        `VOC_CLASSES`, where the folder has no others, or else those of all annotations of the folder, sorted, so that
        every split has the same.
    masks : bool
        Whether batches end with `masks`, uint8 (N, H, W): numbers of classes as the files have them, 255 for borders in
        VOC's own.
    difficult : bool
        False: leave out the objects that are marked difficult.
    one_based : bool
        False: the annotations count from 0 and their ends are outside; boxes are taken as they are written.
    min_visible : float
        0 to 1: boxes are left out of which less than this part of their area is shown. Those with nothing are in any
        case.
    mask_fill : int
        0 to 255, for what the fit leaves uncovered of a mask.
    placement : bool
        Whether batches have two extras, to go back to the picture with what a network finds: `placement`, float64
        (N, 3, 3), takes (x, y, 1) in pixels of the upright picture to pixels of the image, and Augmentations keep it up
        to date; `picture_sizes`, int64 (N, 2), is height and width of the upright picture. See
        `Batch.boxes_in_picture`.
    shuffle, seed, epochs, shard, drop_last, color, exif, on_error, max_errors, exact, max_pixels, workers, queue_size
        As `ImageFileReader` says. What is wrong with the annotation or the mask of a sample is wrong with the sample.

    Raises
    ------
    ArgumentError
        An argument is outside of what is allowed.
    DatasetError
        The folder, one of the folders in it, or the list is missing.
    EmptyDatasetError
        There are no samples.

    Attributes
    ----------
    classes : list of str
        Names of the classes, in the order of their labels.

    Notes
    -----
    Of an annotation, this is repaired: boxes are clipped to the picture; those without area are left out; where
    ``<size>`` is missing or 0 x 0, the size of the picture is taken. This is an error that names the file and the
    element: XML that is not well formed, or not in its declared encoding; a document type; more than 8 MiB; an object
    without name or box; coordinates that are no numbers, or of which the smaller one does not come first; an unknown
    class; a ``<size>`` that differs from that of the picture.
    Boxes belong to the picture as it is stored; to the upright one where ``<size>`` is that of the upright one alone.

    M. Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 88, 2010.
    """

    def __init__(
        self,
        root: str | bytes | os.PathLike[str],
        batch_size: int,
        shape: tuple[int, int],
        *,
        split: str | None = "train",
        fit: Fit | None = None,
        classes: Sequence[str] | None = None,
        masks: bool = False,
        difficult: bool = True,
        one_based: bool = True,
        min_visible: float = 0.0,
        mask_fill: int = 0,
        placement: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        epochs: int | None = None,
        shard: tuple[int, int] = (0, 1),
        drop_last: bool = False,
        color: str = "rgb",
        exif: bool = True,
        on_error: str = "raise",
        max_errors: int | float | None = None,
        exact: bool = False,
        max_pixels: int = MAX_PIXELS,
        workers: int | None = None,
        queue_size: int = 4,
    ) -> None:
        min_visible = number(self.name, "min_visible", min_visible, 0.0, 1.0)
        difficult = flag(self.name, "difficult", difficult)
        one_based = flag(self.name, "one_based", one_based)
        masks = flag(self.name, "masks", masks)
        mask_fill = whole(self.name, "mask_fill", mask_fill, 0, 255)
        given = None if classes is None else _checked_classes(classes)
        folder = _Folder(root)
        stems = folder.stems(split, masks)
        self.split = split
        self.annotated = difficult, one_based
        self.root = os.fsdecode(folder.root)
        read = {stem: folder.annotation(stem) for stem in stems}
        self.classes = folder.classes(read) if given is None else given
        objects = _objects(folder, [(stem, read[stem]) for stem in stems], self.classes, difficult, one_based)
        self._names = folder.pictures(stems)
        files = None
        if masks:
            folder.listed(b"SegmentationClass", "masks=True needs one of masks, NAME.png for each picture")
            paths = [folder.path(b"SegmentationClass", stem + b".png") for stem in stems]
            files = MaskFiles(paths, mask_fill, max_pixels, self.name, exif)
        super().__init__(
            Files(
                folder.path(b"JPEGImages", b""),
                self._names,
                f"in {self.root!r}",
                objects=objects,
                masks=files,
                min_visible=min_visible,
                placement=flag(self.name, "placement", placement),
            ),
            batch_size,
            shape,
            fit=Letterbox() if fit is None else fit,
            shuffle=shuffle,
            seed=seed,
            epochs=epochs,
            shard=shard,
            drop_last=drop_last,
            color=color,
            exif=exif,
            on_error=on_error,
            max_errors=max_errors,
            exact=exact,
            max_pixels=max_pixels,
            workers=workers,
            queue_size=queue_size,
        )

    def __repr__(self) -> str:
        own = f"{self.root!r}, {self.order.batch_size}, {self.shape}, split={self.split!r}"
        return f"VOCReader({own}, fit={self.fit!r})"

    def contents(self) -> tuple[bytes, Sequence[bytes], list[bytes]]:
        return b"VOCReader", self._names, [name.encode("utf-8", "surrogateescape") for name in self.classes]


# An annotation, or what is wrong with it.
_Read = Annotation | tuple[type[HighwayError], str]


class _Folder:
    """What lies where in a folder of VOC."""

    def __init__(self, root: str | bytes | os.PathLike[str]) -> None:
        self.root = os.path.join(os.fsencode(root), b"")
        self._annotations = {name[:-4] for name in self.listed(b"Annotations") if name.endswith(b".xml")}
        self._pictures: dict[bytes, bytes] = {}
        # Of several with one stem the .jpg counts, or else the first.
        for name in sorted(self.listed(b"JPEGImages"), key=lambda name: (not name.endswith(b".jpg"), name)):
            stem, ending = os.path.splitext(name)
            if ending.lower() in EXTENSIONS:
                self._pictures.setdefault(stem, name)

    def path(self, *parts: bytes) -> bytes:
        return os.path.join(self.root, *parts)

    def listed(
        self, part: bytes, hint: str = "expected a folder with JPEGImages, Annotations and ImageSets in it"
    ) -> list[bytes]:
        """Names in a folder; DatasetError where that is none."""
        try:
            return [name for name in os.listdir(self.path(part)) if not name.startswith(b".")]
        except OSError as error:
            raise DatasetError(
                f"VOCReader: {os.fsdecode(self.path(part))!r} cannot be listed: {error.strerror}; {hint}"
            ) from None

    def stems(self, split: object, masks: bool) -> list[bytes]:
        """Names of the samples, without endings."""
        if split is None:
            found, where = sorted(self._annotations), self.path(b"Annotations")
        elif isinstance(split, str) and split:
            where = self._list(split, masks)
            found = _lines(where)
        else:
            raise ArgumentError(
                f"VOCReader: split is {split!r}; expected the name of a list, such as 'train', or None"
            )
        if not found:
            raise EmptyDatasetError(f"VOCReader: {os.fsdecode(where)!r} names no samples")
        return found

    def _list(self, split: str, masks: bool) -> bytes:
        name = os.fsencode(split) + b".txt"
        kinds = (b"Segmentation", b"Main") if masks else (b"Main",)
        for kind in kinds:
            path = self.path(b"ImageSets", kind, name)
            if os.path.exists(path):
                return path
        try:
            there = sorted(
                os.fsdecode(found)[:-4] for found in self.listed(b"ImageSets/Main") if found.endswith(b".txt")
            )
        except DatasetError:
            there = []
        known = (
            f"it has {', '.join(there[:12])}{', ...' if there[12:] else ''}" if there else "it has no lists"
        )
        raise DatasetError(
            f"VOCReader: split is {split!r}, and there is no {os.fsdecode(path)!r}; {known}; "
            "split=None reads everything that has an annotation"
        )

    def annotation(self, stem: bytes) -> _Read:
        path = self.annotation_path(stem)
        try:
            return read_annotation(path)
        except (DecodeError, ReadError) as error:
            return type(error), f"{os.fsdecode(path)} {error}"

    def annotation_path(self, stem: bytes) -> bytes:
        return self.path(b"Annotations", stem + b".xml")

    def pictures(self, stems: Sequence[bytes]) -> list[bytes]:
        """File name of every picture; where there is none, the one that is missing."""
        return [self._pictures.get(stem, stem + b".jpg") for stem in stems]

    def classes(self, read: dict[bytes, _Read]) -> list[str]:
        """Classes of all annotations of the folder; `read` are those that were read already."""
        found: set[str] = set()
        for stem in self._annotations:
            annotation = read.get(stem) or self.annotation(stem)
            if isinstance(annotation, Annotation):
                found.update(annotation.names)
        return list(VOC_CLASSES) if found <= {*VOC_CLASSES} else sorted(found)


def _lines(path: bytes) -> list[bytes]:
    """Names in a list: the lines, without what follows the name in lists of one class."""
    try:
        contents = read_whole(path, _LARGEST_LIST)
    except ReadError as error:
        raise DatasetError(f"VOCReader: {os.fsdecode(path)!r} {error}") from None
    if b"\0" in contents:
        raise DatasetError(f"VOCReader: {os.fsdecode(path)!r} is no text in UTF-8: it has zeros in it")
    names = []
    for line in contents.removeprefix(b"\xef\xbb\xbf").splitlines():
        parts = line.split()
        if len(parts) > 1 and parts[-1] in (b"-1", b"0", b"1"):
            line = line.rstrip()[: -len(parts[-1])]
        if parts:
            names.append(line.strip())
    return names


def _checked_classes(classes: object) -> list[str]:
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        names = list(classes)
        if names and all(isinstance(name, str) for name in names) and len({*names}) == len(names):
            return names
    raise ArgumentError(f"VOCReader: classes is {classes!r}; expected names, each once")


def _objects(
    folder: _Folder, read: Sequence[tuple[bytes, _Read]], classes: list[str], difficult: bool, one_based: bool
) -> Objects:
    """All annotations in arrays."""
    numbers = {name: number for number, name in enumerate(classes)}
    bad: dict[int, tuple[type[HighwayError], str]] = {}
    counts = np.zeros(len(read), np.int64)
    sizes = np.zeros((len(read), 2), np.int64)
    files = []
    boxes: list[tuple[float, float, float, float]] = []
    labels: list[int] = []
    hard: list[bool] = []
    cut: list[bool] = []
    for index, (stem, found) in enumerate(read):
        files.append(folder.annotation_path(stem))
        if not isinstance(found, Annotation):
            bad[index] = found
            continue
        unknown = next((k for k, name in enumerate(found.names) if name not in numbers), None)
        if unknown is not None:
            bad[index] = (
                DecodeError,
                f"{os.fsdecode(files[-1])} object {unknown + 1}: <name> is {found.names[unknown][:100]!r}; expected "
                f"one of the classes: {', '.join(classes[:30])}{', ...' if classes[30:] else ''}",
            )
            continue
        counts[index] = len(found.names)
        sizes[index] = found.height, found.width
        boxes += found.boxes
        labels += [numbers[name] for name in found.names]
        hard += found.difficult
        cut += found.truncated
    table = np.array(boxes, np.float64).reshape(-1, 4)
    if one_based:
        table[:, :2] -= 1
    kept = (table[:, 2] > table[:, 0]) & (table[:, 3] > table[:, 1])
    if not difficult:
        kept &= ~np.array(hard, np.bool_)
    owners = np.repeat(np.arange(len(read)), counts)
    return Objects(
        np.bincount(owners[kept], minlength=len(read)).astype(np.int64),
        table[kept].astype(np.float32),
        np.array(labels, np.int64)[kept],
        {"difficult": np.array(hard, np.bool_)[kept], "truncated": np.array(cut, np.bool_)[kept]},
        sizes=sizes,
        files=files,
        bad=bad,
    )
