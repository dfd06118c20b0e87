"""Runs a participant in a separate interpreter."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from participants.registry import HIGHWAY, PARTICIPANTS, Participant

RUN = Path(__file__).resolve().parent / "participants" / "run.py"
STEADY = RUN.with_name("steady.py")
LIMIT_SECONDS = 120.0

FIND = """
import importlib.util, json, sys
def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(json.dumps([found(name) for name in sys.argv[1:]]))
"""


def importable(python: str, names: list[str]) -> set[str]:
    """Return which of the named modules an interpreter finds when it runs a script of the participants."""
    try:
        done = subprocess.run(
            [python, "-c", FIND, *names], capture_output=True, text=True, timeout=60, cwd=RUN.parent
        )
    except OSError as error:
        raise SystemExit(
            f"--python: {python} cannot be run ({error.strerror}); expected a Python interpreter"
        ) from None
    if done.returncode:
        raise SystemExit(f"--python: {python} failed: {done.stderr.strip()[-300:]}")
    return {name for name, found in zip(names, json.loads(done.stdout), strict=True) if found}


def choose_interpreters(
    given: list[str], folder: Path | None = None, participants: Iterable[Participant] = ()
) -> dict[str, str]:
    """Return the interpreter of each participant that has one.

    Parameters
    ----------
    given : list of str
        "NAME=PATH" settles it for one participant; a plain "PATH" is tried for the others.
    folder : Path, optional
        Folder of environments: "folder/NAME" is tried before the plain paths for that participant, the other
        environments there after them. This interpreter is tried last, but first for Highway.
    participants : iterable of Participant
        By default those of peers.py.

    Raises
    ------
    SystemExit
        Unknown NAME, a PATH that is no interpreter, or a folder without environments.
    """
    known = {participant.name: participant for participant in participants} or PARTICIPANTS
    settled: dict[str, str] = {}
    tried: list[str] = []
    for item in given:
        name, separator, path = item.partition("=")
        if not separator:
            tried.append(item)
        elif name in known:
            settled[name] = path
        else:
            raise SystemExit(f"--python: {name!r} is no participant; expected one of {', '.join(known)}")
    there = environments(folder) if folder else {}
    tried += there.values()
    names = sorted({name for participant in known.values() for name in participant.needs})
    found = {python: importable(python, names) for python in [*tried, sys.executable]}
    for participant in known.values():
        own = [there[participant.folder]] if participant.folder in there else []
        for python in (
            [sys.executable, *tried] if participant.needs == HIGHWAY.needs else [*own, *tried, sys.executable]
        ):
            if participant.name not in settled and found[python].issuperset(participant.needs):
                settled[participant.name] = python
    return settled


def environments(folder: Path) -> dict[str, str]:
    """Return the interpreter of each environment of a folder, by the name of its sub-folder."""
    pythons = sorted(folder.glob("*/bin/python"))
    if not pythons:
        raise SystemExit(
            f"--peers: {folder} has no environments (NAME/bin/python); install_peers.py makes them"
        )
    return {python.parents[1].name: os.path.abspath(python) for python in pythons}


def measure(
    participant: Participant,
    python: str,
    directory: str,
    job: str,
    *,
    variant: str = "",
    threads: int,
    warmup: float = 1.0,
    seconds: float = 3.0,
    seed: int = 0,
    grids: Path | None = None,
    colors: Path | None = None,
    whole_epoch: bool = False,
    environment: Mapping[str, str] | None = None,
) -> dict:
    """Return the result of one run of `participants/run.py`; a crash or a hang is a failure with its reason.

    `environment` has variables besides those of this process; the other parameters are options of that script.
    """
    command = [
        python,
        str(RUN),
        participant.module,
        "--job",
        job,
        "--dir",
        directory,
        "--threads",
        str(threads),
    ]
    command += [
        f"--variant={variant}",
        "--warmup",
        str(warmup),
        "--seconds",
        str(seconds),
        "--seed",
        str(seed),
    ]
    if grids is not None:
        command += ["--grids", str(grids)]
    if colors is not None:
        command += ["--colors", str(colors)]
    if whole_epoch:
        command.append("--whole-epoch")
    for name in participant.distributions:
        command += ["--distribution", name]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    timeout = LIMIT_SECONDS + warmup + seconds
    try:
        output, complaints = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        # Its worker processes are in its session.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"status": "failed", "reason": f"did not end within {timeout:.0f} s"}
    lines = complaints.strip().splitlines()
    last = lines[-1] if lines else "it printed no reason"
    if not output:
        return {
            "status": "failed",
            "reason": f"ended with exit code {process.returncode} and no result: {last}",
        }
    result = json.loads(output)
    if process.returncode and result["status"] == "ok":
        return {
            "status": "failed",
            "reason": f"measured, then ended with exit code {process.returncode}: {last}",
        }
    return result


class SteadyError(RuntimeError):
    """Highway did not run; the message has its last output."""


class Steady:
    """Highway running in a separate process for inspection: `participants/steady.py`.

    As a context it has warmed up when that is entered, and has ended when it is left.

    Parameters
    ----------
    python : str
        Interpreter that has Highway.
    directory, job, threads : str, str, int
        What it does.
    warmup : float
        Seconds before it counts.
    probe : Path, optional
        gil_probe.c, compiled.

    Attributes
    ----------
    pid : int
        Of the process.
    """

    def __init__(
        self, python: str, directory: str, job: str, threads: int, warmup: float, probe: Path | None = None
    ):
        self.python = python
        command = [python, str(STEADY), HIGHWAY.module, "--job", job, "--dir", os.path.abspath(directory)]
        command += ["--threads", str(threads), "--warmup", str(warmup)]
        if probe is not None:
            command += ["--probe", str(probe)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def __enter__(self) -> "Steady":
        if self._process.stdout.readline().strip() != "ready":
            self._fail()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _fail(self) -> None:
        self._process.kill()
        words = self._process.communicate()[1].strip().splitlines()
        raise SteadyError(f"{self.python} failed: {words[-1] if words else 'it printed no reason'}")

    def end(self) -> dict:
        """End the process; return its figures."""
        try:
            output, _ = self._process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise SteadyError(f"{self.python} did not end within {LIMIT_SECONDS:.0f} s") from None
        if self._process.returncode:
            raise SteadyError(f"{self.python} failed with exit code {self._process.returncode}")
        return json.loads(output.splitlines()[-1])

    def run(self, seconds: float) -> dict:
        """Run for this many seconds, then end the process; return its figures."""
        time.sleep(seconds)
        return self.end()
