"""ImageFileReader: reads a folder with one sub-folder of pictures per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from highway.arguments.options import completed, takes
from highway.modules.readers.image_reader import ImageReader
from highway.modules.readers.listing.class_folders import list_class_folders
from highway.modules.readers.listing.skipped_files import logger
from highway.modules.readers.masks import mask_paths
from highway.modules.readers.options import PictureFileOptions
from highway.modules.readers.remote_files import files_of, masks_of
from highway.sampling.schedules import BatchSize, Shape
from highway.storage.access import Access
from highway.storage.folders import folder_at
from highway.transforms.fit import CenterFit, Fit
from highway.transforms.views import Views

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ImageFileReader"]


@takes(PictureFileOptions)
class ImageFileReader(ImageReader):
    """Reads ``data_dir/CLASS/.../picture`` and yields batches ``images, labels``.

    JPEGs are decoded without the GIL: only the window that the fit chose, at a reduced scale where the window is at
    least four times as large as the image, resampled row by row into the batch. Highway's own decoder decodes
    sequential JPEGs at full scale and gives the same bits as libjpeg-turbo; libjpeg-turbo decodes all other JPEGs and
    checks the damaged ones. Sound PNGs and WebPs are decoded without the GIL too; PIL decodes all other formats and
    checks the damaged files. Links are followed.
    Workers share batches that are large in pictures or in bytes; each small batch is made by one worker. The first
    flips of the Augmentations after the reader, and a `Normalize`, `Rescale` or `ToFloat` after those flips, are fused
    into the reader.
    The classes are the sorted names of the sub-folders, or `classes`: give `classes` wherever two folders need the
    same labels. Skipped files and folders in `data_dir` are counted: names that begin with a dot, files that systems
    create, such as ``@eaDir``, files without the ending of a picture, pictures outside of the class folders.
    ``repr(reader)`` shows the counts, and the logger ``highway.modules`` logs them once, as a warning if you may miss
    some of the files.

    Parameters
    ----------
    data_dir : path or URL
        Folder with one sub-folder for each class; a URL such as ``s3://bucket/folder`` is listed once, now.
    batch_size : int or Schedule
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`. A `highway.sampling.schedule`
        gives each epoch another number.
    shape : int, (int, int) or Schedule, optional
        Height and width of the images in pixels; a number alone is a square. A schedule gives each epoch another
        one. Not with the fits `Views` and `Buckets`, which have their own.
    classes : sequence of str, optional
        Names of the sub-folders in the order of their labels, each once. Some of them may be missing or have no
        pictures, as in a folder for validation: ``ImageFileReader(val, ..., classes=train_reader.classes)``. Any other
        sub-folder raises an ArgumentError.
    fit : Fit or Views
        Which window of a picture becomes the image: `CenterFit`, `RandomResizedCrop`, `Letterbox`, `Stretch`, or a
        `Fit` of your own. `Views` make several images of each picture, as fields in the place of `images`.
    labels : {"index", "one_hot"}
        int64 (N,), or float32 (N, number of classes).
    masks_dir : path or URL, optional
        Folder with a mask for every picture, under the same relative name with the ending ``.png``: class numbers as
        palette indices, 8 bits of gray or 1 bit. The batches then end with `masks`, uint8 (N, H, W), sampled from the
        nearest pixel of the mask. A mask that is missing, or whose size is not that of its picture, makes the sample a
        bad one.
    mask_fill : int
        0 to 255: value of mask pixels that the fit leaves uncovered.
    index : path, optional
        For a URL: file that keeps its listing, as `highway index` writes it; written now if it does not exist.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size, color, dtype, on_error, max_errors, exact, exif
        See `PictureFileOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range; a folder is not in `classes`.
    DatasetError
        `data_dir` or `masks_dir` is not a folder, a folder cannot be read, or two pictures have the same mask.
    EmptyDatasetError
        There are no class folders, or one has no pictures and `classes` is not given.
    StorageError
        The storage failed for more than 30 s: here while the folders are listed, later with a batch.

    Attributes
    ----------
    classes : list of str
        Names of the classes, in the order of their labels.
    skipped : SkippedFiles
        Files and folders in `data_dir` that the reader does not read; ``str()`` sums them up in one line.
    """

    def __init__(
        self,
        data_dir: str | bytes | os.PathLike[str],
        batch_size: BatchSize,
        shape: Shape | None = None,
        *,
        classes: Sequence[str] | None = None,
        fit: Fit | Views | None = None,
        labels: Literal["index", "one_hot"] = "index",
        masks_dir: str | bytes | os.PathLike[str] | None = None,
        mask_fill: int = 0,
        index: str | os.PathLike[str] | None = None,
        **options: Unpack[PictureFileOptions],
    ) -> None:
        options = completed(PictureFileOptions, options)
        self._choice("labels", labels, ("index", "one_hot"))
        self._one_hot = labels == "one_hot"
        self._folders = list_class_folders(data_dir, classes, Access.of(self.name, options, index))
        self._given = classes is not None
        self.classes = self._folders.classes
        self.skipped = self._folders.skipped
        root, names = self._folders.root, self._folders.names
        masks = None
        if masks_dir is not None:
            folder, tree = folder_at(self.name, "masks_dir", masks_dir, Access.of(self.name, options))
            paths = mask_paths(folder, tree, names, self.name)
            masks = masks_of(tree, paths, mask_fill, options["max_pixels"], self.name, options["exif"])
        super().__init__(
            files_of(self._folders.tree, root, names, self.name, labels=self._labels, masks=masks),
            batch_size,
            shape,
            fit=CenterFit() if fit is None else fit,
            **options,
        )
        self._log()

    def __repr__(self) -> str:
        folder = os.fsdecode(self._folders.root)
        skipped = f", {self.skipped}" if len(self.skipped) else ""
        return (
            f"ImageFileReader({folder!r}, {self.order.batch_size}, {self.shapes.plain}, fit={self.fit!r}, "
            f"{self._known()}{skipped}{self._drawn()})"
        )

    def class_counts(self) -> NDArray[np.int64]:
        """Number of pictures in each class: int64 (number of classes,)."""
        return np.bincount(self._folders.labels, minlength=len(self.classes)).astype(np.int64)

    def _known(self) -> str:
        """Number of classes, and where they come from, as text."""
        count = f"{len(self.classes)} class{'es' * (len(self.classes) != 1)}"
        if not self._given:
            return f"{count} from the folders"
        empty = len(self.classes) - len(np.unique(self._folders.labels))
        return f"{count} as given" + (f" ({empty} without pictures)" if empty else "")

    def _log(self) -> None:
        where = repr(os.fsdecode(self._folders.root))
        logger.info("%s: %s: %d pictures of %s", self.name, where, self.size, self._known())
        for remark in self._folders.remarks(self._given):
            logger.warning("%s: %s: %s", self.name, where, remark)
        self.skipped.log(self.name, where)

    def contents(self) -> tuple[bytes, Sequence[bytes]]:
        # Neither the path of the folder nor the fit and the like: a resumed run may change them.
        return b"ImageFileReader", self._folders.identity()

    def _labels(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        numbers = self._folders.labels[indices]
        if not self._one_hot:
            return numbers
        one_hot = np.zeros((len(indices), len(self.classes)), dtype=np.float32)
        one_hot[np.arange(len(indices)), numbers] = 1.0
        return one_hot
