"""Installs the loaders that Highway is compared with, each in a separate environment under one folder.

    python benchmarks/install_peers.py FOLDER --only opencv,simplejpeg
    python benchmarks/peers.py DIR --peers FOLDER

Their dependencies conflict (Pillow and Pillow-SIMD overwrite each other's files), hence the environments.
participants/registry.py lists the packages and versions. A working environment is kept; one for other versions, or a
broken one, is created again. Those of peers.py take about 10 GB, of which torch takes 5.5: its package for Linux
includes CUDA. Those of formats.py (webdataset, datasets) and remote.py (litdata, streaming) are two, each with torch.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from participants.registry import LOADERS, PEERS, Participant

NAMES = [peer.name for peer in PEERS]
OTHERS = [peer.name for peer in LOADERS]
STAMP = "installed-for-benchmarks.json"
PIP_SECONDS = 3600


class InstallError(RuntimeError):
    """A peer could not be installed; the message says which, why and what helps."""


def interpreter(environment: Path) -> Path:
    """Return the path of the Python of an environment."""
    return environment / "bin" / "python"


def run(command: list[str], timeout: float = PIP_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, errors="replace"
    )


def complaint(peer: Participant, environment: Path) -> str:
    """Return why the environment cannot run the peer; empty if it can."""
    code = "\n".join(f"import {name}" for name in ("numpy", *peer.needs))
    done = run([str(interpreter(environment)), "-c", code], timeout=300)
    if not done.returncode:
        return ""
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def ready(peer: Participant, environment: Path) -> bool:
    """Whether the environment was completed for these requirements and still works."""
    try:
        made_for = json.loads((environment / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return made_for == list(peer.requirements) and not complaint(peer, environment)


def advice(peer: Participant) -> str:
    """Return what to install by hand, as the end of a sentence."""
    return (
        f"; it needs packages of the system: apt-get install {' '.join(peer.system)}" if peer.system else ""
    )


def pip(peer: Participant, environment: Path, *arguments: str) -> None:
    """Run pip of an environment; raise InstallError with its last output."""
    command = [str(interpreter(environment)), "-m", "pip", *arguments]
    try:
        done = run([*command, "--quiet", "--disable-pip-version-check"])
    except subprocess.TimeoutExpired:
        raise InstallError(f"{peer.name}: pip {arguments[0]} did not end within {PIP_SECONDS} s") from None
    if done.returncode:
        words = " ".join(done.stderr.strip().splitlines()[-3:])[-600:]
        raise InstallError(f"{peer.name}: pip {' '.join(arguments)} failed: {words}{advice(peer)}")


def install_one(peer: Participant, environment: Path) -> None:
    """Create the environment of one peer from scratch."""
    shutil.rmtree(environment, ignore_errors=True)
    try:
        venv.create(environment, with_pip=True, symlinks=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(
            f"{peer.name}: no environment can be made in {environment} ({error}); "
            "on Debian and Ubuntu: apt-get install python3-venv"
        ) from None
    pip(peer, environment, "install", "--upgrade", "pip")
    simd = [item for item in peer.requirements if item.startswith("Pillow-SIMD")]
    others = [item for item in peer.requirements if item not in simd]
    if others:
        pip(peer, environment, "install", *others)
    if simd:
        # Last, and replacing Pillow: earlier packages may have installed it.
        pip(peer, environment, "uninstall", "--yes", "pillow")
        pip(peer, environment, "install", *simd)
    reason = complaint(peer, environment)
    if reason:
        raise InstallError(f"{peer.name} was installed but cannot be imported: {reason}{advice(peer)}")
    (environment / STAMP).write_text(json.dumps(peer.requirements), encoding="utf-8")


def install(folder: Path, names: list[str]) -> dict[str, str]:
    """Install the named peers if they are missing.

    Parameters
    ----------
    folder : Path
        Gets a sub-folder for each peer, `Participant.folder`.
    names : list of str
        Names of participants; those that are not peers are skipped.

    Returns
    -------
    dict of str to str
        Failed peers by name, with the reason; the others are installed.
    """
    if not (3, 10) < sys.version_info[:2] < (3, 14):
        print(
            f"install_peers.py: not every peer has packages for Python {sysconfig.get_python_version()}; "
            "3.11 and 3.12 have all",
            file=sys.stderr,
        )
    failures = {}
    folder.mkdir(parents=True, exist_ok=True)
    for peer in (*PEERS, *LOADERS):
        if peer.name not in names:
            continue
        environment = folder / peer.folder
        if ready(peer, environment):
            print(f"{peer.name}: already installed", file=sys.stderr, flush=True)
            continue
        print(f"{peer.name}: installing {', '.join(peer.requirements)}", file=sys.stderr, flush=True)
        try:
            install_one(peer, environment)
        except InstallError as error:
            failures[peer.name] = str(error)
            print(error, file=sys.stderr, flush=True)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of the environments")
    parser.add_argument(
        "--only",
        metavar="NAME,...",
        type=lambda text: text.split(","),
        default=NAMES,
        help=f"some of: {', '.join(NAMES)} (default: all of these), {', '.join(OTHERS)}",
    )
    options = parser.parse_args()
    known = [*NAMES, *OTHERS]
    unknown = [name for name in options.only if name not in known]
    if unknown:
        parser.error(f"--only: unknown {', '.join(unknown)}; expected some of {', '.join(known)}")
    failures = install(Path(os.path.abspath(options.folder)), options.only)
    if failures:
        raise SystemExit(
            f"install_peers.py: {len(failures)} of {len(options.only)} failed: {', '.join(failures)}"
        )


if __name__ == "__main__":
    main()
