"""Who may import whom inside the package: only what lies on a lower floor."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "highway"

# What each part of the package may import of the others; a part is a file or folder of highway/.
MIDDLE = {
    *(
        "arguments",
        "batch",
        "cores",
        "limits",
        "order",
        "outages",
        "printing",
        "randomness",
        "signatures",
        "stats",
        "tuning",
    ),
}
MAY_IMPORT = {
    "errors": set(),
    "_core": {"errors"},
    "msgpack_numpy": {"errors", "_core"},
    "transport": {"errors", "_core", "arguments", "locks", "msgpack_numpy"},
    "store": {"errors", "_core", "locks", "msgpack_numpy"} | MIDDLE,
    "locks": set(),
    "arguments": {"errors"},
    "built": {"errors", "_core"},
    "limits": set(),
    "batch": {"errors", "_core"} | MIDDLE,
    "order": {"errors", "_core"} | MIDDLE,
    "outages": {"errors", "_core"},
    "printing": set(),
    "cores": set(),
    "randomness": {"errors", "_core"} | MIDDLE,
    "signatures": {"errors"},
    "stats": {"errors", "_core"} | MIDDLE,
    "tuning": set(),
    "module": {"errors", "_core"} | MIDDLE,
    "stations": {"errors", "_core", "module"} | MIDDLE,
    "engine": {"errors", "_core", "module", "stations"} | MIDDLE,
    "transforms": {"errors", "_core", "engine"} | MIDDLE,
    "modules": {"errors", "_core", "engine", "transforms"} | MIDDLE,
    "environment": {"errors", "_core", "engine"} | MIDDLE,
    "drawing": set(),
    "sheet": {"errors", "drawing"} | MIDDLE,
    "terminal": {"errors", "engine"} | MIDDLE,
    "demo": {"errors", "engine", "modules", "transforms", "environment", "sheet", "terminal"} | MIDDLE,
    "serve": {"errors", "engine", "modules", "transforms", "terminal"} | MIDDLE,
    "classes": {"errors", "engine", "modules"} | MIDDLE,
    "datasets": {"modules", "printing"},
    "exporting": {"errors", "modules", "store", "terminal"} | MIDDLE,
    "packing": {"errors", "engine", "modules", "terminal"} | MIDDLE,
    "options": {"environment", "limits", "signatures"},
    "cli": {
        *("errors", "engine", "modules", "transforms"),
        *("classes", "datasets", "demo", "environment", "exporting", "options", "packing", "serve", "sheet"),
        "terminal",
    }
    | MIDDLE,
    "__main__": {"cli"},
}
# Exceptions to the table: this file, or folder, alone may import that part as well.
# `Batch.sheet` imports what draws when it is called: a batch is what a user has in hand who wants to see it.
ALONE = {
    ("modules/network", "transport"),
    ("modules/leveldb.py", "store"),
    ("modules/leveldb_images.py", "store"),
    ("cli.py", "transport"),
    ("cli.py", "store"),
    ("batch.py", "sheet"),
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
        if len(parts) > 1 or not names:
            yield ".".join(parts[1:]), kind
            continue
        # `from highway import engine` means the module, `from highway import Pipeline` what __init__ offers.
        for name in names:
            yield name if (package / name).is_dir() or list(package.glob(f"{name}.*")) else "", kind


def alone(name, imported):
    """Whether the table has an exception for a file, or for the folder that it is in."""
    return any(imported == part and (name + "/").startswith(place + "/") for place, part in ALONE)


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
        part = name.split("/")[0].split(".")[0]
        if part not in MAY_IMPORT:
            breaches.append(f"{name} has no floor")
            continue
        for target, kind in targets(path, package):
            imported = target.split(".")[0]
            if not target:
                breaches.append(f"{name} imports highway itself")
            elif imported == part == "_core":
                # Kernels share declarations, not Python modules; stubs name each other's classes.
                if kind != "cimport" and path.suffix != ".pyi":
                    breaches.append(f"{name} imports {target}, where _core shares only .pxd")
            elif imported != part and imported not in MAY_IMPORT[part] and not alone(name, imported):
                breaches.append(f"{name} imports {target}")
            elif path.suffix == ".pxd" and kind != "cimport":
                breaches.append(f"{name} imports {target}, where a .pxd only declares")
    return breaches, files


def test_package_keeps_the_floor_plan():
    breaches, files = violations(PACKAGE)
    assert breaches == []
    looked_at = {path.relative_to(PACKAGE).as_posix() for path in files}
    assert {"errors.py", "batch.py", "_core/pool.pyx"} <= looked_at


def test_table_has_no_way_around():
    """No two parts may import each other, except inside the middle floor."""
    for part, allowed in MAY_IMPORT.items():
        for other in allowed - MIDDLE:
            assert part not in MAY_IMPORT[other], f"{part} and {other}"


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
    "engine.py": "from highway import errors\nfrom highway.batch import Batch\n",
    "transforms/__init__.py": "from highway.transforms.flip import FlipX\n",
    "transforms/flip.py": "from highway.batch import Batch\nfrom .. import engine\n",
    "modules/network/sink.py": "from highway.network.protocol.link import Link\n",
    "transport/link.py": "from highway.errors import HighwayError\n",
    "cli.py": "from highway.network import ZMQSource\nfrom highway.network import security\n",
    "__main__.py": "from highway.cli import main\n",
}


def test_sound_tree_has_no_breach(tmp_path):
    breaches, files = violations(tree(tmp_path, SOUND))
    assert breaches == []
    assert len(files) == len(SOUND)


@pytest.mark.parametrize(
    ("file", "text", "breach"),
    [
        ("engine.py", "from highway.modules import Noise\n", "engine.py imports modules"),
        (
            "engine.py",
            "def f():\n    import highway.modules.readers.synthetic\n",
            "engine.py imports modules.noise",
        ),
        ("engine.py", "from . import transforms\n", "engine.py imports transforms"),
        ("engine.py", "from highway import Pipeline\n", "engine.py imports highway itself"),
        ("batch.py", "import os, highway.engine\n", "batch.py imports engine"),
        ("errors.py", "from .batch import Batch\n", "errors.py imports batch"),
        (
            "transforms/flip.py",
            "from ..modules.noise import Noise\n",
            "transforms/flip.py imports modules.noise",
        ),
        ("modules/images.py", "from highway.network import wire\n", "modules/images.py imports transport"),
        (
            "modules/networks.py",
            "import highway.network.protocol.link\n",
            "modules/networks.py imports transport.link",
        ),
        ("transport/link.py", "import highway.engine as engine\n", "transport/link.py imports engine"),
        ("cli.py", "from highway._core.queue import BatchQueue\n", "cli.py imports _core.queue"),
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
        ("modules/__init__.py", "from ..transport import link\n", "modules/__init__.py imports transport"),
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
