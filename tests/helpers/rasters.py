"""Bytes of PNG, TIFF, BMP and GIF files from numbers, of kinds that PIL does not write."""

import struct
import zlib

import numpy as np


def packed(values, bits, order=">"):
    """Rows of samples (H, samples of a row) as bytes, the first in the highest bits; each row begins a byte."""
    values = np.asarray(values)
    if bits in (8, 16, 32, 64):
        return values.astype(f"{order}u{bits // 8}").tobytes()
    if bits == 24:
        wide = values.astype(f"{order}u4").view(np.uint8).reshape(*values.shape, 4)
        return np.ascontiguousarray(wide[..., 1:] if order == ">" else wide[..., :3]).tobytes()
    shifts = np.arange(bits - 1, -1, -1)
    every = (values.astype(np.int64)[:, :, None] >> shifts & 1).astype(np.uint8)
    return np.packbits(every.reshape(len(values), -1), axis=1).tobytes()


# PNG

PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _filtered(row, above, number, step):
    """A row of a PNG (bytes as numbers) with a filter, and the number of the filter before it."""
    left, corner = (np.concatenate([np.zeros(step, int), line])[: len(line)] for line in (row, above))
    guess = left + above - corner
    to_left, to_above, to_corner = (np.abs(guess - value) for value in (left, above, corner))
    nearest = np.where(to_above <= to_corner, above, corner)
    nearest = np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
    predicted = [0, left, above, (left + above) // 2, nearest][number]
    return bytes([number]) + ((row - predicted) & 0xFF).astype(np.uint8).tobytes()


def png_lines(values, bits, *, interlaced=False, filters=(0,)):
    """The rows of a PNG of values (H, W, samples), with the given filters in turn."""
    passes = [values[y::dy, x::dx] for y, x, dy, dx in _ADAM7] if interlaced else [values]
    step = max(1, bits * values.shape[2] // 8)
    lines, count = [], 0
    for one in passes:
        above = 0
        for row in one.reshape(one.shape[0], -1) if one.size else ():
            stored = np.frombuffer(packed(row[None], bits), np.uint8).astype(int)
            lines.append(
                _filtered(stored, above + np.zeros_like(stored), filters[count % len(filters)], step)
            )
            above = stored
            count += 1
    return b"".join(lines)


def png(
    values,
    bits,
    color,
    *,
    palette=None,
    interlaced=False,
    filters=(0,),
    before=(),
    behind=(),
    data=None,
    parts=1,
):
    """A PNG of values (H, W, samples); `before` and `behind` the pixels are chunks, (name, data).

    The compressed `data`, if not given those of the values, are in `parts` chunks.
    """
    height, width = values.shape[:2]
    if data is None:
        data = zlib.compress(png_lines(values, bits, interlaced=interlaced, filters=filters))
    size = -(-len(data) // parts)
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, int(interlaced))
    chunks = [(b"IHDR", head)]
    if palette is not None:
        chunks.append((b"PLTE", np.asarray(palette, np.uint8).tobytes()))
    pixels = [(b"IDAT", data[at : at + size]) for at in range(0, len(data), size)]
    chunks += [*before, *pixels, *behind, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


# TIFF


def tiff(
    values,
    bits,
    photometric,
    *,
    order="<",
    big=False,
    sample_format=None,
    extra=(),
    planes=False,
    fill_order=1,
    compression=1,
    strip_rows=None,
    tile=None,
    palette=None,
    orientation=None,
    more=(),
):
    """A TIFF of values (H, W, samples). `more` are tags: (number, type, values); type 3 is SHORT, 4 LONG, 2 bytes."""
    height, width, samples = values.shape
    layers = [values[:, :, k : k + 1] for k in range(samples)] if planes else [values]
    parts = []
    for layer in layers:
        if tile is None:
            rows = strip_rows or height
            blocks = [layer[y : y + rows] for y in range(0, height, rows)]
        else:
            high, wide = tile
            full = np.zeros(
                (-(-height // high) * high, -(-width // wide) * wide, layer.shape[2]), layer.dtype
            )
            full[:height, :width] = layer
            blocks = [
                full[y : y + high, x : x + wide]
                for y in range(0, full.shape[0], high)
                for x in range(0, full.shape[1], wide)
            ]
        parts += [packed(block.reshape(block.shape[0], -1), bits, order) for block in blocks]
    if compression == 8:
        parts = [zlib.compress(part) for part in parts]
    if fill_order == 2:
        turned = bytes(int(f"{k:08b}"[::-1], 2) for k in range(256))
        parts = [part.translate(turned) for part in parts]
    head = 16 if big else 8
    offsets = [head + sum(map(len, parts[:k])) for k in range(len(parts))]
    tags = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * samples),
        (259, 3, [compression]),
        (277, 3, [samples]),
        (324 if tile else 273, 4, offsets),
        (325 if tile else 279, 4, [len(part) for part in parts]),
    ]
    if photometric is not None:
        tags.append((262, 3, [photometric]))
    if tile:
        tags += [(322, 4, [tile[1]]), (323, 4, [tile[0]])]
    else:
        tags.append((278, 4, [strip_rows or height]))
    if fill_order != 1:
        tags.append((266, 3, [fill_order]))
    if planes:
        tags.append((284, 3, [2]))
    if orientation is not None:
        tags.append((274, 3, [orientation]))
    if palette is not None:
        tags.append((320, 3, (np.asarray(palette, np.int64).T * 257).ravel().tolist()))
    if len(extra):
        tags.append((338, 3, list(extra)))
    if sample_format is not None:
        tags.append((339, 3, [sample_format] * samples))
    return _tiff_file(b"".join(parts), sorted([*tags, *more]), order, big)


def _tiff_file(data, tags, order, big):
    magic = b"II" if order == "<" else b"MM"
    head = 16 if big else 8
    data += bytes(len(data) & 1)
    directory, beyond = b"", b""
    start = head + len(data)
    room = 8 if big else 4
    end = start + (8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4)
    for tag, kind, values in tags:
        raw = (
            bytes(values)
            if kind == 2
            else struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'L'}", *values)
        )
        if len(raw) > room:
            place = struct.pack(order + ("Q" if big else "L"), end + len(beyond))
            beyond += raw + bytes(len(raw) & 1)
        else:
            place = raw.ljust(room, b"\0")
        directory += struct.pack(order + ("HHQ" if big else "HHL"), tag, kind, len(values)) + place
    if big:
        header = magic + struct.pack(order + "HHHQ", 43, 8, 0, start)
        directory = struct.pack(order + "Q", len(tags)) + directory + bytes(8)
    else:
        header = magic + struct.pack(order + "HL", 42, start)
        directory = struct.pack(order + "H", len(tags)) + directory + bytes(4)
    return header + data + directory + beyond


# BMP


def bmp(
    data,
    height,
    width,
    bits,
    *,
    compression=0,
    palette=None,
    header=40,
    masks=None,
    top_down=False,
    colors=None,
):
    """A BMP of these bytes of pixels; `palette` are colors (N, RGB)."""
    table = b""
    if palette is not None:
        bgr = np.asarray(palette, np.uint8)[:, ::-1]
        table = b"".join(bytes(color) + (b"" if header == 12 else b"\0") for color in bgr)
    count = len(palette or ()) if colors is None else colors
    if header == 12:
        info = struct.pack("<LHHHH", 12, width, height, 1, bits)
    else:
        signed = -height if top_down else height
        info = struct.pack("<LLlHHLLLLLL", 40, width, signed, 1, bits, compression, len(data), 0, 0, count, 0)
        info = struct.pack("<L", header) + info[4:]
        fields = b"" if masks is None else struct.pack("<4L", *masks)
        # With a header of 40 bytes the masks follow it.
        info += fields[:12] if header == 40 else fields.ljust(header - 40, b"\0")[: header - 40]
    start = 14 + len(info) + len(table)
    return b"BM" + struct.pack("<LHHL", start + len(data), 0, 0, start) + info + table + data


def bmp_rows(values, bits, *, top_down=False):
    """Rows of samples (H, samples of a row) as an uncompressed BMP has them."""
    rows = values if top_down else values[::-1]
    lines = []
    for row in rows:
        line = packed(row[None], bits, "<")
        lines.append(line + bytes(-len(line) % 4))
    return b"".join(lines)


# GIF


def gif(indices, palette, *, screen=None, at=(0, 0), transparent=None, disposal=0, extensions=b""):
    """A GIF whose first frame has these numbers (H, W), on a screen (height, width)."""
    height, width = indices.shape
    screen = screen or (height, width)
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    codes = []
    for k, value in enumerate(indices.ravel().tolist()):
        # Cleared before the codes grow: nothing is compressed.
        codes += [256, value] if k % 100 == 0 else [value]
    bits = np.array([*codes, 257])[:, None] >> np.arange(9) & 1
    stream = np.packbits(bits.astype(np.uint8).ravel(), bitorder="little").tobytes()
    blocks = b"".join(
        bytes([len(stream[k : k + 255])]) + stream[k : k + 255] for k in range(0, len(stream), 255)
    )
    control = b""
    if transparent is not None or disposal:
        flags = disposal << 2 | (transparent is not None)
        control = b"\x21\xf9\x04" + bytes([flags, 0, 0, transparent or 0, 0])
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", screen[1], screen[0], 0xF7, 0, 0)
        + colors.tobytes()
        + extensions
        + control
        + b","
        + struct.pack("<HHHHB", at[1], at[0], width, height, 0)
        + b"\x08"
        + blocks
        + b"\0;"
    )
