"""NVIDIA DALI, operators on the CPU, one thread: `external_source` supplies images and NumPy's draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import nvidia.dali
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from on_arrays import jobs
from on_arrays.jobs import Drawn, Own, Sizes


def version() -> str:
    return f"DALI {nvidia.dali.__version__}"


def ways(size: int) -> dict[str, dict[str, Any]]:
    sizes = Sizes(size)
    crop, margin = sizes.crop, sizes.margin
    real, byte = types.FLOAT, types.UINT8
    deviations = [255 * one for one in jobs.STD]

    def cut(images: Any, corner: Any) -> Any:
        return fn.slice(images, corner, [crop, crop], axes=[0, 1])

    def padded_cut(images: Any, corner: Any) -> Any:
        return fn.slice(
            images, corner - margin, [size, size], axes=[0, 1], out_of_bounds_policy="pad", fill_values=0
        )

    def fixed(images: Any, first: int) -> Any:
        return fn.slice(images, [first, first], [crop, crop], axes=[0, 1])

    def resized(images: Any, height: int, width: int) -> Any:
        return fn.resize(images, size=[height, width], interp_type=types.INTERP_TRIANGULAR)

    def window(images: Any, place: Any) -> Any:
        return fn.resize(
            images,
            size=[size, size],
            roi_start=place[0:2],
            roi_end=place[2:4],
            interp_type=types.INTERP_TRIANGULAR,
        )

    def warped(images: Any, matrix: Any) -> Any:
        return fn.warp_affine(images, matrix=matrix, inverse_map=False, fill_value=0)

    def planes(images: Any, mean: list[float], std: list[float]) -> Any:
        return fn.crop_mirror_normalize(images, mean=mean, std=std, dtype=real, output_layout="CHW")

    def transposed(images: Any) -> Any:
        return fn.transpose(images, perm=[1, 0, 2])

    def jittered(images: Any, values: Any) -> Any:
        return fn.color_twist(
            images, brightness=values[0], contrast=values[1], saturation=values[2], hue=values[3]
        )

    def blurred(images: Any, sigma: Any) -> Any:
        return fn.gaussian_blur(images, window_size=jobs.KERNEL, sigma=sigma[0])

    def gray(images: Any) -> Any:
        one = fn.color_space_conversion(images, image_type=types.RGB, output_type=types.GRAY)
        return fn.cat(one, one, one, axis=2)

    def erased(images: Any, box: Any) -> Any:
        return fn.erase(images, anchor=box[0:2], shape=box[2:4], axes=[0, 1], fill_value=0)

    def noisy(images: Any) -> Any:
        return fn.cast_like(fn.noise.gaussian(images, stddev=jobs.NOISE * 255), images)

    graphs: dict[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = {
        "FlipX": (lambda images: fn.flip(images, horizontal=1), None),
        "FlipY": (lambda images: fn.flip(images, horizontal=0, vertical=1), None),
        "Transpose": (transposed, None),
        "RandomCrop": (cut, _integers),
        "CenterCrop": (lambda images: fixed(images, (size - crop) // 2), None),
        "PadCrop": (padded_cut, _integers),
        "Slice": (lambda images: fixed(images, margin), None),
        "RandomResizedCrop": (window, _ends),
        "Resize": (lambda images: resized(images, sizes.smaller, sizes.smaller), None),
        "Resize shorter": (lambda images: resized(images, sizes.larger, sizes.larger), None),
        **{name: (warped, _matrices(name, size)) for name in ("Rotate", "Zoom", "Affine")},
        "ColorJitter": (jittered, _jitters),
        "Grayscale": (gray, None),
        "Invert": (lambda images: fn.cast(255 - images, dtype=byte), None),
        "GaussianBlur": (blurred, _reals),
        "GaussianNoise": (noisy, None),
        "RandomErasing": (erased, _anchors),
        "Normalize": (lambda images: planes(images, [255 * one for one in jobs.MEAN], deviations), None),
        "Rescale": (lambda images: planes(images, [127.5] * 3, [127.5] * 3), None),
        "ToFloat": (lambda images: planes(images, [0.0] * 3, [255.0] * 3), None),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (graph, arranged) in graphs.items():
        way = _run(graph, arranged)
        # Its colors have one order, and mean gray is the middle one.
        found[name] = {"dali": Own(way) if name in ("GaussianNoise", "ColorJitter") else way}
    return found


def _run(graph: Callable[..., Any], arranged: Callable[..., Any] | None) -> Callable[..., Any]:
    """Builds the pipeline with the first batch."""
    built: list[Any] = []

    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        if not built:

            @pipeline_def(
                batch_size=len(images),
                num_threads=1,
                device_id=None,
                prefetch_queue_depth=1,
                exec_dynamic=False,
            )
            def pipeline() -> Any:
                pictures = fn.external_source(name="images", layout="HWC", no_copy=True)
                if arranged is None:
                    return graph(pictures)
                return graph(pictures, fn.external_source(name="drawn"))

            built.append(pipeline())
            built[0].build()
        built[0].feed_input("images", images, layout="HWC")
        if arranged is not None:
            built[0].feed_input("drawn", arranged(drawn))
        (out,) = built[0].run()
        return out.as_array()

    return make


def _integers(drawn: Drawn) -> NDArray[np.int32]:
    return np.array(drawn, np.int32)


def _reals(drawn: Drawn) -> NDArray[np.float32]:
    return np.array(drawn, np.float32)


def _jitters(drawn: Drawn) -> NDArray[np.float32]:
    """Hue in degrees."""
    return np.array([(*four[:3], four[3] * 360) for four in drawn], np.float32)


def _ends(drawn: Drawn) -> NDArray[np.float32]:
    """Top, left, bottom and right."""
    values = np.array(drawn, np.float32)
    values[:, 2:] += values[:, :2]
    return values


def _anchors(drawn: Drawn) -> NDArray[np.float32]:
    """Top, left, height and width."""
    left, top, right, bottom = np.array(drawn, np.float32).T
    return np.stack((top, left, bottom - top, right - left), axis=1)


def _matrices(name: str, size: int) -> Callable[..., Any]:
    def arranged(drawn: Drawn) -> NDArray[np.float32]:
        columns = [np.array(column) for column in zip(*drawn, strict=True)]
        return jobs.matrices(name, columns, size)[:, :2].astype(np.float32)

    return arranged
