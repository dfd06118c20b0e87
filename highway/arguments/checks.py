"""Checks of arguments: each returns a valid value as a plain Python object, and raises ArgumentError otherwise."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np

from highway.errors import ArgumentError

_LARGEST = sys.float_info.max

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

logger = logging.getLogger("highway.modules")


def class_names(owner: str, classes: object, *, repeated: bool = False) -> list[str]:
    """Return names of classes in the order of their labels.

    Parameters
    ----------
    owner : str
        Name of the object with the argument `classes`, for the error.
    classes : object
    repeated : bool
        Whether names may repeat.

    Raises
    ------
    ArgumentError
        It is not a sequence of names, is empty, or has a name twice.
    """
    if isinstance(classes, (Sequence, np.ndarray)) and not isinstance(classes, (str, bytes)):
        names = [str(name) if isinstance(name, str) else name for name in classes]
        if names and all(isinstance(name, str) for name in names):
            if repeated or len({*names}) == len(names):
                return names
            twice = Counter(names).most_common(1)[0][0]
            raise ArgumentError(f"{owner}: classes has {twice!r} more than once; expected each name once")
    raise ArgumentError(
        f"{owner}: classes is {classes!r}; expected names, one or more, in a list, such as those of another reader"
    )


def flag(owner: str, name: str, value: object) -> bool:
    """True or False, of Python or of NumPy.

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object

    Raises
    ------
    ArgumentError
        It is something else.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    # Without its value, which may be a secret in the wrong place.
    raise ArgumentError(f"{owner}: {name} is of type {type(value).__name__}; expected True or False")


def whole(owner: str, name: str, value: object, lowest: int, highest: int | None = None) -> int:
    """Return a whole number from `lowest` to `highest` (None: no limit).

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object

    Raises
    ------
    ArgumentError
        It is something else; a bool is too.
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        found = int(value)
        if lowest <= found and (highest is None or found <= highest):
            return found
    allowed = f"of {lowest} or more" if highest is None else f"from {lowest} to {highest}"
    raise ArgumentError(f"{owner}: {name} is {value!r}; expected a whole number {allowed}")


def number(
    owner: str, name: str, value: object, lowest: float = -math.inf, highest: float = math.inf
) -> float:
    """Return a finite number from `lowest` to `highest`.

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object

    Raises
    ------
    ArgumentError
        It is something else; a bool is too.
    """
    found = value.item() if isinstance(value, (np.integer, np.floating)) else value
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        # Compare before the conversion: a whole number can be too large for a float.
        low, high = max(lowest, -_LARGEST), min(highest, _LARGEST)
        if low <= found <= high:
            return float(found)
    allowed = (
        f" from {lowest} to {highest}"
        if math.isfinite(lowest) and math.isfinite(highest)
        else f" of {lowest} or more"
        if math.isfinite(lowest)
        else ""
    )
    raise ArgumentError(f"{owner}: {name} is {value!r}; expected a number{allowed}")


def numbers(owner: str, name: str, value: object, lowest: float = -math.inf) -> tuple[float, ...]:
    """Return one or more finite numbers of `lowest` or more, as a tuple; a single number is allowed.

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object

    Raises
    ------
    ArgumentError
        It is something else.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return (number(owner, name, value, lowest),)
    if not value:
        raise ArgumentError(f"{owner}: {name} is {value!r}; expected one number or more")
    return tuple(number(owner, f"{name}[{i}]", item, lowest) for i, item in enumerate(value))


def positive_range(owner: str, name: str, value: object, most: float = math.inf) -> tuple[float, float]:
    """Return two numbers, ``0 < low <= high <= most``.

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object

    Raises
    ------
    ArgumentError
        It is something else.
    """
    pair = numbers(owner, name, value, 0.0)
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
        limit = "" if math.isinf(most) else f" <= {most:g}"
        raise ArgumentError(f"{owner}: {name} is {value!r}; expected (low, high) with 0 < low <= high{limit}")
    return pair[0], pair[1]


def span(owner: str, name: str, value: object, lowest: float, highest: float) -> tuple[float, float]:
    """Return a range to draw from, ``lowest <= low <= high <= highest``; a single number is both ends.

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object

    Raises
    ------
    ArgumentError
        It is something else.
    """
    if not isinstance(value, (tuple, list)):
        one = number(owner, name, value, lowest, highest)
        return one, one
    if len(value) != 2:
        raise ArgumentError(f"{owner}: {name} is {value!r}; expected a number or (low, high)")
    low = number(owner, f"{name}[0]", value[0], lowest, highest)
    high = number(owner, f"{name}[1]", value[1], lowest, highest)
    if low > high:
        raise ArgumentError(f"{owner}: {name} is {value!r}; expected (low, high) with low <= high")
    return low, high


def size(owner: str, name: str, value: object) -> tuple[int, int]:
    """Return height and width in pixels, 1 to 65536 each; a single number is a square.

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object

    Raises
    ------
    ArgumentError
        It is something else.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ArgumentError(f"{owner}: {name} is {value!r}; expected a whole number or (height, width)")
        height, width = value
        return whole(owner, f"{name}[0]", height, 1, 65536), whole(owner, f"{name}[1]", width, 1, 65536)
    if isinstance(value, (int, np.integer)):
        side = whole(owner, name, value, 1, 65536)
        return side, side
    raise ArgumentError(f"{owner}: {name} is {value!r}; expected a whole number or (height, width) in pixels")


def expanded(owner: str, name: str, value: object) -> str:
    """Return the path of a file or folder, with a leading ``~`` or ``~user`` expanded as in a shell.

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object
        str, bytes or path.

    Returns
    -------
    str
        Bytes that are not UTF-8 are decoded as by `os.fsdecode`.

    Raises
    ------
    ArgumentError
        It is something else, is empty, or has a zero byte.
    """
    if isinstance(value, (str, bytes, os.PathLike)):
        text = os.fsdecode(value)
        if text and "\0" not in text:
            return os.path.expanduser(text) if text[0] == "~" else text
    raise ArgumentError(f"{owner}: {name} is {value!r}; expected a path")


def chosen_seed(owner: str, value: object, world: int = 1) -> int:
    """Return a seed, 0 to 2**64 - 1; None draws one and logs it to "highway.modules".

    Parameters
    ----------
    owner : str
        Name of the object with the argument, for the error.
    value : object
    world : int
        Number of machines or processes that need the same seed.

    Raises
    ------
    ArgumentError
        It is something else; or it is None and `world` is larger than 1.
    """
    if value is not None:
        return whole(owner, "seed", value, 0, 2**64 - 1)
    if world > 1:
        raise ArgumentError(
            f"{owner}: seed is None, and each of the {world} ranks would draw another, and so read other samples; "
            "expected one number for all of them, such as secrets.randbits(64) of the first"
        )
    drawn = int.from_bytes(os.urandom(8), "big")
    logger.info("%s: seed=None, drawn: seed=%d", owner, drawn)
    return drawn
