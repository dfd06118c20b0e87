"""Describe this installation: versions, libraries of the decoders, SIMD, PIL, optional packages."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata

import numpy as np

from highway._core import simd
from highway._core.installation import DISTRIBUTION, version
from highway._core.jpeg import codec as jpeg
from highway.engine import usable_cores

__all__ = ["describe", "extras", "install_command", "installed", "pil", "pil_formats"]

# A requirement of an extra in the format of wheels: `Pillow-SIMD; extra == "simd"`.
_EXTRA = re.compile(r"(?P<package>[\w.-]+).*;.*\bextra\s*==\s*['\"](?P<extra>[\w.-]+)['\"]")
# Distributions that overwrite each other's files.
_RIVALS = {"Pillow": "Pillow-SIMD", "Pillow-SIMD": "Pillow"}
# Packages that depend on Pillow, and which Highway uses without their dependencies.
_BRINGING_PILLOW = frozenset({"scikit-image"})
# Libraries of the formats that the core may decode, and the packages of Debian and Ubuntu with their headers.
_LIBRARIES = {
    "JPEG": ("libjpeg-turbo", "libjpeg-dev"),
    "PNG": ("libdeflate", "libdeflate-dev"),
    "WebP": ("libwebp", "libwebp-dev"),
}
# Formats that PIL may have been built without, by the names of PIL.features.
_OPTIONAL_FORMATS = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "compressed TIFF"}


def extras() -> dict[str, dict[str, str | None]]:
    """Return the packages of every extra, with the installed version (None where it is not installed).

    Empty where Highway runs from a source tree, which has no metadata. Excludes the extra for Highway's own tests.
    """
    found: dict[str, dict[str, str | None]] = {}
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return found
    for requirement in requirements:
        match = _EXTRA.match(requirement)
        if match and match["extra"] != "test":
            package = match["package"]
            found.setdefault(match["extra"], {})[package] = installed(package)
    return found


def pil() -> str:
    """Return the active PIL: "Pillow-SIMD 12.1.1.post0", "Pillow 12.0.0", or "none" with the consequences."""
    try:
        import PIL
    except ImportError:
        return "none: other formats than those of Highway are not read, and no contact sheet can be written"
    versions = {name: installed(name) for name in ("Pillow-SIMD", "Pillow")}
    # Both install the same file names: the version of the files decides which one is active.
    active = [name for name, its_version in versions.items() if its_version == PIL.__version__]
    name = f"{active[0] if active else 'PIL'} {PIL.__version__}"
    if all(versions.values()):
        return (
            f"{name}, but both Pillow-SIMD and Pillow are installed and overwrite each other's files: "
            "uninstall both, then install one"
        )
    return name


def decoders() -> list[tuple[str, str]]:
    """Return what decodes each format that the core may decode, with the version of its library."""
    versions = jpeg.library_versions()
    facts = []
    for name, (library, package) in _LIBRARIES.items():
        made = f"Highway with {library} {versions[name]}"
        missing = f"PIL: Highway was compiled without {library}; install {package} and compile it again"
        facts.append((name, made if versions[name] else missing))
    return facts


def pil_formats() -> list[str]:
    """Return the optional formats that the active PIL was built with."""
    try:
        from PIL import features
    except ImportError:
        return []
    return [name for feature, name in _OPTIONAL_FORMATS.items() if features.check(feature)]


def describe() -> list[tuple[str, str]]:
    """Return every fact as (name, value), in display order."""
    package = os.path.dirname(os.path.abspath(__file__))
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    facts = [
        ("highway", f"{version()} in {package}"),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()}) at {sys.executable}"),
        ("system", platform.platform()),
        ("cores", f"{cores} usable of {all_cores}"),
        ("numpy", np.__version__),
        *decoders(),
        ("kernels", f"{simd.in_use()} instructions"),
        ("PIL", pil()),
    ]
    formats = pil_formats()
    if formats:
        facts.append(("PIL's formats", ", ".join(formats)))
    known = extras()
    if not known:
        facts.append(("extras", "unknown: Highway runs from a source tree, without metadata"))
    for extra, packages in known.items():
        facts.append((f"extra [{extra}]", "; ".join(_state(packages))))
    return facts


def _state(packages: dict[str, str | None]) -> list[str]:
    """Return the installed packages of an extra, and how to install the others."""
    said = []
    present = [f"{package} {its_version}" for package, its_version in packages.items() if its_version]
    if present:
        said.append(", ".join(present))
    missing = [package for package, its_version in packages.items() if its_version is None]
    for package in missing[:]:
        rival = _RIVALS.get(package)
        if rival and installed(rival):
            said.append(f"{package} not needed: {rival} is installed, and they overwrite each other's files")
            missing.remove(package)
    if missing:
        said.append(f"missing: {install_command(*missing)}")
    return said


def install_command(*packages: str) -> str:
    """Return the command that installs packages here; it avoids pulling in Pillow where Pillow-SIMD is installed."""
    alone = [name for name in packages if name in _BRINGING_PILLOW and installed("Pillow-SIMD")]
    others = [name for name in packages if name not in alone]
    commands = (("pip install", others), ("pip install --no-deps", alone))
    return " && ".join(" ".join((command, *names)) for command, names in commands if names)


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
