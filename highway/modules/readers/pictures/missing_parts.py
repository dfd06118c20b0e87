"""Parts that a PIL may have been built or installed without: that is no fault of a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from highway.errors import MissingPackageError

__all__ = ["missing_part", "named"]

_NOT_CONFIGURED = "compression support is not configured"
_CODEC = re.compile(r"(?:decoder|encoder) \w+ not available")


def missing_part(error: Exception, said: Sequence[str] = ()) -> str | None:
    """Which part of PIL is missing where it raised this error; None where it is the picture's.

    A library that was left out (zlib, libtiff) is an OSError that says so, and a module in C that is not there
    (``_webp``, ``_imagingcms``) an ImportError. A libtiff that was built without a compression says so itself: `said`
    are its messages.
    """
    if isinstance(error, ImportError):
        return str(error)
    if isinstance(error, OSError) and _CODEC.fullmatch(str(error)):
        return str(error)
    return next((text for text in said if _NOT_CONFIGURED in text), None)


def named(error: MissingPackageError, owner: str, what: Any) -> MissingPackageError:
    """The same with the name of who reads, and of what."""
    text = str(error).removeprefix(f"{owner}: ")
    return MissingPackageError(f"{owner}: {text} (it was to read {what})")
