"""Options of the readers: the keyword arguments that several readers have, with their defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from numpy.typing import ArrayLike

from highway.arguments.options import documents
from highway.storage.ranges import PREFETCH_BYTES

__all__ = [
    "MAX_PIXELS",
    "OnError",
    "PictureFileOptions",
    "PictureOptions",
    "RemoteOptions",
    "SourceOptions",
]

OnError: TypeAlias = Literal["raise", "skip", "replace"]

MAX_PIXELS = 2 * 89_478_485
"""The limit at which PIL refuses to open a picture."""


class SourceOptions(TypedDict, total=False):
    """Options of all readers: order, epochs, and threads.

    Parameters
    ----------
    shuffle : bool
        A new order each epoch, or the order of the data.
    seed : int or None
        0 to 2**64 - 1; for the order and all other random numbers of the reader. None draws a seed, if no other machine
        needs the same one; the attribute `seed` has it, and it is logged.
    epochs : int, optional
        Number of epochs; None for no limit.
    shard : (int, int), "auto", process group, or (mesh, axis)
        (rank, world): this reader's part of the data; (0, 1) is all of it in every process. "auto" takes what the
        launcher of the process says, when the pipeline starts, and logs it: torch.distributed, RANK and WORLD_SIZE
        (torchrun), JAX, Slurm or Open MPI; without a launcher (0, 1). A process group or a one-dimensional DeviceMesh
        of torch, or a JAX mesh with the name of an axis, is for processes that need the same samples as others. Every
        rank has the same number of samples and batches; if the world does not divide the number of samples, at most
        world - 1 samples come twice, or are dropped with `drop_last`.
    drop_last : bool
        Drop the samples that do not fill a batch on every rank.
    subset : array_like of int, array_like of bool (N,), or callable, optional
        The samples to read: their indices, each once; one bool for each sample of the data; or a function that gets the
        key of a sample (its index, where the data have no keys) and its label (None, if it is known only after reading,
        or if each box has its own) and returns whether to read it. Without shuffling, indices are read in their order.
    split : (str, float) or (str, mapping of str to float), optional
        The part of the data, or of `subset`, to read: ("train", 0.9) is 0.9 of the samples, chosen at random, and
        ("validation", 0.9), with the same number, the rest. For other parts, the name of one and the fractions of all:
        ("test", {"train": 0.8, "validation": 0.1, "test": 0.1}). Parts of the same split have no sample in common, and
        have all samples together.
    stratify : bool
        Split the samples of each label alike, to the nearest whole number. A sample without a label (null or NaN)
        raises; `subset` excludes it.
    split_seed : int
        0 to 2**64 - 1: chooses the samples of the parts. It does not depend on `seed`.
    weights : "balanced", array_like of float (N,), or callable, optional
        Draw samples with replacement: each place of an epoch is drawn anew, a sample with a probability that is
        proportional to its weight. One weight of 0 or more for each sample of the data, or a function that gets the
        epoch and returns them; "balanced" makes all labels equally likely, and raises for
        samples without one. An epoch has as many samples as without
        weights. Needs `shuffle`.
    repeats : int
        Read each sample so many times in an epoch, one after the other, with different random augmentations.
    max_samples : int, optional
        Most samples in an epoch, on all ranks together: the first ones of its order. With `shuffle`, every epoch has
        others.
    workers : int, optional
        Number of threads; by default set automatically, up to one for each core that the process may use.
    queue_size : int, optional
        Most batches that are being made or wait for the next module; two for each worker are always allowed. By default
        4, and up to 32 small batches that have 1 MiB together: threads then wake each other seldom.
    """

    shuffle: Annotated[bool, True]
    seed: Annotated[int | None, 0]
    epochs: Annotated[int | None, None]
    shard: Annotated[object, "auto"]
    drop_last: Annotated[bool, False]
    subset: Annotated[ArrayLike | Callable[[Any, Any], object] | None, None]
    split: Annotated[tuple[str, float | Mapping[str, float]] | None, None]
    stratify: Annotated[bool, False]
    split_seed: Annotated[int, 0]
    weights: Annotated[Literal["balanced"] | ArrayLike | Callable[[int], ArrayLike] | None, None]
    repeats: Annotated[int, 1]
    max_samples: Annotated[int | None, None]
    workers: Annotated[int | None, None]
    queue_size: Annotated[int | None, None]


@documents(SourceOptions)
class PictureOptions(SourceOptions, total=False):
    """Options of all readers of pictures.

    Parameters
    ----------
    shuffle, seed, epochs, shard, drop_last, workers, queue_size
        See `SourceOptions`.
    color : {"rgb", "gray"}
        Three channels or one.
    dtype : {"uint8", "uint16"}
        Type of the images. "uint16" keeps the 16 bits of PNGs, TIFFs and PGMs; 8 bits become ``value * 257``, so that
        the range is 0 to 65535 for every file (docs/formats.md). Transforms of color, filters and warps take uint8
        only.
    on_error : {"raise", "skip", "replace"}
        Policy for a sample that cannot be read. "raise" raises its error. "skip" drops the sample, so that the batch is
        smaller, or missing if it has no sample left. "replace" reads another sample instead, chosen by the seed, so
        that batches stay full and every rank has the same number of them. If the machine has no memory or file handles
        left, or PIL or a part of it is missing, the reader raises under any policy. If the storage fails (an I/O error,
        a stale file handle, a network that is down), reading is retried for up to 30 s, and no sample counts as bad;
        after that the reader raises StorageError under any policy.
    max_errors : int or float, optional
        With "skip" and "replace": how many bad samples are allowed, as a count or (a float up to 1) as a fraction of
        the data. Each rank counts the bad samples that it read.
    exact : bool
        Never decode at a reduced scale: slower for pictures that are much larger than the images, which then differ
        from Pillow's by rounding only.
    max_pixels : int
        Pictures with more pixels in their header are bad samples and are not decoded. A progressive JPEG takes up to 6
        bytes of memory a pixel in each worker, other JPEGs only some rows, other formats 6 to 25 bytes a pixel with the
        file, one picture at a time (docs/formats.md). PIL's own limit does not apply.
    sizes : array_like of int (N, 2), optional
        With the fit `Buckets`: height and width of each picture of the data, upright unless `exif` is False; 0 where
        they are not known. By default they are read from the headers of all pictures when the reader is made; its
        attribute `sizes` has them, so that you can keep them. Data at URLs and pictures in Parquet files need them.
    """

    color: Annotated[Literal["rgb", "gray"], "rgb"]
    dtype: Annotated[Literal["uint8", "uint16"], "uint8"]
    on_error: Annotated[OnError, "raise"]
    max_errors: Annotated[int | float | None, None]
    exact: Annotated[bool, False]
    max_pixels: Annotated[int, MAX_PIXELS]
    sizes: Annotated[ArrayLike | None, None]


class RemoteOptions(TypedDict, total=False):
    """Options of readers whose data may be in object stores, on web servers or in other file systems.

    Parameters
    ----------
    storage_options : mapping, optional
        For URLs: options of the store, such as `endpoint`, `region`, `access_key_id`, `secret_access_key`,
        `skip_signature` or `client_options` of obstore, or arguments of the file system of fsspec. obstore takes the
        others from the environment. Local files need none.
    prefetch_bytes : int
        Most bytes, 1 or more, that are fetched from URLs before they are needed; a single picture may have more.
    cache : path, optional
        Folder on a local disk that keeps what is fetched from URLs, and their listings: later epochs and runs read it
        from there. All processes of a machine may use the same one (docs/object-stores.md).
    cache_bytes : int or float, optional
        Most bytes of the cache, 1 MiB or more, for everybody who uses it; those that were not used for the longest time
        leave. None for the limit that it has already; a new cache needs one.
    """

    storage_options: Annotated[Mapping[str, Any] | None, None]
    prefetch_bytes: Annotated[int, PREFETCH_BYTES]
    cache: Annotated[str | os.PathLike[str] | None, None]
    cache_bytes: Annotated[int | float | None, None]


@documents(RemoteOptions)
@documents(PictureOptions)
class PictureFileOptions(PictureOptions, RemoteOptions, total=False):
    """Options of the readers of picture files.

    Parameters
    ----------
    shuffle, seed, epochs, shard, drop_last, workers, queue_size, color, dtype, on_error, max_errors, exact, max_pixels
        See `PictureOptions`.
    exif : bool
        Turn pictures upright by their orientation; False reads every picture as it is stored. The rule is that of PIL's
        ``ImageOps.exif_transpose``, the same for JPEG, PNG, WebP and TIFF: the orientation entry of the EXIF data,
        wherever the file has it, as a number of any type; without such an entry ``tiff:Orientation`` of the XMP data.
        Of several EXIF segments in a JPEG the first counts. Values other than 2 to 8, and damaged EXIF data, turn
        nothing. Boxes and masks of the stored picture turn with it; a mask that states its own orientation, other than
        1, is turned by that.
    storage_options, prefetch_bytes, cache, cache_bytes
        See `RemoteOptions`.
    """

    exif: Annotated[bool, True]
