"""Programs of the tests of frameworks: Python in a process of its own, and those that documents show."""

import os
import re
import subprocess
import sys

from documents import Document

import highway

LIMIT = 240
PROGRAM = re.compile(r"# (\w+\.py)\n")


def run(*arguments, folder=None, **environment):
    """Run Python with these arguments, and return its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.path.dirname(os.path.dirname(highway.__file__)),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def programs(document):
    """The programs that a document shows, by their names."""
    blocks = Document(document).blocks("python")
    return {found[1]: text for text in blocks if (found := PROGRAM.match(text))}
