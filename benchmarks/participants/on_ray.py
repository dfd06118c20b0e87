"""A participant of ray_data.py: ``on_ray.py WHO DIR DTYPE WORKERS SECONDS`` prints its figures as JSON."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterator

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import numpy as np
from jobs import MEAN, STD, list_files
from process_tree import cpu_seconds, proportional_megabytes

SIDE, BATCH = 224, 64
OBJECT_STORE = 512 << 20
# Batches before the clock starts.
WARM = 8
# Photographs of an epoch of Ray Data.
LONG = 20_000


def highway_modules(folder, dtype):
    from highway.modules import Augmentations, ImageFileReader
    from highway.transforms import FlipX, Normalize, RandomResizedCrop

    reader = ImageFileReader(folder, BATCH, (SIDE, SIDE), fit=RandomResizedCrop(), seed=1)
    transforms = [FlipX(), Normalize()] if dtype == "float32" else [FlipX()]
    return [reader, Augmentations(transforms, seed=1)]


def highway_batches(folder, dtype, workers, who) -> Iterator[np.ndarray]:
    from highway.engine import Pipeline

    on = None
    if who != "highway":
        from highway.ray import Workers

        on = Workers(workers, host=None if who.endswith("encrypted") else "127.0.0.1")
    with Pipeline(highway_modules(folder, dtype), on=on) as pipeline:
        for batch in pipeline.forever():
            yield batch.images


def crop(image, random):
    """RandomResizedCrop with the defaults of torchvision, and a flip."""
    from PIL import Image

    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(width, height)
    x, y = random.integers(0, width - w + 1), random.integers(0, height - h + 1)
    out = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (x, y, x + w, y + h)))
    return out[:, ::-1] if random.random() < 0.5 else out


class Crops:
    """What `map_batches` calls: pictures, or the bytes of files, to arrays."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.random = np.random.default_rng()

    def __call__(self, batch):
        from PIL import Image

        if "bytes" in batch:
            pictures = (Image.open(io.BytesIO(contents)).convert("RGB") for contents in batch["bytes"])
        else:
            pictures = map(Image.fromarray, batch["image"])
        images = np.stack([crop(picture, self.random) for picture in pictures])
        if self.dtype == "float32":
            images = (images / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return {"images": images}


def ray_data_batches(folder, dtype, workers, read) -> Iterator[np.ndarray]:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    # One long epoch: Ray Data starts anew with each.
    files, _, _ = list_files(folder)
    files = files * max(1, LONG // len(files))
    while True:
        if read == "read_images":
            data = ray.data.read_images(files, mode="RGB")
        else:
            data = ray.data.read_binary_files(files)
        data = data.map_batches(Crops(dtype), batch_size=BATCH)
        for batch in data.iter_batches(batch_size=BATCH, prefetch_batches=4):
            yield batch["images"]


def stored() -> float:
    """Bytes in the object store, in 10**6."""
    import ray

    name = "object_store_memory"
    return (ray.cluster_resources()[name] - ray.available_resources().get(name, 0.0)) / 1e6


class Watch(threading.Thread):
    """Notes the peaks of memory and object store."""

    def __init__(self, on_ray):
        super().__init__(daemon=True)
        self.on_ray = on_ray
        self.memory = self.store = 0.0
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.5):
            self.memory = max(self.memory, proportional_megabytes())
            if self.on_ray:
                self.store = max(self.store, stored())


def main():
    who, folder, dtype, workers, seconds = sys.argv[1:]
    workers, seconds, on_ray = int(workers), float(seconds), who != "highway"
    base = 0.0
    if on_ray:
        import ray

        # The actors, or the tasks of Ray Data, have these cores.
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            log_to_driver=False,
        )
        base = proportional_megabytes()
    if who.startswith("Ray Data"):
        batches = ray_data_batches(folder, dtype, workers, who.split()[-1])
    else:
        batches = highway_batches(folder, dtype, workers, who)
    for _ in range(WARM):
        next(batches)
    watch = Watch(on_ray)
    watch.start()
    cpu, begun, images = cpu_seconds(), time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        images += len(next(batches))
    elapsed, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
    watch.over.set()
    watch.join()
    found = {
        "rate": images / elapsed,
        "cpu": 1e3 * cpu / images,
        "memory": watch.memory - base,
        "store": watch.store,
    }
    batches.close()
    if on_ray:
        ray.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
