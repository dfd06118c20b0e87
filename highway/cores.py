"""How many processors this process may use: by its affinity, and by the quotas of its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

__all__ = ["cpu_quota", "usable_cores"]


def usable_cores() -> int:
    """Number of processors that this process may use.

    Those of its affinity, and no more than the quota of a control group (a container's ``--cpus``) is worth. A part of
    a processor counts as a whole one: two threads that share 1.5 get more done than one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(process: str = "/proc/self") -> float:
    """Processors that the control groups of a process allow it, the smallest number of all groups that it is in.

    Parameters
    ----------
    process : str
        Its folder below ``/proc``: the files ``cgroup`` and ``mountinfo`` say which groups it is in, and where these
        are.

    Returns
    -------
    float
        More than 0; infinity where there is no quota, or none that can be read.

    Notes
    -----
    Linux, Documentation/admin-guide/cgroup-v2.rst ("cpu.max") and Documentation/scheduler/sched-bwc.rst (version 1).
    """
    groups = dict(_groups(_text(os.path.join(process, "cgroup"))))
    quotas = [math.inf]
    for kind, root, mount in _mounts(_text(os.path.join(process, "mountinfo"))):
        if kind in groups:
            quota_of = _second_quota if kind == "cgroup2" else _first_quota
            quotas += map(quota_of, _folders(groups[kind], root, mount))
    return min(quotas)


def _text(path: str) -> str:
    # Not a file object: Ctrl-C may come before somebody closes it, and Python would warn of that.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return b"".join(iter(lambda: os.read(file, 1 << 16), b"")).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
    finally:
        os.close(file)


def _groups(text: str) -> Iterator[tuple[str, str]]:
    """Version, as the type of its file system, and path of the groups that limit processors."""
    for line in text.splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            yield "cgroup2", path
        elif "cpu" in controllers.split(","):
            yield "cgroup", path


def _mounts(text: str) -> Iterator[tuple[str, str, str]]:
    """Version, the group that is shown, and where, of the mounted trees of groups that limit processors."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        mounted, kinds = before.split(" "), after.split(" ")
        if len(mounted) < 5 or len(kinds) < 3:
            continue
        if kinds[0] == "cgroup2" or (kinds[0] == "cgroup" and "cpu" in kinds[2].split(",")):
            yield kinds[0], _unescaped(mounted[3]), _unescaped(mounted[4])


def _unescaped(path: str) -> str:
    for character in (" ", "\t", "\n", "\\"):
        path = path.replace(f"\\{ord(character):03o}", character)
    return path


def _folders(group: str, root: str, mount: str) -> Iterator[str]:
    """Folder of a group, and of all groups that it is in, as far as they are shown below `mount`."""
    inside = os.path.relpath(group or os.sep, root or os.sep)
    # Of a group outside of what is shown, as in a container without a namespace, that is all there is to see.
    parts = [] if inside == "." or inside.split(os.sep)[0] == ".." else inside.split(os.sep)
    for count in range(len(parts), -1, -1):
        yield os.path.join(mount, *parts[:count])


def _second_quota(folder: str) -> float:
    return _ratio(*(*_text(os.path.join(folder, "cpu.max")).split(), "", "")[:2])


def _first_quota(folder: str) -> float:
    quota, period = (
        _text(os.path.join(folder, f"cpu.cfs_{name}_us")).strip() for name in ("quota", "period")
    )
    return _ratio(quota, period)


def _ratio(quota: str, period: str) -> float:
    """Infinity for "max", -1, and what is no number."""
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        return int(quota) / int(period)
    return math.inf
