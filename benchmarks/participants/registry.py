"""Who takes part: one entry a participant, readable without any of their packages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Participant:
    """One loader that `run.py` can measure.

    Attributes
    ----------
    name : str
        What the tables call it.
    module : str
        Module of this folder with a function `batches(directory, job, threads, variant, seed)`.
    needs : tuple of str
        Modules that an interpreter must be able to import.
    distributions : tuple of str
        Packages whose versions are recorded.
    variants : dict of str to tuple of str
        By job, the ways to write it that do the whole job; the fastest is taken.
    reduced : tuple of str
        Ways that are faster because they give up quality (no antialiasing, coarse decoding), for a row of
        their own.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    distributions: tuple[str, ...]
    variants: dict[str, tuple[str, ...]]
    reduced: tuple[str, ...] = ()


def alike(*variants: str) -> dict[str, tuple[str, ...]]:
    """The same variants for both jobs."""
    return {"fit": variants, "rrc": variants}


HIGHWAY = Participant("highway", "highway_pipeline", ("highway",), ("highway-loader",), alike(""))

PEERS = (
    Participant(
        "opencv",
        "opencv_threads",
        ("cv2",),
        ("opencv-python-headless", "opencv-python"),
        alike("area"),
        ("linear",),
    ),
    Participant(
        "simplejpeg",
        "simplejpeg_threads",
        ("simplejpeg", "cv2"),
        ("simplejpeg", "opencv-python-headless", "opencv-python"),
        alike("area"),
        ("linear",),
    ),
    Participant("pillow", "pillow_threads", ("PIL",), ("Pillow-SIMD", "pillow"), alike("")),
    Participant(
        "torch",
        "torch_dataloader",
        ("torch", "torchvision"),
        ("torch", "torchvision", "Pillow-SIMD", "pillow"),
        alike("decode_jpeg", "pil"),
    ),
    Participant(
        "dali",
        "dali_cpu",
        ("nvidia.dali",),
        ("nvidia-dali-cuda120", "nvidia-dali-cuda130"),
        {"fit": ("slice", "resize"), "rrc": ("",)},
    ),
    Participant("spdl", "spdl_threads", ("spdl.io", "spdl.pipeline"), ("spdl", "spdl-io"), alike("")),
    Participant(
        "tf.data",
        "tf_data",
        ("tensorflow",),
        ("tensorflow-cpu", "tensorflow"),
        alike("area", "antialias"),
        ("plain",),
    ),
    Participant(
        "grain",
        "grain_threads",
        ("grain", "cv2", "simplejpeg"),
        ("grain", "simplejpeg", "opencv-python-headless", "opencv-python"),
        alike("opencv-area", "simplejpeg-area"),
        ("opencv-linear", "simplejpeg-linear"),
    ),
)

PARTICIPANTS = {participant.name: participant for participant in (HIGHWAY, *PEERS)}
