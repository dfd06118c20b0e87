"""Participants of a benchmark in processes of their own, which answer each line of seconds with a measurement."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Participant", "answer", "has_packages"]


def answer(step: Callable[[], Any]) -> None:
    """Answer each line of standard input, in the process of a participant: seconds to measure, seconds per step."""
    for line in sys.stdin:
        enough = float(line)
        step()
        calls, began = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - began < enough:
            step()
            calls += 1
        print((time.perf_counter() - began) / calls, flush=True)


class Participant:
    """The process of a participant: ``script --serve name options``.

    Attributes
    ----------
    greeting : str
        What it wrote before it was ready.
    """

    def __init__(self, name: str, python: str, script: str, options: Sequence[str]) -> None:
        self.name = name
        self._script = Path(script).name
        self.process = subprocess.Popen(
            [python, str(Path(script).resolve()), "--serve", name, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.greeting = self._line()

    def seconds(self, enough: float) -> float:
        """Return the seconds per batch, measured over this many seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{enough}\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._script}: {self.name} ended; see its error above")
        return line


def has_packages(python: str, *packages: str) -> bool:
    """Return whether an interpreter has all of these packages."""
    code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {packages!r})))"
    try:
        return subprocess.run([python, "-c", code], timeout=60).returncode == 0
    except OSError as error:
        raise SystemExit(
            f"--python: {python} cannot be run ({error.strerror}); expected an interpreter"
        ) from None
