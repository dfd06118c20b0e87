"""The metrics of a pipeline, in the classes of prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from highway._core.installation import version
from highway.engine import Pipeline
from highway.engine.stats import MachineStats, PipelineStats
from highway.metrics import state
from highway.network.reports import machines_of

__all__ = ["PipelineCollector"]

# Name, text, and attribute of `ModuleStats`; counters first.
_MODULE_COUNTERS = (
    ("highway_module_batches", "Batches that the module has finished", "batches"),
    ("highway_module_samples", "Samples that the module has finished", "samples"),
    ("highway_module_bytes", "Bytes of the batches that the module has finished", "nbytes"),
    ("highway_module_busy_seconds", "Seconds that the workers of the module computed", "busy"),
    ("highway_module_input_wait_seconds", "Seconds that its workers waited for batches", "waited_input"),
    ("highway_module_room_wait_seconds", "Seconds that its workers waited for room", "waited_room"),
    ("highway_module_skipped_batches", "Batches that the module skipped", "skipped_batches"),
    ("highway_module_skipped_samples", "Samples that the module skipped", "skipped_samples"),
    ("highway_module_replaced_samples", "Samples that replace bad ones", "replaced_samples"),
)
_MODULE_GAUGES = (
    ("highway_module_workers", "Active workers of the module", "workers"),
    ("highway_module_queue_batches", "Batches in the queue after the module, mean over time", "occupancy"),
    ("highway_module_queue_capacity", "Most batches in the queue after the module", "capacity"),
)
# Of this machine, as it reports them to others.
_OWN_COUNTERS = (
    ("highway_link_batches", "Batches sent to other machines, or received by the trainer", "batches"),
    ("highway_duplicate_batches", "Batches received twice, and dropped", "duplicates"),
    ("highway_resent_batches", "Batches sent again, since a peer did not finish them", "resent"),
    ("highway_lost_peers", "Receivers that died", "deaths"),
)
_OWN_GAUGES = (
    ("highway_held_batches", "Batches here that are not acknowledged", "queue"),
    ("highway_suspect_batches", "Batches sent alone, since machines that held them died", "suspects"),
    ("highway_benched_workers", "Workers without batches, since others can do what they fail at", "benched"),
)
# Of the machines upstream; the ones of a training machine are the whole chain.
_MACHINE_GAUGES = (
    ("highway_machine_batches_per_second", "Batches per second that the machine sends, recently", "rate"),
    ("highway_machine_bytes_per_second", "Bytes per second that the machine sends, recently", "wire"),
    ("highway_machine_cpu_cores", "Cores that the process of the machine uses, recently", "cpu"),
    ("highway_machine_busy_ratio", "Busy share of the busiest module of the machine, 0 to 1", "busy"),
    ("highway_machine_queue_batches", "Unfinished batches that the machine has", "queue"),
)


class PipelineCollector:
    """Collects the metrics of a pipeline at each request.

    Parameters
    ----------
    pipeline : Pipeline
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._role = state.role(pipeline)

    def collect(self) -> Iterator[Any]:
        pipeline, role = self._pipeline, self._role
        yield InfoMetricFamily("highway", "Role and version", value={"role": role, "version": version()})
        yield self._gauge("highway_up", "1, or 0 after an error", state.failure(pipeline) is None)
        yield self._gauge(
            "highway_ready", "1 while all machines are connected", state.missing(pipeline) is None
        )
        stats = pipeline.stats()
        yield from self._of_modules(stats)
        if stats.waits is not None:
            yield self._counter(
                "highway_exposed_wait_seconds", "Seconds that the training waited", stats.waits.waited
            )
        transport = state.transport_of(pipeline)
        if transport is None:
            return
        peers = GaugeMetricFamily("highway_peers", "Connected machines", labels=("role", "direction"))
        for direction, count in zip(("upstream", "downstream"), transport.links(), strict=True):
            if count is not None:
                peers.add_metric((role, direction), count)
        yield peers
        for own in machines_of((0.0, report) for report in transport.figures()[:1]):
            for name, text, attribute in _OWN_COUNTERS:
                yield self._counter(name, text, getattr(own, attribute))
            for name, text, attribute in _OWN_GAUGES:
                yield self._gauge(name, text, getattr(own, attribute))
        yield from _of_machines(stats.machines)

    def _of_modules(self, stats: PipelineStats) -> Iterator[Any]:
        labels = ("role", "module", "kind")
        rows = [
            ((self._role, f"{number}.{module.name}", module.kind), module)
            for number, module in enumerate(stats.modules)
        ]
        for make, described in (
            (CounterMetricFamily, _MODULE_COUNTERS),
            (GaugeMetricFamily, _MODULE_GAUGES),
        ):
            for name, text, attribute in described:
                family = make(name, text, labels=labels)
                for values, module in rows:
                    family.add_metric(values, getattr(module, attribute))
                yield family

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=("role",))
        family.add_metric((self._role,), value)
        return family

    def _counter(self, name: str, text: str, value: float) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=("role",))
        family.add_metric((self._role,), value)
        return family


def _of_machines(machines: tuple[MachineStats, ...]) -> Iterator[GaugeMetricFamily]:
    for name, text, attribute in _MACHINE_GAUGES:
        family = GaugeMetricFamily(name, text, labels=("machine", "machine_role"))
        for machine in machines:
            family.add_metric((machine.name, machine.role), getattr(machine, attribute))
        yield family
