"""Finds missing parts of PIL, so that a picture is not counted as bad for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from highway.errors import MissingPackageError

__all__ = ["missing_part", "named"]

_NOT_CONFIGURED = "compression support is not configured"
_CODEC = re.compile(r"(?:decoder|encoder) \w+ not available")


def missing_part(error: Exception, said: Sequence[str] = ()) -> str | None:
    """Which part of PIL is missing, if that is the cause of this error; None if the picture is.

    PIL raises OSError with a certain text for a library that it was built without (zlib, libtiff), and ImportError for
    a missing C module (``_webp``, ``_imagingcms``). A libtiff that was built without a compression prints a message:
    `said` are its messages.
    """
    if isinstance(error, ImportError):
        return str(error)
    if isinstance(error, OSError) and _CODEC.fullmatch(str(error)):
        return str(error)
    return next((text for text in said if _NOT_CONFIGURED in text), None)


def named(error: MissingPackageError, owner: str, what: Any) -> MissingPackageError:
    """Add the name of the reader and of the file to an error."""
    text = str(error).removeprefix(f"{owner}: ")
    return MissingPackageError(f"{owner}: {text} (needed to read {what})")
