"""ARCHITECTURE.md: its table is the floor plan, and the files and names that it mentions are there."""

import re

import pytest
from documents import Document
from repository import ROOT
from test_floor_plan import BASE, MAY_IMPORT

ARCHITECTURE = Document("ARCHITECTURE.md")
SUFFIXES = "py|pyi|pyx|c|h|md"
PATH = re.compile(rf"`([\w/.]+\.(?:{SUFFIXES}))`|(docs/[\w/]+\.md)")
# `file` (`name`, ...), or `file`, `name` within parentheses.
NAMES = re.compile(rf"`([\w/.]+\.(?:{SUFFIXES}))`(?:\s\(|,\s)((?:`[\w.]+`[^`()]*)+)")


def place_of(path):
    """The file itself: within the package, or else the repository."""
    return next((full for full in (ROOT / "highway" / path, ROOT / path) if full.exists()), None)


def test_blocks_and_links():
    assert ARCHITECTURE.strange_blocks() == []
    assert ARCHITECTURE.missing_files() == []


def test_table_is_the_floor_plan():
    (table,) = ARCHITECTURE.blocks("text")
    _, *lines = table.splitlines()
    column = table.index("may also import")
    shown = {}
    for line in lines:
        part = line[:18].strip()
        parts = {*line[column:].split()} - {"-"}
        if part:
            shown[part] = parts
            last = part
        else:
            shown[last] |= parts
    assert shown == {part: allowed - BASE for part, allowed in MAY_IMPORT.items()}


def test_what_it_says_of_the_base():
    errors_only = {part for part, allowed in MAY_IMPORT.items() if allowed & BASE == {"errors"}}
    nothing = {part for part, allowed in MAY_IMPORT.items() if not allowed & BASE}
    assert errors_only == {"_core", "arguments"}
    assert nothing == {"errors", "__main__"}


def test_files_are_there():
    paths = {inside or document for inside, document in PATH.findall(ARCHITECTURE.text)}
    assert len(paths) > 30
    assert [path for path in sorted(paths) if place_of(path) is None] == []


@pytest.mark.parametrize("path, names", NAMES.findall(ARCHITECTURE.text))
def test_names_are_in_their_files(path, names):
    text = place_of(path).read_text(encoding="utf-8")
    for name in re.findall(r"`([\w.]+)`", names):
        for part in name.split("."):
            assert re.search(rf"\b{part}\b", text), f"{path} has no {part}"
