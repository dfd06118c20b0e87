"""Ends the import with one sentence if Highway cannot work: it is not compiled, or a setting is invalid."""

import importlib.util
import os
import sys
from pathlib import Path

from highway.errors import SettingError


def _obstacle() -> ImportError | None:
    """Return the error that keeps Highway from working, or None."""
    if importlib.util.find_spec("highway._core.queue") is None:
        folder = str(Path(__file__).resolve().parents[2])
        return ImportError(
            f"Highway is not compiled in {folder}, and Python takes it from there. Compile it: "
            f"pip install -e {folder}; or install it with pip and start Python in another folder."
        )
    try:
        from highway._core import simd  # noqa: F401
    except SettingError as error:
        return error.with_traceback(None)
    return None


def _is_command() -> bool:
    """Whether this program is the command ``highway``, or ``python -m highway``."""
    program, words = "".join(sys.argv[:1]), sys.orig_argv
    if program == "-m":
        return "highway" in words[words.index("-m") + 1 :][:1]
    return os.path.basename(program) == "highway"


_found = _obstacle()
if _found is not None:
    if _is_command():
        # The command prints one line, as for every other error; its own code has not started yet.
        raise SystemExit(f"highway: {_found}")
    raise _found
