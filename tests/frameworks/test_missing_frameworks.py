"""Without its framework a module of Highway says how to install it, and nothing imports one before it is asked for."""

import pytest
from framework_programs import run

CASES = {
    "jax": ("from highway.jax import batches", "batches(pipeline)"),
    "keras": ("from highway.keras import Dataset", "Dataset(pipeline)"),
    "tensorflow": ("from highway.tensorflow import dataset", "dataset(pipeline)"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_package(name):
    imported, used = CASES[name]
    program = f"""
import sys
sys.modules[{name!r}] = None
from highway.engine import Pipeline
from highway.errors import MissingPackageError
from highway.modules import Noise
{imported}
with Pipeline([Noise(2, 4)]) as pipeline:
    try:
        {used}
    except MissingPackageError as error:
        print(error)
"""
    assert run("-W", "error", "-c", program).endswith(f"is not installed: pip install {name}\n")


def test_pipelines_import_no_framework():
    program = """
import sys
from highway.engine import Pipeline
from highway.modules import Augmentations, Noise
from highway.transforms import FlipX, Normalize
with Pipeline([Noise(2, (8, 8)), Augmentations([FlipX(), Normalize()])]) as pipeline:
    pipeline.spec
    next(iter(pipeline)).as_dict()
print(sorted({"jax", "keras", "tensorflow", "torch"} & set(sys.modules)))
"""
    assert run("-W", "error", "-c", program) == "[]\n"
