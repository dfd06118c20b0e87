"""What is installed and what a build says: version, typing marker, light import, missing headers."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

import highway

NEEDS_HEADERS = "Highway needs the headers of libjpeg-turbo and pkg-config to build: apt-get install "


def read_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_version_is_the_one_in_setup_cfg():
    try:
        installed = importlib.metadata.version("highway-loader")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the distribution highway-loader is not installed here: this runs from a source tree")
    assert highway.__version__ == installed == read_setup_cfg()["metadata"]["version"]


def test_package_says_that_it_is_typed():
    package = Path(highway.__file__).parent
    assert (package / "py.typed").is_file()
    extensions = list((package / "_core").rglob("*.so"))
    assert extensions
    for extension in extensions:
        assert extension.with_name(extension.name.split(".")[0] + ".pyi").is_file(), extension.name


def test_import_is_light():
    """What only some users need is imported by what they use, not by `import highway`."""
    heavy = {"PIL", "jax", "keras", "msgpack", "plyvel", "rich", "tensorflow", "tqdm", "zmq"}
    code = f"import sys, highway, highway.engine\nprint(*sorted({heavy!r} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(Path(highway.__file__).parents[1])}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == []


IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys(sys.argv[1:])
import highway
for module in pkgutil.walk_packages(highway.__path__, "highway."):
    if module.name != "highway.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name != "pyarrow":
                raise
"""


def test_modules_need_no_package_that_is_not_installed_with_highway():
    """But those about tables, which are imported when a table is read."""
    optional = ["PIL", "fsspec", "jax", "keras", "obstore", "plyvel", "pyarrow", "rich", "skimage"]
    optional += ["tensorflow", "torch", "tqdm", "typing_extensions"]
    answer = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *optional],
        env=os.environ | {"PYTHONPATH": str(Path(highway.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert answer.returncode == 0, answer.stderr


def test_modules_and_transforms_are_reached_from_the_top():
    code = "import highway\nhighway.modules.Augmentations([highway.transforms.FlipX()])\nhighway.nothing"
    environment = os.environ | {"PYTHONPATH": str(Path(highway.__file__).parents[1])}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "AttributeError: module 'highway' has no attribute 'nothing'" in answer.stderr


def test_extras_do_not_mix_the_two_pillows():
    """Pillow and Pillow-SIMD overwrite each other's files, so no extra may bring one beside the other's."""
    config = read_setup_cfg()
    bringing = {
        extra: requirements.split()
        for extra, requirements in config["options.extras_require"].items()
        if "pillow" in requirements.lower()
    }
    assert bringing == {"simd": ["Pillow-SIMD"], "pillow": ["Pillow"]}
    # This one needs Pillow, as the README and `highway info` say where it stands beside Pillow-SIMD.
    assert config["options.extras_require"]["demo"].split() == ["scikit-image"]
    assert "pillow" not in config["options"]["install_requires"].lower()


def test_readme_lists_the_extras():
    """All but that for Highway's own tests, which `highway info` leaves out too."""
    table = (ROOT / "README.md").read_text().partition("| extra |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"\w+", cell)]
    extras = set(read_setup_cfg()["options.extras_require"]) - {"test"}
    assert sorted(listed) == sorted(extras)


def test_git_has_all_c_of_ours_and_none_that_was_generated():
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: these are the sources of an sdist")
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "*.c", "*.h", "*.html", "*.so"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        assert not name.endswith((".so", ".html")), name
        assert not is_generated(ROOT / name), name
    # A file that git does not know: the build works here, and in no clone.
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "highway/_core").rglob("*.c")
        if not is_generated(path)
    }
    assert ours <= {*listing.stdout.split("\0")}


def is_generated(path):
    return "Generated by Cython" in path.read_text(encoding="utf-8")[:200]


@pytest.fixture
def source_tree(tmp_path):
    """The files that setup.py works on, without anything built."""
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    compiled = shutil.ignore_patterns("*.so", "__pycache__", "*.pyc")
    shutil.copytree(ROOT / "highway", tmp_path / "highway", ignore=compiled)
    return tmp_path


def setup_py(tree, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", "-q", *arguments],
        cwd=tree,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("pkg_config", ["false", "/nowhere/pkg-config"])
def test_missing_libjpeg_ends_the_build_with_one_sentence(source_tree, pkg_config):
    answer = setup_py(source_tree, "build_ext", PKG_CONFIG=pkg_config)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith(NEEDS_HEADERS)
    assert "Traceback" not in answer.stderr


def test_missing_libraries_of_other_formats_are_named(source_tree):
    """Only libjpeg is there; the build ends at the first extension, whose source is missing."""
    pkg_config = source_tree / "pkg-config"
    pkg_config.write_text('#!/bin/sh\nfor last; do :; done\n[ "$last" = libjpeg ]\n')
    pkg_config.chmod(0o755)
    (source_tree / "highway" / "_core" / "simd.pyx").unlink()
    answer = setup_py(source_tree, "build_ext", PKG_CONFIG=str(pkg_config), CC="false")
    assert answer.returncode == 1
    assert answer.stdout.splitlines()[:2] == [
        "Highway is compiled without PNG, which PIL decodes then: no headers of libdeflate",
        "Highway is compiled without WebP, which PIL decodes then: no headers of libwebp, libwebpdemux",
    ]


BUILD_A_PROBE = """
import sys
from setuptools import Extension
from setuptools.command.build_ext import build_ext
from distutils.core import run_setup
distribution = run_setup("setup.py", ["-q", "build_ext"], stop_after="commandline")
distribution.ext_modules = [Extension("probe", ["probe.c"], define_macros=[(sys.argv[1], "1")])]
command = distribution.get_command_obj("build_ext")
command.build_extensions = lambda: build_ext.build_extensions(command)
command.ensure_finalized()
command.run()
"""


def test_a_library_that_was_installed_meanwhile_is_compiled_in(source_tree):
    """The same sources with other flags are compiled again; with the same flags they are not."""
    log = source_tree / "log"
    (source_tree / "probe.c").write_text("")
    compiler = source_tree / "compiler"
    compiler.write_text(
        f'#!/bin/sh\necho "$@" >>"{log}"\nwhile [ "$1" != -o ]; do shift; done\necho made >"$2"\n'
    )
    compiler.chmod(0o755)
    calls = []
    for macro in ("ONE", "ONE", "TWO"):
        log.write_text("")
        subprocess.run(
            [sys.executable, "-c", BUILD_A_PROBE, macro],
            cwd=source_tree,
            env=os.environ | {"CC": str(compiler), "LDSHARED": str(compiler)},
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=100,
        )
        calls.append([line for line in log.read_text().splitlines() if "-c probe.c" in line])
    assert [len(found) for found in calls] == [1, 0, 1]
    assert "-DTWO=1" in calls[2][0]


def test_missing_source_of_an_extension_ends_the_build(source_tree):
    (source_tree / "highway" / "_core" / "pixels" / "geometry.pyx").unlink()
    answer = setup_py(source_tree, "build_ext", CC="false")
    assert answer.returncode == 1
    assert "highway/_core/pixels/geometry.pyx" in answer.stderr


def test_source_tree_that_was_not_built_says_so_in_one_sentence(source_tree):
    answer = subprocess.run(
        [sys.executable, "-c", "import highway"],
        cwd=source_tree,
        env=os.environ | {"PYTHONPATH": str(source_tree)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("ImportError: Highway is not compiled in ")
    assert f"pip install -e {source_tree}" in last


def test_metadata_needs_no_headers(source_tree):
    answer = setup_py(source_tree, "egg_info", PKG_CONFIG="false")
    assert answer.returncode == 0, answer.stderr
    assert (source_tree / "highway_loader.egg-info" / "PKG-INFO").is_file()


@pytest.mark.parametrize("name", ["DEBUG", "COVERAGE", "SANITIZE", "WERROR"])
def test_switch_of_the_build_that_means_nothing_ends_it(source_tree, name):
    answer = setup_py(source_tree, "build_ext", CC="false", **{f"HIGHWAY_{name}": "yes"})
    assert answer.returncode == 1
    text = f"The environment variable HIGHWAY_{name} is 'yes'; expected 1 (on) or 0 (off)."
    assert answer.stderr.splitlines()[-1] == text


def test_modules_import_without_packages_that_only_type_checkers_need():
    """The base installation has no typing_extensions."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("modules", "storage", "store", "sampling", "engine", "transforms")
        for path in sorted((ROOT / "highway" / folder).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert "highway.storage.remote_tar_index" in names
    code = (
        "import importlib, sys\n"
        "sys.modules['typing_extensions'] = None\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        if 'typing_extensions' in str(error):\n"
        "            print(name)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *names],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    assert (found.returncode, found.stdout) == (0, ""), found.stderr
