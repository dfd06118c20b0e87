"""Builds and runs the plain C of the benchmarks: the bare libjpeg-turbo loop (bare_decode.c) and others."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

# mode of the bare loop by job
MODES = {"fit": "full", "rrc": "window"}
SOURCE = Path(__file__).resolve().with_name("bare_decode.c")


class LimitError(RuntimeError):
    """C code could not be built or failed; the message says why."""


def run(command: list[str], given: bytes = b"", timeout: float = 120) -> bytes:
    """Return the output of a command; raise LimitError with its last output."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise LimitError(f"{name} did not end within {timeout:.0f} s") from None
    if done.returncode:
        raise LimitError(f"{name}: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout


def compile_c(source: Path, target: Path, *flags: str) -> None:
    """Compile one file; raise LimitError without a compiler, or with the compiler's message."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise LimitError(
            f"{compiler[0]} was not found; install a C compiler: apt-get install build-essential"
        )
    run([*compiler, "-O2", "-o", str(target), str(source), *flags])


class Limit:
    """Builds and runs the bare loop.

    Parameters
    ----------
    folder : Path
        Folder of the executable.
    paths : list of str
        The JPEGs.

    Raises
    ------
    LimitError
        No compiler, no headers of libjpeg-turbo, or a compile error.
    """

    def __init__(self, folder: Path, paths: list[str]):
        self.executable = folder / "bare_decode"
        self.input = b"\n".join(os.fsencode(path) for path in paths)
        if shutil.which("pkg-config") is None:
            raise LimitError("pkg-config was not found: apt-get install pkg-config libjpeg-dev")
        flags = run(["pkg-config", "--cflags", "--libs", "libjpeg"]).decode()
        compile_c(SOURCE, self.executable, *shlex.split(flags), "-lm", "-pthread")

    def measure(self, mode: str, threads: int, warmup: float, seconds: float) -> dict:
        """Measure one run of any mode except "grid"."""
        command = [str(self.executable), mode, str(threads), str(warmup), str(seconds)]
        result = json.loads(run(command, self.input, warmup + seconds + 60))
        return result | {"status": "ok"}

    def measure_once(self, mode: str, threads: int, paths: list[str]) -> dict:
        """Measure one pass over these files, in this order."""
        given = b"\n".join(os.fsencode(path) for path in paths)
        return json.loads(run([str(self.executable), mode, str(threads), "once"], given, timeout=3600))

    def write_grids(self, target: Path, height: int, width: int) -> None:
        """Write the mean colors of a 4x5 grid over every file's centered window, one file a line."""
        command = [str(self.executable), "grid", str(height), str(width)]
        target.write_bytes(run(command, self.input, timeout=3600))
