"""Objects in S3, Google Cloud Storage, Azure and on web servers, through obstore, whose threads hold no GIL."""

from __future__ import annotations

import importlib
import mmap
import os
import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from highway.errors import ArgumentError, HighwayError, MissingPackageError
from highway.storage.object_store import ObjectStore, Page, check_process, without_values
from highway.storage.objects import Object

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["SCHEMES", "ObstoreObjects"]

SCHEMES = {
    **dict.fromkeys(("s3", "s3a"), "S3Store"),
    **dict.fromkeys(("gs", "gcs"), "GCSStore"),
    **dict.fromkeys(("az", "azure", "adl", "abfs", "abfss"), "AzureStore"),
    **dict.fromkeys(("http", "https"), "HTTPStore"),
}
"""Classes of obstore by scheme."""

_PAGE = 1000
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"
# User and password in a URL.
_USER = re.compile(r"//[^/@]*@")
_CLIENT = {
    "connect_timeout": "5s",
    # Without a byte for so long, a request has failed.
    "read_timeout": "10s",
    # For a request as a whole: long, since large ranges over slow networks take long.
    "timeout": "1h",
}
# A blocking request fails after so many seconds, and one more for so many bytes: a server that sends a byte now and
# then is never silent for long. The same as for requests of a `Fetcher`.
_PATIENCE, _SLOWEST = 20.0, 256 << 10
# Bodies of so many bytes have pages of their own.
_LARGE = 1 << 20
# The same for a page of a listing, whose size is not known; a web server gives all of its listing at once.
_PAGE_SECONDS, _WEB_SECONDS = 60, 600
# Statuses of the class 4xx that may pass: Request Timeout, Too Early, Too Many Requests.
_PASSING = (408, 425, 429)
_NOT_IMPLEMENTED = 501
_NO_LISTING = "; web servers are listed by WebDAV, which this one lacks: give the files to a ListReader"
# Where obstore asks for credentials if it has none.
_METADATA = "//169.254.169.254/"
_NO_CREDENTIALS = (
    "there are no credentials, and the metadata service of this machine gives none; give them in storage_options or in "
    "the environment, or skip_signature=True for a public bucket"
)
_STATUS = re.compile(r"status code: (\d{3})([^:\n]*)")
_SYSTEM = re.compile(r'message: "([^"]*)"')
_KIND = re.compile(r"kind: (Timeout|Connect|Interrupted)\b")
_KINDS = {
    "Timeout": "no answer in time",
    "Connect": "no connection to the server",
    "Interrupted": "the answer was cut off",
}


class ObstoreObjects(ObjectStore):
    """Objects that obstore reads. Its own retries are off: Highway retries, and counts.

    Parameters
    ----------
    url, owner
        See `ObjectStore`.
    options : dict
        Configuration of the store of obstore, and its `client_options`.
    """

    def __init__(self, url: str, owner: str, options: dict[str, Any]) -> None:
        super().__init__(url, owner)
        try:
            self._obstore: Any = importlib.import_module("obstore")
            stores = importlib.import_module("obstore.store")
        except ImportError as error:
            raise MissingPackageError(
                f"{owner}: {url} needs obstore, which is not installed: pip install obstore"
            ) from error
        self._web = url.startswith("http")
        self.lists_sorted = not self._web
        if "retry_config" in options:
            raise ArgumentError(
                f"{owner}: storage_options has 'retry_config'; expected none, since Highway itself retries requests"
            )
        given = options.pop("client_options", {})
        if not isinstance(given, Mapping):
            # Without the value, which may be a secret.
            raise ArgumentError(
                f"{owner}: client_options in storage_options is of type {type(given).__name__}; expected a dict, such "
                "as {'timeout': '60s'}"
            )
        self._timeout = given.get("timeout")
        client = self._client = {**_CLIENT, **given}
        endpoint = self._endpoint(options)
        if url.startswith("http://") or endpoint.startswith("http://"):
            client.setdefault("allow_http", True)
        account = self._account(options)
        if _USER.search(endpoint):
            raise ArgumentError(
                f"{owner}: the endpoint of {url} has a user or a password; expected none, since errors show it: "
                "give them as a header, in the default_headers of client_options"
            )
        for where in (endpoint, account):
            self.identity += f" at {where}" if where else ""
        try:
            make = getattr(stores, SCHEMES[url.partition("://")[0]]).from_url
            self._make = partial(make, url, retry_config={"max_retries": 0}, **options)
            self._store = self._make(client_options=client)
        except (TypeError, ValueError, self._obstore.exceptions.BaseError) as error:
            names = ", ".join(sorted({*options} | ({"client_options"} if given else set()))) or "nothing"
            # Without values, which may be secrets.
            text = next((line for line in str(error).splitlines() if line), type(error).__name__)
            text = without_values(text, {**options, "client_options": client})
            raise ArgumentError(
                f"{owner}: {url} cannot be opened with storage_options of {names}: {text}; expected options of "
                f"obstore's {SCHEMES[url.partition('://')[0]]}"
            ) from None

    def _for_listing(self) -> Any:
        """Return the store for a listing, each of whose requests has an end that suits it."""
        seconds = _WEB_SECONDS if self._web else _PAGE_SECONDS
        return self._make(client_options={**self._client, "timeout": self._timeout or f"{seconds}s"})

    def _endpoint(self, options: dict[str, Any]) -> str:
        """Address of the server, as far as the options or the environment say it."""
        given = [str(value) for name, value in options.items() if "endpoint" in name.lower()]
        if self.url.startswith("s3"):
            given += [os.environ[name] for name in _ENDPOINTS if os.environ.get(name)]
        return given[0] if given else ""

    def _account(self, options: dict[str, Any]) -> str:
        """Account of a container of Azure, which its URL need not have."""
        if SCHEMES[self.url.partition("://")[0]] != "AzureStore":
            return ""
        given = [str(value) for name, value in options.items() if "account_name" in name.lower()]
        return given[0] if given else os.environ.get(_ACCOUNT, "")

    def pages(self, prefix: str, after: str | None) -> Iterator[Page]:
        check_process(self.owner)
        try:
            # Web servers do not sort.
            stream = self._obstore.list(
                self._for_listing(), prefix or None, offset=None if self._web else after, chunk_size=_PAGE
            )
            if self._web:
                yield [_object(meta) for page in stream for meta in page]
                return
            for page in stream:
                yield [_object(meta) for meta in page]
        except Exception as error:
            raise self._error(error, prefix, lists=True) from error

    def ask_now(self, name: str) -> Object:
        check_process(self.owner)
        try:
            return _object(self._obstore.head(self._store, name))._replace(name=name)
        except Exception as error:
            raise self._error(error, name) from error

    def read_now(self, object: Object, start: int, stop: int) -> Buffer:
        check_process(self.owner)
        began = time.monotonic()
        try:
            found = self._obstore.get(self._store, object.name, options=_options(object, start, stop))
            self.check(object, found.meta["size"], found.meta["e_tag"] or "")
            body = self._received(found, object, stop - start, began)
        except HighwayError:
            raise
        except Exception as error:
            raise self._error(error, object.name) from error
        self.check_length(object, start, stop, len(memoryview(body)))
        return body

    def _received(self, found: Any, object: Object, size: int, began: float) -> Buffer:
        """Return the body of an answer; raises StorageError if it takes too long, or is too long."""
        limit = _PATIENCE + size / _SLOWEST
        # Parts of a large body are not kept beside the whole, whose pages go back to the system.
        whole = memoryview(mmap.mmap(-1, size) if size >= _LARGE else bytearray(size))
        got = 0
        for part in found.stream(min_chunk_size=1):
            end = got + len(part)
            if end > size:
                raise self.failed(object.name, f"the answer has more than {size} bytes")
            whole[got:end] = part
            got = end
            if time.monotonic() - began > limit:
                raise self.failed(object.name, f"only {got} of {size} bytes came within {limit:.3g} s")
        return whole[:got].toreadonly()

    def _error(self, error: Exception, name: str, *, lists: bool = False) -> HighwayError:
        """Return the error of Highway for one of obstore."""
        text = str(error)
        # Addresses in the texts of obstore may have signatures.
        found = _STATUS.search(text)
        if _METADATA in text:
            lasting = found is not None and found[1].startswith("4")
            return (self.unreadable if lasting else self.failed)(name, _NO_CREDENTIALS)
        if found is not None:
            status, reason = int(found[1]), f"the server answered {found[1]}{found[2].rstrip()}"
            if (400 <= status < 500 and status not in _PASSING) or status == _NOT_IMPLEMENTED:
                return self.unreadable(name, reason + _NO_LISTING if lists and self._web else reason)
            return self.failed(name, reason)
        if "redirect without LOCATION" in text:
            return self.unreadable(name, "the bucket is in another region; give region in storage_options")
        if isinstance(error, FileNotFoundError):
            return self.unreadable(name, "there is no such object")
        exceptions = self._obstore.exceptions
        if isinstance(error, exceptions.NotSupportedError):
            return self.unreadable(name, "the server does not support ranges of bytes")
        if isinstance(error, exceptions.GenericError):
            system, kind = _SYSTEM.search(text), _KIND.search(text)
            reason = _KINDS[kind[1]] if kind else text.partition("\n")[0].rpartition(" - ")[2]
            return self.failed(name, f"{reason} ({system[1]})" if system else reason)
        if isinstance(error, (exceptions.BaseError, ValueError)):
            return self.unreadable(name, text.partition("\n")[0])
        return self.failed(name, f"{type(error).__name__}: {text.partition(chr(10))[0]}")


def _options(object: Object, start: int, stop: int) -> dict[str, Any] | None:
    """Options of a request: none for a whole object, since some servers have no ranges."""
    return None if start == 0 and stop == object.size else {"range": (start, stop)}


def _object(meta: Any) -> Object:
    return Object(meta["path"], meta["size"], meta["e_tag"] or "")
