"""Builds and runs the bare libjpeg-turbo loop (bare_decode.c)."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

# by job, what the bare loop does
MODES = {"fit": "full", "rrc": "window"}
SOURCE = Path(__file__).resolve().with_name("bare_decode.c")


class LimitError(RuntimeError):
    """The bare loop could not be built or failed; the message says why."""


class Limit:
    """The bare loop, built into a folder.

    Parameters
    ----------
    folder : Path
        Where the executable goes.
    paths : list of str
        The JPEGs.

    Raises
    ------
    LimitError
        No compiler, no headers of libjpeg-turbo, or the compiler's own words.
    """

    def __init__(self, folder: Path, paths: list[str]):
        self.executable = folder / "bare_decode"
        self.input = b"\n".join(os.fsencode(path) for path in paths)
        compiler = os.environ.get("CC", "cc")
        for tool in (compiler.split()[0], "pkg-config"):
            if shutil.which(tool) is None:
                raise LimitError(
                    f"{tool} was not found; install a C compiler, pkg-config and libjpeg62-turbo-dev"
                )
        flags = self._run(["pkg-config", "--cflags", "--libs", "libjpeg"]).decode()
        self._run(
            [
                *shlex.split(compiler),
                "-O2",
                "-o",
                str(self.executable),
                str(SOURCE),
                *shlex.split(flags),
                "-lm",
                "-pthread",
            ]
        )

    def _run(self, command: list[str], timeout: float = 120) -> bytes:
        try:
            done = subprocess.run(command, input=self.input, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise LimitError(f"{Path(command[0]).name} did not end within {timeout:.0f} s") from None
        if done.returncode:
            raise LimitError(
                f"{Path(command[0]).name}: {done.stderr.decode(errors='replace').strip()[-500:]}"
            )
        return done.stdout

    def measure(self, mode: str, threads: int, warmup: float, seconds: float) -> dict:
        """Figures of one run of mode "full" or "window"."""
        command = [str(self.executable), mode, str(threads), str(warmup), str(seconds)]
        result = json.loads(self._run(command, warmup + seconds + 60))
        return result | {"status": "ok"}

    def write_grids(self, target: Path, height: int, width: int) -> None:
        """Write the mean colours of a 4x5 grid over every file's centred window, one file a line."""
        target.write_bytes(self._run([str(self.executable), "grid", str(height), str(width)], timeout=3600))
