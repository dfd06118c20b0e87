"""The sheet of all transforms: none is missing, each can be built as it says, and it is drawn."""

import importlib.util
import re

import numpy as np
import pytest
from PIL import Image
from repository import ROOT

import highway.transforms

# About the documentation, not about the interpreter.
pytestmark = pytest.mark.once

# Bases, what applies others, a function of the user's, and what makes no picture.
NOT_SHOWN = {
    *("Fit", "Placement", "Transform", "Warp"),
    *("Buckets", "RandomFit"),
    *("Albumentations", "OneOf", "RandomApply", "Sequential", "SomeOf", "TorchVision"),
    *("Lambda", "Normalize", "Rescale", "ToFloat", "Views"),
}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("transform_sheet", ROOT / "tools" / "transform_sheet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_transform_is_shown(tool):
    shown = {
        name for _, cells in tool.ROWS for text in cells for name in re.findall(r"\b[A-Z]\w*(?=\()", text)
    }
    # Without the names of torchvision.
    own = {name for name in highway.transforms.__all__ if getattr(highway.transforms, name).__name__ == name}
    assert shown == own - NOT_SHOWN


def test_every_cell_can_be_drawn_and_none_is_the_picture_itself(tool):
    picture, other = tool.landscape(0), tool.landscape(1)
    before = np.asarray(picture)
    for _, cells in tool.ROWS:
        for seed, text in enumerate(cells, tool.SEED):
            after = tool.transformed(text, picture, other, seed)
            assert after.dtype == np.uint8, text
            assert not np.array_equal(after, before), text


def test_the_sheet_is_written_and_small(tool, tmp_path):
    path = tmp_path / "transforms.jpg"
    tool.save(tool.sheet(tool.landscape(0), tool.landscape(1)), path)
    assert path.stat().st_size <= tool.MOST_BYTES
    with Image.open(path) as written:
        assert written.width < 1000


def test_the_sheet_of_the_documentation_is_small(tool):
    assert (ROOT / "docs" / "images" / "transforms.jpg").stat().st_size <= tool.MOST_BYTES
