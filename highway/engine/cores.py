"""Number of cores that this process may use: CPU affinity, quotas of its control groups, HIGHWAY_CORES."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from highway.errors import SettingError

__all__ = ["SHARE", "cpu_quota", "usable_cores"]

# The environment variable with the most cores of this process, where a scheduler only counts them: processes that
# share a machine would otherwise each use all of its cores.
SHARE = "HIGHWAY_CORES"


def usable_cores() -> int:
    """Number of cores that this process may use.

    The cores of its CPU affinity, limited by the quota of its control groups (a container's ``--cpus``) and by the
    environment variable HIGHWAY_CORES. A fraction of a core counts as a whole one: two threads that share 1.5 cores
    are faster than one thread.

    Raises
    ------
    SettingError
        HIGHWAY_CORES is not a positive number.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota(), _share())))


def _share() -> float:
    text = os.environ.get(SHARE)
    if not text:
        return math.inf
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise SettingError(
            f"The environment variable {SHARE} is {text!r}; expected a positive number, such as 4"
        )
    return found


def cpu_quota(process: str = "/proc/self") -> float:
    """Cores that the control groups of a process allow: the smallest quota of all of its groups.

    Parameters
    ----------
    process : str
        Its folder in ``/proc``: the files ``cgroup`` and ``mountinfo`` say which groups it is in, and where their
        files are.

    Returns
    -------
    float
        More than 0; infinity without a readable quota.

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
    """Yield the version (as the type of its file system) and path of each group with the cpu controller."""
    for line in text.splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            yield "cgroup2", path
        elif "cpu" in controllers.split(","):
            yield "cgroup", path


def _mounts(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield version, root group and mount point of each mounted tree with the cpu controller."""
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
    """Yield the folder of a group and of its parent groups, as far as they are visible in `mount`."""
    inside = os.path.relpath(group or os.sep, root or os.sep)
    # A group outside of the mounted tree, as in a container without a namespace: only the root of the mount is visible.
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
    """Return quota / period; infinity for "max", -1 and other values that are not positive numbers."""
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        return int(quota) / int(period)
    return math.inf
