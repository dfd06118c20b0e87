"""Names that other libraries use, and misspelled names of Highway: errors that say the name here."""

from __future__ import annotations

import importlib
import sys
from types import FrameType

from highway.arguments.synonyms import nearest

__all__ = ["missing_name"]

_PUBLIC = ("highway", "highway.modules", "highway.transforms")
"""Packages whose public names are compared with a missing one."""

FOREIGN = {
    # torch.utils.data and torchdata
    "DataLoader": (
        "Pipeline",
        "Pipeline([reader, Augmentations([...])]); the reader has batch_size and shuffle; for tensors, wrap it in a "
        "highway.torch.Loader",
    ),
    "StatefulDataLoader": ("Pipeline", "it has state_dict() and load_state_dict()"),
    "Dataset": (
        "DatasetReader",
        "it takes the data set; a ready reader is faster: ImageFileReader, ListReader, TableReader, ArrayReader",
    ),
    "IterableDataset": ("DatasetReader", "DatasetReader(dataset, batch_size, shuffle=False)"),
    "TensorDataset": ("ArrayReader", "ArrayReader(x=x, y=y, batch_size=32) of NumPy arrays"),
    "ChainDataset": ("Concat", "Concat([reader, reader]) reads several as one"),
    "pad_sequence": ("PadRagged", "PadRagged(field), a module; padding_value is value"),
    # datasets and transformers of Hugging Face
    "interleave_datasets": ("Mix", "Mix([reader, reader], weights=(3, 1)); stop='first' or 'all'"),
    "concatenate_datasets": ("Concat", "Concat([reader, reader]) reads several as one"),
    "DataCollatorWithPadding": ("PadRagged", "PadRagged(field) pads to the longest sample of a batch"),
    # torchvision.datasets
    "ImageFolder": (
        "ImageFileReader",
        "ImageFileReader(data_dir, batch_size, shape); transforms go into Augmentations([...]), the next module",
    ),
    "DatasetFolder": ("ImageFileReader", "for folders of pictures, one for each class"),
    "VOCDetection": ("VOCReader", "VOCReader(root, batch_size, shape, split='train'); boxes are arrays"),
    "VOCSegmentation": ("VOCReader", "VOCReader(root, batch_size, shape, masks=True)"),
    "CocoDetection": ("ListReader", "ListReader(paths, labels, batch_size, shape, boxes=...)"),
    "FakeData": ("Noise", "Noise(batch_size, shape, classes=10, size=1024)"),
    # torchvision.transforms.v2
    "Compose": ("Sequential", "or the plain list in Augmentations([...])"),
    "ToTensor": ("ToFloat", "pictures are arrays already; ToFloat() scales them to 0 to 1, as NCHW"),
    "ToImage": ("ToFloat", "pictures are arrays already; ToFloat() scales them to 0 to 1, as NCHW"),
    "PILToTensor": ("ToFloat", "pictures are arrays already; ToFloat() scales them to 0 to 1, as NCHW"),
    "ToDtype": (
        "ToFloat",
        "ToFloat(dtype='float32') scales to 0 to 1, as ToDtype(torch.float32, scale=True) does",
    ),
    "ConvertImageDtype": ("ToFloat", "ToFloat(dtype='float32') scales to 0 to 1"),
    "RandomRotation": ("Rotate", "Rotate(degrees, p=1.0); bilinear by default, without expand and center"),
    "RandomAffine": ("Affine", "bilinear by default, without center"),
    "RandomPerspective": ("Perspective", "bilinear too; for the range of its corners see docs/transforms.md"),
    "RandomGrayscale": ("Grayscale", "its p is 1.0 by default, that of RandomGrayscale 0.1"),
    "RandomPosterize": ("Posterize", "bits is 4 by default"),
    "RandomSolarize": ("Solarize", "threshold is 128 by default"),
    "RandomAutocontrast": ("AutoContrast", "rounds to nearest"),
    "RandomAdjustSharpness": ("Sharpness", "sharpness_factor is factor here; rounds to nearest"),
    "RandomChoice": ("OneOf", "p is weights here; each sample chooses"),
    "MixUp": ("Mixup", "each sample has its own weight"),
    "SanitizeBoundingBoxes": (
        "Augmentations",
        "boxes outside of the image are dropped; transforms have min_visible",
    ),
    # albumentations
    "HorizontalFlip": ("FlipX", "the same p"),
    "VerticalFlip": ("FlipY", "the same p"),
    "Crop": ("Slice", "Slice(top, left, height, width) instead of x_min, y_min, x_max, y_max"),
    "SmallestMaxSize": ("Resize", "Resize(size)"),
    "LongestMaxSize": ("Resize", "Resize(max_size=...)"),
    "PadIfNeeded": ("Pad", "Pad(padding) pads every image; CenterCrop and RandomCrop have padding, too"),
    "ShiftScaleRotate": (
        "Affine",
        "Affine(30, (0.1, 0.1), (0.8, 1.2), p=0.5) for rotate_limit=30, shift_limit=0.1, scale_limit=0.2",
    ),
    "SafeRotate": ("Rotate", "Rotate(degrees); limit is degrees here, and the size stays"),
    "RandomScale": ("Zoom", "Zoom(scale=(0.9, 1.1)) for scale_limit=0.1; the size stays"),
    "RandomBrightnessContrast": (
        "ColorJitter",
        "ColorJitter(brightness=0.2, contrast=0.2, p=0.5); brightness is a factor",
    ),
    "RandomBrightness": ("ColorJitter", "ColorJitter(brightness=...)"),
    "RandomContrast": ("ColorJitter", "ColorJitter(contrast=...)"),
    "HueSaturationValue": ("ColorJitter", "hue and saturation are fractions, not units of bytes"),
    "RandomGamma": ("Gamma", "Gamma((0.8, 1.2)) for gamma_limit=(80, 120)"),
    "ToGray": ("Grayscale", "p is 1.0 by default"),
    "InvertImg": ("Invert", "the same p"),
    "GaussNoise": ("GaussianNoise", "std_range=(a, a) is sigma=a; p is 1.0 by default"),
    "Sharpen": ("Sharpness", "Sharpness(factor), 1 changes nothing"),
    "CoarseDropout": ("RandomErasing", "one rectangle, its area as a fraction in scale=(low, high)"),
    "Erasing": ("RandomErasing", "the same scale and ratio"),
    "ToTensorV2": ("ToFloat", "Normalize and ToFloat write NCHW by default"),
    "ToFloat32": ("ToFloat", "ToFloat(dtype='float32')"),
    # webdataset
    "WebDataset": (
        "TarReader",
        "TarReader(paths, batch_size, shape, image='jpg;png', label='cls')",
    ),
    "WebLoader": ("Pipeline", "Pipeline([reader, ...]); the reader has batch_size and shuffle"),
    "RandomMix": ("Mix", "Mix([reader, reader], weights=(3, 1)) of whole readers"),
    "ShardWriter": ("TarSink", "`highway pack DIR out-{0000..}.tar` writes a folder of pictures"),
    "TarWriter": ("TarSink", "`highway pack DIR out-{0000..}.tar` writes a folder of pictures"),
    # Kinds of files
    "CSVReader": (
        "ListReader",
        "ListReader.from_csv(path, batch_size, shape) reads pictures; columns of numbers go into ArrayReader",
    ),
    "JSONReader": ("ListReader", "ListReader.from_jsonl(path, batch_size, shape) reads pictures"),
    "ParquetReader": ("TableReader", "TableReader(path, batch_size, shape) reads pictures in Parquet files"),
    # NVIDIA DALI
    "pipeline_def": ("Pipeline", "Pipeline([reader, Augmentations([...])]) of modules, without a decorator"),
    "DALIGenericIterator": ("Pipeline", "it is iterable: one `for` is one epoch"),
    "DALIClassificationIterator": ("Pipeline", "it is iterable: one `for` is one epoch"),
    "CropMirrorNormalize": ("Normalize", "Augmentations([CenterCrop(size), FlipX(), Normalize(mean, std)])"),
    # Keras
    "image_dataset_from_directory": ("ImageFileReader", "ImageFileReader(data_dir, batch_size, shape)"),
    "RandomFlip": ("FlipX", "FlipX is horizontal, FlipY vertical"),
    "RandomTranslation": ("Shift", "Shift(x, y), in fractions of width and height"),
    "RandomZoom": ("Zoom", "Zoom(scale=(low, high)), as factors"),
    "Rescaling": ("Rescale", "the same scale and offset; NCHW by default"),
}
"""Names in other libraries: the public class here that does the same, and what differs."""

WITHOUT_CLASS = {
    "DistributedSampler": "readers have shard='auto', the default, which takes rank and world from the launcher",
    "DistributedPartialSampler": "readers have shard='auto', the default, which takes rank and world from the launcher",
    "RandomSampler": "readers have shuffle=True, the default, and seed",
    "SequentialSampler": "readers have shuffle=False",
    "BatchSampler": "readers have batch_size and drop_last",
    "Sampler": "readers have shuffle, seed, shard, subset and weights; for another order, write a Source",
    "WeightedRandomSampler": "readers have weights=, an array, 'balanced', or a function of the epoch",
    "SubsetRandomSampler": "readers have subset=, indices, a mask, or a function of key and label",
    "Subset": "readers have subset=, indices, a mask, or a function of key and label",
    "random_split": "readers have split=, ('train', 0.9) and ('validation', 0.9)",
    "ConcatDataset": "Concat([reader, reader]) reads several as one, Mix in proportions",
    "default_collate": "readers make batches; no collate function is needed",
    "ToPILImage": "pictures are arrays; Image.fromarray of PIL converts one",
    "ToPureTensor": "pictures are arrays; torch.from_numpy wraps them without a copy",
    "BboxParams": "boxes are (x_min, y_min, x_max, y_max); transforms that crop have min_visible",
    "KeypointParams": "Augmentations(fields=...) names the keypoints of a batch",
    **dict.fromkeys(
        (
            *("AugMix", "AutoAugment", "ElasticTransform", "FiveCrop", "JPEG", "LinearTransformation"),
            *("RandomChannelPermutation", "RandomIoUCrop", "RandomOrder", "RandomPhotometricDistort"),
            *("RandomShortestSize", "RandomZoomOut", "ScaleJitter", "TenCrop"),
        ),
        "no counterpart; TorchVision(transform) applies that of torchvision",
    ),
    **dict.fromkeys(
        (
            *("Blur", "CLAHE", "ChannelDropout", "ChannelShuffle", "Downscale", "Emboss", "GlassBlur"),
            *("GridDistortion", "GridDropout", "ISONoise", "ImageCompression", "MedianBlur", "MotionBlur"),
            *("OpticalDistortion", "RGBShift", "RandomFog", "RandomRain", "RandomRotate90", "RandomShadow"),
            *("RandomSunFlare", "Superpixels"),
        ),
        "no counterpart; Albumentations(transform) applies that of albumentations",
    ),
}
"""Names in other libraries without a class here: what to use."""


def missing_name(package: str, name: str) -> AttributeError | ImportError:
    """Return the error for a name that a package does not have. Call it in the `__getattr__` of the package.

    ``from package import name`` replaces an AttributeError by an ImportError without the hint, so for such an import
    the error is an ImportError.
    """
    hint = "" if name.startswith("_") else _hint(package, name)
    if _imports(sys._getframe(1).f_back):
        file = getattr(sys.modules.get(package), "__file__", None)
        return ImportError(f"cannot import name {name!r} from {package!r}{hint}", name=package, path=file)
    # With a name and no object, Python adds no guess of its own.
    return AttributeError(f"module {package!r} has no attribute {name!r}{hint}", name=name)


def _imports(frame: FrameType | None) -> bool:
    """Whether a frame is within ``from ... import name``, past the look for submodules."""
    # Late: needed only for errors.
    from opcode import opmap

    if frame is None:
        # Called by C code outside of any Python function.
        return False
    code, place = frame.f_code.co_code, frame.f_lasti
    # In Python 3.10 `f_lasti` is that of the prefix.
    while code[place] == opmap["EXTENDED_ARG"]:
        place += 2
    return code[place] == opmap["IMPORT_FROM"]


def _hint(package: str, name: str) -> str:
    """Return what the error adds; empty if no name here is similar."""
    if name in WITHOUT_CLASS:
        return f": {WITHOUT_CLASS[name]}"
    homes = _homes(package, name)
    if name in FOREIGN:
        here, difference = FOREIGN[name]
        return f": use {homes.get(here, package)}.{here}; {difference}"
    if name in homes:
        return f": it is in {homes[name]}"
    here_or_none = nearest(name, homes)
    if here_or_none is None:
        return ""
    home = homes[here_or_none]
    return f": did you mean {here_or_none if home == package else f'{home}.{here_or_none}'}?"


def _homes(package: str, name: str) -> dict[str, str]:
    """Return the public names, each with its package; for the name of a function or submodule only those of `package`.

    So a look for a submodule imports nothing.
    """
    wanted = _PUBLIC if name in FOREIGN or name[:1].isupper() else (package,)
    return {
        public: home for home in wanted for public in getattr(importlib.import_module(home), "__all__", ())
    }
