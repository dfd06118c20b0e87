"""Warns of class names that are numbers: sorted as text, they have another order."""

from __future__ import annotations

import logging
from collections.abc import Sequence

__all__ = ["order_remark", "warn_of_order"]

_logger = logging.getLogger("highway.modules")


def order_remark(classes: Sequence[str]) -> str | None:
    """Warning about numeric names that were found and sorted as text: "10" comes before "2".

    Parameters
    ----------
    classes : sequence of str
        Sorted as text.

    Returns
    -------
    str or None
        A sentence without a full stop; None if not all names are numbers, or both orders are the same.
    """
    if not all(name.isascii() and name.isdigit() for name in classes):
        return None
    in_order = sorted(classes, key=int)
    label = next((label for label, name in enumerate(classes) if name != in_order[label]), None)
    if label is None:
        return None
    return (
        f"the names of the classes are numbers, sorted as text: {classes[label]!r} has label {label}; "
        "classes=sorted(reader.classes, key=int) has them in the order of the numbers"
    )


def warn_of_order(owner: str, classes: Sequence[str]) -> None:
    """Log `order_remark`, if there is one."""
    remark = order_remark(classes)
    if remark:
        _logger.warning("%s: %s", owner, remark)
