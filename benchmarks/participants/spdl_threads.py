"""SPDL: its thread pipeline, with FFmpeg decoding, cropping and scaling through spdl.io."""

import random
from collections.abc import Iterator

import numpy as np
import spdl.io
from batch_threads import index_batches
from jobs import MEAN, STD, Job, list_files
from spdl.pipeline import PipelineBuilder
from windows import centre_window, random_window

SCALE = (1 / (255 * np.array(STD))).astype(np.float32)[:, None, None]
SHIFT = (-np.array(MEAN) / np.array(STD)).astype(np.float32)[:, None, None]


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); there is one variant (swscale's bilinear widens its filter to shrink)."""
    paths, labels, _ = list_files(directory)
    label_array = np.array(labels, np.int64)

    def load(task: tuple[int, list[int]]) -> tuple[np.ndarray, np.ndarray]:
        number, indices = task
        rng = random.Random(seed * 1_000_003 + number)
        frames = []
        for index in indices:
            packets = spdl.io.demux_image(paths[index])
            if job.name == "fit":
                window = centre_window(packets.height, packets.width, job.height, job.width)
            else:
                window = random_window(rng, packets.height, packets.width)
            top, left, height, width = window
            steps = (
                f"crop={width}:{height}:{left}:{top}:exact=1,scale={job.width}:{job.height}:flags=bilinear"
            )
            if rng.random() < 0.5:
                steps += ",hflip"
            frames.append(spdl.io.decode_packets(packets, filter_desc=f"{steps},format=pix_fmts=rgb24"))
        images = spdl.io.to_numpy(spdl.io.convert_frames(frames))
        if job.dtype == "float32":
            normalized = np.empty(job.batch_shape(len(indices)), np.float32)
            for image, target in zip(images, normalized, strict=True):
                np.multiply(image.transpose(2, 0, 1), SCALE, out=target)
                target += SHIFT
            images = normalized
        return images, label_array[indices]

    pipeline = (
        PipelineBuilder()
        .add_source(enumerate(index_batches(len(paths), job.batch_size, seed)))
        .pipe(load, concurrency=threads)
        .add_sink(threads)
        .build(num_threads=threads)
    )
    with pipeline.auto_stop():
        yield from pipeline.get_iterator(timeout=60)
