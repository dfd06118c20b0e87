"""Objects in any file system of fsspec."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from highway.errors import ArgumentError, HighwayError, MissingPackageError
from highway.storage.object_store import ObjectStore, Page, without_values
from highway.storage.objects import UNKNOWN, Object
from highway.storage.outages import may_pass

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FsspecObjects"]

# Names of options that may be secrets.
_SECRET = re.compile("key|secret|token|pass|cred|auth|sas|sign|cert|header|cookie|connection", re.IGNORECASE)


class FsspecObjects(ObjectStore):
    """Objects that fsspec reads.

    fsspec does not tell the etag with the bytes: that an object changed is noticed by its size alone.

    Parameters
    ----------
    url, owner
        See `ObjectStore`.
    options : dict
        Arguments of the file system.
    """

    most_requests = 16

    def __init__(self, url: str, owner: str, options: dict[str, Any]) -> None:
        super().__init__(url, owner)
        try:
            core: Any = importlib.import_module("fsspec.core")
        except ImportError as error:
            raise MissingPackageError(
                f"{owner}: {url} needs fsspec, which is not installed: pip install fsspec"
            ) from error
        try:
            self._files, path = core.url_to_fs(url, **options)
        except ImportError as error:
            raise MissingPackageError(f"{owner}: {url} cannot be opened with fsspec: {error}") from error
        except (ValueError, TypeError) as error:
            raise ArgumentError(
                f"{owner}: {url} cannot be opened with fsspec: {without_values(str(error), options)}"
            ) from None
        # Options may name the server, as `endpoint_url` and `host` do, or the repository.
        public = _public(options)
        if public:
            text = json.dumps(public, sort_keys=True, default=lambda value: type(value).__name__)
            self.identity = f"{url} with {blake2b(text.encode(), digest_size=8).hexdigest()}"
        self._folder = path.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if name else self._folder or "/"

    def pages(self, prefix: str, after: str | None) -> Iterator[Page]:
        found = self._called(prefix, lambda: self._files.find(self._path(prefix), detail=True))
        inside = self._folder.lstrip("/")
        names = {path.lstrip("/").removeprefix(inside).lstrip("/"): info for path, info in found.items()}
        yield [_object(name, names[name]) for name in sorted(names) if after is None or name > after]

    def ask_now(self, name: str) -> Object:
        return _object(name, self._called(name, lambda: self._files.info(self._path(name))))

    def read_now(self, object: Object, start: int, stop: int) -> Buffer:
        path = self._path(object.name)
        if start == 0 and stop == object.size:
            body: bytes = self._called(object.name, lambda: self._files.cat_file(path))
            self.check(object, len(body), "")
        else:
            body = self._called(object.name, lambda: self._files.cat_file(path, start=start, end=stop))
        self.check_length(object, start, stop, len(body))
        return body

    def _called(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError):
            raise self.unreadable(name, "there is no such file") from None
        except (PermissionError, IsADirectoryError) as error:
            raise self.unreadable(name, error.strerror or str(error)) from error
        except OSError as error:
            passing = error.errno is None or may_pass(error.errno)
            make = self.failed if passing else self.unreadable
            raise make(name, error.strerror or str(error) or type(error).__name__) from error
        except (ValueError, TypeError, NotImplementedError) as error:
            raise self.unreadable(name, f"{type(error).__name__}: {error}") from error
        except HighwayError:
            raise
        except Exception as error:
            # Of the library that talks to the server: it may be away.
            raise self.failed(name, f"{type(error).__name__}: {error}") from error


def _public(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are no secrets."""
    found = {}
    for name, value in options.items():
        if not _SECRET.search(str(name)):
            found[str(name)] = _public(value) if isinstance(value, Mapping) else value
    return found


def _object(name: str, info: dict[str, Any]) -> Object:
    size = info.get("size")
    etag = next((info[key] for key in ("ETag", "etag") if isinstance(info.get(key), str)), "")
    return Object(name, UNKNOWN if size is None else int(size), etag)
