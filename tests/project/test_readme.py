"""What the README shows is there and runs: every Python block in order, every command line, every file."""

import re

import numpy as np
import pytest
from documents import Document
from pictures import class_folders
from repository import ROOT
from voc_folders import annotation, thing, voc_folder

from highway.cli.commands import command_line
from highway.engine import Pipeline
from highway.modules import Augmentations, VOCReader
from highway.transforms import ColorJitter, FlipX, Letterbox, Normalize, RandomResizedCrop

README = Document("README.md")


def test_every_block_has_a_language_that_is_looked_at():
    assert README.strange_blocks() == []


def test_it_is_short():
    prose = re.sub(r"^```.*?^```$", "", README.text, flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) <= 900


def test_it_leads_to_every_page():
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - {
        "docs/architecture.md",
        "docs/guide.md",
        "docs/index.md",
    }
    assert pages <= set(re.findall(r"\]\(([^)#]+)", README.text))


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    class_folders(tmp_path / "demo-output" / "photos", classes=4, each=20)
    monkeypatch.chdir(tmp_path)
    shown = {}
    blocks = README.blocks("python")
    assert "print(p.stats())\n" in blocks
    try:
        README.run(blocks, shown)
    finally:
        for value in shown.values():
            if isinstance(value, Pipeline):
                value.stop()


def test_example_of_detection_runs_on_one_line_too(tmp_path):
    root = voc_folder(tmp_path / "VOC2012", {f"{number:03}": annotation(thing()) for number in range(16)})
    reader = VOCReader(root, 16, (512, 512), split="train", fit=Letterbox())
    # fmt: off
    p = Pipeline([reader, Augmentations([RandomResizedCrop((512, 512), scale=(.3, 1), min_visible=.25), FlipX(), ColorJitter(.4, .4, .4, .1), Normalize()])])  # noqa: E501
    # fmt: on
    images, labels, boxes = p.dequeue()
    p.stop()
    assert (images.dtype, images.shape) == (np.float32, (16, 3, 512, 512))
    assert (labels.dtype, boxes.dtype, boxes.shape) == (np.int64, np.float32, (len(labels), 4))


def test_example_of_the_design_is_there_as_written():
    lines = {line.split("#")[0].strip() for text in README.blocks("python") for line in text.splitlines()}
    assert {
        "from highway.engine import Pipeline",
        "p = Pipeline([ImageFileReader(data_dir, 16, (240, 320)), Augmentations([FlipX()])])",
        "images, labels = p.dequeue()",
    } <= lines


@pytest.mark.parametrize(
    "words", [words for words in README.command_lines() if words[0] == "highway"], ids=" ".join
)
def test_command_lines_are_accepted(words):
    assert callable(command_line().parse_args(words[1:]).run)


def test_make_targets_are_there():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    shown = [words[1] for words in README.command_lines() if words[0] == "make"]
    assert {"demo", "test"} <= set(shown) <= set(targets)
    assert "docs" in targets


def test_files_are_there():
    assert "](benchmarks/README.md)" in README.text
    assert README.missing_files() == []


def test_links_within_lead_to_headings():
    assert README.broken_anchors() == []
