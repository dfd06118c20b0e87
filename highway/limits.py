"""Limits of arguments that modules check and the command line checks too."""

from __future__ import annotations

__all__ = ["MOST_JPEG_SIDE", "MOST_QUEUE_SIZE", "MOST_WINDOW", "MOST_WORKERS"]

# More is a mistake: threads of a module, and batches in a queue.
MOST_WORKERS = 1024
MOST_QUEUE_SIZE = 65536
# Batches that may be under way to a peer.
MOST_WINDOW = 1024
# Pixels of the longest side of a JPEG that is packed into a store.
MOST_JPEG_SIDE = 8192
