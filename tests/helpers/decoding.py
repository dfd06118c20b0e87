"""What a reader does with a decoder, in one call; and what it does with PIL."""

import os

import numpy as np

from highway._core.jpeg import codec as jpeg
from highway._core.pixels import resample
from highway.errors import DecodeError
from highway.modules.readers.pictures.other_picture import OtherPicture


def decode_into(decoder, samples, windows, targets, filter_, exact, slots, out, mirrored=None):
    """Statuses of samples of the last read, decoded into slots of uint8 images (N, H, W, C)."""
    samples, windows = np.asarray(samples), np.asarray(windows, float)
    if mirrored is None:
        mirrored = np.zeros((len(samples), 2), bool)
    decoder.begin(samples, windows, np.asarray(targets, np.int32), mirrored, filter_, exact, out.shape[1:])
    return decoder.finish(np.asarray(slots), jpeg.Images(out))


def decoded(decoder, contents, *, gray=False, oriented=True, window=None, size=None, mirrored=(False, False)):
    """One window of a file in memory, bilinear, uint8 (H, W, C); or the status if it is not OK."""
    ((status, height, width),) = decoder.read_contents([contents], oriented)
    if status != jpeg.OK:
        decoder.leave()
        return int(status)
    window = window or (0, 0, width, height)
    height, width = size or (height, width)
    out = np.full((1, height, width, 1 if gray else 3), 77, np.uint8)
    bilinear = resample.FILTERS.index("bilinear")
    target = [(0, 0, width, height)]
    (status,) = decode_into(
        decoder, [0], [window], target, bilinear, True, [0], out, mirrored=np.array([mirrored])
    )
    return out[0] if status == jpeg.OK else status


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def by_other_picture(contents, *, gray=False, oriented=True, max_pixels=10**7):
    """The pixels that the readers take from PIL, uint8 (H, W, C); None if they refuse the file.

    Gray is computed from RGB, because Pillow-SIMD rounds it in another way than Pillow.
    """
    try:
        picture = OtherPicture(contents, gray=False, oriented=oriented, max_pixels=max_pixels)
        pixels = picture.pixels()
    except DecodeError:
        return None
    return luma(pixels) if gray else pixels


def luma(pixels):
    """ITU-R 601 luma of RGB in 16 bits of fraction, as Pillow's convert("L"): uint8 (..., 1)."""
    sums = pixels.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((sums + 0x8000) >> 16).astype(np.uint8)[..., None]


def resized(picture, window, size, mirrored=(False, False)):
    """One window of an upright picture (H, W, C), bilinear, as the readers take it from pictures of PIL."""
    out = np.empty((1, *size, picture.shape[2]), np.uint8)
    target = np.array([[0, 0, size[1], size[0]]], np.int32)
    bilinear = resample.FILTERS.index("bilinear")
    upright = np.zeros((1, 2), np.uint8)
    resample.resize_batch(
        np.ascontiguousarray(picture)[None], np.array([window], float), target, upright, bilinear, out
    )
    return out[0, :: -1 if mirrored[1] else 1, :: -1 if mirrored[0] else 1]
