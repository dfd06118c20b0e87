"""Without Ray: one error that says how to install it, and nothing imports it before it is needed."""

import pytest
from framework_programs import run

CASES = {
    "Workers": ("with Pipeline([Noise(2, 4)], on=Workers(1)): pass", "Workers: Ray is not installed"),
    "loader": ("loader([Noise(2, 4)])", "highway.ray.loader: Ray is not installed"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_extra(name):
    used, message = CASES[name]
    program = f"""
import sys
sys.modules["ray"] = None
from highway.engine import Pipeline
from highway.errors import MissingPackageError
from highway.modules import Noise
from highway.ray import {name}
try:
    {used}
except MissingPackageError as error:
    print(error)
"""
    assert run("-W", "error", "-c", program).startswith(f"{message}: pip install 'highway-loader[ray]' (")


def test_nothing_imports_it():
    program = """
import sys
import highway, highway.modules, highway.transforms
assert "highway.ray" not in sys.modules
import highway.ray
highway.ray.Workers(2, 8)
print("ray" in sys.modules)
"""
    assert run("-W", "error", "-c", program) == "False\n"
