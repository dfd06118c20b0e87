"""Streams: the parts of the data of one training machine, each of a data machine of its own."""

from __future__ import annotations

from typing import NamedTuple

from highway.arguments import whole
from highway.engine import Source
from highway.errors import ArgumentError
from highway.network.saved_state import MOST_STREAMS

__all__ = ["WHOLE", "Stream", "check_part", "stream_fingerprint", "stream_of"]


class Stream(NamedTuple):
    """Number of a data machine, and number of the data machines that feed the same training machine."""

    number: int
    machines: int


WHOLE = Stream(0, 1)


def stream_of(owner: str, stream: object) -> Stream:
    """Return the argument `stream`; raises ArgumentError unless it is (i, n)."""
    if not isinstance(stream, (tuple, list)) or len(stream) != 2:
        raise ArgumentError(f"{owner}: stream is {stream!r}; expected (i, n): data machine i of n, from 0")
    count = whole(owner, "stream[1]", stream[1], 1, MOST_STREAMS)
    return Stream(whole(owner, "stream[0]", stream[0], 0, count - 1), count)


def check_part(owner: str, source: Source, stream: Stream) -> None:
    """Raise ArgumentError unless the source reads the part of this stream."""
    rank, world = source.shard
    number, count = stream
    if rank % count != number or world % count:
        raise ArgumentError(
            f"{owner}: stream is ({number}, {count}), and {source.name} reads shard=({rank}, {world}); expected "
            f"shard=({number}, {count}), or shard=(r * {count} + {number}, w * {count}) where the training machine is "
            "rank r of w"
        )


def stream_fingerprint(source: Source, stream: Stream) -> str:
    """Return the fingerprint of the data of a training machine, the same from all of its data machines."""
    rank, world = (part // stream.machines for part in source.shard)
    found = source.fingerprint()
    return found if world == 1 else f"{found}/rank {rank} of {world}"
