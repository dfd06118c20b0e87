"""Statistics reports: each machine sends its own downstream, and the training machine collects them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from highway._core.installation import version
from highway.engine.stats import MachineStats, PipelineStats
from highway.network.protocol.consumer import Consumer
from highway.network.protocol.producer import Producer
from highway.network.zmq.security import quoted
from highway.network.zmq.socket_thread import SocketThread

__all__ = ["Meter", "fitting", "known", "machines_of", "relayed"]

# Shortest interval for a rate, in seconds.
SPAN = 0.9
# Most reports that a worker forwards, and most characters of a name, and of a verdict, in them.
MOST_REPORTS = 64
MOST_NAME = 200
MOST_VERDICT = 500
# Most bytes of the reports in a message, and bytes of a report without its texts, generously.
MOST_BYTES = 56_000
FIGURES_BYTES = 400
_ORDER = {"data": 0, "worker": 1, "trainer": 2}
# Types of the figures, except `age`.
KINDS = {
    field.name: (str, str) if field.type == "str" else (int, float)
    for field in fields(MachineStats)
    if field.name != "age"
}


class Meter:
    """Makes the reports of this machine.

    Parameters
    ----------
    role : str
        "data", "worker" or "trainer".
    stats : callable
        Returns the statistics of the pipeline.
    driver : SocketThread
    name : str
        Name of the pipeline: host and process.
    facts : dict, optional
        What else the reports say, and does not change.
    """

    def __init__(
        self,
        role: str,
        stats: Callable[[], PipelineStats | None],
        driver: SocketThread,
        name: str,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self._role = role
        self._stats = stats
        self._driver = driver
        self._name = name
        self._facts = {"id": os.urandom(4).hex(), "version": version(), **(facts or {})}
        self._last = self._now()
        self._report: dict[str, Any] = {}

    def _now(self) -> tuple[float, float, int, int]:
        driver = self._driver
        items, nbytes = driver.sent_items, driver.sent_bytes
        if self._role == "trainer":
            items, nbytes = driver.received_items, 0
        return time.monotonic(), time.process_time(), items, nbytes

    def report(self, producer: Producer | None, consumer: Consumer | None) -> dict[str, Any]:
        """Return the figures since the last report; the last report again where it is younger than `SPAN`."""
        now = self._now()
        seconds = now[0] - self._last[0]
        if self._report and seconds < SPAN:
            return self._report
        seconds = max(seconds, 1e-6)
        stats = self._stats()
        # Source and sink wait for other machines; only the modules between them measure this machine.
        modules = [module for module in stats.modules if module.kind != "sink"] if stats else []
        verdict = stats.verdict if stats and self._role == "trainer" else ""
        if consumer is not None:
            modules = modules[1:]
        busiest = max(modules, key=lambda module: module.busy_share, default=None)
        self._report = {
            "name": self._name,
            "role": self._role,
            "batches": now[2],
            "rate": (now[2] - self._last[2]) / seconds,
            "wire": (now[3] - self._last[3]) / seconds,
            "cpu": (now[1] - self._last[1]) / seconds,
            "queue": len(consumer.held) if consumer is not None else len(producer or ()),
            "room": 0 if consumer is None else consumer.window,
            "busy": busiest.busy_share if busiest else 0.0,
            "limiter": busiest.name if busiest else "",
            "duplicates": consumer.duplicates if consumer is not None else 0,
            "resent": producer.resent if producer is not None else 0,
            "deaths": producer.deaths if producer is not None else 0,
            "suspects": producer.suspects if producer is not None else 0,
            "benched": producer.benched if producer is not None else 0,
            "skipped": stats.skipped_samples if stats else 0,
            "replaced": stats.replaced_samples if stats else 0,
            "verdict": verdict,
            **self._facts,
        }
        self._last = now
        return self._report


def relayed(consumer: Consumer) -> list[dict[str, Any]]:
    """Return the reports from upstream that go on downstream: known figures only, at most `MOST_REPORTS`."""
    reports = consumer.reports(time.monotonic())
    return fitting([known(report) for _, report in reports[:MOST_REPORTS]])


def fitting(reports: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first reports, as many as fit into a message."""
    found: list[dict[str, Any]] = []
    room = MOST_BYTES
    for report in reports:
        room -= FIGURES_BYTES + sum(len(value) for value in report.values() if isinstance(value, str))
        if room < 0:
            break
        found.append(report)
    return found


def known(report: dict[str, Any]) -> dict[str, Any]:
    """Return the valid figures of a report, with its untrusted texts quoted."""
    return {
        name: quoted(value)[: MOST_VERDICT if name == "verdict" else MOST_NAME]
        if isinstance(value, str)
        else value
        for name, value in report.items()
        if name in KINDS and isinstance(value, KINDS[name]) and not isinstance(value, bool)
    }


def machines_of(reports: Iterable[tuple[float, dict[str, Any]]]) -> tuple[MachineStats, ...]:
    """Return the newest figures of every machine, data machines first and the training machine last.

    Invalid figures are dropped. Machines of the same name, as containers may have, get a part of their id.
    """
    newest: dict[tuple[str, str], MachineStats] = {}
    for age, report in sorted(reports, key=lambda pair: -pair[0]):
        figures = known(report)
        if "name" in figures and "role" in figures:
            machine = replace(MachineStats("", ""), **figures, age=age)
            newest[machine.name, machine.id] = machine
    names = Counter(machine.name for machine in newest.values())
    found = [
        replace(machine, name=f"{machine.name}~{machine.id}") if names[machine.name] > 1 else machine
        for machine in newest.values()
    ]
    return tuple(sorted(found, key=lambda machine: (_ORDER.get(machine.role, 1), machine.name)))
