"""Ends the import with one sentence where Highway's compiled part is missing: in a source tree that was not built."""

import importlib.util
import os

if importlib.util.find_spec("highway._core.queue") is None:
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    raise ImportError(
        f"Highway is not compiled in {folder}, and Python takes it from there. Compile it: pip install -e {folder}; "
        "or install it with pip and start Python in another folder."
    )
