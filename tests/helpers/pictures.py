"""Pictures and folders of pictures for the tests: smooth like photographs, made from a seed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    """An RGB picture with large and small structures in all channels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(3):
        plane = np.full((height, width), 128.0)
        for wavelength in (300, 90, 25, 9):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            strength = rng.uniform(0.3, 1.0) * 0.18 * wavelength**0.5 * 12
            plane += strength * np.sin(
                2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wavelength + phase
            )
        planes.append(plane + rng.normal(0, 2, plane.shape))
    return Image.fromarray(np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8))


def jpeg_bytes(picture: Image.Image, *, orientation: int | None = None, **options: Any) -> bytes:
    """`picture` as a JPEG; options are those of PIL's save."""
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def opened(file: Path | bytes) -> Image.Image:
    """What PIL makes of a file: upright, RGB, in memory."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def segment(contents: bytes, marker: int) -> int:
    """Offset of the first byte behind the length of the first segment with this marker."""
    at = 2
    while contents[at + 1] != marker:
        at += 2 + int.from_bytes(contents[at + 2 : at + 4], "big")
    return at + 4


def with_sampling(contents: bytes, sampling: int) -> bytes:
    """The same blocks under other sampling factors of the first component (0x41: 4:1:1, 0x12: 4:4:0).

    The number of blocks in a unit stays, so the file stays valid; what it shows is shuffled.
    """
    changed = bytearray(contents)
    start = segment(contents, 0xC0)
    changed[start + 7] = sampling
    return bytes(changed)


def with_size(contents: bytes, height: int, width: int) -> bytes:
    """The same file with another size in its header."""
    changed = bytearray(contents)
    start = segment(contents, 0xC0)
    changed[start + 1 : start + 5] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(changed)


def jpeg_kinds() -> dict[str, bytes]:
    """A JPEG of every kind that is met in the wild, 96 x 128 pixels."""
    picture = photograph(96, 128, seed=1)
    cmyk = jpeg_bytes(picture.convert("CMYK"))
    ycck = bytearray(cmyk)
    ycck[segment(cmyk, 0xEE) + 11] = 2  # Adobe's transform: YCCK
    kinds = {
        "baseline": jpeg_bytes(picture),
        "optimized": jpeg_bytes(picture, optimize=True),
        "progressive": jpeg_bytes(picture, progressive=True),
        "restart markers": jpeg_bytes(picture, restart_marker_blocks=3),
        "restart rows": jpeg_bytes(picture, restart_marker_rows=1, subsampling="4:2:0"),
        "4:4:4": jpeg_bytes(picture, subsampling="4:4:4"),
        "4:2:2": jpeg_bytes(picture, subsampling="4:2:2"),
        "4:2:0": jpeg_bytes(picture, subsampling="4:2:0"),
        "4:2:0 progressive": jpeg_bytes(picture, subsampling="4:2:0", progressive=True),
        "4:1:1": with_sampling(jpeg_bytes(picture, subsampling="4:2:0"), 0x41),
        "4:4:0": with_sampling(jpeg_bytes(picture, subsampling="4:2:2"), 0x12),
        "gray": jpeg_bytes(picture.convert("L")),
        "gray progressive": jpeg_bytes(picture.convert("L"), progressive=True),
        "CMYK": cmyk,
        "YCCK": bytes(ycck),
        "Adobe RGB": jpeg_bytes(picture, keep_rgb=True),
    }
    for orientation in range(1, 9):
        kinds[f"EXIF {orientation}"] = jpeg_bytes(picture, orientation=orientation)
    return kinds


def class_folders(root: Path, classes: int = 3, each: int = 5, size: tuple[int, int] = (60, 80)) -> Path:
    """``root/class0/0.jpg ...``: every picture another one."""
    for label in range(classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(each):
            seed = label * each + number
            height, width = size[0] + seed % 7, size[1] + seed % 11
            (folder / f"{number}.jpg").write_bytes(jpeg_bytes(photograph(height, width, seed)))
    return root
