"""URLs of objects: tells them from paths, splits them into store and name, and expands brace lists."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from highway.arguments import expanded
from highway.errors import ArgumentError

__all__ = ["Location", "braces", "has_wildcard", "is_url", "join", "located", "split", "wildcard"]

MOST_NAMES = 1 << 20
"""Most names that a brace list may have."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://", re.ASCII)
# What pathlib makes of a URL: it drops a slash.
_WAS_URL = re.compile(r"(s3a?|gs|gcs|az|azure|abfss?|adl|https?|memory|file):/(?!/)")
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)", re.ASCII)
_WILDCARD = re.compile(r"[*?[]")


class Location(NamedTuple):
    """Where an object is.

    Attributes
    ----------
    root : str
        URL of the store, such as ``s3://bucket`` or ``https://host:8080``, without a slash at its end.
    name : str
        Name of the object, or of a folder of objects, in the store; empty for the store itself.
    """

    root: str
    name: str


def is_url(path: str | bytes) -> bool:
    """Return whether a path is the URL of an object or store, rather than a local file or folder."""
    text = os.fsdecode(path)
    found = _URL.match(text)
    return found is not None and found[1].lower() != "file"


def located(owner: str, name: str, value: object) -> str:
    """Return an argument that is a path or a URL: a path as by `expanded`, a URL as it is.

    A ``file://`` URL becomes a path.

    Parameters
    ----------
    owner, name : str
        The object with the argument and the name of the argument, for the error.
    value : object
        str, bytes or path.

    Raises
    ------
    ArgumentError
        It is something else, or a path object that was made of a URL.
    """
    text = expanded(owner, name, value)
    found = _URL.match(text)
    if found is None:
        if isinstance(value, os.PathLike) and _WAS_URL.match(text):
            raise ArgumentError(
                f"{owner}: {name} is {value!r}, a path made of a URL, which loses a slash; expected the URL as str"
            )
        return text
    if found[1].lower() != "file":
        return text
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ArgumentError(f"{owner}: {name} is {text!r}; expected file:///PATH, a file of this machine")
    return unquote(parts.path, errors="surrogateescape")


def split(url: str, owner: str) -> Location:
    """Split a URL into its store and the name of the object.

    Names in ``http://`` and ``https://`` URLs are unquoted: ``%20`` is a space. All others are names as they are.

    Raises
    ------
    ArgumentError
        The URL has no bucket or host, or has a query or a password.
    """
    found = _URL.match(url)
    assert found is not None
    scheme, rest = found[1].lower(), url[found.end() :]
    host, _, name = rest.partition("/")
    # ``github://OWNER:REPOSITORY@BRANCH`` is no password.
    if ":" in host.rpartition("@")[0] and scheme not in ("git", "github"):
        raise ArgumentError(
            f"{owner}: a URL of {scheme}://...@{host.rpartition('@')[2]} has a password; expected none, since URLs are "
            "logged: give it in storage_options"
        )
    if "::" in rest:
        raise ArgumentError(f"{owner}: {url!r} has '::'; expected the URL of an object, not a chain of them")
    web = scheme in ("http", "https")
    if web:
        if "?" in rest or "#" in rest:
            raise ArgumentError(
                f"{owner}: {url.partition('?')[0]!r} has a query or a fragment; expected the URL of a file without "
                "them (signed URLs are not supported: give the key in storage_options)"
            )
        name = unquote(name, errors="surrogateescape")
    if not host and (web or scheme in ("s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss")):
        raise ArgumentError(
            f"{owner}: {url!r} has no {'host' if web else 'bucket'}; expected {scheme}://NAME/..."
        )
    return Location(f"{scheme}://{host}", name)


def join(folder: str, name: str) -> str:
    """Return the path or URL of a file in a folder; a `name` that is a URL or an absolute path stays as it is."""
    if is_url(name):
        return name
    if not is_url(folder):
        return os.path.join(folder, name)
    return f"{folder.rstrip('/')}/{name.lstrip('/')}"


def braces(text: str, owner: str) -> list[str]:
    """Expand brace lists, in order: ``{000..127}`` to numbers, with leading zeros if these have, and ``{a,b}``.

    Braces with neither two dots between numbers nor a comma stay as they are.

    Raises
    ------
    ArgumentError
        The numbers fall, or there are more than `MOST_NAMES` names.

    Examples
    --------
    >>> braces("train-{08..10}.tar", "TarReader")
    ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    parts: list[list[str]] = []
    at = 0
    for found in _BRACES.finditer(text):
        parts += [[text[at : found.start()]], _listed(found, text, owner)]
        at = found.end()
    parts.append([text[at:]])
    count = 1
    for part in parts:
        count *= len(part)
    if count > MOST_NAMES:
        raise ArgumentError(f"{owner}: {text!r} stands for {count} names; allowed are {MOST_NAMES}")
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def _listed(found: re.Match[str], text: str, owner: str) -> list[str]:
    inside = found[1]
    numbers = _NUMBERS.fullmatch(inside)
    if numbers is None:
        return inside.split(",") if "," in inside else [found[0]]
    first, last = numbers.groups()
    begin, end = int(first), int(last)
    if begin > end:
        raise ArgumentError(f"{owner}: {text!r} counts from {first} to {last}; expected the smaller first")
    if end - begin >= MOST_NAMES:
        raise ArgumentError(f"{owner}: {text!r} stands for {end - begin + 1} names; allowed are {MOST_NAMES}")
    padded = any(len(one) > 1 and one[0] == "0" for one in (first, last))
    width = max(len(first), len(last)) if padded else 1
    return [f"{number:0{width}}" for number in range(begin, end + 1)]


def has_wildcard(text: str) -> bool:
    """Return whether a path or URL has ``*``, ``?`` or ``[``."""
    return _WILDCARD.search(text) is not None


def wildcard(pattern: str) -> tuple[str, re.Pattern[str]]:
    """Return the folder before the first wildcard of a name, and an expression that matches whole names.

    ``*`` and ``?`` match within a folder, ``**`` across folders, ``[a-z]`` and ``[!a-z]`` one character.
    """
    first = _WILDCARD.search(pattern)
    assert first is not None
    folder = pattern[: first.start()].rpartition("/")[0]
    return folder, re.compile("".join(_translated(pattern)), re.DOTALL)


def _translated(pattern: str) -> Iterator[str]:
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            yield "(?:.*/)?"
            at += 3
        elif pattern.startswith("**", at):
            yield ".*"
            at += 2
        elif pattern[at] == "*":
            yield "[^/]*"
            at += 1
        elif pattern[at] == "?":
            yield "[^/]"
            at += 1
        else:
            end = pattern.find("]", at + 2) if pattern[at] == "[" else -1
            if end < 0:
                yield re.escape(pattern[at])
                at += 1
            else:
                inside = pattern[at + 1 : end].replace("\\", "\\\\")
                yield f"[^{inside[1:]}]" if inside[0] == "!" else f"[{inside}]"
                at = end + 1
