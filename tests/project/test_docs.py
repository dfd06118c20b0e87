"""What docs/ shows is there and runs: programs in processes of their own, other blocks in order, command lines, files.

A Python block that begins with ``# NAME.py`` is a program.
"""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from documents import Document
from pictures import class_folders
from repository import ROOT
from voc_folders import annotation, thing, voc_folder

import highway
import highway.replay
import highway.torch
from highway import errors
from highway.cli.commands import command_line
from highway.engine import Pipeline
from highway.modules import Noise, ZMQSink, ZMQSource
from highway.network.protocol import link
from highway.network.zmq import security
from highway.transforms import (
    AutoContrast,
    CenterFit,
    ColorJitter,
    Equalize,
    FlipX,
    Gamma,
    Grayscale,
    Invert,
    Letterbox,
    Normalize,
    Pad,
    Posterize,
    RandomCrop,
    RandomResizedCrop,
    Rescale,
    Resize,
    Rotate,
    Sharpness,
    Slice,
    Solarize,
    Stretch,
    ToFloat,
    Zoom,
)
from highway.transforms.runs import TransformChain

# Long, and not about the interpreter.
pytestmark = pytest.mark.once

NAMES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
LIMIT = 60
PROGRAM = re.compile(r"# (\w+\.py)\n")

DISTRIBUTED = Document("docs/distributed.md")
TRANSFORMS = Document("docs/transforms.md")
CONTACT_SHEETS = Document("docs/contact_sheets.md")
CLUSTER = Document("docs/cluster.md")
PROGRAMS = {
    PROGRAM.match(text)[1]: text
    for document in (DISTRIBUTED, CLUSTER)
    for text in document.blocks("python")
    if PROGRAM.match(text)
}


def test_documents_are_looked_at():
    assert {DISTRIBUTED.name, TRANSFORMS.name, CONTACT_SHEETS.name} <= {*NAMES}
    assert len(Document("docs/get_started.md").blocks("python")) > 3


@pytest.mark.parametrize(
    "module",
    [highway.engine, highway.modules, highway.replay, highway.transforms, highway.torch, highway.errors],
)
def test_every_public_name_is_in_the_api_reference(module):
    pages = [Document(f"docs/api/{path.name}") for path in (ROOT / "docs" / "api").glob("*.md")]
    entries = "".join(block for page in pages for block in page.blocks("{eval-rst}"))
    documented = re.findall(r"^\.\. auto(?:class|exception|function):: ([\w.]+)$", entries, re.MULTILINE)
    assert len(documented) == len({*documented})
    assert {f"{module.__name__}.{name}" for name in module.__all__} <= {*documented}
    assert "highway.batch.Batch" in documented


def test_every_page_is_in_a_table_of_contents():
    shown = [
        line for name in NAMES for block in Document(name).blocks("{toctree}") for line in block.splitlines()
    ]
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"} <= {*shown}


@pytest.mark.parametrize("name", NAMES)
def test_blocks_files_and_links(name):
    document = Document(name)
    assert document.strange_blocks() == []
    assert document.missing_files() == []
    assert document.broken_anchors() == []


@pytest.mark.parametrize(
    "words",
    [words for name in NAMES for words in Document(name).command_lines() if words[0] == "highway"],
    ids=" ".join,
)
def test_command_lines_are_accepted(words):
    assert callable(command_line().parse_args(words[1:]).run)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Folders with pictures and a secret, which the programs find."""
    class_folders(tmp_path / "demo-output" / "photos", classes=4, each=20)
    things = thing("dog", (11, 11, 40, 50)), thing("cat", (41, 21, 70, 40), difficult=1)
    voc = voc_folder(
        tmp_path / "VOCdevkit" / "VOC2012", {f"{number:03}": annotation(*things) for number in range(20)}
    )
    (voc / "ImageSets/Main/val.txt").write_text("000\n001\n", encoding="utf-8")
    security.new_secret_file(tmp_path / "highway.secret")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIGHWAY_SECRET_FILE", str(tmp_path / "highway.secret"))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_python_blocks_run_one_after_the_other(place, name):
    document = Document(name)
    shown = {}
    document.run_commands("pack")
    try:
        document.run([text for text in document.blocks("python") if not PROGRAM.match(text)], shown)
    finally:
        for value in shown.values():
            if isinstance(value, Pipeline):
                value.stop()
    document.run_commands("store")
    if name == DISTRIBUTED.name:
        assert shown["batches"] == 5
    if name == TRANSFORMS.name:
        turned, before = shown["half_turned"].images, shown["batch"].images
        assert np.array_equal(turned, before[:, ::-1, ::-1])
        assert shown["squeezed"].images.dtype == np.float32
    if name == CONTACT_SHEETS.name:
        assert os.path.getsize("sheet.png")


def test_figures_of_the_other_machines(capsys):
    (block,) = (text for text in DISTRIBUTED.blocks("python") if "stats().machines" in text)
    data = Pipeline([Noise(4, (2, 2)), ZMQSink("inproc://figures")])
    with data, Pipeline([ZMQSource("inproc://figures")]) as training:
        for _ in training.forever():
            if training.stats().machines:
                break
        DISTRIBUTED.run([block], {"training": training})
    assert re.fullmatch(
        r"data \S+: [\d.]+ batches/s, \d+ MB/s, [\d.]+ cores, Noise busy \d+%, \d+ batches here, "
        r"\d+ sent again, \d+ s ago\n",
        capsys.readouterr().out,
    )


@pytest.fixture
def start(place):
    """Start a program of the document, or a command, beside others; its addresses become those of this test."""
    running = []

    def here(text):
        return re.sub(r"tcp://127\.0\.0\.1:(\d+)", rf"ipc://{place}/\1", text)

    def begin(name, *words, **changes):
        command = [name, *map(here, words)] if words else [name]
        if not words:
            text = here(PROGRAMS[name])
            for old, new in changes.items():
                assert f"{old}=" in text
                text = re.sub(rf"\b{old}=\d+", f"{old}={new}", text)
            (place / name).write_text(text)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *command],
            env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(highway.__file__))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate(timeout=LIMIT)


def ended(process):
    output, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (0, "")
    return output


def test_programs_are_the_three_and_the_one_that_can_be_restarted():
    chain = ["data_machine.py", "worker.py", "training_machine.py", "resumable.py"]
    assert list(PROGRAMS) == [*chain, "pipeline.py", "training.py", "pool.py"]


def test_pipeline_on_workers(start, place):
    (place / "pipeline.py").write_text(PROGRAMS["pipeline.py"])
    (_, *words), _ = (words for words in CLUSTER.command_lines() if words[:2] == ["highway", "work"])
    # One: a second one might come after the end of the training, which is short, and wait for another.
    worker = start("-m", "highway", *words)
    assert ended(start("training.py")) == ""
    output, errors = worker.communicate(timeout=LIMIT)
    assert worker.returncode == 0 and "Working: ZMQSource" in output, errors


@pytest.mark.parametrize("by_command", [True, False])
def test_one_pool_of_workers_for_two_ranks(start, place, monkeypatch, by_command):
    (place / "pipeline.py").write_text(PROGRAMS["pipeline.py"])
    second = PROGRAMS["training.py"].replace("5555", "5557").replace("5556", "5558")
    monkeypatch.setitem(PROGRAMS, "second.py", second)
    _, (_, *words) = (words for words in CLUSTER.command_lines() if words[:2] == ["highway", "work"])
    # One worker: no training ends before it is there.
    pool = start("-m", "highway", *words) if by_command else start("pool.py")
    assert [ended(process) for process in (start("training.py"), start("second.py"))] == [""] * 2
    output, errors = pool.communicate(timeout=LIMIT)
    assert pool.returncode == 0 and output.startswith(
        "Working: PoolSource() -> Load(" if by_command else ""
    ), errors


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_three_programs_end_whoever_begins(start, order):
    names = ("data_machine.py", "worker.py", "training_machine.py")
    processes = [start(names[number]) for number in order]
    assert [ended(process) for process in processes] == [""] * 3


def test_program_that_can_be_restarted(start, place):
    data, worker = start("data_machine.py", epochs=20), start("worker.py")
    first = start("resumable.py")
    checkpoint = place / "checkpoints" / "step-00000003"
    while not checkpoint.exists():
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"it ended with {first.wait(0.02)}: {first.stderr.read()}")
    first.kill()
    first.wait(LIMIT)
    state = json.loads((checkpoint / "data.json").read_text())
    assert set(state) == {"version", "generation", "epoch", "streams", "fingerprint"}
    told, last = ended(start("resumable.py")).splitlines()
    assert re.fullmatch(r"goes on after step [1-9]\d*", told)
    assert last == "100 steps"
    assert [ended(data), ended(worker)] == ["", ""]


# What it says is so


def test_every_rule_is_there_and_the_code_refers_to_it():
    section = DISTRIBUTED.text.split("## How it works")[1].split("\n## ")[0]
    there = [int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)]
    assert there == list(range(1, 17))
    sources = (
        ROOT / "highway" / "network" / "protocol" / f"{name}.py"
        for name in ("producer", "consumer", "delivery", "roles")
    )
    named = re.findall(r"# Rules? (\d+)(?: and (\d+))?\.", "".join(path.read_text() for path in sources))
    assert {int(number) for pair in named for number in pair if number} == set(there)


def test_every_error_of_the_network_is_in_the_table():
    section = DISTRIBUTED.text.split("## Errors")[1].split("\n## ")[0]
    shown = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    used = set()
    for path in (ROOT / "highway" / "network").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "highway.errors":
                used |= {alias.name for alias in node.names}
    others = {"ArgumentError", "ContractError", "HighwayError", "InsecureWarning", "PipelineStateError"}
    # What another machine raised is a RemoteError here.
    others |= {"MissingPackageError", "StorageError"}
    assert shown == used - others
    assert shown <= set(errors.__all__)


def test_every_transform_is_in_a_table_with_its_own_signature():
    section = TRANSFORMS.text.split("## All transforms")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`(?:, `.*?`)*) \|", section, re.MULTILINE)
    shown = {}
    for call in re.findall(r"`(\w+\(.*?\))`(?:,| \||$)", "\n".join(f"{row} |" for row in rows)):
        name, _, arguments = call[:-1].partition("(")
        shown[name] = re.findall(r"(?:^|, )([a-z]\w*)(?:=((?:\([^)]*\)|[^,])*))?", arguments)
    bases = {"Fit", "Placement", "Transform", "Views", "Warp"}
    elsewhere = {"Albumentations", "Lambda", "TorchVision"}
    # Without the names of torchvision.
    own = {name for name in highway.transforms.__all__ if getattr(highway.transforms, name).__name__ == name}
    assert shown.keys() == own - bases - elsewhere
    assert f"These are a few of {len(shown) + len(elsewhere)};" in Document("docs/modules.md").text
    for name, parameters in shown.items():
        signature = inspect.signature(getattr(highway.transforms, name)).parameters
        assert [parameter for parameter, _ in parameters] == list(signature), name
        for parameter, default in parameters:
            if default:
                assert eval(default) == signature[parameter].default, (name, parameter)


def test_table_of_passes_tells_what_goes_together():
    def passes(*transforms):
        return [len(group.steps) for group in TransformChain(transforms, "test").groups]

    flip, crop, normalize = FlipX(), RandomCrop(8), Normalize()
    assert passes(crop, flip, Slice(0, 0, 4, 4), Pad(2), normalize) == [5]
    assert passes(crop, flip, ToFloat()) == passes(crop, flip, Rescale(1)) == [3]
    for fit in (Resize(9), CenterFit(9), Stretch(9), RandomResizedCrop(9)):
        assert passes(flip, crop, fit, flip, crop, normalize) == [5, 1]
    assert passes(flip, crop, Letterbox(9), flip) == [3, 1]
    assert passes(flip, Rotate(9), crop, Zoom(), Pad(3), normalize) == [5, 1]
    assert passes(Rotate(9), Zoom(fill=1)) == passes(Rotate(9), Zoom(interpolation="nearest")) == [1, 1]
    assert passes(Rotate(9), Stretch(9)) == [1, 1]
    colors = (
        ColorJitter(0.4),
        Gamma(),
        Grayscale(),
        Invert(),
        Solarize(),
        Posterize(),
        AutoContrast(),
        Equalize(),
    )
    assert passes(*colors) == [8]
    assert passes(Gamma(), Sharpness(), Gamma()) == [1, 1, 1]


def test_numbers_are_those_of_the_code():
    text = " ".join(DISTRIBUTED.text.split())
    timing = link.TIMING
    for words in (
        f"said nothing for {timing.death:g} s, or",
        f"within {1000 * timing.ack_delay:g} ms of an acknowledgement",
        {5: "five deaths"}[timing.deaths],
        {2: "After two deaths"}[timing.suspect],
        f"speaks to {link.MAX_PEERS} peers at most",
    ):
        assert words in text
