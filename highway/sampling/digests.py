"""Digests: hashes that identify data and orders in saved states."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["digest"]


def digest(*parts: bytes | Iterable[bytes]) -> str:
    """Return a hash of the parts and their boundaries, 32 hex digits."""
    # Late: it loads OpenSSL, 5 MB that most programs do not need.
    from hashlib import blake2b

    hashed = blake2b(digest_size=16)
    for part in parts:
        for text in (part,) if isinstance(part, bytes) else part:
            hashed.update(b"%d:" % len(text))
            hashed.update(text)
        hashed.update(b";")
    return hashed.hexdigest()
