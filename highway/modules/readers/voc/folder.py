"""VOCFolder: finds the pictures, annotations, masks and lists of a folder in the format of Pascal VOC."""

from __future__ import annotations

import codecs
import glob
import logging
import os
import posixpath
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from highway.errors import ArgumentError, DatasetError, EmptyDatasetError, ReadError, StorageError
from highway.modules.readers.listing.leftovers import is_hidden, is_skipped
from highway.modules.readers.listing.skipped_files import SkippedFiles
from highway.storage.access import Access
from highway.storage.file_names import EXTENSIONS
from highway.storage.file_tree import Entry, LocalTree, Tree
from highway.storage.folders import folder_at
from highway.storage.printing import printable
from highway.storage.urls import is_url, located

__all__ = ["VOCFolder", "VOCSample"]

_logger = logging.getLogger("highway.modules")

Path = str | bytes | os.PathLike[str]

_LOCAL = Access()

_LARGEST_LIST = 1 << 28
_XML = frozenset((b".xml",))
_MASKS = frozenset((b".png",))
# Ends of lines in lists of one class: absent, difficult, present.
_FLAGS = (b"-1", b"0", b"1")
# Folders of a VOC set without pictures or annotations to read, if those are in the root itself.
_APART = (b"ImageSets", b"SegmentationClass", b"SegmentationObject")
_LAYOUT = (
    "expected a folder with JPEGImages, Annotations and ImageSets in it, or images= and annotations= that name other "
    "folders"
)


class VOCSample(NamedTuple):
    """A sample: files relative to the folders of pictures and of annotations.

    Attributes
    ----------
    picture, annotation : bytes
        If the file does not exist, its expected name.
    """

    picture: bytes
    annotation: bytes

    @property
    def stem(self) -> bytes:
        """Name of the picture, without ending."""
        return os.path.splitext(self.picture)[0]


class VOCFolder:
    """Finds the files of a folder in the format of Pascal VOC.

    Parameters
    ----------
    root : path or URL
    images, annotations : path
        Folders, relative to `root` or absolute.
    masks : path, optional
        Folder of the masks, if they are read.
    access : Access
        For a URL.

    Attributes
    ----------
    root, images, annotations : bytes
        Each with a separator at its end.
    tree : Tree
        Reads the folders.
    skipped : SkippedFiles
        Files that are neither picture nor annotation; `skip_unpaired` adds more.

    Raises
    ------
    DatasetError
        One of the folders is missing, or cannot be listed.
    """

    def __init__(
        self,
        root: Path,
        images: Path,
        annotations: Path,
        masks: Path | None = None,
        access: Access = _LOCAL,
    ) -> None:
        self.root, self.tree = folder_at("VOCReader", "root", root, access)
        self.images = self._below("images", images)
        self.annotations = self._below("annotations", annotations)
        self._masks = None if masks is None else self._below("masks", masks)
        self.skipped = SkippedFiles()
        same = os.path.normpath(self.images) == os.path.normpath(self.annotations)
        files = self._listed(self.annotations, EXTENSIONS | _XML if same else _XML)
        self._annotations = _NamedFiles(files, _XML, b".xml")
        if not same:
            files = self._listed(self.images, EXTENSIONS)
        self._pictures = _NamedFiles(files, EXTENSIONS, b".jpg")

    def _below(self, name: str, folder: object) -> bytes:
        path = os.fsencode(located("VOCReader", name, folder))
        if is_url(path) and not is_url(self.root):
            raise ArgumentError(
                f"VOCReader: {name} is {os.fsdecode(path)!r}, and root is a local folder; expected a local folder"
            )
        return os.path.join(path if is_url(path) else os.path.join(self.root, path), b"")

    def _listed(
        self,
        folder: bytes,
        endings: Collection[bytes],
        hint: str = _LAYOUT,
        skipped: SkippedFiles | None = None,
    ) -> list[bytes]:
        """List files with these endings in a folder, relative to it; all others count as skipped."""
        skipped = self.skipped if skipped is None else skipped
        apart = {os.path.normpath(self.path(name)) for name in _APART}
        others = (self.images, self.annotations, self._masks)
        apart |= {os.path.normpath(other) for other in others if other is not None}
        found = []

        def is_apart(name: bytes) -> bool:
            return os.path.normpath(folder + name) in apart

        def left(name: bytes, entry: Entry) -> bool:
            return is_skipped(entry.name) or is_apart(name)

        def is_wanted(entry: Entry) -> bool:
            return os.path.splitext(entry.name)[1].lower() in endings and not is_skipped(entry.name)

        try:
            for name, entry, is_folder in self.tree.walk(folder, b"", left, is_wanted):
                if not is_folder and is_wanted(entry):
                    found.append(name)
                elif not is_folder or (is_skipped(entry.name) and not is_apart(name)):
                    skipped.add_by_name(self._told(folder, name), folder=is_folder)
        except StorageError:
            raise
        except OSError as error:
            listed = os.fsdecode(error.filename or folder).rstrip("/")
            within = self._set_within() if hint is _LAYOUT else None
            way = f"; {within!r} is such a folder" if within else ""
            raise DatasetError(
                f"VOCReader: {listed!r} cannot be listed: {error.strerror}; {hint}{way}"
            ) from None
        return found

    def _set_within(self) -> str | None:
        """The first folder with annotations, at most two levels inside of the root, such as VOCdevkit/VOC2012."""
        if is_url(self.root):
            return None
        for level in ("*", "*/*"):
            found = glob.glob(f"{level}/Annotations/", root_dir=os.fsdecode(self.root))
            if found:
                return os.path.join(os.fsdecode(self.root), os.path.dirname(min(found).rstrip("/")))
        return None

    def _told(self, folder: bytes, name: bytes) -> bytes:
        """Name of a file in reports: relative to `root`, if it is inside."""
        return os.path.normpath((folder + name).removeprefix(self.root))

    def _tree_of(self, path: bytes) -> Tree:
        """What reads a list: one of this machine may go with a folder in a store."""
        return self.tree if is_url(path) else LocalTree("VOCReader")

    def path(self, *parts: bytes) -> bytes:
        """A path in `root`."""
        return os.path.join(self.root, *parts)

    # Samples

    def annotation_files(self) -> list[bytes]:
        """Every annotation, relative to `annotations`, sorted."""
        return sorted(self._annotations.by_stem.values())

    def samples(self, split: object) -> list[VOCSample]:
        """The samples of a list, in its order; if `split` is None, of every annotation, sorted by name.

        Raises
        ------
        ArgumentError, DatasetError
            There is no such list, or it cannot be read.
        EmptyDatasetError
            The list names no samples, or there are no annotations.
        """
        if split is None:
            where = self.annotations
            found = [
                self._sample(stem, file, self._pictures.find(stem))
                for stem, file in sorted(self._annotations.by_stem.items())
            ]
        elif isinstance(split, str) and split:
            where = self._list(split)
            found = self._named(where)
        else:
            raise ArgumentError(
                f"VOCReader: split is {split!r}; expected the name of a list, such as 'train', or None"
            )
        if not found:
            raise EmptyDatasetError(f"VOCReader: {os.fsdecode(where)!r} names no samples")
        return found

    def _sample(self, stem: bytes, annotation: bytes | None, picture: bytes | None) -> VOCSample:
        if annotation is None:
            annotation = (stem if picture is None else os.path.splitext(picture)[0]) + b".xml"
        return VOCSample(
            os.path.splitext(annotation)[0] + b".jpg" if picture is None else picture, annotation
        )

    def _list(self, split: str) -> bytes:
        name = os.fsencode(split)
        main = (b"ImageSets/Main",)
        kinds = main if self._masks is None else (b"ImageSets/Segmentation", *main)
        places = [self.path(kind, name + b".txt") for kind in (*kinds, b"ImageSets")]
        if name.endswith(b".txt"):
            places.append(self.path(os.fsencode(located("VOCReader", "split", split))))
        path = next((place for place in places if self._tree_of(place).exists(place)), None)
        if path is not None:
            return path
        there: set[bytes] = set()
        for kind in (*kinds, b"ImageSets"):
            try:
                names = (entry.name for entry in self.tree.scanned(self.path(kind)))
                there |= {name[:-4] for name in names if name.endswith(b".txt")}
            except StorageError:
                raise
            except OSError:
                continue
        known = [os.fsdecode(found) for found in sorted(there) if not is_hidden(found)]
        has = f"it has {', '.join(known[:12])}{', ...' if known[12:] else ''}" if known else "it has no lists"
        raise DatasetError(
            f"VOCReader: split is {split!r}, and there is no {os.fsdecode(places[len(kinds) - 1])!r}; {has}; "
            "split=None reads everything that has an annotation, split='lists/mine.txt' a list of your own"
        )

    def _named(self, path: bytes) -> list[VOCSample]:
        """Samples that a list names."""
        found: list[VOCSample] = []
        for line in _lines(self._tree_of(path), path):
            sample = self._find(line)
            # A line with # is a comment, unless a file has that name.
            if sample is not None or not (line.startswith(b"#") and line[1:2].strip() == b""):
                found.append(sample or self._missing(line))
        seen: set[VOCSample] = set()
        twice = [sample for sample in found if sample in seen or seen.add(sample)]  # type: ignore[func-returns-value]
        if twice:
            _logger.warning(
                "VOCReader: %s names %d samples more than once, the first is %s; each is read as often as it is named",
                printable(path),
                len({*twice}),
                printable(twice[0].picture),
            )
        return found

    def _find(self, line: bytes) -> VOCSample | None:
        """The sample that a line names; None if no annotation and no picture has that name."""
        for name in (line, _without_flag(line)):
            for form in self._forms(name):
                annotation, picture = self._annotations.find(form), self._pictures.find(form)
                if annotation is not None or picture is not None:
                    return self._sample(form, annotation, picture)
        return None

    def _missing(self, line: bytes) -> VOCSample:
        name = _without_flag(line)
        stem, ending = os.path.splitext(name)
        return self._sample(stem if ending.lower() in EXTENSIONS | _XML else name, None, None)

    def _forms(self, name: bytes) -> Iterator[bytes]:
        """Yield a name as it is and, if it is a path, relative to the folder of pictures or annotations."""
        yield name
        path = posixpath.normpath(name.replace(b"\\", b"/"))
        if path != name:
            yield path
        parts = path.split(b"/")
        for folder in (self.images, self.annotations):
            absolute = os.path.join(os.path.abspath(folder), b"")
            if path.startswith(absolute):
                yield path[len(absolute) :]
            # The list may have been written while the set was elsewhere.
            last = os.path.basename(absolute[:-1])
            if last in parts[:-1]:
                yield b"/".join(parts[len(parts) - parts[::-1].index(last, 1) :])

    # Masks, and files without a partner

    def masks(self, samples: Sequence[VOCSample]) -> list[bytes]:
        """Path of the mask of every sample; if it does not exist, its expected path.

        Raises
        ------
        DatasetError
            There is no folder of masks.
        """
        assert self._masks is not None
        hint = "masks need a folder of them, NAME.png for each picture"
        files = _NamedFiles(self._listed(self._masks, _MASKS, hint, SkippedFiles()), _MASKS, b".png")
        return [self._masks + (files.find(sample.stem) or sample.stem + b".png") for sample in samples]

    def skip_unpaired(self, samples: Sequence[VOCSample]) -> None:
        """Count as skipped all files outside of the samples that have no partner, or share the name of another file."""
        pictures = {sample.picture for sample in samples}
        annotations = {sample.annotation for sample in samples}
        paired = set()
        for stem, annotation in self._annotations.by_stem.items():
            picture = self._pictures.find(stem)
            if picture is not None:
                paired.add(picture)
            elif annotation not in annotations:
                self.skipped.add(self._told(self.annotations, annotation), "without a picture")
        for picture in self._pictures.by_stem.values():
            if picture not in paired and picture not in pictures:
                self.skipped.add(self._told(self.images, picture), "without an annotation")
        for folder, files in ((self.images, self._pictures), (self.annotations, self._annotations)):
            for file in files.others:
                if file not in pictures and file not in annotations:
                    self.skipped.add(
                        self._told(folder, file), "with the name of another except for the ending"
                    )
        self.skipped.look(self.root)


class _NamedFiles:
    """Finds files with certain endings by their names without the ending.

    Attributes
    ----------
    by_stem : dict of bytes to bytes
        One file for each name: the one with the usual ending, otherwise the first.
    others : list of bytes
        Further files with the same names.
    """

    def __init__(self, files: Sequence[bytes], endings: Collection[bytes], usual: bytes) -> None:
        mine = [file for file in files if os.path.splitext(file)[1].lower() in endings]
        self.by_stem: dict[bytes, bytes] = {}
        self.others = []
        for file in sorted(mine, key=lambda name: (not name.endswith(usual), name)):
            if self.by_stem.setdefault(os.path.splitext(file)[0], file) != file:
                self.others.append(file)
        self._files = {*mine}
        self._normal: dict[bytes, bytes | None] | None = None

    def find(self, name: bytes) -> bytes | None:
        """The file of a name, which may have no ending, its own ending, or the ending of its partner."""
        found = self._exact(name)
        if found is None:
            # Unicode normalization finds a name only if it is the only one with that normal form.
            if self._normal is None:
                self._normal = {}
                for stem in self.by_stem:
                    key = _composed(stem)
                    self._normal[key] = None if key in self._normal else stem
            for form in _with_and_without(_composed(name)):
                alike = self._normal.get(form)
                if alike is not None:
                    return self.by_stem[alike]
        return found

    def _exact(self, name: bytes) -> bytes | None:
        stem, file = self.by_stem.get(name), name if name in self._files else None
        if stem is not None or file is not None:
            return stem or file
        return next((self.by_stem[form] for form in _with_and_without(name) if form in self.by_stem), None)


def _with_and_without(name: bytes) -> tuple[bytes, ...]:
    stem, ending = os.path.splitext(name)
    return (name, stem) if ending.lower() in EXTENSIONS | _XML else (name,)


def _composed(name: bytes) -> bytes:
    """A name in Unicode normalization form C; macOS writes form D."""
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape")).encode(
        "utf-8", "surrogateescape"
    )


def _lines(tree: Tree, path: bytes) -> list[bytes]:
    """Lines of a list that are not empty, stripped."""
    try:
        contents = tree.read(path, _LARGEST_LIST)
    except ReadError as error:
        raise DatasetError(f"VOCReader: {os.fsdecode(path)!r} {error}") from None
    if contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            contents = contents.decode("utf-16").encode()
        except UnicodeError as error:
            raise DatasetError(f"VOCReader: {os.fsdecode(path)!r} is not text in UTF-16: {error}") from None
    if b"\0" in contents:
        raise DatasetError(f"VOCReader: {os.fsdecode(path)!r} is not text in UTF-8: it has zero bytes")
    lines = contents.removeprefix(codecs.BOM_UTF8).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _without_flag(line: bytes) -> bytes:
    """Remove the -1, 0 or 1 at the end of a line in a list of one class."""
    parts = line.split()
    if len(parts) > 1 and parts[-1] in _FLAGS:
        return line[: -len(parts[-1])].rstrip()
    return line
