"""SkippedFiles: counts the files that a reader skips, by reason, with an example of each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass

from highway.modules.readers.listing.leftovers import is_hidden, is_leftover
from highway.storage.files import first_bytes
from highway.storage.printing import printable
from highway.storage.sniffing import FIRST_BYTES, READ, sniff
from highway.storage.urls import is_url

__all__ = ["SkippedFiles", "logger"]

logger = logging.getLogger("highway.modules")

# Notes and tables beside the pictures, which are never samples.
_NOTES = frozenset(
    b".txt .md .rst .csv .tsv .json .jsonl .xml .yaml .yml .toml .ini .cfg .log .html .htm .py .ipynb .sh .lst .sha256 "
    b".md5".split()
)
_KINDS_SHOWN = 6
# Files of one kind whose first bytes are read.
_LOOKED_AT = 32
_MOST_LOOKED_AT = 256


@dataclass
class _Kind:
    count: int
    example: str
    missed: bool


class SkippedFiles:
    """Counts what a reader skips, by reason.

    ``str()`` is one line, empty if nothing was skipped; files that you may miss come first.

    Examples
    --------
    >>> skipped = SkippedFiles()
    >>> skipped.add_by_name(b"a/1.ppm")
    >>> skipped.add_by_name(b".DS_Store")
    >>> skipped.add(b"b/4.jpg", "without an annotation")
    >>> skipped.add(b"@eaDir", "of the system", missed=False, folder=True)
    >>> print(skipped)
    skipped 3 files: 1 with the ending .ppm (a/1.ppm), 1 without an annotation (b/4.jpg), 1 hidden (.DS_Store); and \
1 folder: 1 of the system (@eaDir)
    """

    def __init__(self) -> None:
        self._files: dict[str, _Kind] = {}
        self._folders: dict[str, _Kind] = {}
        self._to_look_at: dict[str, list[bytes]] = {}
        self._unread: dict[str, _Kind] = {}

    def add(self, name: bytes, reason: str, *, missed: bool = True, folder: bool = False) -> None:
        """Count a file, or a folder.

        Parameters
        ----------
        name : bytes
            Path of the file.
        reason : str
            Text after a number: "hidden", "with the ending .ppm", "without an annotation".
        missed : bool
            Whether a user may miss the file; `log` then warns.
        folder : bool
        """
        _count(self._folders if folder else self._files, reason, printable(name), missed)

    def add_by_name(self, name: bytes, *, folder: bool = False) -> None:
        """Count a file, or a folder, with the reason found from its name: hidden, of the system, or its ending."""
        base = os.path.basename(name)
        if is_hidden(base):
            self.add(name, "hidden", missed=False, folder=folder)
        elif is_leftover(base):
            self.add(name, "of the system", missed=False, folder=folder)
        else:
            ending = os.path.splitext(base)[1].lower()
            reason = f"with the ending {printable(ending)}" if ending else "without an ending"
            missed = ending not in _NOTES
            self.add(name, reason, missed=missed, folder=folder)
            if missed and not folder:
                names = self._to_look_at.setdefault(reason, [])
                if len(names) < _LOOKED_AT:
                    names.append(name)

    def look(self, root: bytes) -> None:
        """Read the first bytes of some of the files in `root` that `add_by_name` counted by their endings.

        ``str()`` then shows which of them are pictures that Highway reads, under other names. Objects of a store are
        not read: that would be a request for each.
        """
        if is_url(root):
            return
        names = [name for names in self._to_look_at.values() for name in names][:_MOST_LOOKED_AT]
        self._to_look_at.clear()
        for name in names:
            found = sniff(first_bytes(os.path.join(root, name), FIRST_BYTES))
            if found in READ:
                _count(self._unread, found, printable(name), True)

    def __len__(self) -> int:
        """Number of skipped files and folders."""
        return sum(kind.count for kind in (*self._files.values(), *self._folders.values()))

    @property
    def missed(self) -> bool:
        """Whether a user may miss some of the files or folders."""
        return any(kind.missed for kind in (*self._files.values(), *self._folders.values()))

    def __str__(self) -> str:
        said = []
        for kinds, noun in ((self._files, "file"), (self._folders, "folder")):
            total = sum(kind.count for kind in kinds.values())
            if total:
                said.append(f"{total} {noun}{'s' * (total != 1)}: {_listed(kinds)}")
        if not said:
            return ""
        line = f"skipped {'; and '.join(said)}"
        if self._unread:
            found = ", ".join(
                f"{kind.count} {'is' if kind.count == 1 else 'are'} {name} under another name {_example(kind)}"
                for name, kind in _sorted(self._unread)
            )
            line += f"; {found}"
        return line

    def log(self, owner: str, where: str) -> None:
        """Log ``str()`` if it is not empty, as a warning if a user may miss something, otherwise as information.

        Parameters
        ----------
        owner : str
            Name of the reader.
        where : str
            Folder that it reads.
        """
        if len(self):
            logger.log(logging.WARNING if self.missed else logging.INFO, "%s: %s: %s", owner, where, self)


def _count(kinds: dict[str, _Kind], reason: str, example: str, missed: bool) -> None:
    kind = kinds.get(reason)
    if kind is None:
        kinds[reason] = _Kind(1, example, missed)
    else:
        kind.count += 1
        kind.missed |= missed
        # The smallest name, because folders are listed in any order.
        kind.example = min(kind.example, example)


def _sorted(kinds: dict[str, _Kind]) -> list[tuple[str, _Kind]]:
    return sorted(kinds.items(), key=lambda item: (not item[1].missed, -item[1].count, item[0]))


def _example(kind: _Kind) -> str:
    return f"({'such as ' if kind.count > 1 else ''}{kind.example})"


def _listed(kinds: dict[str, _Kind]) -> str:
    ordered = _sorted(kinds)
    said = [f"{kind.count} {reason} {_example(kind)}" for reason, kind in ordered[:_KINDS_SHOWN]]
    rest: Iterable[int] = [kind.count for _, kind in ordered[_KINDS_SHOWN:]]
    return ", ".join([*said, f"{sum(rest)} of other kinds"] if ordered[_KINDS_SHOWN:] else said)
