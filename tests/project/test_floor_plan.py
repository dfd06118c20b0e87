"""Who may import whom inside the package: only what lies on a lower floor."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest
from repository import ROOT

PACKAGE = ROOT / "highway"

# What each part of the package may import of the others; a part is a file or a folder of highway/, and a file belongs
# to the innermost folder that has a row.
BASE = {"errors", "_core", "arguments"}
MAY_IMPORT = {
    "errors": set(),
    "_core": {"errors"},
    "arguments": {"errors"},
    "viz": BASE,
    "batch": BASE | {"viz"},
    "sampling": BASE,
    "storage": BASE,
    "engine": BASE | {"batch"},
    "transforms": BASE | {"batch", "sampling"},
    "store": BASE | {"batch", "storage"},
    "network/protocol": BASE,
    "network/zmq": BASE | {"network/protocol", "storage"},
    "network": BASE | {"batch", "engine", "network/protocol", "network/zmq", "sampling"},
    "modules/readers": BASE | {"batch", "sampling", "engine", "transforms", "storage", "store"},
    "modules/stages": BASE | {"batch", "engine", "sampling", "transforms"},
    "modules/sinks": BASE | {"batch", "engine", "sampling", "storage", "store"},
    "modules": BASE | {"modules/readers", "modules/stages", "modules/sinks", "network"},
    "torch": BASE | {"batch", "engine", "transforms", "modules/stages"},
    "ray": BASE | {"engine", "network", "network/zmq"},
    "replay": BASE | {"batch", "engine", "modules/readers", "sampling"},
    "metrics": BASE | {"engine", "modules", "network"},
    "cli": {
        *BASE,
        *(
            "batch",
            "engine",
            "transforms",
            "modules",
            "modules/readers",
            "metrics",
            "network",
            "network/zmq",
            "replay",
            "storage",
            "store",
            "viz",
        ),
    },
    "jax": BASE | {"batch", "engine", "modules", "sampling"},
    "keras": BASE | {"batch", "engine"},
    "tensorflow": BASE | {"batch", "engine"},
    "__main__": {"cli"},
}

CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<module>[\w.]+)[ \t]+(?P<kind>c?import)[ \t]+(?P<names>\([^)]*\)|[^\n]*)"
    r"|(?P<plain_kind>c?import)[ \t]+(?P<plain>[^\n]*))",
    re.MULTILINE,
)


def python_imports(text):
    """Yield (module as written, level if relative, names, "import") of every import, at any depth."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0, [], "import"
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, [alias.name for alias in node.names], "import"


def cython_imports(text):
    """Yield the same for Cython, where the kind is "import" or "cimport"."""
    text = re.sub(r'("""|\'\'\').*?\1', "", text, flags=re.DOTALL)
    text = re.sub(r"#[^\n]*", "", text).replace("\\\n", " ")
    for found in CYTHON_IMPORT.finditer(text):
        if found["module"]:
            module = found["module"].lstrip(".")
            names = [name.split()[0] for name in found["names"].strip("() \t").split(",") if name.strip()]
            yield module, len(found["module"]) - len(module), names, found["kind"]
        else:
            for name in found["plain"].split(","):
                yield name.split()[0], 0, [], found["plain_kind"]


def targets(path, package):
    """Yield (dotted name below highway, kind) of all of highway that a file imports; "" is highway itself."""
    parents = ["highway", *path.relative_to(package).parent.parts]
    text = path.read_text(encoding="utf-8")
    imports = python_imports(text) if path.suffix in (".py", ".pyi") else cython_imports(text)
    for module, level, names, kind in imports:
        parts = module.split(".") if module else []
        if level:
            parts = parents[: len(parents) - level + 1] + parts
        if parts[:1] != ["highway"]:
            continue
        place = package.joinpath(*parts[1:])
        # `from highway import engine` means the module, `from highway import Pipeline` what __init__ offers.
        modules = [name for name in names if (place / name).is_dir() or list(place.glob(f"{name}.*"))]
        for name in modules:
            yield ".".join([*parts[1:], name]), kind
        if len(modules) < len(names) or not names:
            yield ".".join(parts[1:]), kind


def part_of(names):
    """The innermost part of the table that a path belongs to, given as a list of names; None where there is none."""
    for length in range(len(names), 0, -1):
        part = "/".join(names[:length])
        if part in MAY_IMPORT:
            return part
    return None


def only_re_exports(text):
    """Whether an `__init__` holds a docstring, imports, dunder names and lazy imports, and nothing else."""
    for node in ast.parse(text).body:
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom():
                continue
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                allowed = name.startswith("__")
            case ast.FunctionDef(name="__getattr__" | "__dir__"):
                allowed = True
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                allowed = all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in node.body)
            case ast.If(test=ast.UnaryOp(op=ast.Not(), operand=ast.Name(id="TYPE_CHECKING"))):
                # A type checker that sees a `__getattr__` accepts every name.
                allowed = all(
                    isinstance(inner, ast.FunctionDef) and inner.name == "__getattr__" for inner in node.body
                )
            case _:
                allowed = False
        if not allowed:
            return False
    return True


def violations(package):
    """Return every breach of the floor plan as a sentence, and the files that were looked at."""
    breaches = []
    files = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".pyi", ".pyx", ".pxd"))
    for path in files:
        name = path.relative_to(package).as_posix()
        if path.name == "__init__.py" and not only_re_exports(path.read_text(encoding="utf-8")):
            breaches.append(f"{name} does more than re-export")
        if name == "__init__.py":
            continue
        part = part_of(name.split(".")[0].split("/"))
        if part is None:
            breaches.append(f"{name} has no floor")
            continue
        for target, kind in targets(path, package):
            imported = part_of(target.split("."))
            if not target:
                breaches.append(f"{name} imports highway itself")
            elif imported == part == "_core":
                # Kernels share declarations, not Python modules; stubs name each other's classes.
                if kind != "cimport" and path.suffix in (".pyx", ".pxd"):
                    breaches.append(f"{name} imports {target}, where _core shares only .pxd")
            elif imported != part and imported not in MAY_IMPORT[part]:
                breaches.append(f"{name} imports {target}")
            elif path.suffix == ".pxd" and kind != "cimport":
                breaches.append(f"{name} imports {target}, where a .pxd only declares")
    return breaches, files


def test_package_keeps_the_floor_plan():
    breaches, files = violations(PACKAGE)
    assert breaches == []
    looked_at = {path.relative_to(PACKAGE).as_posix() for path in files}
    assert {"errors.py", "batch.py", "_core/pool.pyx"} <= looked_at


def test_parts_have_an_order():
    """No circle: each part imports only parts that come before it in some order."""
    graphlib.TopologicalSorter(MAY_IMPORT).prepare()


def tree(folder, files):
    package = folder / "highway"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


SOUND = {
    "__init__.py": '"""Highway."""\nfrom highway.engine import Pipeline\n__all__ = ["Pipeline"]\n',
    "errors.py": "class HighwayError(Exception): ...\n",
    "_core/queue.pxd": "cdef class BatchQueue:\n    pass\n",
    "_core/queue.pyx": '"""\nimport highway.engine\n"""\nfrom highway.errors import HighwayError\n',
    "_core/pool.pyx": "from highway._core.queue cimport BatchQueue  # import highway.engine\n",
    "batch.py": "import numpy as np\nfrom ._core import pool\n",
    "engine/pipeline.py": "from highway import errors\nfrom highway.batch import Batch\n",
    "transforms/__init__.py": "from highway.transforms.flip import FlipX\n",
    "transforms/flip.py": "from highway.batch import Batch\nfrom .. import errors\n",
    "network/sink.py": "from highway.network.protocol.link import Link\n",
    "network/protocol/link.py": "from highway.errors import HighwayError\n",
    "modules/__init__.py": (
        "from highway.network import ZMQSink\nif not TYPE_CHECKING:\n    def __getattr__(name): ...\n"
    ),
    "cli/commands.py": "from highway.modules import ZMQSource\nfrom highway.network.zmq import security\n",
    "__main__.py": "from highway.cli import main\n",
}


def test_sound_tree_has_no_breach(tmp_path):
    breaches, files = violations(tree(tmp_path, SOUND))
    assert breaches == []
    assert len(files) == len(SOUND)


@pytest.mark.parametrize(
    ("file", "text", "breach"),
    [
        ("engine/stats.py", "from highway.modules import Noise\n", "engine/stats.py imports modules"),
        (
            "engine/stats.py",
            "def f():\n    import highway.modules.readers.voc\n",
            "engine/stats.py imports modules.readers.voc",
        ),
        ("engine/stats.py", "from .. import transforms\n", "engine/stats.py imports transforms"),
        ("engine/stats.py", "from highway import Pipeline\n", "engine/stats.py imports highway itself"),
        ("batch.py", "import os, highway.engine\n", "batch.py imports engine"),
        ("errors.py", "from .batch import Batch\n", "errors.py imports batch"),
        ("transforms/flip.py", "from ..store.marks import Marks\n", "transforms/flip.py imports store.marks"),
        (
            "modules/readers/voc.py",
            "from highway.network.protocol import link\n",
            "modules/readers/voc.py imports network.protocol.link",
        ),
        (
            "network/protocol/link.py",
            "import highway.network.zmq.sockets\n",
            "network/protocol/link.py imports network.zmq.sockets",
        ),
        (
            "network/protocol/link.py",
            "import highway.engine as engine\n",
            "network/protocol/link.py imports engine",
        ),
        (
            "cli/commands.py",
            "from highway.network.protocol import wire\n",
            "cli/commands.py imports network.protocol",
        ),
        ("helpers.py", "import os\n", "helpers.py has no floor"),
        ("_core/pool.pyx", "from highway.batch import Batch\n", "_core/pool.pyx imports batch"),
        ("_core/pool.pyx", "cimport cython, highway.batch\n", "_core/pool.pyx imports batch"),
        ("_core/pool.pyx", "def f():\n    from ..engine import Module\n", "_core/pool.pyx imports engine"),
        (
            "_core/pool.pyx",
            "from highway._core.queue import (\n    BatchQueue,\n)\n",
            "_core/pool.pyx imports _core.queue, where _core shares only .pxd",
        ),
        (
            "_core/pool.pxd",
            "from highway.errors import HighwayError\n",
            "_core/pool.pxd imports errors, where a .pxd only declares",
        ),
        ("__init__.py", "import os\nos.nice(1)\n", "__init__.py does more than re-export"),
        ("modules/__init__.py", "def helper(): ...\n", "modules/__init__.py does more than re-export"),
        (
            "modules/__init__.py",
            "if not TYPE_CHECKING:\n    def helper(): ...\n",
            "modules/__init__.py does more than re-export",
        ),
        ("modules/__init__.py", "from ..store import marks\n", "modules/__init__.py imports store"),
    ],
)
def test_breach_is_found(tmp_path, file, text, breach):
    breaches, _ = violations(tree(tmp_path, SOUND | {file: text}))
    assert breaches == [breach]


def test_what_few_need_is_imported_late():
    """Each of these takes memory, or time, of everybody who imports it."""
    found = subprocess.run(
        [sys.executable, "-c", "import sys, highway.modules, highway.transforms; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    ).stdout.split()
    assert "highway.modules.readers.image_reader" in found
    # OpenSSL, ZMQ, the other formats, the commands.
    assert not {"_hashlib", "_ssl", "zmq", "msgpack", "PIL", "argparse", "tqdm", "rich"} & {*found}
