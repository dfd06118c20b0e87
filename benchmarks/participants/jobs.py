"""The two jobs of every participant, their list of files, and the jobs on decoded records."""

import os
from dataclasses import dataclass

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Job:
    """The batches that a participant makes, endlessly, from a folder of class folders of JPEGs or from records.

    Attributes
    ----------
    name : str
        "fit", "rrc", "stored" or "memory".
    text : str
        The job in words.
    batch_size : int
        Samples in a batch (the last one of an epoch may have fewer).
    height, width : int
        Pixels of a returned image.
    layout : str
        "NHWC" or "NCHW".
    dtype : str
        "uint8" (0 to 255) or "float32" (normalized with MEAN and STD, which are in units of 0..1).
    """

    name: str
    text: str
    batch_size: int
    height: int
    width: int
    layout: str
    dtype: str

    def batch_shape(self, samples: int) -> tuple[int, int, int, int]:
        """Return the shape of a batch of this many samples."""
        if self.layout == "NHWC":
            return (samples, self.height, self.width, 3)
        return (samples, 3, self.height, self.width)


JOBS = {
    "fit": Job("fit", "fit 240x320 + flip, uint8 NHWC, batches of 16", 16, 240, 320, "NHWC", "uint8"),
    "rrc": Job(
        "rrc",
        "RandomResizedCrop 224 + flip + normalize, float32 NCHW, batches of 64",
        64,
        224,
        224,
        "NCHW",
        "float32",
    ),
}

RECORD_JOBS = {
    name: Job(
        name,
        f"crop 224 + flip + normalize, {text}, float32 NCHW, batches of 64",
        64,
        224,
        224,
        "NCHW",
        "float32",
    )
    for name, text in (("stored", "of records in a store"), ("memory", "of an array in memory"))
}
"""Those of store.py, on a folder that `records.py` describes."""


def list_files(directory: str) -> tuple[list[str], list[int], list[str]]:
    """Return the pictures under the class folders of `directory`, sorted; their labels; the class names.

    Raises
    ------
    ValueError
        No class folder, or no picture in any of them.
    """
    paths: list[str] = []
    labels: list[int] = []
    classes = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    for label, name in enumerate(classes):
        folder = os.path.join(directory, name)
        for file in sorted(os.listdir(folder)):
            if file.lower().endswith(SUFFIXES):
                paths.append(os.path.join(folder, file))
                labels.append(label)
    if not paths:
        raise ValueError(
            f"{directory}: found {len(classes)} folders and no picture in them; expected class folders of pictures"
        )
    return paths, labels, classes
