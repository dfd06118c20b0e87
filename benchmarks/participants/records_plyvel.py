"""plyvel alone: the values of the store in random order, each freed when the next is read."""

import os
from collections.abc import Iterator

from batch_threads import index_batches, pooled
from jobs import Job
from records import ValueProof as proof
from records import images_of

from highway.store.opening import open_leveldb, private_view
from highway.store.records import key_of

__all__ = ["batches", "proof"]


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[tuple[int, bytes], list[int]]]:
    """Yield endless ((bytes of all, last value), numbers); only one variant."""
    # The same tables with the same options of LevelDB.
    view = private_view(os.path.join(directory, "store"), "records_plyvel")
    store = open_leveldb(view.folder, "records_plyvel")

    def read(_: int, numbers: list[int]) -> tuple[tuple[int, bytes], list[int]]:
        nbytes, value = 0, b""
        for number in numbers:
            value = store.get(key_of(number), verify_checksums=True)
            nbytes += len(value)
        return (nbytes, value), numbers

    try:
        yield from pooled(read, index_batches(len(images_of(directory)), job.batch_size, seed), threads)
    finally:
        store.close()
        view.remove()
