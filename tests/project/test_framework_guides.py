"""The guides of frameworks show what tests/frameworks/test_training_loops.py runs: how little a switch changes."""

import difflib

import pytest
from documents import Document
from repository import ROOT

FRAMEWORKS = ROOT / "examples" / "frameworks"
GUIDES = {
    "accelerate": "docs/accelerate.md",
    "flax": "docs/flax.md",
    "jax": "docs/jax.md",
    "keras": "docs/keras.md",
    "lightning": "docs/lightning.md",
    "reference": "docs/torch.md",
    "torchrun": "docs/torchrun.md",
    "trainer": "docs/trainer.md",
}
MOST_CHANGED = 5


def lines_of(program):
    """The lines of a program with its usual loader, and with Highway."""
    return [
        (FRAMEWORKS / program / name).read_text(encoding="utf-8").splitlines(keepends=True)
        for name in ("usual.py", "with_highway.py")
    ]


def difference(program):
    """What a switch removes and adds, with a line around it."""
    lines = [*difflib.unified_diff(*lines_of(program), n=1)]
    return "".join("\n" if line.startswith("@@") else f"{line.rstrip()}\n" for line in lines[3:])


def test_every_program_has_a_guide():
    assert {path.name for path in FRAMEWORKS.iterdir()} == {*GUIDES}


@pytest.mark.parametrize("program", GUIDES)
def test_a_switch_changes_few_lines(program):
    usual, switched = lines_of(program)
    matcher = difflib.SequenceMatcher(None, usual, switched, autojunk=False)
    added = [
        line
        for kind, _, _, first, last in matcher.get_opcodes()
        if kind != "equal"
        for line in switched[first:last]
        if line.strip()
    ]
    assert 1 <= len(added) <= MOST_CHANGED, added
    assert any("highway" in line for line in added)


@pytest.mark.parametrize("program", GUIDES)
def test_a_guide_shows_the_difference(program):
    guide = Document(GUIDES[program])
    assert guide.blocks("diff") == [difference(program)]
    assert f"examples/frameworks/{program}/with_highway.py" in guide.text
