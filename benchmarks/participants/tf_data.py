"""tf.data: parallel map, decode_and_crop_jpeg for the random windows."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from jobs import MEAN, STD, Job, list_files


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels).

    Variants: "antialias" and "area", both antialiased, and "plain", tf.image.resize's default, which is not.
    """
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    size = (job.height, job.width)
    method = "area" if variant == "area" else "bilinear"
    mean = tf.constant([255 * mean for mean in MEAN])
    scale = tf.constant([1 / (255 * std) for std in STD])

    def fit(path, label):
        data = tf.io.read_file(path)
        shape = tf.io.extract_jpeg_shape(data)
        height, width = shape[0], shape[1]
        window_height = tf.minimum(height, width * job.height // job.width)
        window_width = tf.minimum(width, height * job.width // job.height)
        window = tf.stack(
            [(height - window_height) // 2, (width - window_width) // 2, window_height, window_width]
        )
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.image.resize(image, size, method, antialias=variant == "antialias")
        image = tf.image.random_flip_left_right(image)
        return tf.cast(tf.round(image), tf.uint8), label

    def random_resized_crop(path, label):
        data = tf.io.read_file(path)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(data),
            bounding_boxes=tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4]),
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], extent[0], extent[1]])
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.image.resize(image, size, method, antialias=variant == "antialias")
        image = tf.image.random_flip_left_right(image)
        return tf.transpose((image - mean) * scale, (2, 0, 1)), label

    paths, labels, _ = list_files(directory)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    dataset = (
        tf.data.Dataset.from_tensor_slices((paths, np.array(labels, np.int64)))
        .shuffle(len(paths), seed=seed)
        .repeat()
        .map(
            fit if job.name == "fit" else random_resized_crop, num_parallel_calls=threads, deterministic=False
        )
        .batch(job.batch_size)
        .prefetch(tf.data.AUTOTUNE)
        .with_options(options)
    )
    yield from dataset.as_numpy_iterator()
