"""The examples in the docstrings run, and give what they show."""

import doctest
import importlib
import pkgutil

import pytest

import highway

MODULES = [
    module.name
    for module in pkgutil.walk_packages(highway.__path__, "highway.")
    if not module.name.endswith("__main__") and "._core." not in module.name
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert found >= 10
