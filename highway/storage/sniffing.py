"""Detects the format of a file from its first bytes."""

from __future__ import annotations

import re

__all__ = ["FIRST_BYTES", "READ", "sniff", "unknown"]

FIRST_BYTES = 1024
"""Number of bytes that `sniff` needs, if the file has as many."""

READ = frozenset(("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "PGM", "AVIF", "HEIC", "HEIF", "JPEG XL"))
"""Formats of `sniff` that Highway reads, some with plug-ins of PIL."""

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"II\xbc", "JPEG XR"),
    (b"8BPS", "PSD"),
    (b"gimp xcf", "XCF"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"AT&TFORM", "DjVu"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"icns", "ICNS"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"FLIF", "FLIF"),
    (b"BPG\xfb", "BPG"),
    (b"DDS ", "DDS"),
    (b"\xabKTX ", "KTX"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"\x8bJNG\r\n\x1a\n", "JNG"),
    (b"SIMPLE  =", "FITS"),
    (b"IIU\0", "a raw file of a camera (RW2)"),
    (b"IIRO", "a raw file of a camera (ORF)"),
    (b"IIRS", "a raw file of a camera (ORF)"),
    (b"FUJIFILMCCD-RAW", "a raw file of a camera (RAF)"),
    (b"\x93NUMPY", "NumPy"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"MATLAB 5.0", "MATLAB"),
    (b"PAR1", "Parquet"),
    (b"PK\3\4", "ZIP"),
    (b"PK\5\6", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\x1aE\xdf\xa3", "Matroska video"),
    (b"\0\0\1\xba", "MPEG video"),
    (b"\0\0\1\xb3", "MPEG video"),
    (b"\0\x05\x16\x07", "AppleDouble, which macOS keeps beside a file"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS (git lfs pull fetches the file)"),
    (b"/annex/objects/", "a pointer of git-annex (git annex get fetches the file)"),
)
# ISO base media files by their brand.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
    b"crx ": "a raw file of a camera (CR3)",
}
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RIFF = {b"WEBP": "WebP", b"AVI ": "AVI video", b"WAVE": "WAV sound"}
# Sizes of BMP headers: the two letters alone may also start a text.
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_PNM = re.compile(rb"P([1-7][\s#]|[Ff]\n)")


def sniff(first: bytes) -> str | None:
    """Return the name of the format of a file; None if unknown.

    Parameters
    ----------
    first : bytes
        The first `FIRST_BYTES` bytes of the file or more, or all.

    Examples
    --------
    >>> sniff(b"%PDF-1.7 ...")
    'PDF'
    """
    for beginning, name in _BEGINNINGS:
        if first.startswith(beginning):
            return name
    if first.startswith(_TIFF):
        return "a raw file of a camera (CR2)" if first[8:10] == b"CR" else "TIFF"
    if first.startswith(b"RIFF"):
        return _RIFF.get(first[8:12])
    if first.startswith(b"BM") and int.from_bytes(first[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if first[4:8] == b"ftyp":
        return _media(first)
    if first[128:132] == b"DICM":
        return "DICOM"
    if first[257:262] == b"ustar":
        return "tar"
    if _PNM.match(first):
        return "PGM" if first.startswith(b"P5") else "PNM"
    return _markup(first)


def unknown(contents: bytes, formats: str) -> str:
    """Return the error text, after the file name, for a file in none of these formats."""
    found = sniff(contents[:FIRST_BYTES])
    if found is not None and found not in READ:
        return f"is {found}, which Highway does not read; convert it to one of {formats}"
    if found is not None and found not in formats:
        return f"is no picture of a known format ({formats}): it is {found}"
    nothing = "" if contents.strip(b"\0") else ": it has no bytes but zeros" if contents else ": it is empty"
    return f"is no picture of a known format ({formats}){nothing}"


def _media(first: bytes) -> str:
    """Return the format of a file with the box `ftyp`, by its brands; the first may be a general one."""
    end = min(int.from_bytes(first[:4], "big"), len(first))
    brands = [first[8:12], *(first[k : k + 4] for k in range(16, end - 3, 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    return "HEIF" if {b"mif1", b"msf1"} & {*brands} else "MP4 or QuickTime video"


def _markup(first: bytes) -> str | None:
    encodings = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
    encoding = next((name for mark, name in encodings if first.startswith(mark)), "utf-8")
    text = first.decode(encoding, "replace").lstrip("\ufeff \t\r\n").lower()
    if not text.startswith("<"):
        return None
    if "<svg" in text:
        return "SVG"
    if "<!doctype html" in text or re.search(r"<(html|head|body)\b", text):
        return "HTML"
    return "XML" if text.startswith("<?xml") else None
