"""Decodes damaged PNGs, WebPs and JPEGs for a while; what the decoder accepts must be what PIL gives.

usage: tools/sanitized.sh python tools/fuzz_pictures.py [--seconds 600] [--files N] [--seed 0]
(with a core that was built with HIGHWAY_SANITIZE=1; without the sanitizers it compares only)
"""

import argparse
import io
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import rasters
from decoding import by_other_picture, decoded
from pictures import jpeg_bytes, photograph
from PIL import Image
from stated_orientations import exif_data, xmp_data

from highway._core import simd
from highway._core.jpeg import codec as jpeg

MAX_PIXELS = 20_000
PNG_KINDS = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8)]
PNG_KINDS += [(4, 8), (4, 16), (6, 8), (6, 16)]


def png(rng: np.random.Generator) -> bytes:
    """A small PNG of any kind; sometimes its rows are damaged and its checksums are not."""
    color, bits = PNG_KINDS[rng.integers(len(PNG_KINDS))]
    height, width = (int(side) for side in rng.integers(1, 24, 2))
    values = rng.integers(0, 1 << bits, (height, width, rasters.PNG_SAMPLES[color]))
    palette = rng.integers(0, 256, (int(rng.integers(1, 257)), 3)) if color == 3 else None
    interlaced = bool(rng.integers(2))
    lines = rasters.png_lines(values, bits, interlaced=interlaced, filters=rng.integers(0, 5, 7).tolist())
    if rng.random() < 0.3:
        lines = damaged(rng, lines, 2)
    data = zlib.compress(lines, int(rng.integers(0, 10)))
    if rng.random() < 0.3:
        data = damaged(rng, data, 2)
    chunks = [
        (b"eXIf", exif_data(3, (int(rng.integers(0, 10)),))),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp_data(int(rng.integers(1, 9)))),
        (b"tEXt", b"exif\0" + exif_data()),
        (b"tRNS", bytes(6)),
        (b"acTL", bytes([0, 0, 0, 2, 0, 0, 0, 0])),
        (b"fcTL", bytes(26)),
    ]
    some = [[chunks[k] for k in rng.integers(0, len(chunks), int(rng.integers(0, 3)))] for _ in range(2)]
    return rasters.png(
        values,
        bits,
        color,
        palette=palette,
        interlaced=interlaced,
        data=data or b"\0",
        parts=int(rng.integers(1, 4)),
        before=some[0],
        behind=some[1],
    )


def saved(rng: np.random.Generator, format_: str) -> bytes:
    """A small WebP or JPEG of any kind."""
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    picture = photograph(height, width, int(rng.integers(1000)))
    if format_ == "JPEG":
        return jpeg_bytes(picture, orientation=int(rng.integers(1, 9)), progressive=bool(rng.integers(2)))
    if rng.random() < 0.4:
        picture.putalpha(Image.fromarray(rng.integers(0, 256, (height, width)).astype(np.uint8)))
    options = {"lossless": bool(rng.integers(2)), "quality": int(rng.integers(1, 101)), "method": 0}
    if rng.random() < 0.3:
        options |= {"save_all": True, "append_images": [Image.new(picture.mode, picture.size)]}
    if rng.random() < 0.5:
        options["exif"] = exif_data(3, (int(rng.integers(0, 10)),))
    file = io.BytesIO()
    picture.save(file, "WEBP", **options)
    return file.getvalue()


def damaged(rng: np.random.Generator, contents: bytes, most: int) -> bytes:
    """The same bytes with some changed, dropped, repeated, or cut off."""
    changed = bytearray(contents)
    for _ in range(int(rng.integers(0, most + 1))):
        if not changed:
            break
        at = int(rng.integers(min(len(changed), 64) if rng.random() < 0.5 else len(changed)))
        match int(rng.integers(6)):
            case 0:
                changed[at] ^= 1 << int(rng.integers(8))
            case 1:
                changed[at] = int(rng.choice([0, 1, 127, 128, 254, 255]))
            case 2:
                changed[at : at + 4] = int(rng.integers(2**32)).to_bytes(4, "big")[: len(changed) - at]
            case 3:
                del changed[at : at + int(rng.integers(1, 9))]
            case 4:
                changed[at:at] = changed[at : at + int(rng.integers(1, 30))]
            case 5:
                del changed[at:]
    return bytes(changed)


def with_checksums(contents: bytes) -> bytes:
    """A damaged PNG whose chunks have valid checksums."""
    parts, at = [contents[:8]], 8
    while at + 12 <= len(contents):
        length = int.from_bytes(contents[at : at + 4], "big")
        if at + 12 + length > len(contents):
            break
        parts.append(rasters.png_chunk(contents[at + 4 : at + 8], contents[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join([*parts, contents[at:]])


def check(rng: np.random.Generator, contents: bytes, format_: str) -> str:
    """Decode a file; a short name of what happened."""
    gray, oriented = bool(rng.integers(2)), rng.random() < 0.8
    simd.use(str(rng.choice(list(simd.VARIANTS))))
    decoder = jpeg.BatchDecoder(max_pixels=MAX_PIXELS)
    found = decoded(decoder, contents, gray=gray, oriented=oriented)
    if isinstance(found, int):
        return {jpeg.REFUSED: "refused", jpeg.NOT_JPEG: "not taken", jpeg.BAD_FILE: "bad"}[found]
    height, width = found.shape[:2]
    y0, x0 = int(rng.integers(height)), int(rng.integers(width))
    window = (x0, y0, int(rng.integers(x0 + 1, width + 1)), int(rng.integers(y0 + 1, height + 1)))
    size = tuple(int(side) for side in rng.integers(1, 30, 2))
    decoded(decoder, contents, gray=gray, oriented=oriented, window=window, size=size)
    if format_ != "JPEG":
        expected = by_other_picture(contents, gray=gray, oriented=oriented)
        if expected is None or not np.array_equal(found, expected):
            raise AssertionError("the decoder accepts it, and PIL refuses it or gives other pixels")
    return "decoded"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long at most (default: 600)")
    parser.add_argument(
        "--files", type=int, default=sys.maxsize, help="how many sound files, each damaged 8 times"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    counts: Counter[str] = Counter()
    end = time.monotonic() + arguments.seconds
    for _ in range(arguments.files):
        if time.monotonic() >= end:
            break
        format_ = str(rng.choice(["PNG", "WEBP", "JPEG"], p=[0.5, 0.4, 0.1]))
        whole = png(rng) if format_ == "PNG" else saved(rng, format_)
        for _ in range(8):
            contents = damaged(rng, whole, 4)
            if format_ == "PNG" and rng.random() < 0.7:
                contents = with_checksums(contents)
            try:
                counts[f"{format_} {check(rng, contents, format_)}"] += 1
            except AssertionError as error:
                print(f"{format_}: {error}; the file in hexadecimal digits:\n{contents.hex()}")
                return 1
    print(f"seed {arguments.seed}: {dict(sorted(counts.items()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
