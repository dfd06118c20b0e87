"""Highway as it is installed: its version, and one error at import if it is not compiled or a setting is invalid."""

import importlib.util
import os
import sys
from pathlib import Path

from highway.errors import SettingError

__all__ = ["DISTRIBUTION", "version"]

DISTRIBUTION = "highway-loader"


def version() -> str:
    """Return the version of Highway, or "0+uninstalled" if it runs from a source tree."""
    # Late: it takes longer to import than the rest of this package.
    from importlib import metadata

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+uninstalled"


def _obstacle() -> ImportError | None:
    """Return the error because of which Highway cannot work, or None."""
    if importlib.util.find_spec("highway._core.queue") is None:
        folder = str(Path(__file__).resolve().parents[2])
        return ImportError(
            f"Highway is not compiled in {folder}, from which Python imports it. Compile it: pip install -e {folder}; "
            "or install it with pip and start Python in another folder."
        )
    try:
        from highway._core import simd  # noqa: F401
    except SettingError as error:
        return error.with_traceback(None)
    return None


def _is_command() -> bool:
    """Whether this process is the command ``highway`` or ``python -m highway``."""
    program, words = "".join(sys.argv[:1]), sys.orig_argv
    if program == "-m":
        return "highway" in words[words.index("-m") + 1 :][:1]
    return os.path.basename(program) == "highway"


_found = _obstacle()
if _found is not None:
    if _is_command():
        # The command prints one line, as for every other error; the code of the command is not imported yet.
        raise SystemExit(f"highway: {_found}")
    raise _found
