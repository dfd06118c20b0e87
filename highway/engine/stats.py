"""Statistics of a pipeline: how its modules spent their time, how long the training waited, and the bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape

from highway.engine.autotune import CONSUMER_LIMITS, CORES_FULL, HARDLY_BUSY
from highway.engine.waits import WaitStats

__all__ = [
    "MachineStats",
    "ModuleStats",
    "PipelineStats",
    "WaitStats",
    "table_of_machines",
    "verdict_on_machines",
]

# Figures of a module that only grow.
_GROWING = (
    "batches",
    "samples",
    "nbytes",
    "busy",
    "waited_input",
    "waited_room",
    "seconds",
    "skipped_batches",
    "skipped_samples",
    "replaced_samples",
)


@dataclass(frozen=True)
class ModuleStats:
    """Figures of one module since its pipeline started.

    Attributes
    ----------
    name : str
    kind : str
        "source", "stage" or "sink".
    workers : int
        Number of active workers now.
    batches, samples, nbytes : int
        What its workers have finished, without what they skipped.
    busy : float
        Seconds in `load`, `process` or `consume`, summed over all workers.
    waited_input : float
        Seconds that its workers waited for batches; of a source, for its tasks.
    waited_room : float
        Seconds that its workers waited for room in the queue after the module.
    occupancy : float
        Batches that waited in the queue after it, averaged over time; 0 for a sink.
    capacity : int
        Most batches that may be outstanding in the queue after it; 0 for a sink.
    seconds : float
        Time the pipeline ran.
    tuned : bool
        Whether the number of workers is tuned while the pipeline runs; if not, it is fixed.
    worker_seconds : float, optional
        Time that its workers were active (busy or waiting), summed over all workers. By default `workers` times
        `seconds`, for a constant number of workers.
    skipped_batches : int
        Batches that its workers skipped: `load` or `process` returned None.
    skipped_samples : int
        Samples missing from the output, those of skipped batches included as far as their number is known: bad
        samples of a reader with ``on_error="skip"``, or samples that a stage removes. Each counts in every epoch.
    replaced_samples : int
        Samples of a source that replace bad ones (``on_error="replace"``).
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
        """One sentence with the numbers of skipped and replaced samples; empty if there are none."""
        parts = []
        if self.skipped_samples or self.skipped_batches:
            whole = f" ({_count(self.skipped_batches, 'whole batch', 'es')})" if self.skipped_batches else ""
            parts.append(f"{_count(self.skipped_samples, 'sample', 's')} skipped{whole}")
        if self.replaced_samples:
            parts.append(f"{_count(self.replaced_samples, 'sample', 's')} replaced")
        return f"{self.name}: {', '.join(parts)}." if parts else ""

    @property
    def busy_share(self) -> float:
        """Share of its workers' time that they were busy, 0 to 1."""
        return self.share(self.busy)

    @property
    def engaged(self) -> float:
        """Busy share; of a source, waiting for tasks counts too, since no module of the pipeline causes it."""
        return self.share(self.busy + self.waited_input) if self.kind == "source" else self.busy_share

    def since(self, earlier: ModuleStats) -> ModuleStats:
        """Return the figures of the time after `earlier`, of the same module."""
        seconds = self.seconds - earlier.seconds
        held = self.occupancy * self.seconds - earlier.occupancy * earlier.seconds
        return replace(
            self,
            **{name: getattr(self, name) - getattr(earlier, name) for name in _GROWING},
            occupancy=max(0.0, held / seconds) if seconds > 0 else 0.0,
            worker_seconds=self._worker_seconds - earlier._worker_seconds,
        )

    @property
    def _worker_seconds(self) -> float:
        return self.workers * self.seconds if self.worker_seconds is None else self.worker_seconds

    def share(self, seconds: float) -> float:
        """Seconds as a share of its workers' time, 0 to 1."""
        total = self._worker_seconds
        return min(1.0, seconds / total) if total > 0 else 0.0


@dataclass(frozen=True)
class MachineStats:
    """Figures of another machine that the batches pass through, as it last reported them.

    Attributes
    ----------
    name : str
        Host and process.
    role : str
        "data", "worker" or "trainer"; the training machine is in the answer to ``highway status`` only.
    batches : int
        Batches sent, and received by the next machine; of the training machine, batches received.
    rate : float
        Batches per second, recently.
    wire : float
        Bytes per second that it sends, recently.
    cpu : float
        Cores that its process uses, recently.
    queue : int
        Unfinished batches that it has.
    room : int
        Batches that may be in flight to it from one machine; 0 for a data machine.
    busy : float
        Busy share of its busiest module, 0 to 1.
    limiter : str
        Name of that module.
    duplicates, resent, deaths : int
        Batches that it received twice; batches that it sent again; peers that it lost.
    skipped, replaced : int
        Samples that its modules skipped, and samples that replace bad ones.
    suspects : int
        Batches that are sent alone, since machines that held them died.
    benched : int
        Workers that get no batches for some time, since others could do what they failed at.
    length : int
        Batches in an epoch of a data machine; 0 where it does not know.
    stream, world : int
        Rank of a data machine, and number of data machines; 0 and 0 for others.
    version : str
        Its version of Highway.
    id : str
        Random digits, which tell machines of the same name apart.
    verdict : str
        Of the training machine: the bottleneck, and what to do about it.
    age : float
        Seconds since it reported this.
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
    suspects: int = 0
    benched: int = 0
    length: int = 0
    stream: int = 0
    world: int = 0
    version: str = ""
    id: str = ""
    verdict: str = ""
    age: float = 0.0


@dataclass(frozen=True)
class PipelineStats:
    """Figures of a pipeline; `str` returns a table with the verdict.

    Attributes
    ----------
    modules : tuple of ModuleStats
        In order; the source is first.
    seconds : float
        Time that the pipeline ran, until now or until it stopped.
    delivered : int
        Batches that the consumer, or the sink, took.
    consumer_waited : float or None
        Seconds that callers of `dequeue` waited for a batch; None for a pipeline that ends in a sink.
    cores : int
        Cores that this process may use.
    tuning : str
        One sentence: the changes that tuning tried; empty where all numbers of workers are fixed.
    settled : bool
        Whether tuning has nothing more to try.
    left_out : tuple of str
        Names of the fused modules: the reader does all of their work.
    machines : tuple of MachineStats
        The other machines upstream, data machines first; their figures always count from their own start.
    waits : WaitStats or None
        Exposed wait of the consumer; None for a pipeline that ends in a sink. A wait counts when it ends with a batch.
    epochs : tuple of WaitStats
        The same for each of the latest epochs, at most 8; the latest is last.
    origin : tuple
        Which pipeline these figures are of, and which start of its statistics.
    whole : PipelineStats or None
        Where these are the figures since earlier ones, those since the start.
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
    waits: WaitStats | None = None
    epochs: tuple[WaitStats, ...] = ()
    origin: tuple[int, float] | tuple[()] = field(default=(), repr=False)
    whole: PipelineStats | None = field(default=None, repr=False, compare=False)

    def since(self, earlier: PipelineStats) -> PipelineStats:
        """Return the figures of the time after `earlier`, of the same pipeline; see `Pipeline.stats`.

        All figures if the statistics have started again since: after `Pipeline.load_state_dict`.
        """
        before = earlier.whole or earlier
        if before.origin != self.origin:
            return self
        waited, waits, old = self.consumer_waited, self.waits, {epoch.epoch: epoch for epoch in before.epochs}
        epochs = [epoch.since(old.get(epoch.epoch, WaitStats())) for epoch in self.epochs]
        return replace(
            self,
            modules=tuple(map(ModuleStats.since, self.modules, before.modules)),
            seconds=self.seconds - before.seconds,
            delivered=self.delivered - before.delivered,
            consumer_waited=None if waited is None else waited - (before.consumer_waited or 0.0),
            waits=None if waits is None else waits.since(before.waits or WaitStats()),
            epochs=tuple(epoch for epoch in epochs if epoch.batches),
            whole=self,
        )

    @property
    def exposed_wait(self) -> float | None:
        """Share of the time between two batches that the consumer was blocked, 0 to 1; None with a sink."""
        return None if self.waits is None else self.waits.share

    @property
    def samples(self) -> int:
        """Samples that the consumer, or the sink, took."""
        return self.modules[-1].samples if self.waits is None else self.waits.samples

    @property
    def samples_per_second(self) -> float:
        """Samples per second that the consumer, or the sink, took; see `WaitStats.samples_per_second`."""
        if self.waits is not None:
            return self.waits.samples_per_second
        return self.samples / self.seconds if self.seconds > 0 else 0.0

    @property
    def skipped_batches(self) -> int:
        """Batches that the modules skipped."""
        return sum(module.skipped_batches for module in self.modules)

    @property
    def skipped_samples(self) -> int:
        """Samples that the modules skipped; other machines count theirs themselves (`machines`)."""
        return sum(module.skipped_samples for module in self.modules)

    @property
    def replaced_samples(self) -> int:
        """Samples that replace bad ones."""
        return sum(module.replaced_samples for module in self.modules)

    @property
    def limiter(self) -> str | None:
        """The bottleneck: the name of a module, "consumer", or None where there is none."""
        if self.delivered == 0 or self.seconds <= 0:
            return None
        if self.consumer_waited is not None and self.consumer_waited < CONSUMER_LIMITS * self.seconds:
            return "consumer"
        slowest = max(self.modules, key=lambda module: module.engaged)
        return slowest.name if slowest.engaged >= HARDLY_BUSY else None

    @property
    def verdict(self) -> str:
        """How much of the time your training waited, the bottleneck, and what to do about it."""
        if self.waits is None or not self.waits.batches:
            return self.advice
        return f"Your training waited {self.waits.share:.1%} of the time. {self.advice}"

    @property
    def advice(self) -> str:
        """The bottleneck, and what to do about it."""
        if self.delivered == 0 or self.seconds <= 0:
            return "No batch was delivered yet."
        name = self.limiter
        if name == "consumer":
            return "The consumer is the bottleneck: the pipeline is fast enough; fewer workers suffice."
        if name is None:
            return (
                "No bottleneck: the modules wait for each other most of the time. "
                "Try larger batches, a larger queue_size or a larger max_bytes of the pipeline."
            )
        module = next(module for module in self.modules if module.name == name)
        if self.machines and module.kind == "source":
            return self._verdict_on_machines
        if module.kind == "source" and module.waited_input > module.busy:
            return (
                f"{name} is the bottleneck: its workers waited for tasks "
                f"{module.engaged - module.busy_share:.0%} of the time. Its tasks come slowly; "
                "more workers do not help."
            )
        found = f"{name} is the bottleneck: its {_workers(module.workers)} busy {module.busy_share:.0%} of the time. "
        if sum(each.busy for each in self.modules) >= CORES_FULL * self.cores * self.seconds:
            return found + (
                f"{_all_cores(self.cores)} busy: make {name} cheaper or add cores. "
                "If it waits more than it computes, set its workers= higher."
            )
        if module.tuned and not self.settled:
            return found + "Tuning still looks for the best number of workers."
        if module.tuned and module.workers < self.cores:
            return (
                found + f"More workers did not help, or max_bytes has no room for them: make {name} cheaper."
            )
        if module.workers < self.cores:
            return found + f"More workers help: workers={min(2 * module.workers, self.cores)}."
        return found + f"It has a worker for each of the {self.cores} cores: make {name} cheaper."

    @property
    def slowest_machine(self) -> MachineStats | None:
        """The machine whose busiest module is busiest of all; None where none is busy half of the time."""
        return _slowest(self.machines)

    @property
    def _verdict_on_machines(self) -> str:
        return verdict_on_machines(self.machines)

    def to_dict(self) -> dict[str, float | int | str]:
        """Return the figures as a flat dict of numbers and strings, for JSON and for experiment trackers.

        ``wandb.log(stats.to_dict())`` takes it as it is; for TensorBoard and ``mlflow.log_metrics``, leave the strings
        out. Figures that do not apply, such as the waits of a pipeline that ends in a sink, have no key.

        =========================  ==========================================================================
        ``seconds``                time that the pipeline ran
        ``batches``, ``samples``   taken by the consumer, or by the sink
        ``samples_per_second``     taken by the consumer, or by the sink
        ``exposed_wait``           share of the time between two batches that the consumer waited, 0 to 1
        ``exposed_wait_seconds``   time that it waited
        ``exposed_wait_p50``       median of its waits in seconds
        ``exposed_wait_p99``       seconds that 99 % of its waits do not exceed
        ``epoch``                  number of the latest epoch
        ``epoch/KEY``              of the latest epoch: ``batches``, ``samples``, ``samples_per_second`` and the
                                   four keys of the exposed wait
        ``skipped_batches``        skipped by the modules of this machine
        ``skipped_samples``        skipped by the modules of this machine
        ``replaced_samples``       samples that replace bad ones
        ``cores``                  cores that this process may use
        ``modules/N.NAME/KEY``     of module N, counted from 0: ``workers``, ``batches``, ``samples``, ``nbytes``,
                                   and as shares from 0 to 1 ``busy``, ``no_input`` and ``no_room``; ``queue``,
                                   the batches that waited after it on average
        ``machines/N.ROLE/KEY``    of another machine: ``rate``, ``wire``, ``cpu``, ``busy``, ``batches``, ``queue``,
                                   ``skipped``, ``replaced`` (`MachineStats`)
        ``bottleneck``             name of a module or "consumer"; "" where there is none
        ``verdict``                what `verdict` says
        =========================  ==========================================================================
        """
        found: dict[str, float | int | str] = {
            "seconds": self.seconds,
            "batches": self.delivered,
            "samples": self.samples,
            "samples_per_second": self.samples_per_second,
        }
        if self.waits is not None:
            found |= _waits_in(self.waits)
        for latest in self.epochs[-1:]:
            found["epoch"] = latest.epoch or 0
            found |= {
                f"epoch/{name}": figure
                for name, figure in {
                    "batches": latest.batches,
                    "samples": latest.samples,
                    "samples_per_second": latest.samples_per_second,
                    **_waits_in(latest),
                }.items()
            }
        for name in ("skipped_batches", "skipped_samples", "replaced_samples", "cores"):
            found[name] = getattr(self, name)
        for number, module in enumerate(self.modules):
            found |= {
                f"modules/{number}.{module.name}/{key}": figure for key, figure in _columns(module).items()
            }
        for number, machine in enumerate(self.machines):
            for name in ("rate", "wire", "cpu", "busy", "batches", "queue", "skipped", "replaced"):
                found[f"machines/{number}.{machine.role}/{name}"] = getattr(machine, name)
        return found | {"bottleneck": self.limiter or "", "verdict": self.verdict}

    @property
    def machine_table(self) -> str:
        """The figures of the other machines, one line each under a header; empty where there are none."""
        return table_of_machines(self.machines)

    @property
    def _machine_rows(self) -> list[tuple[str, ...]]:
        return _rows_of_machines(self.machines)

    @property
    def table(self) -> str:
        """The figures of every module, one line each under a header, and what was fused or skipped."""
        return "\n".join([_aligned(self._module_rows), *self._remarks])

    @property
    def _module_rows(self) -> list[tuple[str, ...]]:
        header = ("module", "workers", "batches", "samples", "MB", "busy", "no input", "no room", "queue")
        rows: list[tuple[str, ...]] = [header]
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
        return rows

    @property
    def _remarks(self) -> list[str]:
        fused = [f"{name}: fused into the reader." for name in self.left_out]
        return fused + [module.skips for module in self.modules if module.skips]

    @property
    def summary(self) -> str:
        """Numbers of batches, seconds and samples per second, and the waits of the consumer, in one line."""
        rate = f"{self.delivered} batches in {self.seconds:.1f} s, {self.samples_per_second:.0f} samples/s"
        return f"{rate}; {self.waits}" if self.waits is not None and self.waits.batches else rate

    def __str__(self) -> str:
        lines = (self.table, self.machine_table, self.summary, self.tuning, self.verdict)
        return "\n".join(filter(None, lines))

    def _repr_html_(self) -> str:
        """Return the report as HTML: notebooks show it."""
        parts = [f"<p><b>{escape(self.verdict)}</b></p>", _html_table(self._module_rows)]
        if self.machines:
            parts.append(_html_table(self._machine_rows))
        lines = [*self._remarks, self.summary, self.tuning]
        return "\n".join([*parts, f"<p>{'<br>'.join(escape(line) for line in lines if line)}</p>"])


def _slowest(machines: Sequence[MachineStats]) -> MachineStats | None:
    busiest = max(machines, key=lambda machine: machine.busy, default=None)
    return busiest if busiest is not None and busiest.busy >= HARDLY_BUSY else None


def verdict_on_machines(machines: Sequence[MachineStats]) -> str:
    """Return which machine is the bottleneck, and what to do about it.

    Parameters
    ----------
    machines : sequence of MachineStats
        The data machines and the workers of a chain.
    """
    machine = _slowest(machines)
    if not any(machine.rate for machine in machines):
        return "Too early to name the bottleneck: the other machines report their figures every second."
    if machine is None:
        return (
            "No bottleneck: the machines wait for each other or for the network. Try larger batches or a larger "
            "window."
        )
    found = (
        f"The {'data machine' if machine.role == 'data' else machine.role} {machine.name} is the bottleneck: its "
        f"{machine.limiter} was busy {machine.busy:.0%} of the time. "
    )
    if machine.role == "data":
        return found + "Add a data machine, each with its own stream=, or add cores to it."
    return found + "Start another worker, on any machine."


def table_of_machines(machines: Sequence[MachineStats]) -> str:
    """Return the figures of machines, one line each under a header; empty where there are none."""
    return _aligned(_rows_of_machines(machines)) if machines else ""


def _rows_of_machines(machines: Sequence[MachineStats]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
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
        for machine in machines
    ]
    return rows


def _waits_in(waits: WaitStats) -> dict[str, float]:
    return {
        "exposed_wait": waits.share,
        "exposed_wait_seconds": waits.waited,
        "exposed_wait_p50": waits.p50,
        "exposed_wait_p99": waits.p99,
    }


def _columns(module: ModuleStats) -> dict[str, float | int]:
    return {
        "workers": module.workers,
        "batches": module.batches,
        "samples": module.samples,
        "nbytes": module.nbytes,
        "busy": module.busy_share,
        "no_input": module.share(module.waited_input),
        "no_room": module.share(module.waited_room),
        "queue": module.occupancy,
    }


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is its header."""
    cells = [
        "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row)
        for kind, row in zip(("th", *["td"] * (len(rows) - 1)), rows, strict=True)
    ]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def _count(number: int, noun: str, ending: str) -> str:
    return f"{number} {noun}{'' if number == 1 else ending}"


def _all_cores(count: int) -> str:
    return "The only core is" if count == 1 else f"All {count} cores are"


def _workers(count: int) -> str:
    return "worker was" if count == 1 else f"{count} workers were"
