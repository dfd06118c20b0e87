"""NVIDIA DALI, CPU operators only."""

from collections.abc import Iterator

import numpy as np
from jobs import MEAN, STD, Job, list_files
from nvidia.dali import fn, math, pipeline_def, types


@pipeline_def
def photographs(paths: list[str], labels: list[int], job: Job, variant: str):
    """Build the graph of one job."""
    data, label = fn.readers.file(files=paths, labels=labels, shuffle_after_epoch=True, name="reader")
    mirror = fn.random.coin_flip(probability=0.5)
    if job.name == "fit":
        if variant == "slice":
            shape = fn.peek_image_shape(data, dtype=types.FLOAT)
            height, width = shape[0], shape[1]
            aspect = job.width / job.height
            extent = fn.stack(
                math.min(height, width / aspect) / height, math.min(width, height * aspect) / width
            )
            images = fn.decoders.image_slice(
                data, (1.0 - extent) / 2.0, extent, axis_names="HW", device="cpu", output_type=types.RGB
            )
            images = fn.resize(
                images, size=(job.height, job.width), interp_type=types.INTERP_LINEAR, antialias=True
            )
        else:
            images = fn.decoders.image(data, device="cpu", output_type=types.RGB)
            images = fn.resize(
                images,
                size=(job.height, job.width),
                mode="not_smaller",
                interp_type=types.INTERP_LINEAR,
                antialias=True,
            )
            images = fn.crop(images, crop=(job.height, job.width))
        return fn.flip(images, horizontal=mirror), label
    images = fn.decoders.image_random_crop(
        data, device="cpu", output_type=types.RGB, random_area=(0.08, 1.0), random_aspect_ratio=(3 / 4, 4 / 3)
    )
    images = fn.resize(images, size=(job.height, job.width), interp_type=types.INTERP_LINEAR, antialias=True)
    images = fn.crop_mirror_normalize(
        images,
        mirror=mirror,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255 * mean for mean in MEAN],
        std=[255 * std for std in STD],
    )
    return images, label


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels), views of DALI's memory that are valid until the next batch.

    Variants of the fit: "resize" (decode all, resize to cover, crop) and "slice" (decode the window, resize);
    both antialiased.
    """
    paths, labels, _ = list_files(directory)
    pipeline = photographs(
        paths,
        labels,
        job,
        variant,
        batch_size=job.batch_size,
        num_threads=threads,
        device_id=None,
        seed=seed,
        prefetch_queue_depth=2,
    )
    pipeline.build()
    while True:
        images, label = pipeline.run()
        yield np.asarray(images.as_tensor()), np.asarray(label.as_tensor()).ravel()
