"""The participants, one entry each; needs none of their packages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Participant:
    """One loader that `run.py` can measure.

    Attributes
    ----------
    name : str
        Name in the tables.
    module : str
        Module of this folder with a function `batches(directory, job, threads, variant, seed)`.
    needs : tuple of str
        Modules that an interpreter must be able to import.
    distributions : tuple of str
        Packages whose versions are recorded, the participant's own first.
    requirements : tuple of str
        Packages that `install_peers.py` installs into an environment of its own.
    variants : dict of str to tuple of str
        Implementations of the whole job, by job; the fastest counts.
    title : str
        Name in the report.
    reduced : tuple of str
        Faster implementations of lower quality (no antialiasing, coarse decoding), for a row of
        their own.
    system : tuple of str
        Packages of Debian or Ubuntu that installing or running it needs.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    distributions: tuple[str, ...]
    requirements: tuple[str, ...]
    variants: dict[str, tuple[str, ...]]
    title: str
    reduced: tuple[str, ...] = ()
    system: tuple[str, ...] = ()


def alike(*variants: str) -> dict[str, tuple[str, ...]]:
    """Return the same variants for both jobs."""
    return {"fit": variants, "rrc": variants}


HIGHWAY = Participant(
    "highway", "highway_pipeline", ("highway",), ("highway-loader",), (), alike(""), "Highway"
)

OPENCV = "opencv-python-headless==5.0.0.93"
SIMPLEJPEG = "simplejpeg==1.9.0"
PILLOW_SIMD = "Pillow-SIMD==12.1.1.post0"
COMPILER = ("build-essential", "pkg-config", "libjpeg-dev", "zlib1g-dev", "python3-dev")

PEERS = (
    Participant(
        "opencv",
        "opencv_threads",
        ("cv2",),
        ("opencv-python-headless", "opencv-python"),
        (OPENCV,),
        alike("area"),
        "OpenCV in threads",
        reduced=("linear",),
    ),
    Participant(
        "simplejpeg",
        "simplejpeg_threads",
        ("simplejpeg", "cv2"),
        ("simplejpeg", "opencv-python-headless", "opencv-python"),
        (SIMPLEJPEG, OPENCV),
        alike("area"),
        "simplejpeg + OpenCV in threads",
        reduced=("linear",),
    ),
    Participant(
        "pillow",
        "pillow_threads",
        ("PIL",),
        ("Pillow-SIMD", "pillow"),
        ("numpy", PILLOW_SIMD),
        alike(""),
        "Pillow-SIMD in threads",
        system=COMPILER,
    ),
    Participant(
        "torch",
        "torch_dataloader",
        ("torch", "torchvision"),
        ("torch", "torchvision", "Pillow-SIMD", "pillow"),
        ("torch==2.14.1", "torchvision==0.29.1", "numpy", PILLOW_SIMD),
        alike("decode_jpeg", "pil"),
        "torch DataLoader + torchvision v2",
        system=COMPILER,
    ),
    Participant(
        "dali",
        "dali_cpu",
        ("nvidia.dali",),
        ("nvidia-dali-cuda120", "nvidia-dali-cuda130"),
        ("nvidia-dali-cuda120==2.4.0", "numpy"),
        {"fit": ("slice", "resize"), "rrc": ("",)},
        "NVIDIA DALI, CPU",
    ),
    Participant(
        "spdl",
        "spdl_threads",
        ("spdl.io", "spdl.pipeline"),
        ("spdl", "spdl-io"),
        ("spdl==0.8.0", "spdl-io==0.8.0", "numpy"),
        alike(""),
        "SPDL",
        system=("ffmpeg",),
    ),
    Participant(
        "tf.data",
        "tf_data",
        ("tensorflow",),
        ("tensorflow-cpu", "tensorflow"),
        ("tensorflow-cpu==2.21.0",),
        alike("area", "antialias"),
        "tf.data",
        reduced=("plain",),
    ),
    Participant(
        "grain",
        "grain_threads",
        ("grain", "cv2", "simplejpeg"),
        ("grain", "simplejpeg", "opencv-python-headless", "opencv-python"),
        ("grain==0.2.18", SIMPLEJPEG, OPENCV),
        alike("opencv-area", "simplejpeg-area"),
        "Grain",
        reduced=("opencv-linear", "simplejpeg-linear"),
    ),
)

PARTICIPANTS = {participant.name: participant for participant in (HIGHWAY, *PEERS)}
