"""What the README shows is there and runs: every Python block in order, every command line, every file."""

import re
import shlex
from pathlib import Path

import pytest
from pictures import class_folders

from highway.cli import _parser
from highway.engine import Pipeline

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


def test_every_block_has_a_language_that_is_looked_at():
    assert {kind for kind, _ in BLOCKS} <= {"python", "sh", "text"}
    assert README.count("```") == 2 * len(BLOCKS)


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    class_folders(tmp_path / "demo-output" / "photos", classes=4, each=20)
    monkeypatch.chdir(tmp_path)
    shown = {}
    try:
        assert len(blocks("python")) > 3
        for number, text in enumerate(blocks("python")):
            exec(compile(text, f"README.md, Python block {number}", "exec"), shown)
    finally:
        for value in shown.values():
            if isinstance(value, Pipeline):
                value.stop()


def test_example_of_the_design_is_there_as_written():
    lines = {line.split("#")[0].strip() for text in blocks("python") for line in text.splitlines()}
    assert {
        "from highway.engine import Pipeline",
        "p = Pipeline([ImageFileReader(data_dir, 16, (240, 320)), Augmentations([FlipX()])])",
        "images, labels = p.dequeue()",
    } <= lines


def command_lines():
    for text in blocks("sh"):
        for line in text.splitlines():
            if line.strip():
                yield shlex.split(line, comments=True)


@pytest.mark.parametrize("words", [words for words in command_lines() if words[0] == "highway"], ids=" ".join)
def test_command_lines_are_accepted(words):
    assert callable(_parser().parse_args(words[1:]).run)


def test_make_targets_are_there():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    shown = [words[1] for words in command_lines() if words[0] == "make"]
    assert {"demo", "test"} <= set(shown) <= set(targets)


def test_files_are_there():
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    named = re.findall(r"\b(?:examples|benchmarks|tools|tests)/[\w./]*\w", README)
    assert linked
    missing = [name for name in {*linked, *named} if not (ROOT / name).exists()]
    assert missing == []


def test_links_within_lead_to_headings():
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
