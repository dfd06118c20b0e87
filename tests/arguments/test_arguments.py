"""Checks of arguments: what passes, and what the error says."""

import numpy as np
import pytest

from highway.arguments import flag, number, numbers, positive_range, size, whole
from highway.errors import ArgumentError


def test_what_passes_is_a_plain_value():
    assert flag("M", "f", True) is flag("M", "f", np.bool_(True)) is True
    assert whole("M", "n", 3, 3, 3) == 3
    assert type(whole("M", "n", np.uint8(3), 0)) is int
    assert whole("M", "n", 10**400, 0) == 10**400
    assert number("M", "x", 2) == 2
    assert type(number("M", "x", np.float32(0.5), 0, 1)) is float
    assert number("M", "x", -1e308) == -1e308
    assert numbers("M", "x", 3) == (3.0,)
    assert numbers("M", "x", [1, 2.5]) == numbers("M", "x", np.array([1, 2.5])) == (1.0, 2.5)
    assert positive_range("M", "r", [0.5, np.float32(1)], 1) == (0.5, 1.0)
    assert size("M", "s", 5) == (5, 5)
    assert size("M", "s", [5, np.int64(6)]) == size("M", "s", np.array([5, 6])) == (5, 6)
    assert size("M", "s", np.uint8(5)) == (5, 5)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: flag("M", "f", "no"), "M: f is of type str; expected True or False"),
        (lambda: flag("M", "f", 1), "M: f is of type int; expected True or False"),
        (lambda: whole("M", "n", 2, 3, 5), "M: n is 2; expected a whole number from 3 to 5"),
        (lambda: whole("M", "n", 6, 3, 5), "M: n is 6; expected a whole number from 3 to 5"),
        (lambda: whole("M", "n", 0, 1), "M: n is 0; expected a whole number of 1 or more"),
        (lambda: whole("M", "n", True, 0), "M: n is True; "),
        (lambda: whole("M", "n", 2.0, 0), "M: n is 2.0; "),
        (lambda: whole("M", "n", None, 0), "M: n is None; "),
        (lambda: number("M", "x", 1.5, 0, 1), "M: x is 1.5; expected a number from 0 to 1"),
        (lambda: number("M", "x", -1, 0), "M: x is -1; expected a number of 0 or more"),
        (lambda: number("M", "x", float("nan")), "M: x is nan; expected a number"),
        (lambda: number("M", "x", float("inf")), "M: x is inf; expected a number"),
        (lambda: number("M", "x", 10**400), "M: x is 1000"),
        (lambda: number("M", "x", False), "M: x is False; expected a number"),
        (lambda: number("M", "x", "1"), "M: x is '1'; expected a number"),
        (lambda: numbers("M", "x", []), r"M: x is \[\]; expected one number or more"),
        (lambda: numbers("M", "x", (1, "a")), r"M: x\[1\] is 'a'; expected a number"),
        (lambda: numbers("M", "x", (1, -1), 0), r"M: x\[1\] is -1; expected a number of 0 or more"),
        (lambda: numbers("M", "x", "ab"), "M: x is 'ab'; expected a number"),
        (lambda: numbers("M", "x", np.zeros((2, 2))), "M: x is array"),
        (
            lambda: positive_range("M", "r", (0, 1)),
            r"M: r is \(0, 1\); expected \(low, high\) with 0 < low <= high$",
        ),
        (lambda: positive_range("M", "r", (0.5, 2), 1), "0 < low <= high <= 1"),
        (lambda: positive_range("M", "r", 1), "M: r is 1; expected"),
        (lambda: size("M", "s", 0), "M: s is 0; expected a whole number from 1 to 65536"),
        (lambda: size("M", "s", "5"), r"M: s is '5'; expected a whole number or \(height, width\) in pixels"),
        (lambda: size("M", "s", 5.0), "M: s is 5.0; expected a whole number or"),
        (lambda: size("M", "s", True), "M: s is True; expected a whole number"),
        (lambda: size("M", "s", (5, 65537)), r"M: s\[1\] is 65537"),
        (
            lambda: size("M", "s", (5, 6, 7)),
            r"M: s is \(5, 6, 7\); expected a whole number or \(height, width\)",
        ),
    ],
)
def test_what_does_not_pass_is_named(check, message):
    with pytest.raises(ArgumentError, match=message):
        check()
