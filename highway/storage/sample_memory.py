"""SampleMemory: counts what fetched samples take: their bytes, and what it costs to have them."""

from __future__ import annotations

__all__ = ["SampleMemory"]

# A connection reads into a buffer that grows with the answers, and keeps it for the next one. Measured with obstore:
# 0.12 MB with objects of 20 kB, 0.34 MB with 110 kB, 0.6 MB with 300 kB and more.
_CONNECTION = 64 << 10
_LARGEST_BUFFER = 512 << 10
# Bytes of a sample, before any is known, and the weight of the latest one of them in the cost of a connection.
_TYPICAL = 100_000
_WEIGHT = 1 / 32
# So many connections are always allowed.
_FEW = 8
# The allocator leaves gaps between samples: one byte in so many.
_GAPS = 16
# What is noted of a sample that was announced.
_NOTE = 1 << 10
# Parts of the memory that connections and notes take at most; a window of a `TarReader`, a half of it, has room beside.
_CONNECTIONS = 1 / 4
_NOTES = 1 / 8


class SampleMemory:
    """Memory of a fetcher, within a limit.

    Counted are the bytes that are held or asked for, the gaps that the allocator leaves between them, the buffers of
    connections, which stay open between requests, and what is noted of the samples that were announced. If nothing is
    held or asked for, there is room for one request of any size.

    Parameters
    ----------
    max_bytes : int

    Attributes
    ----------
    used, most_used : int
        Bytes held or asked for, now and at most.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used = self.most_used = 0
        self._active = self._connections = 0
        self._cost = float(_cost(_TYPICAL))
        self._for_connections, self._for_notes = _CONNECTIONS * max_bytes, _NOTES * max_bytes

    def may_connect(self) -> bool:
        """Return whether one more request may be made at the same time."""
        wanted = self._active + 1
        return wanted <= max(self._connections, self._for_connections / self._cost, _FEW)

    def has_room(self, nbytes: int, noted: int) -> bool:
        """Return whether so many bytes may be asked for.

        Parameters
        ----------
        nbytes : int
        noted : int
            Number of samples that were announced and not taken.
        """
        if not self.used:
            return True
        after = self.used + nbytes
        # Their buffers may have grown since they were made.
        connections = min(max(self._connections, self._active + 1) * self._cost, self._for_connections)
        notes = min(noted * _NOTE, self._for_notes)
        return after + after // _GAPS + connections + notes <= self._max_bytes

    def begin(self, nbytes: int) -> None:
        """Count a request for so many bytes; 0 asks for a size."""
        if nbytes:
            self._cost += (_cost(nbytes) - self._cost) * _WEIGHT
        self._active += 1
        self._connections = max(self._connections, self._active)
        self.use(nbytes)

    def end(self) -> None:
        """Note that a request was answered, or failed; its bytes stay counted."""
        self._active -= 1

    def use(self, nbytes: int) -> None:
        """Count bytes; those that are freed are negative."""
        self.used += nbytes
        self.most_used = max(self.most_used, self.used)


def _cost(nbytes: int) -> int:
    """Bytes of a connection that gets answers of one size."""
    return _CONNECTION + min(5 * nbytes // 2, _LARGEST_BUFFER)
