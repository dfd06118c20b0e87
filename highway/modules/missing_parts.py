"""Parts that a PIL may have been built or installed without: that is no fault of a picture."""

from __future__ import annotations

import re
from typing import Any

from highway.errors import MissingPackageError

__all__ = ["missing_part", "named", "refuse_without_webp"]

_CODEC = re.compile(r"(?:decoder|encoder) \w+ not available")


def missing_part(
    error: Exception, formats: tuple[str, ...] = ("PNG", "WEBP", "BMP", "GIF", "TIFF")
) -> str | None:
    """Which part of PIL is missing where it raised this error; None where it is the picture's.

    A library that was left out (zlib, libtiff) is an OSError that says so, a module in C that is not there (``_webp``,
    ``_imagingcms``) an ImportError, at once or when it is used, and a missing plugin a KeyError of its format.
    """
    if isinstance(error, ImportError):
        return str(error)
    if isinstance(error, OSError) and _CODEC.fullmatch(str(error)):
        return str(error)
    if isinstance(error, KeyError) and error.args and error.args[0] in formats:
        from PIL import Image

        return None if error.args[0] in Image.OPEN else f"no plugin for {error.args[0]}"
    return None


def refuse_without_webp(contents: bytes) -> None:
    """Raise ImportError for a WebP where PIL has no libwebp; PIL itself would not know what it is."""
    if contents[:4] == b"RIFF" and contents[8:12] == b"WEBP":
        from PIL import _webp  # noqa: F401


def named(error: MissingPackageError, owner: str, what: Any) -> MissingPackageError:
    """The same with the name of who reads, and of what."""
    text = str(error).removeprefix(f"{owner}: ")
    return MissingPackageError(f"{owner}: {text} (it was to read {what})")
