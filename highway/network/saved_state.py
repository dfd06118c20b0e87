"""The state of a training machine: a cursor as JSON-serializable data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from highway.errors import StateMismatchError
from highway.network.protocol.messages import Cursor, Progress
from highway.network.protocol.roles import MOST_GENERATION

__all__ = ["MOST_STREAMS", "cursor_of", "state_of"]

MOST_STREAMS = 65536
"""Most data machines."""


def state_of(cursor: Cursor) -> dict[str, Any]:
    """Return the state of a cursor."""
    generation, epoch, streams, fingerprint, *_ = cursor
    return {
        "version": 1,
        "generation": generation,
        "epoch": epoch,
        "streams": [[base, list(beyond)] for base, beyond in streams],
        "fingerprint": fingerprint,
    }


def cursor_of(state: Mapping[str, Any]) -> Cursor:
    """Check a state and return its cursor; the state may come from a file and is not trusted.

    Raises
    ------
    StateMismatchError
        It is not a state.
    """

    def wrong(what: str) -> StateMismatchError:
        return StateMismatchError(
            f"ZMQSource: the state {what}; expected the return value of state_dict() of a ZMQSource"
        )

    if not isinstance(state, Mapping):
        raise wrong(f"is {type(state).__name__}")
    if state.get("version") != 1:
        raise wrong(f"has version {state.get('version')!r}, not 1")
    generation, epoch, fingerprint = (state.get(name) for name in ("generation", "epoch", "fingerprint"))
    streams = state.get("streams")
    if not _count(generation, MOST_GENERATION) or not _count(epoch) or not isinstance(fingerprint, str):
        raise wrong("has no generation, epoch and fingerprint")
    if not isinstance(streams, list) or len(streams) > MOST_STREAMS:
        raise wrong("has no list of streams")
    progress = []
    for stream in streams:
        if not isinstance(stream, list) or len(stream) != 2 or not _count(stream[0]):
            raise wrong(f"has a stream {stream!r}")
        base, beyond = stream
        if not isinstance(beyond, list) or not all(map(_count, beyond)) or beyond != sorted({*beyond}):
            raise wrong(f"has a stream {stream!r}")
        if beyond and beyond[0] <= base:
            raise wrong(f"has a stream {stream!r}")
        progress.append(Progress(base, tuple(beyond)))
    return Cursor(generation, epoch, tuple(progress), fingerprint)  # type: ignore[arg-type]  # checked by _count


def _count(value: object, end: int = 2**62) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < end
