"""Arguments of calls: what passes is returned as a plain Python value, what does not is an ArgumentError."""

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
