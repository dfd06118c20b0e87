"""Names of classes that are numbers: as texts they have another order."""

from __future__ import annotations

import logging
from collections.abc import Sequence

__all__ = ["order_remark", "warn_of_order"]

_logger = logging.getLogger("highway.modules")


def order_remark(classes: Sequence[str]) -> str | None:
    """What a user should know of names that were found and sorted: "10" comes before "2".

    Parameters
    ----------
    classes : sequence of str
        Sorted as texts.

    Returns
    -------
    str or None
        A sentence without a dot; None where not all names are numbers, or their order is the same.
    """
    if not all(name.isascii() and name.isdigit() for name in classes):
        return None
    in_order = sorted(classes, key=int)
    label = next((label for label, name in enumerate(classes) if name != in_order[label]), None)
    if label is None:
        return None
    return (
        f"the names of the classes are numbers, sorted as texts: {classes[label]!r} has label {label}; "
        "classes=sorted(reader.classes, key=int) has them in the order of the numbers"
    )


def warn_of_order(owner: str, classes: Sequence[str]) -> None:
    """Log `order_remark`, if there is one."""
    remark = order_remark(classes)
    if remark:
        _logger.warning("%s: %s", owner, remark)
