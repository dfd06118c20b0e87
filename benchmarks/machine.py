"""Describes the machine of a measurement."""

import os
import platform
import subprocess
import time
from pathlib import Path


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def cpu_model() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    """Commit of the checkout of these scripts, "+changes" when files differ from it; empty outside of one."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty=+changes"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def describe() -> dict[str, object]:
    """CPU, cores, load, kernel, C library, time and commit."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
    }


def describe_line(facts: dict[str, object]) -> str:
    """One line of `describe()` for a table."""
    return (
        f"{facts['cpu']}, {facts['cores']} usable cores, load {facts['load']} at the start, "
        f"{facts['system']}, {facts['time']}, commit {facts['commit'] or 'unknown'}"
    )
