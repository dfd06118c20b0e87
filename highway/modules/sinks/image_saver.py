"""ImageSaver: writes images and masks to files named by their keys."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from highway.arguments import expanded, whole
from highway.batch import Batch
from highway.engine import Module, Source, Stage
from highway.engine.spec import Spec
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, MissingPackageError
from highway.sampling.identity import COPY_BITS
from highway.storage.file_names import Claims, FoldingFolder, alike, name_of
from highway.storage.files import write_whole

__all__ = ["ImageSaver"]

# Ending and default quality of each format; None for formats without a quality.
_FORMATS: dict[str, tuple[str, int | None]] = {
    "png": (".png", None),
    "jpeg": (".jpg", 95),
    "webp": (".webp", 90),
}
# Names of files of later epochs.
_LATER = re.compile(r"(?P<stem>.+)-e(?P<epoch>[1-9][0-9]*)", re.DOTALL)


class ImageSaver(Stage):
    """Writes the images of every batch to files and returns the batch unchanged.

    It can be anywhere in a pipeline. A sample is written to ``folder/KEY``, in the folders of its key (also of an
    absolute path), with the ending of the format instead of the ending of a picture; a sample without a key is named by
    its index. In epoch n above 0, ``-en`` comes before the ending; before that ``-cn`` for copy n above 0 of a sample
    that comes several times in an epoch. If keys of the source differ only in the ending, each of them keeps its
    ending, as ``cat/1.jpg.png`` and ``cat/1.png.png``, in every epoch and on every machine.
    Files of an earlier run are replaced, and a sample that comes again replaces its own file. Two samples with the same
    file raise an ArgumentError: their keys are equal, are the same name for the file system, or differ only in the
    ending and the source (one that receives, or reads a store) does not know all keys in advance. A file is written
    whole or not at all.

    Parameters
    ----------
    folder : path
        Folder of the files; it and its sub-folders are created if needed.
    format : {"png", "jpeg", "webp"}
        "png" is lossless; "jpg" means "jpeg".
    quality : int, optional
        1 to 100, for "jpeg" (default 95) and "webp" (default 90).
    masks_dir : path, optional
        Another folder, for the masks of the batches: PNGs of class numbers, 8 bits of gray, with the names of their
        images. ``ImageFileReader(folder, ..., masks_dir=masks_dir)`` reads both.
    workers : int, optional
        Number of threads; by default set automatically, up to one for each core that the process may use.
    queue_size : int
        Most batches that may wait after this module.

    Raises
    ------
    ArgumentError
        An argument is out of range. With a batch: its images are not uint8 (N, H, W, 3) or (N, H, W, 1), its masks not
        uint8 (N, H, W), a key would lead out of the folder, or two samples have the same file.
    FieldError
        With a batch: it has no images, or no masks although `masks_dir` is given.
    MissingPackageError
        PIL is not installed.
    WriteError
        With a batch: a file or folder cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> from highway.engine import Pipeline
    >>> from highway.modules import Noise
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Pipeline([Noise(2, (8, 8), epochs=1, size=3, shuffle=False), ImageSaver(folder)]) as pipeline:
    ...         print(sum(batch.size for batch in pipeline), sorted(os.listdir(folder)))
    3 ['00000000.png', '00000001.png', '00000002.png']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        format: Literal["png", "jpeg", "jpg", "webp"] = "png",
        *,
        quality: int | None = None,
        masks_dir: str | os.PathLike[str] | None = None,
        workers: int | None = None,
        queue_size: int = 4,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        format = "jpeg" if format == "jpg" else format
        if format not in _FORMATS:
            raise ArgumentError(
                f"ImageSaver: format is {format!r}; expected {' or '.join(map(repr, _FORMATS))}"
            )
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            raise MissingPackageError(
                "ImageSaver: PIL, which writes the files, is not installed: pip install Pillow-SIMD"
            ) from None
        self.folder = expanded(self.name, "folder", folder)
        self.format = format
        self.masks_dir = None if masks_dir is None else expanded(self.name, "masks_dir", masks_dir)
        if self.masks_dir is not None and os.path.realpath(self.masks_dir) == os.path.realpath(self.folder):
            raise ArgumentError(
                f"ImageSaver: masks_dir is {self.masks_dir!r}, the folder of the images; expected another"
            )
        self._claims = Claims()
        self._alike: frozenset[str] = frozenset()
        self._latest = 0
        self._folding = FoldingFolder(self.folder, self.name)
        self._ending, default = _FORMATS[format]
        if quality is not None and default is None:
            raise ArgumentError(f"ImageSaver: quality is {quality!r}; {format!r} has none, expected None")
        self.quality = default if quality is None else whole("ImageSaver", "quality", quality, 1, 100)

    def __repr__(self) -> str:
        quality = "" if self.quality is None else f", quality={self.quality}"
        masks = "" if self.masks_dir is None else f", masks_dir={self.masks_dir!r}"
        return f"ImageSaver({self.folder!r}, {self.format!r}{quality}{masks})"

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays; they pass through, so the input decides."""
        return self.input_handed_over

    def for_run(self) -> Module:
        run = self.copied()
        run._claims = Claims()
        return run

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        """Find the keys of the source that differ only in the ending."""
        source = modules[0]
        self._alike = alike((source.known_keys() if isinstance(source, Source) else None) or ())

    def out_spec(self, before: Spec | None) -> Spec | None:
        return before

    def process(self, batch: Batch) -> Batch:
        """Write the images, and the masks."""
        images = batch["images"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ArgumentError(
                f"ImageSaver: images are {images.dtype} of shape {images.shape}; expected uint8 (N, H, W, 3) or "
                "(N, H, W, 1); put it before Normalize"
            )
        if not images.shape[1] or not images.shape[2]:
            raise ArgumentError(f"ImageSaver: images of shape {images.shape} have no pixels to write")
        keys = batch.keys or [f"{index:08}" for index in batch.indices]
        copies = (batch.indices >> COPY_BITS).tolist() if batch.keys else [0] * len(keys)
        masks = None if self.masks_dir is None else self._masks(batch)
        # Check all keys first, so that a refused batch writes nothing.
        stems = [
            self._stem(key) + (f"-c{copy}" if copy else "") for key, copy in zip(keys, copies, strict=True)
        ]
        self._claim(batch, keys, stems)
        names = [f"{stem}-e{batch.epoch}" for stem in stems] if batch.epoch else stems
        options: dict[str, Any] = {} if self.quality is None else {"quality": self.quality}
        for name, image in zip(names, images, strict=True):
            pixels = image if image.shape[2] == 3 else image[:, :, 0]
            self._write(os.path.join(self.folder, name + self._ending), pixels, self.format, **options)
        if masks is not None:
            assert self.masks_dir is not None
            for name, mask in zip(names, masks, strict=True):
                self._write(os.path.join(self.masks_dir, name + ".png"), mask, "png")
        return batch

    def _masks(self, batch: Batch) -> NDArray[np.uint8]:
        masks = batch["masks"]
        if masks.dtype != np.uint8 or masks.ndim != 3 or len(masks) != batch.size or 0 in masks.shape[1:]:
            raise ArgumentError(
                f"ImageSaver: masks are {masks.dtype} of shape {masks.shape}; expected uint8 "
                f"({batch.size}, height, width)"
            )
        return masks

    def _stem(self, key: str) -> str:
        stem, ending = name_of(key, self.name)
        return stem + ending if stem in self._alike else stem

    def _claim(self, batch: Batch, keys: Sequence[str], stems: Sequence[str]) -> None:
        """Raise if a sample would overwrite the file of another sample."""
        if not batch.keys:
            return
        indices: Sequence[int | None] = [None] * len(keys) if batch.seq is None else batch.indices.tolist()
        epoch = batch.epoch
        self._latest = max(self._latest, epoch)
        claimed: dict[str, str] = {}
        for key, index, stem in zip(keys, indices, stems, strict=True):
            name = self._folding.name(stem)
            first = claimed.setdefault(name, key)
            later = _LATER.fullmatch(name)
            if (
                not self._claims.claim(name, key, epoch, index)
                or (epoch and f"{name}-e{epoch}" in self._claims)
                or (later and int(later["epoch"]) <= self._latest and later["stem"] in self._claims)
            ):
                written = stem + (f"-e{epoch}" if epoch else "") + self._ending
                other = (
                    f"of the keys {first!r} and {key!r}"
                    if first != key
                    else f"one of them of the key {key!r}"
                )
                raise ArgumentError(
                    f"ImageSaver: {os.path.join(self.folder, written)!r} would be the file of two samples, {other}; "
                    "keys share a file if they are equal, or differ only in the ending, in what the file system does "
                    "not distinguish, or in the number of an epoch: give each sample its own key"
                )

    def _write(self, path: str, pixels: NDArray[np.uint8], format: str, **options: Any) -> None:
        from PIL import Image

        pixels = np.ascontiguousarray(pixels)
        write_whole(path, lambda file: Image.fromarray(pixels).save(file, format, **options), self.name)
