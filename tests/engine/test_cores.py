"""How many processors may be used: affinity, and the quotas of control groups."""

import math
import os

import pytest

from highway.engine import cores
from highway.engine.cores import cpu_quota, usable_cores
from highway.errors import SettingError


def tree(folder, groups, mounts, files):
    """A made ``/proc/self``, and trees of groups; `mounts` are (type, root, mount point, options)."""
    process = folder / "proc"
    process.mkdir()
    (process / "cgroup").write_text("".join(f"{line}\n" for line in groups))
    lines = [
        f"{number} 23 0:{number} {root} {folder}/{point} rw,relatime shared:9 - {kind} {kind} rw{options}"
        for number, (kind, root, point, options) in enumerate(mounts, 31)
    ]
    (process / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(process)


SECOND = [("cgroup2", "/", "cg", "")]
FIRST = [("cgroup", "/", "cpu", ",cpu,cpuacct"), ("cgroup", "/", "memory", ",memory")]


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cg/a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"cg/a/b/cpu.max": "max 100000\n"}, math.inf),
        # The smallest on the way up counts, wherever it is.
        (
            {"cg/a/b/cpu.max": "400000 100000\n", "cg/a/cpu.max": "200000 100000\n", "cg/cpu.max": "max 1\n"},
            2,
        ),
        (
            {
                "cg/a/b/cpu.max": "max 100000\n",
                "cg/a/cpu.max": "max 100000\n",
                "cg/cpu.max": "50000 100000\n",
            },
            0.5,
        ),
        ({"cg/a/b/cpu.max": "1000 100000\n", "cg/a/cpu.max": "200000 100000\n"}, 0.01),
        # Not that of a neighbor.
        ({"cg/a/c/cpu.max": "100000 100000\n"}, math.inf),
        *(
            ({"cg/a/b/cpu.max": text}, math.inf)
            for text in ("", "max", "-1 100000", "0 100000", "1 0", "x y", "7")
        ),
    ],
)
def test_quota_of_version_2(tmp_path, files, quota):
    assert cpu_quota(tree(tmp_path, ["0::/a/b"], SECOND, files)) == quota


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu/a/b/cpu.cfs_quota_us": "250000\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, 2.5),
        ({"cpu/a/b/cpu.cfs_quota_us": "-1\n", "cpu/a/b/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/a/b/cpu.cfs_quota_us": "250000\n"}, math.inf),
        (
            {
                "cpu/a/b/cpu.cfs_quota_us": "-1\n",
                "cpu/a/b/cpu.cfs_period_us": "100000\n",
                "cpu/a/cpu.cfs_quota_us": "30000\n",
                "cpu/a/cpu.cfs_period_us": "10000\n",
            },
            3,
        ),
        ({"memory/a/b/cpu.cfs_quota_us": "1\n", "memory/a/b/cpu.cfs_period_us": "1\n"}, math.inf),
    ],
)
def test_quota_of_version_1(tmp_path, files, quota):
    groups = ["5:memory:/a/b", "4:cpu,cpuacct:/a/b", "3:cpuset:/", "0::/"]
    assert cpu_quota(tree(tmp_path, groups, FIRST, files)) == quota


def test_both_versions_at_once(tmp_path):
    """The smaller of the two; where controllers are mounted apart, "cpuset" is not "cpu"."""
    files = {
        "cpu/a/cpu.cfs_quota_us": "300000\n",
        "cpu/a/cpu.cfs_period_us": "100000\n",
        "cg/b/cpu.max": "200000 100000\n",
        "set/c/cpu.cfs_quota_us": "1\n",
        "set/c/cpu.cfs_period_us": "1\n",
    }
    mounts = [*FIRST, *SECOND, ("cgroup", "/", "set", ",cpuset")]
    assert cpu_quota(tree(tmp_path, ["4:cpu:/a", "2:cpuset:/c", "0::/b"], mounts, files)) == 2


@pytest.mark.parametrize(
    ("group", "root", "folder"),
    [
        # In a container: its own group is what is mounted.
        ("/docker/abc", "/docker/abc", "cg"),
        ("/docker/abc/inner", "/docker/abc", "cg/inner"),
        # Of a group that is not shown there is only the front to see.
        ("/other", "/docker/abc", "cg"),
        ("/../other", "/", "cg"),
        ("/a:b/with space", "/", "cg/a:b/with space"),
        ("", "/", "cg"),
    ],
)
def test_groups_are_where_they_are_mounted(tmp_path, group, root, folder):
    process = tree(
        tmp_path, [f"0::{group}"], [("cgroup2", root, "cg", "")], {f"{folder}/cpu.max": "300000 100000"}
    )
    assert cpu_quota(process) == 3


def test_mount_points_are_escaped(tmp_path):
    files = {"c g/a/cpu.max": "100000 100000"}
    process = tree(tmp_path, ["0::/a"], [("cgroup2", "/", r"c\040g", "")], files)
    assert cpu_quota(process) == 1


def test_no_quota_where_nothing_can_be_read(tmp_path):
    assert cpu_quota(str(tmp_path / "nothing")) == math.inf
    (tmp_path / "cgroup").write_bytes(b"\xff\xfe\n:\n0\n0:\n")
    (tmp_path / "mountinfo").write_bytes(b"\n1 2\n - cgroup2\n\xff - cgroup2 a b\n")
    assert cpu_quota(str(tmp_path)) == math.inf


@pytest.mark.parametrize(
    ("affinity", "quota", "found"),
    [(8, 1.5, 2), (8, 0.01, 1), (8, 4.0, 4), (2, 7.5, 2), (3, math.inf, 3), (8, 3.2, 4)],
)
def test_usable_cores_are_the_fewer(monkeypatch, affinity, quota, found):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(affinity)), raising=False)
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert usable_cores() == found


@pytest.mark.parametrize(("share", "cores"), [("3", 3), ("2.5", 3), ("0.5", 1), ("99", 8), ("", 8)])
def test_a_share_of_the_cores(monkeypatch, share, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr("highway.engine.cores.cpu_quota", lambda: math.inf)
    monkeypatch.setenv("HIGHWAY_CORES", share)
    assert usable_cores() == cores


@pytest.mark.parametrize("share", ["0", "-1", "many", "nan", "inf"])
def test_a_share_that_is_no_number_of_cores(monkeypatch, share):
    monkeypatch.setenv("HIGHWAY_CORES", share)
    with pytest.raises(SettingError, match=f"HIGHWAY_CORES is '{share}'; expected a positive number"):
        usable_cores()
