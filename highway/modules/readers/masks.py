"""Masks: reads a mask of class numbers for each picture and maps it as the picture is mapped to its image."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import resample
from highway.arguments import whole
from highway.batch import empty
from highway.errors import (
    DatasetError,
    DecodeError,
    HighwayError,
    MissingPackageError,
    ReadError,
    StorageError,
)
from highway.modules.readers.picture_mapping import PictureMapping
from highway.modules.readers.pictures.missing_parts import named
from highway.modules.readers.pictures.orientation import mirrored, stated_orientation, upright
from highway.modules.readers.pictures.other_picture import named_errors, opened, pillow
from highway.storage.file_names import folded
from highway.storage.file_tree import Tree
from highway.storage.files import LARGEST_FILE, read_once

__all__ = ["MaskFiles", "Masks", "mask_paths"]

# Lossless formats; JPEG and WebP may change numbers.
_FORMATS = ("PNG", "BMP", "GIF", "TIFF")
_EXPECTED = "numbers of classes: a palette (P), 8 bits of gray (L) or 1 bit"
_NEAREST = resample.FILTERS.index("nearest")


class Masks:
    """Masks, one for each sample; a subclass reads their files.

    Parameters
    ----------
    fill : int
        0 to 255: value of mask pixels that the picture does not cover.
    max_pixels : int
        Larger masks are bad files.
    owner : str
        Name of the reader, for errors.
    oriented : bool
        Whether to apply the orientation that a mask itself states.
    of_upright : bool
        Whether the masks belong to the upright pictures, rather than to the pictures as they are stored.

    Notes
    -----
    A mask that states an orientation other than 1 is turned upright by it, like any picture. A mask that states none is
    turned like its picture, unless its size is that of the upright picture alone. The turned mask must have the size of
    the upright picture.
    """

    def __init__(
        self, fill: int, max_pixels: int, owner: str, oriented: bool, of_upright: bool = False
    ) -> None:
        self.fill = whole(owner, "mask_fill", fill, 0, 255)
        self._max_pixels = max_pixels
        self._owner = owner
        self._oriented = oriented
        self._of_upright = of_upright

    def contents(self, index: int) -> bytes:
        """Contents of the file of a mask.

        Raises
        ------
        ReadError, StorageError
            The text continues `describe`.
        """
        raise NotImplementedError

    def describe(self, index: int) -> str:
        """Name of a mask in errors."""
        raise NotImplementedError

    def whole(self, index: int, size: tuple[int, int], orientation: int) -> NDArray[np.uint8]:
        """Read a mask at full size, upright.

        Parameters
        ----------
        index : int
        size : (int, int)
            Height and width of the upright picture.
        orientation : int
            EXIF orientation, 1 to 8, by which the picture was turned upright.

        Raises
        ------
        DecodeError, ReadError, StorageError
            The mask cannot be read, or its size is not that of the picture.
        MissingPackageError
            PIL, or a part of it, is not installed.
        """
        if self._of_upright:
            orientation = 1
        try:
            mask, own = _pixels(self.contents(index), self._max_pixels, self._owner)
            return np.ascontiguousarray(_fitting(mask, own if self._oriented else 1, *size, orientation))
        except (DecodeError, ReadError, StorageError) as error:
            raise type(error)(f"{self._owner}: mask {self.describe(index)} {error}") from error
        except MissingPackageError as error:
            raise named(error, self._owner, f"mask {self.describe(index)}") from error

    def show(
        self,
        indices: NDArray[np.int64],
        mapping: PictureMapping,
        orientations: NDArray[np.int64],
        out: NDArray[np.uint8],
        slots: NDArray[np.int64],
        skipped: Container[int],
    ) -> dict[int, HighwayError]:
        """Read the masks of some samples into slots of `out`.

        Parameters
        ----------
        indices : int64 (N,)
        mapping : PictureMapping
            Mapping of the N samples.
        orientations : int64 (N,)
            EXIF orientations, 1 to 8, by which the pictures were turned upright.
        out : uint8 (B, H, W)
        slots : int64 (N,)
        skipped : container of int
            Rows to skip.

        Returns
        -------
        dict of int to HighwayError
            Errors, by row.
        """
        failures: dict[int, HighwayError] = {}
        for row, _, mask in self._wholes(indices, mapping, orientations, skipped, failures):
            image = empty((1, *out.shape[1:], 1))
            image[:] = self.fill
            window, target, axes = mapping.placement.take(slice(row, row + 1))
            source, upright = mask[None, :, :, None], np.zeros((1, 2), np.uint8)
            resample.resize_batch(source, window, target, upright, _NEAREST, image)
            out[slots[row]] = mirrored(image[0, :, :, 0], axes[0])
            # Free both before the next mask is decoded.
            del mask, source
        return failures

    def _wholes(
        self,
        indices: NDArray[np.int64],
        mapping: PictureMapping,
        orientations: NDArray[np.int64],
        skipped: Container[int],
        failures: dict[int, HighwayError],
    ) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
        """Yield row, index and mask of each sample; adds errors to `failures`."""
        away = False
        for row, index in enumerate(indices.tolist()):
            if row in skipped:
                continue
            if away:
                # Every attempt on a dead server may take a minute to fail.
                failures[row] = StorageError(
                    f"{self._owner}: mask {self.describe(index)} was not tried after another one failed"
                )
                continue
            height, width = mapping.sizes[row].tolist()
            try:
                yield row, index, self.whole(index, (height, width), int(orientations[row]))
            except (DecodeError, ReadError, StorageError) as error:
                failures[row] = error
                away = isinstance(error, StorageError)


class MaskFiles(Masks):
    """Masks that are files.

    Parameters
    ----------
    paths : sequence of bytes
    fill, max_pixels, owner, oriented
        See `Masks`.
    """

    def __init__(
        self, paths: Sequence[bytes], fill: int, max_pixels: int, owner: str, oriented: bool
    ) -> None:
        super().__init__(fill, max_pixels, owner, oriented)
        self._paths = paths

    def contents(self, index: int) -> bytes:
        return read_once(self._paths[index], LARGEST_FILE)

    def describe(self, index: int) -> str:
        return os.fsdecode(self._paths[index])


def mask_paths(root: bytes, tree: Tree, names: Sequence[bytes], owner: str) -> list[bytes]:
    """Return the mask of every picture in a folder of masks: the name of the picture with the ending ``.png``.

    Parameters
    ----------
    root : bytes
        The folder, with a slash at its end.
    tree : Tree
        Reads the folder.
    names : sequence of bytes
        The pictures, relative to their folder.
    owner : str
        Name of the reader, for errors.

    Raises
    ------
    DatasetError
        There is no such folder, or two pictures have the same mask.
    """
    if not tree.is_directory(root):
        raise DatasetError(f"{owner}: masks_dir is {os.fsdecode(root)!r}; expected a folder of masks")
    paths = [root + os.path.splitext(name)[0] + b".png" for name in names]
    _check_apart(paths, names, owner)
    return paths


def _check_apart(paths: Sequence[bytes], names: Sequence[bytes], owner: str) -> None:
    """Raise if two pictures have the same mask: names differ only in the ending, or not at all to the file system."""
    first: dict[str, int] = {}
    for number, path in enumerate(paths):
        other = first.setdefault(folded(os.fsdecode(path)), number)
        if other != number and (paths[other] == path or _same_file(paths[other], path)):
            raise DatasetError(
                f"{owner}: {os.fsdecode(names[other])!r} and {os.fsdecode(names[number])!r} both have the mask "
                f"{os.fsdecode(path)!r}; rename one of the pictures, and give it a mask of its own"
            )


def _same_file(one: bytes, other: bytes) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # a missing mask raises when it is read
        return False


def _pixels(contents: bytes, max_pixels: int, owner: str) -> tuple[NDArray[np.uint8], int]:
    """Palette indices or gray values as stored, uint8 (height, width), and the orientation that the mask states."""
    pillow(owner)
    still = opened(contents, max_pixels, _FORMATS, "PNG, BMP, GIF or TIFF, which keep every number")
    if still.numbers:
        raise DecodeError(f"has {still.numbers}; expected {_EXPECTED}")
    with named_errors(still.layout):
        image = still.decode()
        if image.mode not in ("P", "L", "1"):
            raise DecodeError(f"has pixels of mode {image.mode}; expected {_EXPECTED}")
        return np.asarray(image).astype(np.uint8, copy=False), stated_orientation(still, contents)


def _fitting(
    mask: NDArray[np.uint8], own: int, height: int, width: int, orientation: int
) -> NDArray[np.uint8]:
    """Turn a mask upright like its picture, which then has this size; raises DecodeError if the mask has another."""
    if own not in (1, orientation):
        mask = upright(mask, own)
        if mask.shape == (height, width):
            return mask
        raise DecodeError(
            f"has {mask.shape[0]} x {mask.shape[1]} pixels (height x width) once turned by its own orientation {own}, "
            f"its upright picture {height} x {width}; expected the same"
        )
    stored = (width, height) if orientation >= 5 else (height, width)
    if mask.shape == stored:
        return upright(mask, orientation)
    if mask.shape == (height, width):
        return mask
    raise DecodeError(
        f"has {mask.shape[0]} x {mask.shape[1]} pixels (height x width), its picture {stored[0]} x {stored[1]}; "
        "expected the same"
    )
