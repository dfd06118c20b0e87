"""Together: samples of several pictures each, such as pairs, and of masks that are files as the pictures are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from highway.batch import is_field_name
from highway.engine.spec import Spec
from highway.errors import ArgumentError, HighwayError
from highway.modules.readers.samples import OWN_FIELDS, SampleReader, Samples
from highway.storage.ranges import Ranges

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.sampling.sampler import Task
    from highway.storage.fetching import Fetcher

__all__ = ["Together", "check_pairs", "picture_columns"]


def check_pairs(owner: str, argument: str, names: Iterable[object]) -> None:
    """Raise ArgumentError if a name of a field of further pictures is not allowed."""
    for name in names:
        if not isinstance(name, str) or not is_field_name(name) or name in OWN_FIELDS:
            raise ArgumentError(
                f"{owner}: {argument} has the field {name!r}; expected identifiers that are no attributes of Batch and "
                f"none of {', '.join(OWN_FIELDS)}"
            )


def picture_columns(owner: str, image: object) -> tuple[str, dict[str, str]]:
    """Return the column of the pictures, and those of further pictures by their fields.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    image : str, sequence of str, or mapping of str to str
        A column; or several, of which the second and later ones are names of fields too; or columns by fields, the
        first of which is "images".

    Raises
    ------
    ArgumentError
        It is something else, or a field has a name that is not allowed.
    """
    columns: dict[Any, Any] = {}
    if isinstance(image, str):
        return image, {}
    if isinstance(image, Mapping):
        columns = {**image}
    elif isinstance(image, Sequence) and image and not isinstance(image, bytes):
        first, *others = image
        check_pairs(owner, "image", others)
        if len({*others}) < len(others):
            raise ArgumentError(f"{owner}: image is {image!r}; expected every column once")
        columns = {"images": first, **{name: name for name in others}}
    if next(iter(columns), None) != "images" or not all(isinstance(one, str) for one in columns.values()):
        raise ArgumentError(
            f"{owner}: image is {image!r}; expected the name of a column; or several, such as ('image', 'target'), or "
            "{'images': 'image', 'target': 'the column'}, which begins with images"
        )
    main = columns.pop("images")
    check_pairs(owner, "image", columns)
    return main, columns


class _Part:
    """A fetcher of some of the ranges of another one.

    Parameters
    ----------
    fetcher : Fetcher
    first : int
        Number of the first range.
    """

    def __init__(self, fetcher: Fetcher, first: int) -> None:
        self._fetcher, self._first = fetcher, first

    def take(
        self, ticket: int, indices: NDArray[np.int64]
    ) -> tuple[list[Buffer | None], dict[int, HighwayError]]:
        """See `Fetcher.take`."""
        return self._fetcher.take(ticket, indices + self._first)


class Together(Samples):
    """Samples, with further pictures and files of masks by the same indices.

    Parameters
    ----------
    first : Samples
        The pictures, with everything else about the samples.
    pairs : mapping of str to Samples
        Further pictures, by their fields.
    masks : Samples, optional
        Files of masks.
    masking : callable, optional
        Returns the first samples with these files as their masks.

    Attributes
    ----------
    pairs : dict of str to Samples
    """

    def __init__(
        self,
        first: Samples,
        pairs: Mapping[str, Samples],
        masks: Samples | None = None,
        masking: Callable[[Any, Any], Samples] | None = None,
    ) -> None:
        self._masking = masking
        self._put([first, *pairs.values(), *([] if masks is None else [masks])], [*pairs])
        first = self._first
        self.size, self.noun, self.where = first.size, first.noun, first.where
        self.boxed, self.masked = first.boxed, first.masked
        self.min_visible, self.placement = first.min_visible, first.placement
        self.in_files = first.in_files
        self._begins: list[int] = []
        ranges: Ranges | None = None
        for part in self._parts:
            self._begins.append(0 if ranges is None else len(ranges))
            if part.ranges is not None:
                ranges = part.ranges if ranges is None else ranges.followed_by(part.ranges)
        self.ranges = ranges

    def _put(self, parts: list[Samples], names: list[str]) -> None:
        self._parts = parts
        self._first = parts[0]
        self.pairs = dict(zip(names, parts[1:], strict=False))
        if self._masking is not None:
            self._first = self._masking(parts[0], parts[-1])

    def _with(self, parts: list[Samples]) -> Together:
        other = copy(self)
        other._put(parts, [*self.pairs])
        return other

    # All parts

    def needed(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate(
            [
                part.needed(indices) + begin
                for part, begin in zip(self._parts, self._begins, strict=True)
                if part.ranges is not None
            ]
        )

    def fetching(self, fetcher: Fetcher) -> Together:
        return self._with(
            [
                part if part.ranges is None else part.fetching(cast(Any, _Part(fetcher, begin)))
                for part, begin in zip(self._parts, self._begins, strict=True)
            ]
        )

    def for_run(self) -> Together:
        return self._with([part.for_run() for part in self._parts])

    def announced(self, tasks: Iterator[Task]) -> Iterator[Task]:
        for part in self._parts:
            tasks = part.announced(tasks)
        return tasks

    def begin_task(self, task: Task) -> None:
        for part in self._parts:
            part.begin_task(task)

    def finish_task(self, task: Task) -> None:
        for part in self._parts:
            part.finish_task(task)

    def open(self) -> None:
        for part in self._parts:
            part.open()

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def interrupt(self) -> None:
        for part in self._parts:
            part.interrupt()

    def fetched(self) -> dict[str, int] | None:
        found = [one for one in (part.fetched() for part in self._parts) if one is not None]
        return {name: sum(one[name] for one in found) for name in found[0]} if found else None

    # The first

    def begin(self) -> SampleReader:
        return self._first.begin()

    @property
    def at_hand(self) -> bool:
        return self._first.at_hand

    def starts(self, indices: NDArray[np.int64], nbytes: int) -> list[bytes | None]:
        return self._first.starts(indices, nbytes)

    def sizes(self, indices: NDArray[np.int64], owner: str) -> NDArray[np.int64]:
        return self._first.sizes(indices, owner)

    def known_keys(self) -> Iterable[str] | None:
        return self._first.known_keys()

    def known_labels(self) -> NDArray[Any] | None:
        return self._first.known_labels()

    def unlabeled(self) -> Sequence[int]:
        return self._first.unlabeled()

    def spec(self) -> Spec:
        return self._first.spec()

    def columns_spec(self) -> Spec:
        return self._first.columns_spec()

    def describe(self, index: int) -> str:
        return self._first.describe(index)

    def name(self, index: int) -> str:
        return self._first.name(index)
