"""TableReader: reads pictures and everything about them from the columns of a table."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from highway.arguments import flag, whole
from highway.arguments.options import completed, takes
from highway.batch import is_field_name
from highway.errors import ArgumentError, EmptyDatasetError, MissingPackageError
from highway.modules.readers.image_reader import ImageReader
from highway.modules.readers.listing.class_names import counts_of, log_classes, warn_of_alike
from highway.modules.readers.listing.numeric_names import warn_of_order
from highway.modules.readers.options import PictureFileOptions
from highway.modules.readers.samples import OWN_FIELDS, Samples, checked_min_visible
from highway.modules.readers.together import Together, picture_columns
from highway.sampling.schedules import BatchSize, Shape
from highway.storage.urls import located
from highway.transforms.fit import CenterFit, Fit, Letterbox
from highway.transforms.views import Views

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from highway.modules.readers.tables.rows import Rows

__all__ = ["TableReader", "need_pyarrow"]

logger = logging.getLogger("highway.modules")


def need_pyarrow(owner: str) -> None:
    """Raise MissingPackageError if pyarrow is not installed, which opens tables."""
    try:
        import pyarrow
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            f"{owner}: the package pyarrow is not installed: pip install pyarrow"
        ) from None


@takes(PictureFileOptions)
class TableReader(ImageReader):
    """Reads the pictures in a column of a table and yields batches ``images, labels``, and further columns as fields.

    The table is a Parquet file, or several, an Arrow file, or in memory: a `pyarrow.Table`, a `datasets.Dataset` of
    Hugging Face, or a data frame of pandas or polars. A column has the files of the pictures as bytes, which are
    decoded where they lie, or their paths, or structs of both (``bytes`` and ``path``). All other columns that you name
    are read when the reader is made, and stay in memory. A column may be a field of the structs, or lists of structs,
    in another one: ``"objects.bbox"``. Pictures are read as by `ImageFileReader`.

    Of Parquet files with pictures as bytes, row groups are decoded as a whole, once in an epoch. With `shuffle`, the
    row groups come in a new order each epoch, and the samples of some of them at a time, a window, are mixed: see
    `window_bytes`. Everything else is shuffled as a whole, as by the other readers.

    Parameters
    ----------
    table : path or URL, sequence of these, or table
        Files, patterns such as ``"train-*.parquet"`` or ``"train-{000..127}.parquet"``, local folders of ``.parquet``
        or ``.arrow`` files; all with the same columns. Parquet files may be at URLs. Or a table in memory.
    batch_size : int or Schedule
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`.
    shape : int, (int, int) or Schedule, optional
        Height and width of the images in pixels; a number alone is a square. Not with `Views` and `Buckets`, which have
        their own.
    image : str, sequence of str, or mapping of str to str
        Column of the pictures. Of several columns, ``("image", "target")``, the later ones have further pictures, which
        become fields of these names, of the dtype and shape of the images: see `pairs` of `ListReader`.
        ``{"images": "image", "target": "a column"}`` names the fields otherwise.
    label : str or None
        Column of the labels: whole numbers or bools become int64 (N,); floats, float32 (N,); names of classes, int64
        (N,), their numbers; lists of names of classes, or of their numbers if the classes are known, float32 (N, number
        of classes), 1 for the classes in the list; other lists of numbers of one length, (N, K). With `boxes`: lists
        with a label for each box. None for no labels.
    key : str, optional
        Column of the keys. By default these are the paths, if the pictures are paths, or else the numbers of the rows.
    fields : sequence of str, or mapping of str to str
        Further columns, or the names of fields with their columns. Numbers keep their dtype (N,); texts become str (N,)
        and bytes ``S`` (N,), as long as the longest of the column; lists of numbers of one length (N, K), of a
        fixed-size list also (N, K, L). Lists of different lengths are ragged extras; with `boxes`, a list with a value
        for each box is one whose rows follow the boxes. All ragged lists need the same lengths.
    boxes : str, or sequence of 4 str, optional
        Column of the boxes, lists of lists of 4 numbers (or of one box as 4 numbers); or 4 columns of numbers, one box
        for each row, null for none. In pixels of the picture as it is stored; see `ListReader`.
    box_format : {"xyxy", "xywh"}
        Whether a box is x0, y0, x1, y1, or x0, y0, width, height.
    masks : str, optional
        Column of the masks, as bytes or paths: PNG, BMP, GIF or TIFF files of class numbers, as for `ListReader`.
    root : path or URL, optional
        Folder of the pictures and masks whose paths are relative; by default that of the (first) file of the table, or
        the working directory for a table in memory.
    classes : sequence of str, optional
        Class names in the order of their numbers. By default those that the table states (`datasets.ClassLabel`), or
        the sorted names in the labels.
    min_visible : float
        0 to 1: a box is dropped if less than this fraction of its area is shown. A box with nothing shown is always
        dropped. Only with `boxes`.
    mask_fill : int
        0 to 255: value of mask pixels that the fit leaves uncovered. Only with `masks`.
    placement : bool
        Adds the extras `placement` and `picture_sizes`: see `ListReader`.
    fit : Fit or Views, optional
        Which window of a picture becomes the image; by default ``Letterbox()`` with `boxes`, otherwise ``CenterFit()``.
    window_bytes : int
        For Parquet files with pictures as bytes: a window has as many row groups as surely have this many decoded bytes
        together, at least one. The reader holds up to two windows: the current one, and the next, which is decoded
        meanwhile. If all row groups fit into one window, the whole table is shuffled. The order, and a saved state,
        depend on the number of row groups in a window.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size, color, dtype, on_error, max_errors, exact, exif
        See `PictureFileOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range, there is no such column, or its type or a value is not allowed.
    DecodeError
        A file is damaged, or no table. A damaged row group is found when it is read: its rows are bad samples.
    EmptyDatasetError
        The table has no rows, or no file matches.
    MissingPackageError
        pyarrow is not installed.
    ReadError, StorageError
        A file cannot be read.

    Notes
    -----
    A row without a picture, a mask, a label, boxes or a value of a field (null) is a bad sample. The fingerprint, which
    ties a saved state to its data, covers the number of rows, the labels and the keys. Do not write to files that are
    in use: a Parquet file that was changed raises DatasetError; if an Arrow file, which is memory-mapped, was
    shortened, or its storage fails, the operating system ends the process (SIGBUS).

    Attributes
    ----------
    classes : list of str or None
        Class names in the order of their numbers, if they are known.
    """

    _rows: Rows

    def __init__(
        self,
        table: Any,
        batch_size: BatchSize,
        shape: Shape | None = None,
        *,
        image: str | Sequence[str] | Mapping[str, str] = "image",
        label: str | None = "label",
        key: str | None = None,
        fields: Sequence[str] | Mapping[str, str] = (),
        boxes: str | Sequence[str] | None = None,
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        masks: str | None = None,
        root: str | bytes | os.PathLike[str] | None = None,
        classes: Sequence[str] | None = None,
        min_visible: float = 0.0,
        mask_fill: int = 0,
        placement: bool = False,
        fit: Fit | Views | None = None,
        window_bytes: int = 256 << 20,
        **options: Unpack[PictureFileOptions],
    ) -> None:
        options = completed(PictureFileOptions, options)
        first, pairs = picture_columns(self.name, image)
        given: list[tuple[str, Any]] = [("label", label), ("key", key), ("masks", masks)]
        for name, value in given:
            if not (isinstance(value, str) or value is None):
                raise self._refused(name, value, "the name of a column")
        if mask_fill and masks is None:
            raise ArgumentError(f"{self.name}: mask_fill is {mask_fill!r}, and there are no masks")
        self._choice("box_format", box_format, ("xyxy", "xywh"))
        min_visible = checked_min_visible(self.name, min_visible, boxes is not None)
        self._window_bytes = whole(self.name, "window_bytes", window_bytes, 1)
        chosen = self._fields(fields)
        for name in chosen:
            if name in pairs:
                raise ArgumentError(f"{self.name}: fields has {name!r}, and image too; expected other names")
        sides = self._sides(boxes)
        need_pyarrow(self.name)
        # Late: they need pyarrow.
        from highway.modules.readers.tables.masks import RowMasks
        from highway.modules.readers.tables.opening import opened
        from highway.modules.readers.tables.rows import Rows, Wanted

        data = opened(self.name, table, options["storage_options"])
        if not data.size:
            raise EmptyDatasetError(f"{self.name}: {data.where} has no rows")
        folder = data.folder if root is None else located(self.name, "root", root)
        wanted = Wanted(
            first,
            label,
            key,
            chosen,
            sides,
            box_format,
            None if classes is None else [*classes],
            folder,
            options["storage_options"],
        )

        def rows_of(one: Wanted) -> Rows:
            return Rows(self.name, data, one, self._window_bytes, options["prefetch_bytes"])

        rows = self._rows = rows_of(wanted)
        rows.min_visible, rows.placement = min_visible, flag(self.name, "placement", placement)
        self.classes = rows.classes
        others = {name: rows_of(wanted.files_in(column)) for name, column in pairs.items()}
        files = None if masks is None else rows_of(wanted.files_in(masks))
        every = [rows, *others.values(), *([] if files is None else [files])]
        samples: Samples = rows
        if every[1:]:
            rows.together_with(every[1:])
            mask_options = mask_fill, options["max_pixels"], self.name, options["exif"]
            samples = Together(
                rows,
                others,
                files,
                None if files is None else lambda rows, files: rows.masked_by(RowMasks(files, *mask_options)),
            )
        super().__init__(
            samples,
            batch_size,
            shape,
            fit=(Letterbox() if rows.boxed else CenterFit()) if fit is None else fit,
            **options,
        )
        if every[1:]:
            self.annotated = ("files", pairs, masks)
        for one in every:
            one.cache = self._cache
        if self.classes is not None:
            log_classes(self.name, self.classes, rows.origin)
            warn_of_alike(self.name, self.classes, "among the labels")
            if rows.origin == "found in the labels":
                warn_of_order(self.name, self.classes)

    def __repr__(self) -> str:
        known = f", {len(self.classes)} classes {self._rows.origin}" if self.classes is not None else ""
        windows = f", windows of {self.order.window} row groups" if self.order.window is not None else ""
        own = f"{self.order.batch_size}, {self.shapes.plain}, fit={self.fit!r}"
        return f"<TableReader of {self.size} rows {self._rows.where}, {own}{known}{windows}{self._drawn()}>"

    def _fields(self, fields: Any) -> dict[str, str]:
        """The columns of the fields, by the names of the fields."""
        if isinstance(fields, str) or not isinstance(fields, (Sequence, Mapping)):
            raise self._refused(
                "fields", fields, "names of columns, or a mapping of names of fields to columns"
            )
        chosen = dict(fields) if isinstance(fields, Mapping) else {name: name for name in fields}
        for name, column in chosen.items():
            if not isinstance(column, str) or not is_field_name(name) or name in OWN_FIELDS:
                raise ArgumentError(
                    f"{self.name}: fields has {name!r} for the column {column!r}; expected an identifier that is not "
                    f"an attribute of Batch or one of {', '.join(OWN_FIELDS)}: give fields={{name: column}}"
                )
        return chosen

    def _sides(self, boxes: Any) -> list[str]:
        if boxes is None:
            return []
        sides = [boxes] if isinstance(boxes, str) else list(boxes) if isinstance(boxes, Sequence) else []
        if not all(isinstance(side, str) for side in sides) or len(sides) not in (1, 4):
            raise self._refused("boxes", boxes, "the name of a column, or the names of 4 columns")
        return sides

    def _windows(self) -> tuple[NDArray[np.int64], int] | None:
        return self._rows.windows()

    def class_counts(self) -> NDArray[np.int64]:
        """Number of pictures, or with boxes of boxes, of each class: int64 (number of classes,).

        Raises
        ------
        ArgumentError
            The labels are no classes.
        """
        return counts_of(self.name, self._rows.all_labels(), self.classes)

    def contents(self) -> Iterable[bytes | Iterable[bytes]]:
        yield b"TableReader"
        yield from self._rows.contents()
