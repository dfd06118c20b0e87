"""Processor time and memory of this process and its worker processes, read from /proc."""

import os

TICKS = os.sysconf("SC_CLK_TCK")


def descendants() -> list[int]:
    """Return the process ids of all living descendants, without this process."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="latin-1") as file:
                    # the name in brackets may hold spaces
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def cpu_seconds() -> float:
    """Return the user and system time of this process and of its living descendants."""
    total = 0
    for pid in (os.getpid(), *descendants()):
        try:
            with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def machine_seconds() -> float:
    """Return the processor time of the whole machine since its start."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq, *_ = (
            int(field) for field in file.readline().split()[1:]
        )
    return (user + nice + system + irq + softirq) / TICKS


def kilobytes(path: str, *names: str) -> int:
    """Return the sum of the named lines ("VmHWM:   1234 kB") of a file of /proc."""
    total = 0
    with open(path, encoding="ascii", errors="replace") as file:
        for line in file:
            if line.split(":")[0] in names:
                total += int(line.split()[1])
    return total


def resident_megabytes() -> float:
    """Return the resident memory of this process now, in 10**6 bytes."""
    return kilobytes("/proc/self/status", "VmRSS") * 1024 / 1e6


def peak_megabytes() -> float:
    """Return the peak memory of this process plus the private memory of its workers now, in 10**6 bytes.

    Pages that forked workers share with this process are counted once.
    """
    total = kilobytes("/proc/self/status", "VmHWM")
    for pid in descendants():
        try:
            total += kilobytes(f"/proc/{pid}/smaps_rollup", "Private_Clean", "Private_Dirty")
        except OSError:
            continue
    return total * 1024 / 1e6


def proportional_megabytes() -> float:
    """Return the memory of this process and its living descendants now, in 10**6 bytes; shared pages count once."""
    total = 0
    for pid in (os.getpid(), *descendants()):
        try:
            total += kilobytes(f"/proc/{pid}/smaps_rollup", "Pss")
        except OSError:
            continue
    return total * 1024 / 1e6
