"""Processes in which calls about files fail while a switch is on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# What every script begins with: the switch, and the log of readers, which is the event that tests wait on.
PRELUDE = """
import errno, gc, json, logging, os, sys, threading, time, warnings
import numpy as np
from highway.storage import outages
from highway.engine import Pipeline
from highway.errors import *
from highway.modules import *

warnings.simplefilter("error")
SWITCH = os.environ["FAULTY_SWITCH"]

def on(number):
    with open(SWITCH + ".new", "w") as file:
        file.write(str(number))
    os.rename(SWITCH + ".new", SWITCH)

def off():
    if os.path.exists(SWITCH):
        os.remove(SWITCH)

def nothing():
    pass

class Log(logging.Handler):
    def __init__(self, name):
        super().__init__()
        self.lines, self.heard = [], threading.Event()
        self.at_first, self.at_last = off, nothing
        logging.getLogger(name).addHandler(self)
        logging.getLogger(name).propagate = False

    def emit(self, record):
        self.lines.append(record.getMessage())
        if "file(s) wait; retrying" in self.lines[-1]:
            self.at_first()
        if "is back after" in self.lines[-1]:
            self.at_last()
        self.heard.set()

log = Log("highway.modules")
answer = {}
"""


class Faults:
    """Runs scripts in a process of their own."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library, self.folder = library, folder
        self.data = folder / "faulty"
        self.data.mkdir()

    def run(self, call: str, script: str, *arguments: object) -> dict:
        """What the script puts into `answer`; `call` fails for paths below `data` once it says ``on(errno)``."""
        temporary = self.data / "tmp"
        temporary.mkdir(exist_ok=True)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"{PRELUDE}{textwrap.dedent(script)}\nprint(json.dumps(answer))",
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
            timeout=100,
            stdin=subprocess.DEVNULL,
            env={
                **os.environ,
                "LD_PRELOAD": str(self.library),
                "FAULTY_CALL": call,
                "FAULTY_PATH": f"{self.data}/",
                "FAULTY_SWITCH": str(self.folder / "switch"),
                "TMPDIR": str(temporary),
                # Sanitizers look at who is preloaded.
                "ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0",
            },
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def faulty_library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler, or no LD_PRELOAD")
    target = tmp_path_factory.mktemp("faulty") / "faulty.so"
    source = Path(__file__).with_name("faulty.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", target, source, "-ldl"], check=True)
    return target


@pytest.fixture
def faults(faulty_library, tmp_path):
    return Faults(faulty_library, tmp_path)
