"""ObjectStore: lists and reads the objects of a bucket, of a web server or of any file system of fsspec."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from highway.errors import HighwayError, ObjectChangedError, PipelineStateError, ReadError, StorageError
from highway.storage.objects import UNKNOWN, Object
from highway.storage.outages import Outages

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ObjectStore", "Page", "check_process", "plain_etag", "without_values"]

# A page of a listing costs about as much as the requests for a few objects.
_WORTH_LISTING = 16

Answer = TypeVar("Answer")
Page = list[Object]


class ObjectStore:
    """Objects behind one URL; a subclass talks to the store.

    `list`, `head` and `read` are for the time before the pipeline starts: they retry transient failures for up to 30 s,
    and only Ctrl-C interrupts them. `pages`, `ask_now` and `read_now` make single requests, in any thread.

    Parameters
    ----------
    url : str
        Without a slash at its end.
    owner : str
        Name of the reader, for errors.

    Attributes
    ----------
    identity : str
        Tells stores with the same URL at different servers or of different accounts apart; has no secrets.
    most_requests : int
        Most requests at the same time.
    lists_sorted : bool
        Whether `pages` asks for the objects after a name only, in the order of their names.
    """

    most_requests = 128
    lists_sorted = False

    def __init__(self, url: str, owner: str) -> None:
        self.url, self.owner = url, owner
        self.identity = url

    # With retries

    def list(self, prefix: str) -> Iterator[Object]:
        """Yield all objects in a folder, recursively; all objects of the store if `prefix` is empty.

        Raises
        ------
        ReadError
            The store cannot be listed.
        StorageError
            The store failed for longer than a reader waits.
        """
        outages = Outages(self.owner)
        after: str | None = None
        pages: Iterator[Page] | None = None

        def next_page() -> Page | None:
            nonlocal pages
            try:
                if pages is None:
                    pages = self.pages(prefix, after)
                return next(pages, None)
            except HighwayError:
                pages = None
                raise

        while (page := outages.patiently(next_page)) is not None:
            yield from page
            if page:
                after = page[-1].name

    def head(self, name: str) -> Object:
        """Return size and etag of an object.

        Raises
        ------
        ReadError, StorageError
        """
        return self._patiently(lambda: self.ask_now(name))

    def read(self, object: Object, start: int = 0, stop: int = UNKNOWN) -> Buffer:
        """Return bytes [start, stop) of an object; `UNKNOWN` is its end.

        Raises
        ------
        ReadError, StorageError, ObjectChangedError
        """
        if object.size == UNKNOWN:
            found = self.head(object.name)
            object = found._replace(etag=object.etag or found.etag)
        stop = object.size if stop == UNKNOWN else stop
        if start == stop:
            return b""
        return self._patiently(lambda: self.read_now(object, start, stop))

    def listed(self, names: Sequence[str]) -> dict[str, Object]:
        """Return objects by name, as listings of their folders state them: fewer requests than `head` for many.

        Those that are missing must be asked for: they may not exist, there are few of them in their folder, or many
        others, or the store cannot be listed.
        """
        found: dict[str, Object] = {}
        if not self.lists_sorted:
            return found
        folders: dict[str, list[str]] = {}
        for name in names:
            folders.setdefault(name.rpartition("/")[0], []).append(name)
        for folder, inside in folders.items():
            if len(inside) >= _WORTH_LISTING:
                # Without retries: the requests for what is missing have them.
                with suppress(HighwayError):
                    found.update(self._listed_in(folder, frozenset(inside)))
        return found

    def _listed_in(self, folder: str, names: frozenset[str]) -> Iterator[tuple[str, Object]]:
        last, patience = max(names), 2 * len(names) + _WORTH_LISTING
        # From a name just before the first one on.
        for page in self.pages(folder, min(names)[:-1] or None):
            yield from ((one.name, one) for one in page if one.name in names)
            patience -= len(page)
            if patience < 0 or any(one.name >= last for one in page):
                return

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        return Outages(self.owner).patiently(call)

    # One request; a subclass defines these

    def pages(self, prefix: str, after: str | None) -> Iterator[Page]:
        """Yield the objects in a folder after the name `after`, sorted if the store sorts them, in lists."""
        raise NotImplementedError

    def ask_now(self, name: str) -> Object:
        """Return size and etag of an object."""
        raise NotImplementedError

    def read_now(self, object: Object, start: int, stop: int) -> Buffer:
        """Return bytes [start, stop), at least one, of an object of known size."""
        raise NotImplementedError

    # For subclasses

    def identity_of(self, name: str) -> str:
        """Return the identity of the store of an object."""
        return self.identity

    def is_cached(self, name: str) -> bool:
        """Return whether a cache on the local disk keeps an object."""
        return True

    def where(self, name: str) -> str:
        """URL of an object, for errors."""
        return f"{self.url}/{name}" if name else self.url

    def unreadable(self, name: str, reason: str) -> ReadError:
        """Return the error of an object that cannot be read, however often one tries."""
        return ReadError(f"{self.owner}: {self.where(name)} cannot be read: {reason}")

    def failed(self, name: str, reason: str) -> StorageError:
        """Return the error of a failure that may pass."""
        return StorageError(f"{self.owner}: {self.where(name)} cannot be read: {reason}")

    def check(self, object: Object, size: int, etag: str) -> None:
        """Raise if the object that answered is not the one that was listed."""
        if object.etag and etag:
            if plain_etag(object.etag) != plain_etag(etag):
                raise self._changed(object, f"its etag was {object.etag}, and is {etag}")
            if size != object.size:
                raise self.failed(object.name, f"the answer is for {size} bytes, and it has {object.size}")
        elif size != object.size:
            raise self._changed(object, f"it had {object.size} bytes, and has {size}")

    def check_length(self, object: Object, start: int, stop: int, length: int) -> None:
        """Raise StorageError if the answer has another length than the range."""
        if length != stop - start:
            raise self.failed(
                object.name, f"the answer has {length} bytes; expected {stop - start}, from byte {start}"
            )

    def _changed(self, object: Object, how: str) -> ObjectChangedError:
        return ObjectChangedError(
            f"{self.owner}: {self.where(object.name)} changed after it was listed: {how}; make the reader again to "
            "list it as it is now (if it has an index: after highway index --refresh), and leave the objects alone "
            "while they are read"
        )


def plain_etag(etag: str) -> str:
    """Return an etag as listings and answers both state it: without quotes and the mark of weak ones."""
    return etag.removeprefix("W/").strip('"')


def without_values(text: str, options: Mapping[str, Any]) -> str:
    """Return an error text without the values of options, which may be secrets."""
    for value in options.values():
        if isinstance(value, Mapping):
            text = without_values(text, value)
        elif str(value):
            text = text.replace(str(value), "...")
    return text


_first_use = threading.Lock()
_used_in: int | None = None


def check_process(owner: str) -> None:
    """Raise if this process was forked from one that used object stores: their threads are not in this process.

    Raises
    ------
    PipelineStateError
    """
    global _used_in
    with _first_use:
        if _used_in is None:
            _used_in = os.getpid()
        elif _used_in != os.getpid():
            raise PipelineStateError(
                f"{owner}: process {os.getpid()} was forked from process {_used_in}, which had used object stores: "
                "the threads of obstore are not in this one. Start processes with 'spawn' or 'forkserver', or make "
                "the first reader of URLs after the fork"
            )
