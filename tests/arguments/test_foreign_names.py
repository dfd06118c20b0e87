"""Names of other libraries, and misspelled ones: some are names here too, for others the error says what to use."""

import importlib.util
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from documents import Document
from PIL import Image, ImageOps

import highway
from highway import modules, transforms
from highway.arguments.foreign_names import FOREIGN, WITHOUT_CLASS
from highway.modules import ArrayReader, Augmentations
from highway.transforms import Equalize, FlipX, FlipY, Invert

# About the interpreter: how it looks up names, and what it makes of the errors.
pytestmark = pytest.mark.python

ALIASES = {
    "RandomEqualize": Equalize,
    "RandomHorizontalFlip": FlipX,
    "RandomInvert": Invert,
    "RandomVerticalFlip": FlipY,
}
PACKAGES = {"highway": highway, "highway.modules": modules, "highway.transforms": transforms}


def test_aliases_are_the_same_classes():
    found = {name: getattr(transforms, name) for name in transforms.__all__}
    assert {name: cls for name, cls in found.items() if cls.__name__ != name} == ALIASES
    for name, cls in ALIASES.items():
        again = pickle.loads(pickle.dumps(found[name](0.25)))
        assert type(again) is cls
        assert repr(again) == f"{cls.__name__}(p=0.25)"


@pytest.mark.parametrize(
    "name, reference",
    [
        ("RandomEqualize", ImageOps.equalize),
        ("RandomHorizontalFlip", ImageOps.mirror),
        ("RandomInvert", ImageOps.invert),
        ("RandomVerticalFlip", ImageOps.flip),
    ],
)
def test_aliases_change_pictures_as_those_of_torchvision(name, reference):
    """Those of torchvision are these functions of Pillow."""
    images = np.random.default_rng(1).integers(20, 90, (5, 7, 6, 3), np.uint8)
    reader = ArrayReader(images, np.zeros(5, np.int64), 5, shuffle=False, epochs=1)
    with highway.Pipeline([reader, Augmentations([ALIASES[name](1)])]) as pipeline:
        (batch,) = pipeline
    expected = np.stack([np.asarray(reference(Image.fromarray(image))) for image in images])
    np.testing.assert_array_equal(batch["images"], expected)


def test_aliases_are_in_the_table_of_the_migration_page():
    section = Document("docs/migration.md").text.split("## Names of other libraries")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)\(p=0.5\)` \| `(\w+)\(p=0.5\)` \|$", section, re.MULTILINE)
    assert dict(rows) == {name: cls.__name__ for name, cls in ALIASES.items()}


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is missing")
def test_aliases_have_the_arguments_of_torchvision():
    import inspect

    from torchvision.transforms import v2

    for name, cls in ALIASES.items():
        theirs, ours = (inspect.signature(one).parameters for one in (getattr(v2, name), cls))
        assert [(one.name, one.default) for one in theirs.values()] == [
            (one.name, one.default) for one in ours.values()
        ]


CASES = [
    (
        "highway.transforms",
        "RandomRotation",
        "use highway.transforms.Rotate; Rotate(degrees, p=1.0); bilinear",
    ),
    (
        "highway.transforms",
        "Compose",
        "use highway.transforms.Sequential; or the plain list in Augmentations",
    ),
    ("highway.transforms", "ToTensor", "use highway.transforms.ToFloat; "),
    ("highway.transforms", "HorizontalFlip", "use highway.transforms.FlipX; the same p"),
    ("highway.transforms", "RandomBrightnessContrast", "use highway.transforms.ColorJitter; "),
    ("highway.transforms", "ShiftScaleRotate", "use highway.transforms.Affine; "),
    ("highway.transforms", "ElasticTransform", "no counterpart; TorchVision(transform) applies"),
    ("highway.transforms", "MotionBlur", "no counterpart; Albumentations(transform) applies"),
    ("highway.transforms", "DataLoader", "use highway.Pipeline; "),
    ("highway.transforms", "Flipx", "did you mean FlipX?"),
    ("highway.transforms", "GausianBlur", "did you mean GaussianBlur?"),
    ("highway.modules", "ImageFolder", "use highway.modules.ImageFileReader; "),
    ("highway.modules", "DataLoader", "use highway.Pipeline; "),
    ("highway.modules", "VOCDetection", "use highway.modules.VOCReader; "),
    ("highway.modules", "WebDataset", "use highway.modules.TarReader; "),
    ("highway.modules", "DistributedSampler", "readers have shard='auto'"),
    ("highway.modules", "ImageFileReeder", "did you mean ImageFileReader?"),
    ("highway.modules", "RandomCrop", "it is in highway.transforms"),
    ("highway", "DataLoader", "use highway.Pipeline; "),
    ("highway", "ImageFileReader", "it is in highway.modules"),
    ("highway", "Pipelin", "did you mean Pipeline?"),
    ("highway", "RandmCrop", "did you mean highway.transforms.RandomCrop?"),
]


@pytest.mark.parametrize("package, name, hint", CASES)
def test_error_says_what_to_use(package, name, hint):
    with pytest.raises(AttributeError) as caught:
        getattr(PACKAGES[package], name)
    assert str(caught.value).startswith(f"module {package!r} has no attribute {name!r}: {hint}")
    assert caught.value.name == name
    for statement in (f"from {package} import {name}", f"from {package} import __doc__, {name} as other"):
        with pytest.raises(ImportError) as caught:
            exec(statement)
        assert str(caught.value).startswith(f"cannot import name {name!r} from {package!r}: {hint}")
        assert caught.value.name == package
        assert caught.value.path == PACKAGES[package].__file__
    assert not hasattr(PACKAGES[package], name)
    assert getattr(PACKAGES[package], name, None) is None


def test_import_is_found_among_many_names_and_again_and_again():
    """An instruction with a prefix, for a name of a high number; and one that the interpreter has optimized."""
    many = "\n".join(f"name_{k} = {k}" for k in range(300))
    code = compile(f"{many}\nfrom highway.transforms import RandomRotation", "many", "exec")
    for _ in range(50):
        with pytest.raises(ImportError, match=r"use highway\.transforms\.Rotate"):
            exec(code, {})
        assert not hasattr(transforms, "RandomRotation")


def test_traced_import_is_found():
    before = sys.gettrace()
    sys.settrace(lambda *_: lambda *_: None)
    try:
        with pytest.raises(ImportError, match=r"use highway\.transforms\.Rotate"):
            exec("from highway.transforms import RandomRotation", {})
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("package", PACKAGES)
def test_names_that_nothing_is_similar_to(package):
    with pytest.raises(AttributeError, match=rf"^module '{package}' has no attribute 'Quux_qq_zz'$"):
        getattr(PACKAGES[package], "Quux_qq_zz")  # noqa: B009 - mypy
    with pytest.raises(ImportError, match=rf"^cannot import name 'Quux_qq_zz' from '{package}'$"):
        exec(f"from {package} import Quux_qq_zz")
    for private in ("__wrapped__", "_FlipX"):
        with pytest.raises(AttributeError, match=rf"^module '{package}' has no attribute '{private}'$"):
            getattr(PACKAGES[package], private)


@pytest.mark.parametrize("package", PACKAGES)
def test_import_of_all_and_of_submodules_goes_on_working(package):
    names = {}
    exec(f"from {package} import *", names)
    assert {*PACKAGES[package].__all__} <= {*names}
    exec("from highway.transforms import flip; from highway import transforms; import highway.modules.stages")
    with pytest.raises(ModuleNotFoundError):
        exec(f"import {package}.RandomRotation")


@pytest.mark.parametrize("name", FOREIGN)
def test_every_class_of_the_table_exists(name):
    here, difference = FOREIGN[name]
    assert sum(here in package.__all__ for package in PACKAGES.values()) == 1
    assert difference
    for package in PACKAGES.values():
        assert name not in package.__all__
    # Classes that the text names exist too.
    for other in re.findall(r"\b([A-Z]\w+)\(", difference):
        assert other in FOREIGN or any(other in package.__all__ for package in PACKAGES.values()), other


def test_tables_do_not_overlap():
    assert not FOREIGN.keys() & WITHOUT_CLASS.keys()
    assert not any(name in package.__all__ for name in WITHOUT_CLASS for package in PACKAGES.values())


def test_look_for_a_submodule_imports_nothing():
    program = (
        "import sys, highway; before = set(sys.modules); assert not hasattr(highway, 'torch_'); "
        "print(sorted(name for name in set(sys.modules) - before if name.startswith('highway.m')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
