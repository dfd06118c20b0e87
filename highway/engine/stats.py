"""What the modules of a pipeline did with their time, and which of them limits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from highway.engine.autotune import CONSUMER_LIMITS, CORES_FULL, HARDLY_BUSY

__all__ = ["MachineStats", "ModuleStats", "PipelineStats"]


@dataclass(frozen=True)
class ModuleStats:
    """Figures of one module since its pipeline started.

    Attributes
    ----------
    name : str
    kind : str
        "source", "stage" or "sink".
    workers : int
        Number at work now.
    batches, samples, nbytes : int
        What its workers have finished; what they skipped does not count.
    busy : float
        Seconds in `load`, `process` or `consume`, of all workers together.
    waited_input : float
        Seconds that its workers waited for batches; a source's, for its tasks.
    waited_room : float
        Seconds that its workers waited for room in the queue behind the module.
    occupancy : float
        Batches that waited in the queue behind it, on average over time; 0 behind a sink.
    capacity : int
        Most batches that may be outstanding in the queue behind it; 0 behind a sink.
    seconds : float
        Time the pipeline ran.
    tuned : bool
        Whether the number of workers is found while the pipeline runs; if not, it is fixed.
    worker_seconds : float, optional
        Time that its workers were at work or waited, of all together; where their number changes, not
        `workers` times `seconds`, which it is by default.
    skipped_batches : int
        Batches of which its workers made nothing: `load` or `process` returned None.
    skipped_samples : int
        Samples that are missing in what came out, with those of skipped batches as far as their number is known: bad
        samples of a reader with ``on_error="skip"``, or what a stage takes out. Each counts in every epoch.
    replaced_samples : int
        Samples of a source that are in the places of bad ones (``on_error="replace"``).
    """

    name: str
    kind: str
    workers: int
    batches: int
    samples: int
    nbytes: int
    busy: float
    waited_input: float
    waited_room: float
    occupancy: float
    capacity: int
    seconds: float
    tuned: bool = False
    worker_seconds: float | None = None
    skipped_batches: int = 0
    skipped_samples: int = 0
    replaced_samples: int = 0

    @property
    def skips(self) -> str:
        """One sentence on what was skipped and replaced; empty where nothing was."""
        parts = []
        if self.skipped_samples or self.skipped_batches:
            whole = f" ({_count(self.skipped_batches, 'whole batch', 'es')})" if self.skipped_batches else ""
            parts.append(f"{_count(self.skipped_samples, 'sample', 's')} skipped{whole}")
        if self.replaced_samples:
            parts.append(f"{_count(self.replaced_samples, 'sample', 's')} replaced")
        return f"{self.name}: {', '.join(parts)}." if parts else ""

    @property
    def busy_share(self) -> float:
        """Share of its workers' time that was work, 0 to 1."""
        return self.share(self.busy)

    @property
    def engaged(self) -> float:
        """Busy share; of a source, waiting for tasks counts too, since nobody in the pipeline causes it."""
        return self.share(self.busy + self.waited_input) if self.kind == "source" else self.busy_share

    def share(self, seconds: float) -> float:
        """What share of its workers' time so many seconds are, 0 to 1."""
        total = self.workers * self.seconds if self.worker_seconds is None else self.worker_seconds
        return min(1.0, seconds / total) if total > 0 else 0.0


@dataclass(frozen=True)
class MachineStats:
    """Figures of another machine on the way of the batches, as it last told them.

    Attributes
    ----------
    name : str
        Host and process.
    role : str
        "data" or "worker".
    batches : int
        Sent on, and received by the next machine.
    rate : float
        Batches a second, lately.
    wire : float
        Bytes a second that it sends, lately.
    cpu : float
        Cores that its process uses, lately.
    queue : int
        Batches that it has, and that are not done.
    room : int
        Batches that may be under way to it from one machine; 0 for a data machine.
    busy : float
        Share of the time that its busiest module works, 0 to 1.
    limiter : str
        Name of that module.
    duplicates, resent, deaths : int
        Batches that came to it twice; that it sent again; peers of it that fell silent.
    skipped, replaced : int
        Samples that its modules skipped, and those that are in the places of bad ones.
    age : float
        Seconds since it told this.
    """

    name: str
    role: str
    batches: int = 0
    rate: float = 0.0
    wire: float = 0.0
    cpu: float = 0.0
    queue: int = 0
    room: int = 0
    busy: float = 0.0
    limiter: str = ""
    duplicates: int = 0
    resent: int = 0
    deaths: int = 0
    skipped: int = 0
    replaced: int = 0
    age: float = 0.0


@dataclass(frozen=True)
class PipelineStats:
    """Figures of a pipeline; `str` gives a table with the verdict.

    Attributes
    ----------
    modules : tuple of ModuleStats
        In order, from the source on.
    seconds : float
        Time the pipeline ran, until now or until it stopped.
    delivered : int
        Batches that the consumer, or the sink, took.
    consumer_waited : float or None
        Seconds that callers of `dequeue` waited for a batch; None for a pipeline that ends in a sink.
    cores : int
        Processors that this process may use.
    tuning : str
        One sentence: what was tried to find the numbers of workers; empty where all are fixed.
    settled : bool
        Whether nothing is left to try.
    left_out : tuple of str
        Names of the modules that the pipeline does without, since the module in front does all of their work.
    machines : tuple of MachineStats
        The other machines that the batches come from, data machines first.
    """

    modules: tuple[ModuleStats, ...]
    seconds: float
    delivered: int
    consumer_waited: float | None
    cores: int
    tuning: str = ""
    settled: bool = True
    left_out: tuple[str, ...] = ()
    machines: tuple[MachineStats, ...] = ()

    @property
    def skipped_batches(self) -> int:
        """Batches that some module skipped."""
        return sum(module.skipped_batches for module in self.modules)

    @property
    def skipped_samples(self) -> int:
        """Samples that some module skipped; not on other machines, which tell of themselves."""
        return sum(module.skipped_samples for module in self.modules)

    @property
    def replaced_samples(self) -> int:
        """Samples that are in the places of bad ones."""
        return sum(module.replaced_samples for module in self.modules)

    @property
    def limiter(self) -> str | None:
        """Name of the module that limits the pipeline, "consumer", or None where nothing stands out."""
        if self.delivered == 0 or self.seconds <= 0:
            return None
        if self.consumer_waited is not None and self.consumer_waited < CONSUMER_LIMITS * self.seconds:
            return "consumer"
        slowest = max(self.modules, key=lambda module: module.engaged)
        return slowest.name if slowest.engaged >= HARDLY_BUSY else None

    @property
    def verdict(self) -> str:
        """One sentence: what limits the pipeline, and what to turn."""
        if self.delivered == 0 or self.seconds <= 0:
            return "Nothing was handed out yet."
        name = self.limiter
        if name == "consumer":
            share = (self.consumer_waited or 0.0) / self.seconds
            return (
                f"The consumer limits: it waited for batches {share:.0%} of the time, the modules wait for "
                "it. Nothing to turn here; fewer workers would do."
            )
        if name is None:
            return (
                "No module limits: all of them wait for each other most of the time. "
                "Larger batches, a larger queue_size or a larger max_bytes of the pipeline help."
            )
        module = next(module for module in self.modules if module.name == name)
        if self.machines and module.kind == "source":
            return self._verdict_on_machines
        if module.kind == "source" and module.waited_input > module.busy:
            return (
                f"{name} limits: its workers waited for tasks {module.engaged - module.busy_share:.0%} of "
                "the time. What gives out its tasks is slow; more workers do not help."
            )
        found = f"{name} limits: its {_workers(module.workers)} busy {module.busy_share:.0%} of the time. "
        if sum(each.busy for each in self.modules) >= CORES_FULL * self.cores * self.seconds:
            return found + (
                f"As many are busy as there are cores, {self.cores}: only a cheaper {name}, or more cores, help; "
                "where it waits and does not compute, a number of workers that you give does too."
            )
        if module.tuned and not self.settled:
            return found + "How many workers it deserves is still being found out."
        if module.tuned and module.workers < self.cores:
            return (
                found
                + f"More of them did not help, or have no room in max_bytes: only a cheaper {name} helps."
            )
        if module.workers < self.cores:
            return found + f"More workers help: workers={min(2 * module.workers, self.cores)}."
        return found + f"It has a worker for each of the {self.cores} cores: only a cheaper {name} helps."

    @property
    def slowest_machine(self) -> MachineStats | None:
        """The machine whose busiest module is busiest of all; None where none is busy half of the time."""
        busiest = max(self.machines, key=lambda machine: machine.busy, default=None)
        return busiest if busiest is not None and busiest.busy >= HARDLY_BUSY else None

    @property
    def _verdict_on_machines(self) -> str:
        machine = self.slowest_machine
        if not any(machine.rate for machine in self.machines):
            return (
                "The other machines tell their figures every second: too early to say which of them limits."
            )
        if machine is None:
            return (
                "No machine limits: all of them wait, for each other or for the network. Larger batches, or a larger "
                "window, help."
            )
        found = (
            f"{machine.name} limits, a {'data machine' if machine.role == 'data' else machine.role}: its "
            f"{machine.limiter} was busy {machine.busy:.0%} of the time. "
        )
        if machine.role == "data":
            return found + "A second data machine helps, each with its shard=; or more cores there."
        return found + "More workers help: start another one, anywhere."

    @property
    def machine_table(self) -> str:
        """The figures of the other machines, a line each below their names; empty where there are none."""
        rows = [
            (
                "machine",
                "role",
                "batches/s",
                "MB/s",
                "cores",
                "queue",
                "busiest",
                "busy",
                "twice",
                "again",
                "lost",
                "skipped",
                "replaced",
            )
        ]
        rows += [
            (
                machine.name,
                machine.role,
                f"{machine.rate:.1f}",
                f"{machine.wire / 1e6:.1f}",
                f"{machine.cpu:.2f}",
                f"{machine.queue}/{machine.room}" if machine.room else str(machine.queue),
                machine.limiter or "-",
                f"{machine.busy:.0%}",
                str(machine.duplicates),
                str(machine.resent),
                str(machine.deaths),
                str(machine.skipped),
                str(machine.replaced),
            )
            for machine in self.machines
        ]
        return _aligned(rows) if self.machines else ""

    @property
    def table(self) -> str:
        """The figures of every module, a line each below their names, and what was skipped."""
        rows = [("module", "workers", "batches", "samples", "MB", "busy", "no input", "no room", "queue")]
        for module in self.modules:
            rows.append(
                (
                    module.name,
                    f"{module.workers} (auto)" if module.tuned else str(module.workers),
                    str(module.batches),
                    str(module.samples),
                    f"{module.nbytes / 1e6:.1f}",
                    f"{module.busy_share:.0%}",
                    f"{module.share(module.waited_input):.0%}",
                    f"{module.share(module.waited_room):.0%}",
                    f"{module.occupancy:.1f}/{module.capacity}" if module.capacity else "-",
                )
            )
        lines = [_aligned(rows)]
        lines += [f"{name}: all of it is done by the module in front." for name in self.left_out]
        lines += [module.skips for module in self.modules if module.skips]
        return "\n".join(lines)

    def __str__(self) -> str:
        rate = sum(module.samples for module in self.modules[-1:]) / max(self.seconds, 1e-9)
        summary = f"{self.delivered} batches in {self.seconds:.1f} s, {rate:.0f} samples/s"
        return "\n".join(filter(None, (self.table, self.machine_table, summary, self.tuning, self.verdict)))


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _count(number: int, noun: str, ending: str) -> str:
    return f"{number} {noun}{'' if number == 1 else ending}"


def _workers(count: int) -> str:
    return "worker was" if count == 1 else f"{count} workers were"
