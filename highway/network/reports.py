"""Statistics reports: each machine sends its own downstream, and the training machine collects them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from highway.engine.stats import MachineStats, PipelineStats
from highway.network.batch_codec import new_name
from highway.network.protocol.consumer import Consumer
from highway.network.protocol.producer import Producer
from highway.network.zmq.security import quoted
from highway.network.zmq.socket_thread import SocketThread

__all__ = ["Meter", "machines_of", "relayed"]

# Shortest interval for a rate, in seconds.
SPAN = 0.9
# Most reports that a worker forwards, and most characters of a name in them.
MOST_REPORTS = 64
MOST_NAME = 200
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
        "data" or "worker".
    stats : callable
        Returns the statistics of the pipeline.
    driver : SocketThread
    """

    def __init__(self, role: str, stats: Callable[[], PipelineStats | None], driver: SocketThread) -> None:
        self._role = role
        self._stats = stats
        self._driver = driver
        self._name = new_name()
        self._last = self._now()
        self._report: dict[str, Any] = {}

    def _now(self) -> tuple[float, float, int, int]:
        return time.monotonic(), time.process_time(), self._driver.sent_items, self._driver.sent_bytes

    def report(self, producer: Producer, consumer: Consumer | None) -> dict[str, Any]:
        """Return the figures since the last report; the last report again where it is younger than `SPAN`."""
        now = self._now()
        seconds = now[0] - self._last[0]
        if self._report and seconds < SPAN:
            return self._report
        seconds = max(seconds, 1e-6)
        stats = self._stats()
        # Source and sink wait for other machines; only the modules between them measure this machine.
        modules = [module for module in stats.modules if module.kind != "sink"] if stats else []
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
            "queue": len(producer) if consumer is None else len(consumer.held),
            "room": 0 if consumer is None else consumer.window,
            "busy": busiest.busy_share if busiest else 0.0,
            "limiter": busiest.name if busiest else "",
            "duplicates": consumer.duplicates if consumer is not None else 0,
            "resent": producer.resent,
            "deaths": producer.deaths,
            "skipped": stats.skipped_samples if stats else 0,
            "replaced": stats.replaced_samples if stats else 0,
        }
        self._last = now
        return self._report


def relayed(consumer: Consumer) -> list[dict[str, Any]]:
    """Return the reports from upstream that go on downstream: known figures only, at most `MOST_REPORTS`."""
    reports = consumer.reports(time.monotonic())
    return [_known(report) for _, report in reports[:MOST_REPORTS]]


def _known(report: dict[str, Any]) -> dict[str, Any]:
    """Return the valid figures of a report, with its untrusted texts quoted."""
    return {
        name: quoted(value)[:MOST_NAME] if isinstance(value, str) else value
        for name, value in report.items()
        if name in KINDS and isinstance(value, KINDS[name]) and not isinstance(value, bool)
    }


def machines_of(reports: Iterable[tuple[float, dict[str, Any]]]) -> tuple[MachineStats, ...]:
    """Return the newest figures of every machine, data machines first; invalid figures are dropped."""
    newest: dict[str, MachineStats] = {}
    for age, report in sorted(reports, key=lambda pair: -pair[0]):
        known = _known(report)
        if "name" in known and "role" in known:
            machine = replace(MachineStats("", ""), **known, age=age)
            newest[machine.name] = machine
    return tuple(sorted(newest.values(), key=lambda machine: (machine.role != "data", machine.name)))
