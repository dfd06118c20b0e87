"""Checks of arguments: each returns a valid value as a plain Python object, and raises ArgumentError otherwise."""

from highway.arguments.checks import (
    chosen_seed,
    class_names,
    expanded,
    flag,
    number,
    numbers,
    positive_range,
    size,
    span,
    whole,
)

__all__ = [
    "chosen_seed",
    "class_names",
    "expanded",
    "flag",
    "number",
    "numbers",
    "positive_range",
    "size",
    "span",
    "whole",
]
