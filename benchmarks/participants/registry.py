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
    environment : str
        Name of its environment, if others with the same requirements share it.
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
    environment: str = ""

    @property
    def folder(self) -> str:
        """Name of the folder of its environment."""
        return self.environment or self.name


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
TORCH = ("torch==2.14.1", "torchvision==0.29.1", "numpy", PILLOW_SIMD)

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
        TORCH,
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


def torch_loader(
    name: str, needs: str, distribution: str, title: str, environment: str, *requirements: str
) -> Participant:
    """Return the entry of a loader of shards or streams; torchvision decodes."""
    return Participant(
        name,
        f"{name}_torch",
        ("torch", "torchvision", "PIL", needs),
        (distribution, "torch", "torchvision", "Pillow-SIMD", "pillow"),
        (*TORCH, *requirements),
        {"rrc": ("decode_jpeg", "pil", "pil v1")},
        title,
        system=COMPILER,
        environment=environment,
    )


SHARDS = ("webdataset==1.0.2", "datasets==5.2.0")
STREAMS = ("litdata==0.2.76", "obstore==0.12.1", "mosaicml-streaming==0.13.0")

HIGHWAY_READERS = Participant(
    "readers", "highway_readers", ("highway",), ("highway-loader",), (), {"rrc": ("",)}, "Highway"
)

LOADERS = (
    torch_loader("webdataset", "webdataset", "webdataset", "webdataset", "shards", *SHARDS),
    torch_loader("datasets", "datasets", "datasets", "datasets + torch DataLoader", "shards", *SHARDS),
    torch_loader("litdata", "litdata", "litdata", "litData", "streams", *STREAMS),
    torch_loader("streaming", "streaming", "mosaicml-streaming", "mosaicml-streaming", "streams", *STREAMS),
)
"""The peers of formats.py and remote.py."""
