"""Draws every transform, at several strengths, on one picture: docs/images/transforms.jpg.

usage: python tools/transform_sheet.py [--photograph FILE] [--output FILE]

Each row of ROWS is a transform, each cell the result of an expression over `highway.transforms`. Without a photograph
it draws a landscape, with visible vertical, horizontal, left and right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

import highway.transforms
from highway.batch import Batch
from highway.modules import Augmentations
from highway.viz.drawing import write

ROOT = Path(__file__).resolve().parents[1]

# Sizes of the pictures and the sheet, in pixels.
HEIGHT, WIDTH = 240, 320
TILE_HEIGHT, TILE_WIDTH = 120, 160
GAP, CAPTION, TITLE = 16, 11, 14
INK, FAINT, PAPER, RULE = (24, 24, 27), (113, 113, 122), (255, 255, 255), (212, 212, 216)
# Readers of the documentation download it.
MOST_BYTES = 600_000
# Seed of the first column; the others have the next ones. Chosen so that policies show different operations.
SEED = 12

# Transforms that mix samples mix the picture with a second one.
ROWS: list[tuple[str, list[str]]] = [
    ("Flips", ["FlipX(p=1)", "FlipY(p=1)"]),
    ("CenterCrop", ["CenterCrop((200, 280))", "CenterCrop(160)", "CenterCrop(96)"]),
    ("RandomCrop", ["RandomCrop((200, 280))", "RandomCrop(160)", "RandomCrop(240, padding=60)"]),
    ("Pad", ["Pad(12)", "Pad(40, fill=255)", "Pad((0, 80), fill=(37, 99, 235))"]),
    ("CenterFit", ["CenterFit((120, 240))", "CenterFit(240)", "CenterFit((240, 120))"]),
    (
        "RandomResizedCrop",
        [f"RandomResizedCrop(240, scale=({part}, {part}))" for part in (1, 0.4, 0.08)],
    ),
    ("Letterbox", ["Letterbox((180, 320))", "Letterbox(240)", "Letterbox((240, 120), fill=114)"]),
    ("Stretch", ["Stretch((120, 240))", "Stretch(240)", "Stretch((240, 120))"]),
    ("Resize", ["Resize((240, 120))", "Resize(60)", "Resize(max_size=100)"]),
    ("Slice", ["Slice(90, 30, 140, 120)", "Slice(0, 160, 120, 160)", "Slice(0, 0, 240, 80)"]),
    (
        "PadCrop",
        ["PadCrop(240, 60, fill=114)", "PadCrop((120, 240), 40)", "PadCrop((240, 320), (80, 0), fill=255)"],
    ),
    ("Transpose", ["Transpose(p=1)"]),
    ("Rotate", ["Rotate((15, 15))", "Rotate((45, 45), fill=114)", "Rotate((90, 90), fill=255)"]),
    ("Shift", ["Shift((0.1, 0.1), 0)", "Shift(0, (0.3, 0.3))", "Shift((-0.3, -0.3), (0.2, 0.2), fill=114)"]),
    ("Zoom", ["Zoom((0.6, 0.6))", "Zoom((1.3, 1.3))", "Zoom((2, 2))"]),
    (
        "Affine",
        ["Affine(shear=(20, 20))", "Affine((20, 20), scale=(0.8, 0.8))", "Affine(25, (0.2, 0.2), fill=114)"],
    ),
    ("Perspective", [f"Perspective({scale}, p=1)" for scale in (0.2, 0.5, 0.8)]),
    (
        "ColorJitter",
        [
            "ColorJitter(brightness=(1.6, 1.6))",
            "ColorJitter(contrast=(0.4, 0.4))",
            "ColorJitter(saturation=(2.5, 2.5))",
        ],
    ),
    (
        "Hue, all four",
        ["ColorJitter(hue=(0.15, 0.15))", "ColorJitter(hue=(-0.3, -0.3))", "ColorJitter(0.4, 0.4, 0.4, 0.1)"],
    ),
    ("Gamma", ["Gamma(0.5)", "Gamma(2)", "Gamma(1, gain=1.5)"]),
    ("Grayscale, Invert", ["Grayscale()", "Invert(p=1)"]),
    ("Solarize", ["Solarize(192, p=1)", "Solarize(128, p=1)", "Solarize(64, p=1)"]),
    ("Posterize", ["Posterize(3, p=1)", "Posterize(2, p=1)", "Posterize(1, p=1)"]),
    ("Histograms", ["AutoContrast(p=1)", "Equalize(p=1)"]),
    ("Sharpness", ["Sharpness(0, p=1)", "Sharpness(4, p=1)", "Sharpness(12, p=1)"]),
    ("GaussianBlur", ["GaussianBlur(13, 2)", "GaussianBlur(31, 5)", "GaussianBlur((1, 41), 8)"]),
    ("GaussianNoise", ["GaussianNoise()", "GaussianNoise(sigma=0.3)", "GaussianNoise(0.2, 0.1)"]),
    (
        "RandomErasing",
        [
            "RandomErasing(1, (0.1, 0.1), value=114)",
            "RandomErasing(1, (0.2, 0.2), value=(37, 99, 235))",
            "RandomErasing(1, (0.3, 0.3), value='random')",
        ],
    ),
    ("Mixup", ["Mixup()", "Mixup(5)", "Mixup(100)"]),
    ("CutMix", ["CutMix()", "CutMix(5)", "CutMix(100)"]),
    ("RandAugment", ["RandAugment()", "RandAugment(2, 20)", "RandAugment(4, 20, fill=114)"]),
    ("TrivialAugmentWide", ["TrivialAugmentWide()", "TrivialAugmentWide()", "TrivialAugmentWide()"]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photograph", type=Path, metavar="FILE", help="instead of the landscape")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", default=ROOT / "docs" / "images" / "transforms.jpg"
    )
    options = parser.parse_args()
    if options.photograph is None:
        first = landscape(0)
    else:
        with Image.open(options.photograph) as opened:
            first = ImageOps.fit(ImageOps.exif_transpose(opened).convert("RGB"), (WIDTH, HEIGHT))
    drawn = sheet(first, landscape(1))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save(drawn, options.output)
    print(f"{options.output}: {drawn.width} x {drawn.height}, {options.output.stat().st_size:,} bytes")


def sheet(picture: Image.Image, other: Image.Image) -> Image.Image:
    """Return the picture with all rows below it."""
    columns = max(len(expressions) for _, expressions in ROWS)
    left = GAP + 160
    row_height = TILE_HEIGHT + CAPTION + 6 + 2 * GAP
    size = (left + columns * (TILE_WIDTH + GAP), (len(ROWS) + 1) * row_height + GAP)
    drawn = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(drawn)
    original = (f"the picture, {HEIGHT} x {WIDTH}", np.asarray(picture))
    rows = [("Original", [original])]
    rows += [
        (
            title,
            [(text, transformed(text, picture, other, seed)) for seed, text in enumerate(expressions, SEED)],
        )
        for title, expressions in ROWS
    ]
    for number, (title, cells) in enumerate(rows):
        top = GAP + number * row_height
        if number:
            draw.line((GAP, top - GAP, size[0] - GAP - 1, top - GAP), fill=RULE)
        write(draw, (GAP, top - 2), title, left - GAP - 8, TITLE, INK)
        for column, (text, pixels) in enumerate(cells):
            x = left + column * (TILE_WIDTH + GAP)
            tile = Image.fromarray(pixels)
            tile.thumbnail((TILE_WIDTH, TILE_HEIGHT), Image.Resampling.LANCZOS)
            draw.rectangle((x - 1, top - 1, x + tile.width, top + tile.height), outline=RULE)
            drawn.paste(tile, (x, top))
            # The title has the name already.
            caption = (text[len(title) + 1 : -1] or "()") if text.startswith(f"{title}(") else text
            write(draw, (x, top + TILE_HEIGHT + 6), caption, TILE_WIDTH + GAP - 4, CAPTION, FAINT)
    return drawn


def transformed(expression: str, picture: Image.Image, other: Image.Image, seed: int) -> np.ndarray:
    """Apply a transform to a picture, in a batch with another."""
    transform = eval(expression, dict(vars(highway.transforms)))
    images = np.stack([np.asarray(picture), np.asarray(other)])
    batch = Batch({"images": images, "labels": np.eye(2, dtype=np.float32)}, indices=[0, 1])
    return Augmentations([transform], seed=seed).process(batch).images[0]


def save(drawn: Image.Image, path: Path) -> None:
    """Write in the format of the file name; JPEGs as large as allowed."""
    for quality in (90, 80, 70, 60):
        drawn.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise SystemExit(
        f"{path} has {path.stat().st_size:,} bytes; the limit is {MOST_BYTES:,}; use JPEG or smaller tiles"
    )


# The landscape: drawn three times as large, so that its edges are smooth.

LARGER = 3


def landscape(seed: int) -> Image.Image:
    """Draw hills, a lake, a house and trees; with seed 1 in the evening, and mirrored."""
    rng = np.random.default_rng(seed)
    height, width = HEIGHT * LARGER, WIDTH * LARGER
    evening = seed % 2 == 1
    sky = ((66, 55, 110), (250, 170, 110)) if evening else ((58, 120, 200), (205, 228, 245))
    ramp = np.linspace(0, 1, height)[:, None, None] ** 0.8
    pixels = np.array(sky[0]) * (1 - ramp) + np.array(sky[1]) * ramp
    pixels = np.repeat(pixels, width, axis=1)
    clouds = np.clip(noise(rng, height, width, 220) - 0.52, 0, 0.25)[:, :, None] * 3.2
    pixels += (255 - pixels) * clouds * ramp[::-1]
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    sun = Image.new("L", picture.size)
    ImageDraw.Draw(sun).ellipse(box(0.78, 0.16, 0.05), fill=255)
    picture.paste((255, 240, 190), mask=sun.filter(ImageFilter.GaussianBlur(18)))
    picture.paste((255, 250, 225), mask=sun.filter(ImageFilter.GaussianBlur(2)))
    shade = 0.55 if evening else 1.0
    for base, rough, color in (
        (0.50, 0.16, (118, 138, 168)),
        (0.57, 0.10, (84, 118, 110)),
        (0.66, 0.06, (88, 136, 70)),
    ):
        ground(picture, rng, base, rough, tuple(round(part * shade) for part in color))
    draw = ImageDraw.Draw(picture)
    lake = np.array(
        [(0.40, 0.80), (0.55, 0.745), (0.80, 0.735), (1.0, 0.76), (1.0, 0.90), (0.70, 0.93), (0.48, 0.88)]
    )
    draw.polygon(scaled(lake), fill=tuple(round(part * shade) for part in (92, 150, 190)))
    for number in range(22):
        y, x = 0.765 + 0.006 * number, rng.uniform(0.5, 0.85)
        draw.line(scaled([(x, y), (x + rng.uniform(0.03, 0.12), y)]), fill=(170, 205, 225), width=2)
    for x, y, tall in ((0.06, 0.80, 0.30), (0.42, 0.72, 0.16), (0.90, 0.73, 0.14)):
        tree(draw, rng, x, y, tall, shade)
    house(draw, evening, shade)
    grained = np.asarray(picture, np.float64) + 16 * (noise(rng, height, width, 24) - 0.5)[:, :, None]
    whole = Image.fromarray(grained.clip(0, 255).astype(np.uint8))
    small = whole.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return ImageOps.mirror(small) if evening else small


def noise(rng: np.random.Generator, height: int, width: int, wavelength: int) -> np.ndarray:
    """Return smooth noise of this wavelength and its halves, 0 to 1."""
    total = np.zeros((height, width))
    for octave in range(4):
        step = max(2, wavelength >> octave)
        coarse = Image.fromarray(rng.random((height // step + 2, width // step + 2)).astype(np.float32))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 2**octave
    return total / 1.875


def ground(
    picture: Image.Image, rng: np.random.Generator, base: float, rough: float, color: tuple[int, ...]
) -> None:
    """Draw everything below a ridge."""
    width, height = picture.size
    ridge = noise(rng, 1, width, 260)[0]
    ridge = base + rough * (0.5 - (ridge - ridge.min()) / np.ptp(ridge))
    rows = np.arange(height)[:, None] / height
    below = rows > ridge
    texture = 0.8 + 0.4 * noise(rng, height, width, 60)
    pixels = np.array(picture)
    lit = np.array(color) * texture[:, :, None] * (1.12 - 0.25 * (rows - base))[:, :, None]
    pixels[below] = lit.clip(0, 255).astype(np.uint8)[below]
    picture.paste(Image.fromarray(pixels))


def house(draw: ImageDraw.ImageDraw, evening: bool, shade: float) -> None:
    def dim(*color: int) -> tuple[int, ...]:
        return tuple(round(part * shade) for part in color)

    window = (255, 214, 120) if evening else (70, 90, 110)
    draw.polygon(scaled([(0.17, 0.62), (0.34, 0.62), (0.34, 0.82), (0.17, 0.82)]), fill=dim(232, 222, 200))
    draw.polygon(scaled([(0.34, 0.62), (0.39, 0.60), (0.39, 0.79), (0.34, 0.82)]), fill=dim(190, 178, 156))
    draw.polygon(scaled([(0.285, 0.46), (0.315, 0.46), (0.315, 0.56), (0.285, 0.56)]), fill=dim(140, 70, 58))
    draw.polygon(
        scaled([(0.15, 0.63), (0.225, 0.49), (0.335, 0.48), (0.405, 0.605), (0.345, 0.63)]),
        fill=dim(178, 62, 48),
    )
    draw.polygon(scaled([(0.19, 0.68), (0.22, 0.68), (0.22, 0.74), (0.19, 0.74)]), fill=window)
    draw.polygon(scaled([(0.295, 0.68), (0.325, 0.68), (0.325, 0.74), (0.295, 0.74)]), fill=window)
    draw.polygon(scaled([(0.24, 0.69), (0.28, 0.69), (0.28, 0.82), (0.24, 0.82)]), fill=dim(96, 62, 44))


def tree(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, tall: float, shade: float
) -> None:
    draw.polygon(
        scaled([(x - 0.008, y), (x + 0.008, y), (x + 0.005, y - tall / 2), (x - 0.005, y - tall / 2)]),
        fill=tuple(round(part * shade) for part in (92, 66, 44)),
    )
    for _ in range(70):
        angle, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
        at_x, at_y = (
            x + 0.16 * tall * far * np.cos(angle),
            y - 0.68 * tall + 0.32 * tall * far * np.sin(angle),
        )
        # Lit from the side of the sun.
        light = shade * (0.75 + 0.5 * (at_x - x + 0.16 * tall) / (0.32 * tall)) * rng.uniform(0.85, 1.1)
        color = tuple(min(255, round(part * light)) for part in (58, 104, 44))
        draw.ellipse(box(at_x, at_y, 0.06 * tall), fill=color)


def scaled(points: object) -> list[tuple[float, float]]:
    """Convert points from parts of the picture to pixels."""
    factors = (WIDTH * LARGER, HEIGHT * LARGER)
    return [(x * factors[0], y * factors[1]) for x, y in points]  # type: ignore[attr-defined]


def box(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    """Return the bounding box of a circle; the radius is a part of the width."""
    (x, y), radius = scaled([(x, y)])[0], radius * WIDTH * LARGER
    return x - radius, y - radius, x + radius, y + radius


if __name__ == "__main__":
    main()
