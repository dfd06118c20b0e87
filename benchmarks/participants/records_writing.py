"""Writes records to a store; prints, as JSON, records, bytes, and seconds from before it is opened until it is closed.

usage: records_writing.py highway|bare FOLDER RECORDS STORE

"highway" is LevelDBSink after ArrayReader, which has the first RECORDS pictures of FOLDER/images.npy in memory.
"bare" is plyvel alone with the same records as bytes, from FOLDER/store, with the same options of LevelDB and the same
number of bytes per synced write.
"""

import json
import os
import sys
import time

import numpy as np
from records import images_of

from highway.engine import Pipeline
from highway.modules import ArrayReader, LevelDBSink
from highway.store.opening import open_leveldb, private_view
from highway.store.records import key_of


def highway(folder: str, count: int, store: str) -> tuple[int, float]:
    """Return the bytes of the pictures, and seconds."""
    images = np.array(images_of(folder)[:count])
    began = time.perf_counter()
    reader = ArrayReader(images, np.arange(count), 64, shuffle=False, epochs=1)
    with Pipeline([reader, LevelDBSink(store)]) as pipeline:
        pipeline.wait()
    return images.nbytes, time.perf_counter() - began


def bare(folder: str, count: int, store: str) -> tuple[int, float]:
    """Return the bytes of the records, and seconds."""
    view = private_view(os.path.join(folder, "store"), "records_writing")
    source = open_leveldb(view.folder, "records_writing")
    records = [(key_of(number), source.get(key_of(number))) for number in range(count)]
    source.close()
    view.remove()
    most = LevelDBSink(store).batch_bytes
    began = time.perf_counter()
    target = open_leveldb(store, "records_writing", create=True)
    batch, waiting = target.write_batch(sync=True), 0
    for key, record in records:
        batch.put(key, record)
        waiting += len(record)
        if waiting >= most:
            batch.write()
            batch, waiting = target.write_batch(sync=True), 0
    batch.write()
    target.close()
    return sum(len(record) for _, record in records), time.perf_counter() - began


if __name__ == "__main__":
    who, folder, count, store = sys.argv[1:]
    nbytes, seconds = {"highway": highway, "bare": bare}[who](folder, int(count), store)
    print(json.dumps({"records": int(count), "bytes": nbytes, "seconds": seconds}))
