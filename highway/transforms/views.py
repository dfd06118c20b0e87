"""Views: several views of each picture, as fields, in the place of a reader's fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from highway._core.jpeg.codec import MOST_VIEWS
from highway.arguments import size, whole
from highway.arguments.signatures import explain_init
from highway.batch import is_field_name
from highway.errors import ArgumentError
from highway.transforms.buckets import Buckets
from highway.transforms.fit import Fit, Resize

__all__ = ["FieldViews", "Views"]

_Size: TypeAlias = "int | tuple[int, int]"

_TAKEN = ("images", "labels", "boxes", "masks", "keypoints", "placement", "picture_sizes")
"""Names of fields and extras that have another meaning."""


class FieldViews(NamedTuple):
    """The views of a field.

    Attributes
    ----------
    views : int or None
        Number for each picture; None for one view, without an axis of its own.
    fit : Fit
    size : (int, int)
        Height and width in pixels.
    """

    views: int | None
    fit: Fit
    size: tuple[int, int]


class Views:
    """Several views of each picture, in the place of a reader's fit: the picture is read and decoded once.

    Parameters
    ----------
    views : mapping of str to tuple
        By name of the field ``(count, fit, size)`` or ``(fit, size)``: the number of views, the fit that chooses their
        windows, and their height and width in pixels (one number for a square). The field is uint8 (N, count, H, W, C);
        without a number it has one view, (N, H, W, C). At most 64 views in all. The fields come in this order, before
        the labels.

    Raises
    ------
    ArgumentError
        A name cannot name such a field, a fit is not a `Fit` or is one of `Buckets` and `Resize`, or a number is out of
        range.

    Notes
    -----
    Every view draws its own window. The random numbers of a view depend on the seed of the reader, the epoch, the index
    of the sample and the position of the view among all views, counted from 0: neither the number of threads nor the
    other views change it. A JPEG is decoded at the largest scale that one of its views needs.

    Examples
    --------
    >>> from highway.transforms import CenterFit, RandomResizedCrop
    >>> views = Views({"whole": (CenterFit(), 64), "parts": (4, RandomResizedCrop(scale=(0.1, 0.3)), (24, 32))})
    >>> views.fields["parts"].size
    (24, 32)
    """

    def __init__(self, views: Mapping[str, tuple[int, Fit, _Size] | tuple[Fit, _Size]]) -> None:
        given: object = views
        if not isinstance(given, Mapping) or not given:
            raise ArgumentError(f"Views: views is {views!r}; expected {_EXPECTED}")
        self.fields = {name: _checked(name, value) for name, value in views.items()}
        total = sum(found.views or 1 for found in self.fields.values())
        if total > MOST_VIEWS:
            raise ArgumentError(f"Views: {total} views of each picture; expected at most {MOST_VIEWS}")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the fields."""
        return iter(self.fields)

    def __repr__(self) -> str:
        shown = {
            name: (found.fit, found.size) if found.views is None else tuple(found)
            for name, found in self.fields.items()
        }
        return f"Views({shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Views) and list(self.fields.items()) == list(other.fields.items())

    def __hash__(self) -> int:
        return hash(tuple(self.fields))


explain_init(Views)

_EXPECTED = (
    "names of fields with (count, fit, size) or (fit, size), such as {'crops': (2, RandomResizedCrop(), 224)}"
)


def _checked(name: object, value: Any) -> FieldViews:
    if not is_field_name(name) or name in _TAKEN:
        raise ArgumentError(
            f"Views: {name!r} cannot name a field of views; expected an identifier that does not begin with an "
            f"underscore, is no attribute of Batch, and is none of {', '.join(_TAKEN)}"
        )
    parts = tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(parts) not in (2, 3):
        raise ArgumentError(f"Views: views[{name!r}] is {value!r}; expected {_EXPECTED}")
    count = whole("Views", f"the number of views of {name!r}", parts[0], 1, MOST_VIEWS) if parts[2:] else None
    fit, side = parts[-2:]
    found = size("Views", f"the size of {name!r}", side)
    # The height or width of the output of these depends on the picture.
    if not isinstance(fit, Fit) or isinstance(fit, (Buckets, Resize)) or fit.size not in (None, found):
        raise ArgumentError(
            f"Views: the fit of {name!r} is {fit!r}; expected CenterFit(), RandomFit(), RandomResizedCrop(), "
            f"Letterbox(), Stretch() or a Fit of your own, without a size or with that of the views, {found}"
        )
    return FieldViews(count, fit, found)
