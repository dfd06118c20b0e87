"""ListReader: reads a list of pictures, with labels, boxes and masks from arrays, lists or manifests."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from highway.arguments import class_names, flag
from highway.arguments.options import completed, takes
from highway.arguments.signatures import check_options
from highway.errors import ArgumentError, EmptyDatasetError
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.image_reader import ImageReader
from highway.modules.readers.listing.class_names import counts_of, log_classes, warn_of_alike
from highway.modules.readers.listing.numeric_names import warn_of_order
from highway.modules.readers.manifests import Columns, Manifest, listed_csv, listed_jsonl
from highway.modules.readers.options import PictureFileOptions
from highway.modules.readers.remote_files import Listed
from highway.modules.readers.samples import Samples, checked_min_visible
from highway.modules.readers.together import Together, check_pairs, picture_columns
from highway.sampling.digests import digest
from highway.sampling.schedules import BatchSize, Shape
from highway.storage.urls import located
from highway.transforms.fit import CenterFit, Fit, Letterbox
from highway.transforms.views import Views

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["ListReader"]

Path = str | bytes | os.PathLike[str]

# Arguments that a manifest gives.
_FROM_MANIFEST = ("labels", "boxes", "masks", "pairs")


@takes(PictureFileOptions)
class ListReader(ImageReader):
    r"""Reads the pictures of a list and yields batches ``images, labels``.

    The fields are `images` and, as far as they are given, `labels`, `boxes`, `masks` and those of `pairs`, in this
    order.
    With boxes, `labels` and `boxes` are ragged: ``batch.boxes_of(i)`` and ``batch.rows_of("labels", i)`` return the
    rows of sample i. Pictures are read as by `ImageFileReader`; the paths are the keys.

    Parameters
    ----------
    paths : sequence of path or URL
        URLs are not listed: a file is asked for its size, once, before it is read.
    labels : array_like or None
        One for each picture: whole numbers (N,) or (N, K), which become int64; floats of these shapes, which become
        float32; class names (N,), str, which become class numbers, int64; or a list of class names for each picture,
        which becomes float32 (N, number of classes), 1 for the classes in the list and 0 for the others. With `boxes`:
        for each picture, one label for each of its boxes.
    batch_size : int or Schedule
    shape : int, (int, int) or Schedule, optional
        Height and width of the images in pixels; a number alone is a square. Not with `Views` and `Buckets`, which have
        their own.
    root : path or URL, optional
        Folder of the pictures and masks whose paths are relative; by default the working directory.
    classes : sequence of str, optional
        Class names in the order of their numbers; every label must be one of these numbers or names. If labels are
        names, the default is the sorted names in `labels`: give `classes`, each once, if several lists need the same
        numbers.
    boxes : sequence of array_like (n, 4), optional
        For each picture x0, y0, x1, y1 of its boxes, in pixels of the picture as it is stored; the first pixel covers 0
        to 1. They follow the picture through its orientation, fit and mirroring, and are clipped to the window: float32
        (total, 4) in pixels of the images.
    masks : sequence of path or URL, optional
        For each picture a file of class numbers: palette indices, 8 bits of gray or 1 bit, in a format that keeps every
        number (PNG, BMP, GIF, TIFF). Each mask has the size of its picture as stored, and turns with it, or that of the
        upright picture. The field is uint8 (N, H, W), sampled from the nearest pixel of the mask.
    pairs : mapping of str to (sequence of path or URL), optional
        Further pictures of each sample, such as a right one or a target, by the names of their fields, of the dtype and
        shape of the images. They get the same random numbers as the first picture; where both have the same size,
        upright, they show the same window, mirrored alike. Augmentations leave them alone, unless you name them there:
        ``Augmentations(transforms, fields={"target": "image"})``.
    min_visible : float
        0 to 1: a box is dropped if less than this fraction of its area is shown. A box with nothing shown is always
        dropped. Only with `boxes`.
    mask_fill : int
        0 to 255: value of mask pixels that the fit leaves uncovered. Only with `masks`.
    placement : bool
        Adds two extras, which map what a network finds back to the picture: `placement`, float64 (N, 3, 3), maps
        (x, y, 1) in pixels of the upright picture to pixels of the image, and Augmentations keep it up to date;
        `picture_sizes`, int64 (N, 2), is height and width of the upright picture. See `Batch.boxes_in_picture`.
    fit : Fit or Views, optional
        Which window of a picture becomes the image; by default ``Letterbox()`` with `boxes`, which shows all of them,
        otherwise ``CenterFit()``.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size, color, dtype, on_error, max_errors, exact, exif
        See `PictureFileOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range, or lengths differ; a label is a name that is not in `classes`, or some labels are
        names and others numbers; `min_visible` is given without boxes, or `mask_fill` without masks.
    EmptyDatasetError
        The list is empty.

    Attributes
    ----------
    classes : list of str or None
        As given; or the sorted names in `labels`, if these are names.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Any,
        batch_size: BatchSize,
        shape: Shape | None = None,
        *,
        root: Path | None = None,
        classes: Sequence[str] | None = None,
        boxes: Sequence[Any] | None = None,
        masks: Sequence[Path] | None = None,
        pairs: Mapping[str, Sequence[Path]] | None = None,
        min_visible: float = 0.0,
        mask_fill: int = 0,
        placement: bool = False,
        fit: Fit | Views | None = None,
        **options: Unpack[PictureFileOptions],
    ) -> None:
        options = completed(PictureFileOptions, options)
        self._names = _checked_paths("paths", paths)
        if not self._names:
            raise EmptyDatasetError("ListReader: paths is empty; expected one path or more")
        count = len(self._names)
        folder = b"" if root is None else os.path.join(os.fsencode(located(self.name, "root", root)), b"")
        listed = Listed(self.name, folder, options["storage_options"])
        self.classes = None if classes is None else class_names(self.name, classes, repeated=True)
        self._labels: NDArray[Any] | None = None
        objects = files = None
        self._objects: BoxTable | None = None
        min_visible = checked_min_visible(self.name, min_visible, boxes is not None)
        if mask_fill and masks is None:
            raise ArgumentError(f"ListReader: mask_fill is {mask_fill!r}, and there are no masks")
        if labels is not None:
            labels, self.classes = _numbered(labels, self.classes, boxes is not None)
        self._origin = ""
        if self.classes is not None:
            self._origin = "given" if classes is not None else "found in the labels"
            log_classes(self.name, self.classes, self._origin)
            warn_of_alike(self.name, self.classes, "among the labels")
            if classes is None:
                warn_of_order(self.name, self.classes)
        if boxes is not None:
            self._objects = objects = _objects(boxes, labels, count, self.classes)
        elif labels is not None:
            self._labels = _table("labels", labels)
            if len(self._labels) != count:
                raise ArgumentError(
                    f"ListReader: {len(self._labels)} labels for {count} paths; expected as many"
                )
            _check_numbers(self._labels, self.classes)
        if masks is not None:
            mask_paths = _checked_paths("masks", masks)
            if len(mask_paths) != count:
                raise ArgumentError(
                    f"ListReader: {len(mask_paths)} masks for {count} paths; expected as many"
                )
            files = listed.masks(mask_paths, mask_fill, options["max_pixels"], options["exif"])
        samples: Samples = listed.files(
            self._names,
            labels=None if self._labels is None else self._rows,
            objects=objects,
            masks=files,
            min_visible=min_visible,
            placement=flag(self.name, "placement", placement),
        )
        others = _pairs(pairs, count)
        if others:
            samples = Together(samples, {name: listed.pictures(paths) for name, paths in others.items()})
        super().__init__(
            samples,
            batch_size,
            shape,
            fit=(CenterFit() if boxes is None else Letterbox()) if fit is None else fit,
            **options,
        )
        self.annotated = tuple((name, digest(paths)) for name, paths in others.items())

    @classmethod
    def from_csv(
        cls,
        path: Path,
        batch_size: BatchSize,
        shape: Shape | None = None,
        *,
        image: str | Sequence[str] | Mapping[str, str] = "path",
        label: str | Sequence[str] | None = "class",
        boxes: Sequence[str] | None = None,
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        masks: str | None = None,
        root: Path | None = None,
        classes: Sequence[str] | None = None,
        separator: str | None = None,
        delimiter: str | None = ",",
        **options: Any,
    ) -> Self:
        """Make a reader of the pictures in a CSV file, whose first line names the columns.

        Fields may be quoted (RFC 4180). Empty lines are skipped; every other line is a sample, also if a picture comes
        again. With `boxes`, a line is one box, and the lines of a picture are one sample, at the place of its first
        line; a line without coordinates is a picture without boxes.

        A label column is numbers if all of its values are: whole numbers become int64, others float32. Otherwise, and
        if all values are in `classes`, it has class names. Values are not stripped.

        Parameters
        ----------
        path : path or URL
            UTF-8, or UTF-16 with a byte order mark.
        batch_size, shape
            See `ListReader`.
        image : str, sequence of str, or mapping of str to str
            Column of the paths of the pictures; these are the keys. Of several columns, ``("path", "target")``, the
            later ones have further pictures, which become fields of these names: see `pairs` of `ListReader`.
            ``{"images": "path", "target": "target file"}`` names the fields otherwise.
        label : str, sequence of str, or None
            Column of the labels; several columns of numbers are K labels (N, K), such as the targets of a regression.
        boxes : sequence of 4 str, optional
            Columns of the coordinates of a box, in pixels of the picture as it is stored, from 0.
        box_format : {"xyxy", "xywh"}
            Whether these are x0, y0, x1, y1, or x0, y0, width, height.
        masks : str, optional
            Column of the paths of the masks.
        root : path or URL, optional
            Folder of the pictures and masks whose paths are relative; by default that of the CSV file.
        classes : sequence of str, optional
            See `ListReader`.
        separator : str, optional
            A label is a list of class names with this between them, such as ";", or empty: `labels` are float32 (N,
            number of classes). Only without `boxes`.
        delimiter : str or None
            Character between two fields; None finds out which of ``,``, ``;``, tab and ``|`` it is.
        **options
            Other arguments of `ListReader`.

        Raises
        ------
        ArgumentError
            The file lacks a column, has one twice, or a value is not allowed; the error names the line.
        DecodeError
            The file is not such a table.
        EmptyDatasetError
            It has no samples.
        ReadError, StorageError
            It cannot be read.
        """
        check_options(f"{cls.__name__}.from_csv", cls.from_csv, cls, options, _FROM_MANIFEST)
        first, pairs = picture_columns(cls.__name__, image)
        columns = Columns(first, pairs, label, boxes, box_format, masks, classes)
        listed = listed_csv(path, columns, separator, delimiter, options.get("storage_options"))
        return cls._from_manifest(listed, batch_size, shape, root=root, classes=classes, **options)

    @classmethod
    def from_jsonl(
        cls,
        path: Path,
        batch_size: BatchSize,
        shape: Shape | None = None,
        *,
        image: str | Sequence[str] | Mapping[str, str] = "path",
        label: str | Sequence[str] | None = "class",
        boxes: str | Sequence[str] | None = None,
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        masks: str | None = None,
        root: Path | None = None,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> Self:
        """Make a reader of the pictures in a file with one JSON object per line.

        Empty lines are skipped. A name with dots, such as ``"objects.bbox"``, is a member of an object in the object.

        Parameters
        ----------
        path, batch_size, shape, image, box_format, masks, root, classes
            See `from_csv`; `root` is by default the folder of this file.
        label : str, sequence of str, or None
            Member with the label: a number, a class name, a list of class names (`labels` are then float32 (N, number
            of classes)), or a list of K numbers, as many in every line, or several members with a number each. With
            `boxes` a list with a label for each box.
        boxes : str or sequence of 4 str, optional
            Member with the boxes, a list of lists of 4 numbers; or 4 members with the coordinates of one box, as for
            `from_csv`.
        **options
            Other arguments of `ListReader`.

        Raises
        ------
        ArgumentError, DecodeError, EmptyDatasetError, ReadError, StorageError
            See `from_csv`.
        """
        check_options(f"{cls.__name__}.from_jsonl", cls.from_jsonl, cls, options, _FROM_MANIFEST)
        first, pairs = picture_columns(cls.__name__, image)
        columns = Columns(first, pairs, label, boxes, box_format, masks, classes)
        return cls._from_manifest(
            listed_jsonl(path, columns, options.get("storage_options")),
            batch_size,
            shape,
            root=root,
            classes=classes,
            **options,
        )

    @classmethod
    def _from_manifest(
        cls,
        listed: Manifest,
        batch_size: BatchSize,
        shape: Shape | None,
        root: Path | None,
        **options: Any,
    ) -> Self:
        return cls(
            listed.paths,
            listed.labels,
            batch_size,
            shape,
            root=listed.folder if root is None else root,
            boxes=listed.boxes,
            masks=listed.masks,
            pairs=listed.pairs,
            **options,
        )

    def __repr__(self) -> str:
        known = f", {len(self.classes)} classes {self._origin}" if self.classes is not None else ""
        own = f"{self.order.batch_size}, {self.shapes.plain}, fit={self.fit!r}"
        return f"<ListReader of {self.size} pictures, {own}{known}{self._drawn()}>"

    def class_counts(self) -> NDArray[np.int64]:
        """Number of pictures, or with boxes of boxes, of each class: int64 (number of classes,).

        Raises
        ------
        ArgumentError
            The labels are no classes.
        """
        labels = self._labels if self._objects is None else self._objects.labels
        return counts_of(self.name, labels, self.classes)

    def contents(self) -> tuple[bytes, Sequence[bytes]]:
        return b"ListReader", self._names

    def _rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        assert self._labels is not None
        return self._labels[indices]


def _checked_paths(name: str, paths: object) -> list[bytes]:
    if isinstance(paths, (str, bytes)) or not isinstance(paths, (Sequence, np.ndarray)):
        raise ArgumentError(f"ListReader: {name} is a {type(paths).__name__}; expected a list of paths")
    found = []
    for number_, path in enumerate(paths):
        found.append(os.fsencode(located("ListReader", f"{name}[{number_}]", path)))
    return found


def _pairs(pairs: object, count: int) -> dict[str, list[bytes]]:
    """Paths of further pictures by their fields."""
    if pairs is None:
        return {}
    if not isinstance(pairs, Mapping):
        raise ArgumentError(
            f"ListReader: pairs is a {type(pairs).__name__}; expected lists of paths by the names of fields, such as "
            "{'target': paths}"
        )
    check_pairs("ListReader", "pairs", pairs)
    found = {name: _checked_paths(f"pairs[{name!r}]", paths) for name, paths in pairs.items()}
    for name, paths in found.items():
        if len(paths) != count:
            raise ArgumentError(
                f"ListReader: pairs[{name!r}] has {len(paths)} paths, and there are {count}; expected as many"
            )
    return found


def _numbered(labels: Any, classes: list[str] | None, boxed: bool) -> tuple[Any, list[str] | None]:
    """Labels with names replaced by numbers, and the classes; both unchanged if no label is a name."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind not in "UO":
        return labels, classes
    if not boxed and (sets := _sets(labels)) is not None:
        return _many_hot(sets, classes)
    rows = [_listed(row) for row in _listed(labels)] if boxed else [_listed(labels)]
    flat = list(itertools.chain.from_iterable(rows))
    named = [isinstance(label, str) for label in flat]

    def place(k: int) -> str:
        if not boxed:
            return f"labels[{k}]"
        ends = list(itertools.accumulate(map(len, rows)))
        row = bisect.bisect_right(ends, k)
        return f"labels[{row}][{k - ends[row] + len(rows[row])}]"

    if boxed:
        for number_, row in enumerate(_listed(labels)):
            if isinstance(row, str):
                raise ArgumentError(
                    f"ListReader: labels[{number_}] is {row!r}; expected a list, with a label for each box"
                )
    if not any(named):
        return labels, classes
    if not all(named):
        name, other = named.index(True), named.index(False)
        raise ArgumentError(
            f"ListReader: {place(name)} is {flat[name]!r} and {place(other)} is {flat[other]!r}; expected all "
            "labels to be names of classes, or none"
        )
    known = sorted({*flat}) if classes is None else class_names("ListReader", classes)
    numbers = {name: number_ for number_, name in enumerate(known)}
    for k, name in enumerate(flat):
        if name not in numbers:
            raise ArgumentError(_no_class(place(k), name, known))
    found = [[numbers[name] for name in row] for row in rows]
    return (found if boxed else found[0]), [str(name) for name in known]


def _sets(labels: Any) -> list[list[Any]] | None:
    """Labels as a list of class names for each picture; None if they are something else."""
    rows = _listed(labels)
    if not all(
        isinstance(row, (list, tuple)) or (isinstance(row, np.ndarray) and row.ndim == 1) for row in rows
    ):
        return None
    sets = [list(row) for row in rows]
    return sets if any(isinstance(label, str) for row in sets for label in row) else None


def _many_hot(sets: list[list[Any]], classes: list[str] | None) -> tuple[NDArray[np.float32], list[str]]:
    """Labels float32 (N, number of classes), 1 for every class of a picture; and the classes."""
    for place, label in (
        (f"{row}][{k}", label) for row, one in enumerate(sets) for k, label in enumerate(one)
    ):
        if not isinstance(label, str):
            raise ArgumentError(
                f"ListReader: labels[{place}] is {label!r}; expected names of classes, as in others"
            )
    known = sorted({*itertools.chain.from_iterable(sets)}) if classes is None else classes
    numbers = {name: number_ for number_, name in enumerate(class_names("ListReader", known))}
    labels = np.zeros((len(sets), len(known)), np.float32)
    for row, names in enumerate(sets):
        for k, name in enumerate(names):
            if name not in numbers:
                raise ArgumentError(_no_class(f"labels[{row}][{k}]", name, known))
            labels[row, numbers[name]] = 1.0
    return labels, [str(name) for name in known]


def _no_class(place: str, name: str, known: Sequence[str]) -> str:
    shown = f"{', '.join(known[:30])}{', ...' if known[30:] else ''}"
    return f"ListReader: {place} is {name!r}; expected one of the classes: {shown}"


def _listed(labels: Any) -> list[Any]:
    """Labels as a list; an empty one if they are not a list, which the caller's checks refuse."""
    if isinstance(labels, (str, bytes)):
        return []
    try:
        return list(labels)
    except TypeError:
        return []


def _table(name: str, values: Any) -> NDArray[Any]:
    """Labels as an int64 or float32 array with a row for each sample, or box."""
    try:
        table = np.asarray(values)
    except ValueError:
        table = np.empty(1, object)
    if table.ndim not in (1, 2) or (table.dtype.kind not in "iuf" and table.size):
        raise ArgumentError(
            f"ListReader: {name} is an array of {table.dtype} and shape {table.shape}; expected whole numbers or "
            "floats, (N,) or (N, K)"
        )
    return np.array(table, np.float32 if table.dtype.kind == "f" and table.size else np.int64)


def _check_numbers(labels: NDArray[Any], classes: list[str] | None) -> None:
    if classes is not None and labels.dtype == np.int64 and labels.ndim == 1 and labels.size:
        low, high = labels.min(), labels.max()
        if low < 0 or high >= len(classes):
            raise ArgumentError(
                f"ListReader: labels run from {low} to {high}; expected 0 to {len(classes) - 1}, numbers of classes"
            )


def _objects(boxes: Sequence[Any], labels: Any, count: int, classes: list[str] | None) -> BoxTable:
    if len(boxes) != count:
        raise ArgumentError(f"ListReader: boxes of {len(boxes)} pictures for {count} paths; expected as many")
    tables = [_box_table(number_, one) for number_, one in enumerate(boxes)]
    counts = np.array([len(table) for table in tables], np.int64)
    flat = None
    if labels is not None:
        if len(labels) != count:
            raise ArgumentError(
                f"ListReader: labels of {len(labels)} pictures for {count} paths; expected as many"
            )
        rows = [_table(f"labels[{number_}]", one) for number_, one in enumerate(labels)]
        for number_, (row, table) in enumerate(zip(rows, tables, strict=True)):
            if len(row) != len(table):
                raise ArgumentError(
                    f"ListReader: labels[{number_}] has {len(row)} labels, boxes[{number_}] {len(table)} boxes; "
                    "expected as many"
                )
        filled = [row for row in rows if len(row)]
        flat = _table("labels", np.concatenate(filled) if filled else [])
        _check_numbers(flat, classes)
    return BoxTable(counts, np.concatenate(tables), flat)


def _box_table(number_: int, boxes: Any) -> NDArray[np.float32]:
    try:
        table = np.asarray(boxes, np.float32)
    except (ValueError, TypeError):
        table = np.full((1, 4), np.nan, np.float32)
    if not table.size:
        table = table.reshape(0, 4)
    if table.ndim != 2 or table.shape[1] != 4 or not np.isfinite(table).all():
        raise ArgumentError(f"ListReader: boxes[{number_}] is {boxes!r}; expected finite numbers, (n, 4)")
    if (table[:, :2] > table[:, 2:]).any():
        raise ArgumentError(
            f"ListReader: boxes[{number_}] is {boxes!r}; expected x0, y0, x1, y1 with the smaller first; if these are "
            "x, y, width, height, add the first two to the last two"
        )
    return table
